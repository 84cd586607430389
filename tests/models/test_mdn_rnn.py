"""World Models' M: the recurrence of PyTorch's LSTM, and torch.distributions' mixture."""

import pytest
import torch
from situations import ACTION, DIM, TOKENS, model_around, situation
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, Normal

from wmbench.models.mdn_rnn import MDNRNN, Mixture, negative_log_likelihood

WIDTH, COMPONENTS = 6, 3


@pytest.fixture
def predictor() -> MDNRNN:
    torch.manual_seed(0)
    return MDNRNN(
        dim=DIM, num_tokens=TOKENS, num_hist=5, action_dim=ACTION, hidden_dim=WIDTH, components=COMPONENTS, temperature=1.0
    )


def mixture_of(log_weight: torch.Tensor, mean: torch.Tensor, log_std: torch.Tensor) -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(logits=log_weight), Normal(mean, log_std.exp()))


def test_the_likelihood_and_its_gradient_are_those_of_a_mixture():
    torch.manual_seed(0)
    told = torch.randn(3, 2, 4, COMPONENTS, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def nll(target: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        return negative_log_likelihood(target, told[0].log_softmax(-1), told[1], told[2])

    torch.testing.assert_close(nll(target, told), -mixture_of(*told).log_prob(target).mean())
    assert torch.autograd.gradcheck(nll, (target, told))


def test_what_it_foresees_and_how_unsure_it_is_are_a_mixtures_mean_and_standard_deviation(predictor: MDNRNN):
    z, action, _ = situation(4)
    states: list[Mixture] = predictor.states(z[:, :-1], action)
    for state in states:
        mixture = mixture_of(*state[3:])
        torch.testing.assert_close(state.z, mixture.mean)
        torch.testing.assert_close(predictor.doubt(state), mixture.stddev.mean((1, 2)))
    _, doubt = model_around(predictor).rollout_with_doubt(*situation(2))
    assert (doubt > 0).all()


def test_its_recurrence_is_that_of_pytorchs_lstm(predictor: MDNRNN):
    lstm = nn.LSTM(TOKENS * DIM + ACTION, WIDTH, batch_first=True)
    lstm.load_state_dict({f"{name}_l0": weight for name, weight in predictor.lstm.state_dict().items()})
    z, action, _ = situation(4)
    seen, _ = lstm(torch.cat([z[:, :-1].flatten(2), action], dim=2))
    states = predictor.states(z[:, :-1], action)
    torch.testing.assert_close(torch.stack([state.hidden for state in states], 1), seen)
    losses = predictor.loss(z[:, :-1], action, z[:, 1:])
    expected = torch.stack([-mixture_of(*s[3:]).log_prob(z[:, step + 1]).mean() for step, s in enumerate(states)]).mean()
    torch.testing.assert_close(losses.total, expected)


def test_a_temperature_makes_weights_more_alike_in_rollouts_alone(predictor: MDNRNN):
    z, action, _ = situation(2)
    cold = predictor(z[:, :1], action)
    predictor.temperature = 1e6
    torch.testing.assert_close(predictor(z[:, :1], action), cold)
    (state,) = predictor.eval().states(z[:, :1], action)
    torch.testing.assert_close(state.z, state.mean.mean(-1), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"predictor\.temperature \(0\) must be positive"):
        MDNRNN(
            dim=DIM, num_tokens=TOKENS, num_hist=5, action_dim=ACTION, hidden_dim=WIDTH, components=COMPONENTS, temperature=0
        )
