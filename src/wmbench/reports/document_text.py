"""A document as Markdown, and its tables as LaTeX for a paper."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from wmbench.files import write_text
from wmbench.reports.document import Block, Films, Paragraph, Picture, Section, Table, Text, plain
from wmbench.reports.formats import in_markdown, markdown_of

LATEX = {"–": "--", "−": "$-$", "×": r"$\times$", "±": r"$\pm$"}


def write_markdown(path: Path, title: str, sections: Sequence[Section]) -> None:
    parts = [f"# {title}"]
    for section in sections:
        if section.title:
            parts.append(f"## {section.title}")
        parts += [_markdown(block, path.parent) for block in section.blocks]
    write_text(path, "\n\n".join(parts) + "\n")


def _markdown(block: Block, folder: Path) -> str:
    match block:
        case Paragraph(text, kind):
            return f"**{_text(text)}**" if kind == "answer" else _text(text)
        case Table():
            return f"{block.caption}\n\n{markdown_of(_strings(block))}".rstrip()
        case Picture(path, _, caption) if not path.is_relative_to(folder):  # which may not travel with the text
            return f"{in_markdown(caption)} (the picture is in index.html)"
        case Picture(path, alt, caption):
            return f"![{in_markdown(alt)}]({os.path.relpath(path, folder)})\n\n{in_markdown(caption)}"
        case Films(films):
            return "\n".join(f"- [{_text(caption)}]({os.path.relpath(path, folder)})" for path, caption in films)


def _text(text: Text) -> str:
    return in_markdown(plain(text))


def _strings(table: Table) -> pd.DataFrame:
    rows = [[plain(cell.text).replace("|", "/") for cell in row] for row in table.rows]
    return pd.DataFrame(rows, columns=list(table.columns))


def write_latex(path: Path, table: Table, label: str) -> None:
    """Write a table for \\input, in the style of booktabs."""
    name = re.sub(r"[^\w:.-]", "-", label)
    text = _strings(table).to_latex(index=False, escape=True, caption=_escaped(table.caption), label=name, position="t")
    for sign, command in LATEX.items():
        text = text.replace(sign, command)
    write_text(path, f"% needs \\usepackage{{booktabs}}\n{text}")


def _escaped(text: str) -> str:
    text = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", "/"))
    return text.replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")
