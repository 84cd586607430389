"""What training the paper's model anew would take on this machine."""

import time

import torch
from hydra.utils import instantiate

from wmbench.commands.configuration import compose
from wmbench.runs.build import ACTION_DIM
from wmbench.training.trainee import autocast

TOKENS, EMBED_DIM = 196, 384  # of a frame through DINOv2 ViT-S/14 at 196 pixels, the paper's encoder


def retraining_hours(device: torch.device) -> float:
    """Hours of the predictor in the recipe's steps, from one measured step; on a CPU of one window, scaled to a batch."""
    cfg = compose("train", ["experiment=dino_wm"])
    predictor = instantiate(
        cfg.predictor,
        dim=EMBED_DIM + cfg.proprio_embed_dim,
        num_tokens=TOKENS,
        num_hist=cfg.num_hist,
        action_dim=cfg.frameskip * ACTION_DIM,
    ).to(device)
    windows = cfg.training.batch_size if device.type == "cuda" else 1
    z = torch.randn(windows, cfg.num_hist, TOKENS, predictor.dim, device=device)
    action = torch.randn(windows, cfg.num_hist, cfg.frameskip * ACTION_DIM, device=device)
    seconds = 0.0
    for _ in range(2):  # the first one warms up
        began = time.perf_counter()
        with autocast(device):
            loss = predictor(z, action).square().mean()
        loss.backward()
        loss.item()
        seconds = time.perf_counter() - began
    return seconds * cfg.training.batch_size / windows * cfg.training.max_steps / 3600
