"""``tonics sql``: files, scripts, what was asked, and detections beside the ontology."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

Run = Callable[..., Any]


@pytest.fixture
def ask_script(monkeypatch: pytest.MonkeyPatch, run: Run) -> Callable[..., Any]:
    """Give statements on standard input."""

    def ask(text: str, *words: object) -> Any:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        return run(*words)

    return ask


def detections(folder: Path) -> Path:
    """A small detections.duckdb: the first dozen images show a dog."""
    file = folder / "detections.duckdb"
    file.unlink(missing_ok=True)
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{file}' AS detections (STORAGE_VERSION 'v1.0.0')")
        con.execute("USE detections")
        con.execute("CREATE TABLE main.seen AS SELECT range AS image, 0.9 AS score FROM range(12)")
        con.execute(
            "CREATE MACRO main.images_showing(name) AS TABLE "
            "SELECT image, score FROM detections.main.seen WHERE name = 'dog.n.01'"
        )
        con.execute("CREATE MACRO main.labels_of(name) AS TABLE SELECT 207 AS label, name")
    return file


# -- files


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_answers_go_to_files(run: Run, built: Path, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"out.{ending}"
    query = "SELECT pair, caption, pair AS pair FROM pairs ORDER BY pair"
    done = run("-C", built, "sql", query, "-o", file)
    assert (done.code, done.out) == (0, "")
    assert done.err == f"wrote {file}: 120 rows\n"
    if ending == "parquet":
        rows = pq.read_table(file).to_pylist()
    elif ending == "json":
        rows = json.loads(file.read_text())
    else:
        rows = list(csv.DictReader(file.open()))
    assert len(rows) == 120
    assert [str(row["pair"]) for row in rows] == [str(n) for n in range(120)]
    assert list(rows[0]) == ["pair", "caption", "pair_1"]
    assert rows[0]["caption"] == "A red dog on the grass."
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_the_format_may_be_said_apart_from_the_name(run: Run, built: Path, tmp_path: Path) -> None:
    file = tmp_path / "answer.txt"
    assert run("-C", built, "sql", "SELECT 1 AS a", "-o", file, "-f", "json").code == 0
    assert json.loads(file.read_text()) == [{"a": 1}]


def test_files_are_overwritten_only_when_asked(run: Run, copy: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    file.write_text("mine")
    done = run("-C", copy, "sql", "SELECT 1 AS a", "-o", file)
    assert done.code == 2
    assert "out.csv: exists already; name another file, or add --force" in done.err
    assert file.read_text() == "mine"
    failed = run("-C", copy, "sql", "SELECT error('no')", "-o", file, "--force")
    assert failed.code == 2
    assert file.read_text() == "mine"
    assert run("-C", copy, "sql", "SELECT 1 AS a", "-o", file, "--force").code == 0
    assert file.read_text() == "a\n1\n"


@pytest.mark.parametrize("name", ["pairs.parquet", "plans/tonics/plan.json", "ontology.duckdb"])
def test_the_datasets_own_files_are_never_overwritten(run: Run, copy: Path, name: str) -> None:
    before = (copy / name).read_bytes()
    done = run("-C", copy, "sql", "SELECT 1", "-o", copy / name, "-f", "csv", "--force")
    assert done.code == 2
    assert "a file of the dataset itself" in done.err
    assert (copy / name).read_bytes() == before


def test_nothing_is_put_where_stages_look(run: Run, copy: Path) -> None:
    done = run("-C", copy, "sql", "SELECT 1", "-o", copy / "nouns" / "99999.parquet")
    assert done.code == 2
    assert not (copy / "nouns" / "99999.parquet").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["SELECT 1", "-f", "parquet"], "--format parquet: no file, expected --output FILE"),
        (["SELECT 1", "-o", "out.xlsx"], "expected a name in .csv, .json, .parquet, or --format"),
        (["SELECT 1", "-o", "no/folder/out.csv"], "no such folder"),
        (["SELECT 1", "-o", "/dev/null", "-f", "csv", "--force"], "/dev/null: not a file"),
        (["SELECT 1", "--rows", "-1"], "--rows"),
        (["SELECT INTERVAL 3 MONTH AS a", "-o", "{}/a.parquet"], "a type that parquet has not"),
        (["FROM test_all_types()"], "cast it to VARCHAR"),
    ],
)
def test_what_cannot_be_written(
    run: Run, built: Path, tmp_path: Path, words: list[str], says: str
) -> None:
    done = run("-C", built, "sql", *[word.format(tmp_path) for word in words])
    assert done.code == 2
    assert says in done.err
    assert list(tmp_path.iterdir()) == []


def test_values_are_said_as_json_and_sql_say_them(run: Run, built: Path) -> None:
    query = (
        "SELECT sum(pair) AS total, true AS yes, [1, NULL] AS l, {'a': 'b'} AS s, "
        "1.5::DECIMAL(4, 2) AS d, 0.6::FLOAT AS f, NULL AS n, 'x'::BLOB AS b, "
        "DATE '2020-02-01' AS day FROM pairs"
    )
    text = run("-C", built, "sql", query, "-f", "csv").out.splitlines()[1]
    assert text == '7140,true,"[1, null]","{""a"": ""b""}",1.5,0.6,,78,2020-02-01'
    (row,) = json.loads(run("-C", built, "sql", query, "-f", "json").out)
    assert row == {
        "total": 7140, "yes": True, "l": [1, None], "s": {"a": "b"}, "d": 1.5, "f": 0.6,
        "n": None, "b": "78", "day": "2020-02-01",
    }  # fmt: skip


def test_a_table_says_how_much_it_left_out(run: Run, built: Path) -> None:
    lines = run("-C", built, "sql", "FROM pairs", "--rows", "3").out.splitlines()
    assert len(lines) == 6
    assert lines[-1] == "3 of 120 rows; --rows 0 for all, or -o file.parquet"
    assert len(run("-C", built, "sql", "FROM pairs").out.splitlines()) == 122


def test_names_of_columns_are_hostile_too(run: Run, built: Path) -> None:
    assert "\x1b" not in run("-C", built, "sql", 'SELECT 1 AS "\x1b[31mred"').out


# -- standard input, and what was asked


def test_statements_of_standard_input(ask_script: Run, built: Path) -> None:
    text = "SELECT 1 AS a; -- one\n\nSELECT ';' AS b"
    assert ask_script(text, "-C", built, "sql").out == "a\n-\n1\n\nb\n-\n;\n"
    done = ask_script("SELECT 1 AS a;\n\nSELEC 2;\nSELECT 3", "-C", built, "sql", "-f", "csv")
    assert done.code == 2
    assert done.out == "a\n1\n\n"
    assert "standard input, line 3 (statement 2): Parser Error" in done.err
    assert ask_script(" -- nothing\n", "-C", built, "sql").out == ""


def test_one_statement_for_one_file(ask_script: Run, built: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    done = ask_script("SELECT 1; SELECT 2;", "-C", built, "sql", "-o", file)
    assert done.code == 2
    assert "--output: 2 statements on standard input, expected one" in done.err
    assert ask_script("SELECT 1 AS a;", "-C", built, "sql", "-o", file).code == 0
    assert file.read_text() == "a\n1\n"


def test_questions_are_remembered(run: Run, copy: Path) -> None:
    (copy / ".tonics" / "sql_history").unlink(missing_ok=True)
    assert run("-C", copy, "sql", "--history").out == ""
    run("-C", copy, "sql", "SELECT 1;")
    run("-C", copy, "sql", "SELEC\n2 \x1b[31m")
    assert run("-C", copy, "sql", "--history").out == "SELECT 1;\nSELEC\n2 \\x1b[31m;\n"


# -- detections


def test_detections_are_joined(run: Run, copy: Path) -> None:
    detections(copy)
    query = (
        "SELECT count(*) AS n FROM pairs_of('dog.n.01') "
        "JOIN detections.images_showing('dog.n.01') USING (image)"
    )
    (row,) = json.loads(run("-C", copy, "sql", query, "-f", "json").out)
    dogs = {row["image"]: 0 for row in json.loads(
        run("-C", copy, "sql", "FROM images_of('dog.n.01')", "-f", "json").out)}  # fmt: skip
    assert 0 < row["n"] <= 24
    assert row["n"] >= sum(image < 12 for image in dogs)
    assert run("-C", copy, "sql", "DELETE FROM detections.seen").code == 2
    out = run("-C", copy, "show", "object", "dog").out
    both = sum(image < 12 for image in dogs)
    assert f"detected in {both} of the 16 images whose captions name it, and in {12 - both}" in out


def test_detections_that_were_not_made(run: Run, copy: Path) -> None:
    (copy / "detections.duckdb").unlink()
    done = run("-C", copy, "sql", "FROM detections.images_showing('dog')")
    assert done.code == 2
    assert "detections.duckdb: has not been made yet; run 'tonics run detections' first" in done.err


def test_broken_detections_do_not_stop_a_question(run: Run, copy: Path) -> None:
    (copy / "detections.duckdb").write_bytes(b"nonsense" * 2000)
    done = run("-C", copy, "sql", "SELECT 1 AS a")
    assert (done.code, done.out) == (0, "a\n-\n1\n")
    assert done.err.count("\n") == 1
    assert "detections.duckdb: does not open as a DuckDB database" in done.err
    assert "going on without it" in done.err
    assert run("-C", copy, "show", "object", "dog").code == 0
    done = run("-C", copy, "sql", "FROM detections.seen")
    assert done.code == 2
    assert "detections" in done.err.splitlines()[-1]


def test_detections_that_another_program_writes_to(run: Run, copy: Path) -> None:
    file = detections(copy)
    code = f"import duckdb; con = duckdb.connect({str(file)!r}); print('open', flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:
        assert other.stdout.readline() == "open\n"
        done = run("-C", copy, "sql", "SELECT 1 AS a")
        other.communicate("\n")
    assert (done.code, done.out) == (0, "a\n-\n1\n")
    assert "another program has it open for writing" in done.err
    assert "going on without it" in done.err


def test_a_broken_ontology_is_an_error_beside_good_detections(run: Run, copy: Path) -> None:
    detections(copy)
    (copy / "ontology.duckdb").write_bytes(b"nonsense" * 2000)
    done = run("-C", copy, "sql", "SELECT 1")
    assert done.code == 1
    assert "ontology.duckdb: does not open as a DuckDB database" in done.err


def test_a_question_loads_no_language_tools(built: Path) -> None:
    code = (
        "import sys; from tonics.pipeline.cli import main\n"
        f"sys.argv = ['tonics', '-C', {str(built)!r}, 'sql', 'SELECT 1']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "heavy = ('spacy', 'torch', 'nltk', 'transformers', 'pandas')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
