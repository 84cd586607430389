"""Results as a table: one row per model, its floors and ceiling with it, every number with what it rests on."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wmbench.evaluation.conditions import in_words, varying
from wmbench.evaluation.results import Result
from wmbench.evaluation.row import BASELINES
from wmbench.evaluation.scores import NAMES
from wmbench.evaluation.statistics import mcnemar
from wmbench.files import write_text
from wmbench.reports.formats import csv_of, html_of, markdown_of

COLUMNS = [
    "row",
    "protocol",
    "success",
    "success_low",
    "success_high",
    "n_tasks",
    "p_vs_best",
    "conditions",
    "settings",
    "differs_in",
    "steps_to_success",
    "final_distance",
    "note",
    "encoder",
    "encoder_name",
    "predictor",
    "recipe",
    "planner",
    "evaluations_per_plan",
    "seconds_per_decision",
    "seconds_per_plan",
    "parameters",
    "position_r2",
    "effective_rank",
    "tasks_hash",
    "task_seed",
    "max_steps",
    "max_rounds",
    "arm",
    "pixels",
    "output",
    "temporal",
    "input_size",
    "cache_dtype",
    "train_seed",
    "seed",
    "step",
    "proprio",
    "encoder_source",
    "weights_hash",
    "data_hash",
    "renderer",
    "image_size",
    "actor",
    "conditions_hash",
    "folder",
]
Group = list[Result]  # of the same conditions, floors and ceiling among them


def make_table(summaries: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows by conditions and falling success; of results that agree in everything that decides them the newest stays.

    p_vs_best: McNemar's exact test against the best trained row under the same conditions; where it is above 0.05 the two
        cannot be told apart.
    conditions: A, B, ...; a floor or ceiling that belongs to several appears once, below them.
    settings: of these conditions, what is not the same in all of the table's.
    differs_in: facts of a row's model, other than its encoder, that are not the same in all rows of these conditions.
    """
    newest = {
        (result.row.hash, result.conditions.hash): result
        for result in sorted(map(Result.of, summaries), key=lambda result: result.finished)
    }
    groups = group_results(list(newest.values()))
    settings = varying([_settings(group) for group in groups])
    letters = [_letter(number) for number in range(len(groups))]
    rows: dict[int, dict[str, Any]] = {}  # by the identity of their results, each where its last group is
    for group, letter, shown in zip(groups, letters, settings, strict=True):
        compared = _compare(group)
        for result in group:
            before = rows.pop(id(result), None)
            named = {"conditions": letter, "settings": in_words(shown)}
            if before:
                named = {"conditions": f"{before['conditions']}, {letter}", "settings": ""}
            rows[id(result)] = _row(result) | named | compared.get(id(result), {})
    of_paths = [name for name in NAMES if name not in COLUMNS and any(name in row for row in rows.values())]
    table = pd.DataFrame(list(rows.values()), columns=[*COLUMNS, *of_paths])
    table["p_vs_best"] = table["p_vs_best"].astype(float)
    return table


def comparisons(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each of a table's conditions."""
    members = [set(letters.split(", ")) for letters in table["conditions"]]
    names = dict.fromkeys(name for letters in table["conditions"] for name in letters.split(", "))
    return [table.loc[[name in letters for letters in members]] for name in names]


def group_results(results: Sequence[Result]) -> list[Group]:
    """Results that may be compared: of the same conditions, as far as they reach each actor.

    Floors and ceiling belong to every group whose settings they share; those that no trained row shares form their own.
    """
    groups: dict[str, Group] = {}
    for result in (result for result in results if not result.row.is_baseline):
        groups.setdefault(result.conditions.hash, []).append(result)
    alone: list[Group] = []
    for baseline in (result for result in results if result.row.is_baseline):
        fitting = [g for g in groups.values() if not baseline.conditions.differences(g[0].conditions)]
        if not fitting:
            fitting = [g for g in alone if not any(baseline.conditions.differences(r.conditions) for r in g)][:1]
        if not fitting:
            alone.append([])
        for group in fitting or alone[-1:]:
            group.append(baseline)

    def place(group: Group) -> tuple[str, str, float]:
        group.sort(key=lambda result: -result.score.success)
        best = next((result for result in group if not result.row.is_baseline), group[0])
        return str(best.conditions.protocol.get("name")), best.conditions.tasks, -best.score.success

    return sorted([*groups.values(), *alone], key=place)


def _compare(group: Group) -> dict[int, dict[str, Any]]:
    """p_vs_best and differs_in of the trained results of a group."""
    trained = [result for result in group if not result.row.is_baseline]
    differing = varying([result.row.facts for result in trained])
    return {
        id(result): {
            "p_vs_best": mcnemar(_outcomes(trained[0].folder), _outcomes(result.folder)),
            "differs_in": in_words(facts),
        }
        for result, facts in zip(trained, differing, strict=True)
    }


def _row(result: Result) -> dict[str, Any]:
    row, conditions = result.row, result.conditions
    planner = conditions.planner or {}
    return result.summary | {
        "folder": result.folder,
        "conditions_hash": conditions.hash,
        "p_vs_best": np.nan,
        "differs_in": "",
        "predictor": row.predictor.get("_target_", "").rpartition(".")[2],
        "recipe": _recipe(row.recipe),
        "task_seed": conditions.protocol.get("task_seed"),
        "max_rounds": conditions.protocol.get("max_rounds"),
        "planner": planner.get("optimizer", planner.get("_target_", "").rpartition(".")[2]),
    }


def _recipe(recipe: Mapping[str, Any]) -> str:
    """`1500 x 64, lr 0.001`: steps, batch and rate."""
    if not {"max_steps", "batch_size", "lr"} <= set(recipe):
        return ""
    return f"{recipe['max_steps']} x {recipe['batch_size']}, lr {recipe['lr']}"


def _settings(group: Group) -> dict[str, Any]:
    """All that the group shares, also what reaches only some of its actors."""
    return {name: value for result in group for name, value in result.conditions.facts.items()}


def _letter(number: int) -> str:
    """A, B, ... Z, A2, B2, ..."""
    round_, letter = divmod(number, 26)
    return chr(ord("A") + letter) + (str(round_ + 1) if round_ else "")


def write_table(table: pd.DataFrame, folder: Path) -> None:
    """Write table.csv with every column, table.md and table.html with those that people read."""
    write_text(folder / "table.csv", csv_of(table))
    write_text(folder / "table.md", to_markdown(table))
    write_text(folder / "table.html", to_html(table))


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table as strings, with units."""
    ranks = table["effective_rank"]
    text = {
        "row": [row if pd.isna(note) or not note else f"{row} ({note})" for row, note in table[["row", "note"]].to_numpy()],
        "success [95% interval]": with_interval(table),
        **_of_paths(table),
        "tasks": table["n_tasks"],
        "p vs best": [_number(p, "{:.3f}") for p in table["p_vs_best"]],
        "steps to success": [_number(x, "{:.1f}") for x in table["steps_to_success"]],
        "final distance [m]": [_number(x, "{:.2f}") for x in table["final_distance"]],
        "planner, evaluations": [
            f"{name}, {evaluations:.0f}" if evaluations > 0 else "-"
            for name, evaluations in zip(table["planner"], table["evaluations_per_plan"], strict=True)
        ],
        "time per decision [ms]": [_number(1000 * x, "{:.1f}") if x else "-" for x in table["seconds_per_decision"]],
        "of it planning [ms]": [_number(1000 * x, "{:.1f}") if x else "-" for x in table["seconds_per_plan"]],
        "parameters": ["-" if pd.isna(x) else f"{x / 1e6:.1f} M" for x in table["parameters"]],
        "position R2": [_number(x, "{:.3f}") for x in table["position_r2"]],
        **({"effective rank": [_number(x, "{:.1f}") for x in ranks]} if bool(ranks.notna().any()) else {}),
        "protocol": [
            _with_budget(*limits) for limits in zip(table["protocol"], table["max_rounds"], table["max_steps"], strict=True)
        ],
        "task set": table["tasks_hash"],
        "task seed": [_number(x, "{}") for x in table["task_seed"]],
        "seed": [_number(x, "{:.0f}") for x in table["train_seed"]],
        "weights": [_number(x, "{}") for x in table["weights_hash"]],
        "renderer": [_number(x, "{}") for x in table["renderer"]],
        "encoder": [_number(x, "{}") for x in table["encoder_name"].fillna(table["encoder"])],
        "predictor": [_number(x, "{}") for x in table["predictor"]],
        "steps x batch, rate": [_number(x, "{}") for x in table["recipe"]],
        "differs in": [_number(x, "{}") for x in table["differs_in"]],
    }
    if len(comparisons(table)) > 1:
        text["conditions"] = [
            f"{letters}: {words}" if words else letters for letters, words in table[["conditions", "settings"]].to_numpy()
        ]
    return pd.DataFrame(text)


def _of_paths(table: pd.DataFrame) -> dict[str, list[str]]:
    """What whole paths tell, in one column, where every row has it."""
    names = [name for name in ("success_0.25", "success_0.1", "held", "spl") if name in table and not table[name].hasnans]
    rows = table[names].to_numpy()
    short = ", ".join(name.removeprefix("success_").replace("spl", "SPL") for name in names)
    return {f"{short} [%]": [", ".join(f"{100 * value:.0f}" for value in row) for row in rows]} if names else {}


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


def missing_baselines(table: pd.DataFrame) -> list[tuple[str, str]]:
    """The floors and ceiling that a set of conditions still lacks, each with the folder of a result that it belongs to."""
    return [
        (name, str(group["folder"].iloc[0]))
        for group in comparisons(table)
        for name in BASELINES
        if name not in set(group["actor"])
    ]


def _outcomes(folder: str) -> np.ndarray:
    return pd.read_csv(Path(folder) / "tasks.csv")["success"].to_numpy(bool)


def _with_budget(protocol: str, max_rounds: Any, max_steps: Any) -> str:
    """A protocol that counts rounds, with their limit: solved tasks stay solved, so a rate grows with it."""
    if not pd.isna(max_rounds):
        return f"{protocol} (rounds <= {max_rounds:.0f})"
    return protocol if not pd.isna(max_steps) else f"{protocol} (rounds without limit)"


def _number(value: Any, form: str) -> str:
    return "-" if value is None or pd.isna(value) or value == "" else form.format(value)
