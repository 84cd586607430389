"""What every script does with a wrong argument, an error and Ctrl-C."""

import subprocess
import sys
from pathlib import Path

import pytest
from in_process import ROOT, load_script
from omegaconf.errors import ConfigAttributeError

from wmbench.commands import door
from wmbench.commands.entry import as_note
from wmbench.files import PACKAGE

HEAVY = {"torch", "pandas", "scipy", "mujoco", "matplotlib"}
HELP = """
import runpy, sys
for script in sys.argv[1:]:
    for words in (["--help"], ["--cfg", "job"])[: 1 + (script in ("train.py", "plan.py"))]:
        sys.argv = [script, *words]
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as stop:
            assert not stop.code
        print("LOADED", script, *sys.modules)
"""
DOORS = sorted(path for path in Path(ROOT, "scripts").glob("*.py") if "Arguments(" in path.read_text())


@pytest.mark.parametrize("path", DOORS, ids=[path.stem for path in DOORS])
def test_a_wrong_argument_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr("sys.argv", [path.name, "--nonsense"])
    with pytest.raises(SystemExit) as stop:
        load_script(f"scripts/{path.name}").main()
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and f"{path.name} --help" in error
    assert stop.value.code == 1


def test_help_and_settings_are_printed_without_waiting_for_pytorch_and_its_like():
    """Of every command, one after another in one process."""
    scripts = sorted(path.relative_to(ROOT) for path in [*Path(ROOT).glob("*.py"), *Path(ROOT, "scripts").glob("*.py")])
    command = [sys.executable, "-c", HELP, *map(str, scripts)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    loaded = [line.split()[1:] for line in printed.splitlines() if line.startswith("LOADED")]
    assert len(loaded) == len(scripts) + 2
    assert {script: HEAVY & set(modules) for script, *modules in loaded if HEAVY & set(modules)} == {}


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ValueError("a\nb"), 1, "a b"),
        (FileNotFoundError(2, "No such file", "x.h5"), 1, "x.h5: No such file"),
        (ConfigAttributeError("no such key"), 1, "no such key"),
        (KeyboardInterrupt(), 130, "stopped; nothing half-written is left, and the same command starts again"),
    ],
)
def test_errors_of_a_script_are_one_line(error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture):
    @door
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        main()
    assert (stop.value.code, capsys.readouterr().err) == (code, f"error: {told}\n")


def test_a_warning_of_ours_is_a_note_without_a_place_in_the_source():
    assert (
        as_note(UserWarning("auto takes warp"), UserWarning, str(PACKAGE / "data" / "x.py"), 3) == "note: auto takes warp\n"
    )
    assert as_note(UserWarning("theirs"), UserWarning, "torch/x.py", 3) == "torch/x.py:3: UserWarning: theirs\n"
