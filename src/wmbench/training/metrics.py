"""metrics.csv: what a training measured, a row per validation."""

import csv
import io
from pathlib import Path

from wmbench.files import regular
from wmbench.runs.store import saving

Row = dict[str, float | int]


class Metrics:
    """The rows of a training up to `step`; those that a killed run wrote after its last save will be written again.

    The file is written anew with every row, so that a kill or a full disk leaves whole rows.

    Raises:
        ValueError: a row that cannot be read, but for the last one, which an older version may have left half written.
    """

    def __init__(self, path: Path, step: int):
        self.path = path
        found = _read(path)
        self.rows: list[dict[str, str | float | int]] = [row for row in found if int(row["step"]) <= step]
        if len(self.rows) < len(found):
            self._write()

    def append(self, row: Row) -> None:
        self.rows.append({**row})
        self._write()

    def _write(self) -> None:
        text = io.StringIO(newline="")
        columns = dict.fromkeys(name for row in self.rows for name in row)  # an older run may have had fewer
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with saving(self.path) as temporary:
            temporary.write_text(text.getvalue(), newline="")


def _read(path: Path) -> list[dict[str, str | float | int]]:
    if not path.exists():
        return []
    lines = regular(path).read_text(errors="replace").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        del lines[-1]
    rows: list[dict[str, str | float | int]] = []
    for number, row in enumerate(csv.DictReader(lines), start=2):
        try:
            int(row["step"])
            [float(value) for value in row.values() if value != ""]  # "" where an older version had no column
        except (KeyError, TypeError, ValueError):  # too few or too many columns, or no numbers
            remedy = "delete it to go on without the rows so far"
            raise ValueError(f"{path} is damaged in line {number}; {remedy}") from None
        rows.append(row)
    return rows
