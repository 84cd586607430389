"""The encoders of conf/encoder as a table: what each gives, what it costs, and whether its weights are here."""

import time
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch.utils.flop_counter import FlopCounterMode

from wmbench.commands.configuration import encoder_config
from wmbench.commands.messages import explain
from wmbench.encoders.base import Encoder
from wmbench.encoders.weights import Release
from wmbench.shapes import Obs

MOST_TIMED = 100e6  # parameters; a larger network takes long to build, which is worth it where its weights are cached
COLUMNS = ("encoder", "tokens x width", "pixels", "parameters", "GFLOPs", "ms", "weights", "licence", "access")
NUMBERS = COLUMNS[1:6]
LINE, CELL = 120, 24  # most letters of a line and of a cell in a terminal
WEIGHTS = ("cached", "not cached", "not trained", "with the model", "none")


def row(name: str, device: torch.device | None) -> dict[str, str]:
    """Describe an encoder, or say why that fails; its time is measured if there is a device for it."""
    try:
        return describe(name, device)
    except InstantiationException as error:
        problem: Any = error.__cause__ or error
    except Exception as error:  # a mistake in a new file must cost only its own row
        problem = explain(error, "train")
    return {"encoder": name, "tokens x width": f"error: {' '.join(str(problem).split())}"}


def describe(name: str, device: torch.device | None) -> dict[str, str]:
    config = encoder_config(name)
    files = releases(config)
    with torch.device("meta" if "pretrained" in config else "cpu"):  # those of others are large
        encoder = build(config)
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    if "pretrained" in config:
        weights = "cached" if all(file.path.exists() for file in files) else "not cached"
        if not files or (weights == "cached" and "file" in config and not Path(config["file"]).exists()):
            weights = "not trained"
    else:
        weights = "none" if encoder.frozen else "with the model"
    is_timed = parameters <= MOST_TIMED or weights == "cached"
    return {
        "encoder": name,
        "tokens x width": f"{encoder.num_tokens} x {encoder.embed_dim}",
        "pixels": str(encoder.image_size),
        "parameters": f"{parameters / 1e6:,.2f} M",
        "GFLOPs": f"{flops(encoder) / 1e9:.2f}",
        "ms": f"{milliseconds(build(config), device):.1f}" if device and is_timed else "-",
        "weights": weights,
        "licence": ", ".join(dict.fromkeys(file.licence for file in files)) or encoder.licence,
        "access": ", ".join(dict.fromkeys(file.access for file in files)) or "open",
        "note": type(encoder).note,  # with its weights, which it is built without here
    }


def releases(node: Any) -> list[Release]:
    """Every file that an encoder's configuration names, however deep; a network may have its backbone's and its own."""
    if not isinstance(node, dict):
        return []
    if node.get("_target_", "").endswith(".Release"):
        return [instantiate(node)]
    return [release for child in node.values() for release in releases(child)]


def build(config: dict[str, Any]) -> Encoder:
    """Build the encoder without the weights that others trained."""
    return instantiate(config, **({"pretrained": False} if "pretrained" in config else {})).eval()


def one_frame(encoder: Encoder, device: torch.device) -> Obs:
    side = encoder.image_size
    visual = torch.zeros(1, 1, side, side, 3, dtype=torch.uint8, device=device)
    return Obs(visual=visual, proprio=torch.zeros(1, 1, 4, device=device))


@torch.no_grad()
def flops(encoder: Encoder) -> int:
    """Multiplications and additions of one frame, counted from shapes only."""
    device = torch.device("meta")
    with FlopCounterMode(display=False) as counter:
        encoder.to(device)(one_frame(encoder, device))
    return counter.get_total_flops()


@torch.no_grad()
def milliseconds(encoder: Encoder, device: torch.device) -> float:
    """Median time of one frame [ms]."""
    obs, seconds = one_frame(encoder.to(device), device), []
    while len(seconds) < 4 or sum(seconds) < 0.3:
        began = time.perf_counter()
        encoder(obs).cpu()  # waits for a GPU
        seconds.append(time.perf_counter() - began)
    return 1000 * median(seconds[1:])  # the first call allocates


def as_text(table: pd.DataFrame) -> str:
    """Lines of columns as wide as needed; an error takes the rest of its line."""
    lines = [list(COLUMNS), *table.to_numpy().tolist()]
    rows = [cells for cells in lines if not cells[1].startswith("error")]
    widths = [min(CELL, max(map(len, cells))) for cells in zip(*rows, strict=True)]
    signs = [">" if name in NUMBERS else "<" for name in COLUMNS]
    shown = [
        [f"{shortened(cell, width):{sign}{width}}" for cell, width, sign in zip(cells, widths, signs, strict=True)]
        if cells in rows
        else cells
        for cells in lines
    ]
    return "\n".join(shortened("  ".join(cells).rstrip(), LINE) for cells in shown)


def shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
