"""Where a study's numbers come from: weights, what was fixed before the first run, the papers behind its rows, the files."""

import re
from pathlib import Path

from wmbench.reports.document import Cell, Section, Sheet, Table
from wmbench.reports.study_files import Study

ALWAYS = ("zhou2024dinowm", "fu2020d4rl", "anderson2018evaluation", "holm1979simple")
# The papers of rows, encoders and planners, by what their names look like in table.csv.
CITED = {
    "caron2021dino": r"dino(_cls|_patches)?",
    "oquab2023dinov2": r"dinov2.*",
    "darcet2023registers": r"dinov2_reg.*",
    "simeoni2025dinov3": r"dinov3.*",
    "assran2025vjepa2": r"v?jepa2.*",
    "murlabadia2026vjepa21": r"vjepa2_?1.*",
    "jia2025dinotok": r"dino_?tok.*",
    "bi2025vfmvae": r"vfm_?vae.*|latentvae",
    "tschannen2025siglip2": r"siglip2.*|vfmvae",  # whose trunk it is, unless it is put over another network
    "tan2019efficientnet": r"efficientnet.*",
    "he2015resnet": r"resnet.*",
    "nair2022r3m": r"r3m.*",
    "he2021mae": r"mae.*",
    "assran2023ijepa": r"ijepa.*",
    "maes2026lewm": r".*lewm.*",
    "pinneri2020icem": r"icem",
    "kingma2014adam": r"adam",
}
LOCK_TEXT = (
    "Before the first run on the test tasks, the protocol, the tasks, the contrasts and the code were written down as "
    "hashes, short codes that change when their content does. A reader can check them against the repository."
)
NAMES = ("row", "encoder", "encoder_name", "planner")


def weights(study: Study) -> Section:
    """Where each row's weights came from, in the words of table.csv."""
    section = Section("Where the weights came from")
    table = study.table
    column = next((name for name in ("weights", "encoder_source") if table.has(name)), None)
    if column is None:
        section.text("table.csv does not say it.")
        return section
    names = ("row", "encoder", column)
    first = table.frame.drop_duplicates("row").index  # what is known of a row is the same on all its lines
    body = [[Cell([table.quote(index, name)], str(table.value(index, name) or "")) for name in names] for index in first]
    section.blocks.append(Table(["row", "encoder", "weights"], body, "Source of each row's encoder weights"))
    return section


def lock(study: Study) -> Section:
    """What was hashed, and whether it was changed after the first run on test tasks."""
    section, sheet = Section("What was fixed before"), study.lock
    if sheet.frame.empty:
        section.text(
            "There is no lock.json: nothing shows that the contrasts were written down before the runs.", kind="warning"
        )
        return section
    section.text(LOCK_TEXT)
    changes = [str(name) for name in sheet.frame["name"] if str(name).startswith("changes.")]
    if changes:
        section.text(
            "Something was changed after the first result; the lines below that begin with changes say what.", kind="warning"
        )
    else:
        section.text("Nothing was changed after the first result.")
    columns, lines = ("name", "value"), sheet.frame.index[sheet.frame["name"] != "about"]
    body = [[Cell([sheet.quote(index, name)], str(sheet.value(index, name))) for name in columns] for index in lines]
    section.blocks.append(Table(["what", "value"], body, "lock.json"))
    return section


def cited(study: Study) -> dict[str, str]:
    """BibTeX entries of what the report builds on and of the rows in it, by their keys."""
    names = {str(name).lower() for column in NAMES if study.table.has(column) for name in study.table.frame[column].dropna()}
    keys = {key for key, pattern in CITED.items() if any(re.fullmatch(pattern, name) for name in names)}
    entries = Path(__file__).with_name("references.bib").read_text().strip().split("\n\n")
    by_key = {entry[entry.index("{") + 1 : entry.index(",")]: entry for entry in entries}
    return {key: entry for key, entry in by_key.items() if key in keys or key in ALWAYS}


def citations(entries: dict[str, str]) -> Section:
    section = Section("Papers")
    body = []
    for key, entry in entries.items():
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry, re.MULTILINE))
        title = re.sub(r"[{}]", "", fields["title"])
        others = " and others" if " and " in fields["author"] else ""
        first = re.sub(r"[{}\\']", "", fields["author"].partition(",")[0])
        body.append(
            [Cell([key], key), Cell([f"{first}{others}, {title}"], title, kind="sentence"), Cell([_where(fields)], "")]
        )
    section.blocks.append(
        Table(["key", "paper", "where"], body, "What this report builds on; references.bib has the entries")
    )
    return section


def _where(fields: dict[str, str]) -> str:
    return f"{fields['journal'].removeprefix('arXiv preprint ')}, {fields['year']}"


def files(sheets: list[Sheet]) -> Section:
    section = Section("Files")
    names = ", ".join(sheet.name for sheet in sheets)
    section.text(
        f"Next to this page: {names}; outcomes.csv with every task of every run, so that another method can be compared "
        "task by task; report.md, the same text; table.tex and contrasts.tex for a paper; references.bib."
    )
    return section
