"""What encoders compute for recorded inputs, against what their original implementations did."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from torch import nn

from wmbench.commands.configuration import encoder_config
from wmbench.encoders.timm_vit import build_trunk
from wmbench.importers.golden import Quantity


def dinov2(recorded: dict[str, Any]) -> Iterator[Quantity]:
    """Recompute every recorded network (`plain`, `registers`)."""
    config = recorded["config"]
    for variant in sorted(recorded.keys() - {"config"}):
        record = recorded[variant]
        architecture = {
            "img_size": config["image_size"],
            "patch_size": config["patch_size"],
            "embed_dim": config["embed_dim"],
            "depth": config["depth"],
            "num_heads": config["num_heads"],
            "mlp_ratio": config["mlp_ratio"],
            "norm_layer": partial(nn.LayerNorm, eps=config["layer_norm_eps"]),
            "init_values": 1.0 if config["layer_scale"] else 0.0,  # timm would take None for its own default
            "reg_tokens": record["num_register_tokens"],
            "no_embed_class": record["num_register_tokens"] > 0,
        }
        for quantity in vit_outputs("dinov2", record, architecture):
            yield quantity._replace(name=f"{variant} {quantity.name}")


def dinov3(recorded: dict[str, Any]) -> Iterator[Quantity]:
    config = recorded["config"]
    architecture = {
        "patch_size": config["patch_size"],
        "embed_dim": config["embed_dim"],
        "depth": config["depth"],
        "num_heads": config["num_heads"],
        "mlp_ratio": config["ffn_ratio"],
        "num_reg_tokens": config["n_storage_tokens"],
        "rope_temperature": config["rope_base"],
        "norm_layer": partial(nn.LayerNorm, eps=config["layer_norm_eps"]),
        "qkv_bias": True,
    }
    return vit_outputs("dinov3", recorded, architecture)


def vit_outputs(encoder: str, record: dict[str, Any], architecture: dict[str, Any]) -> Iterator[Quantity]:
    """Recompute patch tokens and CLS at every image size that a ViT was recorded at."""
    build = instantiate(encoder_config(encoder), _partial_=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "official.pth")
        torch.save(record["state_dict"], file)
        for output, key in (("patches", "patch_tokens"), ("cls", "cls")):
            for name in (name for name in record if name.startswith(f"{key}_")):
                image = record[name.replace(key, "image")]
                size = image.shape[-1]
                ours = build(image_size=size, output=output, weights=str(file), architecture=architecture).tokens(image)
                yield Quantity(name, ours if output == "patches" else ours[:, 0], record[name])


def vjepa2(recorded: dict[str, Any]) -> Iterator[Quantity]:
    """Recompute the tokens of every recorded clip (B 3 T h w), a pair or a still frame repeated among them."""
    build = instantiate(encoder_config("vjepa2"), _partial_=True)
    config = recorded["config"]
    if not config["rope"]:
        raise ValueError("a recording without rope is of V-JEPA, whose positions were a table; V-JEPA 2 rotates")
    sizes = ("embed_dim", "depth", "num_heads", "mlp_ratio", "patch_size", "tubelet_size", "layer_norm_eps")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "vjepa2.pt")
        torch.save({"encoder": recorded["encoder"]}, file)
        for name in (name for name in recorded if f"{name}_tokens" in recorded):
            clip = recorded[name]
            architecture = {size: config[size] for size in sizes}
            encoder = build(image_size=clip.shape[-1], weights=str(file), architecture=architecture)
            yield Quantity(f"{name}_tokens", encoder.tokens(clip), recorded[f"{name}_tokens"])


def vfm_vae(recorded: dict[str, Any]) -> Iterator[Quantity]:
    """Recompute levels, moments and mean of the adapter, recorded without SigLIP2; a random tower takes its place."""
    build = instantiate(encoder_config("vfm_vae"), _partial_=True)
    config = recorded["config"]
    sizes = {"level_dim": config["level_dim"], "z_dim": config["z_dim"]}
    architecture = {"img_size": 16 * config["level_side"], "embed_dim": config["level_width"], "depth": 1, "num_heads": 1}
    with tempfile.TemporaryDirectory() as folder:
        files = {"weights": str(Path(folder, "adapter.pth")), "trunk_weights": str(Path(folder, "tower.pth"))}
        torch.save({"G_ema": recorded["G_ema"]}, files["weights"])
        torch.save(build_trunk(build.keywords["model"], architecture).state_dict(), files["trunk_weights"])
        image_size = 16 * config["latent_side"]
        adapter = build(image_size=image_size, architecture=architecture, **sizes, **files).adapter
    levels = recorded["levels"]
    for index, (ours, theirs) in enumerate(zip(adapter.gather(levels), recorded["per_level"], strict=True)):
        yield Quantity(f"per_level {index}", ours, theirs)
    yield Quantity("moments", adapter.moments(levels), recorded["moments"])
    yield Quantity("mean", adapter(levels), recorded["mean"])


FAMILIES: dict[str, Callable[[dict[str, Any]], Iterator[Quantity]]] = {
    "dinov2": dinov2,
    "dinov3": dinov3,
    "vfm_vae": vfm_vae,
    "vjepa2": vjepa2,
}
