"""The house stands as drawn: imports point one way, and the wheel holds just the package."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
ROOMS = ("pipeline", "ontology", "features", "train")
ALLOWED = {
    "errors": set(),
    "artifact": {"errors"},
    "features": {"artifact", "errors", "__version__"},
    "ontology": {"artifact", "errors"},
    "train": {"features", "artifact", "errors"},
    "pipeline": {"train", "features", "ontology", "artifact", "errors", "__version__"},
}


def _modules() -> list[Path]:
    rooms = [p for room in ROOMS for p in (REPOSITORY / room).rglob("*.py")]
    return [REPOSITORY / "errors.py", REPOSITORY / "artifact.py", *rooms]


def _imported(path: Path) -> set[str]:
    """What a module imports of the house: the rooms and ground-floor modules."""
    relative = path.relative_to(REPOSITORY).with_suffix("")
    depth = len(relative.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            if isinstance(node, ast.Import):
                assert not any(a.name.split(".")[0] in (*ROOMS, "tonics") for a in node.names)
            continue
        assert (node.module or "").split(".")[0] not in (*ROOMS, "tonics") or node.level, path
        if node.level == depth and depth:  # reaches the root of the package
            names = [node.module.split(".")[0]] if node.module else [a.name for a in node.names]
            found.update(names)
    return found


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_arrows_point_one_way(path: Path) -> None:
    room = path.relative_to(REPOSITORY).parts[0].removesuffix(".py")
    assert _imported(path) - {room} <= ALLOWED[room]


def test_the_trainer_and_the_features_know_no_language_tools() -> None:
    for room in ("train", "features"):
        for path in (REPOSITORY / room).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"^\s*(import|from) (spacy|nltk|duckdb)\b", text, re.M), path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it ships, built from the files git would see."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "py.typed"):
        (source / name).write_bytes((REPOSITORY / name).read_bytes())
    for path in [REPOSITORY / "__init__.py", *_modules(), *_data_files()]:
        copy = source / path.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    for folder in ("tests", "docs", "tools"):  # must not ship
        (source / folder).mkdir()
        (source / folder / "secret.py").write_text("raise SystemExit")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(out)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    return next(out.glob("*.whl"))


def _data_files() -> list[Path]:
    patterns = ("ontology/*.sql", "ontology/*.tsv", "features/*.tsv", "pipeline/*.toml")
    return [p for g in (*patterns, "pipeline/demo/*.tsv") for p in sorted(REPOSITORY.glob(g))]


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    expected = {
        f"tonics/{p.relative_to(REPOSITORY).as_posix()}"
        for p in [REPOSITORY / "__init__.py", REPOSITORY / "py.typed", *_modules(), *_data_files()]
    }
    names = zipfile.ZipFile(wheel).namelist()
    assert {n for n in names if ".dist-info/" not in n} == expected


def test_the_wheel_imports_with_the_core_alone(wheel: Path, tmp_path: Path) -> None:
    code = f"""
import sys, importlib.abc
class Only(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"torch", "PIL", "duckdb", "nltk", "spacy", "pydantic", "typer",
                                  "transformers", "webdataset", "safetensors", "rich"}}:
            raise ImportError("not in the core: " + name)
sys.meta_path.insert(0, Only())
sys.path.insert(0, {str(wheel)!r})
import tonics
from tonics.train import Plan
from tonics.features import FeatureStore
import tonics.ontology
assert {str(wheel)!r} in tonics.__file__, tonics.__file__
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_help_loads_nothing_heavy() -> None:
    code = """
import sys
sys.argv = ["tonics", "--help"]
from tonics.pipeline.cli import main
try:
    main()
except SystemExit as done:
    assert not done.code
heavy = {"torch", "spacy", "nltk", "duckdb", "transformers", "pyarrow", "numpy", "pydantic"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_no_machine_is_named_in_the_repository() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    home = re.compile(r"/(home|root|work|Users)/[a-z]")
    for name in listed.stdout.splitlines():
        path = REPOSITORY / name
        if (
            path.suffix in (".py", ".md", ".toml", ".sh", ".sql", ".tsv", ".cff", "")
            and path.is_file()
        ):
            assert not home.search(path.read_text(encoding="utf-8")), name
