"""Result folders: written whole, read again, and refused by name where they are damaged."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wmbench.envs.mazes import Maze
from wmbench.evaluation.conditions import Conditions
from wmbench.evaluation.episode_loop import Outcome
from wmbench.evaluation.results import Result, Score, find_summaries, read_summary, save_result
from wmbench.evaluation.row import Row
from wmbench.evaluation.tasks import Tasks

MAZE, TASKS = Maze("umaze"), Tasks(np.full((3, 4), 1.0), np.full((3, 4), 2.0), np.arange(3))
CONDITIONS = Conditions(list(MAZE.rows), 5, TASKS.hash, {"name": "demo", "task_seed": 99}, max_steps=10, seed=0)
OUTCOME = Outcome(np.zeros((3, 11, 4)), np.array([True, True, False]), np.array([3, 5, 10]), np.full(3, 0.4), 0.25, 0.5)


def save(folder: Path, **changed) -> Result:
    row = Row("a", encoder="DINOv2", recipe={"lr": 0.1}, note="untrained")
    result = replace(Result(row, CONDITIONS, Score.of(OUTCOME, 256.0), finished="2026-11-27", max_steps=10), **changed)
    save_result(folder, result, TASKS, OUTCOME, MAZE)
    return result


def test_a_result_is_read_as_it_was_written(tmp_path):
    result = save(tmp_path / "r")
    summary = read_summary(tmp_path / "r")
    assert Result.of(summary) == replace(result, folder=str(tmp_path / "r"))
    assert (summary["row"], summary["success"], summary["n_tasks"], summary["steps_to_success"]) == ("a", 2 / 3, 3, 4.0)
    assert (summary["protocol"], summary["tasks_hash"], summary["encoder"]) == ("demo", TASKS.hash, "DINOv2")


def test_the_newest_goes_by_when_it_was_finished_not_by_its_file(tmp_path):
    save(tmp_path / "b", finished="2026-11-28")
    save(tmp_path / "a", finished="2026-11-27")
    old = save(tmp_path / "2026-11-26_10-00-00_a_demo", finished="")
    assert old.finished == ""
    assert [Path(summary["folder"]).name[0] for summary in find_summaries(tmp_path)] == ["2", "a", "b"]


@pytest.mark.parametrize(
    "contents",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"row": 5}',
        "\udcff",
        lambda whole: whole[:200],
        lambda whole: whole.replace('"success": 0.6666666666666666', '"success": "most"'),
        lambda whole: whole.replace('"success": 0.6666666666666666', '"success": 66.7'),
        lambda whole: whole.replace('"n_tasks": 3', '"n_tasks": 4'),
        lambda whole: whole.replace('"n_tasks": 3', '"n_tasks": null'),
        lambda whole: whole.replace('"max_steps"', '"future_setting"', 1),
        lambda whole: json.dumps(json.loads(whole) | {"conditions": 7}),
        lambda whole: json.dumps(json.loads(whole) | {"recipe": "long"}),
    ],
)
def test_a_damaged_summary_is_named_and_the_others_are_read(contents, tmp_path, capsys):
    save(tmp_path / "good")
    save(tmp_path / "bad")
    path = tmp_path / "bad" / "summary.json"
    text = contents if isinstance(contents, str) else contents(path.read_text())
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert [summary["folder"] for summary in find_summaries(tmp_path)] == [str(tmp_path / "good")]
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "bad") in line and line.startswith("note: left out:")


@pytest.mark.parametrize(
    "contents", [None, b"", b"\xff\x00", b"task,success\n0,True\n", b"success,steps\nTrue,3\n", b'a,"\n']
)
def test_damaged_outcomes_of_tasks_are_named_and_the_others_are_read(contents: bytes | None, tmp_path, capsys):
    save(tmp_path / "good")
    save(tmp_path / "bad")
    path = tmp_path / "bad" / "tasks.csv"
    if contents is None:
        path.unlink()
    else:
        path.write_bytes(contents)
    assert [summary["folder"] for summary in find_summaries(tmp_path)] == [str(tmp_path / "good")]
    assert str(path) in capsys.readouterr().err
