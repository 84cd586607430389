"""Attention and feed-forward layers that both predictors are built of."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, pad, scaled_dot_product_attention

from wmbench.processes.group import num_processes, rank

KeysValues = tuple[Float[Tensor, "_ heads _ d"], Float[Tensor, "_ heads _ d"]]
Memory = list[KeysValues]  # of the first frames of a window, layer by layer
ALIGNED = 8  # of 16 bits: what tensor cores read at once


def affine(
    x: Float[Tensor, "*B in"], weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "*B out"]:
    """x @ weight.T + bias; on a GPU in 16 bits widths such as DINO-WM's 404 are padded with zeros, which change nothing."""
    if x.is_cuda and torch.is_autocast_enabled("cuda") and (weight.shape[0] % ALIGNED or weight.shape[1] % ALIGNED):
        return padded_affine(x.to(torch.get_autocast_dtype("cuda")), weight, bias)
    return linear(x, weight, bias)


def padded_affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """affine at widths rounded up to a multiple of ALIGNED."""
    more_out, more_in = -weight.shape[0] % ALIGNED, -weight.shape[1] % ALIGNED
    bias = None if bias is None else pad(bias, (0, more_out))
    return linear(pad(x, (0, more_in)), pad(weight, (0, more_in, 0, more_out)), bias)[..., : weight.shape[0]]


class Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return affine(input, self.weight, self.bias)


def frame_causal_attention(
    q: Float[Tensor, "B heads Q d"],
    k: Float[Tensor, "B heads L d"],
    v: Float[Tensor, "B heads L d"],
    num_tokens: int,
    dropout: float,
) -> Float[Tensor, "B heads Q d"]:
    """Attention in which the num_tokens tokens of a frame see their own and all earlier frames.

    Frame by frame, so that no mask is made and nothing beyond it is computed. The queries may be of only the last frames.
    """
    asked, seen = q.shape[2], k.shape[2]
    if num_tokens == 1 and asked == seen:
        attend = spread_attention if dropout and num_processes() > 1 and not q.is_cuda else scaled_dot_product_attention
        return attend(q, k, v, dropout_p=dropout, is_causal=True)
    attend = thinned_attention if dropout and q.device.type == "cpu" else scaled_dot_product_attention
    frames = [
        attend(frame, k[:, :, :end], v[:, :, :end], dropout_p=dropout)
        for frame, end in zip(q.split(num_tokens, 2), range(seen - asked + num_tokens, seen + 1, num_tokens), strict=True)
    ]
    return torch.cat(frames, dim=2) if len(frames) > 1 else frames[0]


def spread_attention(
    q: Float[Tensor, "B heads L d"],
    k: Float[Tensor, "B heads L d"],
    v: Float[Tensor, "B heads L d"],
    dropout_p: float,
    is_causal: bool = True,
) -> Float[Tensor, "B heads L d"]:
    """Causal attention for the CPU where the rows of a batch are spread over processes: each draws for all of them, as
    PyTorch's attention would."""
    later = torch.full((q.shape[2], k.shape[2]), -torch.inf, dtype=q.dtype).triu(1)
    weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + later, dim=-1)
    kept = torch.dropout(weights.new_ones(num_processes() * len(weights), *weights.shape[1:]), dropout_p, True)
    return (weights * kept[rank() * len(weights) :][: len(weights)]) @ v


def thinned_attention(
    q: Float[Tensor, "B heads Q d"], k: Float[Tensor, "B heads L d"], v: Float[Tensor, "B heads L d"], dropout_p: float
) -> Float[Tensor, "B heads Q d"]:
    """Attention with dropout for the CPU, whose fused kernel has none."""
    weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), dim=-1)
    return thinned(weights, dropout_p) @ v


def thinned(x: Float[Tensor, "..."], dropout: float) -> Float[Tensor, "..."]:
    """Dropout for the CPU, where PyTorch's draws number by number: here four of 16 bits come from each drawn one.

    Where the rows of a batch are spread over processes, each draws for all of them, so that their number changes nothing.
    """
    bits = torch.empty(-(-num_processes() * x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    kept = bits.view(torch.int16)[rank() * x.numel() :][: x.numel()].view_as(x) >= round(dropout * 2**16) - 2**15
    return x * kept.to(x.dtype).mul_(1 / (1 - dropout))


class Dropout(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        if self.training and self.p and input.device.type == "cpu":
            return thinned(input, self.p)
        return super().forward(input)


class Attention(nn.Module):
    """Pre-norm multi-head attention over the tokens of consecutive frames."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, dropout: float):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = Linear(dim, 3 * num_heads * head_dim, bias=False)
        self.to_out = nn.Sequential(Linear(num_heads * head_dim, dim), Dropout(dropout))

    def forward(self, x: Float[Tensor, "B L D"], num_tokens: int) -> Float[Tensor, "B L D"]:
        q, k, v = rearrange(self.to_qkv(self.norm(x)), "b l (three h d) -> three b h l d", three=3, h=self.num_heads)
        q, k = self.place(q, num_tokens), self.place(k, num_tokens)
        out = frame_causal_attention(q, k, v, num_tokens, self.dropout if self.training else 0.0)
        return self.to_out(rearrange(out, "b h l d -> b l (h d)"))

    def place(self, x: Float[Tensor, "B heads L d"], num_tokens: int) -> Float[Tensor, "B heads L d"]:
        """Queries or keys of consecutive frames, with what tells the frames apart where positions do not."""
        return x

    def extend(
        self, x: Float[Tensor, "B L D"], num_tokens: int, past: KeysValues | None, asked: int
    ) -> tuple[Float[Tensor, "B Q D"], KeysValues]:
        """What the last `asked` tokens of x see in x and before it, with the keys and values of all; for inference.

        Args:
            past: of the frames before x, for each row of x or shared by as many consecutive rows.
        """
        x, split = self.norm(x), self.num_heads * self.to_qkv.out_features // (3 * self.num_heads)
        q = affine(x[:, x.shape[1] - asked :], self.to_qkv.weight[:split])
        q = rearrange(q, "b q (h d) -> b h q d", h=self.num_heads)
        k, v = rearrange(affine(x, self.to_qkv.weight[split:]), "b l (two h d) -> two b h l d", two=2, h=self.num_heads)
        q, k = self.place(q, num_tokens), self.place(k, num_tokens)
        if past is not None:
            k, v = behind(past[0], k), behind(past[1], v)
        out = frame_causal_attention(q, k, v, num_tokens, 0.0)
        return self.to_out(rearrange(out, "b h q d -> b q (h d)")), (k, v)


def behind(past: Float[Tensor, "_ heads _ d"], new: Float[Tensor, "_ heads _ d"]) -> Float[Tensor, "_ heads _ d"]:
    """New frames' keys or values behind earlier ones', each row of which as many consecutive new rows share."""
    new = new.unflatten(0, (len(past), -1))
    return torch.cat([past[:, None].expand(-1, new.shape[1], -1, -1, -1), new], dim=3).flatten(0, 1)


class FeedForward(nn.Module):
    """Pre-norm two-layer perceptron."""

    def __init__(self, dim: int, mlp_dim: int, dropout: float):
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(dim), Linear(dim, mlp_dim), nn.GELU(), Dropout(dropout), Linear(mlp_dim, dim), Dropout(dropout)
        )

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return self.net(x)
