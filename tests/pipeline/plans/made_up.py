"""Made-up pairs for the tests of builders; run as a program, it prints what every builder builds.

The program's answers must not depend on the number of threads it is given.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa

from tonics.pipeline.config import Phase, Plan
from tonics.pipeline.plans import BUILDERS
from tonics.pipeline.plans.builder import Offered
from tonics.pipeline.plans.curricula import stretches
from tonics.pipeline.plans.eligible import Eligible, Objects
from tonics.pipeline.plans.epochs import build_batches
from tonics.pipeline.plans.similarity import Codes, encode
from tonics.train.plan_files import Batches

# A tree of six objects: 0 the root; 1, 2 below it; 3, 4 below 1; 5 below 2.
PARENT = np.array([-1, 0, 0, 1, 1, 2], np.int32)
DEPTH = np.array([0, 1, 1, 2, 2, 2], np.int32)

# One phase for every builder that makes the batches of a plan, and some with settings.
PHASES = [
    *(Phase(builder=name) for name in BUILDERS if not BUILDERS[name].pools),
    Phase(builder="ontology", params={"depth": 1}),
    Phase(builder="communities", params={"objects": False, "similarity": "both"}),
    Phase(builder="kmeans", params={"clusters": 3, "similarity": "image"}),
    Phase(builder="similar", params={"window": 2, "similarity": "both"}),
    Phase(mix={"random": 0.5, "similar": 0.5}),
    Phase(mix={"communities": 0.6, "ontology": 0.4}),
]


def name_of(phase: Phase) -> str:
    """How a phase is called in the tests."""
    return " ".join([phase.builder or "+".join(phase.mix), *map(str, phase.params.values())])


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
    return {"text": codes_of(texts), "image": Codes(codes=codes_of(images).codes, index=image)}


def codes_of(vectors: np.ndarray) -> Codes:
    """Vectors as whole numbers, one a row."""
    return encode("test", lambda rows: vectors[rows], np.arange(len(vectors)))


def say(eligible: Eligible, captions: list[str]) -> Eligible:
    """The same pairs with other captions."""
    at = eligible.table.column_names.index("caption")
    return replace(eligible, table=eligible.table.set_column(at, "caption", pa.array(captions)))


def offer(rows: np.ndarray, batch_size: int) -> Offered:
    """A pass of some rows."""
    return Offered(rows=rows, batch_size=batch_size)


def config(batch_size: int, *phases: Phase, epochs: int = 1, **more: object) -> Plan:
    """A plan's section."""
    return Plan(
        batch_size=batch_size, epochs=epochs, phases=phases, **{"embeddings": "captions", **more}
    )


def build(eligible: Eligible, plan: Plan) -> tuple[Batches, pa.Table]:
    """All batches of a plan, and its remainder."""
    return build_batches(eligible, plan, stretches("plans.test", plan))


def build_phase(
    eligible: Eligible, phase: Phase, size: int, *, epochs: int = 1, **more: object
) -> tuple[Batches, pa.Table]:
    """Batches and remainder of one phase of a plan that ends in a random one."""
    phases = phase.model_copy(update={"share": 0.5}), Phase(builder="random", share=0.5)
    plan = config(size, *phases, epochs=2 * epochs, **more)
    return build_batches(eligible, plan, stretches("plans.test", plan)[:1])


def rows_of(eligible: Eligible, batches: Batches) -> np.ndarray:
    """The (n, B) rows of ``eligible`` that batches hold."""
    return np.searchsorted(eligible.pair, batches.pairs)


def main() -> None:
    """Print hashes of what every builder makes of vectors wide enough for threads to share.

    Vectors of signs: many products are equal, so that any error in one changes who comes first.
    """
    eligible = make_eligible([2] * 2000, 3500)
    signs = np.random.default_rng(1).choice([-1.0, 1.0], (len(eligible), 128))
    images = Codes(codes=codes_of(signs[:2000, ::-1]).codes, index=eligible.image)
    eligible, found = replace(eligible, vectors={"text": codes_of(signs), "image": images}), {}
    for phase in PHASES:
        batches, _ = build_phase(eligible, phase, 64)
        found[name_of(phase)] = [batches.content_hash(), batches.groups_hash()]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
