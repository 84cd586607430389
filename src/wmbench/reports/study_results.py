"""The first parts of a study's report: the answer in a sentence, the table, the contrasts, who can be told from whom."""

from wmbench.evaluation.row import BASELINES
from wmbench.reports.document import Bar, Cell, Number, Section, Table, Text, plain
from wmbench.reports.study_files import MARGIN, MINIMUM_SEEDS, Study, Tally

INTERVAL = ("success", "success_low", "success_high")
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
    "Each line was written down before the test tasks were run. The difference is in percentage points, with its 95% "
    "interval over seeds and tasks (crossed bootstrap); in the picture, grey is the margin within which two rows count as "
    "equally good, and the line in it is no difference. Seeds alone: the interval from the means of the training seeds. "
    "p is corrected for the number of contrasts (Holm). Supported and contradicted are claims; undecided means that the "
    "interval is too wide to say; untested, that a row is missing; no claim, that there are fewer than five training seeds."
)


def answer(study: Study, tally: Tally) -> Section:
    """The answer in a sentence or, where it would be none, why; then what is still missing."""
    section = Section("")
    section.text(*_sentence(study, tally), kind="answer")
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
    fewest = min(indices, key=lambda index: study.table.frame.at[index, "n_seeds"])
    best = study.find(learned[0], evaluation)
    if best is None:
        return ["No answer yet: no row has its success in the table."]
    seeds, rate = study.table.number(fewest, "n_seeds"), study.table.interval(best, INTERVAL, "{:.0f}", 100, "%")
    number = tally("rows", len(learned), f"rows of table.csv in {evaluation}, floors and ceiling left out")
    tasks = study.table.number(best, "n_tasks")
    leads = [f"{learned[0]} reached most goals ", "(", *rate, " of ", tasks, " tasks)"]
    if study.table.frame.at[fewest, "n_seeds"] < MINIMUM_SEEDS:
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
    letters = {
        row: str(study.table.value(index, "letters") or "")
        for row in learned
        if (index := study.find(row, evaluation)) is not None
    }
    return [row for row in learned[1:] if set(letters.get(row, "")) & set(letters.get(learned[0], ""))]


def _spread(study: Study, tally: Tally) -> Text:
    """How far apart the rows are, in the outcome that separates them most."""
    spreads = []
    for evaluation in study.evaluations:
        for outcome, radius, words in OUTCOMES:
            found = [study.find(row, evaluation, outcome, radius) for row in study.learned(evaluation)]
            values = [v for index in found if index is not None and (v := study.table.value(index, "success")) is not None]
            if len(values) > 1:
                spreads.append((max(values) - min(values), f"{words} ({evaluation})"))
    if not spreads:
        return []
    widest, where = max(spreads)
    rule = f"largest minus smallest success of the learned rows, in {where}"
    number = tally("spread", widest, rule, "{:.1f}", 100)
    verdict = "" if widest >= 0.2 else " That is little: this benchmark hardly separates these rows."
    return ["Where they differ most, in ", where, ", the rows span ", number, f" percentage points.{verdict}"]


OUTCOMES = (
    ("success", 0.5, "success"),
    ("success", 0.25, "success at a quarter of a metre"),
    ("success", 0.1, "success at a tenth of a metre"),
    ("held", 0.5, "goals held at the end"),
)


def results(study: Study) -> Section:
    section = Section("Results")
    for evaluation in study.evaluations:
        section.blocks.append(main_table(study, evaluation))
    if not study.evaluations:
        section.text("table.csv has no line yet.")
    section.text(TABLE_NOTE, kind="note")
    if study.table.has("letters"):
        section.text(LETTERS, kind="note")
    return section


def main_table(study: Study, evaluation: str) -> Table:
    rows, quiet = study.rows(evaluation), set()
    body = []
    for number, row in enumerate(rows):
        if row in BASELINES:
            quiet.add(number)
        body.append(_main_row(study, row, evaluation))
    last = "letters, note" if study.table.has("letters") else "note"
    columns = ["row", "success [95%]", "held", "0.25 m", "SPL", "final distance [m]", "seeds × tasks", last]
    return Table(columns, body, f"Evaluation {evaluation}, best row first", frozenset(quiet))


def _main_row(study: Study, row: str, evaluation: str) -> list[Cell]:
    table = study.table
    index = study.find(row, evaluation)
    if index is None:
        return [
            Cell([row], row),
            *(Cell(["–"]) for _ in range(6)),
            Cell(["success is missing in table.csv"], kind="sentence"),
        ]
    value, low, high = (table.value(index, name) for name in INTERVAL)
    bar = Bar(low, value, high, 0, 1) if None not in (value, low, high) else None
    cells = [
        Cell([table.quote(index, "row")], row),
        Cell(table.interval(index, INTERVAL, "{:.0f}", 100, "%"), _sortable(value), bar),
    ]
    for outcome, radius in (("held", 0.5), ("success", 0.25)):
        other = study.find(row, evaluation, outcome, radius)
        text = [] if other is None else table.interval(other, INTERVAL, "{:.0f}", 100, "%")
        cells.append(Cell(text or ["–"], "" if other is None else _sortable(table.value(other, "success"))))
    for name in ("spl", "final_distance"):
        cells.append(Cell([table.number(index, name, "{:.2f}")], _sortable(table.value(index, name))))
    seeds, tasks = table.number(index, "n_seeds"), table.number(index, "n_tasks")
    cells.append(Cell([seeds, " × ", tasks], _sortable(table.value(index, "n_seeds"))))
    remarks = [table.quote(index, name) for name in ("letters", "note") if table.value(index, name) is not None]
    text = [part for remark in remarks for part in (", ", remark)][1:]
    return [*cells, Cell(text or [""], plain(text), kind="sentence")]


def _sortable(value: float | None) -> float | str:
    return "" if value is None else float(value)


def contrasts(study: Study) -> Section:
    """What was expected before, and what came out."""
    section, sheet = Section("What was expected, and what came out"), study.contrasts
    if sheet.frame.empty:
        section.text("contrasts.csv has no line yet.")
        return section
    ends = sheet.frame[["low", "high"]].abs().to_numpy(float)
    limit = max(0.1, float(ends[ends == ends].max(initial=0)))
    columns = ["expectation", "a − b, points [95%]", "seeds alone", "p (Holm)", "seeds, tasks", "verdict"]
    rows = [_contrast(study, index, limit) for index in range(len(sheet.frame))]
    section.blocks.append(Table(columns, rows, "Contrasts that were written down before running"))
    section.text(CONTRAST_NOTE, kind="note")
    for power in dict.fromkeys(sheet.frame["power"].dropna()) if sheet.has("power") else ():
        section.text("Power: ", sheet.quote(int(sheet.frame.index[sheet.frame["power"] == power][0]), "power"), kind="note")
    return section


def _contrast(study: Study, index: int, limit: float) -> list[Cell]:
    sheet = study.contrasts
    value, low, high = (sheet.value(index, name) for name in ("difference", "low", "high"))
    margin = sheet.value(index, "margin") or MARGIN
    bar = None if None in (value, low, high) else Bar(low, value, high, -limit, limit, margin)
    question = next((name for name in ("question", "expectation", "text") if sheet.value(index, name) is not None), "name")
    where = [f" ({sheet.value(index, 'evaluation')})"] if sheet.value(index, "evaluation") else []
    pair: list[str | Number] = [sheet.quote(index, "a"), " − ", sheet.quote(index, "b"), *where]
    p_value = sheet.value(index, "p_holm")
    p_text = sheet.number(index, "p_holm", "{:.3f}") if p_value is None or p_value >= 0.001 else _tiny(study, index)
    seeds: Text = [
        sheet.number(index, "n_seeds_a"),
        ", ",
        sheet.number(index, "n_seeds_b"),
        " × ",
        sheet.number(index, "n_tasks"),
    ]
    alone = [sheet.number(index, name, "{:+.1f}", 100) for name in ("t_low", "t_high")]
    return [
        Cell([sheet.quote(index, question), ": ", *pair], str(sheet.value(index, question)), kind="sentence"),
        Cell(sheet.interval(index, ("difference", "low", "high"), "{:+.1f}", 100), _sortable(value), bar),
        Cell(["–"] if alone[0] == "–" else ["[", alone[0], ", ", alone[1], "]"]),
        Cell([p_text], _sortable(p_value)),
        Cell(seeds, _sortable(sheet.value(index, "n_tasks"))),
        Cell([sheet.quote(index, "verdict")], str(sheet.value(index, "verdict")), kind=str(sheet.value(index, "verdict"))),
    ]


def _tiny(study: Study, index: int) -> Number:
    return Number("<0.001", study.contrasts.name, index + 2, "p_holm")
