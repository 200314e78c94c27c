"""The parse stage with pipelines and captions it cannot make much of."""

from __future__ import annotations

import json

import pytest

from tonics.pipeline.stage import manifest_file

GERMAN = """
Ein Hund läuft über die grüne Wiese.|Zwei Männer sitzen auf einer Bank im Park.
Eine Frau trägt einen roten Hut und hält einen Regenschirm.|Kinder spielen am Strand mit Drachen.
Ein alter Zug steht im Bahnhof.|Die Katze schläft auf dem Fensterbrett neben der Pflanze.
Ein Teller mit Nudeln steht auf dem Küchentisch.|Drei Mädchen schwimmen im Schwimmbad.
Ein Junge springt mit seinem Fahrrad über eine Mauer.|Zwei Kühe grasen auf der Weide.
"""


@pytest.fixture
def folder(draw, tmp_path):
    return draw(tmp_path / "dataset", images=10)


def _manifest(folder):
    from tonics.pipeline.dataset import Dataset

    return json.loads(manifest_file(Dataset.open(folder), "parse").read_text())


def test_english_captions_are_not_remarked_on(folder, run_tonics):
    done = run_tonics("-C", folder, "run", "parse")
    assert done.returncode == 0, done.stderr
    counts = _manifest(folder)["counts"]
    assert counts["known_nouns"] == counts["nouns"] > 30
    assert "notes" not in counts
    assert "WordNet knows" not in done.stdout + done.stderr


def test_captions_in_another_language_are_kept_and_remarked_on(folder, run_tonics):
    captions = GERMAN.strip().replace("\n", "|").split("|")
    lines = [
        json.dumps({"image": f"{i:03d}.png", "captions": [captions[i], f"{captions[-i]} {i}"]})
        for i in range(10)
    ]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = run_tonics("-C", folder, "run", "parse")
    assert done.returncode == 0, done.stderr
    (note,) = [line for line in done.stdout.splitlines() if "note: WordNet knows" in line]
    assert "of those in English" in note
    counts = _manifest(folder)["counts"]
    assert (counts["in"], counts["out"], counts["rejected"]) == (20, 20, {})
    assert counts["known_nouns"] < 0.7 * counts["nouns"]


def test_a_pipeline_without_a_lemmatizer_is_refused_in_a_line(folder, run_tonics):
    import spacy

    spacy.blank("en").to_disk(folder / "blank")
    config = folder / "tonics.toml"
    text = config.read_text().replace("[nouns]", "[nouns]\nparser = 'blank'")
    config.write_text(text)
    done = run_tonics("-C", folder, "run", "parse")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("tonics: ")]
    assert "has no tagger (it has nothing); name a full pipeline in tonics.toml" in line
    assert not list(folder.glob("nouns/*"))
