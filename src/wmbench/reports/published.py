"""Published PointMaze numbers, cited apart from measured ones, and the rule by which a reproduction is judged.

published.csv has one row for each number: success in [0, 1], tasks where known, paper (its latest version), its table, our
protocol of that kind (empty where none corresponds), the setting in words (another maze or environment is named there),
planner, notes ("second hand" where the paper itself was not read).
"""

import html
from pathlib import Path
from typing import Any

import pandas as pd

from wmbench.evaluation.statistics import wilson
from wmbench.files import write_text
from wmbench.reports.formats import html_of, markdown_of
from wmbench.reports.table import with_interval

HEADING = "Published, not measured here"
CAVEAT = (
    "Cited from papers. Rows of different protocols do not compare, neither with each other nor with rows measured here. "
    "Intervals are Wilson's for the published rate and number of tasks, in whole tasks; no p-value is given, since that "
    "would need the outcome of each task."
)
PAPER_ROW = "DINO patch (DINO-WM)"
WIDEST = 0.2  # of an interval that tells something
RULE = (
    "Consistent: the 95% interval of the observed rate holds the expected one and is at most 0.2 wide. Not consistent: it "
    "does not hold it. Too few tasks to tell: it holds it but is wider, or there are fewer than 16 tasks, of which even a "
    "perfect score leaves a wider one."
)


def load_published() -> pd.DataFrame:
    """Load every cited row, with success_low and success_high (NaN where the number of tasks is unknown)."""
    words = ["table", "protocol", "setting", "planner", "notes"]
    table = pd.read_csv(Path(__file__).with_name("published.csv"), dtype={"n_tasks": "Int64", "table": str})
    table[words] = table[words].fillna("")
    intervals = [
        (float("nan"), float("nan")) if pd.isna(n) else wilson(round(rate * n), int(n))
        for rate, n in zip(table["success"], table["n_tasks"], strict=True)
    ]
    table[["success_low", "success_high"]] = intervals
    return table


def paper_row() -> dict[str, Any]:
    """DINO-WM's own PointMaze number: what a reproduction is to find again."""
    (found,) = (row for row in load_published().to_dict("records") if row["row"] == PAPER_ROW)
    return found


def verdict(expected: float, solved: int, tasks: int) -> str:
    """What `solved` of `tasks` says about an expected rate, by RULE."""
    low, high = wilson(solved, tasks)
    holds = low <= expected <= high
    if 1 - wilson(tasks, tasks)[0] > WIDEST or (holds and high - low > WIDEST):
        return "too few tasks to tell"
    return "consistent with the paper" if holds else "not consistent with the paper"


def add_published(folder: Path) -> None:
    """Write published.csv, and add the cited rows, under their own heading, to table.md and table.html of write_table."""
    write_text(folder / "published.csv", load_published().to_csv(index=False))
    heading = f"<h2>{html.escape(HEADING)}</h2>\n<p>{html.escape(CAVEAT)}</p>\n"
    added = {"table.md": f"\n{published_markdown()}", "table.html": f"{heading}{html_of(_readable(load_published()))}"}
    for name, text in added.items():
        write_text(folder / name, (folder / name).read_text() + text)


def published_markdown() -> str:
    return f"## {HEADING}\n\n{CAVEAT}\n\n{markdown_of(_readable(load_published()))}"


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "row": table["row"],
            "success [95% interval]": with_interval(table),
            "tasks": ["unknown" if pd.isna(n) else str(n) for n in table["n_tasks"]],
            "planner": table["planner"].replace("", "-"),
            "protocol": table["protocol"].replace("", "-"),
            "setting": table["setting"],
            "paper": table["paper"],
            "table": table["table"].replace("", "-"),
            "notes": table["notes"].replace("", "-"),
        }
    )
