"""The world model as the paper's verbs: encode, predict, rollout, loss."""

from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.base import Encoder
from wmbench.models.base import Losses, Predictor
from wmbench.models.sigreg import SIGReg
from wmbench.shapes import Batch, Obs

PROPRIO_PARTS = {"none": slice(0, 0), "velocity": slice(2, 4), "full": slice(0, 4)}


class WorldModel(nn.Module):
    """A latent z (B T N D) is the encoder's tokens with an embedding of proprio, if that is used.

    Args:
        predictor: next z from z and normalised action blocks; None for a model that only encodes.
        proprio: what the model is told apart from pixels: "none", "velocity" or "full" (PointMaze's whole state).
        proprio_embed_dim: features that proprio adds to each token under concat_dim 1.
        concat_dim: where proprio goes: 1 extends every token by its embedding, 0 makes it one more token.
        frameskip: env steps of a model step.
        num_hist: frames that the predictor sees at most.
        regularizer: for encoders that are trained with the model.
    """

    def __init__(
        self,
        encoder: Encoder,
        predictor: Predictor | None,
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
        self.encoder = encoder
        self.predictor: Predictor = predictor  # type: ignore[assignment]
        self.normalizer, self.regularizer = normalizer, regularizer
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
        """The encoder's tokens: of frames, or made from its own tokens where obs brings these in place of frames."""
        if obs.get("encoded"):
            return self.encoder.match(obs["visual"])
        return self.encoder(Obs(**{**obs, "proprio": self.normalizer.normalize_proprio(obs["proprio"])}))

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
        latents = [latent for latent, _ in self._steps(z, past, plans)]
        return rearrange(torch.stack(latents, dim=1), "(b s) h n d -> b s h n d", s=plans.shape[1])

    def rollout_with_doubt(
        self, z: Float[Tensor, "B T N D"], past: Float[Tensor, "B T-1 A"], plans: Float[Tensor, "B S H A"]
    ) -> tuple[Float[Tensor, "B S H N D"], Float[Tensor, "B S H"]]:
        """Also the standard deviation of each latent, from a predictor that says how unsure it is."""
        latents, doubts = zip(
            *((latent, self.predictor.doubt(state)) for latent, state in self._steps(z, past, plans)), strict=True
        )
        doubt = rearrange(torch.stack(doubts, dim=1), "(b s) h -> b s h", s=plans.shape[1])
        return rearrange(torch.stack(latents, dim=1), "(b s) h n d -> b s h n d", s=plans.shape[1]), doubt

    def _steps(self, z: Tensor, past: Tensor, plans: Tensor) -> Iterator[tuple[Tensor, Any]]:
        """Latents and states under each block of all plans."""
        state = self.predictor.begin(z, past, plans.shape[1])
        for action in rearrange(plans, "b s h a -> h (b s) a"):
            latent, state = self.predictor.step(state, action)
            yield latent, state

    def loss(self, batch: Batch) -> Losses:
        """Teacher forcing over num_hist + 1 frames: contexts of 1 to num_hist frames at once.

        The target is detached (DINO-WM: a trained encoder, of proprio or of frames, must not chase its own prediction),
        but not where SIGReg keeps a trained encoder from collapsing (LeWM). `sigreg` is the statistic itself, 0 where there
        is no regularizer; its floor is 1.0525.
        """
        z = self.encode(batch.obs)
        action = self.normalizer.normalize_action(batch.action)
        target = z[:, 1:].detach() if self.encoder.frozen or self.regularizer is None else z[:, 1:]
        losses = self.predictor.loss(z[:, :-1], action[:, :-1], target)
        if self.regularizer is None:
            return Losses(losses.total, losses.parts | {"sigreg": torch.zeros_like(losses.total)})
        sigreg = self.regularizer(self.split(z)[0])
        return Losses(losses.total + self.regularizer.loss_weight(len(z)) * sigreg, losses.parts | {"sigreg": sigreg})


def proprio_part(proprio: str) -> slice:
    """Which of x, y, vx, vy the model is told.

    Raises:
        ValueError: a name that is not in PROPRIO_PARTS.
    """
    if proprio not in PROPRIO_PARTS:
        raise ValueError(f"unknown proprio {proprio!r}; known: {', '.join(PROPRIO_PARTS)}")
    return PROPRIO_PARTS[proprio]
