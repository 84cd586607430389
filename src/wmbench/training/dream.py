"""A controller that is bred inside a world model's dream by CMA-ES; the model and the environment are left alone."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.data.windows import Windows
from wmbench.machine import progress_bar
from wmbench.models.controller import LinearController
from wmbench.models.world_model import WorldModel
from wmbench.planning.agent import limits
from wmbench.runs.recipe import Recipe
from wmbench.training.pairs import draw_pairs

Start = tuple[Float[Tensor, "B N D"], Float[Tensor, "B N D"]]  # latents of frames to begin at, and of goals


@torch.no_grad()
def dream_cost(
    model: WorldModel, controller: LinearController, start: Start, blocks: int, vectors: Float[Tensor, "K W"]
) -> Float[Tensor, " K"]:
    """Squared distance from the goal after so many dreamt blocks, on average over starts, of K controllers."""
    z, wanted = start
    each = len(z), len(vectors)
    weight, bias = (part[None] for part in controller.unpack(vectors))
    lowest, highest = limits(model, z.device)  # type: ignore[arg-type] - as an agent's
    goal = model.split(wanted)[0][:, None].expand(-1, each[1], -1, -1)
    state = model.predictor.begin(z[:, None], z.new_zeros(len(z), 0, len(lowest)), each[1])
    seen = model.split(z)[0][:, None].expand_as(goal)
    for _ in range(blocks):
        memory = model.predictor.memory(state).unflatten(0, each)
        block = controller.blocks(seen, memory, goal, weight, bias).clamp(lowest, highest)
        latent, state = model.predictor.step(state, block.flatten(0, 1))
        seen = model.split(latent)[0].unflatten(0, each)
    return (seen - goal).square().mean((0, 2, 3))


def breed(
    model: WorldModel, controller: LinearController, train: Windows, valid: Windows, recipe: Recipe, blocks: int, seed: int
) -> tuple[float, float]:
    """Breed recipe.max_steps generations, each in dreams of its own, and leave the controller at their mean.

    Args:
        train: windows whose first frames begin dreams; goals are frames up to `blocks` blocks later.
        recipe: batch_size dreams of each controller; lr is the first standard deviation of weights.

    Returns:
        The dreams' cost on validation frames, before and after.

    Raises:
        ModuleNotFoundError: the cma package is not installed.
    """
    strategy = _library()(
        np.zeros(controller.num_weights), recipe.lr, {"seed": seed + 1, "CMA_diagonal": True, "verbose": -9, "popsize": 32}
    )
    device = next(model.parameters()).device

    @torch.no_grad()
    def cost(windows: Windows, key: tuple[int, int], vectors: np.ndarray) -> np.ndarray:
        index = np.random.default_rng(key).integers(0, len(windows), recipe.batch_size)
        pairs = draw_pairs(windows, index, blocks, key, device)
        start = model.encode(pairs.here)[:, 0].float(), model.encode(pairs.later)[:, 0].float()
        costs = dream_cost(model, controller, start, blocks, torch.from_numpy(vectors).float().to(device))
        return costs.cpu().double().numpy()

    with progress_bar(total=recipe.max_steps, desc="dreaming", unit=" generations") as bar:
        for generation in range(recipe.max_steps):
            asked = strategy.ask()
            strategy.tell(asked, cost(train, (seed, generation), np.stack(asked)).tolist())
            bar.update()
    bred = strategy.result.xfavorite
    before, after = cost(valid, (seed, recipe.max_steps), np.stack([np.zeros_like(bred), bred]))
    weight, bias = controller.unpack(torch.from_numpy(bred).float())
    controller.act.load_state_dict({"weight": weight, "bias": bias})
    return float(before), float(after)


def _library() -> Callable:
    try:
        import cma
    except ModuleNotFoundError:
        raise ModuleNotFoundError("policy=controller needs the cma package: pip install cma") from None
    return cma.CMAEvolutionStrategy
