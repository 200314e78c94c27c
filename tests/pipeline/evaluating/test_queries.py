"""Query sets: Karpathy's order and his five captions; files of altered captions; COCO's numbers."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import pyarrow as pa
import pytest

from tonics.errors import InputError
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.evaluating import comparing, evaluations, named_images, swap_files
from tonics.pipeline.evaluating.named_images import find_images
from tonics.pipeline.evaluating.questions import Swaps, coco_numbers
from tonics.pipeline.evaluating.swap_files import Swap, read_swaps
from tonics.pipeline.graph import stages_of
from tonics.pipeline.runner import bring_up_to_date
from tonics.pipeline.stages.queries import QueriesStage
from tonics.train.evaluation import Queries
from tonics.train.evaluation.queries import image_rows

CONFIG = """
[ingest]
image_files = false
[[ingest.sources]]
captions = "dataset_coco.json"
format = "karpathy"
[features.theirs]
detector = "import"
[plans.p]
features = "theirs"
curriculum = "import"
[runs.r]
plan = "p"
[evaluation]
captions_per_image = 5
"""
IDS = [391895, 17, 60623, 483108, 5, 384213, 193271]
SPLITS = ["test", "train", "test", "val", "test", "restval", "test"]


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images in Karpathy's form, four of them for testing, with six captions each."""
    folder = tmp_path_factory.mktemp("coco")
    images = []
    for number, split in zip(IDS, SPLITS, strict=True):
        sentences = [{"raw": f"caption {k} of {number}"} for k in range(6)]
        images.append({"filename": f"COCO_val2014_{number:012d}.jpg", "cocoid": number})
        images[-1] |= {"split": split, "sentences": sentences}
    (folder / "dataset_coco.json").write_text(json.dumps({"images": images}))
    (folder / "tonics.toml").write_text(CONFIG)
    for key in ("ingest", "queries/test"):
        bring_up_to_date(stages_of(Dataset.open(folder))[key], workers=1)
    return folder


def test_examples() -> None:
    for module in (swap_files, evaluations, named_images, comparing):
        assert doctest.testmod(module).failed == 0


def test_images_keep_the_order_of_the_source_and_five_captions_each(coco: Path) -> None:
    """Folds are consecutive thousands of Karpathy's order: ids are not sorted, splits mixed."""
    dataset = Dataset.open(coco)
    queries = QueriesStage(dataset, "test").read()
    expected = [str(k) for k, split in zip(IDS, SPLITS, strict=True) if split == "test"]
    assert image_rows(queries)["image_id"].to_pylist() == expected
    asked = Queries.of(queries)
    assert [queries["image_id"][k].as_py() for k in range(20)] == [expected[k] for k in asked.owner]
    assert queries["caption"].to_pylist()[:5] == [f"caption {k} of 391895" for k in range(5)]
    stages = stages_of(dataset)
    assert stages["eval/r"].inputs == ("train/r", "queries/test")  # no ontology, so no hard choices
    report = bring_up_to_date(stages["queries/test"], workers=1)
    assert report.counts["ignored"] == {"of other splits": 18, "beyond the first 5 of an image": 4}


def test_coco_numbers_of_captions_are_found_by_image_and_words(coco: Path, tmp_path: Path) -> None:
    queries = QueriesStage(Dataset.open(coco), "test").read()
    rows = queries.select(["image_id", "caption"]).to_pylist()
    notes = [
        {"id": 900 - k, "image_id": int(row["image_id"]), "caption": f" {row['caption']}\n"}
        for k, row in enumerate(rows)
    ]
    images = [{"id": k, "file_name": f"{k}.jpg"} for k in IDS]
    file = tmp_path / "captions.json"
    file.write_text(json.dumps({"images": images, "annotations": notes[::-1]}))
    found = coco_numbers(queries, file)
    assert found == ([391895, 60623, 5, 193271], [900 - k for k in range(20)])
    file.write_text(json.dumps({"images": images, "annotations": notes[3:]}))
    with pytest.raises(InputError, match="3 of 20 captions are not in it"):
        coco_numbers(queries, file)
    names = pa.array([f"{name}.jpg" for name in queries["image_id"].to_pylist()])
    with pytest.raises(InputError, match=r"4 image ids are no numbers of COCO, such as '391895"):
        coco_numbers(queries.set_column(3, "image_id", names), file)


def test_altered_captions_are_read_as_negclip_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "swaps.tsv"
    file.write_text(
        "\ttitle\tfilepath\tneg_caption\tneg_image\n"
        "0\tA dog on a mat.\tcoco/COCO_val2014_000000000017.jpg\t"
        "['A mat on a dog .', \"x's\"]\t[1]\n"
        "1\tNothing altered\tb.jpg\t[]\t[1]\n"
    )
    first = Swap(
        image="coco/COCO_val2014_000000000017.jpg",
        caption="A dog on a mat.",
        negatives=("A mat on a dog .", "x's"),
    )
    found = read_swaps(file, {})
    assert (found.swaps, found.rows) == ([first], 2)
    other = tmp_path / "swaps.csv"
    other.write_text('photo,caption,false\n17,"A dog, a mat","A mat, a dog"\n')
    columns = swap_files.column_names(["image=photo", "negatives=false"])
    assert read_swaps(other, columns).swaps[0].negatives == ("A mat, a dog",)
    with pytest.raises(InputError, match=r"no column for 'image' among .* --column image=NAME"):
        read_swaps(other, {})
    with pytest.raises(InputError, match="--column: 'title'"):
        swap_files.column_names(["title"])


def test_rows_that_say_nothing_or_too_much_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "swaps.csv"
    rows = ["a,A dog.,a  DOG", "a,A dog.,\"['a dog', 'a cat']\"", "a,A dog, a mat,a cat", "a,A dog"]
    file.write_text("\n".join(["image,caption,negatives", *rows]) + "\n")
    found = read_swaps(file, {})
    assert found.swaps == [Swap(image="a", caption="A dog.", negatives=("a cat",))]
    assert (found.rows, found.malformed, found.unaltered) == (4, 2, 2)
    file.write_text("image,caption,negatives\n" + rows[2])
    with pytest.raises(InputError, match=r"of its 1 rows none .* 1 have more or fewer fields"):
        read_swaps(file, {})


def find(ids: list[str], paths: list[str], names: list[str]) -> list[int]:
    table = {"image": range(len(ids)), "image_id": ids, "path": paths}
    found: list[int] = find_images(names, pa.table(table)).tolist()
    return found


def test_images_are_found_by_id_path_or_file() -> None:
    names = ["17", "x/17.jpg", "z/17.jpg", "b.jpg", "c.jpg", "d", "e.jpg", "y/e.jpg"]
    ids, paths = ["17", "b", "c.jpg", "5", "6"], ["x/17.jpg", "y/b.jpg", "", "x/e.jpg", "y/e.jpg"]
    assert find(ids, paths, names) == [0, 0, 0, 1, 2, -1, -1, 4]  # two are called e.jpg


@pytest.mark.parametrize(
    ("image_id", "path", "found"),
    [
        ("17", "val2014/COCO_val2014_000000000017.jpg", 0),
        ("17", "val2017/000000000017.jpg", 0),
        ("COCO_val2014_000000000017", "", 0),
        ("17", "photos/17.jpg", -1),
        ("17", "", -1),
    ],
)
def test_cocos_numbers_are_those_of_cocos_images(image_id: str, path: str, found: int) -> None:
    names = ["coco/COCO_train2014_000000000017.jpg", "000000000017.jpg"]
    assert find([image_id], [path], names) == [found] * 2


def test_a_dataset_without_image_files_is_of_coco_if_its_captions_are(coco: Path) -> None:
    dataset = Dataset.open(coco)
    file = coco / "swaps.csv"
    name = "COCO_val2014_000000000005.jpg"
    file.write_text(f"image,caption,negatives\n{name},Caption 2 of 5.,b\n{name},c,d\ne,f,g\n")
    swaps = Swaps.of(dataset, read_swaps(file, {}))
    assert swaps.image.tolist() == [IDS.index(5)] * 2 + [-1]
    assert swaps.known == 1
    assert find_images([name], dataset.images()).tolist() == [-1]
    file.write_text("image,caption,negatives\ne,f,g\n")
    with pytest.raises(InputError, match="none of the images of its 1 rows is in the dataset"):
        Swaps.of(dataset, read_swaps(file, {}))


@pytest.mark.shared
def test_the_files_of_negclip(shared: Path) -> None:
    found = read_swaps(shared / "data" / "captions" / "coco_negclip_valid.tsv", {})
    assert found.rows == 4839  # some captions hold a newline
    swaps = found.swaps
    assert swaps[0].negatives[0] == "A umbrella holding a flowered child and petting a yak ."
    assert sum(len(swap.negatives) for swap in swaps) > len(swaps)
