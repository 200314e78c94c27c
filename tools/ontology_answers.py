"""Write the answers in docs/ontology.md anew: each ```sql block is asked of a dataset.

python tools/ontology_answers.py demo/dataset docs/ontology.md
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tonics.pipeline.dataset import Dataset
from tonics.pipeline.sql import answer_table

BLOCK = re.compile(r"```sql\n(.*?)\n```\n+```\n(.*?)```\n", re.S)


def main(dataset: Path, page: Path) -> None:
    """Replace the block behind every question by its answer."""
    opened = Dataset.open(dataset)

    def answered(block: re.Match[str]) -> str:
        return f"```sql\n{block[1]}\n```\n```\n{answer_table(opened, block[1])}\n```\n"

    page.write_text(BLOCK.sub(answered, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
