"""What a newcomer types first: the demo, and planning with the shipped model."""

import csv
import json
import time

import pytest
from command_line import run


def test_the_shipped_model_plans_right_after_installation(tmp_path):
    run(tmp_path, "plan.py model_name=point_maze_lewm protocol.num_tasks=20 baselines=false num_videos=0")
    (summary,) = (tmp_path / "plan_outputs").glob("*/summary.json")
    assert json.loads(summary.read_text())["success"] >= 0.9


@pytest.mark.slow
def test_the_shipped_model_solves_nine_of_ten_tasks(tmp_path):
    began = time.perf_counter()
    run(tmp_path, "plan.py model_name=point_maze_lewm")
    (summary,) = (tmp_path / "plan_outputs").glob("*_demo/summary.json")
    assert json.loads(summary.read_text())["success"] >= 0.9
    assert time.perf_counter() - began < 120


def test_the_demo_ends_with_a_table_and_a_report_and_goes_on_where_it_was(tmp_path):
    command = "scripts/demo.py --num-episodes 16 --steps 3 --num-tasks 2"
    first = run(tmp_path, command)
    rows = list(csv.DictReader((tmp_path / "plan_outputs/demo/table.csv").open()))
    assert {row["row"] for row in rows} == {"lewm_small", "state", "random", "zero", "simulator"}
    report = (tmp_path / "plan_outputs/demo/report.html").read_text()
    assert report.count("data:image/png;base64,") == 4 and report.count("data:video/mp4;base64,") == 2
    assert "$ python train.py" in first
    again = run(tmp_path, command)
    assert "$ python train.py" not in again and "$ python plan.py" not in again
    assert "is complete already" in again
