"""Rolls out a predictor through a compiler that counts, in a process whose annotations nobody checks: prints graphs, kinds.

The shape checker of the tests makes every function one that torch.compile cannot follow.
"""

import sys

import torch
from torch._dynamo.testing import CompileCounter

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.random_patch import RandomPatch
from wmbench.models.adaln import AdaLNPredictor
from wmbench.models.base import Predictor
from wmbench.models.compiled import CompiledPredictor
from wmbench.models.precision import Bf16Predictor
from wmbench.models.vit import FrameCausalViT
from wmbench.models.world_model import WorldModel

SIZE = {"depth": 1, "num_heads": 2, "head_dim": 6, "mlp_dim": 11, "dropout": 0.1}


def model(predictor: Predictor) -> WorldModel:
    blank = Normalizer(torch.zeros(3), torch.ones(3), torch.zeros(4), torch.ones(4))
    sizes = {"proprio": "none", "proprio_embed_dim": 1, "frameskip": 3, "num_hist": 3}
    return WorldModel(RandomPatch(8, 2, 7, 0), predictor, blank, **sizes).eval().requires_grad_(False)


def main(name: str, backend: str) -> None:
    torch.manual_seed(0)
    if name == "adaln":
        predictor: Predictor = AdaLNPredictor(7, 4, 3, 9, smoothed_dim=3, projector_dim=13, **SIZE)
    else:
        predictor = FrameCausalViT(7, 4, 3, 9, action_embed_dim=3, **SIZE)
    if name == "bf16":
        predictor = Bf16Predictor(predictor)
    counter = CompileCounter()
    compiled = CompiledPredictor(predictor, counter if backend == "counting" else backend)
    plain, fast = model(predictor), model(compiled)
    with torch.no_grad():
        for frames in (1, 2, 3) if backend == "counting" else (2,):
            # An agent's: its tasks' samples, fewer tasks, nearer deadlines, then the mean of each.
            for tasks, plans, horizon in ((5, 8, 6), (3, 8, 5), (4, 7, 2), (5, 1, 6), (3, 1, 2)):
                sizes = (tasks, frames, 4, 7), (tasks, frames - 1, 9), (tasks, plans, horizon, 9)
                given = [torch.randn(*size) for size in sizes]
                torch.testing.assert_close(fast.rollout(*given), plain.rollout(*given), rtol=1e-4, atol=1e-5)
    print(counter.frame_count, len(compiled._steps))


main(*sys.argv[1:])
