"""Commands and their configurations within the test's own process, at tiny size."""

import importlib.util
import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
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
from wmbench.runs import build

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
    built: list[WorldModel] = []
    make = build.build_world_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build_world_model", lambda *given: built.append(make(*given)) or built[-1])
        load_script("train.py").main.__wrapped__(cfg)
    return built[0]


def enter(folder: Path, command: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command as typed in a folder, in this process."""
    script, *words = command.split()
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", [script, *words])
        patch.delenv("HYDRA_FULL_ERROR", raising=False)
        try:
            load_script(script).main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            GlobalHydra.instance().clear()
            os.environ.pop("HYDRA_FULL_ERROR", None)
    return code, out.getvalue(), err.getvalue()


def run_here(folder: Path, command: str) -> str:
    """Output of a command that succeeds: command_line.run without the seconds that a process takes to start."""
    code, out, err = enter(folder, command)
    assert code == 0, f"{command}\n{out}\n{err}"
    return out


def refuse_here(folder: Path, command: str) -> str:
    """The one-line error of a command that fails as it should: command_line.refuse without a process."""
    code, _, err = enter(folder, command)
    assert code == 1 and "Traceback" not in err, err
    return next(line for line in err.splitlines() if line.startswith("error: "))
