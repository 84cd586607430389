"""World models of the field's history as rows: each is trained and planned with by the commands, at tiny size."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from families import ROWS
from in_process import compose, load_script, train

from wmbench.envs.vector import PointMazes
from wmbench.reports import show

TRAIN = "device=cpu frameskip=3 training.batch_size=4 training.max_steps=2 training.valid_batches=1 model_name=tiny"
PLAN = "model_name=tiny device=cpu num_videos=0 baselines=false protocol.num_tasks=2 protocol.max_steps=6 agent.horizon=2"
CEM = " planner.num_samples=4 planner.num_elites=2 planner.num_iters=1"


class Black:
    """Frames that need no renderer."""

    name = "warp"

    def frames(self, position: np.ndarray) -> np.ndarray:
        return np.zeros((len(position), 8, 8, 3), np.uint8)


# Of make test's minutes: a recurrent one, a state-space one, one with its own encoder; make test-slow has all.
SOONER = ("gru", "rssm", "tdmpc2_sigreg")


@pytest.mark.parametrize("row", [pytest.param(row, marks=[] if row in SOONER else pytest.mark.slow) for row in ROWS])
def test_a_row_trains_and_plans(row: str, numbered_episodes: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(show, "draw_paths", lambda *given: None)
    monkeypatch.setattr(PointMazes, "renderer", Black())
    words, objective = ROWS[row]
    data = numbered_episodes(num_episodes=6, length=12).path
    train(compose("train", f"{TRAIN}{words} env.data={data} ckpt_base_path={tmp_path}"))
    places = f" ckpt_base_path={tmp_path} output_dir={tmp_path}/plans tasks_dir={tmp_path}/tasks"
    load_script("plan.py").main.__wrapped__(compose("plan", PLAN + places + CEM + f" objective={objective}"))
    (path,) = tmp_path.glob("plans/*/summary.json")
    assert json.loads(path.read_text())["n_tasks"] == 2


@pytest.mark.parametrize(("policy", "called"), [("controller", "controller"), ("actor_critic", "actor-critic")])
def test_who_learns_in_the_dream_acts_without_a_planner(
    numbered_episodes: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, called: str
):
    if policy == "controller":
        pytest.importorskip("cma")
    monkeypatch.setattr(show, "draw_paths", lambda *given: None)
    monkeypatch.setattr(PointMazes, "renderer", Black())
    data = numbered_episodes(num_episodes=6, length=12).path
    words = f"{TRAIN}{ROWS['mdn_rnn'][0]} env.data={data} ckpt_base_path={tmp_path} policy={policy}"
    train(compose("train", words + " policy.training.max_steps=2 policy.training.batch_size=3 policy.horizon=2"))
    places = f" ckpt_base_path={tmp_path} output_dir={tmp_path}/plans tasks_dir={tmp_path}/tasks"
    load_script("plan.py").main.__wrapped__(compose("plan", PLAN + places + " actor=inverse"))
    (path,) = tmp_path.glob("plans/*/summary.json")
    summary = json.loads(path.read_text())
    assert summary["note"].endswith(f"{called}, no planner") and summary["fitted"]["policy"]["horizon"] == 2
