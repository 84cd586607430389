"""Text on a command line, read and printed.

Hydra reads `2024` as a number and refuses `~/maze (1).h5`; such values are put in quotes for it.
"""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString, Sweep
from hydra.errors import HydraException

# Settings whose value is text even where it looks like a number, by the last part of their key.
NAMES = ("model_name", "row", "name", "model", "device")
PATHS = (
    *("data", "file", "goal_file", "output", "weights", "trunk_weights"),
    *("dir", "output_dir", "tasks_dir", "ckpt_base_path"),
)
LISTS = ("cache.dir",)  # a path, or several in brackets
IN_QUOTES = r"'(?:\\.|[^'])*'|\"(?:\\.|[^\"])*\""
IN_BRACKETS = r"\([^)]*\)|\[[^]]*\]|\{[^}]*\}"


def quoted(setting: str, is_sweep: bool = False) -> str:
    """A setting whose value is text in the quotes that make Hydra read just that text; in a path `~` is the home folder.

    In a sweep commas separate values. Interpolations, choice(a,b) and the null of a path keep their meaning.
    """
    key, equals, value = setting.partition("=")
    leaf = key.rpartition(".")[2].lstrip("+")
    if not equals or leaf not in NAMES + PATHS:
        return setting
    values = [part.strip() for part in split(value)] if is_sweep else [value]
    return f"{key}={','.join(_quoted_list(key, leaf, value) for value in values)}"


def _quoted_list(key: str, leaf: str, value: str) -> str:
    """A value, or each of those in brackets where the key may have several."""
    if key.lstrip("+") in LISTS and value.startswith("[") and value.endswith("]"):
        return f"[{','.join(_quoted_value(leaf, one.strip()) for one in split(value[1:-1]) if one)}]"
    return _quoted_value(leaf, value)


def _quoted_value(leaf: str, value: str) -> str:
    parsed = parse(value)
    if isinstance(parsed, Sweep) and (leaf in NAMES or not getattr(parsed, "simple_form", False)):
        return value
    if leaf in PATHS and value.lower() == "null":
        return value
    text = unquoted(value)
    expanded = os.path.expanduser(text) if leaf in PATHS else text
    return value if expanded == text and (parsed == text or text != value) else in_quotes(expanded)


def parse(value: str) -> Any:
    """What Hydra makes of a value: a number, a QuotedString, a Sweep, ...; None also for one that it refuses."""
    try:
        return OverridesParser.create().parse_override(f"key={value}")._value
    except HydraException:
        return None


def in_quotes(text: str) -> str:
    return QuotedString(text, Quote.double).with_quotes()


def unquoted(value: str) -> str:
    """A value without Hydra's quotes."""
    parsed = parse(value)
    return parsed.text if isinstance(parsed, QuotedString) else value


def split(values: str) -> list[str]:
    """Parts between commas that are not within quotes or brackets."""
    return re.findall(rf"(?:{IN_QUOTES}|{IN_BRACKETS}|[^,])+", values) or [""]


def command_line(script: str, settings: Mapping[str, object]) -> str:
    """A command of ours to paste into a shell, where each setting comes out as it is here."""
    words = [f"{key}={_typed(key, str(value))}" for key, value in settings.items()]
    return f"python {script} {shlex.join(words)}"


def _typed(key: str, text: str) -> str:
    """What to type after key= so that a command of ours reads this text."""
    read = quoted(f"{key}={text}").partition("=")[2]
    return text if unquoted(read) == text and not isinstance(parse(read), Sweep) else in_quotes(text)


def plan_line(run: Path, base: Path = Path("checkpoints"), script: str = "plan.py") -> str:
    """The command that plans with a run, below base or elsewhere."""
    place = next((folder for folder in (base / "outputs", base) if run.is_relative_to(folder)), run.parent)
    base = base if run.is_relative_to(base) else place
    where = {} if base == Path("checkpoints") else {"ckpt_base_path": base}
    return command_line(script, {"model_name": run.relative_to(place)} | where)
