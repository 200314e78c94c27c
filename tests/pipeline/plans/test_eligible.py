"""Which pairs a plan may use, and when two captions count as equal."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tonics.errors import InputError
from tonics.pipeline.config import Phase
from tonics.pipeline.plans.eligible import find_eligible, fold

from .made_up import build, config, make_eligible, rows_of


def test_copies_of_an_image_never_meet() -> None:
    pairs = make_eligible([1] * 30, 10**9).table.drop_columns(["image_id"])
    images = pa.table(
        {
            "image_id": [str(i) for i in range(30)],
            "content_hash": [str(i // 2) for i in range(30)],  # every file is there twice
        }
    )

    class Store:
        images = np.arange(30)

    eligible = find_eligible(pairs, images, Store(), "train")
    assert eligible.num_images == 15
    batches, _ = build(eligible, config(10, Phase(builder="random")))
    for row in rows_of(eligible, batches):
        assert len(set(eligible.image[row])) == 10


def test_only_pairs_of_the_split_with_features_are_eligible() -> None:
    table = make_eligible([2] * 10, 10**9).table.drop_columns(["image_id"])
    splits = ["train" if i % 2 else "test" for i in range(20)]
    table = table.set_column(table.column_names.index("split"), "split", pa.array(splits))
    ids = [str(i) for i in range(10)]
    images = pa.table({"image_id": ids, "content_hash": ids})

    class Store:
        images = np.array([0, 1, 2, 5])

    eligible = find_eligible(table, images, Store(), "train")
    assert eligible.image.tolist() == [0, 1, 2, 5]
    assert set(eligible.table.column("split").to_pylist()) == {"train"}
    with pytest.raises(InputError, match="0 of 20 pairs are in split 'val', 8 have features"):
        find_eligible(table, images, Store(), "val")


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("A dog, on a  sofa.", "a dog on a sofa", True),
        ("CAFÉ", "café", True),
        ("a dog", "a dogs", False),
        ("ab c", "a bc", False),
        ("किताब", "कुताबी", False),  # they differ in marks alone
        ("C++ book", "C book", False),
        ("a 🐶", "a 🚗", False),
        ("5 €", "5 $", False),
        ("!!!", "???", False),  # nothing is left of either: the captions themselves are compared
        ("!!!", "!!!", True),
        ("“A dog”\tbarks…", "a dog - barks!", True),
        ("犬がいる。", "犬がいる", True),
        ("so\u00adfa", "sofa", True),
    ],
)
def test_fold(a: str, b: str, same: bool) -> None:
    assert (fold(a) == fold(b)) is same
