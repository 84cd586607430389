"""Facts that a machine cannot tell are left out, and nothing stops."""

import subprocess
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from wmbench.runs import provenance
from wmbench.runs.provenance import git_commit, versions


@pytest.fixture(autouse=True)
def ask_again() -> Iterator[None]:
    git_commit.cache_clear()
    yield
    git_commit.cache_clear()


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The only git of this machine, in a checkout, becomes a shell script."""
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setattr(provenance, "PATIENCE_S", 0.2)
    monkeypatch.setenv("PATH", str(tmp_path))

    def become(script: str) -> None:
        (tmp_path / "git").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "git").chmod(0o755)

    return become


def test_a_machine_without_git_gives_no_commit_and_a_note(git: Callable, capsys: pytest.CaptureFixture[str]):
    assert git_commit() is None and git_commit() is None
    (note,) = capsys.readouterr().err.splitlines()  # once, however often it is asked for
    assert note.startswith("note: the source's commit is not recorded: ") and "git" in note


def test_a_git_that_refuses_gives_no_commit_and_its_reason(git: Callable, capsys: pytest.CaptureFixture[str]):
    git("echo 'fatal: detected dubious ownership in repository' >&2; echo 'To add an exception' >&2; exit 128")
    assert git_commit() is None
    assert capsys.readouterr().err == (
        "note: the source's commit is not recorded: fatal: detected dubious ownership in repository\n"
    )


def test_a_git_that_hangs_gives_no_commit(git: Callable, capsys: pytest.CaptureFixture[str]):
    git("exec /bin/sleep 30")
    assert git_commit() is None
    assert "timed out" in capsys.readouterr().err


def test_another_projects_repository_around_the_source_is_not_asked(git: Callable, tmp_path: Path, monkeypatch):
    git("echo other-1.0")
    monkeypatch.setattr(provenance, "ROOT", tmp_path / "site-packages")
    assert git_commit() is None


def test_the_commit_is_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "first"], ["tag", "v1"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert (
        git_commit()
        == subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=tmp_path, capture_output=True, text=True
        ).stdout.strip()
    )


def test_a_package_without_metadata_has_no_version():
    found = versions(("torch", "no-such-package"))
    assert found["torch"] == metadata.version("torch") and found["no-such-package"] is None
