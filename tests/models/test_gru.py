"""RWM's predictor: the recurrence of PyTorch's GRU, forecasts on its own predictions, and how unsure it is."""

import pytest
import torch
from situations import ACTION, DIM, TOKENS, model_around, situation
from torch import nn
from torch.distributions import Normal

from wmbench.models.gru import LOG_STD, GRUPredictor
from wmbench.models.vit import FrameCausalViT
from wmbench.planning.objective import Cautious, Objective
from wmbench.planning.rollout_cost import RolloutCost

NUM_HIST, WIDTH, LAYERS = 5, 6, 2


@pytest.fixture
def predictor() -> GRUPredictor:
    torch.manual_seed(0)
    latents = {"dim": DIM, "num_tokens": TOKENS, "num_hist": NUM_HIST, "action_dim": ACTION}
    return GRUPredictor(hidden_dim=WIDTH, num_layers=LAYERS, mlp_dim=8, forecast=3, **latents)


def test_its_recurrence_is_that_of_pytorchs_gru(predictor: GRUPredictor):
    gru = nn.GRU(TOKENS * DIM + ACTION, WIDTH, LAYERS, batch_first=True)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    gru.load_state_dict(
        {f"{n}_l{layer}": getattr(cell, n).detach() for layer, cell in enumerate(predictor.cells) for n in names}
    )
    z, action, _ = situation(NUM_HIST + 1)
    seen, _ = gru(torch.cat([z[:, :-1].flatten(2), action], dim=2))
    expected = z[:, :-1] + predictor.change(seen).unflatten(2, (TOKENS, DIM))
    torch.testing.assert_close(predictor(z[:, :-1], action), expected)


def test_a_forecast_sees_no_frame_but_those_before_it(predictor: GRUPredictor):
    z, action, _ = situation(NUM_HIST + 1)
    hidden = z[:, :-1].clone()
    hidden[:, 3:] = torch.nan  # 5 - 3 + 1 real frames
    losses = predictor.loss(hidden, action, z[:, 1:])
    expected = predictor.loss(z[:, :-1], action, z[:, 1:])
    assert losses.total == expected.total
    own = torch.stack([state.z for state in predictor.states(z[:, :3], action)[2:]], 1)
    torch.testing.assert_close(losses.parts["forecast"], (own - z[:, 3:]).square().mean())


def test_what_it_is_unsure_of_is_the_likelihood_of_its_errors_and_changes_nothing_else(predictor: GRUPredictor):
    z, action, _ = situation(NUM_HIST + 1)
    losses = predictor.loss(z[:, :-1], action, z[:, 1:])
    mean, std = (torch.stack([state[part] for state in predictor.states(z[:, :3], action)], 1) for part in (0, 2))
    likelihood = -Normal(mean, std).log_prob(z[:, 1:]).mean() - 0.5 * torch.tensor(2 * torch.pi).log()
    torch.testing.assert_close(losses.parts["std_nll"], likelihood)
    losses.parts["std_nll"].backward()
    assert {name.partition(".")[0] for name, p in predictor.named_parameters() if p.grad is not None} == {"log_std"}


def test_a_cautious_cost_adds_the_mean_standard_deviation_of_a_plan(predictor: GRUPredictor):
    model = model_around(predictor.eval().requires_grad_(False))
    z, past, plans = situation(2)
    costs = []
    for objective in (Objective(), Cautious(caution=0.5)):
        cost = RolloutCost(model, objective, num_context=2, horizon=6, memory_gb=1, has_gradients=False)
        costs.append(cost.of(z, past, z[:, 0])(plans))
    _, doubt = model.rollout_with_doubt(z, past, plans)
    assert doubt.shape == plans.shape[:3] and (doubt > 0).all() and doubt.std() > 1e-4
    torch.testing.assert_close(costs[1] - costs[0], 0.5 * doubt.mean(2))
    state = predictor.step(predictor.begin(z, past, 5), plans[:, :, 0].flatten(0, 1))[1]
    low, high = LOG_STD
    assert low < state.std.log().min() and state.std.log().max() < high
    torch.testing.assert_close(doubt[0, 0, 0], state.std[0].mean())


def test_what_cannot_be_is_refused(predictor: GRUPredictor):
    with pytest.raises(ValueError, match=r"predictor\.forecast \(3\) must not exceed num_hist \(2\)"):
        GRUPredictor(
            dim=DIM, num_tokens=TOKENS, num_hist=2, action_dim=ACTION, hidden_dim=WIDTH, num_layers=1, mlp_dim=8, forecast=3
        )
    with pytest.raises(ValueError, match=r"objective\.caution \(0\) must be positive"):
        Cautious(caution=0)
    vit = FrameCausalViT(
        DIM, TOKENS, 3, ACTION, action_embed_dim=3, depth=1, num_heads=2, head_dim=6, mlp_dim=8, dropout=0.0
    )
    with pytest.raises(ValueError, match="FrameCausalViT does not say how unsure it is"):
        model_around(vit).rollout_with_doubt(*situation(2))
