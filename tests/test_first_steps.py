"""What a newcomer types first: the demo, and planning with the shipped model."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
from command_line import ROOT, run


def test_the_shipped_model_plans_right_after_installation(tmp_path):
    run(tmp_path, "plan.py model_name=point_maze_lewm protocol.num_tasks=20 baselines=false num_videos=0")
    (summary,) = (tmp_path / "plan_outputs").glob("*/summary.json")
    assert json.loads(summary.read_text())["success"] >= 0.9


@pytest.mark.slow
def test_the_shipped_model_solves_nine_of_ten_tasks(tmp_path):
    def worked_s() -> float:
        return sum(os.times()[2:4])  # processor time of the commands that have ended

    began = worked_s()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    started = worked_s()
    run(tmp_path, "plan.py model_name=point_maze_lewm")
    ended = worked_s()
    (summary,) = (tmp_path / "plan_outputs").glob("*_demo/summary.json")
    assert json.loads(summary.read_text())["success"] >= 0.9
    assert ended - started < 150 * (started - began)  # two minutes of two cores, where PyTorch starts in 1.6 s


def test_the_demo_ends_with_a_table_and_a_report_and_goes_on_where_it_was(tmp_path):
    command = "scripts/demo.py --num-episodes 16 --steps 3 --num-tasks 2"
    first = run(tmp_path, command)
    has_weights = "efficientnet_lite0 is left out" not in first  # an extra package brings them
    table = list(csv.DictReader((tmp_path / "plan_outputs/demo/table.csv").open()))
    trained = {"lewm_small", "state"} | ({"efficientnet_lite0"} if has_weights else set())
    assert {row["row"] for row in table} == trained | {"random", "zero", "simulator"}
    assert {row["conditions"] for row in table} == {"A"}
    report = (tmp_path / "plan_outputs/demo/report.html").read_text()
    # success and paths; the training of each, and a map of each with more than one token
    assert report.count("data:image/png;base64,") == 2 + len(trained) + has_weights
    assert report.count("data:video/mp4;base64,") == 2
    assert "$ python train.py" in first
    again = run(tmp_path, command)
    assert "$ python train.py" not in again and "$ python plan.py" not in again
    assert "is complete already" in again


def test_a_package_installed_without_a_checkout_brings_configurations_and_the_shipped_model(tmp_path):
    source, site, work = tmp_path / "source", tmp_path / "site", tmp_path / "work"
    for name in ("src", "conf", "checkpoints/point_maze_lewm", "data/tasks/bench"):
        shutil.copytree(
            ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "dist").glob("*.whl")
    shutil.unpack_archive(wheel, site, "zip")
    shutil.rmtree(source)
    work.mkdir()
    door = shutil.copy(ROOT / "plan.py", work)  # as typed in a checkout, which Python puts behind what is installed
    given = "model_name=point_maze_lewm protocol.num_tasks=1 planner.num_iters=1 baselines=false num_videos=0"
    run(work, f"{door} {given}", PYTHONPATH=str(site))
    run(work, f"{door} model_name=zero protocol=bench", PYTHONPATH=str(site))
    assert len(list(work.glob("plan_outputs/*/summary.json"))) == 1
    assert len(list(work.glob("plan_outputs/baselines/*/*/summary.json"))) == 1
