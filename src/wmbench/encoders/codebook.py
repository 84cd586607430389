"""Vector quantisation: each token becomes its nearest code, and codes follow the tokens."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from wmbench.encoders.base import full_precision
from wmbench.processes.batch import all_rows, from_first

EMA_DECAY, EMA_EPS = 0.99, 1e-5
COMMITMENT = 0.25  # weight, in a loss, of the distance of tokens to their codes
DEAD = 1e-3  # tokens of a batch at a code, averaged over steps; one that has fewer begins anew
COMPARED_AT_ONCE = 1024  # tokens, so that memory does not grow with their number


class Codebook(nn.Module):
    """Vector quantisation with codes that follow the mean of their latents (van den Oord et al. 2017, appendix A.1)."""

    embed: Tensor
    cluster_size: Tensor
    embed_avg: Tensor

    def __init__(self, dim: int, num_codes: int):
        super().__init__()
        self.register_buffer("embed", torch.randn(dim, num_codes))  # the codes
        self.register_buffer("cluster_size", torch.zeros(num_codes))  # latents of a batch at each code, averaged over steps
        self.register_buffer("embed_avg", self.embed.clone())  # likewise their sum

    def forward(self, x: Float[Tensor, "F N D"]) -> tuple[Float[Tensor, "F N D"], Float[Tensor, ""]]:
        """Nearest codes, whose gradient goes straight to x, and their mean squared distance; training moves the codes."""
        flat = rearrange(x.detach().float(), "f n d -> (f n) d")
        nearest = self.nearest(flat)
        codes = self.embed.T[nearest].view_as(x)
        self.learn(flat, nearest)
        return x + (codes - x).detach(), (codes - x).square().mean()

    def codes(self, x: Float[Tensor, "F N D"]) -> Float[Tensor, "F N D"]:
        """Nearest codes, to the bit and without a gradient; nothing moves."""
        return self.embed.T[self.nearest(rearrange(x.detach().float(), "f n d -> (f n) d"))].view_as(x)

    def nearest(self, flat: Float[Tensor, "K D"]) -> Int[Tensor, " K"]:
        return torch.cdist(flat, self.embed.T).argmin(dim=1)

    def learn(self, flat: Float[Tensor, "K D"], nearest: Int[Tensor, " K"]) -> None:
        """Let the codes follow the latents of a batch, which several processes may share, in training alone."""
        if self.training:
            self.follow(all_rows(flat), all_rows(nearest))

    @torch.no_grad()
    def follow(self, flat: Float[Tensor, "K D"], nearest: Int[Tensor, " K"]) -> None:
        counts = torch.zeros_like(self.cluster_size).index_add_(0, nearest, flat.new_ones(len(flat)))
        sums = torch.zeros_like(self.embed_avg).index_add_(1, nearest, flat.T)
        self.cluster_size.lerp_(counts, 1 - EMA_DECAY)
        self.embed_avg.lerp_(sums, 1 - EMA_DECAY)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + EMA_EPS) / (total + len(counts) * EMA_EPS) * total
        self.embed.copy_(self.embed_avg / smoothed)


class RevivedCodebook(Codebook):
    """One in which codes that nobody uses begin anew, each as a random latent of the batch.

    So do nearly all of them after the first step.
    """

    @property
    def perplexity(self) -> float:
        """How many codes training uses, as if it used that many equally often."""
        share = self.cluster_size / self.cluster_size.sum().clamp_min(DEAD)  # of nothing before the first step
        return torch.special.entr(share).sum().exp().item()

    @torch.no_grad()
    def follow(self, flat: Float[Tensor, "K D"], nearest: Int[Tensor, " K"]) -> None:
        super().follow(flat, nearest)
        is_dead = self.cluster_size < DEAD
        latents = flat[from_first(torch.randint(len(flat), is_dead.shape, device=flat.device))].T
        self.embed.copy_(torch.where(is_dead, latents, self.embed))
        self.embed_avg.copy_(torch.where(is_dead, DEAD * latents, self.embed_avg))
        self.cluster_size.clamp_(min=DEAD)


class WeightedCodebook(RevivedCodebook):
    """Nearest along the latents' principal axes, each weighted by its variance.

    That distance is (x - c)' C (x - c), with the latents' covariance C. DINO-Tok's abstract names it (global PCA
    reweighting) without its exponent or the frames it is measured on: here, the variance itself and the training so far.
    """

    mean: Tensor
    covariance: Tensor
    half_square: Tensor

    def __init__(self, dim: int, num_codes: int):
        super().__init__(dim, num_codes)
        self.register_buffer("mean", torch.zeros(dim))  # of the latents, as is the covariance
        self.register_buffer("covariance", torch.eye(dim))
        self.register_buffer("half_square", self.embed.square().sum(dim=0) / 2)  # c' C c / 2 of each code c, less the mean

    def nearest(self, flat: Float[Tensor, "K D"]) -> Int[Tensor, " K"]:
        with full_precision(flat.device):  # bfloat16 would confuse neighbouring codes
            weighted = ((flat - self.mean) @ self.covariance).split(COMPARED_AT_ONCE)
            return torch.cat([(self.half_square - rows @ self.embed).argmin(dim=1) for rows in weighted])

    @torch.no_grad()
    def follow(self, flat: Float[Tensor, "K D"], nearest: Int[Tensor, " K"]) -> None:
        rate = torch.where(self.cluster_size.any(), 1 - EMA_DECAY, 1.0)  # a tensor, for which no GPU is waited for
        super().follow(flat, nearest)
        with full_precision(flat.device):
            self.mean.lerp_(flat.mean(dim=0), rate)
            centred = flat - self.mean
            self.covariance.lerp_(centred.T @ centred / len(flat), rate)
            codes = self.embed - self.mean[:, None]
            self.half_square.copy_((codes * (self.covariance @ codes)).sum(dim=0) / 2)
