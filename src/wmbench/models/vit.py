"""DINO-WM's predictor: a ViT over the tokens of up to num_hist frames, causal from frame to frame."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.models.attention import Attention, FeedForward, Memory
from wmbench.models.window import WindowPredictor


class FrameCausalViT(WindowPredictor):
    """Every token of frame t predicts the same token of frame t + 1 from frames up to t and their actions.

    The embedded action goes in with the tokens of its frame and is dropped again on the way out. Positions are learned, one
    per frame slot and token, from N(0, 1); the final LayerNorm's output is the prediction, as in the original.

    Args:
        dim: features of a token of z (visual and proprio).
        num_tokens: of a frame of z.
        action_dim: of an action block, frameskip x action size.
        action_embed_dim: features that the action adds to each token under concat_dim 1.
        concat_dim: where the action goes: 1 extends every token by its embedding, 0 makes it one more token.
    """

    attention: type[Attention] = Attention

    def __init__(
        self,
        dim: int,
        num_tokens: int,
        num_hist: int,
        action_dim: int,
        action_embed_dim: int,
        depth: int,
        num_heads: int,
        head_dim: int,
        mlp_dim: int,
        dropout: float,
        concat_dim: int = 1,
    ):
        super().__init__(num_hist)
        self.num_tokens, self.dim, self.concat_dim = num_tokens, dim, concat_dim
        width = dim + action_embed_dim if concat_dim == 1 else dim
        self.tokens_inside = num_tokens if concat_dim == 1 else num_tokens + 1
        self.action_encoder = nn.Linear(action_dim, action_embed_dim if concat_dim == 1 else dim)
        self.pos_embedding = nn.Parameter(torch.randn(1, num_hist * self.tokens_inside, width))
        self.layers = nn.ModuleList(
            nn.ModuleList([self.attention(width, num_heads, head_dim, dropout), FeedForward(width, mlp_dim, dropout)])
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"]) -> Float[Tensor, "B T N D"]:
        return self.answer(self.transform(self.join(z, action)))

    def answer(self, x: Float[Tensor, "*B M W"]) -> Float[Tensor, "*B N D"]:
        """The latent that follows a frame, from what the transformer makes of the frame's tokens."""
        return x[..., : self.num_tokens, : self.dim]

    def join(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"]) -> Float[Tensor, "B T M W"]:
        """z with the embedded actions: the original's latent."""
        embedded = self.action_encoder(action)[:, :, None]
        if self.concat_dim == 1:
            return torch.cat([z, repeat(embedded, "b t 1 a -> b t n a", n=self.num_tokens)], dim=3)
        return torch.cat([z, embedded], dim=2)

    def positions(self, first: int, number: int) -> Float[Tensor, "1 M W"]:
        """What is added to so many tokens of a window, from the one numbered `first` on."""
        return self.pos_embedding[:, first : first + number]

    def transform(self, joined: Float[Tensor, "B T M W"]) -> Float[Tensor, "B T M W"]:
        """Run the transformer; its output still has the action's part."""
        x = rearrange(joined, "b t m w -> b (t m) w")
        x = x + self.positions(0, x.shape[1])
        for attention, feed_forward in self.layers:  # type: ignore[misc]
            x = x + attention(x, self.tokens_inside)
            x = x + feed_forward(x)
        return rearrange(self.norm(x), "b (t m) w -> b t m w", m=self.tokens_inside)

    def extend(
        self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"], past: Memory, keep: bool
    ) -> tuple[Float[Tensor, "B N D"], Memory]:
        x = rearrange(self.join(z, action), "b t m w -> b (t m) w")
        first = past[0][0].shape[2] if past else 0
        x = x + self.positions(first, x.shape[1])
        memory: Memory = []
        for layer, (attention, feed_forward) in enumerate(self.layers):  # type: ignore[misc]
            asked = self.tokens_inside if layer == len(self.layers) - 1 else x.shape[1]
            seen, kept = attention.extend(x, self.tokens_inside, past[layer] if past else None, asked)
            memory += [kept] if keep else []
            x = x[:, x.shape[1] - asked :] + seen
            x = x + feed_forward(x)
        return self.answer(self.norm(x)), memory
