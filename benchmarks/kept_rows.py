"""`--results FILE` of a benchmark: each row is a line of a file, from which the command goes on."""

import argparse
import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def add_results(parser: argparse.ArgumentParser) -> None:
    """The option."""
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep rows, and go on")


class KeptRows:
    """The rows of a table, of a file where there is one."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        lines = file.read_text().splitlines() if file is not None and file.exists() else []
        self.rows: list[Row] = [json.loads(line) for line in lines]

    def of(self, key: Row) -> list[Row]:
        """Those of which all is true that `key` says."""
        return [row for row in self.rows if key.items() <= row.items()]

    def add(self, row: Row) -> None:
        """One more; written at once."""
        self.rows.append(row)
        if self.file is not None:
            with self.file.open("a") as file:
                file.write(json.dumps(row) + "\n")
