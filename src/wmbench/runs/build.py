"""The untrained model or decoder that a configuration describes."""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.base import Encoder
from wmbench.encoders.matched import matched
from wmbench.encoders.scratch import Scratch
from wmbench.envs.view import EnvSpec
from wmbench.models.projected import Projected
from wmbench.models.world_model import WorldModel, proprio_part
from wmbench.pretraining.base import Pretraining

ACTION_DIM, PROPRIO_DIM = EnvSpec.action_dim, EnvSpec.proprio_dim
MAY_BE_ZERO = ("concat_dim", "dropout", "num_res_blocks", "num_small")
LARGEST = 2**16  # of a network's sizes; more layers than that would be built for ever
UNMATCHED = {
    "pool": None,
    "width": None,
    "standardise": False,
    "layer_norm": False,
    "by_token": False,
    "projection": "random",
}


def build_world_model(cfg: DictConfig, normalizer: Normalizer) -> WorldModel:
    """Build the untrained model that a training configuration describes."""
    if cfg.num_hist < 1:
        raise ValueError(f"num_hist ({cfg.num_hist}) must be at least 1: the predictor needs a frame to start from")
    if cfg.num_pred != 1:
        raise ValueError(f"num_pred ({cfg.num_pred}) must be 1: a rollout advances one frame a call")
    check_sizes("predictor", cfg.predictor)
    if cfg.proprio_embed_dim < 1:
        raise ValueError(f"proprio_embed_dim ({cfg.proprio_embed_dim}) must be at least 1; proprio=none leaves proprio out")
    encoder = instantiate(cfg.encoder)
    if not isinstance(encoder, Encoder):
        raise ValueError(f"encoder ({cfg.encoder._target_}) builds a {type(encoder).__name__}, and no encoder")
    if train_encoder := cfg.get("train_encoder", False):
        encoder.unfreeze()
    arm = UNMATCHED | dict(cfg.get("matched", {}))
    encoder = matched(encoder, **arm)
    regularizer = instantiate(cfg.training.regularizer)
    if not encoder.frozen and not train_encoder and regularizer is None:
        raise ValueError("an encoder that trains with the model collapses without training.regularizer; use training=lewm")
    has_proprio = len(range(PROPRIO_DIM)[proprio_part(cfg.proprio)]) > 0
    if cfg.concat_dim not in (0, 1):
        raise ValueError(f"concat_dim ({cfg.concat_dim}) must be 1 (extend every token) or 0 (one more token)")
    dim = encoder.embed_dim + (has_proprio and cfg.concat_dim == 1) * cfg.proprio_embed_dim
    build = instantiate(
        cfg.predictor,
        _partial_=True,
        num_tokens=encoder.num_tokens + (has_proprio and cfg.concat_dim == 0),
        num_hist=cfg.num_hist,
        action_dim=cfg.frameskip * ACTION_DIM,
    )
    return WorldModel(
        encoder,
        Projected(build, dim, arm["width"] or dim) if arm["projection"] == "learned" else build(dim=dim),
        normalizer,
        proprio=cfg.proprio,
        proprio_embed_dim=cfg.proprio_embed_dim,
        concat_dim=cfg.concat_dim,
        frameskip=cfg.frameskip,
        num_hist=cfg.num_hist,
        regularizer=regularizer,
    )


def check_sizes(where: str, config: Mapping[str, Any]) -> None:
    """Refuse layers, heads and widths that are none.

    Raises:
        ValueError: naming the setting.
    """
    for name, value in config.items():
        least = 0 if name in MAY_BE_ZERO else 1
        if isinstance(value, int) and not isinstance(value, bool) and not least <= value <= LARGEST:
            raise ValueError(f"{where}.{name} ({value}) must be a whole number from {least} to {LARGEST}")


def build_decoder(config: Mapping[str, Any], dim: int, grid: tuple[int, int], image_size: int) -> nn.Module:
    """Build the untrained decoder that a configuration describes, from a grid of tokens of width dim to square frames."""
    module = {name: value for name, value in config.items() if name != "training"}
    check_sizes("decoder", module)
    return instantiate(module, _partial_=True)(dim=dim, grid=grid, image_size=image_size)


def build_head(config: Mapping[str, Any], model: WorldModel) -> nn.Module:
    """Build the untrained distance or policy that a configuration describes, on the visual latents of a model."""
    module = {name: value for name, value in config.items() if name not in ("training", "horizon")}
    build = instantiate(module, _partial_=True, dim=model.encoder.embed_dim, num_tokens=model.encoder.num_tokens)
    return _given(build, action_dim=lambda: model.frameskip * ACTION_DIM, memory_dim=lambda: model.predictor.memory_dim)


def build_pretraining(config: Mapping[str, Any], encoder: Scratch, decoder: Mapping[str, Any]) -> Pretraining:
    """Build the objective that a configuration describes around an encoder, with what it takes of decoder and actions."""
    check_sizes("pretraining", config)
    build = instantiate(config, _partial_=True, _convert_="all")
    return _given(
        partial(build, encoder=encoder),
        decoder=lambda: build_decoder(decoder, encoder.embed_dim, encoder.map_grid, encoder.image_size),
        action_dim=lambda: config["frameskip"] * ACTION_DIM,
    )


def _given(build: Any, **offered: Callable[[], Any]) -> Any:
    """Build with those of the arguments offered that are asked for, made only then."""
    asked = signature(build.func).parameters
    return build(**{name: make() for name, make in offered.items() if name in asked})
