"""What names kept tokens tells every encoder from any other one whose tokens differ."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from in_process import compose
from miniature import shrink
from omegaconf import DictConfig, OmegaConf

from wmbench.commands import CONF
from wmbench.encoders.base import Encoder
from wmbench.encoders.timm_vit import TimmViT
from wmbench.shapes import Obs
from wmbench.training.source import identity

NAMES = sorted(path.stem for path in Path(CONF, "encoder").glob("*.yaml"))
CHOICES: dict[str, tuple[Any, ...]] = {
    "temporal": ("image", "still", "pair"),
    "output": ("patches", "cls", "pooled", "layer3"),
    "pixels": ("native", "dino_wm"),
    "positions": ("timm", "hub"),
    "pretrained": (True, False),
    "seed": (0, 1),
    "velocity_weight": (0.2, 0.3),
}


def variants(config: DictConfig) -> Iterator[DictConfig]:
    """The encoder, and it with one other setting each."""
    yield config
    for key, values in CHOICES.items():
        for value in values:
            if key in config and value != config[key]:
                changes = {key: value} | ({"pretrained": False, "weights": None} if key in ("pretrained", "seed") else {})
                yield OmegaConf.merge(config, {k: v for k, v in changes.items() if k in config})  # type: ignore[misc]
    if "image_size" in config and config.image_size:
        yield OmegaConf.merge(config, {"image_size": 2 * config.image_size})  # type: ignore[misc]
    if config.get("architecture", {}).get("num_heads"):
        yield OmegaConf.merge(config, {"architecture": {"num_heads": 2}})  # type: ignore[misc]


def built(config: DictConfig) -> Encoder | None:
    try:
        return instantiate(config).eval()
    except InstantiationException:
        return None  # a setting that this encoder refuses


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_settings_that_give_other_tokens_have_other_identities(name: str, tmp_path: Path):
    cfg = compose("train", f"encoder={name}")
    shrink(cfg.encoder, tmp_path)
    visual = torch.randint(0, 256, (1, 3, 48, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    obs = Obs(visual=visual[:, 1:], before=visual[:, :1], proprio=torch.ones(1, 2, 4))
    encoders = [encoder for config in variants(cfg.encoder) if (encoder := built(config)) is not None]
    found = [(identity(encoder), encoder(obs)) for encoder in encoders]
    for (one, tokens), (other, others) in combinations(found, 2):
        assert (one == other) <= (tokens.shape == others.shape and torch.equal(tokens, others))
    again = built(cfg.encoder)
    assert again is not None and (not again.frozen or identity(again) == found[0][0])


def test_the_same_weights_from_another_place_are_the_same_encoder(tmp_path: Path):
    cfg = compose("train", "encoder=mae")
    shrink(cfg.encoder, tmp_path)
    here = instantiate(cfg.encoder)
    Path(cfg.encoder.weights).rename(tmp_path / "moved.pth")
    cfg.encoder.weights = str(tmp_path / "moved.pth")
    there = instantiate(cfg.encoder)
    assert isinstance(there, TimmViT) and here.source != there.source
    assert identity(here) == identity(there)
