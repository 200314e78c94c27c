"""Questions from outside: SELECT is answered, anything that reaches further is refused."""

from __future__ import annotations

import duckdb
import pytest

from tonics.errors import FormatError, InputError, StaleInput
from tonics.ontology import Ontology
from tonics.ontology.database import run_query


def test_select(database):
    found = run_query(database, "SELECT synset FROM objects ORDER BY object LIMIT 1")
    assert found.to_pylist() == [{"synset": "entity.n.01"}]
    assert run_query(database, "FROM pairs_of('dog.n.01')").num_rows > 3
    assert run_query(database, "SUMMARIZE objects").num_rows == 8
    assert run_query(database, "SHOW TABLES").num_rows > 9
    assert run_query(database, "EXPLAIN SELECT 1").num_rows == 1
    assert run_query(database, "WITH t AS (SELECT 1 AS one) FROM t;").to_pylist() == [{"one": 1}]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY pairs TO '{there}'",
        "COPY (SELECT 1) TO '{there}'",
        "EXPORT DATABASE '{there}'",
        "ATTACH '{there}' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "PRAGMA table_info('pairs')",
        "SET memory_limit = '100GB'",
        "RESET ALL",
        "USE memory",
        "CREATE TABLE t AS SELECT 1",
        "CREATE TEMP TABLE t AS SELECT 1",
        "DROP TABLE pairs",
        "DELETE FROM pairs",
        "INSERT INTO meta VALUES ('a', 'b')",
        "CHECKPOINT",
        "VACUUM",
        "SELECT 1; SELECT 2",
        "EXPLAIN ANALYZE COPY pairs TO '{there}'",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM read_blob('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM sniff_csv('{secret}')",
        "SELECT * FROM read_parquet('{folder}/*.parquet')",
        "SELECT * FROM query('COPY pairs TO ''{there}''')",
        "SELECT * FROM duckdb_secret_file",
        "SELEC 1",
        "",
    ],
)
def test_refused(database, tmp_path, sql):
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n1,2\n")
    there = tmp_path / "there"
    before = database.read_bytes()
    with pytest.raises(InputError) as refused:
        run_query(database, sql.format(there=there, secret=secret, folder=tmp_path))
    assert "\n" not in str(refused.value)
    assert "1,2" not in str(refused.value)
    assert not there.exists()
    assert database.read_bytes() == before


def test_our_variables_are_no_tables(database, monkeypatch):
    import pyarrow as pa

    from tonics.ontology import questions

    monkeypatch.setattr(questions, "hidden", pa.table({"a": [1]}), raising=False)
    with pytest.raises(InputError, match="hidden does not exist"):
        run_query(database, "SELECT * FROM hidden")


def test_suggestion_survives(database):
    with pytest.raises(InputError, match=r'(?i)captoin.*caption"?'):
        run_query(database, "SELECT captoin FROM pairs")


def test_timeout(database):
    slow = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range = 7"
    with pytest.raises(InputError, match=r"not answered within 0\.2 s"):
        run_query(database, slow, timeout_s=0.2)


def test_memory_limit(database):
    with pytest.raises(InputError, match=r"(?i)memory"):
        run_query(database, "SELECT list(range) FROM range(50000000)", memory="50MB")
    with pytest.raises(InputError, match=r"(?i)memory"):
        run_query(database, "SELECT 1", memory="plenty")


def test_result_too_large(database, monkeypatch):
    from tonics.ontology import questions

    monkeypatch.setattr(questions, "RESULT_BYTES", 1 << 16)
    with pytest.raises(InputError, match="LIMIT"):
        run_query(database, "FROM range(1000000)")


def test_attached_files_are_read_only(database, tmp_path):
    other = tmp_path / "detections.duckdb"
    with duckdb.connect(str(other)) as con:
        con.execute("CREATE TABLE seen AS SELECT 0::BIGINT AS image, 'dog.n.01' AS synset")
    sql = "SELECT count(*) AS n FROM images_of('dog.n.01') JOIN detections.seen USING (image)"
    attach = {"detections": other}
    assert run_query(database, sql, attach=attach).to_pylist() == [{"n": 1}]
    with pytest.raises(InputError):
        run_query(database, "DELETE FROM detections.seen", attach=attach)
    with pytest.raises(InputError, match="identifier"):
        run_query(database, sql, attach={'a" b': other})
    with pytest.raises(StaleInput):
        run_query(database, sql, attach={"detections": tmp_path / "none.duckdb"})


def test_several_readers_at_once(database):
    with Ontology(database) as one, Ontology(database) as two:
        assert one.objects().equals(two.objects())
        assert run_query(database, "SELECT 1 AS one").num_rows == 1


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(StaleInput, match="tonics ontology"):
        Ontology(tmp_path / "none.duckdb")
    broken = tmp_path / "broken.duckdb"
    broken.write_bytes(b"nonsense" * 2000)
    with pytest.raises(FormatError, match="tonics ontology"):
        Ontology(broken)
    other = tmp_path / "other.duckdb"
    duckdb.connect(str(other)).close()
    with pytest.raises(FormatError, match="tonics ontology"):
        Ontology(other)


def test_unknown_word_has_suggestions(database):
    with Ontology(database) as ontology, pytest.raises(InputError, match=r"did you mean .*dog"):
        ontology.pairs("dgo")


def test_package_imports_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys, tonics.ontology; "
        "print([m for m in ('duckdb', 'nltk', 'spacy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
