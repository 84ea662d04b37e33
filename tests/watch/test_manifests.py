"""Stories of manifests that are wrong, gone, moved or at odds with each other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.watch import manifests
from reconciler.watch.manifests import ManifestSet
from tests.manifest.texts import with_ipvs
from tests.special import SPECIAL, reason, special
from tests.watch.running import until
from tests.watch.story import Start, same, text, versions, write


class TestMistakes:
    def test_a_broken_one_holds_and_the_others_go_on(self, start: Start) -> None:
        write("m", [1, 2], 0)
        watch = start("m")
        watch.until_versions(same([1, 2], 0))
        Path("m/s1.yaml").write_text(text(1, 1).replace("mtu: 1500", "mtu: big"))
        write("m", [2], 1)
        broken = watch.until_versions({"s1": 0, "s2": 1})
        assert list(broken.broken) == ["s1"]
        assert broken.broken["s1"] == str(broken.problems[0])
        assert broken.broken["s1"].startswith("m/s1.yaml:8:8: interfaces[0].mtu: ")
        write("m", [1], 2)
        mended = watch.until_versions({"s1": 2, "s2": 1})
        assert (mended.broken, mended.problems) == ({}, ())

    def test_a_new_one_that_is_broken_is_named_by_its_file(self, start: Start) -> None:
        write("m", [1], 0)
        Path("m/new.yaml").write_text("[")
        reading = start("m").until(lambda _: True)
        assert (versions(reading), list(reading.broken)) == ({"s1": 0}, ["m/new.yaml"])

    def test_one_document_of_a_file(self, start: Start) -> None:
        Path("all.yaml").write_text(text(1) + "---\n" + text(2))
        watch = start("all.yaml")
        watch.until_versions(same([1, 2], 0))
        Path("all.yaml").write_text(text(1, 1) + "---\n" + text(2, 1).replace("sandbox:", "sandbx:"))
        reading = watch.until_versions({"s1": 1, "s2": 0})
        assert list(reading.broken) == ["s2"]

    @pytest.mark.parametrize("kind", SPECIAL)
    def test_what_is_no_regular_file_is_told(self, kind: str, start: Start) -> None:
        write("m", [1], 0)
        with special(kind, Path("m/s2.yaml")):
            reading = start("m").until(lambda _: True)
        told = {"m/s2.yaml": f"m/s2.yaml: {reason(kind, 'm')}"}
        assert (versions(reading), reading.broken) == ({"s1": 0}, told)
        assert [str(each) for each in reading.problems] == list(told.values())

    def test_a_file_by_two_paths_is_one_file(self, start: Start) -> None:
        write("m", [1], 0)
        Path("link").symlink_to("m")
        watch = start("m/s1.yaml", "./m", "link")
        reading = watch.until(lambda _: True)
        assert (versions(reading), reading.problems, reading.missing) == ({"s1": 0}, (), ())
        write("m", [1], 1)
        assert watch.until_versions({"s1": 1}).problems == ()

    def test_a_folder_behind_a_link(self, start: Start) -> None:
        write("m", [1], 0)
        write("m/.elsewhere", [2], 0)
        Path("m/link").symlink_to(".elsewhere")
        watch = start("m")
        watch.until_versions({"s1": 0, "s2": 0})
        write("m/.elsewhere", [2, 3], 1)
        watch.until_versions({"s1": 0, "s2": 1, "s3": 1})
        write("m/.other", [4], 0)
        Path("new").symlink_to(".other")
        Path("new").rename("m/link")
        assert watch.until_versions({"s1": 0, "s4": 0}).problems == ()

    def test_a_file_that_never_rests_is_told(
        self, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        # So long that it does not rest on a busy machine either.
        monkeypatch.setattr(manifests, "SETTLE", 1.5)
        monkeypatch.setattr(manifests, "PATIENCE", 1.0)
        monkeypatch.setattr(manifests, "POLL", 0.1)
        write("m", [1, 2], 0)
        watch = start("m")
        watch.until_versions(same([1, 2], 0))

        def log() -> None:
            def told() -> str:
                write("m", [2], 1)
                return watch.reader.unsettled

            until(told, "the alarm", longest=0.05)

        assert watch.run_during(log, 0.0) == []
        assert "m/s2.yaml changed just now" in watch.reader.unsettled
        assert len(caplog.records) == 1
        watch.until_versions({"s1": 0, "s2": 1})
        assert watch.reader.unsettled == ""

    def test_rules_beside_a_manifest(self, start: Start) -> None:
        def reads(count: int) -> Callable[[ManifestSet], bool]:
            def wish(reading: ManifestSet) -> bool:
                ipvs = reading.manifests["web-1"].sandbox.ipvs
                return bool(ipvs and ipvs.services and len(ipvs.services) == count and not reading.broken)

            return wish

        rules = [f"-A -t 10.0.0.{number}:80 -s rr\n" for number in range(1, 5)]
        Path("m/rules").mkdir(parents=True)
        Path("m/below").mkdir()
        Path("m/rules/one").write_text(rules[0])
        Path("m/below/web-1.yaml").write_text(with_ipvs("rulesFile: ../rules/one"))
        watch = start("m")
        watch.until(reads(1))
        Path("m/rules/one").write_text("".join(rules[:2]))
        watch.until(reads(2))
        Path("m/rules/one").write_text("-A -t nowhere\n")
        assert list(watch.until(lambda reading: bool(reading.broken)).broken) == ["web-1"]
        Path("m/rules/one").unlink()
        watch.until(lambda reading: "No such file" in str(reading.broken))
        Path("m/below/web-1.yaml").write_text(with_ipvs("rulesFile: ../rules/two"))
        watch.until(lambda reading: "rules/two" in str(reading.broken))
        Path("m/rules/two").write_text("".join(rules))
        watch.until(reads(4))


class TestTogether:
    def test_gone_from_a_path_that_is_there(self, start: Start) -> None:
        write("m", [1, 2], 0)
        watch = start("m")
        watch.until_versions(same([1, 2], 0))
        Path("m/s2.yaml").unlink()
        watch.until_versions({"s1": 0})
        write("m", [1], 1)
        watch.until_versions({"s1": 1})
        write("m", [2], 1)
        watch.until_versions(same([1, 2], 1))

    def test_moved_to_another_file(self, start: Start) -> None:
        write("m", [1], 0)
        write("n", [2], 0)
        watch = start("m", "n")
        watch.until_versions(same([1, 2], 0))
        Path("m/s1.yaml").rename("n/s1.yaml")
        reading = watch.until(lambda _: True)
        assert (versions(reading), reading.missing) == (same([1, 2], 0), ("m",))
        assert reading.manifests["s1"].file == "n/s1.yaml"

    def test_the_one_that_changed_gives_way(self, start: Start) -> None:
        write("m", [1, 2], 0)
        watch = start("m")
        watch.until_versions(same([1, 2], 0))
        Path("m/s1.yaml").write_text(text(1, 1, device=2))
        reading = watch.until(lambda reading: bool(reading.broken))
        assert versions(reading) == same([1, 2], 0)
        said = "interfaces[0].device: tap2 is the device of sandbox s2 already, in m/s2.yaml"
        assert reading.broken == {"s1": f"m/s1.yaml: {said}"}
        assert [str(each) for each in reading.problems] == [f"m/s1.yaml:6:11: {said}"]

    def test_a_copy_is_named_by_its_file(self, start: Start) -> None:
        write("m", [1], 0)
        watch = start("m")
        watch.until_versions({"s1": 0})
        shutil.copy("m/s1.yaml", "m/a.yaml")
        reading = watch.until(lambda reading: bool(reading.broken))
        assert reading.broken == {
            "m/a.yaml": "m/a.yaml: sandbox: sandbox s1 has a manifest already, in m/s1.yaml; a sandbox has one"
        }
        assert reading.manifests["s1"].file == "m/s1.yaml"

    def test_of_two_new_ones_the_later_gives_way(self, start: Start) -> None:
        write("m", [1], 0)
        Path("m/s2.yaml").write_text(text(2, 0, device=1))
        reading = start("m").until(lambda _: True)
        assert (versions(reading), list(reading.broken)) == ({"s1": 0}, ["m/s2.yaml"])

    def test_two_that_swap_their_devices_step_by_step(self, start: Start) -> None:
        write("m", [1, 2], 0)
        watch = start("m")
        watch.until_versions(same([1, 2], 0))
        Path("m/s1.yaml").write_text(text(1, 1, device=2))
        watch.until(lambda reading: list(reading.broken) == ["s1"])
        Path("m/s2.yaml").write_text(text(2, 1, device=1))
        reading = watch.until_versions(same([1, 2], 1))
        assert (reading.broken, reading.problems) == ({}, ())

    def test_what_a_broken_one_still_holds_is_not_given_away(self, start: Start) -> None:
        write("m", [1, 2], 0)
        watch = start("m")
        watch.until_versions(same([1, 2], 0))
        # s1 wants what s2 has and leaves tap1 for s3; it cannot, so tap1 is not free.
        Path("m/s1.yaml").write_text(text(1, 1, device=2))
        Path("m/s3.yaml").write_text(text(3, 0, device=1))
        reading = watch.until(lambda reading: bool(reading.broken))
        assert (versions(reading), sorted(reading.broken)) == (same([1, 2], 0), ["m/s3.yaml", "s1"])
