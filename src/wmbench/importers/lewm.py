"""Released LeWorldModel weights (arXiv 2603.19312): a folder with weights.pt and config.json, as our model or a run."""

import json
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from wmbench.data.normalizer import Normalizer, fit_normalizer
from wmbench.data.official import PUBLISHED, open_episodes
from wmbench.encoders.lewm import LeWM
from wmbench.encoders.weights import file_hash, read_state
from wmbench.files import parse_json, put, regular
from wmbench.importers.weights import identity_projections, load_strictly
from wmbench.models.adaln import AdaLNPredictor
from wmbench.models.world_model import WorldModel
from wmbench.runs.build import ACTION_DIM, PROPRIO_DIM
from wmbench.runs.load import save_weights

FRAMESKIP = 5  # of every release
UNIFORM_STD = 0.57735  # of actions uniform in [-1, 1]
VIT_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16}

# Our names and the released ones, in order. Ours of the ViT are those of transformers 5.
RENAMED = (
    (r"^encoder\.trunk\.layers\.", "encoder.encoder.layer."),
    (r"^encoder\.trunk\.", "encoder."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"^encoder\.projector\.", "projector.net."),
    (r"^predictor\.projector\.", "pred_proj.net."),
    (r"^predictor\.action_encoder\.0\.", "action_encoder.patch_embed."),
    (r"^predictor\.action_encoder\.1\.", "action_encoder.embed.0."),
    (r"^predictor\.action_encoder\.3\.", "action_encoder.embed.2."),
    (r"^predictor\.(norm|layers)\.", r"predictor.transformer.\1."),
    (r"\.modulation\.", ".adaLN_modulation."),
)


def load_lewm(folder: Path) -> WorldModel:
    """Load the model of a released folder, for actions uniform in [-1, 1].

    Raises:
        FileNotFoundError: no weights.pt or config.json in it.
        ValueError: files that are damaged, contradict each other or are not LeWM's; action blocks of another width.
    """
    weights, config = read_release(folder)
    return build_lewm(weights, config, uniform_actions())


def import_lewm(src: Path, dst: Path, data: Path | None = None) -> Path:
    """Turn a released folder into a run at dst that checkpoint.load_run reads.

    No release was trained on PointMaze, and the run's provenance says so.

    Args:
        data: episodes whose statistics normalise actions; without them they are those of uniform actions.

    Raises:
        FileExistsError: dst is there already.
        ValueError, FileNotFoundError: as load_lewm.
    """
    if dst.exists():
        raise FileExistsError(f"{dst} is there already; delete it, or import to another folder")
    weights, config = read_release(src)
    episodes = None if data is None else open_episodes(data)
    model = build_lewm(weights, config, uniform_actions() if episodes is None else fit_normalizer(episodes))
    image_size = model.encoder.image_size
    if episodes is None:
        frames = {
            "maze": PUBLISHED["maze"],
            "renderer": "auto",
            "image_size": image_size,
            "render_lag": False,
            "hash": "none",
        }
    else:
        frames = episodes.provenance
    provenance = {
        "data": frames,
        "trained_on": "data of the release, not PointMaze's",
        "normalizer": f"mean 0, std {UNIFORM_STD}: uniform actions" if episodes is None else f"statistics of {data}",
        "encoder": {
            "source": "released LeWM weights",
            "licence": "the release's own",
            "weights_hash": "trained with the model",
            "parameters": sum(p.numel() for p in model.encoder.parameters()),
        },
        "predictor_parameters": sum(p.numel() for p in model.predictor.parameters()),
        "source_sha256": file_hash(src / "weights.pt"),
        "imported": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    dst.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{dst.name}.", dir=dst.parent) as temporary:
        run = Path(temporary, dst.name)
        run.mkdir()
        OmegaConf.save(OmegaConf.create(run_config(sizes(weights, config), dst.name)), run / "config.yaml")
        (run / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")
        save_weights(run, 0, model)
        put(run, dst)
    return dst


def read_release(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors by their released names, and the part of config.json that describes the model."""
    for name in ("weights.pt", "config.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {name} in {folder}; a released LeWM folder has weights.pt and config.json")
    weights = read_state(folder / "weights.pt")
    try:
        config = parse_json(regular(folder / "config.json").read_text())
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'} is damaged: {error}") from None
    parts = [config, *config.values()] if isinstance(config, dict) else []
    models = [part for part in parts if isinstance(part, dict) and {"encoder", "predictor"} <= part.keys()]
    if not models:
        raise ValueError(f"{folder / 'config.json'} has no encoder and predictor: is it LeWM's?")
    block = sizes(weights, models[0])["action_encoder.input_dim"]
    if block != FRAMESKIP * ACTION_DIM:
        raise ValueError(
            f"{folder} was trained on action blocks of {block} numbers, and PointMaze's have {FRAMESKIP * ACTION_DIM} "
            f"(frameskip {FRAMESKIP} x {ACTION_DIM}); a release of PushT's width fits"
        )
    return weights, models[0]


def sizes(weights: dict[str, Tensor], config: dict[str, Any]) -> dict[str, int]:
    """Every size under its name in config.json, read from the weights; numbers of heads from the configuration.

    Raises:
        ValueError: a tensor that tells a size is missing; weights and configuration contradict each other.
    """

    def shape(name: str) -> torch.Size:
        if name not in weights:
            raise ValueError(f"weights.pt: missing {name}")
        return weights[name].shape

    def depth(pattern: str) -> int:
        return len({match[0] for name in weights if (match := re.match(pattern, name))})

    for name in ("encoder", "predictor", "action_encoder", "projector", "pred_proj"):
        if not isinstance(part := config.get(name, {}), dict):
            raise ValueError(f"config.json: {name} ({part!r}) must be settings by name")
    encoder, predictor = config["encoder"], config["predictor"]
    vit_heads = encoder.get("num_attention_heads", VIT_HEADS.get(str(encoder.get("size"))))
    if vit_heads is None:
        raise ValueError(f"config.json: unknown encoder.size {encoder.get('size')!r}; known: {', '.join(VIT_HEADS)}")
    if "heads" not in predictor:
        raise ValueError("config.json: missing predictor.heads, which the weights cannot tell")
    width, _, _, patch_size = shape("encoder.embeddings.patch_embeddings.projection.weight")
    num_positions = shape("encoder.embeddings.position_embeddings")[1]
    qkv, dim = shape("predictor.transformer.layers.0.attn.to_qkv.weight")
    smoothed, action_dim, _ = shape("action_encoder.patch_embed.weight")
    for name, heads, of in (
        ("encoder.num_attention_heads", vit_heads, width),
        ("predictor.heads", predictor["heads"], qkv // 3),
    ):
        if type(heads) is not int or heads < 1 or of % heads:
            raise ValueError(f"config.json: {name} ({heads!r}) must be a whole number that divides the {of} of weights.pt")
    found = {
        "encoder.patch_size": patch_size,
        "encoder.image_size": patch_size * round((num_positions - 1) ** 0.5),
        "encoder.hidden_size": width,
        "encoder.num_hidden_layers": depth(r"encoder\.encoder\.layer\.\d+\."),
        "encoder.num_attention_heads": vit_heads,
        "predictor.num_frames": shape("predictor.pos_embedding")[1],
        "predictor.input_dim": dim,
        "predictor.hidden_dim": dim,
        "predictor.output_dim": dim,
        "predictor.depth": depth(r"predictor\.transformer\.layers\.\d+\."),
        "predictor.heads": predictor["heads"],
        "predictor.dim_head": qkv // (3 * predictor["heads"]),
        "predictor.mlp_dim": shape("predictor.transformer.layers.0.mlp.net.1.weight")[0],
        "action_encoder.input_dim": action_dim,
        "action_encoder.smoothed_dim": smoothed,
        "action_encoder.emb_dim": dim,
        "projector.hidden_dim": shape("projector.net.0.weight")[0],
        "pred_proj.hidden_dim": shape("pred_proj.net.0.weight")[0],
    }
    for name, value in found.items():
        part, _, key = name.partition(".")
        if (said := config.get(part, {}).get(key, value)) != value:
            raise ValueError(f"config.json says {name} {said}, and weights.pt {value}")
    return found


def encoder_config(found: dict[str, int]) -> dict[str, int]:
    """LeWM's arguments."""
    return {
        "image_size": found["encoder.image_size"],
        "patch_size": found["encoder.patch_size"],
        "width": found["encoder.hidden_size"],
        "depth": found["encoder.num_hidden_layers"],
        "num_heads": found["encoder.num_attention_heads"],
        "embed_dim": found["predictor.input_dim"],
        "projector_dim": found["projector.hidden_dim"],
    }


def predictor_config(found: dict[str, int]) -> dict[str, Any]:
    """AdaLNPredictor's arguments, but for those that the encoder and the data give."""
    return {
        "smoothed_dim": found["action_encoder.smoothed_dim"],
        "depth": found["predictor.depth"],
        "num_heads": found["predictor.heads"],
        "head_dim": found["predictor.dim_head"],
        "mlp_dim": found["predictor.mlp_dim"],
        "dropout": 0.1,
        "projector_dim": found["pred_proj.hidden_dim"],
    }


def run_config(found: dict[str, int], model_name: str) -> dict[str, Any]:
    """What `train.py encoder=lewm` writes, at the sizes found."""
    return {
        "env": {"name": PUBLISHED["env"]},
        "encoder": {"_target_": "wmbench.encoders.lewm.LeWM"} | encoder_config(found),
        "predictor": {"_target_": "wmbench.models.adaln.AdaLNPredictor"} | predictor_config(found),
        "training": {"regularizer": {"_target_": "wmbench.models.sigreg.SIGReg", "num_directions": 1024, "weight": 0.09}},
        "frameskip": FRAMESKIP,
        "num_hist": found["predictor.num_frames"],
        "num_pred": 1,
        "proprio": "none",
        "proprio_embed_dim": 10,
        "concat_dim": 1,
        "seed": 0,
        "arm": "released",
        "model_name": model_name,
    }


def build_lewm(weights: dict[str, Tensor], config: dict[str, Any], normalizer: Normalizer) -> WorldModel:
    """Build the model with released weights, in evaluation mode.

    Raises:
        ValueError: weights that are not LeWM's, tensor by tensor, or contradict the configuration.
    """
    found = sizes(weights, config)
    num_hist = found["predictor.num_frames"]
    dim, action_dim = found["predictor.input_dim"], found["action_encoder.input_dim"]
    predictor = AdaLNPredictor(dim, 1, num_hist, action_dim, **predictor_config(found))
    options = {"proprio": "none", "proprio_embed_dim": 10, "frameskip": FRAMESKIP, "num_hist": num_hist}
    model = WorldModel(LeWM(**encoder_config(found)), predictor, normalizer, **options)
    own = {released_name(name): t for name, t in model.state_dict().items() if not name.startswith("normalizer.")}
    own["action_encoder.patch_embed.weight"] = own["action_encoder.patch_embed.weight"][..., None]  # a convolution there
    if found["predictor.heads"] == 1 and found["predictor.dim_head"] == dim:
        weights = identity_projections(own) | weights
    load_strictly("weights.pt", own, weights)
    return model.eval().requires_grad_(False)


def released_name(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def uniform_actions() -> Normalizer:
    """The normalizer of actions uniform in [-1, 1], and of proprio that the model is not told."""
    std = torch.full((ACTION_DIM,), UNIFORM_STD)
    return Normalizer(torch.zeros(ACTION_DIM), std, torch.zeros(PROPRIO_DIM), torch.ones(PROPRIO_DIM))
