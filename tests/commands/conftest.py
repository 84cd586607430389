"""Commands typed within this process: what a command's function is given, and what is printed."""

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from wmbench.commands import command


@dataclass
class Typed:
    code: int
    configs: list[DictConfig]
    err: str

    def value(self, key: str) -> Any:
        """A setting that the only job was given."""
        (cfg,) = self.configs
        return OmegaConf.select(cfg, key)

    @property
    def error(self) -> str:
        """The one line of a command that was refused before it ran."""
        assert (self.code, self.configs) == (1, []), self
        assert "Traceback" not in self.err
        (line,) = [line for line in self.err.splitlines() if not line.startswith("note: ")]
        assert line.startswith("error: ")
        return line


@pytest.fixture
def typed(monkeypatch, capsys, tmp_path) -> Callable[..., Typed]:
    """Type `train seed=1` as in a shell; `job` stands for what the command does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setenv("HOME", "/home/reader")

    def run(line: str, job: Callable[[DictConfig], None] = lambda cfg: None) -> Typed:
        name, *words = shlex.split(line)
        configs: list[DictConfig] = []

        def main(cfg: DictConfig) -> None:
            configs.append(cfg)
            job(cfg)

        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        code: Any = 0
        try:
            command(name)(main)()
        except SystemExit as stop:
            code = stop.code
        finally:
            GlobalHydra.instance().clear()
            os.environ.pop("HYDRA_FULL_ERROR", None)
        return Typed(code, configs, capsys.readouterr().err)

    return run
