"""The version of the code that decides an outcome, as a hash, which needs no git and does not change with other code."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

FOLLOWED = ("wmbench.envs", "wmbench.planning", "wmbench.models", "wmbench.encoders", "wmbench.data.normalizer")
Statement = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@cache
def source_version(*modules: str) -> str:
    """Eight hex digits of some modules' code and of all that they import from FOLLOWED.

    Comments, docstrings and layout do not count.
    """
    trees: dict[str, ast.Module] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in trees and (path := _path(name)):
            trees[name] = ast.parse(path.read_text())
            waiting += [found for found in _imports(trees[name]) if found.startswith(FOLLOWED)]
    code = "\n".join(_without_docstrings(trees[name]) for name in sorted(trees))
    return hashlib.sha256(code.encode()).hexdigest()[:8]


def _path(module: str) -> Path | None:
    """The file of a module; None for a name inside one."""
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _without_docstrings(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, Statement) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
