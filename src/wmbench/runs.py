"""Opening a training run's folder: what it was made of, and the refusal to mix two runs in one."""

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from wmbench.checkpoint import OLDER, read_config
from wmbench.data.episodes import EpisodeSet
from wmbench.encoders.base import weights_hash
from wmbench.encoders.matched import unmatched
from wmbench.models.world_model import WorldModel
from wmbench.provenance import git_commit, versions

# May differ when a run is taken up again.
FREE_KEYS = ("device", "wandb", "ckpt_base_path", "model_name", "decoder", "cache", "compile", "tf32")


def open_run(cfg: DictConfig, model: WorldModel, episodes: EpisodeSet) -> Path:
    """Create checkpoints/outputs/<model_name>, or go on with the same run.

    Raises:
        ValueError: the folder holds a run of another configuration or of other data.
    """
    run = Path(cfg.ckpt_base_path) / "outputs" / cfg.model_name
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    provenance = {
        "data": episodes.provenance,
        "encoder": {
            "name": HydraConfig.get().runtime.choices.get("encoder") if HydraConfig.initialized() else None,
            "source": model.encoder.source,
            "licence": model.encoder.licence,
            "weights_hash": weights_hash(unmatched(model.encoder)) if model.encoder.frozen else "trained with the model",
            "parameters": sum(p.numel() for p in model.encoder.parameters()),
        },
        "predictor_parameters": sum(p.numel() for p in model.predictor.parameters()),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "versions": versions(("wmbench", "torch", "timm", "transformers", "mujoco")),
    }
    if (run / "config.yaml").exists():
        before = OmegaConf.to_container(read_config(run / "config.yaml"))
        names = [name for name in _changed(OLDER | config, before) if name.split(".")[0] not in FREE_KEYS]
        if names:
            raise ValueError(
                f"{run} holds a run with other {', '.join(names)}; give another model_name= (or arm=), or delete it"
            )
        if json.loads((run / "provenance.json").read_text())["data"]["hash"] != episodes.hash:
            raise ValueError(f"{run} was trained on other data than {episodes.path}; give another model_name= or delete it")
        return run
    run.mkdir(parents=True, exist_ok=True)
    (run / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")
    OmegaConf.save(OmegaConf.create(config), run / "config.yaml")
    return run


def open_decoder(run: Path, config: DictConfig) -> None:
    """Begin the run's decoder, or go on with the same one.

    Raises:
        ValueError: the run holds a decoder of another configuration.
    """
    path = run / "decoder.yaml"
    if not path.exists():
        OmegaConf.save(config, path)
    elif names := _changed(OmegaConf.to_container(config), OmegaConf.to_container(OmegaConf.load(path))):
        raise ValueError(f"{run} holds a decoder with other {', '.join(names)}; delete {run / 'decoder*'} to train another")


@contextlib.contextmanager
def wandb_log(mode: str, name: str, config: Any) -> Iterator[Callable[[dict[str, float | int]], None]]:
    """A function that logs a row of metrics; it does nothing unless wandb was asked for."""
    if mode == "disabled":
        yield lambda row: None
        return
    import wandb

    with wandb.init(project="wmbench", name=name, config=config, mode=mode) as session:  # type: ignore[arg-type]
        yield lambda row: session.log(row, step=int(row["step"]))


def _changed(config: Any, before: Any) -> list[str]:
    """Dotted keys that differ."""
    return sorted({key for key, _ in _flat(config).items() ^ _flat(before).items()})


def _flat(node: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys -> printed values."""
    if not isinstance(node, dict):
        return {prefix.removesuffix("."): repr(node)}
    return {key: value for name, child in node.items() for key, value in _flat(child, f"{prefix}{name}.").items()}
