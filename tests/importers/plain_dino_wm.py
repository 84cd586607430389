"""The original's arithmetic once more, in plain PyTorch with a dense mask: records of any size to verify against.

Written from its description (reference of the published code), sharing nothing with wmbench.
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, gelu, layer_norm, linear, mse_loss

CONFIG = {
    "patches_per_side": 2,
    "visual_dim": 6,
    "proprio_dim": 3,
    "action_dim": 8,
    "proprio_emb_dim": 4,
    "action_emb_dim": 5,
    "num_hist": 3,
    "depth": 2,
    "heads": 3,
    "dim_head": 4,
    "mlp_dim": 11,
    "concat_dim": 1,
}


def random_record(seed: int = 0, **changed: int) -> dict:
    """A file in the format of world_model_tiny.pt, with random weights."""
    config = CONFIG | changed
    config["image_size"] = 16 * config["patches_per_side"]
    torch.manual_seed(seed)
    plain = Plain(config, random_weights(config))
    frames, batch = config["num_hist"] + 1, 2
    obs, act = random_obs(config, batch, frames), torch.randn(batch, frames, config["action_dim"])
    z = plain.encode(obs, act)
    record = {"config": config, **plain.weights, "obs": obs, "act": act, "z": z}
    record["predict"] = {f"T{t}": plain.predict(z[:, :t]) for t in range(1, config["num_hist"] + 1)}
    record["loss"] = plain.loss(obs, z)
    record["decoded"] = plain.decode(plain.visual(z))
    for seen, steps in ((1, 4), (2, 3)):
        start, actions = random_obs(config, batch, seen), torch.randn(batch, seen + steps, config["action_dim"])
        record[f"rollout_{seen}"] = {"obs_0": start, "act": actions, "z": plain.rollout(start, actions)}
    goal = plain.encode(random_obs(config, batch, 1), act[:, :1])
    record["goal"] = {"visual": plain.visual(goal), "proprio": plain.proprio(goal)[:, :, 0]}
    imagined = record["rollout_1"]["z"]
    record["cost"] = {f"{m}_a{a}": plain.cost(imagined, record["goal"], m, a) for m in ("last", "all") for a in (0, 0.5, 2)}
    return record


def random_trace(
    record: dict, seed: int = 1, num_samples: int = 9, topk: int = 3, horizon: int = 4, alpha: float = 0.5
) -> dict:
    """A file in the format of cem_trace_tiny.pt: CEM of three iterations, task by task."""
    torch.manual_seed(seed)
    config, tasks = record["config"], 2
    plain = Plain(config, {name: record[name] for name in WEIGHTS})
    obs_0, obs_g = random_obs(config, tasks, 1), random_obs(config, tasks, 1)
    noise = torch.randn(3, tasks, num_samples, horizon, config["action_dim"])
    settings = {"topk": topk, "horizon": horizon, "var_scale": 1.5, "alpha": alpha}
    trace = {"obs_0": obs_0, "obs_g": obs_g, "noise": noise, **settings}
    goal = plain.encode(obs_g, torch.zeros(tasks, 1, config["action_dim"]))
    mean = torch.zeros(tasks, horizon, config["action_dim"])
    std = torch.full_like(mean, 1.5)
    trace |= {"mean": [], "std": [], "best_cost": []}
    for drawn in noise:
        mean, std, best = mean.clone(), std.clone(), torch.empty(tasks)
        for task in range(tasks):
            plans = mean[task] + std[task] * drawn[task]
            plans[0] = mean[task]
            start = {key: value[task : task + 1].expand(num_samples, *value.shape[1:]) for key, value in obs_0.items()}
            target = {"visual": plain.visual(goal)[task : task + 1], "proprio": plain.proprio(goal)[task : task + 1, :, 0]}
            costs = plain.cost(plain.rollout(start, plans), target, "last", alpha)
            elites = plans[costs.argsort()[:topk]]
            mean[task], std[task], best[task] = elites.mean(0), elites.std(0), costs.min()
        for name, value in (("mean", mean), ("std", std), ("best_cost", best)):
            trace[name].append(value)
    return trace | {name: torch.stack(trace[name]) for name in ("mean", "std", "best_cost")}


WEIGHTS = ("encoder_patch_linear", "predictor", "proprio_encoder", "action_encoder", "decoder")


def random_obs(config: dict, batch: int, frames: int) -> dict[str, Tensor]:
    side = config["image_size"]
    visual = torch.rand(batch, frames, 3, side, side) * 2 - 1
    return {"visual": visual, "proprio": torch.randn(batch, frames, config["proprio_dim"])}


def random_weights(config: dict) -> dict[str, dict[str, Tensor]]:
    patch, visual, tokens = 16, config["visual_dim"], config["patches_per_side"] ** 2
    width = visual + config["proprio_emb_dim"] + config["action_emb_dim"]
    if config["concat_dim"] == 0:
        width, tokens = visual, tokens + 2
    inner = config["heads"] * config["dim_head"]
    shapes = {"pos_embedding": (1, config["num_hist"] * tokens, width)}
    shapes |= {"transformer.norm.weight": (width,), "transformer.norm.bias": (width,)}
    for layer in range(config["depth"]):
        attention, mlp = f"transformer.layers.{layer}.0.", f"transformer.layers.{layer}.1.net."
        shapes |= {attention + "norm.weight": (width,), attention + "norm.bias": (width,)}
        shapes |= {attention + "to_qkv.weight": (3 * inner, width)}
        if config["heads"] > 1 or config["dim_head"] != width:
            shapes |= {attention + "to_out.0.weight": (width, inner), attention + "to_out.0.bias": (width,)}
        shapes |= {mlp + "0.weight": (width,), mlp + "0.bias": (width,), mlp + "1.bias": (config["mlp_dim"],)}
        shapes |= {mlp + "1.weight": (config["mlp_dim"], width), mlp + "4.weight": (width, config["mlp_dim"])}
        shapes |= {mlp + "4.bias": (width,)}
    decoder = {"quantize_b.embed": (visual, 7), "quantize_b.cluster_size": (7,), "quantize_b.embed_avg": (visual, 7)}
    for stage, out in (("upsample_b", visual), ("dec", 3)):
        conv = {"0": (8, visual, 3, 3), "1.conv.1": (5, 8, 3, 3), "1.conv.3": (8, 5, 1, 1)}
        transposed = {"3": (8, 4, 4, 4), "5": (4, out, 4, 4)}
        for name, shape in (conv | transposed).items():
            decoder |= {f"{stage}.blocks.{name}.weight": shape}
            decoder |= {f"{stage}.blocks.{name}.bias": shape[1:2] if name in transposed else shape[:1]}
    layouts = {
        "encoder_patch_linear": {"lin.weight": (visual, 3 * patch**2), "lin.bias": (visual,)},
        "predictor": shapes,
        "proprio_encoder": affine(config["proprio_dim"], config["proprio_emb_dim"]),
        "action_encoder": affine(config["action_dim"], config["action_emb_dim"]),
        "decoder": decoder,
    }
    return {part: {name: 0.3 * torch.randn(shape) for name, shape in layout.items()} for part, layout in layouts.items()}


def affine(wide: int, out: int) -> dict[str, tuple[int, ...]]:
    return {"patch_embed.weight": (out, wide, 1), "patch_embed.bias": (out,)}


class Plain:
    """The functions of the original's world model on z (B T N D) with proprio and action in it."""

    def __init__(self, config: dict, weights: dict[str, dict[str, Tensor]]):
        self.config, self.weights = config, weights
        self.by_feature = config["concat_dim"] == 1

    def encode(self, obs: dict[str, Tensor], act: Tensor) -> Tensor:
        side = self.config["patches_per_side"]
        patches = obs["visual"].unfold(3, 16, 16).unfold(4, 16, 16).permute(0, 1, 3, 4, 2, 5, 6)  # B T rows columns 3 h w
        projection = self.weights["encoder_patch_linear"]
        visual = linear(patches.reshape(*patches.shape[:2], side**2, -1), projection["lin.weight"], projection["lin.bias"])
        proprio, action = self.embed("proprio_encoder", obs["proprio"]), self.embed("action_encoder", act)
        if not self.by_feature:
            return torch.cat([visual, proprio, action], dim=2)
        return torch.cat([visual, *(extra.expand(-1, -1, side**2, -1) for extra in (proprio, action))], dim=3)

    def embed(self, part: str, x: Tensor) -> Tensor:
        weights = self.weights[part]
        embedded = torch.conv1d(x.transpose(1, 2), weights["patch_embed.weight"], weights["patch_embed.bias"])
        return embedded.transpose(1, 2)[:, :, None]

    def visual(self, z: Tensor) -> Tensor:
        return z[..., : self.config["visual_dim"]] if self.by_feature else z[:, :, :-2]

    def proprio(self, z: Tensor) -> Tensor:
        """All copies under concat_dim 1."""
        ends = self.config["visual_dim"], self.config["visual_dim"] + self.config["proprio_emb_dim"]
        return z[..., ends[0] : ends[1]] if self.by_feature else z[:, :, -2:-1]

    def predict(self, z: Tensor) -> Tensor:
        weights, heads = self.weights["predictor"], self.config["heads"]
        batch, frames, tokens, width = z.shape
        x = z.reshape(batch, frames * tokens, width)
        x = x + weights["pos_embedding"][:, : x.shape[1]]
        frame = torch.arange(x.shape[1]) // tokens
        hidden = frame[:, None] < frame[None]
        for layer in range(self.config["depth"]):
            w = {n.removeprefix(f"transformer.layers.{layer}."): t for n, t in weights.items() if f"layers.{layer}." in n}
            q, k, v = linear(layer_norm(x, (width,), w["0.norm.weight"], w["0.norm.bias"]), w["0.to_qkv.weight"]).chunk(
                3, -1
            )
            q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (q, k, v))
            logits = q @ k.transpose(2, 3) * self.config["dim_head"] ** -0.5
            out = (logits.masked_fill(hidden, -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(2)
            if "0.to_out.0.weight" in w:
                out = linear(out, w["0.to_out.0.weight"], w["0.to_out.0.bias"])
            x = x + out
            inside = linear(
                layer_norm(x, (width,), w["1.net.0.weight"], w["1.net.0.bias"]), w["1.net.1.weight"], w["1.net.1.bias"]
            )
            x = x + linear(gelu(inside), w["1.net.4.weight"], w["1.net.4.bias"])
        x = layer_norm(x, (width,), weights["transformer.norm.weight"], weights["transformer.norm.bias"])
        return x.view(batch, frames, tokens, width)

    def rollout(self, obs_0: dict[str, Tensor], act: Tensor) -> Tensor:
        seen, history = obs_0["visual"].shape[1], self.config["num_hist"]
        z = self.encode(obs_0, act[:, :seen])
        for t in range(seen, act.shape[1]):
            new = self.predict(z[:, -history:])[:, -1:].clone()
            if self.by_feature:
                new[..., -self.config["action_emb_dim"] :] = self.embed("action_encoder", act[:, t : t + 1])
            else:
                new[:, :, -1:] = self.embed("action_encoder", act[:, t : t + 1])
            z = torch.cat([z, new], dim=1)
        return torch.cat([z, self.predict(z[:, -history:])[:, -1:]], dim=1)

    def cost(self, z: Tensor, goal: dict[str, Tensor], mode: str, alpha: float) -> Tensor:
        """Of proprio's copies the first is read."""
        visual = (self.visual(z) - goal["visual"]).square().mean((2, 3))
        proprio = (self.proprio(z)[:, :, 0] - goal["proprio"]).square().mean(2)
        distance = visual + alpha * proprio  # B T
        if mode == "last":
            return distance[:, -1]
        weights = 2.0 ** torch.arange(z.shape[1])
        return (distance * weights / weights.sum()).mean(1)

    def loss(self, obs: dict[str, Tensor], z: Tensor) -> dict[str, Tensor]:
        prediction, target = self.predict(z[:, :-1]), z[:, 1:]
        visual = (self.visual(prediction) - self.visual(target)).square()
        proprio = (self.proprio(prediction) - self.proprio(target)).square()
        pixels_pred = mse_loss(self.decode(self.visual(prediction)), obs["visual"][:, 1:])
        pixels = mse_loss(self.decode(self.visual(z)), obs["visual"])
        joint = (visual.sum() + proprio.sum()) / (visual.numel() + proprio.numel())
        losses = {"z_loss": joint, "z_visual_loss": visual.mean(), "z_proprio_loss": proprio.mean(), "loss": joint + pixels}
        for source, value in (("pred", pixels_pred), ("reconstructed", pixels)):
            losses |= {f"decoder_recon_loss_{source}": value, f"decoder_loss_{source}": value}
            losses |= {f"decoder_vq_loss_{source}": torch.zeros(())}
        return {name: value[None] for name, value in losses.items()}

    def decode(self, visual: Tensor) -> Tensor:
        side, w = self.config["patches_per_side"], self.weights["decoder"]
        x = visual.flatten(0, 1).transpose(1, 2).unflatten(2, (side, side))
        for stage in ("upsample_b.blocks.", "dec.blocks."):
            layer = {n: (w[f"{stage}{n}.weight"], w[f"{stage}{n}.bias"]) for n in ("0", "1.conv.1", "1.conv.3", "3", "5")}
            x = conv2d(x, *layer["0"], padding=1)
            x = x + conv2d(conv2d(x.relu(), *layer["1.conv.1"], padding=1).relu(), *layer["1.conv.3"])
            x = conv_transpose2d(x.relu(), *layer["3"], stride=2, padding=1)
            x = conv_transpose2d(x.relu(), *layer["5"], stride=2, padding=1)
        return x.unflatten(0, visual.shape[:2])
