"""The versions that are pinned, those that are allowed, and what happens where the pinned ones cannot be had."""

import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#"))
PIP = """#!/bin/sh
echo "$@" >> asked.txt
case "$@" in
  *venv*) mkdir -p .venv/bin; cp "$0" .venv/bin/python;;
  *constraints.txt*) test -z "$LACKS" || { echo "ERROR: No matching distribution found for torch==2.14.1" >&2; exit 1; };;
esac
"""


@pytest.fixture
def versions() -> dict:
    return runpy.run_path(str(ROOT / ".ci" / "versions.py"))


def test_every_package_is_pinned_within_its_range(versions: dict):
    requirements = versions["requirements"]()
    assert set(PINS) == {*requirements, *versions["UNNAMED"]}
    for name, allowed in requirements.items():
        assert Version(PINS[name]) in Requirement(name + allowed).specifier, f"{name} {PINS[name]}, allowed: {allowed}"


def test_what_computes_and_tests_has_a_lower_bound_that_is_tested_alone(versions: dict):
    oldest, requirements = versions["oldest"](), versions["requirements"]()
    assert set(requirements) - set(oldest) == {"ruff", "pyright", "import-linter", "pre-commit"}  # which check style
    assert all(Version(version) in Requirement(name + requirements[name]).specifier for name, version in oldest.items())


def test_pins_serve_every_machine():
    """No host, path, hash or build: a name and a public version each."""
    assert all(re.fullmatch(r"[a-z0-9-]+", name) and re.fullmatch(r"[0-9.]+", version) for name, version in PINS.items())
    assert not [name for name in PINS if name.startswith(("nvidia", "cuda", "triton"))]


@pytest.mark.parametrize("lacks", [False, True])
def test_a_machine_without_a_pinned_version_takes_the_ranges_and_says_so_in_a_line(tmp_path: Path, lacks: bool):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(PIP)
    python.chmod(0o755)
    environment = os.environ | {"LACKS": "torch" if lacks else ""}
    command = ["make", "setup", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    asked = [line for line in (tmp_path / "asked.txt").read_text().splitlines() if "pip install" in line]
    assert ["--constraint" in line for line in asked] == ([True, False] if lacks else [True])
    said = [line for line in (done.stdout + done.stderr).splitlines() if "constraints.txt cannot be had here" in line]
    assert len(said) == lacks
    assert "No matching distribution" not in done.stderr
    assert ("torch==2.14.1" in (tmp_path / ".venv/constraints.log").read_text()) == lacks
