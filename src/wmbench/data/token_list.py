"""Kept tokens as a list for people: what each set of files holds, and deleting some."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wmbench.data.token_facts import read_about
from wmbench.data.token_shards import found, split
from wmbench.files import regular, try_lock
from wmbench.machine import duration, size


def sets_in(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Files of tokens by the name of their set, which shards add the numbers of their frames to."""
    sets: dict[str, list[Path]] = {}
    for path in sorted(path for folder in folders for path in folder.glob("*.latents")):
        sets.setdefault(re.sub(r"\.\d+-\d+$", "", path.stem), []).append(path)
    return sets


def describe(name: str, paths: list[Path]) -> dict[str, str]:
    """What a set holds, of what data and how much of it is written, in words."""
    part, about = written_fraction(name, paths), about_of(name, paths)
    age = time.time() - max(path.stat().st_mtime for path in paths)
    known = {"name": name, "size": size(on_disk(paths)), "files": str(len(paths)), "written": f"{100 * part:.0f}%"}
    known["age"] = duration(age)
    if is_locked(name, paths):
        known["written"] += ", going on"
    if not about:
        return known | {"encoder": "its JSON is missing or damaged"}
    key = about["key"]
    tokens = " x ".join(str(number) for number in key["tokens"])
    return known | {
        "encoder": about.get("source", "of an earlier version, not read"),
        "data": about["data_path"],
        "tokens x width": tokens,
        "dtype": key["dtype"],
        "frames": f"{key['frames']:,}",
    }


def prune(name: str, paths: list[Path]) -> int | None:
    """Delete a set and its JSON; returns the bytes freed, None for one that is being written."""
    if is_locked(name, paths):
        return None
    freed = on_disk(paths)
    for path in paths:
        path.unlink()
    for path in paths:
        path.with_name(f"{name}.json").unlink(missing_ok=True)
    return freed


def written_fraction(name: str, paths: list[Path]) -> float:
    """Fraction of the set that is written."""
    if not (about := about_of(name, paths)):
        return 0.0
    frames, chunk, row_bytes = about["key"]["frames"], about["key"]["chunk"], about["row_bytes"]
    first = paths[0].with_name(f"{name}.latents")
    shards = split(first, frames, about.get("shard_frames", frames), row_bytes, chunk)
    begun = [shard for shard in found(shards, [path.parent for path in paths]) if shard.is_begun]
    return sum(int((shard.journal() != 0).sum()) for shard in begun) / sum(shard.num_chunks for shard in shards)


def about_of(name: str, paths: list[Path]) -> dict[str, Any]:
    """Facts of a set, from its JSON; empty where that is missing, damaged or of an earlier version."""
    possible = (read_about(path.with_name(f"{name}.latents")) for path in paths)
    return next((about for about in possible if about), {})


def on_disk(paths: list[Path]) -> int:
    """Bytes that files take on the disk; what is not written yet takes none."""
    return sum(512 * path.stat().st_blocks for path in paths)


def is_locked(name: str, paths: list[Path]) -> bool:
    """Whether a command writes the set, of which it holds the first file."""
    for path in paths:
        if path.stem == name:
            with regular(path).open("rb") as file:
                if not try_lock(file):
                    return True
    return False
