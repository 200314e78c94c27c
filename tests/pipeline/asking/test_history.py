"""What was asked is kept: bounded, private, several lines at once."""

from __future__ import annotations

import stat
from pathlib import Path

from tonics.pipeline.asking import history
from tonics.pipeline.asking.history import KEPT, recall, remember


def test_statements_come_back_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "sql_history"
    statements = ["SELECT 1", "SELECT\n  'a' -- b\n", 'SELECT "é"']
    for statement in statements:
        remember(file, statement)
    assert recall(file) == statements
    assert recall(file, 2) == statements[1:]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_it_does_not_grow_for_ever(tmp_path: Path) -> None:
    file = tmp_path / "sql_history"
    for number in range(2 * KEPT + 10):
        remember(file, f"SELECT {number}")
    assert len(file.read_bytes().splitlines()) < 2 * KEPT
    assert recall(file)[-1] == f"SELECT {2 * KEPT + 9}"
    assert recall(file)[0] == f"SELECT {KEPT + 10}"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    remember(file, "x" * (history._LONGEST + 1))
    assert recall(file)[-1] == f"SELECT {2 * KEPT + 9}"


def test_damage_and_absence_are_no_error(tmp_path: Path) -> None:
    file = tmp_path / "sql_history"
    file.write_bytes(b'"SELECT 1"\n\xff\xfe\n{"a": 1}\n"SELECT 2"\n"torn')
    assert recall(file) == ["SELECT 1", "SELECT 2"]
    assert recall(tmp_path / "none") == []
    remember(tmp_path / "no" / "folder", "SELECT 1")
