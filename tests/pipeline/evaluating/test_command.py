"""``tonics eval`` and ``tonics runs`` on the tiny dataset: runs, CLIP, others' vectors, swaps."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tonics.errors import InputError
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.evaluating.comparing import compare_groups, find_group
from tonics.pipeline.evaluating.embedders import RunEmbedder
from tonics.pipeline.evaluating.evaluations import evaluations
from tonics.pipeline.evaluating.outsiders import load_both
from tonics.pipeline.evaluating.standing import notes_of
from tonics.pipeline.stages.evaluate import EvalStage
from tonics.pipeline.stages.queries import QueriesStage
from tonics.train.evaluation import recall
from tonics.train.evaluation.queries import queries_hash

Run = Callable[..., SimpleNamespace]


def scores(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_a_run_has_scores_and_every_querys_result(built: Path) -> None:
    report = scores(built / "runs" / "tonics" / "eval.json")
    assert (report["format"], report["version"], report["split"]) == ("tonics-eval", 3, "test")
    table = pq.read_table(built / "runs" / "tonics" / "eval.parquet")
    hits = np.mean(table["t2i_rank"].to_numpy() < 5)
    assert report["t2i"]["r5"] == pytest.approx(100 * hits, abs=0.01)
    asked = table.filter(table["same_object_t2i"].is_valid())
    assert report["same_object"]["queries"] == asked.num_rows > 20
    right = np.mean(asked["same_object_t2i"].to_numpy())
    assert report["same_object"]["t2i"] == pytest.approx(100 * right, abs=0.01)
    assert report["same_object"]["chance"] == 33.33


def test_clip_is_scored_on_the_same_queries_and_stands_in_the_same_table(
    run: Run, copy: Path, clip_folder: Path
) -> None:
    from PIL import Image

    from tonics.train.evaluation.clip import clip_fingerprint, load_clip

    queries = QueriesStage(Dataset.open(copy), "test").read()
    broken = queries["image_id"][0].as_py()
    file = copy / "images" / broken  # damaged on the disk, since it was ingested
    file.write_bytes(file.read_bytes()[:60].ljust(file.stat().st_size, b"\0"))
    os.utime(file, (1e9, 1e9))
    done = run("-C", copy, "eval", "--clip", clip_folder, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)[0]
    assert report["name"] == "clip-tiny-clip"
    assert report["fingerprint"] == clip_fingerprint(str(clip_folder))
    assert report["queries"] == scores(copy / "runs" / "tonics" / "eval.json")["queries"]
    assert sum(report["rejected_images"].values()) == 1
    assert report["captions_left_out"] == 3
    assert report["captions"] == queries.num_rows - 3
    rejected = pq.read_table(next((copy / "rejected").glob("eval-clip-tiny-clip-*.parquet")))
    assert rejected["where"].to_pylist() == [broken]
    kept = queries.filter(np.array(queries["image_id"].to_pylist()) != broken)
    names, owner = np.unique(kept["image_id"].to_pylist(), return_inverse=True)
    clip = load_clip(str(clip_folder))
    images = clip.encode_images([Image.open(copy / "images" / n).convert("RGB") for n in names])
    texts = clip.encode_texts(kept["caption"].to_pylist())
    assert report["rsum"] == pytest.approx(recall(images, texts, owner).rsum, abs=0.01)
    table = run("-C", copy, "runs", "list").out.splitlines()
    assert [line.split()[0] for line in table[2:4]] == ["tonics", "clip-tiny-clip"]
    refused = run("-C", copy, "runs", "compare", "tonics", "clip-tiny-clip")
    assert refused.code == 2  # for CLIP could not read an image
    assert "not the same ones" in refused.err


def test_anybodys_vectors(run: Run, copy: Path, tmp_path: Path) -> None:
    """A run's own vectors, given from outside, score as the run does, in any order of rows."""
    dataset = Dataset.open(copy)
    queries = QueriesStage(dataset, "test").read()
    images, texts = RunEmbedder(EvalStage(dataset, "tonics")).queries(queries)
    files = [tmp_path / "images.npy", tmp_path / "texts.npy"]
    for file, rows in zip(files, (images, texts), strict=True):
        np.save(file, rows)
    done = run("-C", copy, "eval", "--embeddings", *files, "--name", "mine", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)[0]
    own = scores(copy / "runs" / "tonics" / "eval.json")
    keys = ("images", "captions", "i2t", "t2i", "rsum", "same_object")
    assert {k: report[k] for k in keys} == {k: own[k] for k in keys}
    words = ("-C", copy, "runs", "compare", "tonics", "vectors-mine")
    compared = json.loads(run(*words, "--json").out)[0]
    assert {(d["difference"], d["better"]) for d in compared["differences"]} == {(0, 0.5)}
    assert compared["identical"]
    assert "any t2i" in {d["metric"] for d in compared["differences"]}
    assert "the same on every query" in run(*words).out

    order = np.random.default_rng(0).permutation(len(texts))
    np.save(files[1], texts[order])
    names = tmp_path / "keys.txt"
    keys_of = queries["pair_key"].to_pylist()
    names.write_text("\n".join(keys_of[k] for k in order) + "\n")
    wrong = run("-C", copy, "eval", "--embeddings", *files, "--json")
    assert json.loads(wrong.out)[0]["rsum"] != own["rsum"]
    right = run("-C", copy, "eval", "--embeddings", *files, "--pair-keys", names, "--json")
    assert json.loads(right.out)[0]["rsum"] == own["rsum"]
    np.save(files[1], texts[:-1])
    refused = run("-C", copy, "eval", "--embeddings", *files)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert f"{len(texts) - 1} rows, expected {len(texts)}" in refused.err
    lines = names.read_text().splitlines()
    for change, problem in (
        ([*lines[:-1], "odd"], f"keys.txt: no line for 1 of {len(lines)} ids: {lines[-1]!r}"),
        ([*lines[:-1], "odd"], f"line {len(lines)} is unknown: 'odd'"),
        ([*lines[:-1], lines[4]], f"first {lines[4]!r} in lines 5 and {len(lines)}"),
    ):
        names.write_text("\n".join(change))
        refused = run("-C", copy, "eval", "--embeddings", *files, "--pair-keys", names)
        assert problem in refused.err
        assert refused.err.count("\n") == 1


def test_vectors_that_cannot_be_used_are_refused_by_file(tmp_path: Path) -> None:
    good = np.eye(4, dtype=np.float32)
    file, other = tmp_path / "a.npy", tmp_path / "b.npy"

    def refusal(vectors: np.ndarray) -> str:
        np.save(file, vectors)
        np.save(other, good)
        with pytest.raises(InputError) as refused:
            load_both((file, other))
        return str(refused.value)

    odd = good.copy()
    odd[3, 0] = np.nan
    assert f"{file}: 1 of 4 rows hold NaN or infinity, the first is row 3" in refusal(odd)
    odd[1:] = 0
    assert f"{file}: 3 of 4 rows are all zeros, the first is row 1" in refusal(odd)
    both = f"{file}: of shape (4, 3), and {other} of shape (4, 4)"
    assert both in refusal(good[:, :3] + 1)
    objects = refusal(np.array([{}], object))
    assert "is damaged, or holds no numbers" in objects
    assert "pickle" not in objects


def test_vectors_alone_need_no_dataset(run: Run, tmp_path: Path) -> None:
    files = [tmp_path / "images.npy", tmp_path / "texts.npy"]
    for file in files:
        np.save(file, np.eye(4, dtype=np.float16))
    np.save(tmp_path / "owners.npy", np.array([0, 1, 2, 0]))
    words = ("eval", "--embeddings", *files, "--owners", tmp_path / "owners.npy")
    found = json.loads(run("-C", tmp_path, *words, "--name", "mine", "--json").out)[0]
    assert (found["images"], found["captions"], found["t2i"]["r1"]) == (4, 4, 75)
    lines = run("-C", tmp_path, *words, "--name", "mine").out.splitlines()
    assert lines[0].split()[:3] == ["run", "images", "captions"]
    assert lines[2].split()[:5] == ["mine", "4", "4", "100", "100"]
    assert "same" not in lines[-1]
    np.save(tmp_path / "owners.npy", np.array([0, 1, 2, 4]))
    assert "expected rows 0 to 3 of" in run("-C", tmp_path, *words).err
    np.save(tmp_path / "owners.npy", np.array([0.5, 1, 2, 0]))
    assert "expected 4 whole numbers" in run("-C", tmp_path, *words).err


def test_captions_of_others_are_encoded_as_the_datasets_are(
    run: Run, copy: Path, clip_folder: Path, tmp_path: Path
) -> None:
    """A frozen run embeds captions of a file as it embeds the dataset's own."""
    dataset = Dataset.open(copy)
    queries = QueriesStage(dataset, "test").read()
    embedder = RunEmbedder(EvalStage(dataset, "tonics"))
    _, own = embedder.queries(queries)
    again = embedder.captions(queries["caption"].to_pylist())
    np.testing.assert_allclose(again, own, atol=2e-3)  # cached vectors are float16
    rows = queries.to_pylist()[:6]
    lines = [
        f"{r['image_id']}\t{r['caption']}\t{rows[k - 1]['caption']}" for k, r in enumerate(rows)
    ]
    file = tmp_path / "swaps.tsv"
    file.write_text(
        "\n".join(["image\tcaption\tnegative", *lines, "nowhere.png\ta\tb", "x\ta\t"]) + "\n"
    )
    done = run("-C", copy, "eval", "tonics", "--swaps", file, "--json")
    report = json.loads(done.out)[0]
    assert (report["rows"], report["captions"]) == (8, 6)
    assert (report["not_in_dataset"], report["not_altered"]) == (1, 1)
    assert scores(copy / "runs" / "tonics" / "swaps-swaps.json")["accuracy"] == report["accuracy"]
    images = embedder.images(np.array([r["image"] for r in rows]))
    true = own[:6]
    wins = [images[k] @ true[k] > images[k] @ true[k - 1] for k in range(6)]
    assert report["accuracy"] == pytest.approx(100 * np.mean(wins), abs=0.01)
    done = run("-C", copy, "eval", "--clip", clip_folder, "--swaps", file)
    assert "1 rows of images that are not in the dataset" in done.out
    assert "any i2t" in done.out
    assert done.err == ""
    strange, bad = tmp_path / "strange.csv", tmp_path / "bad.csv"
    image = rows[0]["image_id"]
    strange.write_text(f"image,caption,negatives\n{image},xyz zyx,xyz\n{image},b, c,d\n")
    bad.write_text("a,b\n1,2\n")
    done = run("-C", copy, "eval", "tonics", "--swaps", bad, "--swaps", strange, "--swaps", file)
    assert done.code == 2  # for one of three files; the tables of the others are there
    tables = done.out.split("\n\n")
    assert [line.split()[:2] for line in tables[-3].splitlines()[2:]] == [
        ["tonics", "strange.csv"],
        ["tonics", "swaps.tsv"],
    ]
    assert "strange.csv: 1 rows with more or fewer fields than the header" in tables[-2]
    assert "clip-tiny-clip" not in done.out
    warned, refused = done.err.splitlines()
    assert "strange.csv: none of its true captions is a caption that the dataset has" in warned
    assert "bad.csv: no column for 'image'" in refused


def test_scores_of_another_query_set_are_marked_and_not_compared(run: Run, copy: Path) -> None:
    dataset = Dataset.open(copy)
    folder = shutil.copytree(copy / "runs" / "tonics", copy / "runs" / "before")
    assert "query set" not in run("-C", copy, "runs", "list").out
    report = scores(folder / "eval.json")
    file = dataset.evaluation / "test.parquet"
    queries = pq.read_table(file)
    pq.write_table(queries.take([1, 0, *range(2, queries.num_rows)]), file)  # the same, reordered
    (copy / "runs" / "tonics" / "eval.json").write_text(
        json.dumps({**report, "queries": queries_hash(QueriesStage(dataset, "test").read())})
    )
    rows = json.loads(run("-C", copy, "runs", "list", "--json").out)
    assert {row["run"]: row["note"] for row in rows} == {
        "before": "not in tonics.toml; another query set",
        "tonics": None,
    }
    refused = run("-C", copy, "runs", "compare", "tonics", "before")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "compare: before: scores of another query set than today's" in refused.err
    del report["queries"]  # as earlier versions wrote it
    (folder / "eval.json").write_text(json.dumps(report))
    assert run("-C", copy, "runs", "compare", "tonics", "before").code == 2


def test_choices_among_other_candidates_are_not_compared(run: Run, copy: Path) -> None:
    folder = shutil.copytree(copy / "runs" / "tonics", copy / "runs" / "before")
    words = ("-C", copy, "runs", "compare", "tonics", "before")
    (same,) = json.loads(run(*words, "--json").out)
    assert not same["redrawn"]
    report = scores(folder / "eval.json")
    report["same_object"]["sets"] = "0" * 32
    (folder / "eval.json").write_text(json.dumps(report))
    (found,) = json.loads(run(*words, "--json").out)
    assert found["redrawn"]
    metrics = [one["metric"] for one in same["differences"]]
    assert [one["metric"] for one in found["differences"]] == metrics[:7]
    assert len(metrics) == 11
    assert "left out, same-object choices: their candidates were drawn anew" in run(*words).out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clip", "a", "--embeddings", "b", "c"], "--clip and --embeddings"),
        (["tonics", "--clip", "a"], "runs tonics beside --clip"),
        (["--embeddings", "a", "b", "--eccv", "{toml}"], "vectors are none"),
        (["--pair-keys", "{toml}"], "--pair-keys without --embeddings"),
        (["tonics", "--name", "b"], "a run is called as in tonics.toml"),
        (["tonics", "--split", "val"], "runs have an eval_split (tonics: 'test')"),
        (["--column", "negatives=a"], "--column without --swaps"),
        (["--embeddings", "a", "b", "--name", "a/b"], "--name: 'a/b'"),
        (["--embeddings", "{toml}", "{toml}"], "is no .npy file, expected a .npy file"),
        (["tonics", "--swaps", "{toml}"], "no column for 'image'"),
        (["tonics", "--eccv", "{toml}"], "not valid JSON"),
        (["--clip", "a", "--split", "none"], "no pair is in split 'none'"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    run: Run, built: Path, words: list[str], message: str
) -> None:
    done = run("-C", built, "eval", *(w.format(toml=built / "tonics.toml") for w in words))
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_runs_of_several_seeds_are_paired_by_what_the_star_stands_for(copy: Path) -> None:
    folder, dataset = copy / "runs" / "tonics", Dataset.open(copy)
    for name in ("random-0", "random-1", "random-2", "mixed-0", "mixed-1"):
        (copy / "runs" / name).mkdir()
        for file in ("eval.json", "eval.parquet"):
            shutil.copy(folder / file, copy / "runs" / name / file)
    known = evaluations(dataset)
    groups = [find_group(pattern, known) for pattern in ("random-*", "mixed-*")]
    found = compare_groups(*groups, draws=100, seed=0)
    assert found.runs == (("random-0", "random-1"), ("mixed-0", "mixed-1"))
    assert found.left_out == ("random-2",)
    assert [len(one.runs) for one in found.differences] == [2] * len(found.differences)
    one = compare_groups(find_group("tonics", known), groups[1], draws=100, seed=0)
    assert one.runs == (("tonics",), ("mixed-0", "mixed-1"))
    with pytest.raises(InputError, match="nothing in common"):
        compare_groups(groups[0], find_group("*-0", known), draws=100, seed=0)
    with pytest.raises(InputError, match="no run 'x', expected one of mixed-0"):
        find_group("x", known)


def test_what_cannot_be_held_against_the_others_is_marked(run: Run, copy: Path) -> None:
    folder, dataset = copy / "runs" / "tonics", Dataset.open(copy)
    assert "note" not in run("-C", copy, "runs", "list").out
    own = scores(folder / "eval.json")
    images = own["images"]
    for name, change in (("part", {"images": images - 1}), ("other", {"queries": "0" * 32})):
        report = copy / "evaluation" / f"vectors-{name}.json"
        report.write_text(json.dumps(own | change))
        shutil.copy(folder / "eval.parquet", report.with_suffix(".parquet"))
    shutil.copytree(folder, copy / "runs" / "gone")
    (copy / "runs" / "gone" / "eval.parquet").unlink()
    known = evaluations(dataset)
    reports = {name: scores(one.report) for name, one in known.items()}
    assert notes_of(dataset, known.values(), reports) == {
        "gone": "not in tonics.toml; older format",
        "vectors-other": "another query set",
        "vectors-part": f"{images - 1} of {images} images",
    }
    table = run("-C", copy, "runs", "list").out.splitlines()
    assert table[2].endswith("not in tonics.toml; older format")
    refused = run("-C", copy, "runs", "compare", "tonics", "gone")
    assert "tonics.toml does not name it any more" in refused.err
    manifest = copy / ".tonics" / "manifests" / "eval" / "tonics" / "all.json"
    made = scores(manifest)
    made["identity"]["same_object"] = "0" * 32
    manifest.write_text(json.dumps(made))
    assert notes_of(dataset, [known["tonics"]], reports) == {"tonics": "other same-object choices"}


def test_a_run_that_is_not_trained_is_called_so(run: Run, copy: Path) -> None:
    shutil.rmtree(copy / ".tonics" / "manifests" / "train" / "tonics")
    stopped = run("-C", copy, "eval", "tonics")
    assert stopped.code == 2
    assert "run 'tonics' stopped after step" in stopped.err
    assert "'tonics run eval/tonics' goes on with it" in stopped.err
    shutil.rmtree(copy / "runs" / "tonics" / "checkpoints")
    assert "run 'tonics' is not trained yet" in run("-C", copy, "eval", "tonics").err
