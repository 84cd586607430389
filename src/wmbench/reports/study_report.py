"""The report of a study: its answer, what it rests on and why, as one page; the same as Markdown, LaTeX and csv."""

import shutil
from pathlib import Path

from wmbench.files import whole, write_text
from wmbench.reports.document import Section, Sheet, Table
from wmbench.reports.document_html import write_html
from wmbench.reports.document_text import write_latex, write_markdown
from wmbench.reports.study_curves import curves
from wmbench.reports.study_episodes import episodes
from wmbench.reports.study_files import NEEDED, OPTIONAL, Study, Tally, read_study
from wmbench.reports.study_reasons import reasons
from wmbench.reports.study_results import answer, contrasts, results
from wmbench.reports.study_shifts import shifts
from wmbench.reports.study_sources import citations, cited, files, lock, weights

COPIED = (*NEEDED, *OPTIONAL, "lock.json")


def write_study_report(folder: Path) -> Path:
    """Write folder/report from what the study in the folder has so far, and return its index.html.

    A part that cannot be made says why; only the study's own csv files must be sound.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a csv file of the study that is damaged or lacks a column.
    """
    study = read_study(folder)
    report, tally, entries = folder / "report", Tally(), cited(study)
    report.mkdir(exist_ok=True)
    first = [answer(study, tally), results(study), contrasts(study)]
    middle, sheets = _parts(study, report)
    own = (study.table, study.contrasts, study.pairs, study.cells, study.shifts, study.areas, study.lock)
    sheets = [*(sheet for sheet in own if sheet is not None), *sheets, tally.sheet]
    last = [weights(study), lock(study), citations(entries), files(sheets)]
    sections, title = [*first, *middle, *last], f"Which representation plans best? Study {study.name}"
    _write_tables(report, study, sheets, first)
    write_text(report / "references.bib", "\n\n".join(entries.values()) + "\n")
    write_markdown(report / "report.md", title, sections)
    write_html(report / "index.html", title, sections, sheets)
    return report / "index.html"


def _parts(study: Study, report: Path) -> tuple[list[Section], list[Sheet]]:
    """The parts that need more than the study's own csv files."""
    parts = {
        "Other pictures": lambda: shifts(study, report / "pictures"),
        "Curves": lambda: curves(study, report / "pictures"),
        "Why?": lambda: reasons(study),
        "Best and worst episodes": lambda: episodes(study, report / "episodes"),
    }
    sections, sheets = [], []
    for title, make in parts.items():
        try:
            made, own = make()
        except Exception as error:  # a part that cannot be made costs a line, not the report
            made, own = [Section(title)], []
            made[0].text(f"This part could not be made: {type(error).__name__}: {error}", kind="warning")
        sections, sheets = [*sections, *made], [*sheets, *own]
    return sections, sheets


def _write_tables(report: Path, study: Study, sheets: list[Sheet], sections: list[Section]) -> None:
    """Copy the study's own files as they are, write the others, and the first tables for a paper."""
    for name in COPIED:
        if (study.folder / name).exists():
            with whole(report / name) as path:
                shutil.copyfile(study.folder / name, path)
    for sheet in sheets:
        if not (study.folder / sheet.name).exists():
            write_text(report / sheet.name, sheet.frame.to_csv(index=False))
    _, table, contrast = ([block for block in section.blocks if isinstance(block, Table)] for section in sections)
    for name, tables in (("table", table), ("contrasts", contrast)):
        if tables:
            write_latex(report / f"{name}.tex", tables[0], f"tab:{study.name}-{name}")
