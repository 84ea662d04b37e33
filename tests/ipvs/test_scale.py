"""20,000 rules: the table is right whatever was there before, in whatever order; the order only affects speed."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.ipvs.place import MachineTable
from tests.ipvs.rules import rules

RULES = rules()


def apply(reached: MachineTable, lines: Sequence[str], *options: str) -> str:
    ran = reached.reconciler("apply", *options, reached.manifest(rules="\n".join(lines)))
    assert ran.status == 0, ran
    return ran.stdout


def shuffled(lines: list[str]) -> list[str]:
    """Give the same services and servers in another order."""
    dice = random.Random(7)
    groups = [lines[index : index + 4] for index in range(0, len(lines), 4)]
    dice.shuffle(groups)
    return [line for head, *servers in groups for line in (head, *dice.sample(servers, len(servers)))]


def test_a_table_is_filled_lost_restored_and_emptied(reached: MachineTable) -> None:
    """At first the kernel has servers of others on its list of removed ones, in their order."""
    reached.load("\n".join(shuffled(rules(500, first=2000))) + "\n")
    reached.clear()
    assert "applied 20,000 operations" in apply(reached, RULES)
    saved = reached.saved()
    assert sorted(saved) == sorted(RULES)
    assert "in sync" in apply(reached, shuffled(RULES))
    reached.clear()
    assert "applied 20,000 operations" in apply(reached, shuffled(RULES))
    # `ipvsadm -S` sorts: line by line, whatever the order in which it came about.
    assert reached.saved() == saved
    refused = reached.reconciler("apply", reached.manifest(services=[]))
    assert refused.status == 3
    assert "all 5,000 IPVS services" in refused.stderr
    assert "all 15,000 IPVS servers" in refused.stderr or "15,000 of 15,000" in refused.stderr
    assert reached.reconciler("apply", "--allow-delete", "all", reached.manifest(services=[])).status == 0
    assert reached.saved() == []


def test_a_table_beside_that_of_others(reached: MachineTable) -> None:
    """Some are named by the manifest and differ, some are nobody's but theirs, some of ours are gone."""
    theirs = [line.replace("10.10.", "10.200.") for line in rules(100)]
    same = [line.replace("-w 1", "-w 9").replace("-p 300", "-p 301") for line in rules(100)]
    reached.load("\n".join(theirs + same) + "\n")
    ours = rules(1000)
    apply(reached, ours)
    assert sorted(reached.saved()) == sorted(ours + theirs)
    lost = [line.replace("-A", "-D").partition(" -s ")[0] for line in ours[1000:3000] if line.startswith("-A")]
    reached.load("\n".join(lost) + "\n")
    assert "applied 2,000 operations" in apply(reached, ours)
    assert sorted(reached.saved()) == sorted(ours + theirs)
