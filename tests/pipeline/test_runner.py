"""What every stage gets from the runner: staleness with reasons, resume, rejects, protection."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest

from tonics.artifact import Manifest, atomic_file, atomic_folder, remove_leftovers
from tonics.errors import (
    DiskFull,
    FormatError,
    InputError,
    LockedError,
    TonicsError,
    TooManyRejects,
    WouldDiscard,
)
from tonics.pipeline import runner
from tonics.pipeline.config import Config
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.lock import locked
from tonics.pipeline.runner import Report, status_of
from tonics.pipeline.stage import Made, Reject, Shard, Stage, row_shards
from tonics.pipeline.verify import verify_dataset

INPUTS = {"text": "abcdefgh", "factor": 1, "made": 0, "fail_at": ""}


class Upper(Stage):
    """Writes its letters in capitals, two a shard; digits are rejected, spaces ignored."""

    kind: ClassVar[str] = "upper"
    renewable: ClassVar[frozenset[str] | None] = frozenset({"rows"})
    max_rejected = 0.5

    @property
    def folder(self) -> Path:
        return self.dataset.root / "upper"

    def shards(self) -> list[Shard]:
        return row_shards(len(INPUTS["text"]), 2)

    def _letters(self, shard: Shard) -> str:
        return INPUTS["text"][slice(*shard.work)]

    def identity(self, shard: Shard) -> dict[str, Any]:
        return {"rows": self._letters(shard), "settings": {"factor": INPUTS["factor"]}}

    def make(self, shard: Shard) -> Made:
        INPUTS["made"] += 1
        letters = self._letters(shard)
        kept = [c for c in letters if c.isalpha()]
        output = self.folder / f"{shard.name}.txt"
        with atomic_file(output) as tmp:
            tmp.write_text("".join(kept).upper() * INPUTS["factor"])
            if INPUTS["fail_at"] and INPUTS["fail_at"] in letters:
                raise OSError(28, "No space left on device")
        rejects = [Reject(where=c, reason="a digit") for c in letters if c.isdigit()]
        ignored = {"a space": letters.count(" ")} if " " in letters else {}
        return Made(outputs=[output], rows=len(kept), rejected=rejects, ignored=ignored)

    def merge(self, shards: Sequence[Manifest]) -> Made:
        output = self.folder / "all.txt"
        parts = [self.dataset.root / m.outputs[0].path for m in shards]
        with atomic_file(output) as tmp:
            tmp.write_text("".join(p.read_text() for p in parts))
        return Made(outputs=[output])


def bring_up_to_date(stage: Stage, *, rebuild: bool = False) -> Report:
    """In this process, where the tests change the inputs."""
    return runner.bring_up_to_date(stage, workers=1, rebuild=rebuild)


@pytest.fixture
def stage(tmp_path: Path) -> Upper:
    INPUTS.update(text="abcdefgh", factor=1, made=0, fail_at="")
    return Upper(Dataset(tmp_path, Config()))


def _all(stage: Stage) -> str:
    return (stage.folder / "all.txt").read_text()


def test_makes_everything_once(stage: Upper) -> None:
    report = bring_up_to_date(stage)
    assert (_all(stage), report.made, report.fresh) == ("ABCDEFGH", 4, False)
    again = bring_up_to_date(stage)
    assert (again.made, again.fresh, INPUTS["made"]) == (0, True, 4)
    assert status_of(stage).done


def test_only_the_shard_whose_rows_changed_is_made_again(stage: Upper) -> None:
    bring_up_to_date(stage)
    INPUTS["text"] = "abcdxfgh"
    status = status_of(stage)
    assert [s.shard.name for s in status.stale] == ["00002"]
    assert status.why == "1 of 4 shards: rows was 'ef', is 'xf'"
    assert bring_up_to_date(stage).made == 1
    assert _all(stage) == "ABCDXFGH"


def test_appended_rows_make_the_last_shard_and_new_ones(stage: Upper) -> None:
    INPUTS["text"] = "abcde"
    bring_up_to_date(stage)
    INPUTS["text"] = "abcdefg"
    assert bring_up_to_date(stage).made == 2
    assert _all(stage) == "ABCDEFG"


def test_fewer_rows_remove_shards_and_their_files(stage: Upper) -> None:
    bring_up_to_date(stage)
    INPUTS["text"] = "abcd"
    bring_up_to_date(stage)
    assert _all(stage) == "ABCD"
    assert sorted(p.name for p in stage.folder.iterdir()) == ["00000.txt", "00001.txt", "all.txt"]


def test_a_setting_does_not_throw_finished_work_away_unasked(stage: Upper) -> None:
    bring_up_to_date(stage)
    INPUTS["factor"] = 2
    with pytest.raises(InputError, match=r"4 of 4 finished shards .* settings.factor was 1, is 2"):
        bring_up_to_date(stage)
    assert _all(stage) == "ABCDEFGH"
    assert bring_up_to_date(stage, rebuild=True).made == 4
    assert _all(stage) == "ABABCDCDEFEFGHGH"


def test_a_lost_or_damaged_file_is_made_again(stage: Upper) -> None:
    bring_up_to_date(stage)
    (stage.folder / "00001.txt").unlink()
    assert "00001.txt is gone" in status_of(stage).why
    assert bring_up_to_date(stage).made == 1
    (stage.folder / "00002.txt").write_text("EX")
    assert status_of(stage).done  # the size is right: only verify reads the bytes
    assert verify_dataset([stage]).problems == ["upper: upper/00002.txt was altered"]
    assert bring_up_to_date(stage).made == 1
    assert _all(stage) == "ABCDEFGH"


def test_what_failed_is_made_next_time_and_what_was_made_is_kept(stage: Upper) -> None:
    INPUTS["fail_at"] = "e"
    with pytest.raises(DiskFull, match="free some space"):
        bring_up_to_date(stage)
    assert INPUTS["made"] == 3
    assert list(stage.dataset.root.rglob("*.tmp")) == []
    INPUTS["fail_at"] = ""
    assert bring_up_to_date(stage).made == 2
    assert _all(stage) == "ABCDEFGH"


def test_leftovers_of_a_killed_run_are_removed(stage: Upper) -> None:
    bring_up_to_date(stage)
    leftovers = [stage.folder / "00009.txt.77.tmp", stage.folder.parent / "upper.77.tmp"]
    for leftover in leftovers:
        leftover.write_text("half")
    bring_up_to_date(stage)
    assert not any(leftover.exists() for leftover in leftovers)


def test_leftovers_of_rejects_are_removed_and_no_other_stages(stage: Upper) -> None:
    bring_up_to_date(stage)
    stage.dataset.rejected.mkdir(exist_ok=True)
    own = stage.dataset.rejected / "upper-00000.parquet.123.tmp"
    others = stage.dataset.rejected / "upper-case-00000.parquet.123.tmp"
    for file in (own, others):
        file.write_text("half")
    bring_up_to_date(stage)
    assert not own.exists()
    assert others.exists()


def test_rejects_are_kept_with_their_reason_and_counted(stage: Upper) -> None:
    INPUTS["text"] = "a1cd f2h"
    report = bring_up_to_date(stage)
    assert report.counts["rejected"] == {"a digit": 2}
    assert report.counts["ignored"] == {"a space": 1}
    assert "2 rejected (2 a digit), 1 ignored (1 a space)" in report.line()
    files = sorted(stage.dataset.rejected.glob("upper-*.parquet"))
    rows = [row for f in files for row in pq.read_table(f).to_pylist()]
    assert [(r["where"], r["reason"]) for r in rows] == [("1", "a digit"), ("2", "a digit")]
    INPUTS["text"] = "abcd fgh"
    bring_up_to_date(stage)
    assert not any(stage.dataset.rejected.glob("upper-*.parquet"))


def test_too_many_rejects_stop_the_stage_and_keep_the_shards(stage: Upper) -> None:
    INPUTS["text"] = "12345fgh"
    with pytest.raises(TooManyRejects, match=r"rejected 5 of 8 inputs \(5 a digit\)"):
        bring_up_to_date(stage)
    assert not (stage.folder / "all.txt").exists()
    stage.max_rejected = 0.9
    assert bring_up_to_date(stage).made == 0
    assert _all(stage) == "FGH"


def test_one_coordinator_at_a_time(stage: Upper) -> None:
    lock = stage.dataset.state / "locks" / "upper.lock"
    with locked(lock, "upper"), pytest.raises(LockedError, match=r"another run is at work .*pid"):
        bring_up_to_date(stage)
    bring_up_to_date(stage)  # a lock that was let go, or whose holder died, is taken


def test_an_unreadable_manifest_means_not_made(stage: Upper) -> None:
    bring_up_to_date(stage)
    manifests = stage.dataset.state / "manifests" / "upper"
    (manifests / "00000.json").write_text("{")
    assert bring_up_to_date(stage).made == 1
    (manifests / "00001.json").write_text('{"version": 99}')
    with pytest.raises(FormatError, match="a manifest of version 99, expected version 1"):
        bring_up_to_date(stage)  # never made anew unasked: it may have cost days


def test_errors_say_where_what_and_what_to_do() -> None:
    error = TonicsError("file", "found 'x'", expected="'y'", do="do this")
    assert str(error) == "file: found 'x', expected 'y'; do this"
    hostile = TonicsError("a\nb", "\x1b[31mred")
    assert "\x1b" not in str(hostile)
    assert "\n" not in str(hostile)


def test_another_format_makes_every_shard_stale(
    stage: Upper, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring_up_to_date(stage)
    monkeypatch.setattr(Upper, "format", 2)
    assert status_of(stage).why == "4 of 4 shards: made by another version (format 1, now 2)"
    with pytest.raises(InputError, match="--rebuild upper"):
        bring_up_to_date(stage)


def test_a_rebuild_with_other_shards_leaves_none_of_the_old_ones(
    stage: Upper, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring_up_to_date(stage)
    monkeypatch.setattr(Upper, "shards", lambda self: row_shards(len(INPUTS["text"]), 8))
    bring_up_to_date(stage, rebuild=True)
    assert sorted(p.name for p in stage.folder.iterdir()) == ["00000.txt", "all.txt"]
    assert _all(stage) == "ABCDEFGH"


def test_a_rebuild_that_fails_keeps_what_it_did_not_get_to(stage: Upper) -> None:
    bring_up_to_date(stage)
    INPUTS["fail_at"] = "c"
    with pytest.raises(DiskFull):
        bring_up_to_date(stage, rebuild=True)
    kept = sorted(p.name for p in stage.folder.iterdir())
    assert kept == ["00000.txt", "00001.txt", "00002.txt", "00003.txt", "all.txt"]
    INPUTS["fail_at"] = ""
    assert bring_up_to_date(stage).made == 1


def test_most_shards_are_not_replaced_at_once_without_asking(stage: Upper) -> None:
    bring_up_to_date(stage)
    INPUTS["text"] = "hgfedcba"
    with pytest.raises(WouldDiscard, match="4 of 4 finished shards"):
        bring_up_to_date(stage)
    INPUTS["text"] = "abcdefXY"
    assert bring_up_to_date(stage).made == 1


def test_finished_files_without_manifests_are_not_made_again_unasked(stage: Upper) -> None:
    bring_up_to_date(stage)
    shutil.rmtree(stage.dataset.state / "manifests")
    with pytest.raises(WouldDiscard, match=r"copy \.tonics along"):
        bring_up_to_date(stage)
    assert bring_up_to_date(stage, rebuild=True).made == 4


@pytest.mark.parametrize("revert", [False, True], ids=["same input", "input put back"])
def test_a_kill_at_any_change_of_the_disk_ends_alike(tmp_path: Path, revert: bool) -> None:
    """The process dies before its k-th rename or deletion, for every k, while an input changes."""
    crashes = 0
    for k in range(1, 40):
        INPUTS.update(text="abcdefgh", factor=1, made=0, fail_at="")
        stage = Upper(Dataset(tmp_path / f"{k}", Config()))
        bring_up_to_date(stage)
        INPUTS["text"] = "abcXefgh"  # as long as before: sizes tell nothing
        if not _dies_at(k, stage):
            break
        crashes += 1
        INPUTS["text"] = "abcdefgh" if revert else "abcXefgh"
        bring_up_to_date(stage)
        assert _all(stage) == INPUTS["text"].upper(), f"killed before change {k}"
        assert verify_dataset([stage]).problems == []
    assert crashes >= 5


def _dies_at(k: int, stage: Stage) -> bool:
    """Run in a child that ends abruptly before its k-th change; say whether it came so far."""
    child = os.fork()
    if child == 0:
        left = [k]

        def counted(call: Any) -> Any:
            def change(*arguments: Any, **options: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    os._exit(1)
                return call(*arguments, **options)

            return change

        os.replace, os.unlink = counted(os.replace), counted(os.unlink)
        try:
            bring_up_to_date(stage)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_an_exchange_of_folders_that_fails_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "plan"
    with atomic_folder(folder) as tmp:
        (tmp / "a").write_text("old")
    replace, calls = os.replace, []

    def fail_second(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_second)
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder) as tmp:
        (tmp / "a").write_text("new")
    assert (folder / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["plan"]


def test_an_older_folder_is_put_back_after_a_kill_and_nobody_elses_files_go(
    tmp_path: Path,
) -> None:
    (tmp_path / "plan.123.old.tmp").mkdir()
    (tmp_path / "plan.123.old.tmp" / "a").write_text("old")
    others = ["plan.v2.9.tmp", "holiday.tmp", "plan.tmp"]
    for name in others:
        (tmp_path / name).write_text("not ours")
    remove_leftovers(tmp_path / "plan")
    assert (tmp_path / "plan" / "a").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["plan", *others])
