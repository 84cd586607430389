"""scripts/reproduce.py: from a run to a verdict, and what the verdict rests on."""

import json

import pytest
import torch
from in_process import load_script

from wmbench.commands import retraining, scripts
from wmbench.reports import reproduction

reproduce = load_script("scripts/reproduce.py")

SMALL = ["max_iter=1", "num_videos=0", "planner.num_samples=6", "planner.num_elites=3", "planner.num_iters=2", "device=cpu"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """reproduce.py's main as if typed in an empty folder."""

    def main(*arguments: str) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["reproduce.py", *arguments])
        reproduce.main()

    return main


def summary(row: str, solved: int, tasks: int, **others):
    settings = {"protocol": {"max_rounds": 20}, "objective": {"alpha": 0}}
    rates = {"success": solved / tasks, "success_low": 0.01, "success_high": 0.99, "n_tasks": tasks}
    names = {"row": row, "settings": settings, "seed": 3, "tasks_hash": "t5", "renderer": "warp", "weights_hash": "w7"}
    return rates | names | {"step": 11, "device": "cpu", "encoder_source": "its own"} | others


def test_a_run_ends_with_a_verdict_beside_the_floors_of_the_same_tasks(run, tmp_path, capfd):
    run("model_name=point_maze_lewm", "n_evals=2", *SMALL)
    (folder,) = (tmp_path / "plan_outputs").glob("*_point_maze_lewm_dino_wm")
    report = json.loads((folder / "reproduction.json").read_text())
    assert report["verdict"] == "too few tasks to tell"
    assert report["expected"]["success"] == 0.98 and report["expected"]["n_tasks"] == 50
    assert report["observed"] == {key: json.loads((folder / "summary.json").read_text())[key] for key in report["observed"]}
    assert set(report["floors"]) == {"random", "zero", "simulator"} and report["max_rounds"] == 1
    printed = capfd.readouterr().out
    assert (folder / "reproduction.md").read_text() in printed
    for fact in ("Table 2", "49 of 50", "of 2 tasks", "at most 1;", "random", report["weights_hash"], report["renderer"]):
        assert fact in printed


def test_an_error_of_plan_is_left_to_plan_and_ends_it(run, monkeypatch, capsys):
    commands = []
    monkeypatch.setattr(scripts.subprocess, "call", lambda command: commands.append(command) or 1)
    with pytest.raises(SystemExit) as stop:
        run("n_evals=2")
    assert stop.value.code == 1 and capsys.readouterr().err == ""
    assert commands[0][2:] == ["--config-name", "plan_point_maze.yaml", "n_evals=2"]


def test_a_floor_is_no_model_to_judge(run, monkeypatch, capsys):
    monkeypatch.setattr(scripts.subprocess, "call", lambda command: 0)
    with pytest.raises(SystemExit) as stop:
        run("model_name=random", "output_dir=elsewhere")
    assert stop.value.code == 1
    assert "no result of a trained model in elsewhere; model_name= names a run, not a floor" in capsys.readouterr().err


def test_another_protocol_is_refused_before_anything_runs(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run("model_name=point_maze_lewm", "protocol=demo")
    assert stop.value.code == 1
    assert "the paper's number belongs to protocol dino_wm; leave protocol=demo out" in capsys.readouterr().err


def test_floors_of_other_tasks_seeds_or_settings_are_left_out():
    judged = summary("mine", 49, 50)
    others = [
        summary("random", 39, 50),
        summary("zero", 16, 50, tasks_hash="t6"),
        summary("simulator", 50, 50, seed=4),
        summary("zero", 15, 50, settings={"protocol": {"max_rounds": 5}, "objective": {"alpha": 0}}),
    ]
    report = reproduction.judge(judged, [judged, *others], [])
    assert report["floors"] == {"random": 0.78} and report["verdict"] == "consistent with the paper"
    assert "Random actions solve 78.0% of these tasks" in reproduction.to_markdown(report)


def test_a_report_says_what_was_not_limited_and_not_run():
    settings = {"protocol": {"max_rounds": None}, "objective": {"alpha": 0.1}}
    text = reproduction.to_markdown(reproduction.judge(summary("mine", 30, 50, settings=settings), [], ["max_iter=null"]))
    assert text.startswith("## mine: not consistent with the paper")
    assert "without limit" in text and "not run (baselines=false)" in text and "| 0.1 (weight" in text


def test_the_hours_of_retraining_follow_from_a_step_of_the_recipe(monkeypatch):
    monkeypatch.setattr(retraining, "TOKENS", 2)
    ticks = iter([0.0, 50.0, 100.0, 100.25])  # the first step warms up, the second takes a quarter of a second
    monkeypatch.setattr(retraining.time, "perf_counter", lambda: next(ticks))
    assert retraining.retraining_hours(torch.device("cpu")) == pytest.approx(0.25 * 32 * 455_700 / 3600)
