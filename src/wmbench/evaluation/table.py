"""Results as a table: one row a model, floors and ceiling beside them, every number with what it rests on."""

import html
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wmbench.evaluation.statistics import mcnemar

BASELINES = ("random", "zero", "simulator")  # floors and ceiling of every table

COLUMNS = [
    "row",
    "protocol",
    "success",
    "success_low",
    "success_high",
    "n_tasks",
    "p_vs_best",
    "steps_to_success",
    "final_distance",
    "note",
    "planner",
    "evaluations_per_plan",
    "seconds_per_plan",
    "parameters",
    "position_r2",
    "tasks_hash",
    "task_seed",
    "max_steps",
    "max_rounds",
    "train_seed",
    "seed",
    "step",
    "proprio",
    "weights_hash",
    "data_hash",
    "renderer",
    "image_size",
    "folder",
]


def make_table(summaries: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows by protocol and falling success; of results that agree in everything that decides them the newest stays.

    p_vs_best: McNemar's exact test against the best trained row on the same tasks; where it is above 0.05 the two cannot be
    told apart.
    """
    newest = {_identity(summary): summary for summary in summaries}
    if not newest:
        return pd.DataFrame(columns=COLUMNS)
    table = pd.DataFrame([_row(summary) for summary in newest.values()], columns=COLUMNS)
    table["p_vs_best"] = table["p_vs_best"].astype(float)
    for _, group in table.groupby(["protocol", "tasks_hash", "max_steps"]):
        trained = group[~group["row"].isin(BASELINES)]
        if len(trained):
            best = _outcomes(list(trained["folder"])[int(np.argmax(trained["success"]))])
            for index in trained.index:
                table.loc[index, "p_vs_best"] = mcnemar(best, _outcomes(table.loc[index, "folder"]))
    return table.sort_values(["protocol", "tasks_hash", "success"], ascending=[True, True, False], ignore_index=True)


def write_table(table: pd.DataFrame, folder: Path) -> None:
    """table.csv with every column, table.md and table.html with those that people read."""
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "table.csv", index=False)
    (folder / "table.md").write_text(to_markdown(table))
    (folder / "table.html").write_text(to_html(table))


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table as strings, with units."""
    return pd.DataFrame(
        {
            "row": [
                row if pd.isna(note) or not note else f"{row} ({note})" for row, note in table[["row", "note"]].to_numpy()
            ],
            "success [95% interval]": with_interval(table),
            "tasks": table["n_tasks"],
            "p vs best": [_number(p, "{:.3f}") for p in table["p_vs_best"]],
            "steps to success": [_number(x, "{:.1f}") for x in table["steps_to_success"]],
            "final distance [m]": [_number(x, "{:.2f}") for x in table["final_distance"]],
            "planner, evaluations": [
                f"{name}, {evaluations:.0f}" if evaluations > 0 else "-"
                for name, evaluations in zip(table["planner"], table["evaluations_per_plan"], strict=True)
            ],
            "time per plan [ms]": [_number(1000 * x, "{:.1f}") if x else "-" for x in table["seconds_per_plan"]],
            "parameters": ["-" if pd.isna(x) else f"{x / 1e6:.1f} M" for x in table["parameters"]],
            "position R2": [_number(x, "{:.3f}") for x in table["position_r2"]],
            "protocol": [
                _with_budget(*limits)
                for limits in zip(table["protocol"], table["max_rounds"], table["max_steps"], strict=True)
            ],
            "task set": table["tasks_hash"],
            "task seed": table["task_seed"],
            "seed": [_number(x, "{:.0f}") for x in table["train_seed"]],
            "weights": [_number(x, "{}") for x in table["weights_hash"]],
            "renderer": [_number(x, "{}") for x in table["renderer"]],
        }
    )


def with_interval(table: pd.DataFrame) -> list[str]:
    """`98.0% [89.5, 99.6]`, or `98.0%` where a row has no interval."""
    return [
        f"{100 * rate:.1f}%" + ("" if pd.isna(low) else f" [{100 * low:.1f}, {100 * high:.1f}]")
        for rate, low, high in zip(table["success"], table["success_low"], table["success_high"], strict=True)
    ]


def to_markdown(table: pd.DataFrame) -> str:
    return markdown_of(readable(table))


def to_html(table: pd.DataFrame) -> str:
    return html_of(readable(table))


def markdown_of(text: pd.DataFrame) -> str:
    """A table of strings and whole numbers as Markdown."""
    lines = ["| " + " | ".join(text.columns) + " |", "| " + " | ".join("---" for _ in text.columns) + " |"]
    lines += ["| " + " | ".join(str(value) for value in row) + " |" for row in text.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def html_of(text: pd.DataFrame) -> str:
    """The same as HTML, floors and ceiling marked by a class."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in text.columns)
    body = "".join(
        f"<tr{' class=baseline' if row[0] in BASELINES else ''}>"
        + "".join(f"<td>{html.escape(str(v))}</td>" for v in row)
        + "</tr>"
        for row in text.itertuples(index=False)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>\n"


def missing_baselines(table: pd.DataFrame) -> list[str]:
    """Commands that would add the floors and ceiling that a task set still lacks."""
    return [
        f"python plan.py model_name={name} protocol={group['protocol'].iloc[0]}"
        for _, group in table.groupby("tasks_hash")
        for name in BASELINES
        if name not in set(group["row"])
    ]


def _row(summary: dict[str, Any]) -> dict[str, Any]:
    protocol, planner = summary["settings"]["protocol"], summary["settings"].get("planner", {})
    return summary | {
        "task_seed": protocol["task_seed"],
        "max_rounds": protocol["max_rounds"],
        "planner": planner.get("optimizer", planner.get("_target_", "").rpartition(".")[2]),
        "p_vs_best": np.nan,
    }


def _identity(summary: dict[str, Any]) -> str:
    """What decides a result. Floors do not depend on planner and agent."""
    settings = dict(summary["settings"])
    if summary["row"] in ("random", "zero"):
        settings = {"protocol": settings["protocol"]}
    deciding = [summary.get(k) for k in ("row", "note", "tasks_hash", "seed", "step", "weights_hash")]
    return json.dumps([deciding, settings], sort_keys=True)


def _outcomes(folder: str) -> np.ndarray:
    return pd.read_csv(Path(folder) / "tasks.csv")["success"].to_numpy(bool)


def _with_budget(protocol: str, max_rounds: Any, max_steps: Any) -> str:
    """A protocol that counts rounds, with their limit: solved tasks stay solved, so a rate grows with it."""
    if not pd.isna(max_rounds):
        return f"{protocol} (rounds <= {max_rounds:.0f})"
    return protocol if not pd.isna(max_steps) else f"{protocol} (rounds without limit)"


def _number(value: Any, form: str) -> str:
    return "-" if value is None or pd.isna(value) else form.format(value)
