"""A document whose every number names the csv cell it was read from; page, markdown and LaTeX are made of one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from wmbench.files import regular

Frame = Any  # a DataFrame, of which type checkers say that any part may be anything


@dataclass(frozen=True)
class Number:
    """What is printed of one cell: a rounded number, or a text as it is.

    line: of the csv file, its head being line 1.
    scale: what the cell was multiplied by before it was rounded, such as 100 for a percentage; None for a text.
    """

    text: str
    file: str
    line: int
    column: str
    scale: int | float | None = 1.0

    @property
    def source(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    @property
    def anchor(self) -> str:
        return anchor(self.file, self.line)


Text = Sequence[str | Number]


@dataclass(frozen=True)
class Bar:
    """A value with its interval on an axis from left to right, around zero a margin within which two are equivalent."""

    low: int | float
    value: int | float
    high: int | float
    left: int | float
    right: int | float
    margin: int | float | None = None


@dataclass(frozen=True)
class Cell:
    """One entry of a table. sort: what its column is sorted by. kind: how it looks, such as a verdict's word."""

    text: Text
    sort: int | float | str = ""
    bar: Bar | None = None
    kind: str = ""


@dataclass(frozen=True)
class Paragraph:
    text: Text
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """quiet: numbers of the rows that are floors or ceilings."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str
    quiet: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    path: Path
    alt: str
    caption: str


@dataclass(frozen=True)
class Films:
    """Short videos in one grid, each with its caption."""

    films: Sequence[tuple[Path, Text]]


Block = Paragraph | Table | Picture | Films


@dataclass
class Section:
    title: str
    blocks: list[Block] = field(default_factory=list)

    def text(self, *parts: str | Number, kind: str = "") -> None:
        self.blocks.append(Paragraph(parts, kind))


@dataclass(frozen=True)
class Sheet:
    """A csv file, and what is printed of its cells. Its frame is indexed from 0, so index k is line k + 2."""

    name: str
    frame: Frame

    @classmethod
    def read(cls, path: Path) -> "Sheet":
        """Read a csv file; raises ValueError, by its name, where it is none."""
        try:
            return cls(path.name, pd.read_csv(regular(path)))
        except (ValueError, OSError) as error:
            raise ValueError(f"{path} is damaged or no csv file ({error}); python study.py writes it again") from None

    def has(self, *columns: str) -> bool:
        return set(columns) <= set(self.frame.columns)

    def value(self, index: int, column: str) -> Any:
        """A cell, or None where it is empty or the column is missing."""
        value: Any = self.frame.at[index, column] if self.has(column) else None
        return None if pd.isna(value) or value == "" else getattr(value, "item", lambda: value)()

    def number(self, index: int, column: str, form: str = "{:.0f}", scale: int | float = 1.0) -> Number | str:
        """A cell as a rounded number, or a dash where it is empty."""
        value = self.value(index, column)
        if value is None:
            return "–"
        return Number(form.format(scale * value), self.name, index + 2, column, scale)

    def quote(self, index: int, column: str) -> Number | str:
        """A cell as the text that it is."""
        value = self.value(index, column)
        return "–" if value is None else Number(str(value), self.name, index + 2, column, None)

    def interval(
        self, index: int, columns: Sequence[str], form: str = "{:.0f}", scale: int | float = 1.0, unit: str = ""
    ) -> Text:
        """`72% [66, 78]`, from the columns of the value and of its two ends."""
        value, low, high = (self.number(index, column, form, scale) for column in columns)
        if value == "–":
            return ["–"]
        return [value, unit] if low == "–" else [value, unit, " [", low, ", ", high, "]"]

    def percent(self, index: int, columns: Sequence[str]) -> Text:
        return self.interval(index, columns, "{:.0f}", 100, "%")


def anchor(file: str, line: int) -> str:
    """The id in the page of a csv file's line."""
    return f"{file.partition('.')[0]}-{line}"


def plain(text: Text) -> str:
    return "".join(part if isinstance(part, str) else part.text for part in text)
