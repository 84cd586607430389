"""plan.py as typed twice: what is finished is not played again, and what is wrong is found before anything is played."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import PLAN, run
from in_process import refuse_here, run_here

from wmbench.runs.find import SHIPPED

COMMAND = PLAN.replace("num_videos=1", "num_videos=0") + " model_name=point_maze_lewm"


def sentences(out: str) -> list[str]:
    return [line for line in out.splitlines() if " solved " in line]


def test_the_same_command_finds_what_is_finished_and_says_it_again(tmp_path: Path):
    first = run_here(tmp_path, COMMAND)
    (summary,) = (tmp_path / "plan_outputs").glob("*_point_maze_lewm_demo/summary.json")
    assert len(sentences(first)) == 4 and "nothing to do" not in first
    summary.unlink()  # as a kill leaves it while the model plays
    resumed = run_here(tmp_path, f"{COMMAND} agent.memory_gb=1.0")
    assert sentences(resumed) == sentences(first) and resumed.count("nothing to do") == 3
    assert summary.exists()
    again = run_here(tmp_path, COMMAND)
    assert sentences(again) == sentences(first) and again.count("nothing to do") == 4


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("protocol.check=never", "unknown check 'never'; known: every_step, every_round, last_step"),
        ("protocol.max_steps=52", "protocol.max_steps (52) must be a multiple of frameskip (5), such as 50"),
        ("protocol.max_rounds=0", "protocol.max_rounds (0) must be positive"),
        ("objective.alpha=0.1", "objective.alpha (0.1) weighs proprio, which this model has none of; set it to 0"),
        ("num_videos=-1", "num_videos (-1) must not be negative"),
    ],
)
def test_what_cannot_work_is_found_before_a_floor_is_played(setting: str, message: str, tmp_path: Path):
    assert message in refuse_here(tmp_path, f"{COMMAND} {setting}")
    assert not (tmp_path / "plan_outputs").exists()


def test_a_damaged_probe_costs_what_it_would_have_told(tmp_path: Path):
    shutil.copytree(SHIPPED / "point_maze_lewm", tmp_path / "checkpoints/mine")
    (tmp_path / "checkpoints/mine/probe.safetensors").write_bytes(b"damaged")
    run(
        tmp_path,
        f"{COMMAND} model_name=mine baselines=false num_videos=1 protocol.num_tasks=1",
        IMAGEIO_FFMPEG_EXE="/bin/false",
    )
    (summary,) = (tmp_path / "plan_outputs").glob("*_mine_demo/summary.json")
    assert json.loads(summary.read_text())["position_r2"] is None
