"""Facts of how a result came about; None for those that this machine cannot tell."""

import functools
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[3]  # of the checkout, where the source is in one
PATIENCE_S = 10  # a file system that hangs must not hold up a training


@functools.cache
def git_commit() -> str | None:
    """The source's commit, with + where files differ from it; None, with a note, where git is missing or refuses."""
    if not (ROOT / ".git").exists():
        return None  # installed without its history; a repository further up would be another project's
    describe = ["git", "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    except (OSError, subprocess.SubprocessError) as error:
        return _unknown("the source's commit", str(error))
    if done.returncode:
        return _unknown("the source's commit", done.stderr.strip().partition("\n")[0])
    return done.stdout.strip()


def versions(names: Iterable[str]) -> dict[str, str | None]:
    """Version of Python and of each distribution; None for one that runs from its source or is not there."""
    return {name: _version(name) for name in names} | {"python": platform.python_version()}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _unknown(fact: str, reason: str) -> None:
    print(f"note: {fact} is not recorded: {reason}", file=sys.stderr)
