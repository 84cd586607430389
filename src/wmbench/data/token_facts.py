"""What a file of kept tokens says of itself, in the JSON beside it."""

from pathlib import Path
from typing import Any

from wmbench.files import parse_json, regular

MOST = 100_000  # shards of a set
FORMAT = 2  # 1 (without the key) held one row for each place in a window, of tokens that arms had changed


def read_about(path: Path) -> dict[str, Any]:
    """Facts of a file of tokens, from its JSON; empty where that is missing, damaged or of an earlier version."""
    about, key = _read_json(path)
    try:
        shard = about.get("shard_frames", key["chunk"])  # a file that is one of no shards does not say it
        counts = [key["frames"], key["chunk"], *key["tokens"], len(key["dtype"]), about["row_bytes"], shard]
    except (KeyError, TypeError):
        return {}
    if not all(isinstance(count, int) and count > 0 for count in counts) or "data_path" not in about:
        return {}
    return about if shard % key["chunk"] == 0 and ("shard_frames" not in about or key["frames"] <= MOST * shard) else {}


def is_older(path: Path, data: str) -> bool:
    """Whether an earlier version kept tokens of this data (its hash) in a file."""
    _, key = _read_json(path)
    return key.get("data") == data and key.get("format") != FORMAT


def _read_json(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file of tokens says of itself, and the key in it."""
    try:
        about = parse_json(regular(path.with_suffix(".json")).read_text())
    except (OSError, ValueError):
        return {}, {}
    key = about.get("key") if isinstance(about, dict) else None
    return (about, key) if isinstance(key, dict) else ({}, {})
