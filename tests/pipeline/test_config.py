"""``tonics.toml``: what is wrong is one line that names the key, the value and what is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tonics.errors import ConfigError, InputError
from tonics.pipeline.config import Config, load_config, settings_of


def load(folder: Path, text: str) -> Config:
    (folder / "tonics.toml").write_text(text, encoding="utf-8")
    return load_config(folder)


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert config == Config()
    assert (config.ingest.splits.val, config.ingest.splits.test) == (0.05, 0.1)
    assert config.plans == {}


def test_names_and_sections_are_read(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "[features.grid]\n[features.vinvl]\n[embeddings.e]\n"
        '[plans.a]\nembeddings = "e"\nphases = [{ builder = "random" }]\n'
        '[plans.b]\nfeatures = "vinvl"\n[runs.r]\nplan = "b"\ntrain = { hidden = 8 }\n',
    )
    assert list(config.features) == ["grid", "vinvl"]
    assert config.plans["a"].phases[0].builder == "random"
    assert config.runs["r"].train == {"hidden": 8}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[ingst]", r"ingst: unknown key 'ingst', expected .*; did you mean 'ingest'\?"),
        ("zzz = 1", r"zzz: unknown key 'zzz', expected .*; remove it"),
        ("[ingest.splits]\ntrain = 0.5", r"ingest.splits.train: unknown .*expected test, val"),
        (
            "[[ingest.sources]]\ncaptions='a'\n[[ingest.sources]]\ncaption = 'b'",
            r"ingest.sources\[1\].captions: is missing; add it; and 1 more",
        ),
        (
            "[[ingest.sources]]\ncaptions='a'\ncolumns = { captoin = 'x' }",
            r"columns.captoin: unknown key .*did you mean 'caption'",
        ),
        (
            "[[ingest.sources]]\ncaptions='a'\nformat='xml'",
            r"sources\[0\].format: value 'xml', expected 'auto', 'coco', .* or 'webdataset'$",
        ),
        ("[plans.p]\nbatch_size = 1", r"plans.p.batch_size: value 1, expected greater than 1$"),
        ("[plans.p]\nbatch_size = 8.5", r"plans.p.batch_size: value 8.5, expected a whole number$"),
        ("[plans.p]\nseed = -1", r"plans.p.seed: value -1, expected greater than or equal to 0"),
        ("[[ingest.sources]]\nimages = 'a'", r"ingest.sources\[0\].captions: is missing"),
        ("[plans.p]\nphases = [{ builder = 'random', shares = 1 }]", r"did you mean 'share'\?"),
        ("[features.'a b']", r"features.a b: value 'a b', expected a name of letters"),
        ("[plans.'../../x']", r"value '../../x', expected a name of letters"),
        ("[runtime]\nworkers = -1", r"runtime.workers: value -1"),
        ("[runs.r]", r"runs.r.plan: is missing"),
        ("ingest = 3", r"ingest: value 3, expected a table$"),
        ("ingest.image_root = 3", r"ingest.image_root: value 3, expected a text$"),
        ("ingest.sources = 3", r"ingest.sources: value 3, expected a list$"),
        ("ontology.min_images = '8'", r"min_images: value '8', expected a whole number$"),
        ("ontology.min_images = true", r"min_images: value True, expected a whole number$"),
        ("ontology.min_images = 0", r"ontology.min_images: value 0, expected greater than 0$"),
        ("ingest.max_rejected = '0.5'", r"max_rejected: value '0.5', expected a number$"),
        (
            "ingest.splits = { val = 0.6, test = 0.6 }",
            r"ingest.splits: val = 0.6 and test = 0.6 add up to 1.2, expected at most 1",
        ),
        ("runtime.device = 'gpu'", r"device: value 'gpu', expected 'auto', 'cpu', .*'cuda:N'$"),
        ("runtime.device = 'cuda:x'", r"runtime.device: value 'cuda:x'"),
        (
            "[runs.r]\nplan = 'p'\nlr = 0.1",
            r"runs.r.lr: unknown key 'lr', .*put it into train = \{ lr = ... \}$",
        ),
        ("[runs.r]\nplan = 'p'\nplann = 'p'", r"runs.r.plann: .*did you mean 'plan'\?$"),
        (
            "[features.grid]\n[plans.p]\nembeddings='e'",
            r"plans.p.embeddings: value 'e', expected a \[embeddings.NAME\] section; "
            r"add \[embeddings.e\]",
        ),
        ("[plans.p]", r"plans.p.features: value 'grid', expected a \[features.NAME\] section"),
        (
            "[features.grid]\n[plans.p]\n[runs.r]\nplan='q'",
            r"runs.r.plan: value 'q', expected one of \['p'\]",
        ),
        (
            "[features.grid]\n[plans.p]\n[embeddings.e]\n[runs.r]\nplan='p'\nembeddings='f'",
            r"runs.r.embeddings: value 'f', expected one of \['e'\]",
        ),
        ("a = [", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "tonics.toml") in str(caught.value)


def test_a_folder_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "tonics.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(tmp_path)
    (tmp_path / "tonics.toml").unlink()
    with pytest.raises(InputError, match=r"no tonics.toml here; make one with 'tonics init"):
        load_config(tmp_path)
    (tmp_path / "tonics.toml").mkdir()
    with pytest.raises(InputError, match="is a folder, expected a TOML file"):
        load_config(tmp_path)


def test_devices_shares_and_whole_numbers_for_numbers(tmp_path: Path) -> None:
    for device in ("auto", "cpu", "cuda", "cuda:1"):
        assert load(tmp_path, f"runtime.device = '{device}'").runtime.device == device
    splits = load(tmp_path, "ingest.splits = { val = 1, test = 0 }").ingest.splits
    assert (splits.val, splits.test) == (1.0, 0.0)
    assert load(tmp_path, "ingest.splits = { val = 0.9, test = 0.1 }")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Another room's settings."""

    size: int
    mode: Literal["a", "b"] = "a"
    rate: float = 0.5
    most: int | None = None
    pair: tuple[float, float] = (0.1, 0.2)

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise ConfigError("settings.size", repr(self.size), expected="1 or more", do="grow")


def test_settings_of_another_room() -> None:
    assert settings_of(Settings, {"size": 3, "mode": "b"}, "here") == Settings(size=3, mode="b")
    found = settings_of(Settings, {"size": 3, "rate": 1, "most": 2, "pair": [0, 1]}, "here")
    assert found == Settings(size=3, rate=1.0, most=2, pair=(0.0, 1.0))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"size": 3, "moode": "a"},
            r"here.moode: unknown key .*expected mode, most, pair, rate, size; did",
        ),
        ({}, "here.size: is missing; add it"),
        ({"size": "3"}, r"here.size: value '3', expected a whole number$"),
        ({"size": 3, "rate": "1"}, r"here.rate: value '1', expected a number$"),
        ({"size": 3, "most": "1"}, r"here.most: value '1', expected a whole number$"),
        ({"size": 3, "pair": ["1", 2]}, r"here.pair\[0\]: value '1', expected a number$"),
        ({"size": 3, "mode": "c"}, r"here.mode: value 'c', expected 'a' or 'b'$"),
        ({"size": 0}, r"^here.size: value 0, expected 1 or more; grow$"),
    ],
)
def test_wrong_settings_of_another_room(values: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        settings_of(Settings, values, "here")
