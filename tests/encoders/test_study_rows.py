"""study=encoders is whole: its rows train and play its evaluations, from tiny random weights in the official formats."""

import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import TRAIN, compose, load_script, train
from miniature import shrink
from omegaconf import DictConfig, OmegaConf

from wmbench.commands import CONF
from wmbench.envs.vector import PointMazes
from wmbench.evaluation.results import find_summaries
from wmbench.reports import show
from wmbench.study.grid import Study

WRITTEN = OmegaConf.load(Path(CONF, "study", "encoders.yaml"))
ROWS, EVALUATIONS = list(WRITTEN.rows), list(WRITTEN.evaluations)
PLAYED = dict(zip(ROWS, EVALUATIONS * len(ROWS), strict=False))  # all evaluations in turn
SAMPLE = {"dino_tok": "inverse", "vjepa2_pair": "closed_learned", "dinov2_7x7": "open_adam", "state": "closed_cem"}
HEADS = " ".join(
    f"{{0}}.training.{word}".format(head)
    for head in ("distance", "policy")
    for word in ("max_steps=2", "batch_size=4", "valid_batches=1")
)
PLAY = "device=cpu baselines=false num_videos=0 planner.budget=8 protocol.num_tasks=2"
PLAY += " protocol.short_steps=3 protocol.max_steps=6"


class Black:
    """Frames that need no renderer."""

    name = "warp"

    def frames(self, position: np.ndarray) -> np.ndarray:
        return np.zeros((len(position), 8, 8, 3), np.uint8)


@cache
def study() -> Study:
    config: Any = OmegaConf.to_container(compose("study", "study=encoders folder=studies/encoders").study, resolve=True)
    return Study.of(config, Path("studies/encoders"))


def training(row: str) -> DictConfig:
    return compose("train", f"{study().train} {study().rows[row]}")


def playing(evaluation: str) -> DictConfig:
    return compose("plan", study().evaluations[evaluation])


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_a_training_of_the_encoder_that_it_is_named_after(row: str):
    cfg, words = training(row), study().rows[row]
    assert cfg.distance and cfg.policy, "the evaluations closed_learned and inverse need both"
    (encoder,) = (word.partition("=")[2] for word in shlex.split(words) if word.startswith("encoder="))
    assert row.startswith(encoder)
    assert ("arm=matched" in words) == (cfg.get("arm") == "matched")


def test_every_evaluation_has_the_same_tasks_and_number_of_evaluations_per_plan():
    cfgs = [playing(evaluation) for evaluation in EVALUATIONS]
    assert {(cfg.protocol.split, cfg.protocol.num_tasks, cfg.planner.budget) for cfg in cfgs} == {("test", None, 1000)}


def make(row: str, evaluation: str, data: Path, folder: Path) -> None:
    """Train a row for two steps and let it play two tasks of an evaluation."""
    cfg = compose(
        "train",
        f"{study().train} {study().rows[row]} {TRAIN} {HEADS} env.data={data} model_name={row} ckpt_base_path={folder}",
    )
    if "weights" in cfg.encoder:
        cfg.encoder.weights = None  # the study's own head; a tiny one takes its place
    shrink(cfg.encoder, folder)
    if cfg.encoder.get("pretrained") is False:
        cfg.encoder.weights = None
    if cfg.arm == "matched":
        cfg.matched.width, cfg.matched.pool = 8, cfg.matched.pool and 1
    train(cfg)
    samples = "" if "adam" in evaluation else "planner.num_samples=4 planner.num_elites=2"
    where = f"model_name={row} ckpt_base_path={folder} output_dir={folder}/plans"
    load_script("plan.py").main.__wrapped__(compose("plan", f"{study().evaluations[evaluation]} {PLAY} {samples} {where}"))


def check(row: str, evaluation: str, numbered_episodes: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "draw_paths", lambda *given: None)
    monkeypatch.setattr(PointMazes, "renderer", Black())
    make(row, evaluation, numbered_episodes(num_episodes=6, length=12).path, folder)
    (summary,) = find_summaries(folder / "plans")
    assert (summary["row"], summary["n_tasks"]) == (row, 2)
    assert {"success_0.25", "success_0.1", "held", "spl"} <= summary.keys()


@pytest.mark.parametrize("row", SAMPLE)
def test_rows_of_every_kind_train_and_play(row: str, numbered_episodes, tmp_path, monkeypatch):
    check(row, SAMPLE[row], numbered_episodes, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_every_row_trains_and_plays(row: str, numbered_episodes, tmp_path, monkeypatch):
    check(row, PLAYED[row], numbered_episodes, tmp_path, monkeypatch)
