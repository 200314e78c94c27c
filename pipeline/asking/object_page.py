"""``tonics show object``: what a dataset says of one thing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..tables import format_table, mark, plain_part

if TYPE_CHECKING:
    from ...ontology import Ontology

_BELOW = 15  # shown of the objects below one
_BESIDE = 5
_WORDS = 8
_SCORE = 0.5  # of a detection that counts: what a detector is surer of than not

_SYNSET = "SELECT * FROM main.synsets WHERE synset = ?"
_OBJECT = "SELECT * FROM main.objects WHERE object = ?"
_CHILDREN = (
    "SELECT synset, subtree_images AS images, subtree_pairs AS pairs FROM main.objects "
    "WHERE parent = ? ORDER BY images DESC, synset"
)
_DETECTED = (
    "WITH named AS (SELECT image FROM main.synset_images WHERE synset = $synset), "
    "shown AS (SELECT DISTINCT image FROM detections.images_showing($synset) "
    f"WHERE score >= {_SCORE}) "
    "SELECT (SELECT count(*) FROM named) AS named, (SELECT count(*) FROM shown) AS shown, "
    "(SELECT count(*) FROM named JOIN shown USING (image)) AS both, "
    "(SELECT count(*) FROM detections.labels_of($synset)) AS labels"
)


def describe_object(ontology: Ontology, name: str) -> dict[str, Any]:
    """All that the page shows, of a word or a synset, ready for JSON.

    Raises:
        InputError: the dataset does not mention it, or leaves it out.
    """
    synset = ontology.find(name)
    row = ontology.query(_SYNSET, [synset]).to_pylist()[0]
    nearest = ontology.query(_OBJECT, [row["object"]]).to_pylist()[0]
    is_object = nearest["synset"] == synset
    word = row["lemmas"][0] if name.strip() == synset else " ".join(name.split())
    return {
        "synset": synset,
        "definition": row["definition"],
        "words": row["lemmas"],
        "path": ontology.path(synset),
        "is_object": is_object,
        "counted_as": nearest["synset"],
        "images": row["subtree_images"],
        "pairs": row["subtree_pairs"],
        "self_images": row["self_images"],
        "self_pairs": row["self_pairs"],
        "below": ontology.query(_CHILDREN, [nearest["object"]]).to_pylist() if is_object else [],
        "beside": _beside(ontology, synset) if is_object else [],
        "called": ontology.words(synset),
        "word": word,
        "otherwise": [r for r in ontology.meanings(word) if r["synset"] != synset],
        "detected": _detected(ontology, synset),
        "captions": [
            {"pair": c.pair, "image": c.image, "caption": c.caption, "spans": c.spans}
            for c in ontology.captions(synset)
        ],
    }


def _beside(ontology: Ontology, synset: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ontology.query(
        f"FROM main.cooccurring(?) LIMIT {_BESIDE}", [synset]
    ).to_pylist()
    return rows


def _detected(ontology: Ontology, synset: str) -> dict[str, int] | None:
    """How far captions and a detector agree; None where there are no detections of this form."""
    import duckdb

    if "detections" not in ontology.attached:
        return None
    try:
        rows: list[dict[str, int]] = ontology.query(_DETECTED, {"synset": synset}).to_pylist()
    except duckdb.Error:
        return None
    return rows[0]


def format_object(found: dict[str, Any], min_images: int) -> str:
    """The page, for people; ``min_images`` is what an object needs."""
    lines = [f"{found['synset']}: {plain_part(found['definition'])}"]
    lines += [f"words: {', '.join(map(plain_part, found['words']))}"]
    lines += [f"path: {' > '.join(found['path'])}", "", *_count_lines(found, min_images)]
    lines += [*_word_lines(found), *_detected_lines(found["detected"])]
    if found["is_object"]:
        lines += ["", *_below_lines(found["below"])]
    if found["beside"]:
        rows = [[row["synset"], row["pairs"], row["lift"]] for row in found["beside"]]
        lines += ["", format_table(["beside it", "pairs", "lift"], rows)]
    lines += ["", "captions:"]
    lines += [f"  {c['pair']:>8}  {mark(c['caption'], c['spans'])}" for c in found["captions"]]
    return "\n".join(lines)


def _count_lines(found: dict[str, Any], min_images: int) -> list[str]:
    counts = f"{found['images']:,} images, {found['pairs']:,} pairs in its subtree"
    own = f"{found['self_images']:,} images, {found['self_pairs']:,} pairs name just this"
    if found["is_object"]:
        return [f"{counts}; {own}"]
    if found["images"] < min_images:
        why = f"fewer than the {min_images} images of ontology.min_images"
    else:
        why = "nearly all its images are those of one object below it, or come by another way"
    return [
        f"{counts}; {own}",
        f"not an object of its own, but counted as {found['counted_as']}: {why}",
    ]


def _word_lines(found: dict[str, Any]) -> list[str]:
    """Which words came to mean it, by which rule; and what the word means elsewhere."""
    lines = []
    if found["called"]:
        shown = [_decision(row) for row in found["called"][:_WORDS]]
        lines.append(f"captions call it: {', '.join(shown)}{_more(found['called'], _WORDS)}")
    if found["otherwise"]:
        shown = [
            f"{row['synset'] or 'nothing'} {_rule(row)}" for row in found["otherwise"][:_WORDS]
        ]
        listed = ", ".join(shown) + _more(found["otherwise"], _WORDS)
        lines.append(f"{plain_part(found['word'])!r} elsewhere means: {listed}")
    return lines


def _decision(row: dict[str, Any]) -> str:
    return f"{plain_part(row['lemma'])} {_rule(row)}"


def _rule(row: dict[str, Any]) -> str:
    head = "" if row["lemma"].endswith(row["head"]) else f", head {plain_part(row['head'])!r}"
    unsure = "" if row["counts"] else ", not counted"
    return f"({row['mentions']:,}, {row['method']} {row['confidence']:.2g}{head}{unsure})"


def _detected_lines(counts: dict[str, int] | None) -> list[str]:
    if counts is None:
        return []
    if not counts["labels"]:
        return ["no label of a detector stands for it"]
    both, others = f"{counts['both']:,}", f"{counts['shown'] - counts['both']:,}"
    line = f"detected in {both} of the {counts['named']:,} images whose captions name it"
    return [f"{line}, and in {others} others (score >= {_SCORE})"]


def _below_lines(below: list[dict[str, Any]]) -> list[str]:
    if not below:
        return ["no objects below it"]
    rows = [[c["synset"], c["images"], c["pairs"]] for c in below[:_BELOW]]
    table = format_table(["below it", "images", "pairs"], rows)
    return [table + _more(below, _BELOW).replace(" and", "\nand", 1)]


def _more(rows: list[Any], shown: int) -> str:
    return f" and {len(rows) - shown:,} more" if len(rows) > shown else ""
