"""A batch spread over processes: means, layers and noise are those of one process, as far as rounding."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from several import in_processes
from torch import Tensor, nn

from wmbench.encoders.codebook import WeightedCodebook
from wmbench.models.attention import frame_causal_attention, thinned
from wmbench.models.sigreg import SIGReg
from wmbench.pretraining.tcl import contrast
from wmbench.pretraining.views import crop, hidden_cells
from wmbench.processes.batch import batch_norm, mean_of_all, with_noise
from wmbench.processes.group import alone, mine, num_processes, rows
from wmbench.processes.meeting import any_of, by_first, gathered, woven

BATCH = 6


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def with_gradient(of: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """A loss of this process's rows, averaged over processes, and its gradient for all rows, averaged likewise."""
    own = x[rows(BATCH)].clone().requires_grad_()
    loss = of(own)
    loss.backward()
    assert own.grad is not None
    gradient = torch.cat(gathered(own.grad)) / num_processes()
    return torch.tensor(gathered(loss.item())).mean(), gradient


def normed(layer: nn.BatchNorm1d, x: Tensor) -> Tensor:
    return (batch_norm(layer, x) if num_processes() > 1 else layer(x)).pow(3).mean()


def numbers() -> dict[str, Any]:
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    flat, norm = nn.BatchNorm1d(5), nn.BatchNorm1d(5, momentum=None, affine=False)
    for layer, x in ((flat, 3 * normal(BATCH, 5)), (norm, normal(BATCH, 5, 2) + 1)):
        for _ in range(2):
            found[f"norm of {x.dim()}"] = with_gradient(lambda own, layer=layer: normed(layer, own), x)
        found[f"statistics of {x.dim()}"] = copy.deepcopy([*layer.buffers()])
    found["contrast"] = with_gradient(lambda own: contrast(*own.unbind(1), 0.5), normal(BATCH, 3, 4))
    cropped = crop(normal(BATCH, 3, 4, 4)[rows(BATCH)], 0.2, 0.9)
    found["views"] = torch.cat(gathered(cropped)), torch.cat(gathered(hidden_cells(len(cropped), 3, 4, cropped.device)))
    sigreg = SIGReg(num_directions=7, weight=0.3)
    x = normal(BATCH, 2, 3, 4)
    found["sigreg"] = with_gradient(lambda own: sigreg.loss_weight(len(own)) * sigreg(own), x)
    found["dropout"] = torch.cat(gathered(thinned(x[rows(BATCH)], 0.4)))
    q, k, v = (normal(BATCH, 2, 3, 4) + shift for shift in range(3))
    for tokens in (1, 3):
        seen = frame_causal_attention(q[rows(BATCH)], k[rows(BATCH)], v[rows(BATCH)], tokens, 0.4)
        found[f"attention to {tokens}"] = torch.cat(gathered(seen))
    codebook = WeightedCodebook(4, 9).train()
    codes, _ = codebook(x[rows(BATCH), 0])
    found["codes"] = [torch.cat(gathered(codes)), *codebook.buffers()]
    found["noise"] = torch.cat(gathered(with_noise(torch.randn_like, x[rows(BATCH)])))
    found["draws"] = torch.cat(gathered(with_noise(lambda p: torch.multinomial(p, 1), x[rows(BATCH), 0, 0].exp())))
    found["the next number"] = torch.rand(1)
    with alone():
        found["alone"] = mean_of_all(torch.tensor(2.0)), rows(5).stop
    return found


@pytest.mark.parametrize("number", [2, 3])
def test_rows_in_several_processes_give_what_a_batch_in_one_gives(number: int, tmp_path: Path):
    """Also the gradients, the layers' statistics, and the random state afterwards."""
    expected = numbers()
    for found in in_processes(tmp_path, number, numbers):
        assert isinstance(found, dict), found
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-6)


def test_processes_share_and_agree(tmp_path: Path):
    def work() -> Any:
        own = np.arange(7)[mine()]
        rank = mine().start
        mean = mean_of_all(torch.tensor(float(rank))).item()
        return woven(own[:, None] * 10), any_of(rank == 1), any_of(False), by_first(lambda: f"made by {rank}"), mean

    for whole, is_any, is_none, made, mean in in_processes(tmp_path, 3, work):
        np.testing.assert_array_equal(whole[:, 0], 10 * np.arange(7))
        assert (is_any, is_none, made, mean) == (True, False, "made by 0", 1.0)
