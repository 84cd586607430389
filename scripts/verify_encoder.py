"""Compare an encoder with recorded outputs: python scripts/verify_encoder.py encoder=dinov2 file=PATH

Builds the recorded network from the file's own config, loads its state dict through weights=PATH as a run would, and
prints ||ours - recorded|| / ||recorded|| of every output. Exit status 1 if one is above the limit or no number.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import hydra
import torch
from hydra.utils import instantiate
from torch import nn

from wmbench.commands import CONF, fail
from wmbench.importers.golden import Quantity, relative_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs=2, metavar="encoder=NAME file=PATH", help=f"known: {', '.join(FAMILIES)}")
    given = dict(setting.split("=", 1) for setting in parser.parse_args().settings if "=" in setting)
    if given.keys() != {"encoder", "file"}:
        fail(f"give encoder=NAME and file=PATH, not {', '.join(given) or 'words without ='}")
    if given["encoder"] not in FAMILIES:
        fail(f"no recording of encoder {given['encoder']!r} can be checked; known: {', '.join(FAMILIES)}")
    try:
        recorded = torch.load(given["file"], "cpu", weights_only=True)
        with torch.inference_mode():
            passed = [report(quantity) for quantity in FAMILIES[given["encoder"]](recorded)]
    except KeyError as error:
        fail(f"{given['file']} is no recording of {given['encoder']}: it has no {error}")
    except (ValueError, OSError, UnpicklingError) as error:
        fail(str(error))
    else:
        if not passed:
            fail(f"{given['file']} holds no recording of {given['encoder']}")
        raise SystemExit(not all(passed))


def report(quantity: Quantity) -> bool:
    """Print an output's error; whether it is within the limit."""
    error = relative_error(quantity.ours, quantity.recorded)
    within = error <= quantity.limit
    print(f"{quantity.name:<32}{error:.1e}{'' if within else '  fails'}")
    return within


def dinov2(recorded: dict[str, Any]) -> Iterator[Quantity]:
    """Patch tokens and CLS of every recorded network (`plain`, `registers`) at every image size."""
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        build = instantiate(hydra.compose("train", overrides=["encoder=dinov2"]).encoder, _partial_=True)
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
            "init_values": 1.0 if config["layer_scale"] else None,
            "reg_tokens": record["num_register_tokens"],
            "no_embed_class": record["num_register_tokens"] > 0,
        }
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"{variant}.pth")
            torch.save(record["state_dict"], file)
            for image in (name for name in record if name.startswith("image_")):
                for output, key in (("patches", "patch_tokens"), ("cls", "cls")):
                    size = record[image].shape[-1]
                    encoder = build(image_size=size, output=output, weights=str(file), architecture=architecture)
                    name = image.replace("image", key)
                    ours = encoder.tokens(record[image])
                    yield Quantity(f"{variant} {name}", ours if output == "patches" else ours[:, 0], record[name])


FAMILIES: dict[str, Callable[[dict[str, Any]], Iterator[Quantity]]] = {"dinov2": dinov2}


if __name__ == "__main__":
    main()
