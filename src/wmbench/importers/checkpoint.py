"""Released DINO-WM checkpoints become runs of ours, and are verified against recorded outputs."""

import json
import os
import pickle
import shutil
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from omegaconf import OmegaConf
from torch import Tensor

from wmbench.data.archives import load_saved
from wmbench.data.normalizer import Normalizer, fit_normalizer
from wmbench.data.official import PUBLISHED, open_episodes
from wmbench.encoders.weights import file_hash
from wmbench.files import parse_json, put
from wmbench.importers.golden import LIMIT, relative_error
from wmbench.importers.released import Released, checkpoint_file, read_hydra, read_released
from wmbench.importers.weights import check_names
from wmbench.models.decoder import ResidualBlock, VQVAEDecoder
from wmbench.runs.build import ACTION_DIM, PROPRIO_DIM
from wmbench.runs.find import step_path
from wmbench.runs.load import save_decoder
from wmbench.runs.store import save_tensors

OUTPUTS = ("predict", "action_embedding", "proprio_embedding", "decoded")  # recorded
KNOWN_SIZES = ("dim", "num_tokens", "num_hist", "action_dim")  # of the predictor, which build_world_model finds out
CONF = Path(__file__).parents[3] / "conf"  # next to the source, in a checkout

# Mean and std over all steps of DINO-WM's PointMaze data, as facebookresearch/jepa-wms stores them
# (app/plan_common/datasets): actions, then x, y [m], vx, vy [m/s].
PUBLISHED_STATISTICS = (
    (7.821338658686727e-05, 0.0006003659800626338),
    (0.5769129991531372, 0.577587902545929),
    (1.8130563497543335, 1.9377127885818481, -0.0039275349117815495, -0.019777977839112282),
    (1.0055010318756104, 0.9630089402198792, 1.6802769899368286, 1.9319307804107666),
)


def import_checkpoint(src: Path, dst: Path, data: Path | None = None, epoch: int | None = None) -> Path:
    """Write the run `dst` from a released folder; it appears there whole or not at all.

    Args:
        src: holds hydra.yaml and checkpoints/model_latest.pth.
        data: what the model was trained on, for the normaliser; by default it has the published data's statistics.
        epoch: of the checkpoint; by default the latest.

    Raises:
        FileExistsError: there is a `dst` already.
        FileNotFoundError: a part of `src` is not there.
        ValueError: `src` is not one of PointMaze, is damaged, or holds what is not known here.
    """
    if dst.exists():
        raise FileExistsError(f"{dst} exists already; delete it or choose another name")
    fresh = _convert(src, dst, data, epoch)
    try:
        return put(fresh, dst)
    except OSError:
        shutil.rmtree(fresh)
        raise


def is_released(folder: Path) -> bool:
    """Whether a folder looks like one that DINO-WM's train.py left."""
    return (folder / "hydra.yaml").is_file() and any((folder / "checkpoints").glob("model_*.pth"))


def convert_once(folder: Path, epoch: int | None, fallback: Path) -> Path:
    """Convert a released folder once, into the run folder/wmbench, or `fallback` where the folder cannot be written to.

    A conversion of another file is replaced. Several processes may ask at once. The run of a single epoch has
    the epoch in its name.

    Raises:
        FileExistsError: something else is where the run should go.
        FileNotFoundError, ValueError: as import_checkpoint.
    """
    read_hydra(folder)  # refuses other environments before anything takes time
    digest = file_hash(checkpoint_file(folder, epoch))
    inside = folder / "wmbench"
    places = [place if epoch is None else place.with_name(f"{place.name}_{epoch}") for place in (inside, fallback)]
    for run in places:
        if _source_of(run) == digest:
            return run
    may_write = folder.stat().st_mode & stat.S_IWUSR and os.access(folder, os.W_OK)  # a superuser may always
    run = places[0] if may_write else places[1]
    if run.exists() and _source_of(run) is None:
        raise FileExistsError(f"{run} is in the place where the conversion of {folder} should go; move it away")
    print(f"note: converting {folder} to {run}, once", file=sys.stderr)
    fresh = _convert(folder, run, None, epoch)
    if _source_of(run) != digest and run.exists():
        print(f"note: {run} came from another file and is replaced", file=sys.stderr)
        shutil.rmtree(run.rename(_beside(run)))
    try:
        return put(fresh, run)
    except OSError:
        shutil.rmtree(fresh)
        if _source_of(run) != digest:  # otherwise another process was faster
            raise
        return run


@torch.no_grad()
def verify_checkpoint(src: Path, expected: Path) -> list[tuple[str, float, float]]:
    """Recompute a released checkpoint's recorded outputs; returns each with its relative error and the limit of that.

    Args:
        src: the released folder.
        expected: the file of inputs and outputs.

    Raises:
        FileNotFoundError, ValueError: as import_checkpoint; also a record that is damaged, incomplete or of another model.
    """
    released = read_released(src)
    try:
        record = load_saved(expected)
        if not isinstance(record, dict) or not all(isinstance(part, Tensor) for part in record.values()):
            raise ValueError("no dict of tensors")
        check_names("the record", record, {"z", "action", "proprio", "visual", *OUTPUTS})
        if released.decoder is None:
            raise ValueError(f"{released.file.name} holds no decoder to compare with")
        pixels, _ = released.decoder(record["visual"].flatten(0, 1))
        ours = {
            "predict": released.predictor.transform(record["z"]),
            "action_embedding": released.predictor.action_encoder(record["action"]),
            "proprio_embedding": released.proprio_encoder(record["proprio"]),
            "decoded": pixels,
        }
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {expected}") from None
    except (pickle.UnpicklingError, EOFError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{expected} is damaged or not a record of {src}: {error}") from None
    return [(name, relative_error(ours[name], record[name]), LIMIT) for name in OUTPUTS]


def _convert(src: Path, dst: Path, data: Path | None, epoch: int | None) -> Path:
    """Write a finished run under a temporary name next to dst."""
    released = read_released(src, epoch)
    normalizer, statistics = _normalizer(released, data)
    encoder, notes = _encoder(released)
    predictor = released.predictor
    config = {
        "model_name": src.resolve().name,
        "encoder": encoder,
        "predictor": {"_target_": "wmbench.models.vit.FrameCausalViT"}
        | {key: value for key, value in released.sizes.items() if key not in KNOWN_SIZES},
        "training": {"regularizer": None},
        "frameskip": predictor.action_encoder.in_features // ACTION_DIM,
        "num_hist": released.sizes["num_hist"],
        "num_pred": 1,
        "proprio": "full",
        "proprio_embed_dim": released.proprio_encoder.out_features,
        "concat_dim": released.sizes["concat_dim"],
        "seed": released.hydra["training"].get("seed"),
    }
    provenance = {
        "source": f"{src.resolve().name}/checkpoints/{released.file.name}",
        "source_sha256": file_hash(released.file),
        "imported": datetime.now(UTC).isoformat(timespec="seconds"),
        "epoch": released.epoch,
        "data": PUBLISHED | {"image_size": released.hydra["img_size"], "hash": "published point_maze"},
        "normalizer": statistics,
        "encoder": {
            "name": "dino" if encoder else None,
            "source": "not in the file",
            "licence": encoder["release"]["licence"] if encoder else "unknown",
            "weights_hash": None,
            "parameters": 0,
            "embed_dim": released.visual_dim,
            "num_tokens": released.num_tokens,
            "original": released.hydra.get("encoder"),
        },
        "predictor_parameters": sum(p.numel() for p in predictor.parameters()),
        "notes": released.notes + notes,
    }
    parts = {"predictor": predictor, "proprio_encoder": released.proprio_encoder, "normalizer": normalizer}
    tensors = {f"{part}.{name}": t.contiguous() for part in parts for name, t in parts[part].state_dict().items()}
    run = _beside(dst)
    run.mkdir(parents=True)
    try:
        save_tensors(step_path(run, released.epoch), tensors)
        if released.decoder is not None:
            save_decoder(run, _decoder_config(released.decoder), released.decoder)
        (run / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")
        OmegaConf.save(OmegaConf.create(config), run / "config.yaml")
    except BaseException:
        shutil.rmtree(run)
        raise
    return run


def _normalizer(released: Released, data: Path | None) -> tuple[Normalizer, str]:
    """The statistics that the model was trained with, and where they come from."""
    if not released.hydra["normalize_action"]:
        action, proprio = torch.zeros(ACTION_DIM), torch.zeros(PROPRIO_DIM)
        return Normalizer(action, action + 1, proprio, proprio + 1), "none: hydra.yaml has normalize_action false"
    if data is not None:
        return fit_normalizer(open_episodes(data)), f"statistics of {data}"
    return Normalizer(*(Tensor(numbers) for numbers in PUBLISHED_STATISTICS)), "statistics of the published point_maze data"


def _encoder(released: Released) -> tuple[dict[str, Any] | None, list[str]]:
    """The configuration of the encoder that hydra.yaml names, or a note that it is not one of ours that fits."""
    side, name = released.hydra["img_size"] // 16, None
    match released.hydra.get("encoder"):
        case {"_target_": "models.dino.DinoV2Encoder", "name": "dinov2_vits14" as name, "feature_key": str(key)}:
            output, num_tokens = ("cls", 1) if key == "x_norm_clstoken" else ("patches", side**2)
            if (released.num_tokens, released.visual_dim) == (num_tokens, 384):
                config = OmegaConf.load(CONF / "encoder" / "dinov2.yaml")
                settings = {"image_size": 14 * side, "output": output, "pixels": "dino_wm"}
                return OmegaConf.to_container(OmegaConf.merge(config, settings)), []  # type: ignore[return-value]
        case {"name": name}:
            pass
    needed = f"{released.num_tokens} tokens of width {released.visual_dim}"
    return None, [f"hydra.yaml's encoder ({name or 'none'}) is not known here to give the {needed}"]


def _decoder_config(decoder: VQVAEDecoder) -> dict[str, Any]:
    blocks = [block for block in decoder.dec.blocks if isinstance(block, ResidualBlock)]
    return {
        "_target_": "wmbench.models.decoder.VQVAEDecoder",
        "channel": decoder.dec.blocks[0].out_channels,
        "num_res_blocks": len(blocks),
        "res_channel": blocks[0].conv[1].out_channels if blocks else 1,
        "num_codes": decoder.quantize_b.embed.shape[1],
        "quantize": decoder.quantize,
    }


def _source_of(run: Path) -> str | None:
    """Hash of the file that a conversion was made from."""
    try:
        return parse_json((run / "provenance.json").read_text())["source_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _beside(path: Path) -> Path:
    """A name in the same folder that nobody else uses."""
    return path.with_name(f".{path.name}.{uuid4().hex}")
