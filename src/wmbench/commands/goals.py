"""How a run reaches its goals: the objective that it plans by or the inverse model that it follows, with facts of both."""

from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig

from wmbench.encoders.weights import file_hash
from wmbench.evaluation.conditions import Facts
from wmbench.evaluation.row import UNREAD
from wmbench.models.world_model import WorldModel
from wmbench.planning.objective import Objective
from wmbench.runs.load import load_head
from wmbench.runs.store import load_mapping
from wmbench.training.variance import VARIANCE, load_variance


def load_objective(cfg: DictConfig, run: Path, model: WorldModel) -> tuple[Objective, Facts]:
    """Build the objective with what it needs of the run, and gather facts of that.

    Raises:
        FileNotFoundError: the run lacks what the objective needs.
        ValueError: a damaged file, or an objective that does not fit the model.
    """
    device, num_tokens = model.encoder.pixel_mean.device, model.encoder.num_tokens
    given, facts = {}, {}
    match objective_class(cfg).needs:
        case "variance" if num_tokens == 1:
            given = {"variance": torch.ones(1)}  # which gets the weight 1 with any variance
        case "variance":
            given = {"variance": load_variance(run)}
            facts = {"variance": {"weights_hash": file_hash(run / VARIANCE)[:12]}}
        case "distance":
            given = {"distance": load_head(run, "distance", model).to(device)}
            facts = head_facts(run, "distance")
    objective = instantiate(cfg.objective, **given, _convert_="all")
    objective.check(num_tokens)
    if cfg.objective.alpha and model.proprio_encoder is None:
        raise ValueError(
            f"objective.alpha ({cfg.objective.alpha}) weighs proprio, which this model has none of; set it to 0"
        )
    return objective, facts


def objective_class(cfg: DictConfig) -> type[Objective]:
    return get_class(cfg.objective._target_)


def head_facts(run: Path, name: str) -> Facts:
    """What tells a run's distance or policy from another: its settings, and its weights' hash."""
    config: dict[str, Any] = load_mapping(run / f"{name}.yaml", f"delete {name}.* in that folder")
    training = {key: value for key, value in config.pop("training", {}).items() if key not in UNREAD}
    return {name: config | training | {"weights_hash": file_hash(run / f"{name}.safetensors")[:12]}}
