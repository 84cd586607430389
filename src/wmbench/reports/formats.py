"""A table as Markdown, csv and HTML, in which every text stays text."""

import html
import re
from typing import Any

import pandas as pd

from wmbench.evaluation.row import BASELINES


def markdown_of(text: pd.DataFrame) -> str:
    """A table of strings and whole numbers as Markdown."""
    rows = [text.columns, ["---" for _ in text.columns], *text.itertuples(index=False)]
    return "".join("| " + " | ".join(in_markdown(value).replace("|", "\\|") for value in row) + " |\n" for row in rows)


def in_markdown(value: Any) -> str:
    """A text that stays text in Markdown: on one line, no tag and no link."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", " ".join(str(value).split())).replace("](", "]\\(")


def csv_of(table: pd.DataFrame, **options: Any) -> str:
    """A table as csv, in which no text is a formula to a spreadsheet: a quote comes before one that looks like it."""
    texts = {name: table[name].map(_no_formula) for name in table.select_dtypes(exclude=["number", "bool"])}
    return table.assign(**texts).to_csv(index=False, **options)


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and re.match(r"[=+@\t\r]|-(?![\d.])", value) else value


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
