"""The matched arms: any encoder's tokens on a coarser grid, with every feature on one scale, at a common width."""

from contextlib import nullcontext

import numpy as np
import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.data.normalizer import Normalizer
from wmbench.data.windows import Windows
from wmbench.encoders.base import Encoder, full_precision
from wmbench.machine import progress_bar
from wmbench.shapes import Obs

PROJECTION_SEED = 0  # the same matrix for every run of a width: seeds of a study differ only by training
PROJECTIONS = ("random", "learned")
CHUNK = 16  # windows encoded at once
ROUNDING = 1e-6  # a standard deviation below this part of a feature's size is rounding error


class Matched(Encoder):
    """Another encoder's tokens, averaged over squares of the grid, normalised, standardised, projected, as asked for.

    Features are standardised before they are mixed, or a few of large values would fill every projected one. The
    projection is a random matrix with orthonormal rows or columns, never trained. Mean squares over features, which
    losses and planning costs are made of, stay as they are: exactly where it widens, on average where it narrows.

    Projection and statistics are part of a run's weights, also where the encoder's are left out of them.

    Args:
        pool: side of the coarser grid.
        width: features of a token; no matrix where it is the encoder's own.
        standardise: features to mean 0 and variance 1 over training frames and tokens, once `fit` has measured them; until
            then tokens are NaN.
        layer_norm: each token's features to mean 0 and variance 1, without parameters, as the final norm of many networks.
        by_token: standardise every token by its own statistics. Under a camera that never moves, tokens differ from one
            another more than any ever changes: by common ones the scene outweighs the ball in losses and costs.

    Raises:
        ValueError: a pool that does not divide the grid, or for one token a frame; standardise on an encoder that is trained
            with the model; by_token without standardise.
    """

    mean: Tensor | None
    std: Tensor | None
    projection: Tensor | None

    def __init__(
        self,
        encoder: Encoder,
        pool: int | None,
        width: int | None,
        standardise: bool,
        layer_norm: bool = False,
        by_token: bool = False,
    ):
        own = encoder.embed_dim
        if pool is not None:
            check_pool(pool, encoder)
        if standardise and not encoder.frozen:
            raise ValueError("matched.standardise=true needs a frozen encoder: training moves the tokens; set it to false")
        if by_token and not standardise:
            raise ValueError("matched.by_token=true says how to standardise and needs matched.standardise=true")
        width = own if width is None else width
        made = {
            f"pooled to {pool} x {pool}": pool is not None,
            "layer-normalised": layer_norm,
            "standardised by token" if by_token else "standardised": standardise,
            f"projected to {width}": width != own,
        }
        changes = [name for name, is_made in made.items() if is_made]
        super().__init__(
            image_size=encoder.image_size,
            grid=encoder.grid if pool is None else (pool, pool),
            embed_dim=width,
            pixel_mean=encoder.pixel_mean.flatten().tolist(),
            pixel_std=encoder.pixel_std.flatten().tolist(),
            frozen=encoder.frozen,
            source=", ".join([encoder.source, *changes]),
            prefix_tokens=encoder.prefix_tokens,
            licence=encoder.licence,
        )
        self.encoder, self.lookback, self.changes, self.layer_norm = encoder, encoder.lookback, changes, layer_norm
        measured = (self.num_tokens, own) if by_token else (own,)
        unknown = torch.full(measured, torch.nan) if standardise else None
        self.register_buffer("mean", unknown)
        self.register_buffer("std", None if unknown is None else unknown.clone())
        self.register_buffer("projection", None if width == own else random_projection(own, width))
        if self.frozen:
            self.freeze()

    def forward(self, obs: Obs) -> Float[Tensor, "B T N D"]:
        return self.match(self.encoder(obs))

    def preprocess(self, visual: Tensor) -> Tensor:
        return self.encoder.preprocess(visual)

    def tokens(self, pixels: Tensor) -> Float[Tensor, "F N D"]:
        return self.match(self.encoder.tokens(pixels))

    def match(self, tokens: Float[Tensor, "*B M E"]) -> Float[Tensor, "*B N D"]:
        """The encoder's own tokens, made comparable."""
        with full_precision(tokens.device) if self.frozen else nullcontext():
            tokens = self.pool_and_norm(tokens)
            if self.mean is not None and self.std is not None:
                tokens = (tokens - self.mean) / self.std
            return tokens if self.projection is None else tokens @ self.projection

    def pool_and_norm(self, tokens: Float[Tensor, "*B M E"]) -> Float[Tensor, "*B N E"]:
        """Tokens pooled and normalised, as they are measured before they are standardised."""
        (rows, columns), (h, w) = self.encoder.grid, self.grid
        tokens = reduce(tokens, "... (h p w q) e -> ... (h w) e", "mean", h=h, w=w, p=rows // h, q=columns // w)
        return nn.functional.layer_norm(tokens, tokens.shape[-1:]) if self.layer_norm else tokens

    @torch.no_grad()
    def fit(self, train: Windows, normalizer: Normalizer, num_frames: int = 2000) -> None:
        """Measure mean and standard deviation of the pooled features over evenly spread windows, the same every time.

        Args:
            train: of frames, or of their tokens, which then are not encoded for it.
            normalizer: of proprio, which the encoder gets as the world model hands it over.
            num_frames: in all windows together, at most.
        """
        assert self.mean is not None and self.std is not None, "nothing to fit without standardise"
        num_windows = max(1, num_frames // train.num_frames)
        index = np.unique(np.linspace(0, len(train) - 1, num_windows).astype(int))
        last = 3 - self.mean.dim()  # of the axes of windows, frames and, where they share statistics, tokens
        count, total, squares = 0, torch.zeros(self.mean.shape).double(), torch.zeros(self.mean.shape).double()
        with progress_bar(total=len(index), desc="feature statistics", unit=" windows") as bar:
            for chunk in np.array_split(index, -(-len(index) // CHUNK)):
                obs = train.get(chunk, self.mean.device).obs
                proprio = normalizer.normalize_proprio(obs["proprio"])
                tokens = obs["visual"] if obs.get("encoded") else self.encoder(Obs(**{**obs, "proprio": proprio}))
                features = self.pool_and_norm(tokens).flatten(0, last).cpu().double()
                count, total = count + len(features), total + features.sum(0)
                squares = squares + features.square().sum(0)
                bar.update(len(chunk))
        mean, size = total / count, squares / count
        std = (size - mean.square()).clamp_min(0).sqrt()
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > ROUNDING * size.sqrt(), std, 1.0))  # a constant feature becomes 0


def matched(encoder: Encoder, width: int | None, projection: str = "random", **changes: int | bool | None) -> Encoder:
    """The encoder itself where nothing is asked of it; a learned projection is the predictor's affair.

    Args:
        changes: the other arguments of Matched.

    Raises:
        ValueError: an unknown projection, and as Matched.
    """
    if projection not in PROJECTIONS:
        raise ValueError(f"matched.projection ({projection!r}) must be one of {', '.join(PROJECTIONS)}")
    if width is not None and width < 1:
        raise ValueError(f"matched.width ({width}) must be at least 1; null keeps the encoder's {encoder.embed_dim}")
    width = width if projection == "random" else None
    if width is None and all(value is None or value is False for value in changes.values()):  # pool 0 is refused
        return encoder
    return Matched(encoder, width=width, **changes)  # type: ignore[arg-type] - what Matched takes


def unmatched(encoder: Encoder) -> Encoder:
    """The encoder without what Matched adds: what its source brings, and what the hash of its weights names."""
    return encoder.encoder if isinstance(encoder, Matched) else encoder


def check_pool(pool: int, encoder: Encoder) -> None:
    rows, columns = grid = encoder.grid
    if grid == (1, 1):
        raise ValueError(f"matched.pool ({pool}) needs a grid, and this encoder gives one token a frame; leave it null")
    sides = [side for side in range(1, min(grid) + 1) if rows % side == 0 and columns % side == 0]
    if pool not in sides:
        known = ", ".join(str(side) for side in sides)
        if encoder.size_sets_grid and pool > 0:
            near = max(1, round(rows / pool)) * pool
            known += f"; or take encoder.image_size={near * encoder.image_size // rows}, which gives {near} x {near}"
        raise ValueError(f"matched.pool ({pool}) must divide the encoder's {rows} x {columns} tokens: {known}")


def random_projection(before: int, after: int) -> Float[Tensor, "before after"]:
    """Orthonormal columns where it narrows, rows where it widens, these scaled to keep mean squares over features."""
    generator = torch.Generator().manual_seed(PROJECTION_SEED)
    basis = torch.linalg.qr(torch.randn(max(before, after), min(before, after), generator=generator)).Q
    return basis if after < before else basis.T.contiguous() * (after / before) ** 0.5
