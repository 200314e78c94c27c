"""Ingest: numbers are given once, splits follow the photo, and nothing vanishes unsaid."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tonics.artifact import hash_file
from tonics.errors import ConfigError, FormatError
from tonics.pipeline.config import Splits
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.graph import stages_of
from tonics.pipeline.runner import Report, bring_up_to_date, status_of
from tonics.pipeline.stages.ingest import IngestStage, split_by_hash
from tonics.pipeline.verify import verify_dataset

Rows = list[dict[str, object]]


def ingest(folder: Path, *, rebuild: bool = False) -> Report:
    return bring_up_to_date(IngestStage(Dataset.open(folder)), workers=1, rebuild=rebuild)


def pairs(folder: Path) -> Rows:
    return pq.read_table(folder / "pairs.parquet").to_pylist()


def images(folder: Path) -> Rows:
    return pq.read_table(folder / "images.parquet").to_pylist()


def rejected(folder: Path) -> list[tuple[str, str]]:
    files = sorted((folder / "rejected").glob("ingest-*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return [(row["where"], row["reason"]) for row in rows]


def draw(folder: Path, name: str, colour: str, width: int = 8) -> None:
    path = folder / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, 6), colour).save(path)


def write(folder: Path, *lines: dict[str, object], name: str = "captions.jsonl") -> None:
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def add(folder: Path, *lines: dict[str, object]) -> None:
    with (folder / "captions.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def edit(folder: Path, old: str, new: str, name: str = "captions.jsonl") -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photos, two captions each, ingested."""
    root = tmp_path / "dataset"
    for name, colour in (("a.png", "red"), ("b.png", "green"), ("c.png", "blue")):
        draw(root, name, colour)
    write(root, *({"image": f"{x}.png", "caption": [f"{x} one", f"{x} two"]} for x in "abc"))
    (root / "tonics.toml").write_text(
        '[ingest]\n[[ingest.sources]]\ncaptions = "captions.jsonl"\n[ontology]\n'
    )
    ingest(root)
    return root


def test_tables_say_what_was_there(folder: Path) -> None:
    first = images(folder)[0]
    file = folder / "images" / "a.png"
    assert first == {
        "image": 0,
        "image_id": "a.png",
        "path": "a.png",
        "width": 8,
        "height": 6,
        "bytes": file.stat().st_size,
        "content_hash": hash_file(file),
    }
    keys = [(r["pair"], r["pair_key"], r["image"], r["caption"]) for r in pairs(folder)]
    assert keys[:3] == [
        (0, "a.png#0", 0, "a one"),
        (1, "a.png#1", 0, "a two"),
        (2, "b.png#0", 1, "b one"),
    ]


def test_new_rows_append_and_the_old_keep_their_numbers(folder: Path) -> None:
    before_images, before_pairs = images(folder), pairs(folder)
    draw(folder, "0.png", "black")
    lines = (folder / "captions.jsonl").read_text()
    write(folder, {"image": "0.png", "caption": "0 one"})  # before all others
    (folder / "captions.jsonl").open("a").write(lines)
    add(folder, {"image": "a.png", "caption": "a three"})
    ingest(folder)
    assert images(folder)[:3] == before_images
    assert pairs(folder)[:6] == before_pairs
    assert [(r["pair"], r["pair_key"]) for r in pairs(folder)[6:]] == [
        (6, "0.png#0"),
        (7, "a.png#2"),
    ]
    assert images(folder)[3]["image_id"] == "0.png"


def test_rebuild_numbers_afresh(folder: Path) -> None:
    write(folder, {"image": "c.png", "caption": "c one"}, {"image": "a.png", "caption": "a one"})
    report = ingest(folder)
    assert report.counts["no_longer_in_sources"] == 4
    assert [r["pair_key"] for r in pairs(folder)][:2] == ["a.png#0", "a.png#1"]
    ingest(folder, rebuild=True)
    assert [(r["pair"], r["pair_key"], r["image"]) for r in pairs(folder)] == [
        (0, "c.png#0", 0),
        (1, "a.png#0", 1),
    ]


def test_an_edited_caption_keeps_its_number(folder: Path) -> None:
    before = pairs(folder)
    edit(folder, "b one", "b other")
    ingest(folder)
    after = pairs(folder)
    assert after[2]["caption"] == "b other"
    assert after[2]["caption_hash"] != before[2]["caption_hash"]
    assert [r["pair_key"] for r in after] == [r["pair_key"] for r in before]
    assert [r for r in after if r["pair"] != 2] == [r for r in before if r["pair"] != 2]


def test_a_changed_image_keeps_its_number(folder: Path) -> None:
    before = images(folder)
    draw(folder, "b.png", "white", width=20)
    ingest(folder)
    after = images(folder)
    assert after[1]["content_hash"] != before[1]["content_hash"]
    assert (after[1]["image"], after[1]["width"]) == (1, 20)
    assert [after[0], after[2]] == [before[0], before[2]]


def test_a_pair_key_counts_rejected_captions_too(folder: Path) -> None:
    add(folder, {"image": "a.png", "caption": ["", "a one", "a five"]})
    report = ingest(folder)
    assert rejected(folder) == [
        ("a.png#2", "empty caption"),
        ("a.png#3", "caption repeated for its image"),
    ]
    assert pairs(folder)[-1]["pair_key"] == "a.png#4"
    assert (report.counts["in"], report.counts["out"]) == (9, 7)


def test_an_image_that_is_refused_takes_its_captions_along(folder: Path) -> None:
    (folder / "images" / "d.png").write_bytes(b"nothing")
    add(folder, {"image": "d.png", "caption": ["d one", "d two"]})
    report = ingest(folder)
    assert report.counts["rejected"] == {"its image was rejected": 2, "not an image": 1}
    assert [where for where, _ in rejected(folder)] == ["d.png", "d.png#0", "d.png#1"]
    draw(folder, "d.png", "pink")  # mended, it comes in
    ingest(folder)
    assert rejected(folder) == []
    assert images(folder)[3]["image_id"] == "d.png"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a\0b.png", "not a file name"),
        ("\ud800.png", "not UTF-8"),
        ("x" * 5000 + ".png", "image not found"),
        ("/etc/hostname", "path leaves the image folder"),
        ("../images/../tonics.toml", "path leaves the image folder"),
        (".", "image not found"),
    ],
)
def test_hostile_names(folder: Path, name: str, reason: str) -> None:
    add(folder, {"image": name, "caption": "x"})
    ingest(folder)
    assert reason in dict(rejected(folder)).values()
    assert len(pairs(folder)) == 6


def test_a_name_that_is_not_utf8_is_kept_with_escapes(folder: Path) -> None:
    with (folder / "captions.jsonl").open("ab") as file:
        file.write(b'{"image": "caf\xe9.png", "caption": "x"}\n')
    ingest(folder)
    assert rejected(folder) == [(r"caf\udce9.png#0", "not UTF-8")]


def test_links_out_of_the_image_folder_are_not_followed(folder: Path, tmp_path: Path) -> None:
    draw(tmp_path, "secret.png", "black")
    (folder / "images" / "link.png").symlink_to(tmp_path / "images" / "secret.png")
    add(folder, {"image": "link.png", "caption": "x"})
    ingest(folder)
    assert ("link.png", "path leaves the image folder") in rejected(folder)


def test_splits_named_by_the_source(folder: Path) -> None:
    names = ("restval", "TRAIN", "dev", "validation", "test", "testing", "mine", "")
    for number, _ in enumerate(names):
        draw(folder, f"s{number}.png", f"#0000{number:02d}")
    lines = [
        {"image": f"s{k}.png", "caption": f"{k}", "part": name} for k, name in enumerate(names)
    ]
    write(folder, *lines)
    edit(
        folder, '"captions.jsonl"', '"captions.jsonl"\ncolumns = { split = "part" }', "tonics.toml"
    )
    edit(folder, "[ontology]", "[ingest.splits]\nval = 1\ntest = 0", "tonics.toml")
    ingest(folder, rebuild=True)
    found = [row["split"] for row in pairs(folder)]
    assert found == ["train", "train", "val", "val", "test", "test", "mine", "val"]


def test_a_split_for_a_whole_file_and_several_sources(folder: Path) -> None:
    draw(folder, "more/x.png", "orange")
    write(folder, {"image": "x.png", "caption": "x one"}, name="more.jsonl")
    (folder / "captions.csv").write_text("image,caption\na.png,a three\n")
    more = '[[ingest.sources]]\ncaptions = "more.jsonl"\nimages = "more"\nsplit = "dev"\n'
    more += '[[ingest.sources]]\ncaptions = "captions.csv"\n'
    edit(folder, "[ontology]", more, "tonics.toml")
    ingest(folder)
    rows = {row["pair_key"]: row for row in pairs(folder)}
    assert rows["x.png#0"]["split"] == "val"
    assert rows["a.png#2"]["caption"] == "a three"  # counted on from the first file
    assert images(folder)[3]["path"] == "more/x.png"
    assert len(rows) == 8


def test_copies_of_a_photo_are_on_one_side(folder: Path) -> None:
    edit(folder, "[ontology]", "[ingest.splits]\nval = 0.3\ntest = 0.3", "tonics.toml")
    lines = []
    for number in range(30):
        draw(folder, f"{number}.png", f"#{number * 8:06x}")
        shutil.copy(folder / "images" / f"{number}.png", folder / "images" / f"{number}-copy.png")
        lines += [{"image": f"{number}{end}", "caption": "x"} for end in (".png", "-copy.png")]
    write(folder, *lines)
    ingest(folder, rebuild=True)
    split = {row["pair_key"].removesuffix("#0"): row["split"] for row in pairs(folder)}
    assert [split[f"{n}.png"] for n in range(30)] == [split[f"{n}-copy.png"] for n in range(30)]
    assert set(split.values()) == {"train", "val", "test"}


def test_shares_of_splits_are_about_right_and_grow_into_each_other() -> None:
    hashes = [f"{k * 0x9E3779B97F4A7C15 % 2**64:016x}" * 2 for k in range(4000)]
    counts = Counter(split_by_hash(h, Splits(val=0.1, test=0.2)) for h in hashes)
    assert abs(counts["test"] - 800) < 80
    assert abs(counts["val"] - 400) < 80
    held_out = {h for h in hashes if split_by_hash(h, Splits(val=0.1, test=0.2)) == "test"}
    more = {h for h in hashes if split_by_hash(h, Splits(val=0.1, test=0.3)) == "test"}
    assert held_out < more


def test_half_a_table_numbers_both_afresh(folder: Path) -> None:
    expected = images(folder), pairs(folder)
    (folder / "images.parquet").unlink()
    ingest(folder)
    assert (images(folder), pairs(folder)) == expected
    write(folder, {"image": "c.png", "caption": "c one"})
    ingest(folder)  # the others stay, though no source names them
    (folder / "images.parquet").unlink()
    ingest(folder)
    assert [(row["pair_key"], row["image"]) for row in pairs(folder)] == [("c.png#0", 0)]


def test_a_damaged_table_is_made_anew_after_verify(folder: Path) -> None:
    path = folder / "pairs.parquet"
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2])
    with pytest.raises(FormatError, match=r"cannot be read .*'tonics verify', then"):
        ingest(folder)
    assert verify_dataset([IngestStage(Dataset.open(folder))]) == [
        f"ingest: pairs.parquet has {len(before) // 2} bytes, not {len(before)}"
    ]
    ingest(folder)
    assert path.read_bytes() == before


def test_no_sources(folder: Path) -> None:
    (folder / "tonics.toml").write_text("[ingest]\n")
    with pytest.raises(ConfigError, match=r"no \[\[ingest.sources\]\]"):
        ingest(folder)


# -- what changed inputs mean for a dataset that is built


def stale(folder: Path, *, kinds: tuple[str, ...] = ("extract", "parse", "embed")) -> set[str]:
    """Shards of some stages that would be made, after an ingest."""
    ingest(folder)
    stages = stages_of(Dataset.open(folder)).values()
    return {
        f"{stage.key} {one.shard.name}"
        for stage in stages
        if stage.kind in kinds
        for one in status_of(stage).stale
    }


def test_a_changed_image_makes_just_its_shard_of_features_stale(copy: Path) -> None:
    Image.new("RGB", (96, 72), "purple").save(copy / "images" / "020.png")
    assert stale(copy) == {"extract/grid 00001"}


def test_an_edited_caption_makes_just_its_shards_stale(copy: Path) -> None:
    edit(copy, "a dog in picture 15", "a cat in picture 15")  # pair 47 of shards of 40
    assert stale(copy) == {"parse 00001", "embed/captions 00001"}


def test_new_captions_make_no_old_shard_stale(copy: Path) -> None:
    add(copy, {"image": "003.png", "captions": ["Quite another caption of a bus"]})
    assert stale(copy) == {"parse 00003", "embed/captions 00003"}


def test_new_images_make_no_full_shard_stale(copy: Path) -> None:
    draw(copy, "new.png", "purple", width=80)
    add(copy, {"image": "new.png", "captions": ["A purple nothing"]})
    assert stale(copy, kinds=("extract",)) == {"extract/grid 00002"}  # 8 of 16 were in it


def test_the_dataset_folder_can_be_moved(copy: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "with a space"
    moved.parent.mkdir()
    os.rename(copy, moved)
    stages = stages_of(Dataset.open(moved))
    assert {key: status_of(stage).why for key, stage in stages.items()} == dict.fromkeys(stages, "")


def test_a_fresh_folder_is_the_same_wherever_it_lies(
    folder: Path, tmp_path: Path, draw: Callable[..., Path]
) -> None:
    one, two = draw(tmp_path / "one"), draw(tmp_path / "two" / "deeper")
    for root in (one, two):
        ingest(root)
    for name in ("images.parquet", "pairs.parquet", ".tonics/probed/00000.parquet"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
