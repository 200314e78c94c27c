"""``tonics plans compare``: figures, settings, and overlaps that equal a plain count."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from tonics.pipeline.comparing import compare_plans, format_comparison
from tonics.pipeline.plans.quality.overlap import overlap
from tonics.train.plan import Plan
from tonics.train.plan_files import Batches, write_plan

Run = Callable[..., SimpleNamespace]


def written(folder: Path, keys: list[str], batches: list[list[int]], **header: object) -> Plan:
    """A plan of pairs ``10, 11, ...`` called by ``keys``; batches name keys by position."""
    count = len(keys)
    pairs = pa.table(
        {
            "pair": np.arange(10, 10 + count),
            "pair_key": keys,
            "image": np.arange(count),
            "image_id": keys,
            "caption": keys,
            "split": ["train"] * count,
            "caption_hash": pa.array(np.arange(count), pa.uint64()),
        }
    )
    remainder = pa.table({"epoch": [], "phase": [], "pair": [], "reason": []})
    zeros = np.zeros(len(batches), np.int32)
    planned = Batches(
        epoch=zeros, phase=zeros.astype(np.int16), node=zeros - 1, pairs=np.array(batches) + 10
    )
    phases = [{"name": "p", "builder": "p", "params": {}, "first_epoch": 0, "epochs": 1}]
    whole = {
        "batch_size": len(batches[0]), "sub_block": 1, "seed": 0, "nodes": [], "phases": phases,
        "counts": {"epochs": 1}, "constraints": {"split": "train", "passes": 0},
        "inputs": {"pairs": ",".join(keys)}, "coverage": {},
    } | header  # fmt: skip
    folder.mkdir()
    write_plan(folder, whole, planned, pairs, remainder, {})
    return Plan(folder)


def plain_share(a: Plan, b: Plan) -> float:
    """The share of pairings of ``a`` that ``b`` has, by key."""
    return share_of(pairings(a), pairings(b))


def pairings(plan: Plan) -> Counter[frozenset[str]]:
    key_of = dict(
        zip(*(plan.pairs.column(c).to_pylist() for c in ("pair", "pair_key")), strict=True)
    )
    met: Counter[frozenset[str]] = Counter()
    for batch in plan.batches.pairs.tolist():
        met.update(frozenset(key_of[p] for p in two) for two in itertools.combinations(batch, 2))
    return met


def share_of(a: Counter[frozenset[str]], b: Counter[frozenset[str]]) -> float:
    return sum(times for two, times in a.items() if two in b) / sum(a.values())


def test_overlap_equals_a_plain_count_whatever_the_numbers(tmp_path: Path) -> None:
    a = written(tmp_path / "a", list("pqrstu"), [[0, 1, 2], [3, 4, 5], [0, 1, 3]])
    # The same keys in another order, one of them another one: "v" for "u".
    b = written(tmp_path / "b", list("vtsrqp"), [[5, 4, 2], [3, 1, 0], [4, 5, 3]])
    found, back = overlap(a, b), overlap(b, a)
    assert found.pairs == back.pairs == 5
    # Batches of b by key: p q s; r t v; q p r. Of a: p q r; s t u; p q s.
    assert plain_share(a, b) == 6 / 9
    assert found.pairings == pytest.approx(6 / 9, abs=0.01)
    assert back.pairings == pytest.approx(plain_share(b, a), abs=0.01)
    assert found.batches == back.batches == 2 / 3


def test_overlap_of_real_plans(planned: Path) -> None:
    a, b = (Plan(planned / "plans" / name) for name in ("random", "mixed"))
    for one, other in ((a, b), (b, a)):
        found = overlap(one, other)
        assert found.pairings == pytest.approx(plain_share(one, other), abs=0.01)
        assert overlap(one, other) == found
    other = Plan(planned / "plans" / "other")
    found = overlap(a, other)
    assert found.batches == 0
    assert found.pairings == pytest.approx(found.by_chance, abs=0.05)  # both are random


def test_a_plan_beside_itself(planned: Path) -> None:
    plan = Plan(planned / "plans" / "mixed")
    found = compare_plans(("a", plan), ("b", plan))
    assert found["identical"]
    assert found["settings"] == []
    assert all(row["difference"] == 0 for row in found["figures"])
    assert found["overlap"]["a_in_b"] == found["overlap"]["b_in_a"]
    assert (found["overlap"]["a_in_b"]["pairings"], found["overlap"]["a_in_b"]["batches"]) == (1, 1)
    assert set(found["inputs"].values()) <= {True, None}
    assert format_comparison(found).startswith("a and b are the same plan")


def test_another_seed_is_the_only_setting_that_differs(run: Run, planned: Path) -> None:
    found = json.loads(run("-C", planned, "plans", "compare", "random", "other", "--json").out)
    assert found["settings"] == [{"setting": "seed", "a": "0", "b": "1"}]
    assert not found["identical"]
    assert found["inputs"] == dict(pairs=True, features=True, ontology=None, embeddings=None)
    figures = {row["figure"]: row for row in found["figures"]}
    assert "top1" not in figures  # neither was measured
    assert figures["placed"]["difference"] == 0


def test_what_it_prints(run: Run, planned: Path) -> None:
    out = run("-C", planned, "plans", "compare", "tonics", "mixed").out
    assert out.startswith("built over the same 87 pairs\n")
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert lines["batch_size"].split() == ["batch_size", "4", "8"]
    assert "random x 1, communities x 2" in lines["phases"]
    quality = [Plan(planned / "plans" / name).quality for name in ("tonics", "mixed")]
    top1 = [float(word) for word in lines["top1"].split()[1:]]
    wanted = [q[side]["top1"] for q in quality for side in ("plan", "random")]
    assert top1 == pytest.approx([*wanted, wanted[2] - wanted[0]], abs=1e-4)
    assert "meets in mixed too" in out


def test_plans_of_different_pairs_say_so(run: Run, planned: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(planned, tmp_path / "dataset"))
    written(folder / "plans" / "strange", ["000.png#0", "x#1", "x#2"], [[0, 1]])
    out = run("-C", folder, "plans", "compare", "random", "strange").out
    shared = Plan(folder / "plans" / "random").pairs.column("pair_key").to_pylist()
    both = int("000.png#0" in shared)
    assert f"BUILT OVER DIFFERENT PAIRS: random over 87, strange over 3, {both} keys" in out


def test_a_plan_that_is_not_there(run: Run, planned: Path) -> None:
    done = run("-C", planned, "plans", "compare", "random", "mixd")
    assert done.code == 2
    assert "plan: 'mixd', expected one of ['mixed', 'other', 'random', 'tonics']" in done.err
    assert "did you mean 'mixed'?" in done.err
