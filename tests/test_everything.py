"""benchmarks/everything.py keeps what it has, whatever comes next."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
WRITES = """
import json, sys
from pathlib import Path
output = next(word.partition("=")[2] for word in sys.argv if word.startswith("output="))
Path(output).write_text(json.dumps({"name": "this machine", "threads": 1, "torch": "2", **FIGURES}))
"""


@pytest.fixture
def everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark with four parts: one that writes, one that fails, one that writes and fails, one that hangs."""
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("everything")
    scripts = {
        "first": "FIGURES = {'seconds_plain': 2.5, 'scaling': []}" + WRITES,
        "broken": "raise SystemExit(3)",
        "differs": "FIGURES = {'steps_per_s_plain': 7.0}" + WRITES + "raise SystemExit('error: the two ways differ')",
        "hangs": "import time; time.sleep(60)",
    }
    (tmp_path / "benchmarks").mkdir()
    for name, text in scripts.items():
        (tmp_path / "benchmarks" / f"{name}.py").write_text(text)
    (tmp_path / "page.md").write_text(f"Speed\n{module.BEGIN}\nold\n{module.END} and more\n")
    for name, value in (("ROOT", tmp_path), ("FIGURES", tmp_path / "figures"), ("PAGE", tmp_path / "page.md")):
        monkeypatch.setattr(module, name, value)
    steps = {"first": ("planning", 2), "broken": ("planning", 2), "differs": ("training", 2), "hangs": ("training", 1000)}
    rows = [module.Step(part, f"{name}.py", (), seconds, seconds) for name, (part, seconds) in steps.items()]
    monkeypatch.setattr(module, "STEPS", tuple(rows))
    return module


def test_a_part_that_fails_stops_no_other_and_nothing_measured_is_lost(
    everything: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(sys, "argv", ["everything.py", "device=cpu", "minutes=2"])
    with pytest.raises(SystemExit, match=r"error: broken.py ended with exit status 3; differs.py ended with exit status 1;"):
        everything.main()
    figures = json.loads((tmp_path / "figures" / "cpu.json").read_text())
    assert figures["planning"]["seconds_plain"] == 2.5 and figures["training"]["steps_per_s_plain"] == 7.0
    page = (tmp_path / "page.md").read_text()
    assert "| plain, fp32 [s] | 2.5 |" in page and "| plain [steps/s] | 7 |" in page and page.endswith(" and more\n")
    assert "hangs.py: left out, as it takes about 1000 s" in capsys.readouterr().out


def test_a_part_that_takes_longer_than_it_should_is_stopped_when_the_time_is_over(everything: ModuleType, tmp_path: Path):
    step = everything.STEPS[3]._replace(cpu_s=0)
    everything.STEPS = (everything.STEPS[0], step)
    assert everything.measure("cpu", seconds=3.0) == ["hangs.py was stopped, as the minutes are over"]
    assert "planning" in json.loads((tmp_path / "figures" / "cpu.json").read_text())


def test_what_another_run_measured_stays_where_this_one_has_nothing(everything: ModuleType, tmp_path: Path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "cpu.json").write_text('{"planning": {"scaling": [{"doubled": "tasks"}], "samples": 4}}')
    everything.STEPS = everything.STEPS[:1]
    assert everything.measure("cpu", seconds=0) == []
    figures = json.loads((tmp_path / "figures" / "cpu.json").read_text())
    assert figures["planning"]["scaling"] == [{"doubled": "tasks"}] and figures["planning"]["seconds_plain"] == 2.5
