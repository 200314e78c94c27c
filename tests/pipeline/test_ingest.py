"""Ingest: numbers are given once, splits follow the photo, and nothing vanishes unsaid."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tonics.artifact import hash_bytes, hash_file
from tonics.errors import ConfigError, FormatError, InputError, TooManyRejects
from tonics.pipeline.config import Source, Splits
from tonics.pipeline.dataset import PAIRS_SCHEMA, Dataset
from tonics.pipeline.graph import stages_of
from tonics.pipeline.judging import split_by_hash
from tonics.pipeline.numbering import Captions, assign_keys, number_pairs
from tonics.pipeline.probing import ImageList
from tonics.pipeline.runner import Report, bring_up_to_date
from tonics.pipeline.sources import Captioned, read_captions
from tonics.pipeline.sources.listing import Kept, Reading
from tonics.pipeline.stages.ingest import IngestStage
from tonics.pipeline.staleness import status_of

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
        "[ingest]\nmax_rejected = 0.5\n"
        '[[ingest.sources]]\ncaptions = "captions.jsonl"\n[ontology]\n'
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
    ingest(folder)
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
    assert report.counts["rejected"] == {"its image was rejected": 2}
    assert report.counts["images"] == {"in": 4, "out": 3, "rejected": {"not an image": 1}}
    assert (report.counts["in"], report.counts["out"]) == (8, 6)
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


def test_image_numbers_survive_without_pairs(folder: Path) -> None:
    before = pairs(folder)
    write(folder, {"image": "c.png", "caption": ["c one", "c two"]})
    (folder / "pairs.parquet").unlink()
    ingest(folder)
    assert [row["image_id"] for row in images(folder)] == ["a.png", "b.png", "c.png"]
    assert pairs(folder) == [{**row, "pair": row["pair"] - 4} for row in before[4:]]


def test_pairs_without_images_are_not_numbered_anew_unasked(folder: Path) -> None:
    expected = images(folder), pairs(folder)
    (folder / "images.parquet").rename(folder / "kept")
    with pytest.raises(InputError, match=r"images.parquet: is gone, .*restore it; or .*--rebuild"):
        ingest(folder)
    assert pairs(folder) == expected[1]
    (folder / "kept").rename(folder / "images.parquet")
    ingest(folder)
    assert (images(folder), pairs(folder)) == expected
    (folder / "images.parquet").unlink()
    ingest(folder, rebuild=True)
    assert (images(folder), pairs(folder)) == expected


def test_a_damaged_table_is_refused_until_it_is_restored(folder: Path) -> None:
    path = folder / "pairs.parquet"
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2])
    with pytest.raises(FormatError, match=r"cannot be read"):
        ingest(folder)
    path.write_bytes(before)
    ingest(folder)
    assert path.read_bytes() == before


# -- what leaves its source, and comes back


def active(folder: Path) -> dict[str, str]:
    """Captions by pair key, without the withdrawn ones."""
    return {str(r["pair_key"]): str(r["caption"]) for r in pairs(folder) if r["split"]}


def test_what_left_its_source_is_withdrawn_and_comes_back(folder: Path) -> None:
    before = images(folder), pairs(folder)
    source = (folder / "captions.jsonl").read_text()
    write(folder, {"image": "b.png", "caption": "b two"}, {"image": "c.png", "caption": "c one"})
    report = ingest(folder)
    assert [(r["pair"], r["split"] != "") for r in pairs(folder)] == [
        (0, False), (1, False), (2, False), (3, True), (4, True), (5, False),
    ]  # fmt: skip
    assert [(r["pair_key"], r["caption"]) for r in pairs(folder)] == [
        (r["pair_key"], r["caption"]) for r in before[1]
    ]
    assert images(folder)[0] == {
        "image": 0, "image_id": "a.png", "path": "",
        "width": 0, "height": 0, "bytes": 0, "content_hash": "",
    }  # fmt: skip
    assert images(folder)[1:] == before[0][1:]
    counts = report.counts
    assert (counts["withdrawn_images"], counts["withdrawn_pairs"]) == (1, 4)
    assert counts["notes"] == [
        "1 image, 4 pairs are no longer in the sources: withdrawn, their numbers kept"
    ]
    assert (counts["in"], counts["out"], counts["rejected"]) == (2, 2, {})
    assert sum(counts["splits"].values()) == 2
    (folder / "captions.jsonl").write_text(source)
    report = ingest(folder)
    assert (images(folder), pairs(folder)) == before
    assert "notes" not in report.counts
    assert (report.counts["withdrawn_images"], report.counts["withdrawn_pairs"]) == (0, 0)


def test_one_pair_is_told_of_in_the_singular(folder: Path) -> None:
    edit(folder, ', "c two"', "")
    assert ingest(folder).counts["notes"] == [
        "1 pair is no longer in the sources: withdrawn, its number kept"
    ]


def test_an_image_that_is_rejected_now_is_withdrawn(folder: Path) -> None:
    (folder / "images" / "b.png").rename(folder / "b.png")
    report = ingest(folder)
    assert list(active(folder)) == ["a.png#0", "a.png#1", "c.png#0", "c.png#1"]
    assert [row["path"] for row in images(folder)] == ["a.png", "", "c.png"]
    assert report.counts["images"] == {"in": 3, "out": 2, "rejected": {"image not found": 1}}
    (folder / "b.png").rename(folder / "images" / "b.png")
    ingest(folder)
    assert len(active(folder)) == 6


def test_a_caption_that_is_rejected_now_is_withdrawn(folder: Path) -> None:
    edit(folder, "b two", "b two and more")
    ingest(folder)
    edit(folder, "max_rejected", "max_caption_chars = 5\nmax_rejected", "tonics.toml")
    report = ingest(folder)
    assert [row["split"] != "" for row in pairs(folder)] == [True] * 3 + [False] + [True] * 2
    assert report.counts["rejected"] == {"caption longer than 5 characters": 1}
    assert report.counts["withdrawn_pairs"] == 1


def test_an_image_has_one_split(folder: Path) -> None:
    columns = 'captions = "captions.jsonl"\ncolumns = { split = "part" }'
    edit(folder, 'captions = "captions.jsonl"', columns, "tonics.toml")
    write(
        folder,
        {"image": "a.png", "caption": "a one", "part": None},
        {"image": "a.png", "caption": ["", "a two"], "part": "dev"},
        {"image": "a.png", "caption": "a three", "part": "test"},
        {"image": "b.png", "caption": "b one", "part": " "},
    )
    ingest(folder)
    found = {row["pair_key"]: row["split"] for row in pairs(folder) if row["split"]}
    assert [found.pop(f"a.png#{k}") for k in (0, 1, 3)] == ["val"] * 3
    assert found["b.png#0"] in ("train", "val", "test")
    edit(folder, '"dev"', '"train"')
    ingest(folder)
    assert {r["split"] for r in pairs(folder) if r["image"] == 0 and r["split"]} == {"train"}


def test_half_an_image_folder_stops_the_stage(folder: Path) -> None:
    edit(folder, "max_rejected = 0.5\n", "", "tonics.toml")
    before = pairs(folder)
    (folder / "images" / "b.png").unlink()
    with pytest.raises(TooManyRejects, match=r"rejected 1 of 3 inputs .*at most 20%"):
        ingest(folder)
    assert pairs(folder) == before


def test_too_many_rejected_captions_are_listed_where_the_message_says(folder: Path) -> None:
    add(folder, {"image": "a.png", "caption": [""] * 9})
    with pytest.raises(TooManyRejects, match=r"rejected 9 of 15 inputs .*; see .*rejected.*; mend"):
        ingest(folder)
    assert len(rejected(folder)) == 9


# -- which caption keeps which key


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        (["two"], {1: "two"}),
        (["new", "one", "two"], {0: "one", 1: "two", 2: "new"}),
        (["one", "new", "two"], {0: "one", 1: "two", 2: "new"}),
        (["two", "one"], {0: "one", 1: "two"}),
        (["one", "other"], {0: "one", 1: "other"}),
        (["", "two"], {1: "two"}),
        (["", "one", "two", "new"], {0: "one", 1: "two", 3: "new"}),
        (["one", "two", "", "new"], {0: "one", 1: "two", 3: "new"}),
        (["new", "one", ""], {0: "one", 1: None, 3: "new"}),
    ],
)
def test_captions_keep_their_keys(
    folder: Path, captions: list[str], expected: dict[int, str | None]
) -> None:
    write(folder, {"image": "a.png", "caption": ["one", "two"]})
    ingest(folder, rebuild=True)
    write(folder, {"image": "a.png", "caption": captions})
    ingest(folder)
    kept = {f"a.png#{k}": text for k, text in expected.items() if text}
    assert active(folder) == kept
    assert [row["pair_key"] for row in pairs(folder)][:2] == ["a.png#0", "a.png#1"]


texts = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=6)


@given(first=texts, then=st.lists(texts, min_size=1, max_size=4))
def test_no_caption_takes_the_key_of_another(first: list[str], then: list[list[str]]) -> None:
    rows = dict(enumerate(first))
    for captions in then:
        keys = assign_keys(rows, dict(enumerate(captions)))
        assert sorted(keys) == list(range(len(captions)))
        assert len(set(keys.values())) == len(keys)
        of_text = {text: k for k, text in rows.items()}
        for position, text in enumerate(captions):
            assert keys[position] == of_text.get(text, keys[position])
        rows |= {keys[position]: text for position, text in enumerate(captions)}
        assert len(set(rows.values())) == len(rows)


# -- what is read, and what is counted


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_edited_while_it_is_read_is_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def read(path: Path, source: object) -> list[object]:
        monkeypatch.undo()
        if when == "before":
            edit(folder, "a one", "a changed")
        rows = list(read_captions(path, source))
        if when == "after":
            edit(folder, "a one", "a changed")
        return rows

    add(folder, {"image": "a.png", "caption": "a three"})
    monkeypatch.setattr("tonics.pipeline.stages.ingest.read_captions", read)
    ingest(folder)
    assert not ingest(folder).fresh
    assert active(folder)["a.png#0"] == "a changed"
    assert ingest(folder).fresh


def test_images_without_captions_are_counted(folder: Path) -> None:
    draw(folder, "d.png", "pink")
    files = [{"id": n, "file_name": f"{x}.png"} for n, x in enumerate("abcd")]
    notes = [{"image_id": n, "caption": f"{n} one"} for n in (0, 1)]
    coco = {"images": files, "annotations": notes}
    (folder / "captions.json").write_text(json.dumps(coco))
    write(folder, {"image": "d.png", "caption": []}, {"image": "a.png", "caption": "a one"})
    more = 'captions = "captions.jsonl"\n[[ingest.sources]]\ncaptions = "captions.json"'
    edit(folder, 'captions = "captions.jsonl"', more, "tonics.toml")
    report = ingest(folder, rebuild=True)
    assert report.counts["ignored"] == {"image without a caption": 3}
    assert (report.counts["in"], report.counts["out"]) == (3, 3)
    assert report.counts["images"] == {"in": 3, "out": 3, "rejected": {}}


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


# -- images that lie in tars, were never downloaded, or are not there at all


def tar(path: Path, members: dict[str, bytes | str]) -> None:
    """Write a tar as img2dataset does, member after member."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info, raw = tarfile.TarInfo(name), data.encode() if isinstance(data, str) else data
            info.size = len(raw)
            file.addfile(info, io.BytesIO(raw))


def png(colour: str, width: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, 6), colour).save(file, "PNG")
    return file.getvalue()


def configure(root: Path, captions: str, more: str = "", source: str = "") -> Path:
    root.mkdir(exist_ok=True)
    (root / "tonics.toml").write_text(
        f"[ingest]\n{more}\n[[ingest.sources]]\ncaptions = '{captions}'\n{source}\n[ontology]\n"
    )
    return root


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Two tars of two images each, one of which has two captions, ingested."""
    root = configure(tmp_path / "dataset", "cc/{00000..00001}.tar", "image_root = 'cc'")
    for number in (0, 1):
        one, two = f"{number:05d}0000", f"{number:05d}0001"
        two_captions = json.dumps([f"{two} one", f"{two} two"])
        facts = {"key": one, "url": f"http://{one}", "caption": f"{one} one", "part": "dev"}
        members = {
            f"{one}.png": png("red", 8 + number), f"{one}.txt": f"{one} one",
            f"{one}.json": json.dumps(facts),
            f"{two}.png": png("blue", 8 + number), f"{two}.txt": two_captions,
        }  # fmt: skip
        tar(root / "cc" / f"{number:05d}.tar", members)
    ingest(root)
    return root


def test_tars_are_read_in_place(tars: Path) -> None:
    assert [(r["image"], r["image_id"], r["path"], r["width"]) for r in images(tars)] == [
        (0, "000000000", "00000.tar/000000000.png", 8),
        (1, "000000001", "00000.tar/000000001.png", 8),
        (2, "000010000", "00001.tar/000010000.png", 9),
        (3, "000010001", "00001.tar/000010001.png", 9),
    ]
    data = png("red")
    assert images(tars)[0]["content_hash"] == hash_bytes(data)
    assert images(tars)[0]["bytes"] == len(data)
    assert list(active(tars))[:3] == ["000000000#0", "000000001#0", "000000001#1"]
    assert active(tars)["000000001#1"] == "000000001 two"
    assert ingest(tars).fresh
    assert not list((tars / "cc").glob("*.png"))


def test_a_new_tar_makes_just_its_shard(tars: Path) -> None:
    before = images(tars), pairs(tars)
    tar(tars / "cc" / "000005.tar", {"x.png": png("lime"), "x.txt": "x one"})  # sorted before
    edit(tars, "{00000..00001}.tar", "*.tar", "tonics.toml")
    report = ingest(tars)
    assert report.made == 1
    assert images(tars)[:4] == before[0]
    assert pairs(tars)[:6] == before[1]
    assert pairs(tars)[6]["pair_key"] == "x#0"
    (tars / "cc" / "000005.tar").unlink()
    report = ingest(tars)
    assert (report.made, report.counts["withdrawn_images"]) == (0, 1)
    assert len(list((tars / ".tonics" / "probed").iterdir())) == 4


def test_a_status_of_tars_reads_none_of_them(tars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr("tonics.features.tars.Tar.walk", refuse)
    assert status_of(IngestStage(Dataset.open(tars))).done
    os.utime(tars / "cc" / "00001.tar", (1e9, 1e9))
    stale = status_of(IngestStage(Dataset.open(tars))).stale
    assert [one.shard.work.name for one in stale] == ["cc/00001.tar"]


def test_a_tar_cut_short_costs_what_is_lost(tars: Path) -> None:
    path = tars / "cc" / "00001.tar"
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"000010001.png") + 512 + 40])
    edit(tars, "image_root", "max_rejected = 0.3\nimage_root", "tonics.toml")
    report = ingest(tars)
    assert report.counts["rejected"] == {"tar is cut short": 1}
    assert rejected(tars)[0][0].startswith("00001.tar:byte ")
    assert list(active(tars))[-1] == "000010000#0"
    path.write_bytes(data)
    ingest(tars)
    assert len(active(tars)) == 6


def test_what_is_wrong_within_a_tar_is_rejected(tars: Path) -> None:
    edit(tars, "image_root", "max_rejected = 0.6\nimage_root", "tonics.toml")
    tar(
        tars / "cc" / "00001.tar",
        {
            "a.png": png("red")[:40], "a.txt": "a one",  # damaged
            "../b.png": png("red"), "../b.txt": "b one",  # outside
            "c.txt": "c one",  # the download failed
            "d.png": png("gray"),  # nobody described it
            "e.png": png("white"), "e.txt": b"caf\xe9",
            "f.png": png("black"), "f.json": json.dumps({"caption": "f one"}),
            "g.cls": "7",
        },
    )  # fmt: skip
    counts = ingest(tars).counts
    assert counts["images"] == {"in": 5, "out": 4, "rejected": {"truncated image": 1}}
    assert counts["rejected"] == {
        "member leaves its folder": 2, "its image was rejected": 1, "not UTF-8": 1,
    }  # fmt: skip
    assert counts["ignored"] == {"image was never downloaded": 1, "image without a caption": 1}
    assert active(tars)["f#0"] == "f one"


def test_fields_of_a_tars_json(tars: Path) -> None:
    columns = "columns = { image_id = 'url', caption = 'caption', split = 'part' }\n[ontology]"
    edit(tars, "[ontology]", columns, "tonics.toml")
    edit(tars, "image_root", "max_rejected = 0.6\nimage_root", "tonics.toml")
    ingest(tars, rebuild=True)
    assert [(r["pair_key"], r["split"]) for r in pairs(tars)] == [
        ("http://000000000#0", "val"), ("http://000010000#0", "val"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("captions", "more", "says"),
    [
        ("cc/*.tar", "", r"images: no such image folder; .*image_files = false"),
        ("cc/{00000..00002}.tar", "image_root = 'cc'", r"00002.tar: no such caption file"),
        ("cc/1*.tar", "image_root = 'cc'", r"cc/1\*.tar: no file matches"),
        ("cc/*.tar", "image_root = '.tonics'", r"image_root: value '.tonics', expected a folder"),
    ],
)
def test_tars_that_are_not_there(tars: Path, captions: str, more: str, says: str) -> None:
    configure(tars, captions, more)
    with pytest.raises(InputError, match=says):
        ingest(tars)


def test_tars_beside_other_captions_of_their_images(tars: Path) -> None:
    more = {"image": "00000.tar/000000000.png", "id": "000000000", "caption": "another"}
    new = {"image": "00000.tar/000000000.png", "id": "same photo", "caption": "once more"}
    write(tars, more, new, {"image": "00000.tar/no.png", "id": "no", "caption": "x"})
    source = "[[ingest.sources]]\ncaptions = 'captions.jsonl'\ncolumns = { image_id = 'id' }\n"
    for place in ("[[ingest", "[ontology]"):  # before, and behind
        text = (tars / "tonics.toml").read_text()
        edit(tars, place, source + place, "tonics.toml")
        edit(tars, "image_root", "max_rejected = 0.4\nimage_root", "tonics.toml")
        ingest(tars, rebuild=True)
        assert active(tars)["000000000#1" if place == "[ontology]" else "000000000#0"] == "another"
        assert active(tars)["same photo#0"] == "once more"
        assert len({r["content_hash"] for r in images(tars)}) == len(images(tars)) - 1
        assert ("no", "image not found") in rejected(tars)
        (tars / "tonics.toml").write_text(text)


@pytest.mark.parametrize("order", ["ab", "ba"])  # shards have one order of their own
def test_tars_that_share_a_key_keep_their_images_apart(tmp_path: Path, order: str) -> None:
    more = "image_root = 'cc'\nmax_rejected = 0.9"
    second = f"[[ingest.sources]]\ncaptions = 'cc/{order[1]}/0.tar'"
    root = configure(tmp_path / "dataset", f"cc/{order[0]}/0.tar", more, second)
    for number, name in enumerate(order):
        tar(root / "cc" / name / "0.tar", {"k.png": png("red", 8 + number), "k.txt": name})
    assert ingest(root).counts["rejected"] == {"image id listed twice": 1}
    assert [(r["path"], r["width"]) for r in images(root)] == [(f"{order[0]}/0.tar/k.png", 8)]
    assert active(root) == {"k#0": order[0]}


def test_a_tar_in_two_sources_has_a_shard_in_each(tars: Path) -> None:
    source = "[[ingest.sources]]\ncaptions = 'cc/00000.tar'\n"
    facts = "columns = { caption = 'caption' }\n"
    edit(tars, "[ontology]", source + facts + source + "[ontology]", "tonics.toml")
    edit(tars, "image_root", "max_rejected = 0.9\nimage_root", "tonics.toml")
    report = ingest(tars)
    assert report.counts["rejected"] == {"caption repeated for its image": 4}
    assert ingest(tars).fresh
    assert len(IngestStage(Dataset.open(tars)).shards()) == 3
    edit(tars, facts, "", "tonics.toml")  # other texts of the same names
    assert not status_of(IngestStage(Dataset.open(tars))).done


@pytest.mark.parametrize("folder_name", ["00000.tar", "photos"])
def test_a_file_in_a_folder_called_a_tar_is_looked_at(tmp_path: Path, folder_name: str) -> None:
    root = configure(tmp_path / "dataset", "captions.jsonl")
    path = root / "images" / folder_name / "a.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(png("red"))
    write(root, {"image": f"{folder_name}/a.png", "caption": "x"})
    ingest(root)
    path.write_bytes(png("blue", 9))
    folder = path.parent.stat()
    os.utime(path.parent, ns=(folder.st_atime_ns, folder.st_mtime_ns))
    assert ingest(root).made == 1
    assert images(root)[0]["width"] == 9


def test_pairs_are_discarded_before_the_images_they_number(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[str] = []
    unlink = Path.unlink

    def note(path: Path, missing_ok: bool = False) -> None:
        gone.append(path.name)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", note)
    IngestStage(Dataset.open(folder)).discard()
    assert [name for name in gone if name in ("images.parquet", "pairs.parquet")] == [
        "pairs.parquet", "images.parquet",
    ]  # fmt: skip


CONCEPTUAL = "".join(f"photo number {n}\thttp://a.b/{n}.jpg\n" for n in range(6))


def test_dead_links_do_not_stop_conceptual_captions(tmp_path: Path) -> None:
    root = configure(tmp_path / "dataset", "train.tsv")
    (root / "train.tsv").write_text(CONCEPTUAL)
    for row in (0, 2, 3):
        (root / "images" / "00000").mkdir(parents=True, exist_ok=True)
        (root / "images" / "00000" / f"{row:09d}.jpg").write_bytes(png("red", 8 + row))
    counts = ingest(root).counts
    assert [(r["image_id"], r["path"]) for r in images(root)] == [
        ("0", "00000/000000000.jpg"), ("2", "00000/000000002.jpg"), ("3", "00000/000000003.jpg"),
    ]  # fmt: skip
    absent = {"image was never downloaded": 3}
    assert counts["images"] == {"in": 6, "out": 3, "rejected": {}, "ignored": absent}
    assert (counts["in"], counts["out"], counts["rejected"]) == (6, 3, {})
    assert counts["ignored"] == absent
    (root / "images" / "00000" / "000000001.jpg").write_bytes(png("blue"))
    (root / "images" / "00000" / "000000004.jpg").write_bytes(b"404 Not Found")
    edit(root, "[ingest]", "[ingest]\nmax_rejected = 0.3", "tonics.toml")
    counts = ingest(root).counts
    assert list(active(root)) == ["0#0", "2#0", "3#0", "1#0"]
    assert counts["rejected"] == {"its image was rejected": 1}
    shutil.rmtree(root / "images" / "00000")
    with pytest.raises(InputError, match=r"none of 6 images is there; check ingest\.image_root"):
        ingest(root)


@pytest.mark.parametrize(
    ("source", "paths"),
    [
        ("images = 'cc'", ["cc/00000/000000000.jpg", "cc/00000/000000001.jpg"]),
        ("images = 'x-{row}.png'", ["x-0.png", "x-1.png"]),
        (
            "images = '{shard:05d}.tar/{row:09d}.png'",
            ["00000.tar/000000000.png", "00000.tar/000000001.png"],
        ),
        ("images = '{md5}'", [hashlib.md5(b"http://a.b/%d.jpg" % n).hexdigest() for n in (0, 1)]),
    ],
)
def test_where_the_images_of_conceptual_captions_are(
    tmp_path: Path, source: str, paths: list[str]
) -> None:
    root = configure(tmp_path / "dataset", "train.tsv", source=source)
    (root / "train.tsv").write_text("caption\turl\n" + CONCEPTUAL)
    if ".tar" in source:
        photos = {"000000000.png": png("red"), "000000001.png": png("blue")}
        tar(root / "images" / "00000.tar", photos)
    else:
        for path, colour in zip(paths, ("red", "blue"), strict=True):
            (root / "images" / path).parent.mkdir(parents=True, exist_ok=True)
            (root / "images" / path).write_bytes(png(colour))
    ingest(root)
    assert [(r["image_id"], r["path"]) for r in images(root)] == [("0", paths[0]), ("1", paths[1])]


def test_img2datasets_tables_say_what_was_downloaded(tars: Path) -> None:
    columns = {
        "key": ["000000000", "000000001", "000000002"],
        "caption": ["one", "two", "three"],
        "status": ["success", "success", "failed_to_download"],
    }
    pq.write_table(pa.table(columns), tars / "cc" / "00000.parquet")
    configure(tars, "cc/*.parquet", "image_root = 'cc'")
    counts = ingest(tars, rebuild=True).counts
    assert [r["path"] for r in images(tars)] == [f"00000.tar/00000000{n}.png" for n in (0, 1)]
    assert counts["ignored"] == {"image was never downloaded": 1}
    assert (counts["in"], counts["out"]) == (3, 2)


def test_what_lies_beside_a_kept_table_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tonics.pipeline.sources.listing._KEPT_FROM_BYTES", 0)
    root = configure(tmp_path / "dataset", "cc/0.parquet", "image_root = 'cc'")
    columns = {"key": ["k"], "caption": ["one"], "status": ["success"]}
    (root / "cc" / "0").mkdir(parents=True)
    pq.write_table(pa.table(columns), root / "cc" / "0.parquet")
    paths = []
    for name in ("k.png", "k.webp"):
        (root / "cc" / "0" / name).write_bytes(png("red"))
        ingest(root)
        paths.append(images(root)[0]["path"])
        (root / "cc" / "0" / name).unlink()
    tar(root / "cc" / "0.tar", {"k.png": png("red")})
    ingest(root)
    assert [*paths, images(root)[0]["path"]] == ["0/k.png", "0/k.webp", "0.tar/k.png"]


def test_captions_without_images(tmp_path: Path) -> None:
    more = "image_files = false\nsplits = { val = 0.3, test = 0.3 }"
    root = configure(tmp_path / "dataset", "train.tsv", more)
    (root / "train.tsv").write_text("".join(f"a dog {n}\thttp://a.b/{n}\n" for n in range(60)))
    counts = ingest(root).counts
    assert counts["images"] == {"in": 60, "out": 60, "rejected": {}}
    assert (counts["in"], counts["out"], counts["ignored"]) == (60, 60, {})
    assert set(counts["splits"]) == {"train", "val", "test"}
    first = images(root)[0]
    assert first == {
        "image": 0, "image_id": "0", "path": "", "width": 0, "height": 0, "bytes": 0,
        "content_hash": hash_bytes(b"0"),
    }  # fmt: skip
    before = images(root), pairs(root)
    lines = (root / "train.tsv").read_text()
    (root / "train.tsv").write_text("".join(lines.splitlines(keepends=True)[:-1]))
    assert ingest(root).counts["withdrawn_images"] == 1
    assert images(root)[59]["content_hash"] == ""
    assert pairs(root)[59]["split"] == ""
    (root / "train.tsv").write_text(lines)
    ingest(root)
    assert (images(root), pairs(root)) == before


def test_a_table_without_a_column_of_images(tmp_path: Path) -> None:
    source = "columns = { image = '', image_id = 'key' }"
    root = configure(tmp_path / "dataset", "t.csv", "image_files = false", source)
    (root / "t.csv").write_text(
        "key,caption\n7,a dog\n7,a cat\n,nobody\n8,a bus\n9,a mouse\n10,x\n"
    )
    ingest(root)
    assert list(active(root)) == ["7#0", "7#1", "8#0", "9#0", "10#0"]
    assert rejected(root) == [("t.csv:4", "no image named")]
    edit(root, "image_files = false", "", "tonics.toml")
    (root / "images").mkdir()
    with pytest.raises(ConfigError, match=r"columns.image: value '', expected the column of"):
        ingest(root)


def test_tars_of_captions_alone(tars: Path) -> None:
    configure(tars, "cc/*.tar", "image_files = false")
    shutil.move(tars / "cc", tars / "elsewhere")
    configure(tars, "elsewhere/*.tar", "image_files = false")
    ingest(tars)
    assert len(active(tars)) == 6
    assert {row["path"] for row in images(tars)} == {""}


def test_the_table_of_a_large_file_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tonics.pipeline.sources.listing._KEPT_FROM_BYTES", 0)
    kept = folder / ".tonics" / "sources"
    add(folder, {"image": "a.png", "caption": ["caf\ud800", "\ud800", None, ""]})
    write(folder, {"image": "\ud800.png", "caption": "x"}, name="more.jsonl")
    edit(folder, "[ontology]", "[[ingest.sources]]\ncaptions = 'more.jsonl'", "tonics.toml")
    edit(folder, "0.5", "0.9", "tonics.toml")
    ingest(folder)
    expected = images(folder), pairs(folder), rejected(folder)
    assert len(list(kept.iterdir())) == 2

    def refuse(*args: object) -> None:
        raise AssertionError("parsed again")

    with monkeypatch.context() as patch:
        patch.setattr("tonics.pipeline.sources.row.numbered_lines", refuse)
        patch.setattr("tonics.pipeline.sources.table.numbered_lines", refuse)
        assert ingest(folder).fresh
        (folder / "pairs.parquet").unlink()
        ingest(folder)
        assert (images(folder), pairs(folder), rejected(folder)) == expected
    edit(folder, "a one", "a changed")
    ingest(folder)
    assert active(folder)["a.png#0"] == "a changed"
    assert len(list(kept.iterdir())) == 2
    for file in kept.iterdir():
        file.write_bytes(b"damaged")
    assert ingest(folder).fresh
    ingest(folder, rebuild=True)
    assert len(list(kept.iterdir())) == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_no_table_is_kept_of_a_file_that_was_edited_meanwhile(
    folder: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr("tonics.pipeline.sources.listing._KEPT_FROM_BYTES", 0)
    test_a_file_edited_while_it_is_read_is_read_again(folder, monkeypatch, when)


def test_a_table_of_other_bytes_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tonics.pipeline.sources.listing._KEPT_FROM_BYTES", 0)
    kept, file = Kept(folder / "kept"), folder / "captions.jsonl"
    source, reading = Source(captions=file.name), Reading()
    hashed = hash_file(file)

    def edited() -> Iterator[Captioned]:
        edit(folder, "a one", "a changed")
        yield from read_captions(file, source)

    table = kept.table(file, hashed, source, reading, edited())
    assert "a changed" in table.column("caption").to_pylist()
    assert not list(kept.folder.glob("*"))
    kept.table(file, hash_file(file), source, reading, read_captions(file, source))
    assert len(list(kept.folder.glob("*.parquet"))) == 1


def test_a_shards_images_are_small_when_sent_to_a_worker() -> None:
    names = [f"{n:09d}.jpg" for n in range(50_000)]
    table = pa.table({"image_id": names, "path": names, "optional": [False] * len(names)})
    part = ImageList(table.slice(100, 10))
    data = pickle.dumps(part)
    assert len(data) < 2_000
    assert list(pickle.loads(data)) == list(part) == [(n, n, False) for n in names[100:110]]


def test_hashes_that_differ_in_their_last_bits_are_two() -> None:
    hashes = np.array([1 << 60, (1 << 60) + 1], np.uint64)

    def captions(texts: str, hashed: np.ndarray) -> Captions:
        numbers, split = np.arange(2), pa.array(["train"] * 2)
        return Captions(
            image=np.zeros(2, np.int64), position=numbers, rows=numbers,
            caption=pa.array(list(texts)), split=split, caption_hash=hashed,
        )  # fmt: skip

    ids = pa.chunked_array([["x"]])
    old = number_pairs(PAIRS_SCHEMA.empty_table(), captions("ab", hashes), ids)
    again = number_pairs(old, captions("ba", hashes[::-1].copy()), ids)
    assert again.column("caption").to_pylist() == ["a", "b"]


# -- numbering by columns does what numbering pair by pair does


def one_by_one(old: Rows, said: list[tuple[str, str]]) -> list[tuple[str, str, bool]]:
    """Number pairs one by one: pair key, caption and whether it is active, by number."""
    rows = {str(row["pair_key"]): (str(row["caption"]), False) for row in old}
    by_image: dict[str, dict[int, str]] = {}
    refused: dict[str, set[int]] = {}
    positions: Counter[str] = Counter()
    order = []
    for image_id, text in said:
        at = positions[image_id]
        positions[image_id] += 1
        if not text or text in by_image.setdefault(image_id, {}).values():
            refused.setdefault(image_id, set()).add(at)
        else:
            by_image[image_id][at] = text
            order.append((image_id, at, text))
    keys = {}
    for image_id, texts_said in by_image.items():
        known = {
            int(key.rpartition("#")[2]): text
            for key, (text, _) in rows.items()
            if key.rpartition("#")[0] == image_id
        }
        keys[image_id] = assign_keys(known, texts_said, refused.get(image_id, set()))
    for image_id, at, text in order:
        rows[f"{image_id}#{keys[image_id][at]}"] = (text, True)
    return [(key, text, active) for key, (text, active) in rows.items()]


said = st.tuples(st.sampled_from(["a", "b#1", "c"]), st.sampled_from(["", *"uvwx"]))
rounds = st.lists(st.lists(said, min_size=1), min_size=1, max_size=4)


@settings(max_examples=30, deadline=None)
@given(rounds=rounds)
def test_columns_number_as_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[tuple[str, str]]]
) -> None:
    root = configure(
        tmp_path_factory.mktemp("numbers"),
        "captions.jsonl",
        "image_files = false\nmax_rejected = 1.0",
    )
    expected: list[tuple[str, str, bool]] = []
    for said in rounds:
        write(root, *({"image": i, "caption": text} for i, text in said))
        old = pairs(root) if expected else []
        ingest(root)
        expected = one_by_one(old, said)
        found = [(r["pair_key"], r["caption"], r["split"] != "") for r in pairs(root)]
        assert found == expected
        assert [r["pair"] for r in pairs(root)] == list(range(len(found)))
        ids = [r["image_id"] for r in images(root)]
        assert all(ids[r["image"]] == r["pair_key"].rpartition("#")[0] for r in pairs(root))
