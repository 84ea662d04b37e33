"""A guest's udev may name a NIC while we set it up: then it is named again, once."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.cli.main import main
from reconciler.drivers.vm import execute
from tests.conftest import Kernel, ip
from tests.system.box import nic
from tests.vm.vm import Vm

# The kernel renames a link that is up only from 6.2 on.
_RENAME = b"link set dev eth0 down\nlink set dev eth0 name enp3s0\nlink set dev enp3s0 up\n"


@pytest.mark.parametrize("times", [1, 2])
def test_a_nic_that_is_renamed_as_soon_as_it_is_set_up(
    vm: Vm, kernel: Kernel, times: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tap = kernel.tap()
    ip("link", "set", tap, "up")
    original, renamed = execute.execute, list[str]()

    def renaming(*words: Any) -> Any:
        yield from original(*words)
        if len(renamed) < times:
            vm.guest.output("ip", "-batch", "-", stdin=_RENAME)
            renamed.append("enp3s0")

    wishes = [nic(tap)]
    routes = [{"dest": "10.8.0.0/16", "gateway": "10.0.0.1", "device": "eth0"}]
    with monkeypatch.context() as patched:
        patched.setattr(execute, "execute", renaming)
        code = vm.run(interfaces=wishes, routes=routes)
    assert (code, len(renamed)) == ((0, 1) if times == 1 else (2, 2))
    assert times == 1 or "name is enp3s0, not eth0" in capsys.readouterr().err
    vm.apply(interfaces=wishes, routes=routes)
    assert "10.8.0.0/16 via 10.0.0.1 dev eth0" in vm.guest.output("ip", "route")
    assert main(["diff", str(vm.file)]) == 0
