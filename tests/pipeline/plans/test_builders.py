"""Every builder keeps the rules: exact size, no equal images or captions, nothing lost or twice."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tonics.errors import ConfigError, InputError
from tonics.pipeline.config import Phase, Plan
from tonics.pipeline.plans import BUILDERS
from tonics.pipeline.plans.curricula import stretches
from tonics.pipeline.plans.eligible import Eligible, Objects, find_eligible, fold
from tonics.pipeline.plans.epochs import assign_passes, build_batches
from tonics.pipeline.plans.fill import fill
from tonics.pipeline.plans.nodes import draw_objects, lift
from tonics.pipeline.plans.similarity import Codes, encode

# A tree of six objects: 0 the root; 1, 2 below it; 3, 4 below 1; 5 below 2.
PARENT = np.array([-1, 0, 0, 1, 1, 2], np.int32)
DEPTH = np.array([0, 1, 1, 2, 2, 2], np.int32)


def make_eligible(captions_of_image: list[int], kinds: int, seed: int = 0) -> Eligible:
    """Pairs of images with some captions each; captions repeat when ``kinds`` is small."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(len(captions_of_image)), captions_of_image)
    count = len(image)
    kind = rng.integers(0, kinds, count)
    pair = np.sort(rng.choice(10 * count + 1, count, replace=False))
    table = pa.table(
        {
            "pair": pair,
            "pair_key": [f"{i}#{p}" for i, p in zip(image, pair, strict=True)],
            "image": image,
            "caption": [f"Caption {k}." for k in kind],
            "split": ["train"] * count,
            "caption_hash": pa.array(kind, pa.uint64()),
            "image_id": image.astype(str).tolist(),
        }
    )
    sizes = rng.integers(0, 3, count)
    members = np.concatenate([rng.choice(6, s, replace=False) for s in sizes] or [[]])
    objects = Objects(
        names=[f"o{n}.n.01" for n in range(6)],
        parent=PARENT,
        depth=DEPTH,
        starts=np.concatenate([[0], np.cumsum(sizes)]),
        members=members.astype(np.int32),
    )
    return Eligible(
        table=table, image=image.astype(np.int64), objects=objects, vectors=make_vectors(image, rng)
    )


def make_vectors(image: np.ndarray, rng: np.random.Generator) -> dict[str, Codes]:
    """Vectors of a few topics, so that some pairs are near and some are equal."""
    topics = rng.standard_normal((5, 12))
    texts = topics[rng.integers(0, 5, len(image))] + 0.3 * rng.integers(-1, 2, (len(image), 12))
    images = rng.standard_normal((image.max() + 1, 8))
    codes = [encode("test", lambda r, v=v: v[r], np.arange(len(v))).codes for v in (texts, images)]
    return {"text": Codes(codes=codes[0]), "image": Codes(codes=codes[1], index=image)}


def config(batch_size: int, *phases: Phase, epochs: int = 1, **more: object) -> Plan:
    return Plan(
        batch_size=batch_size, epochs=epochs, phases=phases, **{"embeddings": "captions", **more}
    )


def build(eligible: Eligible, plan: Plan):
    return build_batches(eligible, plan, stretches("plans.test", plan))


PHASES = [Phase(builder=name) for name in BUILDERS if not BUILDERS[name].pools]
PHASES.append(Phase(builder="ontology", params={"depth": 1}))
shapes = st.lists(st.integers(1, 4), min_size=8, max_size=60)


@pytest.mark.parametrize("phase", PHASES, ids=lambda p: f"{p.builder}{p.params or ''}")
@settings(max_examples=60, deadline=None)
@given(shape=shapes, kinds=st.integers(8, 400), size=st.integers(2, 8), seed=st.integers(0, 99))
def test_rules(phase: Phase, shape: list[int], kinds: int, size: int, seed: int) -> None:
    assume(size in (4, 6, 8) or phase.builder != "communities")
    eligible = make_eligible(shape, kinds, seed)
    try:
        batches, remainder = build(eligible, config(size, phase, seed=seed))
    except InputError:
        assert len(np.unique(eligible.caption)) < 2 * size  # only then may nothing fit
        return
    row = np.searchsorted(eligible.pair, batches.pairs)
    assert np.array_equal(eligible.pair[row], batches.pairs)
    assert batches.pairs.shape[1] == size
    for rows in row:
        assert len(set(eligible.image[rows])) == size
        assert len(set(eligible.caption[rows])) == size
    everything = np.concatenate([batches.pairs.ravel(), remainder.column("pair").to_numpy()])
    assert sorted(everything) == eligible.pair.tolist()  # each pair once: placed, or with a reason


@settings(max_examples=30, deadline=None)
@given(shape=shapes, seed=st.integers(0, 99))
def test_every_pair_of_an_ontology_batch_is_about_its_node(shape: list[int], seed: int) -> None:
    eligible = make_eligible(shape, 10_000, seed)
    objects = eligible.objects
    batches, _ = build(eligible, config(3, Phase(builder="ontology")))
    for node, pairs in zip(batches.node, batches.pairs, strict=True):
        for row in np.searchsorted(eligible.pair, pairs):
            lineage = set()
            for one in objects.members[objects.starts[row] : objects.starts[row + 1]]:
                while one >= 0:
                    lineage.add(int(one))
                    one = objects.parent[one]
            assert node == -1 or int(node) in lineage


def test_an_epoch_wastes_less_than_a_batch_when_nothing_conflicts() -> None:
    eligible = make_eligible([5] * 50, 10**9)
    for phase in PHASES:
        batches, remainder = build(eligible, config(16, phase))
        assert remainder.num_rows == 250 - batches.pairs.size < 16
        assert set(remainder.column("reason").to_pylist()) <= {
            "less than a batch left",
            "image repeated",
        }


def test_a_pass_uses_one_caption_of_every_image() -> None:
    image = np.repeat(np.arange(20), 5)
    passes = assign_passes(image, np.random.default_rng(0))
    for number in range(5):
        assert sorted(image[passes == number]) == list(range(20))


def test_one_pass_an_epoch_uses_other_captions_each_time() -> None:
    eligible = make_eligible([5] * 40, 10**9)
    batches, _ = build(eligible, config(8, Phase(builder="random"), epochs=3, passes=1))
    assert len(batches.pairs) == 3 * 5
    first, second = (set(batches.pairs[batches.epoch == e].ravel().tolist()) for e in (0, 1))
    assert len(first) == 40
    assert first != second


def test_a_caption_said_thousands_of_times_costs_remainder_only() -> None:
    eligible = make_eligible([1] * 6000, 10**9)
    captions = ["the same caption"] * 3000 + [f"caption {i}" for i in range(3000)]
    table = eligible.table.set_column(3, "caption", pa.array(captions))
    eligible = Eligible(table=table, image=eligible.image, objects=eligible.objects)
    batches, remainder = build(eligible, config(32, Phase(builder="random")))
    counts = [sum(eligible.caption[np.searchsorted(eligible.pair, b)] == 0) for b in batches.pairs]
    assert max(counts) == 1
    assert len(batches.pairs) >= 3000 // 32
    reasons = remainder.column("reason").to_pylist()
    assert reasons.count("caption repeated") >= 3000 - len(batches.pairs) - 1


def test_one_image_with_a_thousand_captions_costs_remainder_only() -> None:
    eligible = make_eligible([1000] + [2] * 100, 10**9)
    batches, remainder = build(eligible, config(10, Phase(builder="random")))
    assert len(batches.pairs) >= 20
    assert "image repeated" in remainder.column("reason").to_pylist()


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
    for row in np.searchsorted(eligible.pair, batches.pairs):
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


def test_same_seed_same_batches_another_seed_others() -> None:
    eligible = make_eligible([3] * 40, 10**9)
    for phase in PHASES:
        one, two, other = (
            build(eligible, config(8, phase, epochs=2, seed=seed))[0] for seed in (0, 0, 1)
        )
        assert one.content_hash() == two.content_hash() != other.content_hash()
        assert not np.array_equal(one.pairs[one.epoch == 0], one.pairs[one.epoch == 1])


def test_phases_divide_the_epochs() -> None:
    plan = config(8, Phase(builder="random", share=0.3), Phase(builder="ontology", share=0.7))
    plan = plan.model_copy(update={"epochs": 10})
    assert [len(s.epochs) for s in stretches("p", plan)] == [3, 7]
    few = plan.model_copy(update={"epochs": 1})
    with pytest.raises(ConfigError, match="1 epochs for 2 phases"):
        stretches("p", few)


def test_phases_have_names_of_their_own() -> None:
    phases = (
        Phase(builder="random", share=0.25),
        Phase(builder="ontology", share=0.25, params={"depth": 3}),
        Phase(builder="ontology", share=0.25),
        Phase(builder="random", share=0.25),
    )
    names = [s.name for s in stretches("p", config(8, *phases, epochs=4))]
    assert names == ["random", "ontology depth 3", "ontology leaves", "random 2"]


@pytest.mark.parametrize("name", ["random", "tonics"])
def test_named_curricula_can_be_built(name: str) -> None:
    eligible = make_eligible([2] * 60, 10**9)
    plan = Plan(batch_size=4, epochs=5, curriculum=name)
    batches, _ = build(eligible, plan)
    assert set(batches.epoch) == set(range(5))
    assert np.all(np.diff(batches.epoch) >= 0)
    assert batches.node[batches.epoch == 4].max() == -1  # training ends in mixed batches


def test_fill_keeps_the_order_where_nothing_conflicts() -> None:
    eligible = make_eligible([1] * 10, 10**9)
    order = np.arange(10)[::-1].copy()
    batches, left = fill(eligible, order, 4)
    assert batches.tolist() == [[9, 8, 7, 6], [5, 4, 3, 2]]
    assert left.tolist() == [1, 0]


def test_lift_stops_at_the_depth() -> None:
    objects = make_eligible([1] * 8, 9).objects
    node = np.array([5, 3, 1, 0, -1], np.int32)
    assert lift(objects, node, 1).tolist() == [2, 1, 1, 0, -1]
    assert lift(objects, node, 0).tolist() == [0, 0, 0, 0, -1]


def test_a_pair_goes_to_each_of_its_objects_equally_often() -> None:
    objects = Objects(
        names=["a", "b"],
        parent=np.array([-1, 0], np.int32),
        depth=np.array([0, 1], np.int32),
        starts=np.array([0, 2, 2]),
        members=np.array([0, 1], np.int32),
    )
    rng = np.random.default_rng(0)
    drawn = [draw_objects(objects, np.array([0, 1]), rng) for _ in range(400)]
    assert {int(d[1]) for d in drawn} == {-1}
    assert 160 < sum(int(d[0]) for d in drawn) < 240


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
