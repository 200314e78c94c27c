"""Questions from outside: SELECT is answered, anything that reaches further is refused."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest

from tonics.errors import InputError, StaleInput
from tonics.ontology import questions
from tonics.ontology.questions import Session, run_query


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
        "EXPLAIN ANALYZE CREATE TABLE memory.main.t AS SELECT 1",
        "explain (FORMAT json) CREATE VIEW memory.main.v AS SELECT 1",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM read_blob('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM sniff_csv('{secret}')",
        "SELECT * FROM read_parquet('{folder}/*.parquet')",
        "SELECT * FROM query('COPY pairs TO ''{there}''')",
        "SELECT * FROM duckdb_secret_file",
        "SELECT * FROM query('SELECT * FROM read_text(''{secret}'')')",
        "SELECT * FROM query_table('{secret}')",
        "SELECT * FROM json_execute_serialized_sql(json_serialize_sql("
        "'SELECT * FROM read_text(''{secret}'')'))",
        "SELECT * FROM read_duckdb('{secret}')",
        "SELECT * FROM read_single_csv_file('{secret}')",
        "SELECT * FROM read_json_auto('{secret}')",
        "SELECT * FROM read_ndjson_objects('{secret}')",
        "SELECT * FROM parquet_metadata('{secret}')",
        "SELECT * FROM parquet_bloom_probe('{secret}', 'a', 1)",
        "SELECT * FROM 'https://example.org/a.csv'",
        "SELECT * FROM sqlite_scan('{secret}', 't')",
        "SELECT load_extension('httpfs')",
        "SELECT getenv('HOME')",
        "SELECT * FROM duckdb_extensions()",
        "SELECT * FROM enable_logging(storage = 'file', storage_config = {{'path': '{there}'}})",
        "SELECT * FROM enable_profiling(save_location = '{there}')",
        "SELECT * FROM create_external_resource(type := 'a', params := MAP {{'path': '{there}'}})",
        "SELECT * FROM destroy_external_resource(deleter_function := 'read_text', "
        "payload := '{secret}')",
        "WITH gone AS (DELETE FROM meta RETURNING *) FROM gone",
        "WITH t AS MATERIALIZED (COPY pairs TO '{there}') SELECT 1",
        "WITH t AS (INSERT INTO meta VALUES ('a', 'b') RETURNING *) FROM t",
        "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
        "EXPLAIN ANALYZE SET memory_limit = '1TB'",
        "MERGE INTO meta USING meta m ON false WHEN NOT MATCHED THEN INSERT",
        "PREPARE t AS SELECT 1",
        "EXECUTE t",
        "SET VARIABLE t = 1",
        "CALL pragma_version()",
        "CALL enable_logging(storage = 'file')",
        "IMPORT DATABASE '{folder}'",
        "COPY FROM DATABASE ontology TO memory",
        "UPDATE EXTENSIONS",
        "FORCE INSTALL httpfs",
        "CREATE SECRET s (TYPE s3)",
        "CREATE MACRO f() AS 1",
        "DETACH ontology",
        "BEGIN",
        "COMMENT ON TABLE pairs IS 'x'",
        "PIVOT pairs ON split USING count(*)",
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


def test_nothing_about_the_user_can_be_read(database, monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere/somebody")
    names = "SELECT string_agg(value, ' ') AS all FROM duckdb_settings()"
    assert "somebody" not in run_query(database, names).to_pylist()[0]["all"]
    assert run_query(database, "FROM duckdb_secrets()").num_rows == 0


def test_pivot_with_its_values(database):
    sql = "PIVOT pairs ON split IN ('train', 'test') USING count(*) GROUP BY image ORDER BY image"
    assert run_query(database, sql).to_pylist()[0] == {"image": 0, "train": 2, "test": 0}


def test_several_questions_to_one_session(database):
    with Session(database) as session:
        with session.ask("FROM pairs") as unread, session.ask("SELECT 1 AS one") as answer:
            assert [batch.to_pylist() for batch in answer] == [[{"one": 1}]]
            assert sum(batch.num_rows for batch in unread) > 9
        with pytest.raises(InputError, match="nowhere"):
            session.ask("FROM nowhere")
        with session.ask("SELECT 2 AS two") as answer:
            assert answer.schema.names == ["two"]


def test_only_the_work_on_an_answer_is_timed(database):
    with Session(database, timeout_s=0.5) as session, session.ask("FROM range(300000)") as answer:
        batches = iter(answer)
        count = next(batches).num_rows
        time.sleep(0.6)
        assert count + sum(batch.num_rows for batch in batches) == 300_000


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
def test_an_interrupt_stops_the_query(database):
    """What Ctrl-C raises reaches the caller at once, and the session goes on."""
    slow = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range = 7"
    main = threading.main_thread().ident
    timer = threading.Timer(0.3, press_ctrl_c, [main])
    with Session(database) as session:
        timer.start()
        with pytest.raises(KeyboardInterrupt), session.ask(slow) as answer:
            list(answer)
        with session.ask("SELECT 1 AS one") as answer:
            assert next(iter(answer)).num_rows == 1


def press_ctrl_c(thread: int) -> None:
    signal.pthread_kill(thread, signal.SIGINT)
