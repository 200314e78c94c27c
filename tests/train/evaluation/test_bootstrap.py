"""The paired bootstrap: against a plain loop, and where the answer is known."""

import numpy as np
import pyarrow as pa
import pytest

from tonics.errors import InputError
from tonics.train.evaluation.bootstrap import METRICS, compare
from tonics.train.evaluation.scoring import CHOICES, RESULTS_SCHEMA


def results(rng, images=60, captions=5, lift=0.0, asked=0.7):
    """Made-up ranks; ``lift`` makes a share of them 0. Some images have fewer captions."""
    counts = np.where(np.arange(images) % 7 == 0, captions - 2, captions)
    owner = np.repeat(np.arange(images), counts)
    i2t = np.where(rng.random(images) < lift, 0, rng.integers(0, 20, images))
    t2i = np.where(rng.random(len(owner)) < lift, 0, rng.integers(0, 20, len(owner)))
    known = np.random.default_rng(9).random(len(owner)) < asked  # the same for every model
    right = rng.random(len(owner)) < 0.5 + lift / 2
    columns = {
        "pair": np.arange(len(owner)),
        "image": 10 * owner,
        "t2i_rank": t2i,
        "i2t_rank": i2t[owner],
        **{name: pa.array(right, mask=~known) for name in CHOICES.values()},
    }
    return pa.table(columns).cast(RESULTS_SCHEMA)


def naive(base, other, rows):
    """Differences in rsum and same-object t2i when images are taken as ``rows`` says."""
    values = []
    for side in (base, other):
        scores = []
        for table in side:
            parts = [table.filter(pa.array(table["image"].to_numpy() == 10 * k)) for k in rows]
            t2i = np.concatenate([p["t2i_rank"].to_numpy() for p in parts])
            i2t = np.array([p["i2t_rank"][0].as_py() for p in parts])
            right = [v for p in parts for v in p["same_object_t2i"].to_pylist() if v is not None]
            rsum = sum(100 * np.mean(r < k) for r in (t2i, i2t) for k in (1, 5, 10))
            scores.append([rsum, 100 * np.mean(right)])
        values.append(np.mean(scores, axis=0))
    return values[1] - values[0]


def test_equals_a_plain_loop_over_the_same_draws():
    rng = np.random.default_rng(0)
    base = [results(rng, 20), results(rng, 20)]
    other = [results(rng, 20, lift=0.2), results(rng, 20, lift=0.2)]
    found = {d.metric: d for d in compare(base, other, draws=100, seed=3)}
    drawn = np.random.default_rng(3).integers(0, 20, (100, 20))
    gaps = np.array([naive(base, other, rows) for rows in drawn])
    point = naive(base, other, np.arange(20))
    for k, metric in enumerate(("rsum", "same object t2i")):
        one = found[metric]
        assert one.difference == pytest.approx(point[k], abs=1e-4)
        low, high = np.percentile(gaps[:, k], [2.5, 97.5])
        assert (one.low, one.high) == pytest.approx((low, high), abs=1e-3)
        assert one.above == pytest.approx(np.mean(gaps[:, k] > 0), abs=0.02)
        pairs = [naive([b], [o], np.arange(20))[k] for b, o in zip(base, other, strict=True)]
        assert one.runs == pytest.approx(pairs, abs=1e-4)
    assert list(found) == list(METRICS)
    assert compare(base, other, draws=100, seed=3) == list(found.values())
    assert compare(base, other, draws=100, seed=4) != list(found.values())


def test_pairing_makes_intervals_narrow_and_a_model_equals_itself():
    rng = np.random.default_rng(1)
    base = results(rng, 200)
    same = {d.metric: d for d in compare([base], [base], draws=200)}["rsum"]
    assert (same.difference, same.low, same.high, same.above) == (0, 0, 0, 0.5)
    better = base.set_column(
        2, "t2i_rank", pa.array(np.maximum(0, base["t2i_rank"].to_numpy() - 1))
    )
    better = better.cast(RESULTS_SCHEMA)
    paired = {d.metric: d for d in compare([base], [better], draws=500)}["t2i R@10"]
    apart = {d.metric: d for d in compare([base], [results(rng, 200)], draws=500)}["t2i R@10"]
    assert paired.low > 0
    assert paired.above == 1
    assert (paired.high - paired.low) < 0.8 * (apart.high - apart.low)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Two models of the same quality: the interval of the difference holds 0 in about 95 of 100."""
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(100):
        one, two = results(rng, 60), results(rng, 60)
        found = {d.metric: d for d in compare([one], [two], draws=300)}["t2i R@10"]
        hits += found.low <= 0 <= found.high
    assert 88 <= hits <= 100


def test_what_was_not_asked_alike_is_not_compared():
    rng = np.random.default_rng(0)
    one = results(rng)
    with pytest.raises(InputError, match="not the same ones"):
        compare([one], [results(rng, 59)])
    without = [one.schema.get_field_index(name) for name in CHOICES.values()]
    bare = one
    for at in without:
        bare = bare.set_column(at, one.schema.field(at), pa.nulls(len(one), pa.bool_()))
    metrics = [d.metric for d in compare([one], [bare], draws=100)]
    assert metrics == list(METRICS[:7])


def test_a_draw_without_choices_is_no_loss():
    """Three images of 60 have choices, which 5 % of the draws hold none of."""
    base = results(np.random.default_rng(0))
    few = base["image"].to_numpy() < 30
    columns = {name: pa.array(np.zeros(len(few), bool), mask=~few) for name in CHOICES.values()}
    worse = pa.table({**{n: base[n] for n in base.column_names[:4]}, **columns})
    columns = {name: pa.array(few, mask=~few) for name in CHOICES.values()}
    better = pa.table({**{n: base[n] for n in base.column_names[:4]}, **columns})
    for one, other, above in ((worse, better, 1), (better, worse, 0), (worse, worse, 0.5)):
        found = {d.metric: d for d in compare([one], [other], draws=300)}["same object t2i"]
        assert found.above == above
        assert found.low == found.high == found.difference
