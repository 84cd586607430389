"""Opening a training run's folder: what it was made of, and the refusal to mix two runs in one."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from wmbench.data.episodes import EpisodeSet
from wmbench.encoders.base import weights_hash
from wmbench.encoders.matched import unmatched
from wmbench.models.precision import applied_precision
from wmbench.models.world_model import WorldModel
from wmbench.runs.load import OLDER, read_config, read_provenance
from wmbench.runs.provenance import git_commit, versions
from wmbench.runs.recipe import Recipe
from wmbench.runs.store import load_mapping, save_mapping, steps_done

HEADS = ("distance", "policy")  # on the latents of a trained model
PARTS = ("decoder", *HEADS)  # what is trained after the model

# May differ when a run is taken up again.
FREE_KEYS = ("device", "wandb", "ckpt_base_path", "model_name", "cache", "compile", "tf32", "deterministic", *PARTS)
FREE_STEPS = ("save_every", "valid_every", "valid_batches")  # of a recipe: how often a training is looked at, not what it is


def folder_of(cfg: DictConfig) -> Path:
    return Path(cfg.ckpt_base_path) / "outputs" / cfg.model_name


def open_run(cfg: DictConfig, model: WorldModel, episodes: EpisodeSet) -> Path:
    """Create checkpoints/outputs/<model_name>, or go on with the same run.

    Raises:
        ValueError: the folder holds a run of another configuration or of other data.
    """
    run = folder_of(cfg)
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    provenance = {
        "data": episodes.provenance,
        "encoder": {
            "name": HydraConfig.get().runtime.choices.get("encoder") if HydraConfig.initialized() else None,
            "source": model.encoder.source,
            "licence": model.encoder.licence,
            "weights_hash": weights_hash(unmatched(model.encoder)) if model.encoder.frozen else "trained with the model",
            "parameters": sum(p.numel() for p in model.encoder.parameters()),
        },
        "precision": asdict(applied_precision(next(model.parameters()).device)),
        "predictor_parameters": sum(p.numel() for p in model.predictor.parameters()),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "versions": versions(("wmbench", "torch", "timm", "transformers", "mujoco")),
    }
    if (run / "config.yaml").exists():
        remedy = f"give another model_name= (or arm=), or delete {run}"
        before: Any = OmegaConf.to_container(read_config(run / "config.yaml", remedy, ()))
        complete: Any = OmegaConf.to_container(OmegaConf.merge(OLDER, config))
        check_same(f"{run} holds a run with other", complete, before, steps_done(run), remedy)
        if read_provenance(run, remedy)["data"]["hash"] != episodes.hash:
            raise ValueError(f"{run} was trained on other data than {episodes.path}; give another model_name= or delete it")
        if config["training"] != before["training"]:
            save_mapping(run / "config.yaml", before | {"training": config["training"]})
        return run
    save_mapping(run / "provenance.json", provenance)
    save_mapping(run / "config.yaml", config)
    return run


def check_same(
    what: str, config: dict[str, Any], before: dict[str, Any], done: int, remedy: str, free: tuple[str, ...] = FREE_KEYS
) -> None:
    """Refuse to go on with a training under another configuration. Its length may change where no step done would differ.

    Args:
        what: the refusal's beginning, which the settings that differ follow.
        before: what the training was begun with.
        done: steps of it.
        free: outermost keys that may differ.

    Raises:
        ValueError: naming the settings that differ.
    """
    free += tuple(f"training.{name}" for name in FREE_STEPS)
    names = [name for name in _changed(config, before) if name not in free and name.split(".")[0] not in free]
    if not names:
        return
    rule = ""
    if {"training.max_steps", "training.warmup_fraction"}.issuperset(names):
        now, then = Recipe.of(config["training"]), Recipe.of(before["training"])
        if now.schedule == then.schedule and now.max_steps >= done:
            return
        rule = (
            f" ({done} steps are done; training.max_steps may be any number from there on where the rate does not depend on "
            f"it: under training.cosine=false with the same {then.warmup} steps of training.warmup_fraction)"
        )
    raise ValueError(f"{what} {', '.join(names)}{rule}; {remedy}")


def note_source(run: Path, step: int, facts: Mapping[str, str]) -> None:
    """Keep in the run's provenance what its training looks at from a step on; says so where that changes."""
    path = run / "provenance.json"
    provenance = read_provenance(run, "give another model_name= or delete the run")
    noted = provenance.setdefault("shown", [])
    before = {name: value for name, value in noted[-1].items() if name != "from_step"} if noted else None
    if before == facts:
        return
    if before is not None:
        now, then = (", ".join(map(str, about.values())) for about in (facts, before))
        print(f"note: from step {step} on training looks at {now}, before at {then}; {path} keeps both")
    noted.append({"from_step": step, **facts})
    save_mapping(path, provenance)


def open_part(run: Path, name: str, config: DictConfig | None) -> None:
    """Begin what is trained after the model (decoder, distance, policy), or go on with the same one.

    Raises:
        ValueError: the run holds one of another configuration.
    """
    if not config:
        return
    path = run / f"{name}.yaml"
    now: Any = OmegaConf.to_container(config, resolve=True)  # a file of a run looks up nothing outside it
    if path.exists():
        remedy = f"delete {run / f'{name}*'} to train another"
        before = load_mapping(path, remedy)
        check_same(
            f"{run} holds a {name} with other", now, before, steps_done(run, f"{name}_resume.safetensors"), remedy, ()
        )
        if before == now:
            return
    save_mapping(path, now)


def open_decoder(run: Path, config: DictConfig | None) -> None:
    open_part(run, "decoder", config)


def open_parts(run: Path, cfg: DictConfig) -> None:
    """Begin, or go on with, all that a training configuration asks for after the model."""
    for name in PARTS:
        open_part(run, name, cfg[name])


def _changed(config: Any, before: Any) -> list[str]:
    """Dotted keys that differ."""
    return sorted({key for key, _ in _flat(config).items() ^ _flat(before).items()})


def _flat(node: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys -> printed values."""
    if not isinstance(node, dict):
        return {prefix.removesuffix("."): repr(node)}
    return {key: value for name, child in node.items() for key, value in _flat(child, f"{prefix}{name}.").items()}
