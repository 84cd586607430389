"""A pretrained encoder trained with the model (train_encoder): DINO-WM's two optimisers, checkpoints, resuming, refusals."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from in_process import TRAIN, compose, train
from miniature import shrink
from omegaconf import DictConfig, OmegaConf
from torch import nn

from wmbench.commands import CONF
from wmbench.data.normalizer import Normalizer
from wmbench.data.windows import Windows
from wmbench.encoders.base import Encoder
from wmbench.models.world_model import WorldModel
from wmbench.runs.build import build_world_model
from wmbench.runs.load import load_run
from wmbench.runs.recipe import Recipe
from wmbench.training import loop
from wmbench.training.world_model import WorldModelTrainee

CHOICES = sorted(Path(CONF, "encoder").glob("*.yaml"))
TARGETS = {OmegaConf.load(path).get("_target_"): path.stem for path in CHOICES}  # an encoder of each family
WITHOUT = ("state", "pixels", "lewm", "lewm_small", "resnet18")  # nothing to unfreeze; no small network
NAMES = [name for target, name in TARGETS.items() if target is not None and name not in WITHOUT]
FIT = {"max_steps": 4, "batch_size": 4, "lr": 1e-2, "weight_decay": 0.5, "warmup_fraction": 0.0, "cosine": False}
FIT |= {"grad_clip": None, "save_every": 4, "valid_every": 1, "valid_batches": 1}


def configure(words: str, folder: Path) -> DictConfig:
    cfg = compose("train", f"{TRAIN} {words} train_encoder=true ckpt_base_path={folder}")
    shrink(cfg.encoder, folder)
    return cfg


def build(cfg: DictConfig) -> WorldModel:
    torch.manual_seed(0)
    return build_world_model(cfg, Normalizer(torch.tensor([2.0, 6.0]), torch.ones(2), torch.zeros(4), torch.ones(4)))


@pytest.fixture
def windows(numbered_episodes: Callable) -> tuple[Windows, Windows]:
    episodes = numbered_episodes(num_episodes=6, length=12)
    first, last = ([0, 1, 2, 4, 5], [3])
    return Windows(episodes, torch.tensor(first).numpy(), 3, 3), Windows(episodes, torch.tensor(last).numpy(), 3, 3)


def run_fit(model: WorldModel, windows: tuple[Windows, Windows], run: Path, encoder_lr: float, **changed) -> None:
    run.mkdir(exist_ok=True)
    options = {"announce": lambda seconds: None, "log": lambda row: None}
    recipe = Recipe(**FIT | {name: value for name, value in changed.items() if name in FIT}, encoder_lr=encoder_lr)
    options |= {name: value for name, value in changed.items() if name not in FIT}
    loop.train(WorldModelTrainee(model, *windows, recipe, seed=1), run, **options)


@pytest.mark.parametrize("name", NAMES)
def test_every_family_can_be_trained_and_its_checkpoint_holds_the_encoder(
    name: str, numbered_episodes: Callable, tmp_path: Path
):
    data = numbered_episodes(num_episodes=6, length=12).path
    cfg = configure(f"encoder={name} env.data={data} model_name=tuned", tmp_path)
    before = dict(instantiate(cfg.encoder).named_parameters())
    model = train(cfg)
    assert all(module.frozen is False for module in model.encoder.modules() if isinstance(module, Encoder))
    loaded, saved, provenance = load_run(tmp_path / "outputs" / "tuned")
    after = loaded.encoder.state_dict()
    assert all(torch.equal(tensor, after[key]) for key, tensor in model.encoder.state_dict().items())
    moved = [key for key, tensor in before.items() if not torch.equal(tensor, after[key])]
    assert len(moved) > 0.7 * len(before), set(before).difference(moved)
    assert provenance["encoder"]["weights_hash"] == "trained with the model"
    assert provenance["encoder"]["source"].endswith(", trained with the model")
    assert saved.arm == "finetuned"


def test_the_first_step_of_the_encoder_is_adams(windows: tuple[Windows, Windows], tmp_path: Path):
    """lr g / (|g| + eps) for every weight, without the weight decay of the others."""
    model = build(configure("encoder=dinov2 env.data=x", tmp_path))
    before = {name: parameter.detach().clone() for name, parameter in model.encoder.named_parameters()}
    gradients = {}
    for name, parameter in model.encoder.named_parameters():
        parameter.register_hook(lambda gradient, name=name: gradients.update({name: gradient.clone()}))
    run_fit(model, windows, tmp_path / "run", encoder_lr=1e-3, max_steps=1)
    assert gradients.keys() == before.keys()
    for name, parameter in model.encoder.named_parameters():
        step = 1e-3 * gradients[name] / (gradients[name].abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), before[name] - step, rtol=0, atol=1e-6)
        assert name == "trunk.pos_embed" or step.abs().max() > 0.9e-3


def test_a_stopped_run_ends_as_if_it_had_not_been(windows: tuple[Windows, Windows], tmp_path: Path):
    cfg = configure("encoder=dinov2 env.data=x", tmp_path)

    def stop(row: dict) -> None:
        if row["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    run_fit(whole := build(cfg), windows, tmp_path / "whole", encoder_lr=1e-4)
    with pytest.raises(KeyboardInterrupt):
        run_fit(build(cfg), windows, tmp_path / "run", encoder_lr=1e-4, log=stop)
    run_fit(resumed := build(cfg), windows, tmp_path / "run", encoder_lr=1e-4)
    for (name, ours), theirs in zip(resumed.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_batch_norm_counts_batches_in_training_alone(tmp_path: Path):
    encoder = build(configure("encoder=resnet18_layer3 env.data=x", tmp_path)).train().encoder
    norm = next(module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d))
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for mode, is_moved in ((True, True), (False, False)):
        before = norm.running_mean.clone()
        encoder.train(mode).tokens(pixels)
        assert torch.equal(norm.running_mean, before) != is_moved


def test_the_target_is_detached(tmp_path: Path, windows: tuple[Windows, Windows]):
    """A gradient arrives through the frames that are predicted from and not through the last one, a target alone."""
    model = build(configure("encoder=random_patch env.data=x", tmp_path)).eval()
    batch = windows[0].get(torch.tensor([0, 7]).numpy())
    z = model.encode(batch.obs).detach().requires_grad_()
    model.encode = lambda obs: z  # type: ignore[method-assign]
    model.loss(batch).total.backward()
    assert z.grad is not None and z.grad[:, 0].any() and not z.grad[:, -1].any()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("encoder=state", "train_encoder=true needs an encoder with weights, and State has none"),
        ("encoder=pixels", "train_encoder=true needs an encoder with weights, and Pixels has none"),
        ("encoder=lewm_small", "train_encoder=true is for frozen encoders, and SmallLeWM is trained anyway"),
        ("encoder=random_patch matched.standardise=true", "standardise=true needs a frozen encoder"),
    ],
)
def test_what_cannot_be_trained_is_refused(words: str, message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        build(configure(f"{words} env.data=x", tmp_path))
