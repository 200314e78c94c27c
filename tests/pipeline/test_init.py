"""``tonics init`` writes a file that loads, explains itself and can be moved."""

from __future__ import annotations

import re
import tarfile
import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tonics.errors import InputError
from tonics.pipeline.config import load_config
from tonics.pipeline.init import TEMPLATE, init_dataset


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset"
    (folder / "photos").mkdir(parents=True)
    for name in ("one.json", "two.csv", "three.csv"):
        (folder / name).write_text("")
    return folder


def test_the_written_file_loads_and_names_everything(tmp_path: Path) -> None:
    path = init_dataset(tmp_path / "new", batch_size=32, epochs=5, val=0.0, test=0.2)
    assert path == tmp_path / "new" / "tonics.toml"
    config = load_config(tmp_path / "new")
    assert list(config.plans) == list(config.runs) == ["random", "mixed"]
    assert {(p.batch_size, p.epochs) for p in config.plans.values()} == {(32, 5)}
    assert (config.ingest.splits.val, config.ingest.splits.test) == (0.0, 0.2)
    assert config.plans["mixed"].curriculum == "tonics-mixed"


def test_the_commented_limit_is_the_default(tmp_path: Path) -> None:
    path = init_dataset(tmp_path / "new")
    before, text = load_config(tmp_path / "new"), path.read_text()
    assert "# max_rejected" in text
    path.write_text(text.replace("# max_rejected", "max_rejected"))
    assert load_config(tmp_path / "new") == before


def test_comments_are_kept_and_the_commented_phases_work(tmp_path: Path) -> None:
    text = init_dataset(tmp_path / "new").read_text()
    comments = [line.partition("#")[2] for line in TEMPLATE.read_text().splitlines()]
    for comment in filter(None, comments):
        assert comment.replace("{{", "{").replace("}}", "}") in text
    assert "{" not in re.sub(r"\{ (builder|mix|random|pooling)", "", text)
    phases = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
    start = phases.index("phases = [")
    parsed = tomllib.loads("\n".join(phases[start:][: phases[start:].index("]") + 1]))
    assert [set(phase.get("mix", [phase.get("builder")])) for phase in parsed["phases"]] == [
        {"random"},
        {"random", "ontology"},
    ]


def test_paths_inside_the_folder_are_relative_others_absolute(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "elsewhere.jsonl"
    outside.write_text("")
    monkeypatch.chdir(tmp_path)
    init_dataset(
        Path("dataset"),
        images=Path("dataset/photos"),
        captions=[Path("dataset/one.json"), Path("elsewhere.jsonl")],
    )
    ingest = load_config(sources).ingest
    assert ingest.image_root == "photos"
    assert [source.captions for source in ingest.sources] == ["one.json", str(outside)]


def test_several_captions_share_format_and_columns(sources: Path) -> None:
    init_dataset(
        sources,
        captions=[sources / "two.csv", sources / "three.csv", sources / "one.json"],
        source_format="csv",
        columns=["caption=text", "image=file name", "split=part"],
    )
    found = load_config(sources).ingest.sources
    assert [source.captions for source in found] == ["two.csv", "three.csv", "one.json"]
    for source in found:
        assert source.format == "csv"
        assert source.columns.model_dump() == {
            "image": "file name", "caption": "text", "split": "part", "image_id": "",
        }  # fmt: skip


def test_names_with_quotes_and_letters_of_the_world(tmp_path: Path) -> None:
    captions = tmp_path / 'süß "quoted" \\ {x}.json'
    captions.write_text("")
    init_dataset(tmp_path / "new", captions=[captions])
    assert load_config(tmp_path / "new").ingest.sources[0].captions == str(captions)


def test_an_existing_file_is_refused_and_kept(sources: Path) -> None:
    path = init_dataset(sources)
    path.write_text("# mine\n")
    with pytest.raises(InputError, match="exists already; edit it"):
        init_dataset(sources)
    assert path.read_text() == "# mine\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"captions": ["absent.json"]}, "absent.json: no such file or folder"),
        ({"images": "absent"}, "absent: no such file or folder"),
        ({"columns": ["text"]}, r"--column: 'text', expected image=\.\.\., caption="),
        ({"columns": ["title=text"]}, "--column: 'title=text'"),
        ({"source_format": "xml"}, "^--format: value 'xml', expected 'auto', 'coco'"),
        ({"val": 0.9, "test": 1.5}, "^--test: value 1.5"),
        ({"val": 0.9, "test": 0.5}, "^--val and --test: .* add up to 1.4, expected at most 1"),
        (
            {"epochs": 1},
            "^--epochs: 1 epochs for 2 phases.*; raise it, or edit the phases in tonics",
        ),
        ({"batch_size": 1}, "^--batch-size: value 1, expected greater than 1"),
        ({"captions": ["."]}, "is a folder, expected a caption file, or a folder of .tar or"),
        ({"captions": ["absent/*.tar"]}, r"absent/\*.tar: no file matches"),
        ({"captions": ["{3..1}.tar"]}, r"{3..1}.tar: 0 files, expected {first..last} of 1 to"),
        ({"images": __file__}, "is a file, expected the folder of the images"),
    ],
)
def test_wrong_arguments_leave_no_file(
    tmp_path: Path, arguments: dict[str, object], says: str
) -> None:
    given = {k: Path(v) if k == "images" else v for k, v in arguments.items()}
    given = {k: [Path(p) for p in v] if k == "captions" else v for k, v in given.items()}
    with pytest.raises(InputError, match=says):
        init_dataset(tmp_path / "new", **given)
    assert not (tmp_path / "new" / "tonics.toml").exists()


def write_tars(folder: Path, names: tuple[str, ...] = ("00000.tar", "00001.tar")) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        with tarfile.open(folder / name, "w"):
            pass
    return [folder / name for name in names]


@pytest.mark.parametrize("given", ["folder", "pattern", "one by one"])
def test_tars_need_no_image_folder(tmp_path: Path, given: str) -> None:
    root = tmp_path / "dataset"
    tars = write_tars(root / "cc3m")
    captions = {"folder": [root / "cc3m"], "pattern": [root / "cc3m" / "*.tar"], "one by one": tars}
    init_dataset(root, captions=captions[given])
    ingest = load_config(root).ingest
    assert (ingest.image_root, ingest.image_files) == ("cc3m", True)
    assert [(s.captions, s.format) for s in ingest.sources] == [("cc3m/*.tar", "webdataset")]


def test_some_of_a_folders_tars_are_named_one_by_one(tmp_path: Path) -> None:
    tars = write_tars(tmp_path / "cc3m", ("a.tar", "b.tar", "c.tar"))
    init_dataset(tmp_path / "new", captions=tars[:2])
    assert [s.captions for s in load_config(tmp_path / "new").ingest.sources] == [
        str(tmp_path / "cc3m" / "a.tar"),
        str(tmp_path / "cc3m" / "b.tar"),
    ]


def test_tars_of_several_folders_have_their_common_parent(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    kinds = ("train", "val", "test", "more")
    tars = [tar for kind in kinds for tar in write_tars(root / "cc" / kind)]
    for number, captions in enumerate((tars, [root / "cc" / kind for kind in kinds])):
        init_dataset(tmp_path / f"{number}", captions=captions)
        ingest = load_config(tmp_path / f"{number}").ingest
        assert ingest.image_root == str(root / "cc")
        assert [s.captions for s in ingest.sources] == [f"{root}/cc/{k}/*.tar" for k in kinds]
    init_dataset(root, captions=[root / "cc" / "*" / "*.tar"])
    assert load_config(root).ingest.image_root == "cc"


def test_tables_of_several_folders_say_where_their_images_are(tmp_path: Path) -> None:
    for kind in ("train", "val"):
        (tmp_path / kind).mkdir()
        columns = {"key": ["0"], "caption": ["a"], "status": ["success"]}
        pq.write_table(pa.table(columns), tmp_path / kind / "00000.parquet")
    init_dataset(tmp_path, captions=[tmp_path / "train", tmp_path / "val"])
    ingest = load_config(tmp_path).ingest
    assert (tmp_path / ingest.image_root).resolve() == tmp_path.resolve()
    assert [source.images for source in ingest.sources] == ["train", "val"]


def test_the_format_is_guessed(tmp_path: Path) -> None:
    tables = {
        "table.parquet": {"image": ["a.jpg"], "caption": ["a"]},
        "cc/00000.parquet": {"key": ["0"], "caption": ["a"], "status": ["success"]},
    }
    (tmp_path / "cc").mkdir()
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), tmp_path / name)
    (tmp_path / "dataset_coco.json").write_text('{"images": [{"sentences": []}]}')
    (tmp_path / "train.tsv").write_text("a dog\thttp://a.b/c.jpg\n")
    for number, (name, kind, root) in enumerate(
        [
            ("table.parquet", "parquet", "images"),
            ("cc", "parquet", str(tmp_path / "cc")),
            ("dataset_coco.json", "karpathy", "images"),
            ("train.tsv", "conceptual", "images"),
        ]
    ):
        init_dataset(tmp_path / f"{number}", captions=[tmp_path / name])
        ingest = load_config(tmp_path / f"{number}").ingest
        assert (ingest.sources[0].format, ingest.image_root) == (kind, root)


def test_features_without_images(sources: Path) -> None:
    init_dataset(sources, captions=[sources / "one.json"], features_only=True)
    config = load_config(sources)
    assert not config.ingest.image_files
    assert {name: set_.detector for name, set_ in config.features.items()} == {"imported": "import"}
    assert {plan.features for plan in config.plans.values()} == {"imported"}
