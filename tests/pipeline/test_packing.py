"""``tonics pack``: the bytes first, a whole pack or none, and nobody's files harmed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tonics.features import FeatureStore
from tonics.pipeline.tables import size_text
from tonics.train.plan import Plan
from tonics.train.stream import CachedTexts, Pack, packed, stream

Run = Callable[..., SimpleNamespace]


def test_a_pack_holds_the_plan(built: Path, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    done = run("-C", built, "pack", "tonics", "--output", folder, "--ranks", 2)
    assert done.code == 0, done.err
    plan, store = Plan(built / "plans" / "tonics"), FeatureStore(built / "features" / "grid")
    said, wrote = done.out.splitlines()
    found = re.fullmatch(rf"tonics: {len(plan)} batches in 2 tars, (.*); .* free", said)
    assert found
    assert wrote == f"wrote {folder}"
    files = sum(f.stat().st_size for f in folder.rglob("*") if f.suffix == ".tar")
    assert float(found[1].split()[0]) == pytest.approx(float(size_text(files).split()[0]), rel=0.1)
    pack = Pack(folder)
    assert (pack.plan_id, pack.features, pack.ranks) == (plan.plan_id, store.content_hash, 2)
    texts = CachedTexts.of_rows(np.zeros((1000, 2)))
    expected = stream(plan, store, texts, rank=1, world=2)
    for a, b in zip(packed(folder, texts, rank=1, world=2), expected, strict=True):
        np.testing.assert_array_equal(a.features, b.features)
        np.testing.assert_array_equal(a.pairs, b.pairs)


def test_a_pack_is_replaced_only_when_asked(copy: Path, run: Run) -> None:
    folder = copy.resolve() / "shards" / "tonics"
    assert run("-C", copy, "pack", "tonics").code == 0
    again = run("-C", copy, "pack", "tonics")
    assert again.code == 2
    assert f"{folder}: exists already; name another folder, or add --force" in again.err
    done = run("-C", copy, "pack", "tonics", "--force", "--shard-bytes", 50_000)
    assert done.code == 0, done.err
    assert len(Pack(folder).tars()) > 1
    assert [p.name for p in folder.parent.iterdir()] == ["tonics"]


def test_a_full_disk_is_told_before_anything_is_written(
    copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(copy)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    done = run("-C", copy, "pack", "tonics")
    assert done.code == 1
    assert re.match(r"tonics: \d+ batches in 1 tar, .*; 1.0 kB free", done.out)
    assert re.fullmatch(r"tonics: .*shards/tonics: 1.0 kB free, expected .*--output\n", done.err)
    assert not (copy / "shards").exists()


def test_what_fails_halfway_leaves_nothing(
    copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    gather, calls = FeatureStore.gather, []

    def failing(
        store: FeatureStore, images: np.ndarray, *args: object, **options: object
    ) -> object:
        calls.append(images)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        return gather(store, images, *args, **options)

    monkeypatch.setattr(FeatureStore, "gather", failing)
    done = run("-C", copy, "pack", "tonics")
    assert done.code == 1
    assert "No space left on device; free some space" in done.err
    assert list((copy / "shards").iterdir()) == []
    left = copy / "shards" / "tonics.1.tmp"  # of a run that was killed
    left.mkdir()
    assert run("-C", copy, "pack", "tonics").code == 0
    assert not left.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "plan: 'nothing', expected one of "),
        (["tonics", "--ranks", "3"], "for 3 ranks"),
        (["tonics", "-o", "DATASET/plans/pack"], "in the dataset's own folder"),
        (["tonics", "-o", "DATASET/shards/a/b"], "in the dataset's own folder"),
        (["tonics", "-o", "DATASET"], "the dataset lies in it"),
        (["tonics", "-o", "DATASET/.."], "the dataset lies in it"),
        (["tonics", "-o", "PHOTOS", "--force"], "exists and is no pack"),
    ],
)
def test_what_is_refused(
    built: Path, run: Run, tmp_path: Path, words: list[str], message: str
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "photo.jpg").write_bytes(b"precious")
    places = {"DATASET": str(built), "PHOTOS": str(photos)}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    done = run("-C", built, "pack", *words)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert message in done.err
    assert (photos / "photo.jpg").read_bytes() == b"precious"


def test_a_plan_of_other_features_is_refused(copy: Path, run: Run) -> None:
    header = copy / "plans" / "tonics" / "plan.json"
    found = Plan(header.parent).inputs["features"]
    header.write_text(header.read_text().replace(found, "0" * len(found)))
    done = run("-C", copy, "pack", "tonics")
    assert done.code == 2
    assert "was built for another feature store" in done.err
