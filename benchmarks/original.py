"""DINO-WM's way of computing, written plainly, as what the benchmarks compare with.

The same algorithm on the same weights: dense masks in fp32, every frame of the window at every step, the start frame encoded
again for each sample, one task at a time, decoded pictures of the plan in the loop. It is what the published code does
(its planner, world model and evaluator), without its simulator, files and plots. At the end, what our own code was before
it became faster.
"""

import copy
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn

from wmbench.data.windows import Windows
from wmbench.models.adaln import AdaLNPredictor
from wmbench.models.attention import Attention, Dropout, FeedForward
from wmbench.models.decoder import decoder_loss, frames_to_pixels
from wmbench.models.sigreg import NUM_KNOTS, T_MAX, SIGReg
from wmbench.models.vit import FrameCausalViT
from wmbench.models.world_model import WorldModel
from wmbench.shapes import Batch, Obs


class DenseAttention(nn.Module):
    """Attention written out: all logits, a mask over all frames of a window, softmax."""

    def __init__(self, ours: Attention, num_frames: int, num_tokens: int):
        super().__init__()
        self.ours, self.dropout = ours, nn.Dropout(ours.dropout)
        frame = torch.arange(num_frames * num_tokens, device=ours.to_qkv.weight.device) // num_tokens
        self.register_buffer("mask", (frame[None] <= frame[:, None]).float(), persistent=False)

    def forward(self, x: Float[Tensor, "B L D"], num_tokens: int) -> Float[Tensor, "B L D"]:
        q, k, v = (
            rearrange(part, "b l (h d) -> b h l d", h=self.ours.num_heads)
            for part in self.ours.to_qkv(self.ours.norm(x)).chunk(3, dim=-1)
        )
        logits = torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        length = x.shape[1]
        logits = logits.masked_fill(self.mask[:length, :length] == 0, float("-inf"))
        weights = self.dropout(torch.softmax(logits, dim=-1))
        return self.ours.to_out(rearrange(torch.matmul(weights, v), "b h l d -> b l (h d)"))


def densely(predictor: FrameCausalViT | AdaLNPredictor, num_frames: int) -> nn.Module:
    """A copy of a predictor, weights included, that computes attention densely, with PyTorch's own dropout."""
    dense = copy.deepcopy(predictor)
    num_tokens = dense.pos_embedding.shape[1] // num_frames
    for parent in list(dense.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, Attention):
                setattr(parent, name, DenseAttention(module, num_frames, num_tokens))
            elif isinstance(module, Dropout):
                setattr(parent, name, nn.Dropout(module.p))
    return dense.train(predictor.training)


def rollout(model: WorldModel, dense: nn.Module, obs: Obs, plans: Float[Tensor, "S H A"]) -> Float[Tensor, "S H N D"]:
    """One task's latents under its plans: the start frame copied for each plan and encoded with it."""
    copies = Obs(visual=obs["visual"].expand(len(plans), -1, -1, -1, -1), proprio=obs["proprio"].expand(len(plans), -1, -1))
    z = model.encode(copies)
    for end in range(1, plans.shape[1] + 1):
        first = max(0, end - model.num_hist)
        z = torch.cat([z, dense(z[:, first:end], plans[:, first:end])[:, -1:]], dim=1)
    return z[:, 1:]


def costs(
    model: WorldModel, dense: nn.Module, obs: Obs, goal: Float[Tensor, "N D"], plans: Float[Tensor, "S H A"]
) -> Float[Tensor, " S"]:
    """Costs of one task's plans."""
    z = rollout(model, dense, obs, plans)
    return (model.split(z[:, -1])[0] - goal).square().mean((1, 2))


class Encoded(nn.Module):
    """A model whose start latents are known."""

    def __init__(self, model: WorldModel, z: Tensor):
        super().__init__()
        self.num_hist, self.split, self.left = model.num_hist, model.split, list(z)

    def encode(self, obs: Obs) -> Tensor:
        """Latents of the next task."""
        return self.left.pop(0).expand(len(obs["visual"]), -1, -1, -1)


def cem_iteration(
    model: WorldModel,
    dense: nn.Module,
    obs: Obs,
    goal: Float[Tensor, "B N D"],
    plans: Float[Tensor, "B S H A"],
    num_elites: int,
    decoder: nn.Module | None = None,
) -> Float[Tensor, "B H A"]:
    """The mean of the cheapest plans, task by task; then the evaluator looks at what the new mean leads to.

    Args:
        goal: visual latents.
        plans: normalised blocks.
        decoder: draws what the model expects of the mean, as the original does after every iteration; None leaves that out.
    """
    means = []
    for task in range(len(plans)):
        cost = costs(model, dense, one(obs, task), goal[task], plans[task])
        float(cost.min())  # the original logs it, for which the host waits
        means.append(plans[task, cost.argsort()[:num_elites]].mean(0))
    mean = torch.stack(means)
    if decoder is not None:
        for task in range(len(plans)):
            start = one(obs, task)
            z = torch.cat([model.encode(start), rollout(model, dense, start, mean[task : task + 1])], dim=1)
            decoder(model.split(z[0])[0])
    return mean


def one(obs: Obs, task: int) -> Obs:
    return Obs(visual=obs["visual"][task : task + 1], proprio=obs["proprio"][task : task + 1])


class TheirViT(nn.Module):
    """The predictor of a checkout of the published code in place of ours, on the weights of ours.

    Raises:
        ValueError: no such checkout, or one whose predictor is another.
    """

    def __init__(self, checkout: Path, ours: FrameCausalViT):
        super().__init__()
        file = checkout / "models" / "vit.py"
        if not file.exists():
            raise ValueError(f"dino_wm={checkout} is no checkout of DINO-WM: it has no models/vit.py")
        spec = spec_from_file_location("dino_wm_vit", file)
        assert spec and spec.loader
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        attention = next(layer for layer in ours.modules() if isinstance(layer, Attention))
        self.ours = ours
        self.theirs = module.ViTPredictor(
            num_patches=ours.tokens_inside,
            num_frames=ours.pos_embedding.shape[1] // ours.tokens_inside,
            dim=ours.pos_embedding.shape[2],
            depth=len(ours.layers),
            heads=attention.num_heads,
            dim_head=attention.to_qkv.out_features // (3 * attention.num_heads),
            mlp_dim=next(layer for layer in ours.modules() if isinstance(layer, FeedForward)).net[1].out_features,
            pool="mean",
            dropout=attention.dropout,
        )
        state = {name: tensor for name, tensor in ours.state_dict().items() if not name.startswith("action_encoder.")}
        names = {name: name if name == "pos_embedding" else f"transformer.{name}" for name in state}
        try:
            self.theirs.load_state_dict({names[name]: tensor for name, tensor in state.items()})
        except RuntimeError as error:
            raise ValueError(f"the predictor in {file} is not the one published: {error}") from None
        self.theirs.to(ours.pos_embedding.device)

    def forward(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"]) -> Float[Tensor, "B T N D"]:
        x = rearrange(self.ours.join(z, action), "b t m w -> b (t m) w")
        x = rearrange(self.theirs(x), "b (t m) w -> b t m w", m=self.ours.tokens_inside)
        return x[:, :, : self.ours.num_tokens, : self.ours.dim]


def read_batch(windows: Windows, index: Int[ndarray, " B"], device: torch.device) -> Batch:
    """Windows read one by one, each frame again for every window that shows it."""
    samples = [windows.get(index[k : k + 1]) for k in range(len(index))]
    obs = Obs(
        visual=torch.cat([sample.obs["visual"] for sample in samples]).to(device),
        proprio=torch.cat([sample.obs["proprio"] for sample in samples]).to(device),
    )
    return Batch(obs, torch.cat([sample.action for sample in samples]).to(device))


def training_step(
    model: WorldModel, decoder: nn.Module, optimizers: list[torch.optim.Optimizer], batch: Batch
) -> dict[str, float]:
    """One step of model and decoder. The decoder also draws the predictions, from which nothing learns: they are logged."""
    z = model.encode(batch.obs)
    predicted = model.predict(z[:, :-1], model.normalizer.normalize_action(batch.action)[:, :-1])
    loss = nn.functional.mse_loss(predicted, z[:, 1:].detach())
    pixels = frames_to_pixels(batch.obs["visual"])
    imagined = decoder_loss(decoder, model.split(predicted)[0].flatten(0, 1), pixels[:, 1:].flatten(0, 1))
    drawn = decoder_loss(decoder, model.split(z)[0].flatten(0, 1), pixels.flatten(0, 1))
    for optimizer in optimizers:
        optimizer.zero_grad()
    (loss + drawn.total).backward()
    for optimizer in optimizers:
        optimizer.step()
    logged = {"loss": loss + drawn.total, "z_loss": loss, "decoder_loss": drawn.total, **drawn.parts}
    logged |= {f"{name}_pred": value for name, value in imagined.parts.items()}
    return {name: value.item() for name, value in logged.items()}  # the host waits for each


class KnotwiseSIGReg(SIGReg):
    """Our SIGReg until 2026-11-27: a cosine and a sine at every knot, which autograd goes back through."""

    def forward(self, z: Float[Tensor, "B T N D"]) -> Float[Tensor, ""]:
        with torch.autocast(z.device.type, enabled=False):
            directions = torch.randn(z.shape[-1], self.num_directions, device=z.device)
            h = z.float().permute(1, 2, 0, 3) @ nn.functional.normalize(directions, dim=0)
            t = torch.linspace(0, T_MAX, NUM_KNOTS, device=h.device, dtype=h.dtype)
            normal = torch.exp(-(t**2) / 2)
            weight = torch.full_like(t, 2 * T_MAX / (NUM_KNOTS - 1))
            weight[[0, -1]] /= 2
            angle = h[..., None] * t
            distance = (angle.cos().mean(-3) - normal) ** 2 + angle.sin().mean(-3) ** 2
            return (h.shape[-2] * (distance * weight * normal).sum(-1)).mean()
