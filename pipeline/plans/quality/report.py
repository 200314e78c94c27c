"""The quality report as a person reads it: what is in a plan's ``quality.json``, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ....train.plan import Plan
from ...tables import format_table
from .counts import NO_OBJECT
from .measure import VERSION

LEGEND = """\
Cosines within a batch, of captions and of pooled images: top1 to the nearest other, mean of all.
suspects: captions whose nearest is as near as two captions of one image usually are. objects: how
many different ones the pairs of a batch name. never, once, more: pairs by how often batches have
them. left out: pairs that an epoch could not place."""
_ABOUT = 48


def format_quality(name: str, plan: Plan) -> str:
    """The tables of one plan; the user's notes are not among them."""
    quality = plan.quality
    counts = plan.header["counts"]
    title = (
        f"plan {name}: {len(plan):,} batches of {plan.batch_size} in {_epochs(plan.epochs)}, over "
        f"{counts['pairs']:,} pairs of {counts['images']:,} images"
    )
    if quality.get("version") != VERSION:
        do = f"'tonics run --rebuild plan/{name}' measures it"
        return f"{title}\nits quality.json is of another release: {do}"
    parts = [title, _likeness(quality), _seen(quality), "\n".join(_lines(quality, plan.epochs))]
    if "hardest" in quality:
        parts.append(_extremes(quality))
    return "\n\n".join(part for part in parts if part)


def _rows(quality: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Which figures stand in a table, one a row; a single phase is the whole plan."""
    phases = quality["phases"]
    found = [("whole plan" if len(phases) > 1 else phases[0]["name"], quality["plan"])]
    if len(phases) > 1:
        found += [(f"- {phase['name']}", phase) for phase in phases]
    return [*found, ("a random plan", quality["random"])]


def _likeness(quality: Mapping[str, Any]) -> str:
    keys = ("top1", "mean", "suspects", "image_top1", "image_mean", "objects")
    names = ("caption top1", "mean", "suspects", "image top1", "mean", "objects")
    shown = [(k, n) for k, n in zip(keys, names, strict=True) if k in quality["plan"]]
    if not shown:
        return ""
    rows = [
        [name, *(_figure(key, figures.get(key)) for key, _ in shown)]
        for name, figures in _rows(quality)
    ]
    return format_table(["similarity", *(name for _, name in shown)], rows)


def _seen(quality: Mapping[str, Any]) -> str:
    columns = ["pairs", "epochs", "batches", "never", "once", "more", "placed", "left out"]
    keys = ("epochs", "batches", "seen_never", "seen_once", "seen_more", "placed")
    rows = [
        [name, *(figures.get(key) for key in keys), _left(figures)]
        for name, figures in _rows(quality)
    ]
    return format_table(columns, rows)


def _left(figures: Mapping[str, Any]) -> int | None:
    return sum(figures["left_out"].values()) if "left_out" in figures else None


def _figure(key: str, value: float | None) -> Any:
    if value is None:
        return None
    if key == "objects":
        return value
    return f"{value:.1%}" if key == "suspects" else f"{round(value, 3) + 0.0:.3f}"


def _lines(quality: Mapping[str, Any], epochs: int) -> Iterator[str]:
    """What is no table: reasons, depths, what was not measured."""
    if left := quality["plan"]["left_out"]:
        listed = ", ".join(f"{count:,} {reason}" for reason, count in left.items())
        yield f"left out, over {_epochs(epochs)}: {listed}"
    for kind, shares in quality["plan"].get("depth", {}).items():
        if list(shares) != [NO_OBJECT]:
            yield f"{kind} by depth of their object: {_shares(shares)}"
    measured, total = quality["batches_measured"], quality["plan"]["batches"]
    if "top1" not in quality["plan"]:
        yield "no similarity of captions: set embeddings of the plan in tonics.toml to have it"
    elif measured < total:
        yield f"similarity of captions is of {measured:,} batches, evenly spaced"
    if "image_top1" in quality["plan"] and quality["images_measured"] < total:
        yield f"similarity of images is of {quality['images_measured']:,} batches, evenly spaced"


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(
        f"{share:.0%} {'no object' if depth == NO_OBJECT else f'at {depth}'}"
        for depth, share in shares.items()
    )


def _extremes(quality: Mapping[str, Any]) -> str:
    ends = [quality["hardest"], quality["easiest"]]
    rows = [
        [value for batch in two for value in (batch["step"], f"{batch['top1']:.3f}", about(batch))]
        for two in zip(*ends, strict=True)
    ]
    return format_table(["hardest", "top1", "about", "easiest", "top1", "about"], rows)


def about(batch: Mapping[str, Any]) -> str:
    """What a batch is about, in short: its object, those of its groups, or its phase."""
    named = [batch["node"]] if batch["node"] else batch["groups"]
    text = ", ".join(_short(named)) if any(named) else ""
    line = text or str(batch["phase"])
    return line if len(line) <= _ABOUT else line[: _ABOUT - 1] + "…"


def _short(synsets: Sequence[str]) -> Iterator[str]:
    """Synsets as words.

    >>> list(_short(["dog.n.01", "", "hot_dog.n.02"]))
    ['dog', '?', 'hot dog']
    """
    for synset in synsets:
        yield synset.split(".")[0].replace("_", " ") if synset else "?"
