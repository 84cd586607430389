"""A released DINO-WM folder in memory: hydra.yaml and one checkpoint, as our modules.

What the weights and the pickled modules tell is taken from them; hydra.yaml, which may contradict them, says the rest.
"""

import reprlib
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wmbench.importers.golden import decoder_of_record
from wmbench.importers.pickles import read_checkpoint, state_dict, submodules
from wmbench.importers.stack_machine import Stub
from wmbench.importers.stored_tensors import StoredTensor
from wmbench.importers.weights import affine_names, check_names, load_predictor, load_strictly
from wmbench.models.decoder import VQVAEDecoder
from wmbench.models.vit import FrameCausalViT
from wmbench.runs.build import ACTION_DIM, PROPRIO_DIM
from wmbench.runs.trust import read_plain, targets

CLASSES = {
    "predictor": "models.vit.ViTPredictor",
    "action_encoder": "models.proprio.ProprioceptiveEmbedding",
    "proprio_encoder": "models.proprio.ProprioceptiveEmbedding",
}
LEFT_OUT = ("predictor_optimizer", "decoder_optimizer")
PREDICTOR_KEYS = {"depth": "depth", "heads": "num_heads", "dim_head": "head_dim", "mlp_dim": "mlp_dim"}  # theirs, ours
THEIRS = ("models.", "datasets.")  # beginnings of names in hydra.yaml, none of which is ever looked up here
# With any other value the original computes something that our modules do not.
FIXED = {"num_pred": 1, "num_action_repeat": 1, "num_proprio_repeat": 1, "has_predictor": True}


@dataclass(frozen=True)
class Released:
    """A world model without its encoder, in evaluation mode.

    Args:
        file: the checkpoint.
        hydra: the folder's hydra.yaml.
        sizes: the arguments of `predictor`.
        num_tokens, visual_dim: of the encoder that it was trained on.
        decoder: None where the file holds none that we know.
        notes: what was left out, and where hydra.yaml contradicts the weights.
    """

    file: Path
    hydra: dict[str, Any]
    epoch: int
    sizes: dict[str, Any]
    num_tokens: int
    visual_dim: int
    predictor: FrameCausalViT
    proprio_encoder: nn.Linear
    decoder: VQVAEDecoder | None
    notes: list[str]


def checkpoint_file(folder: Path, epoch: int | None) -> Path:
    """The latest checkpoint of a folder, or that of an epoch.

    Raises:
        FileNotFoundError: it is not there; the message lists those that are.
    """
    path = folder / "checkpoints" / f"model_{'latest' if epoch is None else epoch}.pth"
    if not path.is_file():
        found = ", ".join(sorted(other.name for other in path.parent.glob("model_*.pth"))) or "none"
        raise FileNotFoundError(f"no {path.name} in {path.parent}; found: {found}")
    return path


def read_released(folder: Path, epoch: int | None = None) -> Released:
    """Read one checkpoint of a folder; nothing in it is run.

    Raises:
        FileNotFoundError: no hydra.yaml, or no such checkpoint.
        ValueError: another environment than PointMaze, a setting or a part that is not known here, or damage.
    """
    hydra, file = read_hydra(folder), checkpoint_file(folder, epoch)
    content = read_checkpoint(file)
    try:
        return _build(file, hydra, content)
    except (ValueError, RuntimeError) as error:  # torch's, for sizes that no memory holds
        raise ValueError(f"{file} cannot be imported: {error}") from None


def read_hydra(folder: Path) -> dict[str, Any]:
    """Read the folder's settings, and check that our modules can follow them.

    Raises:
        FileNotFoundError: no hydra.yaml.
        ValueError: one that is damaged, of another environment, or with a setting that is not known here.
    """
    path = folder / "hydra.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; a released folder holds hydra.yaml and checkpoints/model_latest.pth")
    hydra = read_plain(path)
    match hydra:
        case {"env": {"name": name}} if name != "point_maze":
            raise ValueError(f"{folder} is a model of {name}, and wmbench has only PointMaze (env.name: point_maze)")
        case {"env": {}, "img_size": int(size), "normalize_action": bool(), "predictor": {}, "training": {}} if size > 0:
            pass
        case _:
            raise ValueError(
                f"{path} must have env, predictor, training, img_size (pixels) and normalize_action (true or false)"
            )
    if foreign := [name for name in targets(hydra) if not name.startswith(THEIRS)]:
        raise ValueError(f"{path}: _target_ ({foreign[0]}) is no class of DINO-WM ({' or '.join(THEIRS)}); nothing was run")
    for key, value in FIXED.items():
        if hydra.get(key, value) != value:
            raise ValueError(f"{path}: {key} is {hydra[key]}; only models with {key} {str(value).lower()} can be imported")
    return hydra


@torch.no_grad()
def _build(file: Path, hydra: dict[str, Any], content: dict[str, Any]) -> Released:
    check_names("its contents", content, {"epoch", *CLASSES}, {*LEFT_OUT, "decoder"})
    if type(content["epoch"]) is not int or content["epoch"] < 0:
        raise ValueError(f"epoch ({reprlib.repr(content['epoch'])}) must be a whole number")
    for part, kind in CLASSES.items():
        if _class_of(content[part]) != kind:
            raise ValueError(f"its {part} is a {_class_of(content[part])}; only a {kind} can be imported")
    weights = {part: state_dict(content[part]) for part in CLASSES}
    proprio_embed_dim, proprio_dim, _ = _shape(weights["proprio_encoder"], "patch_embed.weight", 3)
    sizes, num_tokens, visual_dim = _sizes(
        content["predictor"], weights["predictor"], weights["action_encoder"], proprio_embed_dim
    )
    if visual_dim < 1 or num_tokens < 1 or sizes["action_dim"] % ACTION_DIM or proprio_dim != PROPRIO_DIM:
        raise ValueError(
            f"a predictor of {sizes}, {proprio_dim} numbers of proprio and {num_tokens} visual tokens of width {visual_dim} "
            "is not one for PointMaze"
        )
    predictor, proprio_encoder = FrameCausalViT(**sizes), nn.Linear(proprio_dim, proprio_embed_dim)
    load_predictor(predictor, weights["predictor"], sizes["num_heads"])
    load_strictly("action_encoder", affine_names(predictor.action_encoder), weights["action_encoder"])
    load_strictly("proprio_encoder", affine_names(proprio_encoder), weights["proprio_encoder"])
    notes, decoder = _contradictions(hydra, sizes, proprio_embed_dim), None
    if _class_of(content.get("decoder")) == "models.vqvae.VQVAE":
        decoder = _decoder(content["decoder"], num_tokens)
    elif content.get("decoder") is not None:
        notes.append(f"its decoder ({_class_of(content['decoder'])}) was left out; only a models.vqvae.VQVAE is known")
    return Released(
        file, hydra, content["epoch"], sizes, num_tokens, visual_dim, predictor.eval(), proprio_encoder, decoder, notes
    )


def _class_of(part: Any) -> str:
    return part.name if isinstance(part, Stub) else type(part).__name__


def _shape(weights: dict[str, Tensor], name: str, ndim: int) -> tuple[int, ...]:
    if name not in weights or weights[name].ndim != ndim:
        raise ValueError(f"it has no {name} of {ndim} dimensions")
    return tuple(weights[name].shape)


def _sizes(
    pickled: Stub, weights: dict[str, Tensor], action_encoder: dict[str, Tensor], proprio_embed_dim: int
) -> tuple[dict[str, Any], int, int]:
    """The predictor's arguments, and number and width of the encoder's tokens.

    Actions and proprio are tokens (concat_dim 0) where their embeddings are as wide as the predictor, which they cannot be
    as part of every token.
    """
    attention = [part for part in submodules(pickled).values() if part.name == "models.vit.Attention"]
    num_heads, dropout = _heads(attention)
    tokens_inside, num_hist = _frames(attention)
    (width,) = _shape(weights, "transformer.norm.weight", 1)
    inner = _shape(weights, "transformer.layers.0.0.to_qkv.weight", 2)[0] // 3
    action_embed_dim, action_dim, _ = _shape(action_encoder, "patch_embed.weight", 3)
    by_feature = not action_embed_dim == proprio_embed_dim == width
    sizes = {
        "dim": width - by_feature * action_embed_dim,
        "num_tokens": tokens_inside - (not by_feature),
        "num_hist": num_hist,
        "action_dim": action_dim,
        "action_embed_dim": action_embed_dim,
        "depth": len(attention),
        "num_heads": num_heads,
        "head_dim": inner // num_heads,
        "mlp_dim": _shape(weights, "transformer.layers.0.1.net.1.weight", 2)[0],
        "dropout": dropout,
        "concat_dim": int(by_feature),
    }
    return sizes, tokens_inside - 2 * (not by_feature), sizes["dim"] - by_feature * proprio_embed_dim


def _heads(attention: list[Stub]) -> tuple[int, float]:
    """Heads and dropout, alike in all layers."""
    found = [(layer.state.get("heads"), layer.state["_modules"].get("dropout")) for layer in attention]
    match [(heads, part.state.get("p")) for heads, part in found if isinstance(part, Stub)]:
        case [(int(heads), (int() | float()) as dropout), *others] if heads > 0 and 0 <= dropout < 1:
            if others == [(heads, dropout)] * (len(attention) - 1):
                return heads, float(dropout)
    raise ValueError("its attention layers have no heads and dropout in common")


def _frames(attention: list[Stub]) -> tuple[int, int]:
    """Tokens of a frame and number of frames, from the layers' masks, which must be causal from frame to frame."""
    found = {_frames_of(layer.state.get("bias")) for layer in attention}
    frames = found.pop()
    if found or frames is None:
        raise ValueError("its attention layers have no mask in common that is causal from frame to frame")
    return frames


def _frames_of(mask: Any) -> tuple[int, int] | None:
    if not isinstance(mask, StoredTensor) or len(mask.size) != 4:
        return None
    dense = mask.read()[0, 0].bool()
    tokens = max(int(dense[0].sum()), 1)
    frame = torch.arange(len(dense)) // tokens
    is_causal = len(dense) % tokens == 0 and torch.equal(dense, frame[:, None] >= frame)
    return (tokens, len(dense) // tokens) if is_causal else None


def _decoder(pickled: Stub, num_tokens: int) -> VQVAEDecoder:
    side = isqrt(num_tokens)
    decoder = decoder_of_record({"decoder": state_dict(pickled), "config": {"patches_per_side": side}})
    decoder.quantize = pickled.state.get("quantize") is True
    return decoder


def _contradictions(hydra: dict[str, Any], sizes: dict[str, Any], proprio_embed_dim: int) -> list[str]:
    """Where hydra.yaml says one thing and the weights another."""
    told = {
        "num_hist": sizes["num_hist"],
        "frameskip": sizes["action_dim"] // ACTION_DIM,
        "concat_dim": sizes["concat_dim"],
        "action_emb_dim": sizes["action_embed_dim"],
        "proprio_emb_dim": proprio_embed_dim,
    }
    told |= {f"predictor.{theirs}": sizes[ours] for theirs, ours in PREDICTOR_KEYS.items()}
    said = hydra | {f"predictor.{key}": value for key, value in hydra["predictor"].items()}
    differing = [key for key in told if said.get(key, told[key]) != told[key]]
    return [f"hydra.yaml says {key} {said[key]}, the weights {told[key]}" for key in differing]
