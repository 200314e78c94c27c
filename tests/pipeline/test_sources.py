"""Caption files as people have them: every family gives the same rows."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tonics.errors import ConfigError, InputError
from tonics.features.tars import CUT_SHORT, DAMAGED, Member, Tar
from tonics.pipeline.config import Columns, Source
from tonics.pipeline.sources import (
    NEVER_DOWNLOADED,
    NO_CAPTION,
    Captioned,
    find_files,
    read_captions,
    read_webdataset,
)


def read(path: Path, text: str | bytes, **source: object) -> list[Captioned]:
    """Write a caption file and read it back."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_captions(path, Source(captions=path.name, **source)))


def said(rows: list[Captioned]) -> list[tuple[str, str]]:
    return [(row.image_id, row.caption) for row in rows]


def test_coco(tmp_path: Path) -> None:
    coco = {
        "info": {},
        "images": [
            {"id": 9, "file_name": "000009.jpg", "height": 1},
            {"id": 25, "file_name": "sub/000025.jpg"},
            {"id": 30, "file_name": "alone.jpg"},
        ],
        "annotations": [
            {"id": 1, "image_id": 25, "caption": "A giraffe. "},
            {"id": 2, "image_id": 9, "caption": "A plate."},
            {"id": 3, "image_id": 25, "caption": None},
            {"id": 4, "image_id": 26, "caption": "Nobody's."},
        ],
    }
    rows = read(tmp_path / "captions_val.json", "\ufeff" + json.dumps(coco))
    assert said(rows)[:3] == [("25", "A giraffe. "), ("9", "A plate."), ("25", "")]
    assert [row.path for row in rows] == [
        "sub/000025.jpg", "000009.jpg", "sub/000025.jpg", "", "alone.jpg",
    ]  # fmt: skip
    assert [row.problem for row in rows] == ["", "", "", "image not listed", NO_CAPTION]
    assert rows[1].where == "captions_val.json:annotation 2"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "a JSON list"),
        ("{", "not valid JSON"),
        ('{"images": [], "annotations": [{"image_id": 1}]}', r"annotations\[0\] is"),
        ('{"images": [{"id": 1}], "annotations": []}', r"images\[0\] is"),
        ('{"images": [7], "annotations": []}', r"images\[0\] is '7'"),
    ],
)
def test_not_coco(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read(tmp_path / "captions.json", text)


def test_flickr_token_file(tmp_path: Path) -> None:
    text = 'a.jpg#0\tA dog, "running" .\na.jpg#1\ta\tdog\n\nb#c.jpg#0\tA cat .\nno tab here\n'
    rows = read(tmp_path / "Flickr8k.token.txt", text)
    assert said(rows[:3]) == [
        ("a.jpg", 'A dog, "running" .'),
        ("a.jpg", "a\tdog"),
        ("b#c.jpg", "A cat ."),
    ]
    assert [(r.problem, r.where) for r in rows[3:]] == [
        ("not a caption line", "Flickr8k.token.txt:5")
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.txt", 'image,caption\na.jpg,"A dog, and ""Rex"" ."\na.jpg,A dog, and a cat .\n'),
        (
            "results_20130124.csv",
            'image_name| comment_number| comment\na.jpg| 0| A dog, and "Rex" .\n'
            "a.jpg| 1| A dog, and a cat .\n",
        ),
        ("results.token", 'a.jpg#0\tA dog, and "Rex" .\r\na.jpg#1\tA dog, and a cat .\r\n'),
        (
            "captions.csv",
            'caption,image\n"A dog, and ""Rex"" .",a.jpg\n"A dog, and a cat .",a.jpg\n',
        ),
        ("captions.tsv", 'caption\timage\nA dog, and "Rex" .\ta.jpg\nA dog, and a cat .\ta.jpg'),
        (
            "captions.jsonl",
            r'{"image": "a.jpg", "caption": ["A dog, and \"Rex\" .", "A dog, and a cat ."]}',
        ),
        (
            "table.dat",
            '{"image": "a.jpg", "caption": "A dog, and \\"Rex\\" ."}\n'
            '{"image": "a.jpg", "caption": "A dog, and a cat ."}\n',
        ),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_form_is_recognised_and_says_the_same(
    tmp_path: Path, name: str, text: str, mark: str
) -> None:
    rows = read(tmp_path / name, mark + text)
    assert said(rows) == [("a.jpg", 'A dog, and "Rex" .'), ("a.jpg", "A dog, and a cat .")]
    assert {row.path for row in rows} == {"a.jpg"}


def test_named_columns_carry_ids_splits_and_captions(tmp_path: Path) -> None:
    columns = Columns(image="file", caption="text", split="part", image_id="key")
    rows = ["key,file,text,part,more", "7,a.jpg,A dog.,dev,x", '8,b.jpg,"two\nlines",,x']
    by_kind = {
        "t.csv": "\n".join(rows),
        "t.tsv": "key\tfile\ttext\tpart\n7\ta.jpg\tA dog.\tdev\n8\tb.jpg\ttwo lines\t\n",
        "t.jsonl": '{"key": 7, "file": "a.jpg", "text": "A dog.", "part": "dev"}\n'
        '{"key": 8, "file": "b.jpg", "text": ["two lines"], "part": null}\n',
    }
    for name, text in by_kind.items():
        found = read(tmp_path / name, text, columns=columns)
        shown = [(r.image_id, r.path, " ".join(r.caption.split()), r.split) for r in found]
        assert shown == [("7", "a.jpg", "A dog.", "dev"), ("8", "b.jpg", "two lines", "")], name


def test_bad_rows_are_told_apart_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = read(
        tmp_path / "t.jsonl",
        b'{"image": "a.jpg", "caption": "A dog."}\n[1]\n{"image"\n{"caption": "Whose?"}\n'
        b'{"image": "b.jpg", "caption": 5}\n{"image": "c.jpg", "caption": "caf\xe9"}\n',
    )
    assert [row.problem for row in rows] == [
        "", "not a JSON object", "not valid JSON", "no image named", "", "",
    ]  # fmt: skip
    assert said(rows[4:]) == [("b.jpg", ""), ("c.jpg", "caf\udce9")]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path, name: str) -> None:
    text = {"t.csv": "image,captions\n", "t.tsv": "image\tcaptions\n"}
    with pytest.raises(ConfigError, match=r"no column 'caption', .*set columns.caption = 'capt"):
        read(tmp_path / name, text.get(name, '{"image": "a", "captions": []}'))


@pytest.mark.parametrize("lines", [5, 2000])
def test_a_quote_that_is_never_closed_costs_one_row(tmp_path: Path, lines: int) -> None:
    text = 'image,caption\na.jpg,"two\nlines"\n\nb.jpg,"A dog\n' + "c.jpg,A cat\n" * lines
    rows = read(tmp_path / "t.csv", text, format="csv")
    assert said(rows[:1]) == [("a.jpg", "two\nlines")]
    assert (rows[1].problem, rows[1].where) == ("a quote that is never closed", "t.csv:5")
    assert said(rows[2:]) == [("c.jpg", "A cat")] * lines
    assert rows[-1].where == f"t.csv:{5 + lines}"


def test_blank_lines_are_kept_within_quotes_and_dropped_between(tmp_path: Path) -> None:
    text = 'image,caption\n\na,"one\n\n  \nmore"\n   \nb,two\n\n'
    rows = read(tmp_path / "t.csv", text, format="csv")
    assert [(r.image_id, r.caption, r.where) for r in rows] == [
        ("a", "one\n\n  \nmore", "t.csv:3"), ("b", "two", "t.csv:8"),
    ]  # fmt: skip
    assert said(read(tmp_path / "t.tsv", "image\tcaption\n  \na\tone\n")) == [("a", "one")]


def test_a_quote_within_a_field_is_a_character(tmp_path: Path) -> None:
    rows = read(tmp_path / "t.csv", 'image,caption\na.jpg,a 5" disk\nb.jpg,b\n', format="csv")
    assert said(rows) == [("a.jpg", 'a 5" disk'), ("b.jpg", "b")]


def test_a_field_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tonics.pipeline.sources.table._FIELD_LIMIT", 50)
    with pytest.raises(InputError, match=r"t.csv:2: field larger than field limit"):
        read(tmp_path / "t.csv", "image,caption\na.jpg," + "x" * 99, format="csv")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "t.csv",
            "image;caption\na;b\n",
            r"t.csv: not comma-separated: .*'image;caption'; save it",
        ),
        ("t.csv", "image|caption\na|b\n", r"not comma-separated: .*save it with commas"),
        ("t.csv", "image\tcaption\na\tb\n", r"not comma-separated: .*set format = 'tsv'"),
        ("t.tsv", "image,caption\na,b\n", r"t.tsv: not tab-separated: .*set format = 'csv'"),
        ("t.tsv", "image;caption\na;b\n", r"not tab-separated: .*save it with commas"),
        ("t.csv", " \n\n", "t.csv: is empty, expected a header line"),
        ("t.csv", "", "t.csv: is empty, expected captions"),
        ("t.json", "\ufeff", "t.json: is empty, expected captions"),
        (
            "t.csv",
            "image,caption\n".encode("utf-16"),
            "t.csv: is encoded in UTF-16, expected UTF-8",
        ),
        ("t.json", "\ufeff{}".encode("utf-16-be"), "t.json: is encoded in UTF-16"),
    ],
)
def test_what_is_no_such_table_says_so(
    tmp_path: Path, name: str, text: str | bytes, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        read(tmp_path / name, text)


def test_a_list_of_no_captions_lists_the_image(tmp_path: Path) -> None:
    rows = read(tmp_path / "t.jsonl", '{"image": "a.jpg", "caption": []}\n{"caption": []}\n')
    assert [(r.image_id, r.problem) for r in rows] == [
        ("a.jpg", NO_CAPTION),
        ("", "no image named"),
    ]


def test_a_file_of_no_known_form(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"format not recognised from 'hello there'"):
        read(tmp_path / "captions.dat", "hello there\n")
    with pytest.raises(InputError, match="no such caption file"):
        read_captions(tmp_path / "absent.json", Source(captions="absent.json"))


def test_a_named_format_wins_over_the_name(tmp_path: Path) -> None:
    rows = read(tmp_path / "t.json", "image,caption\na.jpg,a dog, a cat\n", format="flickr")
    assert said(rows) == [("a.jpg", "a dog, a cat")]


@pytest.mark.shared
def test_the_official_coco_file(shared: Path) -> None:
    path = shared / "data" / "captions" / "captions_val2017.json"
    rows = list(read_captions(path, Source(captions=path.name)))
    assert len(rows) == 25_014  # and no image without a caption
    assert len({row.image_id for row in rows}) == 5_000
    assert not any(row.problem for row in rows)
    assert rows[0].path == f"{int(rows[0].image_id):012d}.jpg"


@pytest.mark.shared
def test_the_whole_of_flickr8k(shared: Path) -> None:
    path = shared / "data" / "flickr8k" / "captions_all.tsv"
    rows = list(read_captions(path, Source(captions=path.name)))
    counts = Counter(row.image_id for row in rows)
    assert len(rows) == 40_455
    assert (len(counts), set(counts.values())) == (8_091, {5})
    assert not any(row.problem for row in rows)


@pytest.mark.shared
def test_lists_of_captions_in_jsonl(shared: Path) -> None:
    path = shared / "data" / "flickr8k" / "subset.jsonl"
    columns = Columns(caption="captions", split="split")
    rows = list(read_captions(path, Source(captions=path.name, columns=columns)))
    images = {row.image_id: row.split for row in rows}
    assert (len(rows), len(images)) == (30_000, 6_000)
    assert Counter(images.values()) == {"train": 1451, "dev": 218, "test": 140, "": 4191}


# -- Karpathy's files


KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filepath": "val2014", "filename": "COCO_val2014_000000391895.jpg", "imgid": 0,
            "cocoid": 391895, "split": "restval", "sentids": [1, 2],
            "sentences": [
                {"raw": "A man on a bike.", "tokens": ["a", "man"], "imgid": 0, "sentid": 1},
                {"tokens": ["two", "words"], "imgid": 0, "sentid": 2},
            ],
        },
        {"filename": "1000092795.jpg", "imgid": 1, "split": "test", "sentences": [{"raw": None}]},
        {"filename": "alone.jpg", "imgid": 2, "split": "val", "sentences": []},
    ],
}  # fmt: skip


def test_karpathy(tmp_path: Path) -> None:
    rows = read(tmp_path / "dataset_coco.json", json.dumps(KARPATHY))
    assert [(r.image_id, r.path, r.caption, r.split) for r in rows] == [
        ("391895", "val2014/COCO_val2014_000000391895.jpg", "A man on a bike.", "restval"),
        ("391895", "val2014/COCO_val2014_000000391895.jpg", "two words", "restval"),
        ("1000092795.jpg", "1000092795.jpg", "", "test"),
        ("alone.jpg", "alone.jpg", "", ""),
    ]
    assert rows[0].where == "dataset_coco.json:sentence 1"
    assert rows[3].problem == NO_CAPTION
    null = json.dumps(KARPATHY).replace("391895,", "null,", 1)
    rows = read(tmp_path / "dataset_coco.json", null)
    assert rows[0].image_id == "COCO_val2014_000000391895.jpg"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"sentences": 1}', "no list 'images', expected Karpathy's"),
        ('{"images": [{"sentences": []}]}', r"images\[0\] is"),
        ('{"images": [{"filename": "a", "sentences": 3}]}', r"images\[0\] is"),
    ],
)
def test_not_karpathy(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read(tmp_path / "dataset.json", text, format="karpathy")


# -- Conceptual Captions


@pytest.mark.parametrize("header", ["", "caption\turl\n"])
@pytest.mark.parametrize("name", ["Validation_GCC-1.1.0-Validation.tsv", "train"])
def test_conceptual_captions(tmp_path: Path, name: str, header: str) -> None:
    text = header + "a dog\thttp://a.b/1\nno url\n\n a cat \thttp://a.b/2\tmine/cat.jpg\r\n"
    rows = read(tmp_path / name, text)
    assert [(r.image_id, r.path, r.caption, r.problem) for r in rows] == [
        ("0", "00000/000000000.jpg", "a dog", ""),
        ("", "", "", "not a caption and a URL"),
        ("2", "mine/cat.jpg", " a cat ", ""),
    ]
    assert [r.optional for r in rows] == [True, False, True]
    assert rows[2].where == f"{name}:{4 + bool(header)}"


def test_conceptual_captions_by_url(tmp_path: Path) -> None:
    columns = Columns(image_id="url")
    rows = read(
        tmp_path / "t.tsv", "a\thttp://1\n" * 10_001, columns=columns, images="{shard}/{md5}"
    )
    assert rows[0].image_id == "http://1"
    assert rows[0].path == "0/" + hashlib.md5(b"http://1").hexdigest()
    assert rows[10_000].path.startswith("1/")
    with pytest.raises(
        ConfigError, match=r"sources.images: value '{number}', expected a folder, or"
    ):
        read(tmp_path / "t.tsv", "a\thttp://1\n", images="{number}")


# -- parquet


def table(path: Path, cells: dict[str, object], **source: object) -> list[Captioned]:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(cells), path, row_group_size=2)
    return list(read_captions(path, Source(captions=path.name, **source)))


def test_parquet_tables(tmp_path: Path) -> None:
    columns = {
        "image": ["a.jpg", "b.jpg", None, "c.jpg", ""],
        "caption": ["one", None, "whose", "caf\u00e9", "x"],
        "part": ["dev", None, "", "train", ""],
        "key": [7, 8, 9, 10, 11],
    }
    named = Columns(split="part", image_id="key")
    rows = table(tmp_path / "t.parquet", columns, columns=named)
    assert [(r.image_id, r.path, r.caption, r.split, r.problem) for r in rows] == [
        ("7", "a.jpg", "one", "dev", ""),
        ("8", "b.jpg", "", "", ""),
        ("", "", "", "", "no image named"),
        ("10", "c.jpg", "café", "train", ""),
        ("", "", "", "", "no image named"),
    ]
    assert [r.where for r in rows][3:] == ["t.parquet:row 3", "t.parquet:row 4"]


def test_parquet_lists_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    lists = pa.array([["one", "two"], [], None, ["caf", None]], pa.large_list(pa.string()))
    rows = table(tmp_path / "t.parquet", {"image": list("abcd"), "caption": lists})
    assert [(r.image_id, r.caption, r.problem) for r in rows] == [
        ("a", "one", ""), ("a", "two", ""), ("b", "", NO_CAPTION), ("c", "", ""),
        ("d", "caf", ""), ("d", "", ""),
    ]  # fmt: skip
    raw = pa.array([b"caf\xe9", b"fine"]).view(pa.string())
    rows = table(tmp_path / "t.parquet", {"image": ["a", "b"], "caption": raw})
    assert said(rows) == [("a", "caf\udce9"), ("b", "fine")]


@pytest.mark.parametrize("place", ["tar", "folder", "nowhere"])
def test_parquet_as_img2dataset_writes_it(tmp_path: Path, place: str) -> None:
    if place == "tar":
        write_tar(tmp_path / "00003.tar", {"000030000.json": b"{}", "000030000.webp": b"x"})
    elif place == "folder":
        (tmp_path / "00003").mkdir()
        (tmp_path / "00003" / "000030000.png").write_bytes(b"x")
    columns = {
        "url": ["u"] * 3, "key": ["000030000", "000030001", "000030002"], "caption": list("abc"),
        "status": ["success", "failed_to_download", "failed_to_resize"],
    }  # fmt: skip
    rows = table(tmp_path / "00003.parquet", columns)
    folder, end = {
        "tar": ("00003.tar", "webp"), "folder": ("00003", "png"), "nowhere": ("00003", "jpg"),
    }[place]  # fmt: skip
    assert [(r.image_id, r.path) for r in rows] == [
        (key, f"{folder}/{key}.{end}") for key in columns["key"]
    ]
    assert [r.problem for r in rows] == ["", NEVER_DOWNLOADED, NEVER_DOWNLOADED]


def test_what_is_no_table_of_paths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"column 'image' is struct<.*expected texts or whole num"):
        table(tmp_path / "t.parquet", {"image": [{"bytes": b"x"}], "caption": ["a"]})
    with pytest.raises(ConfigError, match=r"no column 'caption'.*set columns.caption = 'captions'"):
        table(tmp_path / "t.parquet", {"image": ["a"], "captions": ["a"]})
    with pytest.raises(InputError, match=r"t.parquet: cannot be read as parquet"):
        read(tmp_path / "t.parquet", b"PAR1 and no more")


# -- tars


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_web_datasets(tmp_path: Path) -> None:
    facts = json.dumps({"caption": "from the facts", "uid": "u1", "part": "dev"}).encode()
    members = {
        "0.jpg": b"", "0.txt": b"one", "0.json": facts,
        "1.json": b'{"caption": ["two", "three"]}', "deep/1.jpg": b"", "1.PNG": b"",
        "2.txt": b"never downloaded", "3.jpg": b"", "4.jpg": b"", "4.txt": b'["a", "b"]',
        "5.jpg": b"", "5.txt": b"[sic] a bracket", "6.cls": b"7", "7.webp": b"",
        "7.txt": b"caf\xe9", "8.jpg": b"", "8.json": b"{", "8.txt": b"fine", "9.jpg": b"",
        "9.json": b"[]", "v.1/a.v2.jpg": b"", "v.1/a.v2.txt": b"dots",
    }  # fmt: skip
    write_tar(tmp_path / "t.tar", members)
    seen: dict[str, bytes] = {}
    source = Source(captions="t.tar")
    rows = list(read_webdataset(tmp_path / "t.tar", source, seen.__setitem__))
    assert [(r.image_id, r.path, r.caption, r.problem) for r in rows] == [
        ("0", "t.tar/0.jpg", "one", ""),
        ("1", "t.tar/1.PNG", "two", ""),
        ("1", "t.tar/1.PNG", "three", ""),
        ("deep/1", "t.tar/deep/1.jpg", "", NO_CAPTION),
        ("2", "", "never downloaded", NEVER_DOWNLOADED),
        ("3", "t.tar/3.jpg", "", NO_CAPTION),
        ("4", "t.tar/4.jpg", "a", ""),
        ("4", "t.tar/4.jpg", "b", ""),
        ("5", "t.tar/5.jpg", "[sic] a bracket", ""),
        ("7", "t.tar/7.webp", "caf\udce9", ""),
        ("8", "t.tar/8.jpg", "fine", ""),
        ("", "", "", "not valid JSON"),
        ("v.1/a.v2", "t.tar/v.1/a.v2.jpg", "dots", ""),
    ]
    assert set(seen) == {name for name in members if name.lower().endswith(("jpg", "png", "webp"))}
    named = Source(
        captions="t.tar", columns=Columns(caption="caption", image_id="uid", split="part")
    )
    first, *_, last, _ = read_webdataset(tmp_path / "t.tar", named)
    assert (first.image_id, first.caption, first.split) == ("u1", "from the facts", "dev")
    assert (last.where, last.problem) == ("t.tar:9", "not valid JSON")


@pytest.mark.parametrize("damage", [CUT_SHORT, DAMAGED])
def test_damage_in_members_of_other_kinds_is_told(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "t.tar"
    write_tar(path, {"0.jpg": b"", "0.txt": b"one", "0.npy": bytes(2000), "1.txt": b"lost"})
    data = bytearray(path.read_bytes())
    at = data.index(b"0.npy")
    if damage == DAMAGED:
        data[at + 130] ^= 1
    path.write_bytes(data if damage == DAMAGED else data[: at + 900])
    rows = list(read_webdataset(path, Source(captions="t.tar")))
    assert [r.problem for r in rows] == [damage, ""]


def test_captions_alone_read_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "t.tar", {"0.jpg": b"x", "0.txt": b"one"})
    names: list[str] = []
    read_member = Tar.read

    def note(tar: Tar, member: Member) -> bytes:
        names.append(member.name)
        return read_member(tar, member)

    monkeypatch.setattr(Tar, "read", note)
    assert len(list(read_webdataset(tmp_path / "t.tar", Source(captions="t.tar")))) == 1
    assert names == ["0.txt"]


def test_texts_that_are_too_long_to_be_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tonics.pipeline.sources.webdataset.TEXT_BYTES", 9)
    write_tar(tmp_path / "t.tar", {"0.jpg": b"0123456789", "0.txt": b"0123456789"})
    rows = read(tmp_path / "t.tar", (tmp_path / "t.tar").read_bytes())
    assert [r.problem for r in rows] == ["member larger than 0 MiB", NO_CAPTION]


# -- several files


def test_files_of_a_pattern(tmp_path: Path) -> None:
    names = ["a/1.tar", "a/10.tar", "a/2.tar", "b[1].tar", "c{1..2}.tar"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(pattern: str) -> list[str]:
        return [p.relative_to(tmp_path).as_posix() for p in find_files(tmp_path, pattern)]

    assert found("a/*.tar") == names[:3]
    assert found("*/[12].tar") == ["a/1.tar", "a/2.tar"]
    assert found("a/{1..2}.tar") == ["a/1.tar", "a/2.tar"]
    assert found("a/{09..10}.tar") == ["a/09.tar", "a/10.tar"]  # reading says that 09 is missing
    assert found("b[1].tar") == ["b[1].tar"]
    assert found("c{1..2}.tar") == ["c{1..2}.tar"]
    assert [str(p) for p in find_files(Path("elsewhere"), f"{tmp_path}/a/1*")] == [
        f"{tmp_path}/a/1.tar",
        f"{tmp_path}/a/10.tar",
    ]
    with pytest.raises(InputError, match=r"d\*.tar: no file matches; check"):
        find_files(tmp_path, "d*.tar")
    for absurd in ("{3..1}.tar", "{0..99999999999999999999}.tar", "{0..9999}/{0..9999}.tar"):
        with pytest.raises(InputError, match=r"files, expected {first..last} of 1 to 1,000,000"):
            find_files(tmp_path, absurd)


@pytest.mark.shared
def test_the_validation_rows_of_conceptual_captions(shared: Path) -> None:
    path = shared / "data" / "captions" / "Validation_GCC-1.1.0-Validation.tsv"
    rows = list(read_captions(path, Source(captions=path.name)))
    assert (len(rows), rows[-1].image_id) == (12_000, "11999")
    assert rows[-1].path == "00001/000011999.jpg"
    assert not any(row.problem for row in rows)
