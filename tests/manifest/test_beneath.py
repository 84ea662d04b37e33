"""Whatever the authors of manifests link to or name, only what is beneath the folder is opened."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.cli.main import main
from reconciler.errors import ManifestError
from reconciler.manifest.beneath import MAX_LINKS, OutsideError, Root, Roots, Source, named
from reconciler.manifest.files import find
from reconciler.manifest.load import load
from reconciler.model.policy import Policy
from tests.manifest.texts import manifest, with_ipvs

SECRET = "root:$y$j9T$hushhush:20000:0:99999:7:::\n"
OUTSIDE = "leads out of m, and only what is beneath it is read"
RULES = "-A -t 10.0.0.1:80 -s rr\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m/below").mkdir(parents=True)
    (tmp_path / "away").mkdir()
    for name in ("secret", "away/secret.yaml", "away/secret.rules"):
        (tmp_path / name).write_text(SECRET)
    (tmp_path / "m/good.yaml").write_text(manifest())
    return tmp_path


def opened(path: str) -> str:
    with Roots() as roots:
        return roots.read(Source(path, ("m",)), 1 << 20).decode()


def problems(*paths: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load(paths)
    return [str(each) for each in caught.value.problems]


class TestPaths:
    @pytest.mark.parametrize(
        "target",
        ["../secret", "../away/secret.yaml", "{}/secret", "/etc/shadow", "below/../../secret", "/proc/self/cwd/secret"],
    )
    def test_a_link_out_of_the_folder(self, target: str, folder: Path) -> None:
        (folder / "m/link").symlink_to(target.format(folder))
        with pytest.raises(OutsideError):
            opened("m/link")

    @pytest.mark.parametrize(
        "target",
        [
            "good.yaml",
            "./below/../good.yaml",
            "../m/good.yaml",
            "{}/m/good.yaml",
            "{}/other/good.yaml",
            "below/back/good.yaml",
        ],
    )
    def test_a_link_that_stays_beneath(self, target: str, folder: Path) -> None:
        (folder / "other").symlink_to("m")
        (folder / "m/below/back").symlink_to("..")
        (folder / "m/link").symlink_to(target.format(folder))
        assert opened("m/link") == manifest()

    def test_a_folder_behind_a_link(self, folder: Path) -> None:
        (folder / "m/away").symlink_to("../away")
        (folder / "m/root").symlink_to("/")
        for path in (
            "m/away/secret.yaml",
            "m/root/etc/shadow",
            "m/../secret",
            "secret",
            f"{folder}/secret",
            "/etc/shadow",
        ):
            with pytest.raises(OutsideError):
                opened(path)

    def test_links_in_a_circle_and_long_chains(self, folder: Path) -> None:
        (folder / "m/a").symlink_to("b")
        (folder / "m/b").symlink_to("a")
        (folder / "m/0").symlink_to("good.yaml")
        for number in range(1, 60):
            (folder / f"m/{number}").symlink_to(f"{number - 1}")
        assert opened(f"m/{MAX_LINKS - 1}") == manifest()
        for path in ("m/a", f"m/{MAX_LINKS}"):
            with pytest.raises(OSError, match="Too many levels of symbolic links"):
                opened(path)

    def test_a_root_that_is_a_link_and_the_whole_file_system(self, folder: Path) -> None:
        (folder / "current").symlink_to("m")
        with Root("current") as root, Root("/") as whole:
            assert root.real == f"{folder}/m"
            for each in (root, whole):
                os.close(each.open(f"{folder}/m/good.yaml"))
            os.close(root.open("current/good.yaml"))

    def test_no_descriptor_stays_open(self, folder: Path) -> None:
        (folder / "m/link").symlink_to("below/../below/./x")
        before = os.listdir("/proc/self/fd")
        for path in (
            "m/good.yaml",
            "m/link",
            "m/below/gone/x",
            "m/../secret",
            "m/good.yaml/x",
            "m/" + "below/../" * 90,
        ):
            with pytest.raises((OSError, ValueError)):
                opened(path + "/.." if path == "m/good.yaml" else path)
        assert os.listdir("/proc/self/fd") == before


class TestManifests:
    @pytest.mark.parametrize(
        "target", ["/etc/shadow", "../secret", "../away/secret.yaml", "/dev/zero", "/proc/self/mem"]
    )
    def test_a_manifest_that_is_a_link(self, target: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "m/evil.yaml").symlink_to(target)
        assert main(["validate", "m"]) == 2
        assert capsys.readouterr().err == f"m/evil.yaml: {OUTSIDE}\n1 problem in 1 file.\n"

    def test_a_folder_that_is_a_link(self, folder: Path) -> None:
        (folder / "m/evil").symlink_to("../away")
        (folder / "m/file").symlink_to("../secret")
        assert problems("m") == [f"m/evil: {OUTSIDE}"]

    @pytest.mark.parametrize(
        "text", [SECRET, "password: hush\n", "hush\n", "-----BEGIN KEY-----\nhush\n", "apiVersion: v1\nhush: [\n"]
    )
    def test_nothing_is_shown_of_what_is_no_manifest(
        self, text: str, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder / "secret").write_text(text)
        (folder / "named.yaml").symlink_to("secret")
        for words in (["validate"], ["validate", "-o", "json"], ["diff"], ["apply"], ["show"]):
            assert main([*words, "named.yaml"]) == 2
            printed = "".join(capsys.readouterr())
            assert "is not a manifest: that begins with" in printed
            assert "hush" not in printed

    def test_a_link_of_another_cannot_hide_a_manifest(self, folder: Path) -> None:
        (folder / "a").mkdir()
        (folder / "a/evil.yaml").symlink_to("../m/good.yaml")
        assert problems("a", "m") == ["a/evil.yaml: leads out of a, and only what is beneath it is read"]
        assert [each.path for each in find("m").files] == ["m/good.yaml"]

    def test_the_path_itself_may_be_a_link(self, folder: Path) -> None:
        (folder / "current").symlink_to("m")
        (folder / "below.yaml").symlink_to(folder / "m/good.yaml")
        for path in ("current", "below.yaml", f"{folder}/current/", "current/good.yaml"):
            assert [each.sandbox.id for each in load([path])] == ["web-1"]


class TestRules:
    @pytest.mark.parametrize(
        "name",
        ["../secret", "../away/secret.rules", "link.rules", "far/secret.rules", "../../../../../../../etc/shadow"],
    )
    def test_out_of_the_folder(self, name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "m/link.rules").symlink_to("/etc/shadow")
        (folder / "m/far").symlink_to("../away")
        (folder / "m/good.yaml").write_text(with_ipvs(f"rulesFile: {name}"))
        # The folder has the link to another folder as well.
        for path, code in (("m", 2), ("m/good.yaml", 3)):
            assert main(["validate", path]) == code
            assert f"ipvs.rulesFile: m/{name}: {OUTSIDE}; to allow it, add to " in capsys.readouterr().err

    def test_what_is_no_rules_is_not_shown(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "m/good.yaml").write_text(with_ipvs("rulesFile: hidden"))
        for text in (SECRET, "-----BEGIN KEY-----\nhush\n", "password=hush\n-A -t x\n"):
            (folder / "m/hidden").write_text(text)
            assert main(["validate", "m"]) == 2
            printed = "".join(capsys.readouterr())
            assert "m/hidden: does not begin as rules do" in printed
            assert "hush" not in printed

    def test_beside_the_link_that_the_operator_named(self, folder: Path) -> None:
        (folder / "m/good.yaml").write_text(with_ipvs("rulesFile: web-1.rules"))
        (folder / "named.yaml").symlink_to("m/good.yaml")
        (folder / "web-1.rules").write_text(RULES)
        assert load(["named.yaml"])[0].rules is not None

    def test_in_a_folder_that_the_operator_allows(self, folder: Path) -> None:
        (folder / "m/good.yaml").write_text(with_ipvs("rulesFile: ../shared/one"))
        (folder / "shared").mkdir()
        (folder / "shared/one").write_text(RULES)
        assert f"{OUTSIDE}; to allow it, add to " in problems("m")[0]
        for folders in (["shared"], [f"{folder}/shared"], ["missing", "shared"]):
            assert load(["m"], Policy(rules_files=tuple(folders)))[0].rules is not None
        (folder / "shared/one").unlink()
        (folder / "shared/one").symlink_to("../secret")
        with pytest.raises(ManifestError, match="leads out of m"):
            load(["m"], Policy(rules_files=("shared",)))

    def test_in_a_folder_of_the_policy(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "m/good.yaml").write_text(with_ipvs(f"rulesFile: ../../../../../..{folder}/shared/one"))
        (folder / "shared").mkdir()
        (folder / "shared/one").write_text(RULES)
        policy = folder / "policy.yaml"
        for folders, code in (("[]", 3), (f'["{folder}/shared"]', 0), (f'["{folder}/away"]', 3)):
            policy.write_text(f"rulesFiles: {folders}\n")
            assert main(["validate", "--policy", str(policy), "m"]) == code
        assert "leads out of m" in capsys.readouterr().err

    def test_and_the_line_that_allows_it_is_named(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        policy = folder / "policy"
        monkeypatch.setattr("reconciler.manifest.policy.POLICY_FILE", str(policy))
        (folder / "m/good.yaml").write_text(with_ipvs("rulesFile: ../shared/one"))
        (folder / "shared").mkdir()
        (folder / "shared/one").write_text(RULES)
        for command in ("validate", "diff", "apply", "show"):
            assert main([command, "m/good.yaml"]) == 3
            (said, *_) = capsys.readouterr().err.splitlines()
            added, _, line = said.partition("; to allow it, ")
            assert added.startswith("m/good.yaml:5:14: ipvs.rulesFile: m/../shared/one: leads out of m")
            assert line == f"add to {policy}: rulesFiles: [{folder}/shared]"
        policy.write_text(line.partition(": ")[2])
        assert main(["validate", "m/good.yaml"]) == 0
        # With anything else wrong, that is what counts.
        policy.unlink()
        (folder / "m/good.yaml").write_text(with_ipvs("rulesFile: ../shared/one", "drain: -1"))
        assert main(["validate", "m/good.yaml"]) == 2


class TestImport:
    def imported(self, capsys: pytest.CaptureFixture[str], include: str) -> str:
        Path("m/lb.conf").write_text(f"include {include}\n")
        assert main(["import", "--sandbox", "a", "--netns", "a", "m/lb.conf"]) == 2
        return capsys.readouterr().err

    @pytest.mark.parametrize(
        "include",
        ["/etc/shadow", "../secret", "../*", "/etc/shado?", "link", "far/*", "/*/shadow", "below/../../secret"],
    )
    def test_an_include_out_of_the_folder(self, include: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "m/link").symlink_to("/etc/shadow")
        (folder / "m/far").symlink_to("../away")
        printed = self.imported(capsys, include)
        assert "leads out of m" in printed
        assert "root:" not in printed

    def test_what_is_no_configuration_is_not_shown(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "m/hidden").write_text(SECRET)
        assert "hush" not in self.imported(capsys, "hid*")

    @pytest.mark.parametrize("notation", ["keepalived", "ipvsadm", "kata"])
    def test_nor_is_it_if_a_notation_is_named(
        self, notation: str, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder / "m/link").symlink_to("../secret")
        assert main(["import", "--sandbox", "a", "--netns", "a", "--from", notation, "m/link"]) == 2
        assert capsys.readouterr().err.startswith("m/link: begins as a file in no known notation does")

    @pytest.mark.usefixtures("root")
    def test_a_device_is_not_opened(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        os.mknod(folder / "m/device", 0o600 | 0o020000, os.makedev(1, 5))
        assert "m/device: is a device, not a regular file" in self.imported(capsys, "device")


@pytest.fixture
def swapping(folder: Path) -> Iterator[Callable[[], int]]:
    """Replace a folder by a link out of the root and back, until the end of the test; return how often so far."""
    (folder / "m/flips").mkdir()
    (folder / "m/flips/good.yaml").write_text(manifest("sandbox: flips", "driver: {netns: {name: flips}}"))
    (folder / "m/.evil").symlink_to(folder / "away")
    (folder / "away/good.yaml").write_text(manifest("sandbox: evil", "driver: {netns: {name: evil}}"))
    ended, times = threading.Event(), [0]

    def swap() -> None:
        while not ended.is_set():
            os.rename(folder / "m/flips", folder / "m/.real")
            os.rename(folder / "m/.evil", folder / "m/flips")
            os.rename(folder / "m/flips", folder / "m/.evil")
            os.rename(folder / "m/.real", folder / "m/flips")
            times[0] += 1

    thread = threading.Thread(target=swap)
    thread.start()
    yield lambda: times[0]
    ended.set()
    thread.join()


def test_a_folder_that_becomes_a_link_while_it_is_searched(
    swapping: Callable[[], int], repeats: Callable[[int], int]
) -> None:
    seen, reported = set(), ""
    for _ in range(repeats(2000)):
        try:
            seen |= {each.sandbox.id for each in load(["m"])}
        except ManifestError as error:
            reported += str(error)
    assert seen <= {"web-1", "flips"}
    assert "hush" not in reported
    assert swapping() > 100


def test_a_named_file_is_in_its_folder_or_where_it_leads(folder: Path) -> None:
    (folder / "link.yaml").symlink_to("m/good.yaml")
    assert named("m/good.yaml") == Source("m/good.yaml", ("m",))
    assert named("link.yaml") == Source("link.yaml", ("", f"{folder}/m"))
