"""The recurrent state-space model: torchrl's networks, closed forms of its divergences, and what a state has seen."""

from pathlib import Path
from typing import Any

import pytest
import torch
from situations import ACTION, DIM, TOKENS, model_around, situation
from torch import Tensor
from torch.func import functional_call

from wmbench.models.rssm import GOAL_LOOKS, RSSM, Belief
from wmbench.planning.objective import OwnSpace

WIDTH, INNER, VARIABLES, CLASSES = 6, 8, 3, 5
PLANET: dict[str, Any] = {
    "classes": None,
    "layer_norm": False,
    "unimix": 0.0,
    "free_nats": 0.0,
    "dynamics": 1.0,
    "representation": 1.0,
}
DREAMER = PLANET | {"classes": CLASSES, "layer_norm": True, "unimix": 0.1}


def rssm(**settings: Any) -> RSSM:
    torch.manual_seed(0)
    return RSSM(
        dim=DIM,
        num_tokens=TOKENS,
        num_hist=5,
        action_dim=ACTION,
        hidden_dim=WIDTH,
        variables=VARIABLES,
        mlp_dim=INNER,
        min_std=0.1,
        **(PLANET | settings),
    )


@pytest.fixture(params=[PLANET, DREAMER], ids=["planet", "dreamer"])
def model(request: pytest.FixtureRequest) -> RSSM:
    return rssm(**request.param)


def of_torchrl(planet: RSSM, drawn: Tensor, hidden: Tensor, action: Tensor, frame: Tensor) -> dict[str, Tensor]:
    """What torchrl's networks say with the same weights."""
    torchrl = pytest.importorskip("torchrl.modules.models.model_based")
    sizes = {"hidden_dim": INNER, "rnn_hidden_dim": WIDTH, "state_dim": VARIABLES}
    prior = torchrl.RSSMPrior(torch.empty(ACTION), **sizes, scale_lb=1e-3, action_dim=ACTION)
    prior.action_state_projector.load_state_dict(planet.join.state_dict())
    prior.rnn.load_state_dict(planet.cell.state_dict())
    posterior = torchrl.RSSMPosterior(INNER, VARIABLES, 1e-3, WIDTH, TOKENS * DIM)
    projectors = (prior.rnn_to_prior_projector, planet.prior), (posterior.obs_rnn_to_post_projector, planet.posterior)
    for theirs, ours in projectors:
        if ours is planet.prior:
            theirs[0] = torch.nn.Linear(WIDTH, INNER)  # torchrl has it of the inner width
        theirs.load_state_dict(ours.state_dict())
    mean, std, _, belief = prior(drawn, hidden, action)
    looked_mean, looked_std, _ = posterior(belief, frame)
    found = {"belief": belief, "mean": mean, "std": std, "looked_mean": looked_mean, "looked_std": looked_std}
    return {name: tensor.detach() for name, tensor in found.items()}


@pytest.fixture
def recorded() -> dict[str, dict[str, Tensor]]:
    """Weights of a model, a situation, and what torchrl 0.14.1 says of it (of_torchrl)."""
    return torch.load(Path(__file__).parents[1] / "data" / "rssm_torchrl_tiny.pt", weights_only=True)


def test_what_is_recorded_is_torchrls(recorded: dict[str, dict[str, Tensor]]):
    planet = rssm()
    planet.load_state_dict(recorded["weights"])
    torch.testing.assert_close(of_torchrl(planet, **recorded["situation"]), recorded["torchrl"])


def test_planets_networks_are_torchrls(recorded: dict[str, dict[str, Tensor]]):
    """Where the standard deviation is above torchrl's smallest; ours is PlaNet's sum of a softplus and the smallest."""
    planet, given, theirs = rssm(), recorded["situation"], recorded["torchrl"]
    planet.load_state_dict(recorded["weights"])
    after = planet.advance(Belief(given["hidden"], given["drawn"]), given["action"])
    torch.testing.assert_close(after, theirs["belief"])
    told = planet.distribution(planet.prior(after))
    torch.testing.assert_close((told.mean, told.stddev), (theirs["mean"], theirs["std"] + 0.1))
    looked = planet.distribution(planet.look(after, given["frame"][:, None]))
    torch.testing.assert_close((looked.mean, looked.stddev), (theirs["looked_mean"], theirs["looked_std"] + 0.1))


def divergence(model: RSSM, posterior: Tensor, prior: Tensor) -> Tensor:
    """By its closed form, of each state."""
    if model.classes is None:
        (m, s), (n, t) = ((x[:, :VARIABLES], x[:, VARIABLES:].exp().add(1).log() + 0.1) for x in (posterior, prior))
        return (t.log() - s.log() + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5).sum(1)
    p, q = (0.9 * x.view(-1, VARIABLES, CLASSES).softmax(2) + 0.1 / CLASSES for x in (posterior, prior))
    return (p * (p / q).log()).sum((1, 2))


def test_a_divergence_and_its_gradient_are_those_of_the_closed_form(model: RSSM):
    told = torch.randn(2, 4, VARIABLES * (model.classes or 2), dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(model.divergence(*told), divergence(model, *told).mean())
    assert torch.autograd.gradcheck(lambda told: model.divergence(*told), told)


def test_what_is_below_the_free_nats_costs_nothing_state_by_state(model: RSSM):
    told = torch.randn(2, 4, VARIABLES * (model.classes or 2), requires_grad=True)
    apart = divergence(model, *told)
    model.free_nats = apart.quantile(0.5).item()  # between the two in the middle
    torch.testing.assert_close(model.divergence(*told), apart.clamp(min=model.free_nats).mean())
    (gradient,) = torch.autograd.grad(model.divergence(*told), told)
    assert torch.equal(gradient.abs().sum((0, 2)) > 0, apart > model.free_nats)


def test_balanced_by_one_and_one_the_gradient_is_that_of_a_single_divergence(model: RSSM):
    posterior, prior = torch.randn(2, 4, VARIABLES * (model.classes or 2), requires_grad=True).unbind()
    balanced = model.divergence(posterior.detach(), prior) + model.divergence(posterior, prior.detach())
    both = [torch.autograd.grad(x, (posterior, prior)) for x in (balanced, model.divergence(posterior, prior))]
    torch.testing.assert_close(*both)


def test_a_drawn_category_is_one_hot_and_has_the_gradient_of_its_probabilities():
    dreamer, weight = rssm(**DREAMER), torch.randn(4, VARIABLES, CLASSES, dtype=torch.float64)
    told = torch.randn(4, VARIABLES * CLASSES, dtype=torch.float64, requires_grad=True)
    drawn = dreamer.distribution(told).rsample()
    assert torch.equal(drawn.detach().sum(-1).round(decimals=9), torch.ones_like(drawn[..., 0]))
    assert set(drawn.detach().round(decimals=9).abs().unique().tolist()) == {0.0, 1.0}
    through = torch.autograd.grad((drawn * weight).sum(), told)
    mixed = 0.9 * told.view(4, VARIABLES, CLASSES).softmax(2) + 0.1 / CLASSES
    torch.testing.assert_close(through, torch.autograd.grad((mixed * weight).sum(), told))
    assert torch.autograd.gradcheck(lambda told: dreamer.distribution(told).mean, told)


def test_the_loss_is_the_bound_written_out(model: RSSM):
    """The block before a frame comes before the frame; in the loss, all states' parts are as one step after another."""
    model.dynamics, model.representation = 0.5, 0.2
    z, action, _ = situation(5)
    torch.manual_seed(3)
    losses = model.loss(z[:, :-1], action, z[:, 1:])
    torch.manual_seed(3)
    hidden, drawn = torch.zeros(2, WIDTH), torch.zeros(2, model.drawn_dim)
    squares, apart = [], []
    for step, block in enumerate([torch.zeros(2, ACTION), *action.unbind(1)]):
        hidden = model.cell(model.join(torch.cat([drawn, block], 1)), hidden)
        told = model.posterior(torch.cat([hidden, z[:, step].flatten(1)], 1))
        apart.append(divergence(model, told, model.prior(hidden)))
        drawn = model.distribution(told).rsample().flatten(1)
        squares.append((model.decode(torch.cat([hidden, drawn], 1)) - z[:, step].flatten(1)).square().sum(1))
    torch.testing.assert_close(losses.total, 0.5 * torch.stack(squares).mean() + 0.7 * torch.stack(apart).mean())


def test_a_state_is_a_function_of_what_was_seen_and_done_before_it_in_that_order(model: RSSM):
    z, past, plans = situation(3)
    z, past = z.requires_grad_(), past.requires_grad_()
    beliefs, _ = model.filter(z, past)
    felt = torch.autograd.grad(beliefs[1].drawn.sum(), (z, past))
    assert [g.abs().sum((0, *range(2, g.dim()))).gt(0).tolist() for g in felt] == [[True, True, False], [True, False]]
    parameters = dict(model.named_parameters())
    again = functional_call(model, parameters, (z, torch.cat([past, plans[:, 0, :1]], 1)))
    torch.testing.assert_close(again[:, -1], model.step(beliefs[-1], plans[:, 0, 0])[0])


def test_in_its_own_space_a_frame_is_the_posterior_of_looking_at_it(model: RSSM):
    z, past, plans = situation(2)
    world = model_around(model.eval().requires_grad_(False))
    looked = model.filter(z[:, :1].expand(-1, GOAL_LOOKS, -1, -1), torch.zeros(2, GOAL_LOOKS - 1, ACTION))[0][-1].drawn
    torch.testing.assert_close(model.place(z)[:, 0, 0], looked)
    foreseen = world.rollout(z, past, plans)
    cost = OwnSpace()(world, z[:, -1], foreseen, foreseen[:, 2, -1])
    assert cost.shape == plans.shape[:2] and (cost[:, 2] < 1e-10).all() and (cost[:, [0, 1, 3, 4]] > 1e-9).all()
    with pytest.raises(ValueError, match=r"objective\.alpha \(1\) must be 0 with objective=own_space"):
        OwnSpace(alpha=1)
