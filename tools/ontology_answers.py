"""Write the answers in docs/ontology.md anew: each ```sql block is asked of a dataset.

python tools/ontology_answers.py demo/dataset docs/ontology.md
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tonics.ontology.questions import run_query
from tonics.pipeline.dataset import Dataset
from tonics.pipeline.tables import format_table

BLOCK = re.compile(r"```sql\n(.*?)\n```\n```\n(.*?)```\n", re.S)


def main(dataset: Path, page: Path) -> None:
    """Replace the block behind every question by its answer."""
    opened = Dataset.open(dataset)

    def answered(block: re.Match[str]) -> str:
        attach = {"detections": opened.detections_file}
        table = run_query(opened.ontology_file, block[1], attach=attach)
        rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
        answer = "\n".join(x.rstrip() for x in format_table(table.column_names, rows).splitlines())
        return f"```sql\n{block[1]}\n```\n```\n{answer}\n```\n"

    page.write_text(BLOCK.sub(answered, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
