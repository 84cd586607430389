"""What a study runs, what it does not run again, and what it says of cells that failed."""

from pathlib import Path

import pytest
from pretend import Commands

from wmbench.study import runner
from wmbench.study.grid import Study
from wmbench.study.runner import Runner, finished, plan_of, status

ROWS = {"a": "encoder=state", "b": "encoder=pixels"}


def study(folder: Path, **changed) -> Study:
    known = {"name": "two", "seeds": [1, 2], "rows": ROWS, "evaluations": {"closed": "protocol=demo", "open": "seed=1"}}
    return Study.of(known | {"floors": ["zero"]} | changed, folder)


def run(monkeypatch, made: Study, commands: Commands, shard: str | None = None) -> Commands:
    monkeypatch.setattr(runner.subprocess, "call", commands)
    Runner(made, made.shard(shard)).run()
    return commands


def test_every_cell_is_made_once_and_then_nothing_is_left_to_do(tmp_path, monkeypatch):
    made = study(tmp_path)
    calls = run(monkeypatch, made, Commands()).calls
    assert set(finished(made)) == set(made.cells)
    assert calls.count(("train.py", "a_s1")) == 1 and calls.count(("plan.py", "a_s1")) == 2  # once an evaluation
    assert not run(monkeypatch, made, Commands()).calls
    assert "nothing is left to do" in status(made, made.cells)


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_study_that_is_stopped_at_any_command_makes_the_rest_and_no_more(tmp_path, monkeypatch, stop):
    made, first, second = study(tmp_path), Commands(stopped_at=(stop,)), Commands()
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, made, first)
    run(monkeypatch, made, second)
    assert set(finished(made)) == set(made.cells)
    whole = run(monkeypatch, study(tmp_path / "at_once"), Commands())
    assert sorted(first.calls + second.calls) == sorted(whole.calls)


def test_a_failure_is_noted_in_its_cells_and_the_rest_goes_on(tmp_path, monkeypatch):
    made = study(tmp_path)
    run(monkeypatch, made, Commands(failing=("a_s2",)))
    failed = [cell for cell in made.cells if cell not in finished(made)]
    assert [str(cell) for cell in failed] == ["a_s2 closed", "a_s2 open"]
    assert "a_s2 closed: error: model_name=a_s2: memory ran out" in status(made, made.cells)
    run(monkeypatch, made, Commands())
    assert not list((tmp_path / "failed").iterdir())  # made now, so nothing is noted any more


def test_shards_together_make_every_cell_once(tmp_path, monkeypatch):
    made = study(tmp_path)
    calls = [call for part in ("1/3", "2/3", "3/3") for call in run(monkeypatch, made, Commands(), part).calls]
    assert set(finished(made)) == set(made.cells)
    assert len(calls) == 1 + 4 + 2 + 8  # data, trainings, floors, evaluations


def test_a_forecast_goes_by_the_file_of_the_study_until_something_is_measured(tmp_path, monkeypatch):
    made = study(tmp_path, minutes={"train": 2, "closed": 1, "open": 0.5}, run_mb=3)
    assert "left: 10 cells of 5 runs, about 15 min 30 s and 15 MB of disk (measured on the machine that" in plan_of(
        made, made.cells
    )
    run(monkeypatch, made, Commands(failing=("b_s1", "b_s2")))
    monkeypatch.setattr(runner.Costs, "seconds", {"train_a": 60.0, "closed_a": 2.0, "open_a": 1.0, "open_floors": 9.0})
    assert "left: 4 cells of 2 runs, about 2 min 14 s and 6 MB of disk (measured here)" in plan_of(made, made.cells)


def test_data_that_cannot_be_collected_stop_the_study(tmp_path, monkeypatch):
    monkeypatch.setattr(runner.subprocess, "call", lambda *given, **more: 1)
    made = study(tmp_path)
    with pytest.raises(ValueError, match=r"data.h5 could not be made: .*data.log says why"):
        Runner(made, made.cells).run()
