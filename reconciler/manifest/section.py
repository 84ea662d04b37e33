"""The protocol of a section of a manifest, and a document as far as it could be read.

A section is described once, in the module of its objects (`manifest/route.py`), and listed in `manifest/sections.py`.
Everything that handles all sections iterates over that list. A section has the same name in a manifest, in
`model.sandbox.Sandbox` and, for foreign objects, in `model.sandbox.Surroundings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from reconciler.manifest.finding import Finding, Path
from reconciler.model.identity import Keyed, Listed, Subject
from reconciler.model.sandbox import Observed, Sandbox, Surroundings
from reconciler.values import dataclass, field

if TYPE_CHECKING:
    # Most manifests have no checks.
    from reconciler.model.check import Check

T = TypeVar("T", bound=Keyed)


@dataclass(slots=True)
class Draft:
    """A document as far as it could be read.

    `data` is the document as written. `driver` names the driver (`netns`, `vm`, `kata`), empty if that could not be
    read. `sections` maps names to what `Section.read` returned. A list has None in place of an invalid item, so that
    the others keep their indexes. `checks`: likewise.
    """

    data: Mapping[str, Any]
    driver: str = ""
    sections: dict[str, Any] = field(default_factory=dict)
    checks: list[Check | None] = field(default_factory=list)

    def items(self, section: ListSection[T]) -> list[T | None]:
        """Return the items of a section; none if the document does not have it."""
        return cast("list[T | None]", self.sections.get(section.name) or [])


class Section(Protocol):
    """One section of a manifest. Its value in a sandbox is None if the manifest does not have it: leave it alone."""

    @property
    def name(self) -> str:
        """Return its name: see the docstring of the module."""

    def read(self, draft: Draft, findings: list[Finding], rules: str | None) -> Any:
        """Read it without what `findings` of the schema are about, and add further findings.

        Return None if it is absent. `rules`: the text of the file that the document names as its `rulesFile`.
        """

    def complete(self, drafted: Any) -> Any:
        """Return its value in a sandbox, from what `read` returned without findings."""

    def write(self, value: Any) -> Any:
        """Return the data of a value, without defaults."""

    def check(self, draft: Draft) -> Iterable[Finding]:
        """Return findings about several objects, such as duplicates."""

    def check_kata(self, draft: Draft) -> Iterable[Finding]:
        """Return findings about what the command line of kata-runtime cannot do, with the reason."""

    def asks_for_all(self, value: Any) -> Any:
        """Return the value with which all our objects are observed; `value` is that of the manifest."""

    def none_of_ours(self, value: Any) -> Any:
        """Return `value` without its objects, so that all our objects are deleted."""

    def locate(self, value: Any, subject: Subject) -> Path | None:
        """Return the path of the object of an operation; () if it is not desired, None if it is of another section."""

    def list_ours(self, observed: Observed) -> Iterator[str]:
        """Yield our objects as lines of `show -o text`."""

    def list_foreign(self, around: Surroundings) -> Iterable[str]:
        """Return foreign objects as lines of `show -o text`."""


def no_findings(*_: object) -> Iterable[Finding]:
    """Return no findings."""
    return ()


def refused_by_kata(section: str, reason: str) -> Callable[[Draft], Iterator[Finding]]:
    """Return a check that refuses a section unless it is empty, because kata-runtime cannot execute it."""

    def check(draft: Draft) -> Iterator[Finding]:
        if draft.sections.get(section):
            yield Finding((section,), reason)

    return check


def iproute2_words(item: Any) -> str:
    """Return a rule or a neighbour as iproute2 writes it."""
    # Only a listing pays for the import.
    from reconciler.formats.iproute2 import item_words

    return item_words(item)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListSection(Generic[T]):
    """A section that is a list of objects. See `Section`.

    `read_item` and `write_item` convert one object from and to data, `words` returns its line in a listing. `checks`
    and `kata_checks` implement `check` and `check_kata`.
    """

    name: str
    read_item: Callable[[Any, Path, list[Finding]], T | None]
    write_item: Callable[[T], dict[str, Any]]
    words: Callable[[T], str]
    kata_checks: Callable[[Draft], Iterable[Finding]]
    checks: Callable[[Draft], Iterable[Finding]] = no_findings

    def read(self, draft: Draft, findings: list[Finding], rules: str | None) -> list[T | None] | None:
        """Read the list."""
        del rules
        items = draft.data.get(self.name)
        if not isinstance(items, list):
            return None
        name, read = self.name, self.read_item
        flagged = {finding.path[:2] for finding in findings if finding.path[:1] == (name,)}
        return [
            None if flagged and (name, index) in flagged else read(item, (name, index), findings)
            for index, item in enumerate(items)
        ]

    def complete(self, drafted: Sequence[T | None] | None) -> tuple[T, ...] | None:
        """Return the objects."""
        return None if drafted is None else tuple([item for item in drafted if item])

    def write(self, value: Sequence[T]) -> list[dict[str, Any]]:
        """Return the data of the list, without defaults."""
        return [self.write_item(item) for item in value]

    def check(self, draft: Draft) -> Iterable[Finding]:
        """Check the objects against each other and against those of other sections."""
        return self.checks(draft)

    def check_kata(self, draft: Draft) -> Iterable[Finding]:
        """Return findings about what kata-runtime cannot do."""
        return self.kata_checks(draft)

    def asks_for_all(self, value: Sequence[T] | None) -> tuple[T, ...]:
        """Return an empty list, with which all our objects are observed."""
        del value
        return ()

    def none_of_ours(self, value: Sequence[T]) -> tuple[T, ...]:
        """Return an empty list."""
        del value
        return ()

    def locate(self, value: Sequence[T] | None, subject: Subject) -> Path | None:
        """Return the path of an object by its key."""
        if not isinstance(subject, Listed) or subject.section != self.name:
            return None
        indexes = (index for index, item in enumerate(value or ()) if item.key == subject.key)
        index = next(indexes, None)
        return () if index is None else (self.name, index)

    def list_ours(self, observed: Observed) -> Iterator[str]:
        """Yield one line for each of our objects."""
        return map(self.words, self.of(observed.sandbox) or ())

    def list_foreign(self, around: Surroundings) -> Iterator[str]:
        """Yield one line for each foreign object."""
        found: Sequence[T] = getattr(around, self.name)
        return map(self.words, found)

    def of(self, sandbox: Sandbox) -> tuple[T, ...] | None:
        """Return the objects of a sandbox."""
        return cast("tuple[T, ...] | None", getattr(sandbox, self.name))
