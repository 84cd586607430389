"""Compiled rollouts are compiled: one graph for each kind of step, however many tasks and plans there are."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from wmbench.models.base import Predictor
from wmbench.models.compiled import CompiledPredictor

COUNT = Path(__file__).with_name("count_graphs.py")


def count(*arguments: str) -> tuple[int, int]:
    done = subprocess.run([sys.executable, str(COUNT), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    graphs, kinds = done.stdout.split()[-2:]
    return int(graphs), int(kinds)


@pytest.mark.parametrize("name", ["vit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adaln", "bf16"))])
def test_no_step_is_compiled_twice_and_none_runs_as_it_is_written(name: str):
    """From one real frame four steps differ, the last with every later one; from two and three, two more each, and for a
    single plan of every task, which shares nothing, again two each."""
    assert count(name, "counting") == (4 + 2 * 2 + 2 * 2, 12)


@pytest.mark.slow  # a compiler runs for a minute
def test_a_compiled_rollout_is_the_same():
    count("vit", "inductor")


def test_a_step_that_cannot_be_compiled_whole_ends_the_program_rather_than_run_slowly():
    class Asking(Predictor):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, z: Tensor, action: Tensor) -> Tensor:
            return z

        def begin(self, z: Tensor, past: Tensor, num_plans: int) -> Tensor:
            return z[:, -1]

        def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
            torch._dynamo.graph_break()
            return self.layer(state), state

    predictor = CompiledPredictor(Asking(), backend="eager")
    with pytest.raises(torch._dynamo.exc.Unsupported):
        predictor.step(torch.ones(3, 2), torch.ones(3, 1))
