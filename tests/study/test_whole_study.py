"""study.py as a user types it, with the commands that it runs: one row, one seed, two tasks."""

import json
from pathlib import Path

import pandas as pd
import pytest
from command_line import run

STUDY = """
name: one
seeds: [3]
data: num_episodes=6 image_size=32 store_every=5 env.renderer=warp episode_length=40
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


@pytest.mark.filterwarnings("ignore")
def test_a_study_is_made_whole_by_one_command_and_then_there_is_nothing_to_do(tmp_path: Path):
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "study" / "one.yaml").write_text(STUDY)
    command = "study.py --config-dir conf study=one"
    assert run(tmp_path, command).splitlines()[-1] == "2 of 2 cells done"

    folder = tmp_path / "studies" / "one"
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
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    assert run(tmp_path, f"{command} folder={moved}").splitlines()[-1] == "2 of 2 cells done"
    made = {moved / path.relative_to(folder): stamp for path, stamp in made.items()}
    assert made == {path: path.stat().st_mtime_ns for path in made}
    pd.testing.assert_frame_equal(tables["outcomes"], pd.read_csv(moved / "outcomes.csv"))
