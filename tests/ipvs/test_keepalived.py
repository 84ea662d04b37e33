"""What is imported is what a real keepalived sets up: the real ipvsadm sees no difference between the two tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.formats.keepalived import generator
from tests.formats.keepalived.generator import CONFIG_ID
from tests.ipvs import keepalived
from tests.ipvs.place import DEFAULT_TIMEOUTS, ID, Vm
from tests.machine import Guest

# What the random ones do not have. keepalived ignores those whose addresses begin with 10.3.
WRITTEN = """\
global_defs {
    router_id LB1
@lb1 lvs_timeouts tcp 7200 tcpfin 30 udp 60
@lb2 lvs_timeouts tcp 1
}
virtual_server_group BOTH {
    10.2.0.1 80
    10.2.0.2-4 81
    10.2.1.0/30 443
    10.2.0.254-10.2.0.255 80
    fwmark 7001 inet
    fd00:2::1 80
    fd00:2::fffe-ffff 80
    fwmark 7002 inet6
}
virtual_server group BOTH {
    protocol TCP
    persistence_timeout 50
    persistence_granularity 64
    lb_kind TUN
    real_server 10.9.0.1 8080 { weight 3 }
    real_server fd00:9::1 { }
}
virtual_server_group IPV4 {
    10.2.2.1 80
    10.2.2.2
    fwmark 7003
}
virtual_server group IPV4 {
    protocol udp
    ops
    real_server 10.9.0.1 {
        uthreshold 10
        lthreshold 5
    }
    real_server 10.9.0.2 8080 { }
}
virtual_server 10.2.3.1/24 80 {
    protocol TCP
    lb_kind DR
    real_server 10.9.0.1-5 80 { }
    lb_kind NAT
    real_server 10.9.0.2 81 { }
    weight 9
}
virtual_server 10.2.3.2 {
    protocol TCP
    sorry_server 10.9.0.9 80
    real_server 10.9.0.1 8080 {
        MISC_CHECK { misc_path "/bin/check { ${_PWD} }" }
    }
}
virtual_server fwmark 7004 {
    lb_kind TUN type gre csum
    sorry_server fd00:9::9
    real_server fd00:9::1 { }
}
virtual_server fwmark 7005 {
    lb_kind TUN
    real_server fd00:9::1 { }
    real_server 10.9.0.1 { }
}
virtual_server fwmark 7006 {
    persistence_granularity 64
    lb_kind TUN
    real_server 10.9.0.1 80 { }
}
virtual_server_group MIXED {
    10.3.0.1 80
    fd00:3::1 80
    fwmark 7007
}
virtual_server group MIXED {
    protocol TCP
    lb_kind TUN
    real_server 10.9.0.1 80 { }
}
virtual_server_group OTHER {
    10.3.0.2 80
}
virtual_server group OTHER {
    protocol TCP
    real_server fd00:9::1 80 { }
}
virtual_server 10.3.0.3 80 {
    protocol TCP
}
"""


@pytest.fixture(scope="module")
def installed_keepalived(guest: Guest) -> Iterator[None]:
    keepalived.install(guest)
    yield
    keepalived.remove(guest)


@pytest.mark.usefixtures("installed_keepalived")
def test_keepalived_sets_up_what_is_imported(vm: Vm, tmp_path: Path, repeats: Callable[[int], int]) -> None:
    for seed in range(repeats(4)):
        random = Random(seed)
        services = generator.services(random, most=40)
        configuration = generator.folded(random, services)
        files = {"keepalived.conf": f"{configuration.text}\ninclude written.inc", "written.inc": WRITTEN}
        folder = tmp_path / str(seed)
        folder.mkdir()
        for name, text in (files | configuration.files).items():
            (folder / name).write_text(f"{text}\n")
        log = keepalived.set_up(vm.guest, folder, "keepalived.conf", CONFIG_ID)
        by_keepalived = table(vm)
        assert sum(line.startswith("-A") for line in by_keepalived) > len(services), log
        vm.shell(f"ipvsadm -C; ipvsadm --set {DEFAULT_TIMEOUTS}")
        chosen = ("--sandbox", ID, "--vm", vm.guest.sandbox.name, "--config-id", CONFIG_ID)
        ran = vm.reconciler("import", *chosen, str(folder / "keepalived.conf"))
        assert ran.status == 0, ran.stderr
        ran = vm.reconciler("apply", vm.file("manifest.yaml", ran.stdout))
        assert ran.status == 0, ran
        assert table(vm) == by_keepalived, log
        vm.clear()


def table(vm: Vm) -> list[str]:
    """Return what ipvsadm says of the table and of its timeouts, without order."""
    saved, thresholds = vm.table("ipvsadm -Ln --timeout")
    return sorted(saved) + sorted(thresholds)
