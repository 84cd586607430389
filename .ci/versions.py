"""Pins for pip, one line per package that pyproject.toml names: python .ci/versions.py newest > constraints.txt

newest: what this environment holds. It may be of Python 3.11 only, whose packages exist for later ones too, not the reverse.
oldest: the lower bounds; packages without one, which only check style, are left free.
"""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
UNNAMED = ("warp-lang",)  # draws the frames of mujoco-warp


def main() -> None:
    kind = sys.argv[1]
    if kind == "newest" and sys.version_info[:2] != (3, 11):
        raise SystemExit(f"error: pins are for Python 3.11 and later, so they come from 3.11, not {sys.version.split()[0]}")
    pins = newest() if kind == "newest" else oldest()
    print("# Written by .ci/versions.py. To renew: make lock")
    print("\n".join(f"{name}=={version}" for name, version in sorted(pins.items())))


def requirements() -> dict[str, str]:
    """Name and range of each package that the project or its tests need; weights, known by their hash, are none."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = [lines for name, lines in project["optional-dependencies"].items() if name != "pretrained"]
    lines = project["dependencies"] + [line for extra in extras for line in extra]
    pairs = (re.fullmatch(r"([\w.-]+)(?:\[.*\])?(.*)", line).groups() for line in lines)
    return {name: versions for name, versions in pairs if name != project["name"]}


def newest() -> dict[str, str]:
    """Without what only tells one build from another (2.14.1+cpu)."""
    return {name: metadata.version(name).partition("+")[0] for name in (*requirements(), *UNNAMED)}


def oldest() -> dict[str, str]:
    bounds = {name: re.match(r">=([\d.]+)", versions) for name, versions in requirements().items()}
    return {name: bound[1] for name, bound in bounds.items() if bound}


if __name__ == "__main__":
    main()
