"""What a file of kept tokens says of itself: in the JSON beside it, and of its chunks at its end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from wmbench.files import regular

FORMAT = 2  # 1 (without the key) held one row for each place in a window, of tokens that arms had changed


def read_about(path: Path) -> dict[str, Any]:
    """Facts of a file of tokens, from its JSON; empty where that is missing, damaged or of an earlier version."""
    about, key = _read_json(path)
    try:
        counts = [key["frames"], key["chunk"], *key["tokens"], len(key["dtype"])]
    except (KeyError, TypeError):
        return {}
    return about if all(isinstance(count, int) and count > 0 for count in counts) and "data_path" in about else {}


def is_older(path: Path, data: str) -> bool:
    """Whether an earlier version kept tokens of this data (its hash) in a file."""
    _, key = _read_json(path)
    return key.get("data") == data and key.get("format") != FORMAT


def _read_json(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file of tokens says of itself, and the key in it."""
    try:
        about = json.loads(regular(path.with_suffix(".json")).read_text())
    except (OSError, ValueError):
        return {}, {}
    key = about.get("key") if isinstance(about, dict) else None
    return (about, key) if isinstance(key, dict) else ({}, {})


def read_journal(path: Path, num_chunks: int) -> Int[ndarray, " chunks"]:
    """The entries at the end of a file; zeros where it is not that long yet."""
    with regular(path).open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8 * num_chunks))
        entries = np.frombuffer(file.read(), "<i8")
    return entries if len(entries) == num_chunks else np.zeros(num_chunks, np.int64)
