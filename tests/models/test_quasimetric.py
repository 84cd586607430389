"""The learned distance: a quasimetric whatever its weights, and in order on a line that it has seen."""

import pytest
import torch
from torch import Tensor

from wmbench.models.quasimetric import Quasimetric
from wmbench.models.reader import LatentPairs

SIZES = {"dim": 5, "num_tokens": 3, "token_width": 8, "width": 32, "expectile": 0.1}


@pytest.fixture
def distance() -> Quasimetric:
    torch.manual_seed(0)
    return Quasimetric(**SIZES).eval()


@torch.no_grad()
def test_it_is_zero_to_itself_keeps_the_triangle_inequality_and_knows_a_way_there_from_a_way_back(distance: Quasimetric):
    a, b, c = 3 * torch.randn(3, 200, 3, 5)
    assert torch.equal(distance(a, a), torch.zeros(200))
    assert (distance(a, b) > 0).all()
    assert (distance(a, c) <= distance(a, b) + distance(b, c) + 1e-5).all()
    assert ((distance(a, b) - distance(b, a)).abs() > 1e-3).float().mean() > 0.9


@torch.no_grad()
def test_one_pair_alone_is_that_pair_in_a_batch(distance: Quasimetric):
    a, b = torch.randn(2, 6, 3, 5)
    torch.testing.assert_close(distance(a[2:3], b[2:3]), distance(a, b)[2:3])
    torch.testing.assert_close(distance(a.expand(4, 6, 3, 5), b[None])[3], distance(a, b))


def on_a_line(position: Tensor) -> Tensor:
    """Latents of places, by a map that is fixed and not straight."""
    waves = torch.linspace(0.1, 2.0, 15)
    return torch.sin(position[:, None] * waves).unflatten(1, (3, 5))


def test_it_learns_the_order_of_a_line_and_which_way_is_longer():
    """One way takes a block a metre, the way back three; walks come home late, by up to twice the time."""
    torch.manual_seed(0)
    distance, generator = Quasimetric(**SIZES).train(), torch.Generator().manual_seed(1)
    adam = torch.optim.Adam(distance.parameters(), lr=5e-3)
    for _ in range(200):
        here, later = 8 * torch.rand(2, 128, generator=generator)
        way = later - here
        blocks = torch.where(way > 0, way, -3 * way) * (1 + torch.rand(128, generator=generator))
        pairs = LatentPairs(on_a_line(here), on_a_line(later), blocks.round().long(), torch.zeros(128, 2))
        loss = distance.loss(pairs).total
        adam.zero_grad()
        loss.backward()
        adam.step()
    distance.eval()
    places = torch.arange(1.0, 8.0)
    with torch.no_grad():
        forth = distance(on_a_line(torch.zeros(7) + 0.5), on_a_line(places))
        back = distance(on_a_line(places), on_a_line(torch.zeros(7) + 0.5))
    assert (forth.diff() > 0).all() and (back.diff() > 0).all()
    assert 2 < (back / forth)[2:].mean() < 4
    assert 0.8 < (forth[2:] / (places[2:] - 0.5)).mean() < 1.5, "nearer the shortest of the times seen than their mean"
