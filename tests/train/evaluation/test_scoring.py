"""All scores of a query set: folds, same-object choices, altered captions, others' vectors."""

import numpy as np
import pyarrow as pa
import pytest

from tonics.errors import InputError
from tonics.train.evaluation import Queries, fold_recall, recall, same_object, score
from tonics.train.evaluation.eccv import best, eccv_scores
from tonics.train.evaluation.queries import aligned
from tonics.train.evaluation.same_object import SAME_OBJECT_SCHEMA, choose, sets_hash
from tonics.train.evaluation.swaps import swapped


def vectors(rng, images, captions, dim=8, noise=1.0):
    image = rng.normal(size=(images, dim)).astype(np.float32)
    owner = np.repeat(np.arange(images), captions)
    text = image[owner] + noise * rng.normal(size=(len(owner), dim)).astype(np.float32)
    return image, text.astype(np.float32), owner


def queries_of(owner, first_image=100, step=3):
    """A query set whose pair and image numbers are not their rows."""
    pairs = 7 + 2 * np.arange(len(owner))
    table = pa.table({"pair": pairs, "image": first_image + step * owner})
    return Queries.of(table)


def test_folds_are_consecutive_images_and_their_mean_is_reported():
    rng = np.random.default_rng(0)
    image, text, owner = vectors(rng, 50, 5)
    order = rng.permutation(len(owner))  # the rows of captions need not be sorted
    text, owner = text[order], owner[order]
    folds = []
    for first in range(0, 50, 10):
        mine = (owner >= first) & (owner < first + 10)
        folds.append(recall(image[first : first + 10], text[mine], owner[mine] - first))
    found = fold_recall(image, text, owner, 10)
    assert found.rsum == pytest.approx(np.mean([f.rsum for f in folds]))
    assert found.t2i.r1 == pytest.approx(np.mean([f.t2i.r1 for f in folds]))
    assert (found.i2t.queries, found.t2i.queries) == (50, 250)
    report = score(queries_of(owner), image, text, fold_images=10).report
    assert report["folds"]["rsum"] == pytest.approx(found.rsum, abs=0.01)
    assert (report["folds"]["folds"], report["folds"]["images"]) == (5, 10)
    assert report["rsum"] == pytest.approx(recall(image, text, owner).rsum, abs=0.01)
    assert report["rsum"] < report["folds"]["rsum"]  # fewer candidates are easier
    assert "folds" not in score(queries_of(owner), image, text, fold_images=11).report


def test_every_querys_result_is_kept():
    image, text, owner = vectors(np.random.default_rng(1), 20, 3)
    found = score(queries_of(owner), image, text)
    t2i, i2t = (found.results.column(f"{way}_rank").to_numpy() for way in ("t2i", "i2t"))
    assert found.report["t2i"]["r5"] == pytest.approx(100 * np.mean(t2i < 5), abs=0.01)
    assert found.report["i2t"]["r1"] == pytest.approx(100 * np.mean(i2t[::3] < 1), abs=0.01)
    assert (i2t[::3] == i2t[1::3]).all()
    assert found.results.column("image").to_pylist() == (100 + 3 * owner).tolist()
    assert found.results.column("same_object_t2i").null_count == 60


def sets(rows):
    return pa.Table.from_pylist(rows, SAME_OBJECT_SCHEMA)


def test_no_more_is_scored_at_once_than_it_says(monkeypatch):
    at_once = []
    scores = same_object._scores
    monkeypatch.setattr(same_object, "_ROWS", 3)
    monkeypatch.setattr(
        same_object, "_scores", lambda *rows: at_once.append(len(rows[0])) or scores(*rows)
    )
    image, text, owner = vectors(np.random.default_rng(0), 6, 1)
    others = [[7 + 2 * k for k in range(6) if k != row] for row in range(6)]
    rows = [
        {"pair": 7 + 2 * k, "object": "dog.n.01", "pairs": others[k], "random_pairs": others[k]}
        for k in range(6)
    ]
    assert choose(queries_of(owner), image, text, sets(rows)).candidates == 6
    assert set(at_once) == {3}


def test_the_hash_of_sets_is_of_who_stands_beside_whom():
    row = {"pair": 7, "object": "dog.n.01", "pairs": [9, 11], "random_pairs": [13]}
    changes = [{}, {"pair": 8}, {"pairs": [9, 12]}, {"pairs": [9]}, {"random_pairs": [11]}]
    hashes = [sets_hash(sets([row | change])) for change in changes]
    hashes.append(sets_hash(sets([row | {"pairs": [9], "random_pairs": [11, 13]}])))
    assert len(set(hashes)) == 6
    whole = sets([row, row | {"pair": 9}])
    assert sets_hash(pa.concat_tables([whole[:1], whole[1:]])) == sets_hash(whole)


def test_choices_by_hand():
    # images 0 to 3 are axes; caption k is of image k, and pair number 7 + 2k
    image = np.eye(4, dtype=np.float32)
    text = np.array(
        [[1, 0.5, 0, 0], [0, 1, 2, 0], [0, 0, 1, 1], [0, 0, 0, 1]], np.float32
    )  # 0: its own; 1: image 2 is nearer; 2: a tie with image 3
    asked = queries_of(np.arange(4))
    rows = [
        {"pair": 7, "object": "dog.n.01", "pairs": [9, 11], "random_pairs": [13]},
        {"pair": 9, "object": "dog.n.01", "pairs": [7, 11], "random_pairs": [7]},
        {"pair": 11, "object": "cat.n.01", "pairs": [13], "random_pairs": [9]},
    ]
    found = choose(asked, image, text, sets(rows))
    assert found.asked.tolist() == [True, True, True, False]
    assert found.right["t2i"].tolist() == [True, False, False, False]
    # image 0 scores 1 with caption 0, 0 with the others; image 1: 1 with its own, 0.5 with
    # caption 0; image 2: 1 with caption 2, 0 with caption 3
    assert found.right["i2t"].tolist() == [True, True, True, False]
    assert found.right["random_t2i"].tolist() == [True, True, True, False]
    assert found.candidates == pytest.approx(1 + 5 / 3)
    report = found.report()
    assert (report["queries"], report["t2i"], report["chance"]) == (3, 33.33, 37.5)
    collapsed = choose(asked, np.ones_like(image), np.ones_like(text), sets(rows))
    assert not any(collapsed.right[way].any() for way in collapsed.right)


def test_choices_go_on_without_candidates_that_are_not_asked():
    image, text = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)
    rows = [
        {"pair": 7, "object": "dog.n.01", "pairs": [9, 999], "random_pairs": [11]},
        {"pair": 9, "object": "dog.n.01", "pairs": [999], "random_pairs": [11]},
        {"pair": 999, "object": "dog.n.01", "pairs": [7], "random_pairs": [11]},
    ]
    found = choose(queries_of(np.arange(3)), image, text, sets(rows))
    assert found.asked.tolist() == [True, False, False]
    assert found.candidates == 2
    assert choose(queries_of(np.arange(3)), image, text, sets(rows[1:])) is None
    with pytest.raises(InputError, match="columns"):
        choose(queries_of(np.arange(3)), image, text, pa.table({"pair": [7]}))


def test_altered_captions_must_score_lower_all_of_them():
    image = np.eye(3, dtype=np.float32)
    true = np.array([[2, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    altered = np.array([[1, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    found = swapped(image, true, altered, np.array([0, 0, 1, 2]))
    assert found.beaten.tolist() == [True, False, False, True]  # the third is a tie
    assert found.right.tolist() == [False, False, True]
    report = found.report()
    assert (report["accuracy"], report["beaten"]) == (33.33, 50)
    assert report["chance"] == round(100 * (1 / 3 + 1 / 2 + 1 / 2) / 3, 2)


def test_others_vectors_are_put_in_order_or_refused():
    rows = np.arange(6.0).reshape(3, 2)
    assert aligned("f", rows, ["a", "b", "c"], None) is rows
    found = aligned("f", rows, ["c", "a"], ["a", "b", "c"])
    assert found.tolist() == [[4, 5], [0, 1]]
    for wanted, given, message in (
        (["a"], None, "3 rows, expected 1"),
        (["a"], ["a", "b"], "3 rows, expected 2"),
        (["a"], ["a", "b", "b"], "1 ids come twice"),
        (["a", "x", "y"], ["a", "b", "c"], "no row for 2 ids: 'x', 'y'"),
    ):
        with pytest.raises(InputError, match=message):
            aligned("f", rows, wanted, given)
    with pytest.raises(InputError, match="shape"):
        aligned("f", rows[0], ["a"], None)


def test_the_best_ids_come_first():
    image, text, _ = vectors(np.random.default_rng(2), 40, 2)
    ids = 1000 + np.arange(80)
    whole = ids[np.argsort(-(image @ text.T), axis=1, kind="stable")]
    assert best(image, text, ids, depth=7) == whole[:, :7].tolist()
    assert np.shape(best(image, text, ids, depth=500)) == (40, 80)


def test_eccv_caption_knows_right_answers_that_coco_does_not():
    """The oracle that ranks COCO's own captions first has R@1 of 100, and far less mAP@R.

    And its counts of plain recall, 1K and 5K, are ours.
    """
    package = pytest.importorskip("eccv_caption")
    truth = package.Metrics().coco_gts["t2i"]
    captions = [int(k) for k in package.Metrics().coco_ids]  # in Karpathy's order
    owners = [truth[k][0] for k in captions]
    images = np.array(list(dict.fromkeys(owners)))
    place = {number: k for k, number in enumerate(images.tolist())}
    owner = np.array([place[number] for number in owners])
    image = np.random.default_rng(0).normal(size=(len(images), 64)).astype(np.float32)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    found = eccv_scores(image, image[owner], images.tolist(), captions)
    assert found["coco_5k_r1"] == found["coco_1k_r1"] == {"i2t": 100, "t2i": 100}
    assert 25 < found["eccv_map_at_r"]["i2t"] < 40
    assert 10 < found["eccv_map_at_r"]["t2i"] < 20
    noise = np.random.default_rng(1).normal(size=(len(owner), 64)).astype(np.float32)
    text = image[owner] + 0.25 * noise
    found = eccv_scores(image, text, images.tolist(), captions)
    for ours, theirs in (
        (recall(image, text, owner), "coco_5k"),
        (fold_recall(image, text, owner, 1000), "coco_1k"),
    ):
        for k in (1, 5, 10):
            for way in ("i2t", "t2i"):
                expected = getattr(getattr(ours, way), f"r{k}")
                assert found[f"{theirs}_r{k}"][way] == pytest.approx(expected, abs=0.006)
    assert 20 < found["coco_5k_r1"]["t2i"] < 80
    with pytest.raises(InputError, match="4,990 of 5,000 images are not in the query set"):
        eccv_scores(image[:10], image[owner][:50], images[:10].tolist(), captions)
