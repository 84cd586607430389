"""A document as one page that needs no network: numbers link to the csv lines they come from, tables sort on a click."""

import html
from collections.abc import Sequence
from pathlib import Path

from wmbench.reports.document import Bar, Block, Cell, Films, Number, Paragraph, Picture, Section, Sheet, Table, Text, anchor
from wmbench.reports.page import Page, inline

MARKS = {"supported": "✓", "contradicted": "✗", "equivalent": "=", "undecided": "?", "untested": "–", "no claim": "–"}
DOT = 2.6  # radius of a value's dot, of 100 for the axis


def write_html(path: Path, title: str, sections: Sequence[Section], sheets: Sequence[Sheet]) -> None:
    """Write the page; the sheets come last, line by line, since the numbers link to them."""
    style, script = (Path(__file__).with_name(name).read_text() for name in ("study.css", "study.js"))
    page = Page(title, style, script)
    names = [(f"part-{number}", section) for number, section in enumerate(sections)]
    links = "".join(f'<a href="#{name}">{html.escape(section.title)}</a>' for name, section in names if section.title)
    for name, section in names:
        if section.title:
            page.raw(f'<h2 id="{name}">{html.escape(section.title)}</h2>')
        for block in section.blocks:
            page.raw(_markup_of(block))
        if not section.title:
            page.raw(f'<nav aria-label="Parts of the report">{links}<a href="#data">Data</a></nav>')
    page.raw('<h2 id="data">Data</h2><p>The csv files next to this page, line by line. Line 1 is a file\'s head.</p>')
    for sheet in sheets:
        page.raw(_lines(sheet))
    page.write(path)


def _markup_of(block: Block) -> str:
    match block:
        case Paragraph(text, kind):
            return f"<p{_class(kind)}>{markup(text)}</p>"
        case Table():
            return _table(block)
        case Picture(path, alt, caption):
            try:
                image = f'<img alt="{html.escape(alt)}" src="{inline(path, "image/png")}">'
            except (OSError, ValueError) as error:
                return f"<p>{html.escape(f'{caption}: left out: {error}')}</p>"
            return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"
        case Films(films):
            return f"<div class=films>{''.join(_film(path, caption) for path, caption in films)}</div>"


def _film(path: Path, caption: Text) -> str:
    video = f'<video controls muted playsinline preload=metadata src="{inline(path, "video/mp4")}"></video>'
    return f"<figure>{video}<figcaption>{markup(caption)}</figcaption></figure>"


def markup(text: Text) -> str:
    return "".join(html.escape(part) if isinstance(part, str) else _number(part) for part in text)


def _number(number: Number) -> str:
    scale = "" if number.scale is None else f' data-scale="{number.scale:g}"'
    source, where = html.escape(number.source), f"{number.file}, line {number.line}, column {number.column}"
    link = f'class=n href="#{number.anchor}" data-source="{source}"{scale} title="{html.escape(where)}"'
    return f"<a {link}>{html.escape(number.text)}</a>"


def _table(table: Table) -> str:
    head = "".join(f'<th aria-sort="none"><button>{html.escape(name)}</button></th>' for name in table.columns)
    rows = (
        f"<tr{_class('quiet' if number in table.quiet else '')}>{''.join(map(_cell, row))}</tr>"
        for number, row in enumerate(table.rows)
    )
    name = html.escape(table.caption)
    return (
        f'<div class=box tabindex=0 role=region aria-label="{name}"><table class=sorts><caption>{name}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    text = markup(cell.text)
    if cell.kind in MARKS:
        text = f"<span class=verdict>{MARKS[cell.kind]} {markup(cell.text[:1])}</span>{markup(cell.text[1:])}"
    kind = _class("sentence" if cell.kind == "sentence" else "reason" if len(cell.text) > 1 and cell.kind else "")
    return f'<td{kind} data-sort="{html.escape(str(cell.sort))}">{text}{_svg(cell.bar) if cell.bar else ""}</td>'


def _svg(bar: Bar) -> str:
    """A dot on its interval, with the margin shaded and zero as a line where there is a margin."""

    def place(value: int | float) -> float:
        share = (min(max(value, bar.left), bar.right) - bar.left) / (bar.right - bar.left)
        return round(DOT + (100 - 2 * DOT) * share, 2)  # so that a dot at an end is whole

    parts = []
    if bar.margin is not None:
        left, right, zero = place(-bar.margin), place(bar.margin), place(0)
        parts.append(f'<rect x="{left}" y="0" width="{right - left:.2f}" height="12" fill="#dcdce2"/>')
        parts.append(f'<line x1="{zero}" x2="{zero}" y1="0" y2="12" stroke="#77777f" stroke-width="0.6"/>')
    parts.append(f'<line x1="{DOT}" x2="{100 - DOT}" y1="11.7" y2="11.7" stroke="#c4c4cc" stroke-width="0.6"/>')
    line = f'x1="{place(bar.low)}" x2="{place(bar.high)}" y1="6" y2="6" stroke="#0b5394" stroke-width="1.6"'
    parts.append(f'<line {line}/><circle cx="{place(bar.value)}" cy="6" r="{DOT}" fill="#0b5394"/>')
    return f'<svg viewBox="0 0 100 12" aria-hidden="true">{"".join(parts)}</svg>'


def _lines(sheet: Sheet) -> str:
    """A csv file as a closed table, each line with the id that numbers link to."""
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in ("line", *sheet.frame.columns))
    empty = sheet.frame.isna().to_numpy()
    rows = "".join(
        f'<tr id="{anchor(sheet.name, index + 2)}"><td>{index + 2}</td>'
        + "".join(f"<td>{'' if gone else html.escape(str(v))}</td>" for v, gone in zip(row, empty[index], strict=True))
        + "</tr>"
        for index, row in enumerate(sheet.frame.itertuples(index=False))
    )
    link = f'<a href="{html.escape(sheet.name)}">{html.escape(sheet.name)}</a>'
    return (
        f"<details><summary>{link}, {len(sheet.frame)} lines</summary>"
        f'<div class=box tabindex=0 role=region aria-label="{html.escape(sheet.name)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _class(name: str) -> str:
    return f" class={name}" if name else ""
