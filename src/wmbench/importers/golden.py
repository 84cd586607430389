"""Files recorded from the original DINO-WM: rebuild the world model in them and recompute every number they hold."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.data.archives import load_saved
from wmbench.data.normalizer import Normalizer
from wmbench.encoders.base import Encoder
from wmbench.importers.weights import affine_names, check_names, load_predictor, load_strictly
from wmbench.models.decoder import VQVAEDecoder, decoder_loss
from wmbench.models.vit import FrameCausalViT
from wmbench.models.world_model import WorldModel
from wmbench.planning.cem import CEM
from wmbench.planning.noise import KeyedNoise
from wmbench.planning.objective import Objective
from wmbench.shapes import Batch, Obs

LIMIT, CEM_LIMIT = 1e-5, 1e-4  # largest relative errors in float32; CEM's mean and std add up those of its iterations

WEIGHTS = ("encoder_patch_linear", "predictor", "proprio_encoder", "action_encoder", "decoder")
RECORDED = ("config", *WEIGHTS, "obs", "act", "z", "predict", "loss", "decoded", "rollout_1", "goal", "cost")
SIZES = ("image_size", "patches_per_side", "visual_dim", "proprio_dim", "action_dim", "proprio_emb_dim", "action_emb_dim")
SIZES += ("num_hist", "depth", "heads", "dim_head", "mlp_dim")
TRACED = ("obs_0", "obs_g", "noise", "topk", "horizon", "var_scale", "alpha", "mean", "std", "best_cost")
OBS = ("visual", "proprio")


class Quantity(NamedTuple):
    """One recorded tensor and ours."""

    name: str
    ours: Tensor
    recorded: Tensor
    limit: float = LIMIT


def relative_error(ours: Tensor, recorded: Tensor) -> float:
    """||ours - recorded|| / ||recorded||, ||ours|| where the record is zero; inf for NaN, Inf or another shape."""
    if ours.shape != recorded.shape:
        return math.inf
    ours, recorded = ours.double(), recorded.double()
    size = recorded.norm().item()
    error = (ours - recorded).norm().item() / size if size else ours.norm().item()
    return error if math.isfinite(error) else math.inf


def read_record(file: Path) -> dict[str, Any]:
    """Read a recorded file; nothing in it is run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: one that is damaged, or holds more than plain tensors.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    try:
        record = load_saved(file)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, OSError):
        raise ValueError(f"{file} is damaged, or holds more than plain tensors: it was not read") from None
    if not isinstance(record, dict):
        raise ValueError(f"{file} holds a {type(record).__name__} instead of recorded quantities by name")
    return record


class PatchLinear(Encoder):
    """What the records have for a frozen encoder: one linear layer over square patches, frames (B T 3 h w) as they are."""

    def __init__(self, image_size: int, patches_per_side: int, embed_dim: int):
        grid = (patches_per_side, patches_per_side)
        super().__init__(image_size=image_size, grid=grid, embed_dim=embed_dim, frozen=True, source="recorded")
        self.patch_size = image_size // patches_per_side
        self.lin = nn.Linear(3 * self.patch_size**2, embed_dim)
        self.freeze()

    def preprocess(self, visual: Float[Tensor, "B T 3 h w"]) -> Float[Tensor, "F 3 h w"]:
        return rearrange(visual, "b t c h w -> (b t) c h w")

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        return self.lin(rearrange(pixels, "f c (r h) (k w) -> f (r k) (c h w)", h=self.patch_size, w=self.patch_size))


def model_of_record(record: dict[str, Any]) -> WorldModel:
    """Rebuild the recorded world model; its observations and actions are normalised already.

    The sizes are those of `config`, whose `concat_dim` is 1 unless it says otherwise.

    Raises:
        ValueError: sizes that are missing, tensors that do not fit them.
    """
    check_names("the world model", record, ("config", *WEIGHTS), None)
    config = record["config"]
    check_names("config", config, SIZES, None)
    concat_dim = config.get("concat_dim", 1)
    by_feature = concat_dim == 1
    predictor = FrameCausalViT(
        dim=config["visual_dim"] + by_feature * config["proprio_emb_dim"],
        num_tokens=config["patches_per_side"] ** 2 + (not by_feature),
        num_hist=config["num_hist"],
        action_dim=config["action_dim"],
        action_embed_dim=config["action_emb_dim"],
        depth=config["depth"],
        num_heads=config["heads"],
        head_dim=config["dim_head"],
        mlp_dim=config["mlp_dim"],
        dropout=0.0,
        concat_dim=concat_dim,
    )
    one, each = torch.ones(1), torch.ones(config["proprio_dim"])
    model = WorldModel(
        PatchLinear(config["image_size"], config["patches_per_side"], config["visual_dim"]),
        predictor,
        Normalizer(0 * one, one, 0 * each, each),
        proprio="full",
        proprio_embed_dim=config["proprio_emb_dim"],
        concat_dim=concat_dim,
        frameskip=1,
        num_hist=config["num_hist"],
    )
    model.proprio_part = slice(0, len(each))  # a record need not be of PointMaze's four numbers
    model.proprio_encoder = nn.Linear(len(each), config["proprio_emb_dim"])
    load_strictly("encoder_patch_linear", model.encoder.state_dict(), record["encoder_patch_linear"])
    load_strictly("proprio_encoder", affine_names(model.proprio_encoder), record["proprio_encoder"])
    load_strictly("action_encoder", affine_names(predictor.action_encoder), record["action_encoder"])
    load_predictor(predictor, record["predictor"], config["heads"])
    return model.eval().requires_grad_(False)


def decoder_of_record(record: dict[str, Any]) -> VQVAEDecoder:
    """Rebuild the recorded decoder, whose sizes follow from its weights."""
    weights, side = record["decoder"], record["config"]["patches_per_side"]
    check_names("decoder", weights, ("quantize_b.embed", "dec.blocks.0.weight"), None)
    inner = [t for name, t in weights.items() if re.fullmatch(r"dec\.blocks\.\d+\.conv\.1\.weight", name)]
    dim, num_codes = weights["quantize_b.embed"].shape
    channel = len(weights["dec.blocks.0.weight"])
    decoder = VQVAEDecoder(dim, (2, 2), channel, len(inner), len(inner[0]) if inner else 1, num_codes, quantize=False)
    decoder.grid, decoder.size = (side, side), (16 * side, 16 * side)  # a record may be of the one token that a run may not
    load_strictly("decoder", decoder.state_dict(), weights)
    return decoder.eval().requires_grad_(False)


@torch.no_grad()
def recompute(record: dict[str, Any]) -> Iterator[Quantity]:
    """Recompute everything recorded in a file such as world_model_tiny.pt, in its order.

    Raises:
        ValueError: a part that is missing, or that nothing here recomputes; tensors that do not fit their model.
    """
    check_names("the record", record, RECORDED, [name for name in record if re.fullmatch(r"rollout_[1-9]\d*", name)])
    check_names("obs", record["obs"], OBS)
    model, decoder = model_of_record(record), decoder_of_record(record)
    predictor: Any = model.predictor
    act = record["act"]
    z = model.encode(Obs(**record["obs"]))
    joined = predictor.join(z, act)
    yield Quantity("z", joined, record["z"])

    contexts = {f"T{t}": t for t in range(1, model.num_hist + 1)}  # those beyond T3 need not be recorded
    check_names("predict", record["predict"], [name for name, t in contexts.items() if t <= 3], contexts)
    for name, recorded in record["predict"].items():
        yield Quantity(f"predict.{name}", predictor.transform(joined[:, : contexts[name]]), recorded)

    losses = losses_of(model, decoder, record)
    check_names("loss", record["loss"], losses)
    for name, recorded in record["loss"].items():
        yield Quantity(f"loss.{name}", losses[name], recorded)
    pixels, _ = decoder(model.split(z)[0].flatten(0, 1))
    yield Quantity("decoded", pixels.unflatten(0, z.shape[:2]), record["decoded"])

    rollouts = {name: rollout_of(model, record[name]) for name in record if name.startswith("rollout_")}
    for name, ours in rollouts.items():
        yield Quantity(name, ours, record[name]["z"])

    check_names("goal", record["goal"], OBS)
    latents = rollouts["rollout_1"][:, :, : predictor.num_tokens, : predictor.dim]
    goal = with_proprio(model, record["goal"]["visual"][:, 0], record["goal"]["proprio"])
    known = [name for name in record["cost"] if re.fullmatch(r"(last|all)_a\d+(\.\d+)?", name)]
    check_names("cost", record["cost"], known or ["last_a0"], known)
    for name in known:
        mode, alpha = name.split("_a")
        cost = Objective(mode, float(alpha))(model, latents[:, 0], latents[:, None, 1:], goal)
        yield Quantity(f"cost.{name}", cost[:, 0], record["cost"][name])


def losses_of(model: WorldModel, decoder: VQVAEDecoder, record: dict[str, Any]) -> dict[str, Float[Tensor, " 1"]]:
    """Recompute every component of the original's forward pass; that of proprio averages over the copies of all tokens."""
    obs, act = Obs(**record["obs"]), record["act"]
    z = model.encode(obs)
    prediction = model.predict(z[:, :-1], act[:, :-1])
    squared = (prediction - z[:, 1:]).square()
    proprio = squared[..., model.encoder.embed_dim :] if model.concat_dim == 1 else squared[..., -1:, :]
    latent = model.loss(Batch(obs, act)).parts["prediction"]
    losses = {"z_loss": latent, "z_visual_loss": model.split(squared)[0].mean(), "z_proprio_loss": proprio.mean()}
    frames = {"pred": (prediction, obs["visual"][:, 1:]), "reconstructed": (z, obs["visual"])}
    for source, (latents, target) in frames.items():
        total, parts = decoder_loss(decoder, model.split(latents)[0].flatten(0, 1), target.flatten(0, 1))
        kinds = {"recon_": parts["reconstruction"], "vq_": parts["diff"], "": total}
        losses |= {f"decoder_{kind}loss_{source}": value for kind, value in kinds.items()}
    losses["loss"] = latent + losses["decoder_loss_reconstructed"]
    return {name: value[None] for name, value in losses.items()}


def rollout_of(model: WorldModel, rollout: dict[str, Any]) -> Float[Tensor, "B T M W"]:
    """All frames of a rollout with their action part: the next action, in the last frame the network's output."""
    check_names("a rollout", rollout, ("obs_0", "act", "z"))
    predictor: Any = model.predictor
    z, act = model.encode(Obs(**rollout["obs_0"])), rollout["act"]
    seen = z.shape[1]
    z = torch.cat([z, model.rollout(z, act[:, : seen - 1], act[:, None, seen - 1 :])[:, 0]], dim=1)
    joined = predictor.join(z[:, :-1], act)
    return torch.cat([joined, predictor.transform(joined[:, -model.num_hist :])[:, -1:]], dim=1)


def with_proprio(
    model: WorldModel, visual: Float[Tensor, "B N E"], proprio: Float[Tensor, "B 1 P"]
) -> Float[Tensor, "B M D"]:
    """z from tokens and embedded proprio."""
    if model.concat_dim == 1:
        return torch.cat([visual, proprio.expand(-1, visual.shape[1], -1)], dim=2)
    return torch.cat([visual, proprio], dim=1)


@torch.no_grad()
def recompute_cem(trace: dict[str, Any], world_model: dict[str, Any]) -> Iterator[Quantity]:
    """Recompute mean, std and best cost after each iteration of CEM under a recorded world model, from the noise it drew.

    CEM returns only its last mean. The rest is read from the plans that it scores: the first is the mean, and an extra one,
    far out and at infinite cost, gives the std; an extra iteration shows both after the last.
    """
    check_names("the trace", trace, TRACED)
    model = model_of_record(world_model)
    z, goal = (model.encode(Obs(**trace[name])) for name in ("obs_0", "obs_g"))
    objective = Objective("last", trace["alpha"])
    far = 2.0**14
    noise = nn.functional.pad(trace["noise"], (0, 0, 0, 0, 0, 1), value=far)
    noise = torch.cat([noise, noise[-1:]])
    mean, std, best = [], [], []

    def cost(plans: Float[Tensor, "B S H A"]) -> Float[Tensor, "B S"]:
        mean.append(plans[:, 0])
        std.append((plans[:, -1] - plans[:, 0]) / far)
        costs = objective(model, z[:, -1], model.rollout(z, plans[:, 0, :0], plans), goal[:, -1])
        costs[:, -1] = math.inf
        best.append(costs.min(dim=1).values)
        return costs

    num_iters, num_tasks, num_samples, _, action_dim = noise.shape
    start = torch.zeros(num_tasks, trace["horizon"], action_dim)
    CEM(num_samples, trace["topk"], num_iters, trace["var_scale"])(cost, start, RecordedNoise(noise))
    yield Quantity("mean", torch.stack(mean[1:]), trace["mean"], CEM_LIMIT)
    yield Quantity("std", torch.stack(std[1:]), trace["std"], CEM_LIMIT)
    yield Quantity("best_cost", torch.stack(best[:-1]), trace["best_cost"])


class RecordedNoise(KeyedNoise):
    """The noise that the original drew: (iteration, task, sample, step, action)."""

    def __init__(self, drawn: Float[Tensor, "I B S H A"]):
        self.drawn = drawn

    def __call__(self, iteration: int, shape: tuple[int, ...], device: torch.device) -> Float[Tensor, "B S H A"]:
        if shape != self.drawn.shape[2:]:
            raise ValueError(f"noise is {tuple(self.drawn.shape[2:])} a task, and the plans are {tuple(shape)}")
        return self.drawn[iteration]
