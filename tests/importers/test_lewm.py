"""A released LeWM folder becomes our model and a run; whatever does not fit is refused by name."""

import copy
import json
import math
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from wmbench.data.normalizer import Normalizer, fit_normalizer
from wmbench.importers.golden import relative_error
from wmbench.importers.golden_lewm import recompute_lewm
from wmbench.importers.lewm import build_lewm, import_lewm, load_lewm
from wmbench.runs.load import load_run
from wmbench.shapes import Obs

SCRIPT = Path(__file__).parents[2] / "scripts" / "import_lewm.py"
FULL = {
    "_target_": "jepa.JEPA",
    "encoder": {"_target_": "vit_hf", "size": "tiny", "patch_size": 14, "image_size": 224, "pretrained": False},
    "predictor": {"num_frames": 3, "input_dim": 192, "hidden_dim": 192, "output_dim": 192, "depth": 6, "heads": 16}
    | {"mlp_dim": 2048, "dim_head": 64, "dropout": 0.1, "emb_dropout": 0.0},
    "action_encoder": {"input_dim": 10, "emb_dim": 192},
    "projector": {"input_dim": 192, "output_dim": 192, "hidden_dim": 2048},
    "pred_proj": {"input_dim": 192, "output_dim": 192, "hidden_dim": 2048},
}
TINY = {
    "_target_": "os.system",  # never looked up
    "encoder": {"num_attention_heads": 3, "patch_size": 14, "image_size": 28, "hidden_size": 24},
    "predictor": {"num_frames": 3, "input_dim": 16, "depth": 2, "heads": 2, "mlp_dim": 32, "dim_head": 8},
    "action_encoder": {"input_dim": 10, "emb_dim": 16},
}


@pytest.fixture
def record(golden: Path) -> dict:
    return torch.load(golden / "lewm_tiny.pt", weights_only=True)


@pytest.fixture
def release(tmp_path: Path, record: dict) -> Callable[..., Path]:
    """A released folder of the recorded weights, with tensors replaced, or left out where None is given."""

    def write(config: object = TINY, **changed: Tensor | None) -> Path:
        folder = tmp_path / "release"
        folder.mkdir(exist_ok=True)
        named = {name.replace("__", "."): tensor for name, tensor in changed.items()}
        weights = {name: tensor for name, tensor in (record["weights"] | named).items() if tensor is not None}
        torch.save(weights, folder / "weights.pt")
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return write


def full_size_weights() -> dict[str, Tensor]:
    """Names and shapes of a release, spelled out; on the meta device, so they hold nothing."""
    linear = {}  # name -> (out, in, *kernel) of everything with weight and bias
    norms = ["encoder.layernorm", "predictor.transformer.norm"]
    bare = {"encoder.embeddings.cls_token": (1, 1, 192), "encoder.embeddings.position_embeddings": (1, 257, 192)}
    linear["encoder.embeddings.patch_embeddings.projection"] = (192, 3, 14, 14)
    for i in range(12):
        layer = f"encoder.encoder.layer.{i}"
        linear |= {f"{layer}.attention.attention.{name}": (192, 192) for name in ("query", "key", "value")}
        linear |= {f"{layer}.attention.output.dense": (192, 192)}
        linear |= {f"{layer}.intermediate.dense": (768, 192), f"{layer}.output.dense": (192, 768)}
        norms += [f"{layer}.layernorm_before", f"{layer}.layernorm_after"]
    bare["predictor.pos_embedding"] = (1, 3, 192)
    for i in range(6):
        layer = f"predictor.transformer.layers.{i}"
        bare[f"{layer}.attn.to_qkv.weight"] = (3072, 192)
        linear |= {f"{layer}.attn.to_out.0": (192, 1024), f"{layer}.adaLN_modulation.1": (1152, 192)}
        linear |= {f"{layer}.mlp.net.1": (2048, 192), f"{layer}.mlp.net.4": (192, 2048)}
        norms += [f"{layer}.attn.norm", f"{layer}.mlp.net.0"]
    linear |= {"action_encoder.patch_embed": (10, 10, 1)}
    linear |= {"action_encoder.embed.0": (768, 10), "action_encoder.embed.2": (192, 768)}
    for part in ("projector.net", "pred_proj.net"):
        linear |= {f"{part}.0": (2048, 192), f"{part}.3": (192, 2048)}
        bare |= {f"{part}.1.{name}": (2048,) for name in ("weight", "bias", "running_mean", "running_var")}
        bare |= {f"{part}.1.num_batches_tracked": ()}
    for name, shape in linear.items():
        bare |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    bare |= {f"{name}.{kind}": (192,) for name in norms for kind in ("weight", "bias")}
    return {name: torch.empty(shape, device="meta") for name, shape in bare.items()}


def test_a_release_at_full_size_fits_tensor_by_tensor():
    weights = full_size_weights()
    assert len(weights) == 303
    with torch.device("meta"):
        model = build_lewm(weights, FULL, Normalizer(torch.zeros(2), torch.ones(2), torch.zeros(4), torch.ones(4)))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 18.0
    assert (model.encoder.image_size, model.num_hist) == (224, 3)


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
def test_a_released_folder_computes_what_was_recorded(release: Callable, record: dict, nested: bool):
    model = load_lewm(release({"model": TINY, "epoch": 10} if nested else TINY))
    z = model.encoder.tokens(record["pixels"].flatten(0, 1)).view(3, 4, 1, 16)
    assert relative_error(z[:, :, 0], record["embedding"]) < 1e-5
    prediction = model.predict(z[:, :-1], record["action"][:, :-1])
    assert relative_error(prediction[:, :, 0], record["prediction"]) < 1e-5


def test_an_imported_release_is_a_run(release: Callable, tmp_path: Path, numbered_episodes: Callable):
    folder, episodes = release(), numbered_episodes()
    loaded = load_lewm(folder)
    obs = Obs(visual=torch.randint(0, 256, (2, 3, 28, 28, 3), dtype=torch.uint8), proprio=torch.randn(2, 3, 4))
    for data, std in ((None, torch.full((2,), 1 / math.sqrt(3))), (episodes.path, fit_normalizer(episodes).action_std)):
        run = import_lewm(folder, tmp_path / f"run_{data is None}", data)
        model, cfg, provenance = load_run(run)
        assert torch.equal(model.encode(obs), loaded.encode(obs))
        torch.testing.assert_close(model.normalizer.action_std, std, rtol=1e-5, atol=0)
        assert (cfg.num_hist, cfg.frameskip, provenance["step"]) == (3, 5, 0)
        assert "not PointMaze" in provenance["trained_on"] and provenance["encoder"]["licence"] == "the release's own"
        assert {"maze", "renderer", "image_size", "render_lag", "hash"} <= provenance["data"].keys()
    assert not list(tmp_path.glob("run_*.*"))


def test_the_command_imports_once_and_says_what_is_wrong(
    release: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    arguments = [str(SCRIPT), str(release()), str(tmp_path / "outputs" / "lewm_tiny")]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "python plan.py model_name=lewm_tiny" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert end.value.code == 1
    assert "lewm_tiny is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pred_proj__net__3__bias": None}, r"missing pred_proj\.net\.3\.bias"),
        ({"predictor__pos_embedding": None}, r"missing predictor\.pos_embedding"),
        ({"encoder__pooler__dense__bias": torch.zeros(24)}, r"unknown encoder\.pooler\.dense\.bias"),
        ({"projector__net__3__bias": torch.zeros(15)}, r"projector\.net\.3\.bias is \(15,\) instead of \(16,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(release: Callable, changed: dict, message: str):
    with pytest.raises(ValueError, match=message):
        load_lewm(release(**changed))


def test_action_blocks_of_another_robot_are_refused(release: Callable):
    folder = release(TINY | {"action_encoder": {}}, action_encoder__patch_embed__weight=torch.zeros(10, 25, 1))
    with pytest.raises(ValueError, match=r"action blocks of 25 numbers.*have 10 \(frameskip 5 x 2\)"):
        load_lewm(folder)


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("predictor", "heads", 4, r"config\.json says predictor\.dim_head 8, and weights\.pt 4"),
        ("predictor", "num_frames", 2, r"says predictor\.num_frames 2, and weights\.pt 3"),
        ("encoder", "image_size", 56, r"says encoder\.image_size 56, and weights\.pt 28"),
        ("encoder", "num_attention_heads", None, r"unknown encoder\.size None; known: tiny"),
        ("predictor", "heads", None, r"missing predictor\.heads"),
    ],
)
def test_a_configuration_that_contradicts_the_weights_is_refused_by_name(
    release: Callable, part: str, key: str, value: int | None, message: str
):
    config = copy.deepcopy(TINY)
    config[part][key] = value
    if value is None:
        del config[part][key]
    with pytest.raises(ValueError, match=message):
        load_lewm(release(config))


def test_a_folder_that_is_no_release_is_refused_by_name(release: Callable, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no weights\.pt in .*; a released LeWM folder has"):
        load_lewm(tmp_path)
    with pytest.raises(ValueError, match=r"config\.json has no encoder and predictor"):
        load_lewm(release({"lr": 1}))
    folder = release()
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        load_lewm(folder)
    (folder / "weights.pt").write_bytes((folder / "weights.pt").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"weights\.pt is damaged"):
        load_lewm(folder)


@pytest.mark.parametrize("name", ["embedding", "prediction_loss", "cost"])
def test_a_changed_number_of_a_record_is_found_and_named(record: dict, name: str):
    record[name] = record[name] * 1.001
    failed = {name for name, ours, recorded, limit in recompute_lewm(record) if relative_error(ours, recorded) > limit}
    assert failed == {name}


def test_an_entry_that_nothing_recomputes_is_refused_by_name(record: dict):
    with pytest.raises(ValueError, match=r"the record: missing cost, unknown surprise"):
        list(recompute_lewm({name: record[name] for name in record if name != "cost"} | {"surprise": torch.zeros(1)}))
