"""Which image of the dataset a foreign id means, and when nobody can say."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tonics.pipeline.matching import AMBIGUOUS, RULES, ImageIds, Match, settle


def _ids(*names: str, rules: tuple[str, ...] = RULES) -> ImageIds:
    paths = [f"photos/{name}" for name in names]
    columns = {"image": range(10, 10 + len(names)), "image_id": names, "path": paths}
    return ImageIds(pa.table(columns), rules)


@pytest.mark.parametrize(
    ("key", "rule", "image"),
    [
        ("COCO_val2014_000000522418.jpg", 0, 10),
        ("COCO_val2014_000000522418", 1, 10),
        ("val2014/COCO_val2014_000000522418.png", 1, 10),
        ("522418", 2, 10),
        ("coco_00522418.jpg", 2, 10),
        ("woman_fish", 1, 11),
    ],
)
def test_the_surest_rule_finds_the_image(key: str, rule: int, image: int) -> None:
    ids = _ids("COCO_val2014_000000522418.jpg", "woman_fish.jpg")
    assert ids.find(key) == Match(rule=rule, image=image)


def test_what_fits_no_image_is_not_found() -> None:
    ids = _ids("a1.jpg", "woman_fish.jpg")
    assert ids.find("woman") is None
    assert ids.find("2") is None
    assert ids.find("") is None


def test_a_number_that_two_images_end_with_says_nothing() -> None:
    ids = _ids("train_0007.jpg", "val_7.jpg")
    assert ids.find("7") == Match(rule=2, image=AMBIGUOUS)
    assert ids.find("val_7") == Match(rule=1, image=11)


def test_digits_within_a_word_are_no_number() -> None:
    ids = _ids("460935487_75b2da7854.jpg", "7.jpg")
    assert ids.find("2635164923_2a774f7854.jpg") is None
    assert ids.find("süß7") is None
    assert ids.find("photo-0007") == Match(rule=2, image=11)


def test_rules_can_be_left_out() -> None:
    ids = _ids("train_0007.jpg", rules=("image id",))
    assert ids.find("7") is None
    assert ids.find("train_0007.jpg") is not None


def test_of_equal_ids_the_first_has_the_image() -> None:
    one = ("7", Match(rule=2, image=1))
    assert list(settle([one, one])) == ["", "twice"]


def test_a_surer_rule_takes_the_image_from_a_weaker_one() -> None:
    found = [("b_7", Match(rule=2, image=1)), ("a_7", Match(rule=0, image=1))]
    assert list(settle(found)) == ["other", ""]


def test_two_ids_that_fit_equally_are_both_left_out() -> None:
    found = [("b_7", Match(rule=2, image=1)), ("c_7", Match(rule=2, image=1))]
    assert list(settle(found)) == ["ambiguous", "ambiguous"]
    exact = ("a_7", Match(rule=0, image=1))
    assert list(settle([*found, exact])) == ["ambiguous", "ambiguous", ""]
