"""Code is read in pieces: a function fits a screen, a file tells one story, a script is a door."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("src/**", "scripts", "benchmarks", ".")
SOURCES = sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.py"))


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_no_function_is_longer_than_60_lines():
    longer = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60  # type: ignore[operator]
    ]
    assert longer == []


def test_no_file_is_longer_than_300_lines():
    assert [f"{path.relative_to(ROOT)}: {lines(path)}" for path in SOURCES if lines(path) > 300] == []


def test_a_script_is_a_door_of_at_most_60_lines():
    doors = [*(ROOT / "scripts").glob("*.py"), *ROOT.glob("*.py")]
    assert [f"{path.name}: {lines(path)}" for path in doors if lines(path) > (60 if path.parent != ROOT else 65)] == []
