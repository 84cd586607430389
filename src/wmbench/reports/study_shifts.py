"""What other pictures cost each row: success against its own on clean ones, by setting, and against the scale of change."""

from pathlib import Path
from typing import Any

import pandas as pd

from wmbench.evaluation.row import BASELINES
from wmbench.reports.document import Bar, Cell, Frame, Picture, Section, Sheet, Table, Text
from wmbench.reports.study_curves import BAND
from wmbench.reports.study_figures import draw_curves
from wmbench.reports.study_files import Study
from wmbench.reports.study_results import INTERVAL

SETTINGS = {
    "clean to shifted": "the predictor has never seen such pictures, so this asks what the encoder keeps by itself",
    "varied to varied, in range": "trained on pictures that vary as these do, and as far or farther",
    "varied to varied, out of range": "trained on pictures that vary in other things, or less than these",
}
LOSS, AREA = ("difference", "low", "high"), ("area", "low", "high")
MOST = 6  # evaluations in a table; with the row and clean pictures it then has eight columns
FROM_TABLE, FROM_AREAS = ["row", "evaluation", "x", "success", "low", "high"], ["trained_on", "against", "factors", "goals"]
NOTE = (
    "In each cell success, then its difference in percentage points to what the same training runs reached in the same "
    "tasks on clean pictures, with the 95% interval of that paired difference; in the picture the line is no difference. "
    "Grey rows see no pictures and must not move, nor must one of the true state; where no task changed, the interval says "
    "what so many tasks cannot rule out. Rows are in the order of their success on clean pictures: who solves little there "
    "cannot lose much."
)
CURVE_NOTE = (
    "The scale s says how far everything may differ (docs/appearance.md); at its left end are clean pictures. The area "
    "below a curve is the mean success over s, from clean pictures to the largest s played."
)


def shifts(study: Study, pictures: Path) -> tuple[list[Section], list[Sheet]]:
    """The part on other pictures; nothing where all evaluations show the same ones."""
    if study.shifts is None:
        return [], []
    if not study.shifts.has("against"):
        raise ValueError("shifts.csv lacks the column against; python study.py writes it again")
    section, sheet, frame = Section("What do other pictures cost?"), study.shifts, study.shifts.frame
    section.text("Three settings, which are never mixed in a table:")
    for setting, meaning in SETTINGS.items():
        rows = ", ".join(dict.fromkeys(frame.loc[frame["setting"] == setting, "row"]))
        section.text(f"{setting}: {meaning}. Rows: {rows or 'none'}.")
    for against in dict.fromkeys(frame["against"]):
        for setting in SETTINGS:
            section.blocks += _tables(study, sheet, str(against), setting)
    section.text(*_legend(sheet), kind="note")
    section.text(NOTE, kind="note")
    if study.areas is None:
        return [section], []
    curve = scales_sheet(study, sheet, study.areas)
    section.blocks += [*_pictures(study, curve.frame, pictures), _areas(study, study.areas)]
    section.text(CURVE_NOTE, kind="note")
    return [section], [curve]


def _tables(study: Study, sheet: Sheet, against: str, setting: str) -> list[Table]:
    """Rows of one setting, and those who see nothing: factors of several evaluations first, then those of one."""
    frame: Frame = sheet.frame[sheet.frame["against"] == against]
    shown: Frame = frame[frame["setting"] == setting]
    number = frame.groupby("factors")["evaluation"].nunique()
    tables = []
    for is_several in (True, False):
        part = shown[shown["factors"].map(number).gt(1) == is_several]
        evaluations = list(dict.fromkeys(part["evaluation"]))
        for first in range(0, len(evaluations), MOST):
            some = evaluations[first : first + MOST]
            lines = frame[frame["evaluation"].isin(some) & (frame["row"].isin(part["row"]) | frame["row"].isin(BASELINES))]
            factors = ", ".join(dict.fromkeys(part.loc[part["evaluation"].isin(some), "factors"]))
            caption = f"{setting.capitalize()}: {factors}, against evaluation {against}"
            tables.append(_table(study, sheet, lines, some, caption))
    return tables


def _table(study: Study, sheet: Sheet, lines: Frame, evaluations: list[str], caption: str) -> Table:
    """Rows in the order of their success on clean pictures."""
    rows = list(lines.sort_values("clean", ascending=False, kind="stable")["row"].unique())
    limit = max(0.1, float(lines[["low", "high"]].abs().to_numpy().max()))
    body = []
    for row in rows:
        places = {str(lines.at[k, "evaluation"]): int(k) for k in lines.index[lines["row"] == row]}
        first = next(iter(places.values()))
        clean = Cell([sheet.number(first, "clean", "{:.0f}", 100), "%"], sheet.value(first, "clean"))
        body.append([Cell([row], row), clean, *(_loss(sheet, places.get(name), limit) for name in evaluations)])
    return Table(["row", "clean", *evaluations], body, caption, study.quiet(rows))


def _loss(sheet: Sheet, index: int | None, limit: float) -> Cell:
    if index is None:
        return Cell(["–"])
    low, value, high = (sheet.value(index, name) for name in ("low", "difference", "high"))
    success: Text = [sheet.number(index, "success", "{:.0f}", 100), "%, "]
    return Cell([*success, *sheet.interval(index, LOSS, "{:+.0f}", 100)], value, Bar(low, value, high, -limit, limit, 0))


def _legend(sheet: Sheet) -> Text:
    """What each evaluation shows."""
    parts: list[Any] = []
    for k in map(int, sheet.frame.drop_duplicates("evaluation").index):
        what = [sheet.quote(k, "factors"), " at s = ", sheet.number(k, "s", "{:.10g}"), ", goals ", sheet.quote(k, "goals")]
        parts += ["; ", sheet.quote(k, "evaluation"), ": ", *what]
    return [*parts[1:], "."]


def scales_sheet(study: Study, shifts: Sheet, areas: Sheet) -> Sheet:
    """Success of each row of areas.csv at every scale, from table.csv. x: s, and 0 for clean pictures."""
    points = []
    for area in areas.frame.to_dict("records"):
        facts = {name: area[name] for name in FROM_AREAS}
        for evaluation, scale in _evaluations(shifts.frame, area):
            if (index := study.find(area["row"], evaluation)) is not None:
                estimate = [study.table.value(index, name) for name in INTERVAL]
                points.append(dict(zip(FROM_TABLE, [area["row"], evaluation, scale, *estimate], strict=True)) | facts)
    return Sheet("scales.csv", pd.DataFrame(points, columns=[*FROM_TABLE, *FROM_AREAS]))


def _evaluations(frame: Frame, area: dict[str, Any]) -> list[tuple[str, float]]:
    """The evaluations of a curve with their scales, clean pictures first."""
    alike = (frame[["row", "against", "factors"]] == [area["row"], area["against"], area["factors"]]).all(axis=1)
    goals = frame["goals"].astype(str)
    alike &= (goals == area["goals"]) | goals.str.startswith(f"{area['goals']} ")  # `lit` is `lit 0.1` at another scale
    shown: Frame = frame[alike].sort_values("s")
    return [(str(area["against"]), 0.0), *zip(shown["evaluation"].astype(str), shown["s"].astype(float), strict=True)]


def _pictures(study: Study, curve: Frame, pictures: Path) -> list[Picture]:
    """A picture for each collection that rows were trained on: settings change along the curve of a varied one."""
    shown = []
    for number, (kind, part) in enumerate(curve.groupby(["against", "factors", "goals"], sort=False)):
        against, factors, goals = map(str, kind)
        for k, (trained, own) in enumerate(part.dropna(subset="trained_on").groupby("trained_on", sort=False)):
            rows = [row for row in study.rows(against) if row in set(own["row"])]
            path = pictures / f"scale_{number}_{k}.png"
            draw_curves(path, pd.concat([own, part[part["trained_on"].isna()]]), rows, "scale s of what looks different")
            what = f"of rows trained on {_kind_of(str(trained))} pictures against the scale of {factors}, goals {goals}"
            caption = f"Success {what} (scales.csv). {BAND}"
            shown.append(Picture(path, f"Success {what}; the numbers are in scales.csv", caption))
    return shown


def _kind_of(trained_on: str) -> str:
    return "clean" if trained_on == "clean" else f"varied ({trained_on.partition(' ')[0]})"


def _areas(study: Study, sheet: Sheet) -> Table:
    """Area below each curve, in shares of its width."""
    body = []
    for k in range(len(sheet.frame)):
        low, value, high = (sheet.value(k, name) for name in ("low", "area", "high"))
        area = Cell(sheet.percent(k, AREA), value, Bar(low, value, high, 0, 1))
        clean = Cell([sheet.number(k, "clean", "{:.0f}", 100), "%"], sheet.value(k, "clean"))
        told = [Cell([sheet.quote(k, name)], str(sheet.value(k, name))) for name in ("trained_on", "factors", "goals")]
        largest = Cell([sheet.number(k, "largest_s", "{:.10g}")], sheet.value(k, "largest_s"))
        body.append([Cell([row := str(sheet.value(k, "row"))], row), *told, largest, clean, area])
    columns = ["row", "trained on", "pictures", "goals", "largest s", "clean", "area [95%]"]
    quiet = study.quiet([str(row) for row in sheet.frame["row"]])
    return Table(columns, body, "Area below success against s, as a share", quiet)
