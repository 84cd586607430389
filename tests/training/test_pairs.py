"""What is trained on pairs of frames: which pairs these are, that it resumes, and that nothing else feels it."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from few_steps import FEW_STEPS, FRAMESKIP, NUM_HIST, new_normalizer, read_metrics
from safetensors.torch import load_file

from wmbench.data.windows import Windows
from wmbench.encoders.random_patch import RandomPatch
from wmbench.models.inverse import InverseModel
from wmbench.models.quasimetric import Quasimetric
from wmbench.models.world_model import WorldModel
from wmbench.runs.load import load_head, save_part
from wmbench.runs.recipe import Recipe
from wmbench.training import loop
from wmbench.training.pairs import PairTrainee, draw_pairs
from wmbench.training.part import Part
from wmbench.training.variance import load_variance, save_variance, token_variance

READER = {"token_width": 3, "width": 6}
CONFIGS: dict[str, dict[str, Any]] = {
    "distance": {"_target_": "wmbench.models.quasimetric.Quasimetric", **READER, "expectile": 0.1, "horizon": 2},
    "policy": {"_target_": "wmbench.models.inverse.InverseModel", **READER, "horizon": 2},
}


def make_model() -> WorldModel:
    encoder = RandomPatch(image_size=8, grid=2, embed_dim=5, seed=0)
    sizes = {"proprio": "none", "proprio_embed_dim": 1, "frameskip": FRAMESKIP, "num_hist": NUM_HIST}
    return WorldModel(encoder, None, new_normalizer(), **sizes).eval()


def make_head(name: str) -> Quasimetric | InverseModel:
    torch.manual_seed(0)
    sizes = {"dim": 5, "num_tokens": 4, **READER}
    return Quasimetric(**sizes, expectile=0.1) if name == "distance" else InverseModel(**sizes, action_dim=2 * FRAMESKIP)


@pytest.fixture
def windows(numbered_episodes: Callable) -> tuple[Windows, Windows]:
    episodes = numbered_episodes(num_episodes=6, length=12)
    return tuple(Windows(episodes, np.array(which), NUM_HIST, FRAMESKIP) for which in ([0, 1, 2, 4, 5], [3]))


def train(name: str, windows: tuple[Windows, Windows], run: Path, **changed: Any) -> PairTrainee:
    run.mkdir(exist_ok=True)
    part = Part(name, CONFIGS[name], make_head(name))
    trainee = PairTrainee(make_model(), part, *windows, Recipe(**FEW_STEPS), seed=1, horizon=2)
    loop.train(trainee, run, **{"announce": lambda seconds: None, "log": lambda row: None} | changed)
    return trainee


def test_a_pair_is_two_frames_of_an_episode_as_many_blocks_apart_as_it_says_and_the_first_ones_action(windows: Any):
    train_windows = windows[0]
    index = np.arange(len(train_windows))
    pairs = draw_pairs(train_windows, index, horizon=3, key=(7, 0))
    here, later = pairs.here["proprio"][:, 0], pairs.later["proprio"][:, 0]
    assert torch.equal(here[:, 0], later[:, 0]), "both of one episode"
    assert torch.equal(later[:, 1] - here[:, 1], (FRAMESKIP * pairs.blocks).float())
    assert torch.equal(pairs.here["visual"][:, 0, 0, 0, 0], (20 * here[:, 0] + here[:, 1]).byte())
    steps = here[:, 1, None] + torch.arange(FRAMESKIP)
    assert torch.equal(pairs.action.view(len(index), FRAMESKIP, 2)[..., 1], steps)
    assert set(pairs.blocks.tolist()) == {1, 2, 3} and later[:, 1].max() <= 11
    again, other = (draw_pairs(train_windows, index, horizon=3, key=key).blocks for key in ((7, 0), (7, 1)))
    assert torch.equal(again, pairs.blocks) and not torch.equal(other, pairs.blocks)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_head_stopped_at_any_step_ends_as_if_it_had_not_been(name: str, windows: Any, tmp_path: Path):
    whole = train(name, windows, tmp_path / "whole")

    def stop(row: dict) -> None:
        if row["step"] == 6:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(name, windows, tmp_path / "cut", log=stop)
    torch.manual_seed(7)
    resumed = train(name, windows, tmp_path / "cut")
    for key, tensor in whole.module.state_dict().items():
        assert torch.equal(resumed.module.state_dict()[key], tensor), key
    assert read_metrics(tmp_path / f"cut/{name}_metrics.csv") == read_metrics(tmp_path / f"whole/{name}_metrics.csv")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_saved_head_comes_back_ready_to_use_and_refuses_what_is_not_its_own(name: str, tmp_path: Path):
    model, head = make_model(), make_head(name)
    with pytest.raises(FileNotFoundError, match=f"has no {name}; train one: .* with {name}="):
        load_head(tmp_path, name, model)
    save_part(tmp_path, name, CONFIGS[name], head)
    loaded = load_head(tmp_path, name, model)
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    for key, tensor in head.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
    save_part(tmp_path, name, CONFIGS[name] | {"width": 7}, head)
    with pytest.raises(ValueError, match=rf"does not fit its {name}\.yaml"):
        load_head(tmp_path, name, model)
    save_part(tmp_path, name, CONFIGS[name] | {"_target_": "os.system"}, head)
    with pytest.raises(ValueError, match=rf"_target_ \(os.system\) is none of the classes that conf/{name} names.*; delete"):
        load_head(tmp_path, name, model)
    save_part(tmp_path, name, CONFIGS[name], head)
    os.truncate(tmp_path / f"{name}.safetensors", 100)
    with pytest.raises(ValueError, match=rf"{name}\.safetensors is damaged or truncated"):
        load_head(tmp_path, name, model)


def test_the_variance_of_tokens_is_that_of_the_training_frames(windows: Any, tmp_path: Path):
    model, train_windows = make_model(), windows[0]
    obs = train_windows.get(np.arange(len(train_windows))).obs
    expected = model.encode(obs)[:, 0].double().var(0, correction=0).mean(-1)
    found = token_variance(model, train_windows)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)
    with pytest.raises(
        FileNotFoundError, match=r"has no variance.safetensors, which objective=variance needs; the train.py"
    ):
        load_variance(tmp_path)
    save_variance(tmp_path, found)
    assert torch.equal(load_variance(tmp_path), found)
    assert load_file(tmp_path / "variance.safetensors").keys() == {"variance"}


def test_a_token_that_never_changes_has_no_variance(windows: Any):
    class Still(WorldModel):
        def encode(self, obs):
            tokens = super().encode(obs)
            tokens[:, :, 2] = 0.1 * torch.arange(5)  # rounding leaves a trace of it
            return tokens

    model = make_model()
    model.__class__ = Still
    variance = token_variance(model, windows[0])
    assert variance[2] == 0 and (variance[[0, 1, 3]] > 0).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_head_that_is_not_finite_stops_before_its_first_step(name: str, windows: Any, tmp_path: Path, monkeypatch):
    head = make_head(name)
    with torch.no_grad():
        head.reader.narrow.bias.fill_(torch.nan)
    monkeypatch.setitem(globals(), "make_head", lambda name: head)
    with pytest.raises(ValueError, match=f"training {name}: the loss is nan before the first step"):
        train(name, windows, tmp_path)
