"""Runs on disk: find them, build their model, save and load weights strictly.

A run is a folder: config.yaml (the whole configuration), provenance.json (data, encoder, code it came from),
metrics.csv, step_XXXXXX.safetensors (weights, without a frozen encoder's), resume.safetensors (the optimiser's state).
"""

import fnmatch
import json
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.base import weights_hash
from wmbench.models.world_model import WorldModel, proprio_part

ACTION_DIM, PROPRIO_DIM = 2, 4  # of PointMaze


def build_world_model(cfg: DictConfig, normalizer: Normalizer) -> WorldModel:
    """The untrained model that a training configuration describes."""
    if cfg.num_pred != 1:
        raise ValueError(f"num_pred ({cfg.num_pred}) must be 1: a rollout advances one frame a call")
    encoder = instantiate(cfg.encoder)
    regularizer = instantiate(cfg.training.regularizer)
    if not encoder.frozen and regularizer is None:
        raise ValueError("an encoder that trains with the model collapses without training.regularizer; use training=lewm")
    has_proprio = len(range(PROPRIO_DIM)[proprio_part(cfg.proprio)]) > 0
    predictor = instantiate(
        cfg.predictor,
        dim=encoder.embed_dim + has_proprio * cfg.proprio_embed_dim,
        num_tokens=encoder.num_tokens,
        num_hist=cfg.num_hist,
        action_dim=cfg.frameskip * ACTION_DIM,
    )
    return WorldModel(
        encoder,
        predictor,
        normalizer,
        proprio=cfg.proprio,
        proprio_embed_dim=cfg.proprio_embed_dim,
        frameskip=cfg.frameskip,
        num_hist=cfg.num_hist,
        regularizer=regularizer,
    )


SHIPPED = Path(__file__).parents[2] / "checkpoints"  # beside the source, in a checkout


def find_run(base: Path, name: str) -> Path:
    """The folder of a run under base/outputs, base or, from whatever folder one works in, among the shipped ones.

    Raises:
        FileNotFoundError: no such run; the message lists those there are.
    """
    for folder in (base / "outputs" / name, base / name, SHIPPED / name):
        if (folder / "config.yaml").exists():
            return folder
    names = list_runs(base)
    found = ", ".join(names) if names else "none; train one with: python train.py env=point_maze encoder=lewm_small"
    raise FileNotFoundError(f"no run {name!r} in {base / 'outputs'} or {base}; found: {found}")


def list_runs(base: Path, pattern: str = "*") -> list[str]:
    """Names of the runs that match a glob."""
    configs = [*base.glob("outputs/*/config.yaml"), *base.glob("*/config.yaml"), *SHIPPED.glob("*/config.yaml")]
    return sorted({name for path in configs if fnmatch.fnmatch(name := path.parent.name, pattern)})


def step_path(run: Path, step: int) -> Path:
    return run / f"step_{step:06d}.safetensors"


def latest_step(run: Path) -> int | None:
    steps = [int(path.stem.removeprefix("step_")) for path in run.glob("step_*.safetensors")]
    return max(steps, default=None)


def save_weights(run: Path, step: int, model: WorldModel) -> None:
    """Write step_XXXXXX.safetensors: all of the model but a frozen encoder."""
    _save(step_path(run, step), _own_state(model), {"step": str(step)})


def load_run(run: Path, step: int | None = None) -> tuple[WorldModel, DictConfig, dict[str, Any]]:
    """Model in evaluation mode, configuration and provenance of a run at a step (by default the last one saved).

    Raises:
        FileNotFoundError: no weights (of that step).
        ValueError: weights that do not fit the model, tensor by tensor, or a frozen encoder that is not the one that the
            run was trained with.
    """
    cfg = OmegaConf.load(run / "config.yaml")
    assert isinstance(cfg, DictConfig)
    provenance = json.loads((run / "provenance.json").read_text())
    wanted = latest_step(run) if step is None else step
    if wanted is None or not step_path(run, wanted).exists():
        saved = ", ".join(sorted(path.stem for path in run.glob("step_*.safetensors"))) or "none"
        raise FileNotFoundError(f"run {run.name} has no weights{'' if step is None else f' of step {step}'}; saved: {saved}")
    path = step_path(run, wanted)
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or truncated ({error}); plan with an earlier step: checkpoint=STEP") from None
    blank = torch.zeros(ACTION_DIM), torch.ones(ACTION_DIM), torch.zeros(PROPRIO_DIM), torch.ones(PROPRIO_DIM)
    model = build_world_model(cfg, Normalizer(*blank))
    own = _own_state(model)
    problems = [f"missing {name}" for name in own.keys() - state.keys()]
    problems += [f"unknown {name}" for name in state.keys() - own.keys()]
    problems += [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if own[name].shape != state[name].shape
    ]
    if problems:
        raise ValueError(f"{path} does not fit its config.yaml: {'; '.join(sorted(problems)[:5])}")
    model.load_state_dict(state, strict=False)  # strict by the check above, up to the frozen encoder
    if model.encoder.frozen and (found := weights_hash(model.encoder)) != provenance["encoder"]["weights_hash"]:
        raise ValueError(
            f"run {run.name} was trained on encoder weights {provenance['encoder']['weights_hash']}, "
            f"these are {found} ({model.encoder.source})"
        )
    provenance["step"] = wanted
    return model.eval().requires_grad_(False), cfg, provenance


def save_resume(run: Path, step: int, model: WorldModel, optimizer: torch.optim.Optimizer) -> None:
    """Everything that the next step depends on: weights, optimiser, random state."""
    tensors = {f"model.{name}": tensor for name, tensor in _own_state(model).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    _save(run / "resume.safetensors", tensors, {"step": str(step)})


def load_resume(run: Path, model: WorldModel, optimizer: torch.optim.Optimizer) -> int:
    """Put back what save_resume wrote; returns the number of steps done, 0 where nothing was saved."""
    path = run / "resume.safetensors"
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as file:
            step = int(file.metadata()["step"])
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or truncated ({error}); delete it to train from the beginning") from None
    model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}, strict=False)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["rng.cpu"])
    if torch.cuda.is_available() and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    return step


def _own_state(model: WorldModel) -> dict[str, Tensor]:
    """The state dict without a frozen encoder, which is rebuilt from its own source."""
    state = model.state_dict()
    return {n: t.contiguous() for n, t in state.items() if not (model.encoder.frozen and n.startswith("encoder."))}


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Whole or not at all: a kill while writing leaves the previous file."""
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata)
    temporary.rename(path)
