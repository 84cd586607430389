"""Recurrent state-space models: PlaNet's with Gaussian states (arXiv 1811.04551), DreamerV3's with categorical ones.

Left out is what needs a reward. What a state reconstructs is the encoder's tokens; with encoder=pixels these are the frame.
Samples are drawn in training alone: what is foreseen is the mean of a Gaussian, the probabilities of a categorical.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, OneHotCategoricalStraightThrough, kl_divergence

from wmbench.models.base import Latents, Losses, Predictor
from wmbench.processes.batch import with_noise

GOAL_LOOKS = 3  # times that a frame without a past is looked at, doing nothing in between


class Belief(NamedTuple):
    """The deterministic and the stochastic part of a state."""

    hidden: Float[Tensor, "B W"]
    drawn: Float[Tensor, "B S"]


@contextmanager
def _unchecked() -> Iterator[None]:
    """Context in which no distribution looks at its parameters, for which a GPU would be waited for."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


class RSSM(Predictor):
    """Real frames are filtered: a state knows them and all blocks before. A plan goes on from the last one without frames.

    Args:
        hidden_dim: of the deterministic part.
        variables, classes: of the stochastic part: so many categoricals, or Gaussians where classes is None.
        min_std: of a Gaussian.
        unimix: share of the uniform distribution in every categorical.
        mlp_dim: inner width of every network.
        layer_norm: LayerNorm and SiLU in the networks (DreamerV3) rather than ELU.
        dynamics, representation: weights of the divergence that moves the prior, and of the one that moves the posterior.
            1 and 1 have the gradient of PlaNet's single one.
        free_nats: of a state's divergence, below which it costs nothing.
    """

    def __init__(
        self,
        hidden_dim: int,
        variables: int,
        classes: int | None,
        min_std: int | float,
        unimix: int | float,
        mlp_dim: int,
        layer_norm: bool,
        dynamics: int | float,
        representation: int | float,
        free_nats: int | float,
        **latents: Unpack[Latents],
    ):
        super().__init__()
        self.num_tokens, self.hidden_dim = latents["num_tokens"], hidden_dim
        self.variables, self.classes, self.min_std, self.unimix = variables, classes, min_std, unimix
        self.dynamics, self.representation, self.free_nats = dynamics, representation, free_nats
        self.drawn_dim = variables * (classes or 1)
        told = variables * (classes or 2)

        def inner(width: int) -> nn.Sequential:
            layers = (nn.LayerNorm(mlp_dim), nn.SiLU()) if layer_norm else (nn.ELU(),)
            return nn.Sequential(nn.Linear(width, mlp_dim), *layers)

        tokens = latents["num_tokens"] * latents["dim"]
        self.join, self.cell = inner(self.drawn_dim + latents["action_dim"]), nn.GRUCell(mlp_dim, hidden_dim)
        self.prior = nn.Sequential(*inner(hidden_dim), nn.Linear(mlp_dim, told))
        self.posterior = nn.Sequential(*inner(hidden_dim + tokens), nn.Linear(mlp_dim, told))
        self.decode = nn.Sequential(*inner(hidden_dim + self.drawn_dim), nn.Linear(mlp_dim, tokens))

    def distribution(self, told: Float[Tensor, "*B K"]) -> Distribution:
        """The stochastic part, from what a network tells of it; a categorical's samples have the probabilities' gradient."""
        told = told.to(torch.promote_types(told.dtype, torch.float32))
        if self.classes is None:
            mean, raw = told.chunk(2, dim=-1)
            return Independent(Normal(mean, nn.functional.softplus(raw) + self.min_std, validate_args=False), 1)
        probabilities = told.unflatten(-1, (self.variables, self.classes)).softmax(-1)
        mixed = (1 - self.unimix) * probabilities + self.unimix / self.classes
        with _unchecked():
            return Independent(OneHotCategoricalStraightThrough(probs=mixed), 1)

    def divergence(self, posterior: Float[Tensor, "*B K"], prior: Float[Tensor, "*B K"]) -> Float[Tensor, ""]:
        """The mean Kullback-Leibler divergence [nats] of states, each at least free_nats."""
        apart = kl_divergence(self.distribution(posterior), self.distribution(prior))
        return apart.clamp(min=self.free_nats).mean()

    def advance(self, belief: Belief, action: Float[Tensor, "B A"]) -> Float[Tensor, "B W"]:
        """The deterministic part after a block."""
        return self.cell(self.join(torch.cat([belief.drawn, action], dim=1)), belief.hidden)

    def tokens(self, hidden: Float[Tensor, "*B W"], drawn: Float[Tensor, "*B S"]) -> Float[Tensor, "*B N D"]:
        return self.decode(torch.cat([hidden, drawn], dim=-1)).unflatten(-1, (self.num_tokens, -1))

    def look(self, hidden: Float[Tensor, "B W"], z: Float[Tensor, "B N D"]) -> Float[Tensor, "B K"]:
        """What the posterior tells after a frame was seen."""
        return self.posterior(torch.cat([hidden, z.flatten(1)], dim=1))

    def first(self, z: Float[Tensor, "B N D"]) -> Float[Tensor, "B W"]:
        """The deterministic part before the first frame: after nothing was done from nothing."""
        blank = Belief(z.new_zeros(len(z), self.hidden_dim), z.new_zeros(len(z), self.drawn_dim))
        return self.advance(blank, z.new_zeros(len(z), self.join[0].in_features - self.drawn_dim))  # type: ignore[operator]

    def filter(
        self, z: Float[Tensor, "B T N D"], past: Float[Tensor, "B T-1 A"], is_drawn: bool = False
    ) -> tuple[list[Belief], list[Tensor]]:
        """States behind each frame, and what the posterior told of them."""

        def sample(told: Tensor) -> Tensor:
            return self.distribution(told).rsample()

        beliefs, told, hidden = [], [], self.first(z[:, 0])
        for step, frame in enumerate(z.unbind(1)):
            if step:
                hidden = self.advance(beliefs[-1], past[:, step - 1])
            told.append(self.look(hidden, frame))
            state = with_noise(sample, told[-1]) if is_drawn else self.distribution(told[-1]).mean
            beliefs.append(Belief(hidden, state.flatten(1)))
        return beliefs, told

    def forward(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"]) -> Float[Tensor, "B T N D"]:
        beliefs, _ = self.filter(z, action[:, :-1])
        steps = zip(beliefs, action.unbind(1), strict=True)
        return torch.stack([self.step(belief, block)[0] for belief, block in steps], dim=1)

    def loss(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"], target: Float[Tensor, "B T N D"]) -> Losses:
        """The evidence bound: half the squared error of all tokens of a frame, and the divergences of its state."""
        frames = torch.cat([z, target[:, -1:]], dim=1)
        beliefs, posterior = self.filter(frames, action, is_drawn=True)
        hidden, drawn = (torch.stack(part, dim=1) for part in zip(*beliefs, strict=True))
        prior, told = self.prior(hidden), torch.stack(posterior, dim=1)
        reconstruction = 0.5 * (self.tokens(hidden, drawn) - frames).square().sum((-2, -1)).mean()
        dynamics, representation = self.divergence(told.detach(), prior), self.divergence(told, prior.detach())
        total = reconstruction + self.dynamics * dynamics + self.representation * representation
        with torch.no_grad():
            foreseen = self.tokens(hidden[:, 1:], self.distribution(prior[:, 1:]).mean.flatten(2))
            prediction = nn.functional.mse_loss(foreseen, target)
        return Losses(total, {"prediction": prediction, "reconstruction": reconstruction.detach(), "kl": dynamics.detach()})

    def begin(self, z: Float[Tensor, "B T N D"], past: Float[Tensor, "B T-1 A"], num_plans: int) -> Belief:
        belief = self.filter(z, past)[0][-1]
        return Belief(*(part.repeat_interleave(num_plans, 0) for part in belief))

    def step(self, state: Belief, action: Float[Tensor, "B A"]) -> tuple[Float[Tensor, "B N D"], Belief]:
        hidden = self.advance(state, action)
        belief = Belief(hidden, self.distribution(self.prior(hidden)).mean.flatten(1))
        return self.tokens(*belief), belief

    @property
    def memory_dim(self) -> int:
        return self.hidden_dim

    def memory(self, state: Belief) -> Float[Tensor, "B M"]:
        return state.hidden

    def place(self, z: Float[Tensor, "*B N D"]) -> Float[Tensor, "*B 1 S"]:
        """The expected stochastic part of a frame that was looked at a few times, with nothing before it."""
        frame = z.flatten(0, -3)
        past = frame.new_zeros(len(frame), GOAL_LOOKS - 1, self.join[0].in_features - self.drawn_dim)  # type: ignore[operator]
        belief = self.filter(frame[:, None].expand(-1, GOAL_LOOKS, -1, -1), past)[0][-1]
        return belief.drawn[:, None].unflatten(0, z.shape[:-2])
