"""What every stage gets from the runner: staleness with reasons, resume, rejects, protection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest

from tonics.artifact import Manifest, atomic_file
from tonics.errors import DiskFull, InputError, LockedError, TonicsError, TooManyRejects
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
    with pytest.raises(InputError, match=r"4 finished shards .* settings.factor was 1, is 2"):
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
    assert verify_dataset([stage]) == ["upper: upper/00002.txt was altered"]
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
    (manifests / "00001.json").write_text('{"version": 99}')
    assert bring_up_to_date(stage).made == 2


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
    assert status_of(stage).why == "4 of 4 shards: format was 1, is 2"
    with pytest.raises(InputError, match="--rebuild upper"):
        bring_up_to_date(stage)
