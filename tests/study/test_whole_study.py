"""study.py as a user types it, with the commands that it runs: one row, one seed, two tasks."""

import json
import time
from pathlib import Path

import pandas as pd
import pytest
from command_line import ROOT, run, start
from hydra.core.global_hydra import GlobalHydra
from in_process import enter, run_here

from wmbench.study import runner

COMMAND = "study.py --config-dir conf study=one"
STUDY = """
name: one
seeds: [3]
data: num_episodes=6 image_size=32 store_every=5 env.renderer=warp episode_length=40 num_workers=1
train: training.max_steps=2 training.batch_size=4 training.valid_batches=1 device=cpu predictor.depth=1
rows: {state: encoder=state}
evaluations:
  open: >-
    protocol=bench_open protocol.num_tasks=2 planner.num_samples=6 planner.num_elites=2 planner.budget=12 num_videos=0
    device=cpu
floors: [zero]
contrasts:
  - {name: learned, a: state, b: zero, expect: a > b, evaluation: open, question: "Does two steps' training help?"}
"""
PROMISED = {
    "outcomes": "row seed evaluation protocol planner conditions task stratum geodesic success success_0.25 success_0.1 "
    "held spl steps final_distance",
    "table": "row encoder arm evaluation protocol planner outcome radius success success_low success_high n_seeds n_tasks "
    "conditions weights parameters steps spl final_distance note folders",
    "contrasts": "name a b evaluation outcome question difference low high t_low t_high p p_holm verdict margin n_seeds_a "
    "n_seeds_b n_tasks power",
    "cells": "row seed evaluation state",
}


# Files that tell where a study is, in its order: in each of these moments it is killed.
MOMENTS = (
    "data.h5.progress",
    "logs/open_zero.log",
    "runs/outputs/state_s3/step_000002.safetensors",
    "logs/open_state_s3.log",
    "results/*/*state_s3*/summary.json",
)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with the study in a configuration of its own."""
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "study" / "one.yaml").write_text(STUDY)
    return tmp_path


def in_this_process(command, stdout, **_) -> int:
    """Takes the place of runner.call, without the seconds that a process takes to start."""
    GlobalHydra.instance().clear()  # study.py has read its configuration
    code, out, err = enter(Path.cwd(), " ".join([str(Path(command[1]).relative_to(ROOT)), *command[2:]]))
    stdout.write(out + err)
    return code


@pytest.mark.filterwarnings("ignore")
def test_a_study_is_made_whole_by_one_command_and_then_there_is_nothing_to_do(work: Path, monkeypatch):
    monkeypatch.setattr(runner, "call", in_this_process)
    assert run_here(work, COMMAND).splitlines()[-1] == "2 of 2 cells done"

    folder = work / "studies" / "one"
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in PROMISED}
    for name, columns in PROMISED.items():
        assert set(columns.split()) <= set(tables[name]), name
    assert tables["outcomes"].groupby("row")["task"].count().to_dict() == {"state": 2, "zero": 2}
    assert tables["contrasts"]["verdict"].tolist() == ["no claim"]
    assert tables["cells"]["state"].tolist() == ["done", "done"]
    lock = json.loads((folder / "lock.json").read_text())
    assert lock["changes"] == [] and lock["first_result"] is not None
    assert "state" in (folder / "report" / "index.html").read_text()

    made = {path: path.stat().st_mtime_ns for part in ("results", "runs", "logs") for path in (folder / part).rglob("*")}
    moved = work / "elsewhere"
    folder.rename(moved)
    assert run_here(work, f"{COMMAND} folder={moved}").splitlines()[-1] == "2 of 2 cells done"
    made = {moved / path.relative_to(folder): stamp for path, stamp in made.items()}
    assert made == {path: path.stat().st_mtime_ns for path in made}
    pd.testing.assert_frame_equal(tables["outcomes"], pd.read_csv(moved / "outcomes.csv"))


@pytest.mark.slow
def test_a_study_killed_at_five_moments_ends_with_the_same_numbers(work: Path):
    run(work, f"{COMMAND} folder=whole")
    for moment in MOMENTS:
        process = start(work, f"{COMMAND} folder=killed")
        while not list((work / "killed").glob(moment)):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.kill()
        process.communicate()
    assert run(work, f"{COMMAND} folder=killed").splitlines()[-1] == "2 of 2 cells done"
    for table in ("outcomes", "table", "contrasts", "pairs", "cells"):
        whole, killed = (pd.read_csv(work / folder / f"{table}.csv") for folder in ("whole", "killed"))
        same = [name for name in whole if name != "folders" and not name.startswith("seconds_per_")]
        pd.testing.assert_frame_equal(whole[same], killed[same])
