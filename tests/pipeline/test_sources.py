"""Caption files as people have them: every family gives the same rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tonics.errors import ConfigError, InputError
from tonics.pipeline.config import Columns, Source
from tonics.pipeline.sources import NO_CAPTION, Captioned, read_captions


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
