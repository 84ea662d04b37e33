"""A call when something may have changed in folders.

Traps: inotify follows what a name led to when it was asked, not the name; a folder that is removed and made again is another
one, often with the same inode; a full queue loses events, a reached limit all of them, and a network file system never tells
what others did. So a call means no more than "look", and whoever is called asks for the next one, whatever happens.
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

from reconciler.watch.files import Stamp, stamp

# After an event others follow; the first one is told of so much later.
GATHER = 0.05
# How often to look where nobody tells.
POLL = 2.0
# Whoever holds a file open this long without writing is not waited for.
UNFINISHED = 30.0
# Each takes a thread.
MAX_FOLDERS = 100

# Without those of reading: each of our looks would be an event.
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
# Types of file systems whose files change without this kernel knowing. Those of FUSE are `fuse` and `fuse.NAME`.
REMOTE = {"9p", "afs", "ceph", "cifs", "coda", "fuse", "gfs2", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "virtiofs"}

_log = logging.getLogger(__name__)


class _Folder(FileSystemEventHandler):
    """A folder that is watched. `names`: what matters in it; None: all, and all below. `lost`: it is no more."""

    def __init__(self, path: str, names: set[str] | None, tell: Callable[[str, FileSystemEvent], None]) -> None:
        self.path, self.names, self.lost = path, names, False
        self.watch: ObservedWatch | None = None
        self.identity = _identity(path)
        self._tell = tell

    def is_stale(self, names: set[str] | None) -> bool:
        """Tell whether it must be watched anew."""
        return self.lost or (self.names is None) != (names is None) or self.identity != _identity(self.path)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Pass on what matters."""
        source, target = os.fsdecode(event.src_path), os.fsdecode(event.dest_path)
        if source == self.path:
            self.lost |= event.event_type in {events.EVENT_TYPE_DELETED, events.EVENT_TYPE_MOVED}
        elif not any(map(self._matters, filter(None, (source, target)))):
            return
        self._tell(source, event)

    def _matters(self, path: str) -> bool:
        if self.names is None:
            # Of git, only its lock is of interest, and that is looked for.
            return "/.git/" not in path
        folder, name = os.path.split(path)
        return folder == self.path and name in self.names


def _identity(path: str) -> tuple[int, int] | None:
    found = stamp(path)
    return found and (found.device, found.inode)


class Alarm:
    """A thread that calls when it is asked to."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._due = math.inf
        self._stopped = False
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="watch-files", daemon=True)
        self._thread.start()

    def within(self, seconds: float) -> None:
        """Call no later than so many seconds from now."""
        with self._condition:
            due = monotonic() + seconds
            if due < self._due:
                self._due = due
                self._condition.notify()

    def stop(self) -> None:
        """Call no more."""
        with self._condition:
            self._stopped = True
            self._condition.notify()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while self._wait():
            self._call()

    def _wait(self) -> bool:
        with self._condition:
            while not self._stopped and (left := self._due - monotonic()) > 0:
                self._condition.wait(min(left, threading.TIMEOUT_MAX))
            self._due = math.inf
            return not self._stopped


class Folders:
    """Calls `wake` when something may have changed in folders, and when it is asked to.

    `polling`: why it must be asked every POLL seconds; empty: it need not be. All but the calls is for one thread.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.polling = ""
        self._limited = False
        self._remote: dict[int, str] = {}
        self._folders: dict[str, _Folder] = {}
        # Files written to and not closed since, and the time of the last write. Both threads use it, a step at a time.
        self._open: dict[str, float] = {}
        self._observer: BaseObserver | None = None
        self._alarm = Alarm(wake)

    def within(self, seconds: float) -> None:
        """Call no later than so many seconds from now."""
        self._alarm.within(seconds)

    def stop(self) -> None:
        """Call no more, and leave no thread."""
        self._alarm.stop()
        self._forget()

    def follow(self, folders: Mapping[str, set[str] | None]) -> bool:
        """Watch these folders as `wanted` gives them, and no others. True: some only now, so look once more."""
        if len(folders) > MAX_FOLDERS:
            folders = dict(islice(folders.items(), MAX_FOLDERS))
            self._poll(f"there are more than {MAX_FOLDERS} folders")
        for path, folder in list(self._folders.items()):
            if path not in folders or folder.is_stale(folders[path]):
                self._leave(path)
        added = [path for path, names in folders.items() if self._is_new(path, names) and self._enter(path, names)]
        return bool(added)

    def being_written(self, stamps: Iterable[Stamp | None]) -> str | None:
        """Give the name of one of these files if somebody is still writing it, as far as events told."""
        if not self._open:
            return None
        identities = {each[:2] for each in stamps if each}
        for path, since in dict(self._open).items():
            found = _identity(path)
            if found is None or monotonic() - since > UNFINISHED:
                self._open.pop(path, None)
            elif found in identities:
                return path
        return None

    def _is_new(self, path: str, names: set[str] | None) -> bool:
        if path in self._folders:
            self._folders[path].names = names
            return False
        return not self._limited and os.path.isdir(path)

    def _enter(self, path: str, names: set[str] | None) -> bool:
        folder = _Folder(path, names, self._told)
        try:
            if reason := self._blindness(path):
                self._poll(reason)
            if self._observer is None:
                self._observer = Observer()
                self._observer.start()
            folder.watch = self._observer.schedule(folder, path, recursive=names is None, event_filter=_EVENTS)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            # A part is of no use, and takes from what others may watch.
            self._forget()
            self._limited = True
            self._poll(f"{error.strerror} (sysctl fs.inotify)")
            return False
        self._folders[path] = folder
        return True

    def _leave(self, path: str) -> None:
        folder = self._folders.pop(path)
        if self._observer and folder.watch:
            self._observer.unschedule(folder.watch)

    def _forget(self) -> None:
        self._folders.clear()
        if self._observer:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def _blindness(self, path: str) -> str:
        """Say why nothing of what happens in a folder will be told."""
        if not os.access(path, os.R_OK):
            return f"{path} cannot be listed"
        device = os.stat(path).st_dev
        if device not in self._remote:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
                self._remote[device] = remote_type(device, mounts)
        return f"{path} is on {self._remote[device]}" if self._remote[device] else ""

    def _poll(self, reason: str) -> None:
        if not self.polling:
            self.polling = reason
            _log.warning("changes of files are not (all) told, so they are looked at every %g s: %s", POLL, reason)

    def _told(self, path: str, event: FileSystemEvent) -> None:
        """Take an event, in a thread of watchdog."""
        if event.event_type == events.EVENT_TYPE_MODIFIED:
            self._open[path] = monotonic()
        elif event.event_type == events.EVENT_TYPE_CLOSED:
            self._open.pop(path, None)
        self._alarm.within(GATHER)


def remote_type(device: int, mounts: Iterable[str]) -> str:
    """Find the type of a device's file system in lines of mountinfo (proc(5)); empty unless it is a remote one."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts:
        before, _, after = line.partition(" - ")
        kind = after.partition(" ")[0]
        if before.split()[2] == wanted and kind.partition(".")[0] in REMOTE:
            return kind
    return ""
