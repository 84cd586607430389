"""Commands and their configurations within the test's own process, at tiny size."""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import DictConfig

from wmbench.commands import CONF
from wmbench.models.world_model import WorldModel

ROOT = Path(__file__).parents[1]
TRAIN = "device=cpu num_hist=2 frameskip=3 predictor.depth=1 predictor.num_heads=2 predictor.head_dim=4 predictor.mlp_dim=8"
TRAIN += " training.batch_size=4 training.max_steps=2 training.valid_batches=1"


def compose(name: str, words: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        return hydra.compose(name, overrides=words.split())


@cache
def encoder_config(name: str, *settings: str) -> DictConfig:
    return compose("train", " ".join([f"encoder={name}", *settings])).encoder


def build_encoder(name: str, file: Path | None = None, **settings: Any) -> Any:
    """The encoder of a YAML file, with weights from a file, or untrained."""
    given = {"pretrained": file is not None, "weights": file and str(file)} | settings
    return instantiate(encoder_config(name), **given)


@cache
def load_script(file: str) -> Any:
    """A script of the repository as a module: train.py, scripts/collect.py."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, ROOT / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(cfg: DictConfig) -> WorldModel:
    """Run train.py; returns the model that it ends with."""
    script, built = load_script("train.py"), []
    build = script.build_world_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "build_world_model", lambda *given: built.append(build(*given)) or built[-1])
        script.main.__wrapped__(cfg)
    return built[0]
