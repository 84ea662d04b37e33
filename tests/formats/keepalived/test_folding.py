"""A configuration that repeats and chooses lines is what it is written out; or virtual servers are left out whole."""

from __future__ import annotations

import re
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from reconciler.formats.keepalived.variants import parse
from reconciler.model.ipvs import Service
from tests.formats.keepalived import generator
from tests.formats.keepalived.generator import CONFIG_ID, Configuration

DEPENDS = "not imported because it depends on the configuration ID"
# A definition of one line.
DEFINITION = re.compile(r"\$[A-Z]_[0-9]+=.*[^\\]")


def read(configuration: Configuration, config_id: str | None = None) -> tuple[list[Service], list[str], list[str]]:
    """Return the services, the problems, and the notes."""
    problems: list[str] = []
    notes: list[str] = []
    found = parse(
        "keepalived.conf",
        configuration.text,
        lambda pattern, _: [(pattern, configuration.files[pattern])],
        lambda position, message: problems.append(f"{position}: {message}"),
        lambda position, message: notes.append(f"{position}: {message}"),
        config_id,
    )
    return [service for _, service in found.services], problems, notes


@given(st.randoms(use_true_random=False))
def test_what_is_folded_is_read_as_what_is_written_out(random: Random) -> None:
    services = generator.services(random)
    assert read(Configuration(generator.plain(services), {})) == (services, [], [])
    assert read(generator.folded(random, services), CONFIG_ID) == (services, [], [])


@given(st.randoms(use_true_random=False))
def test_without_an_id_nothing_is_invented(random: Random) -> None:
    services = generator.services(random)
    found, problems, notes = read(generator.folded(random, services))
    assert all(service in services for service in found)
    assert len(found) == len(services) or problems or any(DEPENDS in note for note in notes)


@given(st.randoms(use_true_random=False))
def test_without_a_definition_nothing_is_invented(random: Random) -> None:
    services = generator.services(random)
    configuration = generator.folded(random, services)
    lines = configuration.text.split("\n")
    definitions = [number for number, line in enumerate(lines) if DEFINITION.fullmatch(line)]
    if not definitions:
        return
    del lines[random.choice(definitions)]
    found, problems, notes = read(Configuration("\n".join(lines), configuration.files), CONFIG_ID)
    assert all(service in services for service in found)
    assert len(found) == len(services) or problems or any("not imported because" in note for note in notes)
