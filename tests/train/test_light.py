"""What must work with numpy, pyarrow and xxhash alone; and the examples in the docstrings."""

import doctest
import importlib
import subprocess
import sys

import pytest

ONLY_CORE = """
import sys
class Absent:
    names = {"torch", "transformers", "webdataset", "safetensors", "PIL", "duckdb", "spacy"}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from tonics.train import Plan
print(len(Plan(sys.argv[1])), sorted({"torch", "transformers", "webdataset"} & set(sys.modules)))
"""


def test_a_plan_is_read_without_torch(world):
    command = [sys.executable, "-c", ONLY_CORE, str(world.plan.path)]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.stdout == "16 []\n", shown.stderr


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint",
        "config",
        "evaluation.retrieval",
        "metrics",
        "model.encoders",
        "model.loss",
        "model.pooling",
        "model.tokens",
        "optimizing",
    ],
)
def test_examples_in_docstrings(name):
    assert doctest.testmod(importlib.import_module(f"tonics.train.{name}")).failed == 0


def test_encoders_do_not_import_transformers_until_one_is_loaded():
    code = "import sys, tonics.train.model.encoders as _; print('transformers' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout == "False\n", shown.stderr
