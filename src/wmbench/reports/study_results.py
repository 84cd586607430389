"""The first parts of a study's report: the answer in a sentence, the table, the contrasts, who can be told from whom."""

from itertools import chain

import numpy as np

from wmbench.evaluation.multiplicity import ENOUGH_SEEDS, MARGIN
from wmbench.reports.document import Bar, Cell, Number, Section, Sheet, Table, Text, plain
from wmbench.reports.study_files import Study, Tally

GAP = ("gap", "gap_low", "gap_high")
INTERVAL = ("success", "success_low", "success_high")
OUTCOMES = {
    "success": "success",
    "success_0.25": "success at a quarter of a metre",
    "success_0.1": "success at a tenth of a metre",
    "held": "goals held at the end",
    "success_short": "success in the smaller budget",
}
SIGNS = {"a > b": " > ", "b > a": " < ", "a = b": " = "}
DECIDED = ("supported", "contradicted")
TABLE_NOTE = (
    "Success: the ball comes within 0.5 m of the goal at least once. Held: it is within 0.5 m at the end. 0.25 m: success "
    "with a goal of half the radius. SPL, path efficiency: success weighted by the length of the shortest path over the "
    "length of the path taken, 1 being perfect. Final distance: from the goal at the end. In brackets the 95% interval, "
    "over training seeds and tasks. Grey rows are no encoders: random actions and doing nothing are floors, the simulator "
    "itself as the model is the ceiling. Every number links to its csv line; a click on a column's head sorts."
)
LETTERS = "Rows that share a letter cannot be told apart at the 5% level, after correction for all the pairs."
CONTRAST_NOTE = (
    "Each line was written down before the test tasks were run. The difference is in percentage points (of distances, in "
    "metres), with its 95% "
    "interval over seeds and tasks (crossed bootstrap); in the picture, grey is the margin within which two rows count as "
    "equally good, and the line in it is no difference. Seeds alone: the interval from the means of the training seeds. "
    "p is corrected for the number of contrasts (Holm). Supported and contradicted are claims; undecided means that the "
    "interval is too wide to say; untested, that a row is missing; no claim, that there are fewer than five training seeds."
)


def answer(study: Study, tally: Tally) -> Section:
    """The answer in a sentence or, where it would be none, why; then what is still missing."""
    section = Section("")
    section.text(*_sentence(study, tally), kind="answer")
    if study.about:
        section.text(study.about, kind="about")
    if spread := _spread(study, tally):
        section.text(*spread)
    if study.cells is not None:
        states = study.cells.frame["state"].astype(str)
        done = tally("cells_done", int((states == "done").sum()), "lines of cells.csv whose state is done")
        planned = tally("cells_planned", len(states), "lines of cells.csv")
        failed = int((states == "failed").sum())
        if done.text != planned.text:
            parts: Text = ["This study is not finished: ", done, " of ", planned, " cells are done"]
            if failed:
                parts = [*parts, ", ", tally("cells_failed", failed, "lines of cells.csv whose state is failed"), " failed"]
            section.text(*parts, ". What follows is what there is so far.", kind="warning")
    return section


def _sentence(study: Study, tally: Tally) -> Text:
    if not study.evaluations or not (learned := study.learned(study.evaluations[0])):
        return ["No answer yet: no row has been evaluated."]
    evaluation = study.evaluations[0]
    indices = [index for row in learned if (index := study.find(row, evaluation)) is not None]
    trained = [index for index in indices if study.table.value(index, "n_seeds")] or indices
    fewest = min(trained, key=lambda index: study.table.frame.at[index, "n_seeds"])
    best = study.find(learned[0], evaluation)
    if best is None:
        return ["No answer yet: no row has its success in the table."]
    seeds, rate = study.table.number(fewest, "n_seeds"), study.table.percent(best, INTERVAL)
    number = tally("rows", len(learned), f"rows of table.csv in {evaluation}, floors and ceiling left out")
    tasks = study.table.number(best, "n_tasks")
    leads = [f"{learned[0]} reached most goals ", "(", *rate, " of ", tasks, " tasks)"]
    if study.table.frame.at[fewest, "n_seeds"] < ENOUGH_SEEDS:
        few = ["No claim: with ", seeds, f" training seed{'' if plain([seeds]) == '1' else 's'} "]
        return [*few, "in some row, fewer than five, training luck can decide. So far, of ", number, " rows, ", *leads, "."]
    head: Text = ["Of ", number, " rows at ", seeds, " or more training seeds, ", *leads]
    if rivals := _sharing(study, evaluation, learned):
        head = [*head, ", but cannot be told apart from ", ", ".join(rivals)]
    return [*head, *_count_verdicts(study, tally), "."]


def _count_verdicts(study: Study, tally: Tally) -> Text:
    verdicts = study.contrasts.frame["verdict"].astype(str)
    if verdicts.empty:
        return []
    decided = tally(
        "decided", int(verdicts.isin(DECIDED).sum()), f"lines of contrasts.csv with verdict {' or '.join(DECIDED)}"
    )
    asked = tally("contrasts", len(verdicts), "lines of contrasts.csv")
    only = "only " if int(decided.text) < len(verdicts) else ""
    return [f"; {only}", decided, " of ", asked, " expected differences can be told from chance"]


def _sharing(study: Study, evaluation: str, learned: list[str]) -> list[str]:
    """Rows with a letter of the best one's."""
    letters = {row: found.text for row in learned if (found := study.letters(row, evaluation))}
    return [row for row in learned[1:] if set(letters.get(row, "")) & set(letters.get(learned[0], ""))]


def _spread(study: Study, tally: Tally) -> Text:
    """How far apart the rows are, in the outcome that separates them most."""
    spreads = []
    for evaluation in study.evaluations:
        for outcome, words in OUTCOMES.items():
            found = [study.find(row, evaluation, outcome) for row in study.learned(evaluation)]
            values = [v for index in found if index is not None and (v := study.table.value(index, "success")) is not None]
            if len(values) > 1:
                spreads.append((max(values) - min(values), f"{words} ({evaluation})"))
    if not spreads:
        return []
    widest, where = max(spreads, key=lambda spread: spread[0])
    rule = f"largest minus smallest success of the learned rows, in {where}"
    number = tally("spread", widest, rule, "{:.1f}", 100)
    verdict = "" if widest >= 0.2 else " That is little: this benchmark hardly separates these rows."
    return ["Where they differ most, in ", where, ", the rows span ", number, f" percentage points.{verdict}"]


def results(study: Study) -> Section:
    section = Section("Results")
    for evaluation in study.evaluations:
        section.blocks.append(main_table(study, evaluation))
    if not study.evaluations:
        section.text("table.csv has no line yet.")
        return section
    section.text(TABLE_NOTE, kind="note")
    if study.pairs is not None:
        section.text(LETTERS, kind="note")
    section.blocks.append(_what_rows_are(study))
    for evaluation in study.evaluations if study.table.has(*GAP) else ():
        if (gaps := _gap_table(study, evaluation)).rows:  # none without a simulator
            section.blocks.append(gaps)
    return section


def _what_rows_are(study: Study) -> Table:
    """What makes a row other than its encoder's plain name, once for all evaluations, since it is long."""
    table, body = study.table, []
    for index in table.frame.drop_duplicates("row").index:
        if table.value(index, "note") is not None:
            note = table.quote(index, "note")
            body.append([Cell([table.quote(index, "row")]), Cell([note], plain([note]), kind="sentence")])
    return Table(["row", "what it is, beside its encoder"], body, "Notes on the rows")


def _gap_table(study: Study, evaluation: str) -> Table:
    """What the simulator itself, as the model under the same planner, would add to each row."""
    body = []
    for row in study.learned(evaluation):
        index = study.find(row, evaluation)
        if index is not None and (value := study.table.value(index, "gap")) is not None:
            low, high = study.table.value(index, "gap_low"), study.table.value(index, "gap_high")
            bar = None if None in (low, high) else Bar(low, value, high, -1, 1, 0)
            body.append([Cell([row], row), Cell(study.table.interval(index, GAP, "{:+.0f}", 100), value, bar)])
    caption = f"Planning gap, evaluation {evaluation}: points of success that perfect predictions would add, same planner"
    return Table(["row", "simulator − row [95%]"], body, caption)


def main_table(study: Study, evaluation: str) -> Table:
    rows = study.rows(evaluation)
    body = [_main_row(study, row, evaluation) for row in rows]
    columns = ["row", "success [95%]", "held", "0.25 m", "SPL", "final distance [m]", "seeds × tasks", "letters"]
    return Table(columns, body, f"Evaluation {evaluation}, best row first", study.quiet(rows))


def _main_row(study: Study, row: str, evaluation: str) -> list[Cell]:
    table, index = study.table, study.find(row, evaluation)
    cells = [Cell([row], row), outcome_cell(study, row, evaluation, "success", has_bar=True)]
    cells += [outcome_cell(study, row, evaluation, name) for name in ("held", "success_0.25", "spl", "final_distance")]
    if index is None:
        return [*cells, Cell(["–"]), Cell(["its success is missing in table.csv"], kind="sentence")]
    seeds, tasks = (table.number(index, name) for name in ("n_seeds", "n_tasks"))
    trained = table.value(index, "n_seeds") or 0  # of a floor or the ceiling, which is not trained, 0
    cells.append(Cell([seeds, " × ", tasks] if trained else [tasks], trained))
    letters = [found] if (found := study.letters(row, evaluation)) else []
    return [*cells, Cell(letters, plain(letters))]


def outcome_cell(study: Study, row: str, evaluation: str, outcome: str, has_bar: bool = False) -> Cell:
    """An outcome of a row with its interval, a share in percent."""
    table, index = study.table, study.find(row, evaluation, outcome)
    if index is None:
        return Cell(["–"])
    value, low, high = (table.value(index, name) for name in INTERVAL)
    text = table.percent(index, INTERVAL) if outcome in OUTCOMES else table.interval(index, INTERVAL, "{:.2f}")
    bar = Bar(low, value, high, 0, 1) if has_bar and None not in (value, low, high) else None
    return Cell(text, "" if value is None else value, bar)


def contrasts(study: Study) -> Section:
    """What was expected before, and what came out."""
    section, sheet = Section("What was expected, and what came out"), study.contrasts
    if sheet.frame.empty:
        section.text("contrasts.csv has no line yet.")
        return section
    columns = ["expectation", "a − b [95%]", "seeds alone", "p (Holm)", "seeds, tasks", "verdict"]
    rows = [_contrast(study, index) for index in range(len(sheet.frame))]
    section.blocks.append(Table(columns, rows, "Contrasts that were written down before running"))
    section.text(CONTRAST_NOTE, kind="note")
    for _, alike in sheet.frame.groupby("power", sort=False) if sheet.has("power") else ():
        pairs = [[", ", sheet.quote(index, "a"), " and ", sheet.quote(index, "b")] for index in alike.index]
        section.text("Power", *chain(*pairs), ": ", sheet.quote(int(alike.index[0]), "power"), kind="note")
    return section


def _contrast(study: Study, index: int) -> list[Cell]:
    sheet = study.contrasts
    p_value, verdict = sheet.value(index, "p_holm"), str(sheet.value(index, "verdict"))
    tiny = p_value is not None and p_value < 0.001
    p_text = Number("<0.001", sheet.name, index + 2, "p_holm") if tiny else sheet.number(index, "p_holm", "{:.3f}")
    seeds = [
        part
        for side in ("a", "b")
        if sheet.value(index, f"n_seeds_{side}")
        for part in (", ", sheet.number(index, f"n_seeds_{side}"))
    ]
    counts: Text = [*seeds[1:], " × " if seeds else "", sheet.number(index, "n_tasks")]
    reason = [": ", sheet.quote(index, "reason")] if sheet.value(index, "reason") is not None else []
    return [
        _expectation(sheet, index),
        *_difference(sheet, index),
        Cell([p_text], "" if p_value is None else p_value),
        Cell(counts, sheet.value(index, "n_tasks") or 0),
        Cell([sheet.quote(index, "verdict"), *reason], verdict, kind=verdict),
    ]


def _expectation(sheet: Sheet, index: int) -> Cell:
    question = next((name for name in ("question", "expectation", "text") if sheet.value(index, name) is not None), "name")
    sign = SIGNS.get(str(sheet.value(index, "expect")), ", ")
    names = ("evaluation", "b_evaluation", "outcome")
    where = ", ".join(str(found) for name in names if (found := sheet.value(index, name)) is not None)
    colon = " " if str(sheet.value(index, question)).endswith("?") else ": "
    text: Text = [sheet.quote(index, question), colon, sheet.quote(index, "a"), sign, sheet.quote(index, "b")]
    return Cell([*text, f" ({where})"] if where else text, str(sheet.value(index, question)), kind="sentence")


def _difference(sheet: Sheet, index: int) -> tuple[Cell, Cell]:
    """The difference with its picture, and the interval of the seeds alone: in points of a share, else in metres."""
    value, low, high = (sheet.value(index, name) for name in ("difference", "low", "high"))
    outcome = str(sheet.value(index, "outcome"))
    form, scale, unit = ("{:+.2f}", 1, " m") if outcome == "final_distance" else ("{:+.1f}", 100, "")
    if outcome == "log_final_distance":
        form, scale, unit = "{:+.2f}", 1, " log m"
    alike = sheet.frame.loc[sheet.frame["outcome"] == outcome, ["low", "high"]].abs().to_numpy(float)
    limit = float(np.nanmax([0.1, *alike.ravel()]))  # all contrasts of an outcome share an axis
    margin = sheet.value(index, "margin") or MARGIN
    bar = None if None in (value, low, high) else Bar(low, value, high, -limit, limit, margin)
    alone = [sheet.number(index, name, form, scale) for name in ("t_low", "t_high")]
    return (
        Cell(sheet.interval(index, ("difference", "low", "high"), form, scale, unit), "" if value is None else value, bar),
        Cell(["–"] if "–" in alone else ["[", alone[0], ", ", alone[1], "]"]),
    )
