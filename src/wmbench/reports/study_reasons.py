"""Why rows differ: distance against dynamics, what each diagnostic says, and which of them goes with success."""

from pathlib import Path
from typing import Any

import pandas as pd

from wmbench.diagnostics.predictors import predictors_of_success
from wmbench.files import parse_json, regular
from wmbench.reports.document import Bar, Cell, Picture, Section, Sheet, Table
from wmbench.reports.study_files import Study
from wmbench.runs.find import planned_run

COLUMNS = ["row", "run", "part", "name", "value", "low", "high"]
SQUARE = {  # columns of the 2 x 2: names in the part two_by_two of diagnostics.json
    "true dynamics, own distance": "success_true_latent",
    "true dynamics, position probe": "success_true_probe",
    "learned dynamics, own distance": "success_learned_latent",
    "learned dynamics, position probe": "success_learned_probe",
    "true dynamics, true distance": "success_ceiling",
}
APART = 0.1  # of success, from which on one of the two is named as what limits a row
SQUARE_TEXT = (
    "A planner can fail because its distance misleads it or because its predictions do. Here each is replaced by the truth "
    "in turn: the simulator instead of the learned dynamics, and the distance between positions, read by a linear probe, "
    "instead of the distance between latents (the encoder's own numbers for an image). If the own distance fails even under "
    "true dynamics, the distance is at fault; if the probe fails only under learned dynamics, the predictions are."
)
NOT_MEASURED = "No diagnostics.json is there yet; python scripts/diagnose.py model_name=RUN writes one into a run."
TELLING = {  # the number of each part to show; of another part its first
    *("copy_ratio_1", "position_predicted_1", "spearman_geodesic", "effective_rank", "spearman_distance_all", "optimism")
}
SHOWN = 7  # diagnostics in the table; diagnostics.csv has all


def reasons(study: Study) -> tuple[list[Section], list[Sheet]]:
    runs = {row: runs for row in _all_rows(study) if (runs := _runs(study, row))}
    sheet = diagnostics_sheet(runs)
    if sheet.frame.empty:
        section = Section("Why?")
        section.text(NOT_MEASURED)
        return [section], []
    square = _square_sheet(sheet)
    table = Section("What the diagnostics say")
    table.blocks.append(_diagnostics_table(sheet))
    table.text("All of them, of every run, are in diagnostics.csv; docs/diagnostics.md says what each means.", kind="note")
    predictors = predictors_sheet(study, sheet)
    return [_square(square), table, _predictors(predictors), *_landscapes(runs)], [sheet, square, predictors]


def _all_rows(study: Study) -> list[str]:
    return list(dict.fromkeys(row for evaluation in study.evaluations for row in study.learned(evaluation)))


def _runs(study: Study, row: str) -> list[Path]:
    """Runs behind a row's results, of those that are still there."""
    found: dict[Path, None] = {}
    for evaluation in study.evaluations:
        for folder in study.folders(row, evaluation):
            try:
                found[planned_run(folder)] = None
            except Exception:  # a run that was moved costs its diagnostics, not the report
                continue
    return list(found)


def diagnostics_sheet(runs: dict[str, list[Path]]) -> Sheet:
    """diagnostics.csv: every number of every run's diagnostics.json, with its interval where it has one."""
    rows = []
    for row, folders in runs.items():
        for run in folders:
            for part, values in _read(run / "diagnostics.json").items():
                rows += [[row, run.name, part, *found] for found in _numbers(values)]
    return Sheet("diagnostics.csv", pd.DataFrame(rows, columns=COLUMNS))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(regular(path).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _numbers(values: Any) -> list[list[Any]]:
    """Name, value and ends of the interval of each number in a part."""
    if not isinstance(values, dict):
        return []
    return [
        [name, float(value), values.get(f"{name}_low"), values.get(f"{name}_high")]
        for name, value in values.items()
        if isinstance(value, int | float) and not name.endswith(("_low", "_high"))
    ]


def _means(sheet: Sheet) -> pd.DataFrame:
    """Means over a row's runs: a line for each row, a column for each diagnostic."""
    names = sheet.frame["part"] + "." + sheet.frame["name"]
    means = sheet.frame.assign(name=names).pivot_table(index="row", columns="name", values="value", sort=False)
    return means.reset_index()


def _square_sheet(sheet: Sheet) -> Sheet:
    """two_by_two.csv: success of each row's four planners, and which of the two replacements helps more."""
    means = _means(Sheet(sheet.name, sheet.frame[sheet.frame["part"] == "two_by_two"]))
    means.columns = [str(name).removeprefix("two_by_two.") for name in means.columns]
    frame = means.reindex(columns=["row", *SQUARE.values()])
    cells = frame[list(SQUARE.values())[:4]].to_numpy(float).tolist()
    return Sheet("two_by_two.csv", frame.assign(limit=[_limit(*row) for row in cells]))


def _limit(true_latent: float, true_probe: float, learned_latent: float, learned_probe: float) -> str:
    distance, dynamics = true_probe - true_latent, true_probe - learned_probe
    if not max(distance, dynamics) >= APART:
        return "neither" if distance == distance and dynamics == dynamics else "not known"
    return "distance" if distance > dynamics else "dynamics"


def _square(sheet: Sheet) -> Section:
    section = Section("Is it the distance, or the dynamics?")
    section.text(SQUARE_TEXT)
    if sheet.frame.empty:
        section.text("No run has this part of its diagnostics yet.")
        return section
    body = []
    for index, row in enumerate(sheet.frame["row"]):
        cells = [Cell([row], row)]
        for name in SQUARE.values():
            value = sheet.value(index, name)
            bar = None if value is None else Bar(value, value, value, 0, 1)
            cells.append(Cell([sheet.number(index, name, "{:.0f}", 100)], "" if value is None else float(value), bar))
        body.append([*cells, Cell([sheet.quote(index, "limit")], str(sheet.value(index, "limit")))])
    section.blocks.append(Table(["row", *SQUARE, "what limits it"], body, "Success [%] with parts replaced by the truth"))
    section.text(
        "What limits it: the replacement that helps more, starting from true dynamics and the probe, if it makes at least "
        "ten percentage points; else neither.",
        kind="note",
    )
    return section


def _diagnostics_table(sheet: Sheet) -> Table:
    """One diagnostic of each part, each number linked to the first run's line where a row has one run."""
    names = list(dict.fromkeys(zip(sheet.frame["part"], sheet.frame["name"], strict=True)))
    parts = list(dict.fromkeys(part for part, _ in names if part != "two_by_two"))
    told = sorted(names, key=lambda name: name[1] not in TELLING)  # the telling ones first
    shown = [next(name for name in told if name[0] == part) for part in parts][:SHOWN]
    body = []
    for row in dict.fromkeys(sheet.frame["row"]):
        cells = [Cell([row], row)]
        for part, name in shown:
            is_it = (sheet.frame["row"] == row) & (sheet.frame["part"] == part) & (sheet.frame["name"] == name)
            lines = sheet.frame.index[is_it]
            value = sheet.value(int(lines[0]), "value") if len(lines) else None
            text = "–" if value is None else sheet.number(int(lines[0]), "value", "{:.3g}")
            cells.append(Cell([text], "" if value is None else float(value)))
        body.append(cells)
    return Table(["row", *(f"{part}: {name}" for part, name in shown)], body, "Diagnostics of each row's first run")


def predictors_sheet(study: Study, sheet: Sheet) -> Sheet:
    """predictors.csv: how well each diagnostic orders the rows as their success does; the 2 x 2 is success itself."""
    means = _means(Sheet(sheet.name, sheet.frame[sheet.frame["part"] != "two_by_two"])).set_index("row")
    rows = [row for row in means.index if study.success(row, study.evaluations[0]) >= 0]
    known = [{str(name): float(value) for name, value in means.loc[row].dropna().items()} for row in rows]
    success = [study.success(row, study.evaluations[0]) for row in rows]
    return Sheet("predictors.csv", predictors_of_success(known, success))


def _predictors(sheet: Sheet) -> Section:
    section = Section("Which diagnostic goes with success?")
    if sheet.frame.empty:
        section.text("There are too few rows with diagnostics to say.")
        return section
    section.text(
        "Spearman correlation over the rows: 1 means that the diagnostic orders the rows exactly as their success does, "
        "−1 the other way round, 0 that it says nothing. The interval comes from drawing the rows again; where it holds 0, "
        "nothing can be said. With so many diagnostics tried at once, one that stands out alone may do so by chance."
    )
    body = []
    for index in range(min(len(sheet.frame), 2 * SHOWN)):
        value, low, high = (sheet.value(index, name) for name in ("spearman", "low", "high"))
        bar = None if None in (value, low, high) else Bar(low, value, high, -1, 1, 0)
        correlation = Cell(
            sheet.interval(index, ("spearman", "low", "high"), "{:+.2f}"), "" if value is None else value, bar
        )
        name = Cell([sheet.quote(index, "diagnostic")], str(sheet.value(index, "diagnostic")))
        body.append([name, correlation, Cell([sheet.number(index, "rows")], sheet.value(index, "rows"))])
    section.blocks.append(
        Table(["diagnostic", "correlation [95%]", "rows"], body, "Strongest first; predictors.csv has all")
    )
    return section


def _landscapes(runs: dict[str, list[Path]]) -> list[Section]:
    section = Section("The cost as a landscape")
    for row, folders in runs.items():
        for path in sorted(folders[0].glob("*landscape*.png"))[:1]:
            alt = f"Map of the maze coloured by the cost of {row} at each place"
            section.blocks.append(Picture(path, alt, f"{row}: the cost of being at each place, for a few goals"))
    return [section] if section.blocks else []
