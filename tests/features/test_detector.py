"""Choosing a detector, and what its numbers mean."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tonics.errors import ConfigError, FormatError
from tonics.features.detector import Label, Vocabulary, load_detector


def test_a_vocabulary_comes_back_from_its_file(tmp_path):
    labels = (Label("dog", "dog.n.01", "n02084071"), ("crème brûlée", "", ""))
    vocabulary = Vocabulary(labels=labels, attributes=("wet",))
    path = tmp_path / "vocabulary.json"
    vocabulary.write(path)
    assert Vocabulary.read(path) == vocabulary
    assert Vocabulary.read(path).labels[1].name == "crème brûlée"
    assert Vocabulary(labels=labels).content_hash() != vocabulary.content_hash()


@pytest.mark.parametrize("text", ["{", "[]", '{"labels": [{"nom": "x"}], "attributes": []}'])
def test_what_is_no_vocabulary_is_refused(tmp_path, text):
    path = tmp_path / "vocabulary.json"
    with pytest.raises(FormatError, match=r"vocabulary.json: is missing"):
        Vocabulary.read(path)
    path.write_text(text)
    with pytest.raises(FormatError, match=r"vocabulary.json: not"):
        Vocabulary.read(path)


def test_an_unknown_detector_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"detector: 'gird', expected one of 'grid'"):
        load_detector("gird", {})


def test_asking_for_the_registry_loads_no_model_code():
    code = "import tonics.features.detector, sys; print({'torch', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
