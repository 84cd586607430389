"""train.py and plan.py within the test's own process, at tiny size."""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from wmbench.commands import CONF
from wmbench.models.world_model import WorldModel

ROOT = Path(__file__).parents[2]
TRAIN = "device=cpu num_hist=2 frameskip=3 predictor.depth=1 predictor.num_heads=2 predictor.head_dim=4 predictor.mlp_dim=8"
TRAIN += " training.batch_size=4 training.max_steps=2 training.valid_batches=1"


def compose(name: str, words: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        return hydra.compose(name, overrides=words.split())


@cache
def command(name: str) -> Any:
    """train.py or plan.py as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(cfg: DictConfig) -> WorldModel:
    """Run train.py; returns the model that it ends with."""
    script, built = command("train"), []
    build = script.build_world_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "build_world_model", lambda *given: built.append(build(*given)) or built[-1])
        script.main.__wrapped__(cfg)
    return built[0]
