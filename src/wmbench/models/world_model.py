"""The world model as the paper's verbs: encode, predict, rollout, loss."""

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.base import Encoder
from wmbench.models.sigreg import SIGReg
from wmbench.models.transformer import Memory
from wmbench.shapes import Obs

PROPRIO_PARTS = {"none": slice(0, 0), "velocity": slice(2, 4), "full": slice(0, 4)}


class Losses(NamedTuple):
    total: Float[Tensor, ""]
    prediction: Float[Tensor, ""]  # mean squared error of the next latent
    sigreg: Float[Tensor, ""]  # the statistic itself, 0 where there is no regularizer; its floor is 1.0525


class WorldModel(nn.Module):
    """A latent z (B T N D) is the encoder's tokens with an embedding of proprio, if that is used.

    Args:
        predictor: next z from z and normalised action blocks.
        proprio: what the model is told beside pixels: "none", "velocity" or "full" (PointMaze's whole state).
        proprio_embed_dim: features that proprio adds to each token under concat_dim 1.
        concat_dim: where proprio goes: 1 extends every token by its embedding, 0 makes it one more token.
        frameskip: env steps of a model step.
        num_hist: frames that the predictor sees at most.
        regularizer: for encoders that are trained with the model.
    """

    def __init__(
        self,
        encoder: Encoder,
        predictor: nn.Module,
        normalizer: Normalizer,
        *,
        proprio: str,
        proprio_embed_dim: int,
        concat_dim: int = 1,
        frameskip: int,
        num_hist: int,
        regularizer: SIGReg | None = None,
    ):
        super().__init__()
        self.encoder, self.predictor, self.normalizer, self.regularizer = encoder, predictor, normalizer, regularizer
        self.frameskip, self.num_hist, self.concat_dim = frameskip, num_hist, concat_dim
        self.proprio_part = proprio_part(proprio)
        seen = len(range(4)[self.proprio_part])
        width = proprio_embed_dim if concat_dim == 1 else encoder.embed_dim
        self.proprio_encoder = nn.Linear(seen, width) if seen else None

    def encode(self, obs: Obs) -> Float[Tensor, "B T N D"]:
        """Latents of each frame; obs as the environment gives it."""
        tokens = self.encode_visual(obs)
        if self.proprio_encoder is None:
            return tokens
        proprio = self.normalizer.normalize_proprio(obs["proprio"])
        embedded = self.proprio_encoder(proprio[..., self.proprio_part])[:, :, None]
        if self.concat_dim == 1:
            return torch.cat([tokens, repeat(embedded, "b t 1 p -> b t n p", n=tokens.shape[2])], dim=3)
        return torch.cat([tokens, embedded], dim=2)

    def encode_visual(self, obs: Obs) -> Float[Tensor, "B T N E"]:
        """The encoder's tokens, or those that obs brings in place of frames."""
        if obs["visual"].ndim == 4:  # B T N E, where frames are B T h w 3
            return obs["visual"]
        return self.encoder(Obs(visual=obs["visual"], proprio=self.normalizer.normalize_proprio(obs["proprio"])))

    @property
    def lookback(self) -> int:
        """Frames before its own that a frame's latent depends on."""
        return self.encoder.lookback

    def split(self, z: Float[Tensor, "*B N D"]) -> tuple[Float[Tensor, "*B M E"], Float[Tensor, "*B 1 P"] | None]:
        """Visual and proprio part of latents; of proprio's copies the first token's is read, as in the original."""
        if self.proprio_encoder is None:
            return z, None
        if self.concat_dim == 1:
            return z[..., : self.encoder.embed_dim], z[..., :1, self.encoder.embed_dim :]
        return z[..., :-1, :], z[..., -1:, :]

    def predict(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"]) -> Float[Tensor, "B T N D"]:
        """Frame t of the result follows frame t of z under the normalised action[:, t]; T is at most num_hist."""
        return self.predictor(z, action)

    def rollout(
        self, z: Float[Tensor, "B T N D"], past: Float[Tensor, "B T-1 A"], plans: Float[Tensor, "B S H A"]
    ) -> Float[Tensor, "B S H N D"]:
        """The H latents that follow the last frame of z under each plan.

        Args:
            past: normalised blocks taken between the frames of z.
            plans: normalised blocks from the last frame on.
        """
        z = z[:, -self.num_hist :]
        past, num_plans, horizon = past[:, past.shape[1] - (z.shape[1] - 1) :], plans.shape[1], plans.shape[2]
        shared = past.shape[1]  # first frames, of which latent and action are the same under every plan of a task
        actions = rearrange(plans, "b s h a -> (b s) h a")
        latents = [repeat(z[:, -1], "b n d -> (b s) n d", s=num_plans)]  # frames from the last one of z on, under each plan
        memory: Memory = []
        for end in range(shared + 1, shared + 1 + horizon):
            first = max(0, end - self.num_hist)  # of the predictor's window; a frame's place in it is part of its keys
            begin = end - 1
            if not memory:
                begin = max(first, shared)
                memory = self._remember(z[:, first:shared], past[:, first:], num_plans) if first < shared else []
            window, blocks = torch.stack(latents[begin - shared :], dim=1), actions[:, begin - shared : end - shared]
            new, memory = self._extend(window, blocks, memory, keep=end < self.num_hist)  # then the window slides
            latents.append(new)
        return rearrange(torch.stack(latents[1:], dim=1), "(b s) h n d -> b s h n d", s=num_plans)

    def _extend(self, z: Tensor, action: Tensor, past: Memory, keep: bool) -> tuple[Float[Tensor, "B N D"], Memory]:
        return self.predictor.extend(z, action, past, keep)  # type: ignore[operator]

    def _remember(self, z: Float[Tensor, "B T N D"], past: Float[Tensor, "B T A"], num_plans: int) -> Memory:
        """What each of a task's plans needs of the frames that they share: computed once."""
        _, memory = self._extend(z, past, [], keep=True)
        return [(k.repeat_interleave(num_plans, 0), v.repeat_interleave(num_plans, 0)) for k, v in memory]

    def loss(self, obs: Obs, action: Float[Tensor, "B T A"]) -> Losses:
        """Teacher forcing over num_hist + 1 frames: contexts of 1 to num_hist frames at once.

        The target is detached (DINO-WM: a trained encoder, of proprio or of frames, must not chase its own prediction),
        but not where SIGReg keeps a trained encoder from collapsing (LeWM).
        """
        z = self.encode(obs)
        action = self.normalizer.normalize_action(action)
        target = z[:, 1:].detach() if self.encoder.frozen or self.regularizer is None else z[:, 1:]
        prediction = nn.functional.mse_loss(self.predict(z[:, :-1], action[:, :-1]), target)
        if self.regularizer is None:
            return Losses(prediction, prediction, torch.zeros_like(prediction))
        sigreg = self.regularizer(self.split(z)[0])
        return Losses(prediction + self.regularizer.loss_weight(len(z)) * sigreg, prediction, sigreg)


def proprio_part(proprio: str) -> slice:
    """Which of x, y, vx, vy the model is told.

    Raises:
        ValueError: a name that is not in PROPRIO_PARTS.
    """
    if proprio not in PROPRIO_PARTS:
        raise ValueError(f"unknown proprio {proprio!r}; known: {', '.join(PROPRIO_PARTS)}")
    return PROPRIO_PARTS[proprio]
