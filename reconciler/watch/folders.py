"""Calls the watcher when something may have changed in folders, by inotify where possible.

Events are hints and nothing more. inotify watches the folder that a name led to at that moment, not the name. A folder
that is deleted and created again is a different folder, often with the same inode number. A full queue drops events, a
reached limit drops all of them, and a network file system never reports changes that other hosts made. So a call only
means "check the files", and after each check the caller asks for the next call (`wake_within`), with or without events.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from time import monotonic

from watchdog import events
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from reconciler.watch.files import Stamp, read_stamp

# Seconds between the first event and the call: events come in groups.
GATHER = 0.05
# Seconds between two checks of the files where inotify does not report all changes.
POLL = 2.0
# Seconds without a write after which a file that a program has open counts as complete.
UNFINISHED = 30.0
# The most folders that are watched: watchdog starts a thread for each.
MAX_FOLDERS = 100

# All events but those of reading: each of our own checks would cause one.
_EVENTS: list[type[FileSystemEvent]] = [
    events.FileCreatedEvent,
    events.FileModifiedEvent,
    events.FileAttribEvent,
    events.FileClosedEvent,
    events.FileMovedEvent,
    events.FileDeletedEvent,
    events.DirCreatedEvent,
    events.DirMovedEvent,
    events.DirDeletedEvent,
]
# Types of file systems on which others change files without inotify events. FUSE has the types `fuse` and `fuse.NAME`.
REMOTE = {"9p", "afs", "ceph", "cifs", "coda", "fuse", "gfs2", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "virtiofs"}

_log = logging.getLogger(__name__)


class _Folder(FileSystemEventHandler):
    """One watched folder.

    `names`: the entries that matter; None: everything in it and below. `lost`: the folder was deleted or moved.
    """

    def __init__(self, path: str, names: set[str] | None, forward: Callable[[str, FileSystemEvent], None]) -> None:
        self.path, self.names, self.lost = path, names, False
        self.watch: ObservedWatch | None = None
        self.identity = _read_identity(path)
        self._forward = forward

    def is_stale(self, names: set[str] | None) -> bool:
        """Return whether the folder must be watched anew, for these names."""
        return self.lost or (self.names is None) != (names is None) or self.identity != _read_identity(self.path)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Forward an event if it matters."""
        source, target = os.fsdecode(event.src_path), os.fsdecode(event.dest_path)
        if source == self.path:
            self.lost |= event.event_type in {events.EVENT_TYPE_DELETED, events.EVENT_TYPE_MOVED}
        elif not any(map(self._matters, filter(None, (source, target)))):
            return
        self._forward(source, event)

    def _matters(self, path: str) -> bool:
        if self.names is None:
            # In `.git`, only the lock matters, and each check of the files looks for it.
            return "/.git/" not in path
        folder, name = os.path.split(path)
        return folder == self.path and name in self.names


def _read_identity(path: str) -> tuple[int, int] | None:
    found = read_stamp(path)
    return found and (found.device, found.inode)


class WakeTimer:
    """A thread that calls a function at the earliest time that anyone has asked for."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._due = math.inf
        self._stopped = False
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="watch-files", daemon=True)
        self._thread.start()

    def wake_within(self, seconds: float) -> None:
        """Call no later than so many seconds from now."""
        with self._condition:
            due = monotonic() + seconds
            if due < self._due:
                self._due = due
                self._condition.notify()

    def stop(self) -> None:
        """Make no more calls, and end the thread. The called function may call this itself."""
        with self._condition:
            self._stopped = True
            self._condition.notify()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while self._wait():
            self._call()

    def _wait(self) -> bool:
        """Wait until a call is due; return False if the timer was stopped."""
        with self._condition:
            while not self._stopped and (left := self._due - monotonic()) > 0:
                self._condition.wait(min(left, threading.TIMEOUT_MAX))
            self._due = math.inf
            return not self._stopped


class Folders:
    """Calls `wake` when something may have changed in the watched folders, and when `wake_within` asks for it.

    `polling`: why the caller must ask for a call every POLL seconds; empty if inotify reports all changes. One thread
    uses all methods; `wake` is called from another one.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.polling = ""
        self._limit_reached = False
        self._remote: dict[int, str] = {}
        self._folders: dict[str, _Folder] = {}
        # Files that were written to and not closed since, with the time of the last write. Two threads use this, so
        # each access is one atomic step.
        self._unfinished: dict[str, float] = {}
        self._observer: BaseObserver | None = None
        self._timer = WakeTimer(wake)

    def wake_within(self, seconds: float) -> None:
        """Call `wake` no later than so many seconds from now."""
        self._timer.wake_within(seconds)

    def stop(self) -> None:
        """Make no more calls, and end all threads."""
        self._timer.stop()
        self._stop_observer()

    def watch(self, folders: Mapping[str, set[str] | None]) -> bool:
        """Watch these folders, as `folders_to_watch` returns them, and no others.

        Return whether the watch on some of them began only now: a change just before had no event, so check once more.
        """
        if len(folders) > MAX_FOLDERS:
            folders = dict(islice(folders.items(), MAX_FOLDERS))
            self._start_polling(f"there are more than {MAX_FOLDERS} folders")
        for path, folder in list(self._folders.items()):
            if path not in folders or folder.is_stale(folders[path]):
                self._remove(path)
        added = [path for path, names in folders.items() if self._is_new(path, names) and self._add(path, names)]
        return bool(added)

    def find_unfinished(self, stamps: Iterable[Stamp | None]) -> str | None:
        """Return the path of one of these files that a program is still writing, judging by events, or None."""
        if not self._unfinished:
            return None
        identities = {each[:2] for each in stamps if each}
        for path, last_write in dict(self._unfinished).items():
            found = _read_identity(path)
            if found is None or monotonic() - last_write > UNFINISHED:
                self._unfinished.pop(path, None)
            elif found in identities:
                return path
        return None

    def _is_new(self, path: str, names: set[str] | None) -> bool:
        if path in self._folders:
            self._folders[path].names = names
            return False
        return not self._limit_reached and os.path.isdir(path)

    def _add(self, path: str, names: set[str] | None) -> bool:
        """Watch a folder; return False if that is not possible."""
        folder = _Folder(path, names, self._on_event)
        try:
            if reason := self._reason_to_poll(path):
                self._start_polling(reason)
            if self._observer is None:
                self._observer = Observer()
                self._observer.start()
            folder.watch = self._observer.schedule(folder, path, recursive=names is None, event_filter=_EVENTS)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            # Watching only some of the folders is useless, and uses up watches that other programs need.
            self._stop_observer()
            self._limit_reached = True
            self._start_polling(f"{error.strerror} (sysctl fs.inotify)")
            return False
        self._folders[path] = folder
        return True

    def _remove(self, path: str) -> None:
        folder = self._folders.pop(path)
        if self._observer and folder.watch:
            self._observer.unschedule(folder.watch)

    def _stop_observer(self) -> None:
        self._folders.clear()
        if self._observer:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def _reason_to_poll(self, path: str) -> str:
        """Return why inotify does not report what happens in a folder; empty if it does."""
        if not os.access(path, os.R_OK):
            return f"{path} cannot be listed"
        device = os.stat(path).st_dev
        if device not in self._remote:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
                self._remote[device] = find_remote_type(device, mounts)
        return f"{path} is on {self._remote[device]}" if self._remote[device] else ""

    def _start_polling(self, reason: str) -> None:
        if not self.polling:
            self.polling = reason
            _log.warning("inotify does not report every change, so the files are checked every %g s: %s", POLL, reason)

    def _on_event(self, path: str, event: FileSystemEvent) -> None:
        """Handle an event. A thread of watchdog calls this."""
        if event.event_type == events.EVENT_TYPE_MODIFIED:
            self._unfinished[path] = monotonic()
        elif event.event_type == events.EVENT_TYPE_CLOSED:
            self._unfinished.pop(path, None)
        self._timer.wake_within(GATHER)


def find_remote_type(device: int, mounts: Iterable[str]) -> str:
    """Return the type of a device's file system if it is in REMOTE, else "". `mounts`: lines of mountinfo, proc(5)."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts:
        before, _, after = line.partition(" - ")
        kind = after.partition(" ")[0]
        if before.split()[2] == number and kind.partition(".")[0] in REMOTE:
            return kind
    return ""
