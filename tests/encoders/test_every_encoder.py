"""Every encoder in conf/encoder by train.py and plan.py, at tiny size, from weights in its official format."""

import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from in_process import TRAIN, compose, load_script, train
from miniature import shrink
from omegaconf import OmegaConf
from PIL import Image

from wmbench.commands import CONF, encoder_config
from wmbench.encoders.base import weights_hash
from wmbench.encoders.matched import unmatched
from wmbench.envs.vector import PointMazes
from wmbench.models.decoder import TransposedConvDecoder, VQVAEDecoder
from wmbench.reports import show
from wmbench.runs.load import load_decoder, load_run

NAMES = sorted(path.stem for path in Path(CONF, "encoder").glob("*.yaml"))
PLAN = "device=cpu baselines=false num_videos=0 protocol.num_tasks=2 protocol.max_steps=6 agent.horizon=2"
PLAN += " planner.num_samples=4 planner.num_elites=2 planner.num_iters=1"


class Noise:
    """Frames that need no renderer, which would take longer to import than all of this."""

    name = "warp"

    def frames(self, position: np.ndarray) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 256, (len(position), 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def plan() -> Iterator[Callable[[str, Path], None]]:
    """plan.py without what takes it longest: frames, the picture of paths, composing its settings."""
    module, settings = load_script("plan.py"), compose("plan", PLAN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(show, "draw_paths", lambda *arguments: None)
        patch.setattr(PointMazes, "renderer", Noise())

        def call(model_name: str, folder: Path) -> None:
            where = {"ckpt_base_path": folder, "output_dir": folder / "plans", "tasks_dir": folder / "tasks"}
            places = {name: str(path) for name, path in where.items()}
            module.main.__wrapped__(OmegaConf.merge(settings, {"model_name": model_name, **places}))

        yield call


# Other sizes and outputs of a class that another file stands for take make test-slow.
OTHERS = ("_b", "_l", "_h", "_g", "_splus", "_layer3", "_mean", "_pooled", "_cls", "_reg")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name.endswith(OTHERS) else []) for name in NAMES]
)
def test_it_trains_and_plans(name: str, plan, numbered_episodes: Callable, tmp_path: Path):
    data = numbered_episodes(num_episodes=6, length=12).path
    words = f"{TRAIN} encoder={name} env.data={data} model_name=tiny ckpt_base_path={tmp_path}"
    cfg = compose(
        "train", words + " predictor=vit" * name.startswith("tdmpc2")
    )  # whose own has no depth; test_families has it
    shrink(cfg.encoder, tmp_path)
    model = train(cfg)
    run = tmp_path / "outputs" / "tiny"
    (row,) = csv.DictReader((run / "metrics.csv").open(newline=""))
    assert all(math.isfinite(float(row[key])) for key in ("loss", "valid_prediction"))

    loaded, _, provenance = load_run(run)  # strictly, the frozen encoder's file by its hash
    source = provenance["encoder"]
    assert weights_hash(unmatched(loaded.encoder)) == weights_hash(unmatched(model.encoder))
    if model.encoder.frozen:
        assert source["weights_hash"] == weights_hash(unmatched(model.encoder)), "a frozen encoder has moved"
        assert "weights" not in cfg.encoder or cfg.encoder.weights in source["source"]
    else:
        assert source["weights_hash"] == "trained with the model"

    plan("tiny", tmp_path)
    (summary,) = (json.loads(path.read_text()) for path in (tmp_path / "plans").rglob("summary.json"))
    assert (summary["n_tasks"], summary["encoder_source"]) == (2, source["source"])
    with next((tmp_path / "plans").rglob("tasks.csv")).open(newline="") as file:
        assert all(math.isfinite(float(row["final_distance"])) for row in csv.DictReader(file))


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_no_encoder_can_take_are_refused_by_name(name: str, tmp_path: Path):
    encoder = OmegaConf.create(encoder_config(name))
    shrink(encoder, tmp_path)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"image_size": 0}, r"image_size \(0\)"),
        ({"pixels": "raw"}, r"pixels \('raw'\) must be one of native, dino_wm"),
        ({"output": "all"}, r"output \('all'\) must be one of "),
        (
            {"pretrained": False, "weights": "some.pth"},
            r"pretrained=false leaves weights=some\.pth unread|no trained tokenizer",
        ),
    ]
    for settings, message in refused:
        if settings.keys() <= encoder.keys():
            with pytest.raises(InstantiationException, match=message):
                instantiate(encoder, **settings)


@pytest.mark.parametrize(
    ("words", "grid"),
    [
        ("encoder=random_patch encoder.grid=4 decoder=vqvae", (4, 4)),
        ("encoder=random_patch encoder.grid=7 encoder.image_size=28 decoder=vqvae", (7, 7)),
        ("encoder=lewm_small decoder=transposed_conv", (1, 1)),
    ],
)
def test_grids_and_single_tokens_get_a_decoder_and_its_picture(
    words: str, grid: tuple[int, int], monkeypatch, numbered_episodes: Callable, tmp_path: Path
):
    monkeypatch.setattr(TransposedConvDecoder, "CHANNELS", (12, 9, 7, 5, 4, 3))
    data = numbered_episodes(num_episodes=6, length=12).path
    if "vqvae" in words:
        words += " decoder.channel=6 decoder.num_res_blocks=1 decoder.res_channel=4 decoder.num_codes=7"
    words += f" decoder.training.max_steps=2 decoder.training.batch_size=4 env.data={data}"
    cfg = compose("train", f"{TRAIN} {words} model_name=tiny ckpt_base_path={tmp_path}")
    encoder = train(cfg).encoder
    run = tmp_path / "outputs" / "tiny"
    assert encoder.grid == grid
    assert load_decoder(run, encoder.embed_dim, encoder.grid, image_size=8) is not None
    assert Image.open(run / "decoder.png").size[0] > 200


@torch.no_grad()
@pytest.mark.parametrize("side", [7, 13, 14, 16])
def test_grids_of_any_side_are_drawn_at_the_size_of_the_frames(side: int):
    sizes = {"channel": 4, "num_res_blocks": 1, "res_channel": 3, "num_codes": 2}
    decoder = VQVAEDecoder(dim=5, grid=(side, side), quantize=True, image_size=64, **sizes)
    assert decoder(torch.randn(2, side**2, 5))[0].shape == (2, 3, 64, 64)


@pytest.mark.parametrize(
    ("encoder", "decoder", "other"), [("state", "vqvae", "transposed_conv"), ("pixels", "transposed_conv", "vqvae")]
)
def test_a_decoder_of_the_other_kind_is_refused_before_anything_is_trained(
    encoder: str, decoder: str, other: str, numbered_episodes: Callable, tmp_path: Path
):
    words = f"encoder={encoder} decoder={decoder} env.data={numbered_episodes(6, 12).path} model_name=tiny"
    with pytest.raises(ValueError, match=f"use decoder={other}"):
        train(compose("train", f"{TRAIN} {words} ckpt_base_path={tmp_path}"))
    assert not (tmp_path / "outputs").exists()
