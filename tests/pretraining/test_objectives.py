"""What every objective of conf/pretraining promises: it learns, goes on where it stopped, and leaves a file that is read."""

from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from in_process import TRAIN, refuse_here, run_here
from PIL import Image
from several import in_processes
from tiny_scratch import LEARNED, NAMES, tiny_encoder, tiny_objective

from wmbench.data.windows import split_windows
from wmbench.encoders.base import weights_hash
from wmbench.encoders.trained import facts_of
from wmbench.pretraining.base import Pretraining
from wmbench.runs.load import load_run
from wmbench.runs.recipe import Recipe
from wmbench.training import loop
from wmbench.training.metrics import Metrics
from wmbench.training.pretraining import PretrainingTrainee, spread

RECIPE = {"max_steps": 4, "batch_size": 4, "lr": 0.01, "weight_decay": 0.0, "warmup_fraction": 0.0, "cosine": False}
RECIPE |= {"grad_clip": 1.0, "save_every": 2, "valid_every": 1, "valid_batches": 1}
RECIPE_WORDS = " ".join(f"training.{key}={value}" for key, value in RECIPE.items())
TINY = f"{RECIPE_WORDS} device=cpu encoder.image_size=16 encoder.trunk.widths=[6] encoder.embed_dim=8"


@pytest.fixture
def trainee(numbered_episodes: Callable) -> Callable[..., PretrainingTrainee]:
    """A trainee on frames of one colour each, which tells episode and step; actions are (episode, step)."""
    episodes = numbered_episodes(num_episodes=6, length=12)

    def make(objective: Pretraining, **changed) -> PretrainingTrainee:
        windows = split_windows(episodes, objective.num_frames, objective.frameskip or 1, 0.8)
        return PretrainingTrainee(objective, *windows, Recipe(**RECIPE | changed), seed=1)

    return make


def train(trainee: PretrainingTrainee, run: Path) -> PretrainingTrainee:
    run.mkdir(exist_ok=True)
    torch.manual_seed(3)
    loop.train(trainee, run, announce=lambda seconds: None)
    return trainee


@pytest.mark.parametrize("trunk", ["conv", pytest.param("vit", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_two_steps_leave_a_file_that_gives_the_same_tokens(name: str, trunk: str, trainee: Callable, tmp_path: Path):
    output = "mean" if trunk == "vit" and name not in ("vq",) else "patches"
    learner = trainee(tiny_objective(name, tiny_encoder(trunk, output)), max_steps=2)
    before = weights_hash(learner.encoder)
    if learner.learns:
        train(learner, tmp_path)
    assert (weights_hash(learner.encoder) == before) == (name == "random")
    file = tmp_path / "weights.safetensors"
    learner.encoder.save_head(file, {"objective": name, "steps": 2, "data_hash": "abc"})
    loaded = tiny_encoder(trunk, output, weights=str(file))
    obs = learner.valid.get(np.arange(3)).obs
    assert torch.equal(loaded(obs), learner.encoder.eval()(obs)) and loaded.num_tokens == (1 if output == "mean" else 4)
    assert loaded.frozen and not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.source.startswith(f"{name}, 2 steps on data abc") and loaded.note == f"pretrained on PointMaze: {name}"


@pytest.mark.parametrize("name", LEARNED)
def test_every_weight_of_the_encoder_learns_and_the_loss_falls(name: str, trainee: Callable):
    """Over steps on one batch and the same views of it."""
    learner = trainee(tiny_objective(name))
    with closing(learner.batches(0)) as batches:
        (batch,) = islice(batches, 1)
    losses = []
    for step in range(25):
        torch.manual_seed(0)
        loss = learner.forward(batch).total
        loop.take_step(learner.optimizer, learner.recipe, step, loss)
        losses.append(loss.item())
        still = [key for key, weight in learner.objective.encoder.named_parameters() if weight.grad is None]
        assert still == []
    assert losses[-1] < losses[0] if name != "dino" else np.isfinite(losses).all()  # its target moves


@pytest.mark.parametrize("name", ["dino", "vq"])
def test_a_training_that_was_cut_ends_as_if_it_had_not_been(
    name: str, trainee: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With a teacher, a centre and random views; with codes that move and begin anew. By a power cut after step 3."""
    whole = train(trainee(tiny_objective(name)), tmp_path / "whole").module.state_dict()
    append = Metrics.append

    def cut(metrics: Metrics, row: dict) -> None:
        if row["step"] == 3:
            raise RuntimeError
        append(metrics, row)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(Metrics, "append", cut)
        train(trainee(tiny_objective(name)), tmp_path / "cut")
    resumed = train(trainee(tiny_objective(name)), tmp_path / "cut").module.state_dict()
    assert all(torch.equal(tensor, whole[key]) for key, tensor in resumed.items())


@pytest.mark.slow
def test_several_processes_train_as_one_does(trainee: Callable, tmp_path: Path):
    """Views, negatives, noise, a centre and codes are those of the whole batch, in what is validated, too."""

    def work() -> None:
        for name in LEARNED:
            train(trainee(tiny_objective(name), max_steps=2), folder / name)

    for number in (1, 2):
        folder = tmp_path / str(number)
        assert in_processes(folder, number, work) == [None] * number
    for name in LEARNED:
        one, two = (pd.read_csv(tmp_path / number / name / "metrics.csv").drop(columns="steps_per_s") for number in "12")
        pd.testing.assert_frame_equal(one, two, rtol=2e-5, atol=1e-6, obj=name)


def test_a_constant_encoder_is_reported_as_collapsed(trainee: Callable):
    learner = trainee(tiny_objective("supervised"))
    assert learner.validate()["effective_rank"] > 0.9 and "collapsed" not in learner.told(
        {"effective_rank": 2.5, "token_std": 0.1}
    )
    with torch.no_grad():
        learner.encoder.project[1].weight.mul_(1e-9)  # its bias alone is left, but for rounding
    measured = learner.validate()
    assert (measured["effective_rank"], measured["token_std"]) == (0, 0)
    assert learner.told(measured).startswith("note: collapsed")


def test_the_spread_is_that_of_known_tokens():
    """Frames that differ along one direction, of size 1 by 0.1 around 1; of nothing."""
    line = np.ones((4, 3)) + 0.1 * np.array([[1], [-1], [1], [-1]])
    assert spread(line) == pytest.approx({"effective_rank": 1, "token_std": 0.1 / np.sqrt(1.01)})
    assert spread(np.zeros((4, 3))) == {"effective_rank": 0, "token_std": 0}


def test_a_disk_without_room_names_the_setting_that_moves_the_files(
    trainee: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loop, "free_disk", lambda path: 1)
    with pytest.raises(OSError, match=r"pretraining needs .* of disk .* or give output=ANOTHER_DISK"):
        train(trainee(tiny_objective("supervised")), tmp_path)


def test_measuring_leaves_no_trace(trainee: Callable):
    learner = trainee(tiny_objective("vq"))
    before, state = {k: t.clone() for k, t in learner.module.state_dict().items()}, torch.get_rng_state()
    assert learner.validate() == learner.validate()
    assert torch.equal(torch.get_rng_state(), state) and learner.module.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in learner.module.state_dict().items())


def test_what_pretrain_leaves_is_trained_on_and_planned_with(numbered_episodes: Callable, tmp_path: Path):
    data = numbered_episodes(num_episodes=6, length=12).path
    head = tmp_path / "jepa.safetensors"
    out = run_here(tmp_path, f"pretrain.py encoder=scratch pretraining=jepa env.data={data} output={head} {TINY}")
    assert "trained parameters" in out and "effective rank of tokens" in out and "R2" in out
    assert f"encoder.weights={head}" in out and "encoder.embed_dim=8" in out
    assert {path.name for path in head.with_suffix("").iterdir()} >= {"metrics.csv", "provenance.json", "features.png"}
    assert Image.open(head.with_suffix("") / "features.png").width > 100
    facts = facts_of(head)["provenance"]
    assert (facts["objective"], facts["steps"], facts["data_hash"]) == ("jepa", 4, "numbered-6-12-1")
    assert facts["effective_rank"] > 0
    before = head.read_bytes()
    again = run_here(tmp_path, f"pretrain.py encoder=scratch pretraining=jepa env.data={data} output={head} {TINY}")
    assert head.read_bytes() == before and again.splitlines()[-3:] == out.splitlines()[-3:]
    words = f"encoder=scratch encoder.weights={head} encoder.image_size=16 encoder.trunk.widths=[6] encoder.embed_dim=8"
    run_here(tmp_path, f"train.py {words} {TRAIN} model_name=tiny env.data={data}")
    model, _, provenance = load_run(tmp_path / "checkpoints" / "outputs" / "tiny")
    assert str(head) in provenance["encoder"]["source"] and model.encoder.note == "pretrained on PointMaze: jepa"
    plan = "device=cpu baselines=false num_videos=0 protocol.num_tasks=2 protocol.max_steps=6 agent.horizon=2"
    plan += " planner.num_samples=4 planner.num_elites=2 planner.num_iters=1"
    assert "tiny" in run_here(tmp_path, f"plan.py model_name=tiny {plan}")
    other = f"pretrain.py encoder=scratch pretraining=mae env.data={data} output={head} {TINY}"
    assert "holds a training with another pretraining." in refuse_here(tmp_path, other)


def test_the_untrained_floor_is_a_file_without_training(numbered_episodes: Callable, tmp_path: Path):
    data, file = numbered_episodes(num_episodes=6, length=12).path, tmp_path / "none.safetensors"
    out = run_here(tmp_path, f"pretrain.py encoder=scratch pretraining=random env.data={data} output={file} {TINY}")
    assert "effective rank" in out and not (file.with_suffix("") / "metrics.csv").exists()
    assert facts_of(file)["provenance"]["steps"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("encoder=scratch", "is trained by an objective: add pretraining=dino|inverse|jepa|"),
        ("encoder=dino_tok_s pretraining=vae", "pretraining= is for encoder=scratch, leave it out"),
        ("encoder=random_patch pretraining=vae", "RandomPatch has no head to train"),
        ("encoder=scratch pretraining=mae pretraining.patch=7", "image_size (64) must be a multiple of the patch (7)"),
        ("encoder=scratch pretraining=jepa pretraining.hidden=0.01", "hidden (0.01) must leave some of the 16 cells seen"),
        ("encoder=scratch pretraining=jepa pretraining.num_heads=5", "num_heads (5) must divide the encoder's embed_dim"),
        ("encoder=scratch pretraining=vq pretraining.num_codes=0", "pretraining.num_codes (0) must be a whole number"),
        ("encoder=scratch pretraining=tcl pretraining.far=1", "far (1) must be at least 2"),
        ("encoder=scratch pretraining=dino pretraining.decay=1", "decay (1) must be at least 0 and below 1"),
        ("encoder=scratch pretraining=inverse pretraining.num_frames=1", "num_frames (1) must be at least 2"),
    ],
)
def test_what_cannot_be_trained_is_refused(words: str, message: str, numbered_episodes: Callable, tmp_path: Path):
    data = numbered_episodes(num_episodes=6, length=12).path
    where = f"env.data={data} output={tmp_path}/x.safetensors device=cpu"
    assert message in refuse_here(tmp_path, f"pretrain.py {words} {where}")
