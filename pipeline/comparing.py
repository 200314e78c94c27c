"""Two plans side by side: settings, figures, and how much their batches really differ."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..train.plan import Plan
from .plans.quality.overlap import overlap
from .tables import format_table

_FIGURES = (
    *("top1", "mean", "suspects", "image_top1", "image_mean", "objects"),
    *("seen_never", "seen_once", "seen_more", "placed"),
)
_INPUTS = ("pairs", "features", "ontology", "embeddings")


def compare_plans(a: tuple[str, Plan], b: tuple[str, Plan]) -> dict[str, Any]:
    """Compare two plans, each with its name.

    Returns:
        ``a``, ``b`` (name, plan_id); ``identical`` (the same plan_id); ``settings`` that differ;
        ``inputs`` (for each: whether both were built from the same; null where one has none);
        ``figures`` (of each plan, of the random plan beside it, and the difference);
        ``pairs`` (eligible in a, in b, in both); ``overlap`` (shares, see ``quality.overlap``; of a
        in b and of b in a).
    """
    (name_a, plan_a), (name_b, plan_b) = a, b
    ours, theirs = overlap(plan_a, plan_b), overlap(plan_b, plan_a)
    eligible = {"a": plan_a.pairs.num_rows, "b": plan_b.pairs.num_rows, "both": ours.pairs}
    shares = {"a_in_b": dataclasses.asdict(ours), "b_in_a": dataclasses.asdict(theirs)}
    return {
        "a": {"name": name_a, "plan_id": plan_a.plan_id},
        "b": {"name": name_b, "plan_id": plan_b.plan_id},
        "identical": plan_a.plan_id == plan_b.plan_id,
        "settings": _differing(_settings(plan_a), _settings(plan_b)),
        "inputs": {key: _same(plan_a.inputs.get(key), plan_b.inputs.get(key)) for key in _INPUTS},
        "figures": list(_figures(plan_a, plan_b)),
        "pairs": eligible,
        "overlap": {
            side: {k: round(v, 4) for k, v in share.items() if k != "pairs"}
            for side, share in shares.items()
        },
    }


def _settings(plan: Plan) -> dict[str, str]:
    """What decides the batches, as text."""
    header = plan.header
    found = {key: str(header[key]) for key in ("batch_size", "seed")}
    found["epochs"] = str(plan.epochs)
    constraints = header["constraints"]
    found |= {key: str(constraints[key]) for key in ("split", "passes") if key in constraints}
    found["phases"] = ", ".join(f"{p.name} x {p.epochs}" for p in plan.phases)
    for phase in header["phases"]:
        params = {**phase["params"], "rotation": phase.get("rotation", 0)}
        found[f"{phase['name']}: params"] = json.dumps(params, sort_keys=True)
    return found


def _differing(a: Mapping[str, str], b: Mapping[str, str]) -> list[dict[str, str | None]]:
    """Settings that are not the same; those of a phase that only one plan has are left out."""
    keys = [key for key in a if (": params" not in key or key in b) and a.get(key) != b.get(key)]
    return [{"setting": key, "a": a.get(key), "b": b.get(key)} for key in keys]


def _same(a: str | None, b: str | None) -> bool | None:
    return a == b if a and b else None


def _figures(a: Plan, b: Plan) -> Iterator[dict[str, Any]]:
    for key in _FIGURES:
        row: dict[str, Any] = {"figure": key}
        for side, plan in (("a", a), ("b", b)):
            row[side] = plan.quality.get("plan", {}).get(key)
            row[f"{side}_random"] = plan.quality.get("random", {}).get(key)
        if row["a"] is not None and row["b"] is not None:
            row["difference"] = round(row["b"] - row["a"], 4)
        if any(row[side] is not None for side in ("a", "b")):
            yield row


def format_comparison(found: Mapping[str, Any]) -> str:
    """The same for a person."""
    a, b = found["a"]["name"], found["b"]["name"]
    parts = ["\n".join(_headlines(found, a, b))]
    if found["settings"]:
        rows = [[row["setting"], row["a"], row["b"]] for row in found["settings"]]
        parts.append(format_table(["setting", a, b], rows))
    keys = ("figure", "a", "a_random", "b", "b_random", "difference")
    if found["figures"]:
        columns = ["figure", a, "its random", b, "its random", "difference"]
        parts.append(format_table(columns, [[r.get(k) for k in keys] for r in found["figures"]]))
    if not found["identical"]:
        parts.append("\n".join(_overlap_lines(found["overlap"], a, b)))
    return "\n\n".join(parts)


def _headlines(found: Mapping[str, Any], a: str, b: str) -> Iterator[str]:
    if found["identical"]:
        yield f"{a} and {b} are the same plan: {found['a']['plan_id'][:16]}"
    pairs, inputs = found["pairs"], found["inputs"]
    if inputs["pairs"]:
        yield f"built over the same {pairs['a']:,} pairs"
    else:
        yield (
            f"BUILT OVER DIFFERENT PAIRS: {a} over {pairs['a']:,}, {b} over {pairs['b']:,}, "
            f"{pairs['both']:,} keys are in both; figures of the two say little beside each other"
        )
    others = [key for key in _INPUTS if inputs[key] is False and key != "pairs"]
    if others:
        yield f"built from different {', '.join(others)}"


def _overlap_lines(shares: Mapping[str, Any], a: str, b: str) -> Iterator[str]:
    for one, other, side in ((a, b, "a_in_b"), (b, a, "b_in_a")):
        share = shares[side]
        yield (
            f"{share['pairings']:.1%} of what meets in a batch of {one} meets in {other} too "
            f"({share['by_chance']:.1%} by chance); {share['batches']:.1%} of its batches are "
            f"batches of {other}"
        )
