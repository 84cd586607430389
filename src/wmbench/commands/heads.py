"""What train.py adds to a world model for planning in other ways: variances of tokens, a learned distance, a policy."""

from pathlib import Path

from omegaconf import DictConfig
from torch import nn

from wmbench.commands.learners import learn
from wmbench.encoders.weights import drawn_from
from wmbench.models.actor_critic import ActorCritic
from wmbench.models.controller import LinearController
from wmbench.models.world_model import WorldModel
from wmbench.processes.meeting import by_first
from wmbench.runs.build import build_head
from wmbench.runs.folder import HEADS
from wmbench.runs.load import save_part
from wmbench.runs.recipe import Recipe
from wmbench.training.dream import breed
from wmbench.training.imagination import ImaginationTrainee
from wmbench.training.pairs import PairTrainee
from wmbench.training.part import Part
from wmbench.training.variance import save_variance, token_variance
from wmbench.training.world_model import WorldModelTrainee


def new_heads(cfg: DictConfig, model: WorldModel) -> dict[str, nn.Module]:
    """Draw the heads that are asked for, a distance and a policy, from a random state of their own.

    Raises:
        ValueError: settings that cannot work.
    """
    heads = {}
    for name in HEADS:
        if cfg[name]:
            if cfg[name].horizon < 1:
                raise ValueError(f"{name}.horizon ({cfg[name].horizon}) must be positive")
            with drawn_from(cfg.seed):
                heads[name] = build_head(cfg[name], model)
    return heads


def train_heads(cfg: DictConfig, heads: dict[str, nn.Module], trainee: WorldModelTrainee, run: Path) -> None:
    """Train heads on what a finished world model was trained on, which stays as it is, and measure how its tokens vary."""
    by_first(lambda: save_variance(run, token_variance(trainee.model, trainee.windows)))
    for name, head in heads.items():
        if isinstance(head, LinearController):
            by_first(lambda head=head: breed_once(cfg, head.to(trainee.device), trainee, run))
            continue
        recipe = Recipe.of(cfg[name].training, where=f"{name}.training")
        given = trainee.windows, trainee.valid, recipe, cfg.seed, cfg[name].horizon
        kind = ImaginationTrainee if isinstance(head, ActorCritic) else PairTrainee
        pairs = kind(trainee.model, Part(name, cfg[name], head.to(trainee.device)), *given)
        learn(pairs, run, f"{run}: a {name}", cfg, f"{cfg.model_name}_{name}")


def breed_once(cfg: DictConfig, controller: LinearController, trainee: WorldModelTrainee, run: Path) -> None:
    """Breed a controller in the dream of a finished world model, unless the run has it."""
    if (run / "policy.safetensors").exists():
        return
    recipe, settings = Recipe.of(cfg.policy.training, where="policy.training"), cfg.policy
    before, after = breed(
        trainee.model.eval(), controller, trainee.windows, trainee.valid, recipe, settings.horizon, cfg.seed
    )
    save_part(run, "policy", settings, controller)
    print(f"{run}: a controller; in the dream it ends {after:.4f} from the goal, and doing nothing {before:.4f}")
