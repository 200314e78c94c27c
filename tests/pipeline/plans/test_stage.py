"""The plan stage: what makes a plan stale, when it refuses early, and what it notes."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tonics.artifact import Manifest
from tonics.errors import InputError
from tonics.pipeline.config import Phase
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.plans import curricula, epochs
from tonics.pipeline.plans.curricula import Stretch, stretches
from tonics.pipeline.plans.eligible import Objects
from tonics.pipeline.stage import Shard
from tonics.pipeline.stages import plan as stage_module
from tonics.pipeline.stages.plan import PlanStage, general_objects
from tonics.train.plan import Plan
from tonics.train.plan_files import GROUPS, Batches

ALL = Shard(name="all", rows=0)


def with_plan(folder: Path, **settings: object) -> Dataset:
    """The dataset with other settings of its plan ``random``; nothing on disk is changed."""
    dataset = Dataset.open(folder)
    plan = dataset.config.plans["random"]
    changed = type(plan).model_validate(plan.model_dump() | settings)
    plans = dataset.config.plans | {"random": changed}
    return dataclasses.replace(dataset, config=dataset.config.model_copy(update={"plans": plans}))


def identity(folder: Path, **settings: object) -> dict:
    return PlanStage(with_plan(folder, **settings), "random").identity(ALL)


def test_a_redefined_curriculum_makes_its_plans_stale(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = identity(built, curriculum="tonics", epochs=8)
    assert identity(built, curriculum="tonics", epochs=8) == before
    phases = list(curricula.CURRICULA["tonics"])
    phases[1] = phases[1].model_copy(update={"params": {"depth": 4}})
    monkeypatch.setitem(curricula.CURRICULA, "tonics", tuple(phases))
    after = identity(built, curriculum="tonics", epochs=8)
    assert before != after
    assert {key for key in before if before[key] != after[key]} == {"phases"}


def test_a_curriculum_is_the_phases_it_stands_for(built: Path) -> None:
    spelled = [phase.model_dump() for phase in curricula.CURRICULA["random"]]
    assert identity(built, curriculum="random") == identity(built, phases=spelled)


def test_another_assembly_makes_plans_stale(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity(built)
    monkeypatch.setattr(stage_module, "ASSEMBLY_VERSION", epochs.ASSEMBLY_VERSION + 1)
    assert identity(built) != before


def test_a_split_too_small_for_a_batch_is_refused_before_anything_is_built(built: Path) -> None:
    PlanStage(with_plan(built), "random").check()
    train = set(Dataset.open(built).pairs().filter(_is_train(built)).column("image").to_pylist())
    PlanStage(with_plan(built, batch_size=len(train)), "random").check()
    size = len(train) + 1
    message = rf"{len(train)} images \(\d+ pairs\) are eligible, expected at least .*= {size}"
    with pytest.raises(InputError, match=message):
        PlanStage(with_plan(built, batch_size=size), "random").check()


def _is_train(folder: Path) -> object:
    import pyarrow.compute as pc

    return pc.equal(Dataset.open(folder).pairs().column("split"), "train")


def test_tables_that_are_about_to_be_made_anew_refuse_nothing(copy: Path) -> None:
    """More captions may have come since: the old tables must not stop the run that reads them."""
    stage = PlanStage(with_plan(copy, batch_size=1000), "random")
    with pytest.raises(InputError, match="at least batch_size = 1000"):
        stage.check()
    with (copy / "captions.jsonl").open("a") as file:
        file.write('{"image": "003.png", "captions": ["A new caption"]}\n')
    stage.check()
    (copy / "images.parquet").unlink()
    stage.check()


# -- notes -----------------------------------------------------------------------------------------


def tree(depths: list[int]) -> Objects:
    count = len(depths)
    return Objects(
        names=[f"o{n}" for n in range(count)],
        parent=np.arange(-1, count - 1, dtype=np.int32),
        depth=np.array(depths, np.int32),
        starts=np.zeros(1, np.int64),
        members=np.zeros(0, np.int32),
    )


def phases(*depths: int | str) -> list[Stretch]:
    found = [Phase(builder="ontology", share=1 / len(depths), params={"depth": d}) for d in depths]
    from tonics.pipeline.config import Plan as Settings

    return stretches("p", Settings(batch_size=2, epochs=len(depths), phases=tuple(found)))


def batches(nodes: list[int], phase: int = 0) -> Batches:
    count = len(nodes)
    return Batches(
        epoch=np.zeros(count, np.int32),
        phase=np.full(count, phase, np.int16),
        node=np.array(nodes, np.int32),
        pairs=np.zeros((count, 2), np.int64),
    )


DEEP = tree([0, 1, 2, 3, 3, 3, 4, 4])


def test_batches_about_very_general_objects_are_noted() -> None:
    assert general_objects(DEEP, batches([0, 1, 3, 4]), phases("leaves")) == []
    (note,) = general_objects(DEEP, batches([0, 1, 1, 4]), phases("leaves"))
    assert re.match(r"most same-object batches are about very general objects \(o1, o0, \.", note)
    assert "lower ontology.min_images or batch_size" in note


def test_an_ontology_of_few_deep_objects_is_noted() -> None:
    assert general_objects(tree([0, 1, 2, 3, 3, 3, 3]), batches([3, 4]), phases("leaves"))
    assert general_objects(DEEP, batches([-1, -1]), phases("leaves"))  # no object at all


def test_groups_about_very_general_objects_are_noted() -> None:
    from tonics.pipeline.config import Plan as Settings

    def notes(groups: list[list[int]], **params: object) -> list[str]:
        one = Phase(builder="communities", params=params)
        plan = Settings(batch_size=8, epochs=1, embeddings="captions", phases=(one,))
        found = dataclasses.replace(batches([-1, -1]), groups=pa.array(groups, GROUPS.type))
        return general_objects(DEEP, found, stretches("p", plan))

    assert notes([[3, 4], [5, 1]]) == []
    assert notes([[3, -1], [-1, -1]]) == []  # like pairs that share no object at all
    (note,) = notes([[1, 1], [0, 4]])
    assert note.startswith("most groups are about very general objects (o1, o0, ...)")
    assert notes([[1, 1], [0, 4]], objects=False) == []


def test_phases_that_ask_for_general_objects_are_not_noted() -> None:
    assert general_objects(DEEP, batches([0, 0, 1]), phases(1)) == []
    assert general_objects(DEEP, batches([0, 0, 1], phase=0), phases(2, "leaves")) != []
    assert general_objects(DEEP, batches([3, 3, 4], phase=1), phases(2, "leaves")) == []
    assert general_objects(None, batches([-1]), phases("leaves")) == []


def test_the_note_reaches_the_stage_and_the_plan_is_whole(built: Path) -> None:
    stage = PlanStage(Dataset.open(built), "tonics")
    manifests = Dataset.open(built).state / "manifests" / "plan" / "tonics"
    shard, whole = (Manifest.read(manifests / f"{n}.json") for n in ("all", "stage"))
    assert shard is not None
    assert whole is not None
    assert whole.counts["notes"] == shard.counts["notes"]
    noted = dataclasses.replace(shard, counts={**shard.counts, "notes": ["mind this"]})
    assert stage.merge([noted]).counts["notes"] == ["mind this"]
    plan = Plan(stage.folder)
    assert [phase.name for phase in plan.phases] == ["random", "ontology leaves"]
    assert plan.verify() == []


def with_mixed(folder: Path, params: str = "") -> None:
    """Turn the plan ``random`` into one of communities."""
    config = folder / "tonics.toml"
    phases = f"phases = [{{ builder = 'communities'{params} }}]"
    text = f"[plans.random]\nembeddings = 'captions'\n{phases}"
    config.write_text(config.read_text().replace("[plans.random]", text))


def test_a_plan_before_its_vectors_says_what_to_run(copy: Path, run: Callable[..., Any]) -> None:
    with_mixed(copy)
    shutil.rmtree(copy / "embeddings")
    shutil.rmtree(copy / ".tonics" / "manifests" / "embed")
    done = run("-C", copy, "plan", "random")
    assert done.code == 2
    assert (
        "plan/random: its input embed/captions is out of date (3 of 3 shards: not made yet)"
        in done.err
    )
    assert not (copy / "plans" / "random.tmp").exists()


def test_vectors_that_are_no_numbers_are_refused(copy: Path, run: Callable[..., Any]) -> None:
    with_mixed(copy)
    file = next(iter(sorted((copy / "embeddings" / "captions").glob("*.npy"))))
    vectors = np.load(file)
    vectors[[3, 7]] = np.nan
    np.save(file, vectors)
    before = (copy / "plans" / "random" / "plan.json").read_bytes()
    done = run("-C", copy, "plan", "random")
    assert done.code == 2
    assert re.search(r"embeddings/captions.*: \d vectors are not finite .*: .*\b[37]\b", done.err)
    assert len(done.err.splitlines()) == 1
    assert (copy / "plans" / "random" / "plan.json").read_bytes() == before


def test_an_object_that_is_none_is_refused_with_the_nearest(
    copy: Path, run: Callable[..., Any]
) -> None:
    with_mixed(copy, ", params = { under = 'umbrela' }")
    done = run("-C", copy, "plan", "random")
    assert done.code == 2
    assert "no object 'umbrela' among" in done.err
    assert "did you mean umbrella" in done.err
