"""Released DINO-WM folders become runs that compute what the original does, and nothing of them is taken on trust."""

import json
import shutil
import sys
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from plain_dino_wm import CONFIG, random_record
from torch import Tensor, nn

from wmbench.data.normalizer import fit_normalizer
from wmbench.importers import checkpoint
from wmbench.importers.checkpoint import convert_once, import_checkpoint, is_released, verify_checkpoint
from wmbench.importers.golden import relative_error
from wmbench.models.world_model import WorldModel
from wmbench.runs.load import load_decoder, load_run

POINT_MAZE = {"proprio_dim": 4, "action_dim": 6}  # three actions a block
CLASSES = {
    "predictor": "models.vit.ViTPredictor",
    "action_encoder": "models.proprio.ProprioceptiveEmbedding",
    "proprio_encoder": "models.proprio.ProprioceptiveEmbedding",
    "decoder": "models.vqvae.VQVAE",
}


@pytest.fixture
def golden_folder(golden: Path, tmp_path: Path) -> Path:
    """A copy of the recorded folder."""
    return Path(shutil.copytree(golden / "dino_wm_checkpoint" / "outputs" / "point_maze_tiny", tmp_path / "point_maze_tiny"))


@pytest.fixture
def expected(golden: Path) -> Path:
    return golden / "dino_wm_checkpoint" / "expected.pt"


@pytest.fixture
def pickled_class(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], type]:
    """An empty module class that pickles under a dotted name."""

    def make(path: str) -> type:
        module, _, name = path.rpartition(".")
        for package in (module, module.split(".")[0]):
            if package not in sys.modules:
                monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        if not hasattr(sys.modules[module], name):
            monkeypatch.setattr(sys.modules[module], name, type(name, (nn.Module,), {"__module__": module}), raising=False)
        return getattr(sys.modules[module], name)

    return make


@pytest.fixture
def release(tmp_path: Path, pickled_class: Callable[[str], type]) -> Callable[..., tuple[Path, dict]]:
    """Writes plain_dino_wm's world model of any size as a released folder; returns it and the record."""

    def grow(path: str, weights: dict[str, Tensor]) -> nn.Module:
        """A module of the class, with children as the names of its tensors ask for."""
        root = pickled_class(path)()
        for name, tensor in weights.items():
            *parents, leaf = name.split(".")
            module = root
            for parent in parents:
                if parent not in module._modules:
                    module.add_module(parent, nn.Module())
                module = module._modules[parent]  # type: ignore[assignment]
            module.register_parameter(leaf, nn.Parameter(tensor))
        return root

    def write(hydra: dict[str, Any] | None = None, content: dict[str, Any] | None = None, **sizes: int) -> tuple[Path, dict]:
        record = random_record(**(POINT_MAZE | sizes))
        config = record["config"]
        parts = {part: grow(path, record[part]) for part, path in CLASSES.items()}
        tokens = config["patches_per_side"] ** 2 + 2 * (config["concat_dim"] == 0)
        frame = torch.arange(config["num_hist"] * tokens) // tokens
        for layer in parts["predictor"].transformer.layers.children():
            old = layer._modules["0"]
            attention = pickled_class("models.vit.Attention")()
            attention.__dict__.update(_modules=old._modules, heads=config["heads"])
            attention.bias = (frame[:, None] >= frame).float()[None, None]
            attention.add_module("dropout", nn.Dropout(0.25))
            layer._modules["0"] = attention
        parts["decoder"].quantize = False
        settings = {
            "env": {"name": "point_maze"},
            "img_size": config["image_size"],
            "normalize_action": True,
            "predictor": {"depth": config["depth"]},
            "training": {"seed": 7},
        }
        folder = tmp_path / "outputs" / "mine"
        (folder / "checkpoints").mkdir(parents=True)
        OmegaConf.save(OmegaConf.create(settings | (hydra or {})), folder / "hydra.yaml")
        torch.save({"epoch": 12} | parts | (content or {}), folder / "checkpoints" / "model_latest.pth")
        return folder, record

    return write


def encoder_of(num_tokens_a_side: int, embed_dim: int) -> DictConfig:
    target = "wmbench.encoders.random_patch.RandomPatch"
    return OmegaConf.create(
        {
            "_target_": target,
            "image_size": 2 * num_tokens_a_side,
            "grid": num_tokens_a_side,
            "embed_dim": embed_dim,
            "seed": 0,
        }
    )


def load(run: Path, side: int = 2, embed_dim: int = 16) -> tuple[WorldModel, DictConfig, dict[str, Any]]:
    return load_run(run, encoder=encoder_of(side, embed_dim))


def edit_hydra(folder: Path, **changed: Any) -> None:
    settings = OmegaConf.merge(OmegaConf.load(folder / "hydra.yaml"), changed)
    OmegaConf.save(settings, folder / "hydra.yaml")


def test_every_recorded_output_of_the_golden_checkpoint_is_reproduced(golden_folder: Path, expected: Path):
    found = verify_checkpoint(golden_folder, expected)
    assert [name for name, _, _ in found] == ["predict", "action_embedding", "proprio_embedding", "decoded"]
    assert all(error < limit == 1e-5 for _, error, limit in found)


def test_the_imported_run_computes_the_recorded_outputs(golden_folder: Path, expected: Path, tmp_path: Path):
    record = torch.load(expected, weights_only=True)
    run = import_checkpoint(golden_folder, tmp_path / "runs" / "tiny")
    model, cfg, provenance = load(run)
    assert relative_error(model.predictor.transform(record["z"]), record["predict"]) < 1e-5
    assert relative_error(model.predictor.action_encoder(record["action"]), record["action_embedding"]) < 1e-5
    assert model.proprio_encoder is not None
    assert relative_error(model.proprio_encoder(record["proprio"]), record["proprio_embedding"]) < 1e-5
    decoder = load_decoder(run, dim=16, grid=(2, 2), image_size=32)
    assert decoder is not None and relative_error(decoder(record["visual"].flatten(0, 1))[0], record["decoded"]) < 1e-5
    assert (model.frameskip, model.num_hist, model.concat_dim, provenance["step"]) == (5, 3, 1, 100)
    assert cfg.proprio == "full" and cfg.predictor.dropout == 0.1


def test_provenance_tells_what_planning_and_a_reader_need(golden_folder: Path, tmp_path: Path):
    provenance = json.loads((import_checkpoint(golden_folder, tmp_path / "run") / "provenance.json").read_text())
    data, encoder = provenance["data"], provenance["encoder"]
    assert data["maze"] == ["#####", "#...#", "###.#", "#...#", "#####"]
    assert (data["renderer"], data["render_lag"], data["image_size"]) == ("mujoco-py", True, 32)
    assert (encoder["num_tokens"], encoder["embed_dim"], encoder["weights_hash"]) == (4, 16, None)
    assert (encoder["original"]["name"], encoder["licence"]) == ("dinov2_vits14", "unknown")  # 4 tokens are not dinov2's
    assert provenance["source"] == "point_maze_tiny/checkpoints/model_latest.pth" and len(provenance["source_sha256"]) == 64
    assert provenance["predictor_parameters"] == sum(p.numel() for p in load(tmp_path / "run")[0].predictor.parameters())


def test_without_data_the_normalizer_has_the_published_statistics(golden_folder: Path, tmp_path: Path):
    model, _, provenance = load(import_checkpoint(golden_folder, tmp_path / "run"))
    assert provenance["normalizer"] == "statistics of the published point_maze data"
    assert model.normalizer.action_std.tolist() == pytest.approx([0.577, 0.578], abs=5e-4)  # the golden README's numbers
    assert model.normalizer.proprio_mean.tolist() == pytest.approx([1.813, 1.938, -0.004, -0.020], abs=5e-4)
    assert model.normalizer.proprio_std.tolist() == pytest.approx([1.006, 0.963, 1.680, 1.932], abs=6e-4)


def test_with_data_the_normalizer_has_its_statistics(golden_folder: Path, tmp_path: Path, numbered_episodes: Callable):
    episodes = numbered_episodes()
    model, _, provenance = load(import_checkpoint(golden_folder, tmp_path / "run", episodes.path))
    wanted = fit_normalizer(episodes).state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.normalizer.state_dict().items())
    assert episodes.path.name in provenance["normalizer"]


def test_without_normalize_action_numbers_stay_as_they_are(golden_folder: Path, tmp_path: Path):
    edit_hydra(golden_folder, normalize_action=False)
    model, _, _ = load(import_checkpoint(golden_folder, tmp_path / "run"))
    action = torch.randn(3, 10)
    assert torch.equal(model.normalizer.normalize_action(action), action)


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"num_hist": 2, "patches_per_side": 3, "depth": 1},
        {"num_hist": 1, "proprio_emb_dim": 2, "action_emb_dim": 7},
        {"heads": 1, "dim_head": 15},  # as wide as the model: no output layer
        {"heads": 1, "dim_head": 6},
        {"concat_dim": 0, "proprio_emb_dim": 6, "action_emb_dim": 6},
    ],
)
def test_models_of_any_size_predict_and_imagine_as_the_original(release: Callable, tmp_path: Path, sizes: dict):
    folder, record = release(**sizes)
    config = record["config"]
    model, _, provenance = load(
        import_checkpoint(folder, tmp_path / "run"), config["patches_per_side"], config["visual_dim"]
    )
    for name, predicted in record["predict"].items():
        assert relative_error(model.predictor.transform(record["z"][:, : int(name[1:])]), predicted) < 1e-5
    size = CONFIG | POINT_MAZE | sizes
    assert (model.frameskip, model.num_hist, model.concat_dim) == (3, size["num_hist"], size["concat_dim"])
    inside = model.predictor
    z = record["z"][:, :1, : inside.num_tokens, : inside.dim]
    assert relative_error(inside.join(z, record["act"][:, :1]), record["z"][:, :1]) < 1e-5
    assert provenance["notes"] == [
        "hydra.yaml's encoder (none) is not known here to give the {} tokens of width {}".format(
            config["patches_per_side"] ** 2, config["visual_dim"]
        )
    ]
    assert provenance["step"] == 12


def test_the_weights_win_over_hydra_yaml_and_provenance_says_so(golden_folder: Path, tmp_path: Path):
    lies = {"num_hist": 2, "frameskip": 4, "concat_dim": 0, "action_emb_dim": 10, "proprio_emb_dim": 9}
    wrong = {"depth": 6, "heads": 16, "dim_head": 64, "mlp_dim": 2048}
    edit_hydra(golden_folder, **lies, predictor=wrong)
    model, _, provenance = load(import_checkpoint(golden_folder, tmp_path / "run"))
    assert (model.num_hist, model.frameskip, model.concat_dim, len(model.predictor.layers)) == (3, 5, 1, 2)
    told = [note.split()[2] for note in provenance["notes"] if note.startswith("hydra.yaml says")]
    assert sorted(told) == sorted([*lies, *(f"predictor.{key}" for key in wrong)])
    assert "hydra.yaml says predictor.heads 16, the weights 2" in provenance["notes"]


@pytest.mark.parametrize(("key", "side", "output"), [("x_norm_patchtokens", 3, "patches"), ("x_norm_clstoken", 1, "cls")])
def test_a_model_of_dinov2_gets_that_encoder_with_its_pixels(
    release: Callable, tmp_path: Path, key: str, side: int, output: str
):
    encoder = {"_target_": "models.dino.DinoV2Encoder", "name": "dinov2_vits14", "feature_key": key}
    hydra = {"encoder": encoder, "img_size": 48}
    folder, _ = release(hydra, {"decoder": None}, visual_dim=384, patches_per_side=side, depth=1, dim_head=2)
    run = import_checkpoint(folder, tmp_path / "run")
    config = OmegaConf.load(run / "config.yaml").encoder
    assert config._target_ == "wmbench.encoders.dinov2.DINOv2"
    assert (config.image_size, config.output, config.pixels, config.pretrained) == (42, output, "dino_wm", True)
    assert json.loads((run / "provenance.json").read_text())["notes"] == []
    assert not (run / "decoder.yaml").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder": {"_target_": "os.system", "command": "touch PROOF"}}, r"_target_ \(os\.system\) is no class of DINO"),
        ({"env": {"name": "${oc.env:HOME}"}}, r"env\.name \(\${oc\.env:HOME}\) asks for more than a key of this file"),
    ],
)
def test_settings_that_name_other_code_or_the_environment_are_refused(
    golden_folder: Path, tmp_path: Path, changed: dict, message: str
):
    edit_hydra(golden_folder, **changed)
    with pytest.raises(ValueError, match=message):
        import_checkpoint(golden_folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["pusht", "wall_single", "deformable_env"])
def test_models_of_other_environments_are_refused_by_name(golden_folder: Path, tmp_path: Path, name: str):
    edit_hydra(golden_folder, env={"name": name})
    (golden_folder / "checkpoints" / "model_latest.pth").write_bytes(b"not even looked at")
    with pytest.raises(ValueError, match=rf"is a model of {name}, and wmbench has only PointMaze"):
        import_checkpoint(golden_folder, tmp_path / "run")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_pred": 2}, "num_pred is 2; only models with num_pred 1 can be imported"),
        ({"num_action_repeat": 3}, "num_action_repeat is 3"),
        ({"num_proprio_repeat": 2}, "num_proprio_repeat is 2"),
        ({"has_predictor": False}, "has_predictor is False; only models with has_predictor true"),
        ({"img_size": "large"}, "must have env, .* img_size"),
        ({"img_size": 0}, "must have env, .* img_size"),
    ],
)
def test_settings_that_are_not_ours_are_refused_by_name(golden_folder: Path, tmp_path: Path, changed: dict, message: str):
    edit_hydra(golden_folder, **changed)
    with pytest.raises(ValueError, match=rf"hydra\.yaml.*{message}"):
        import_checkpoint(golden_folder, tmp_path / "run")


@pytest.mark.parametrize("damaged", [b"", b"a: [", b"- 1\n- 2\n", b"\xff\xfe\x00"])
def test_a_damaged_hydra_yaml_is_refused_by_name(golden_folder: Path, tmp_path: Path, damaged: bytes):
    (golden_folder / "hydra.yaml").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"hydra\.yaml (cannot be read as YAML|must have env)"):
        import_checkpoint(golden_folder, tmp_path / "run")


def test_what_is_not_there_is_named(golden_folder: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no model_50\.pth in .*checkpoints; found: model_latest\.pth"):
        import_checkpoint(golden_folder, tmp_path / "run", epoch=50)
    (golden_folder / "hydra.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"no .*hydra\.yaml; a released folder holds"):
        import_checkpoint(golden_folder, tmp_path / "run")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"encoder": 1}, "its contents: unknown encoder"),
        ({"epoch": -1}, r"epoch \(-1\) must be a whole number"),
        ({"predictor": nn.Linear(2, 3)}, r"its predictor is a torch\.nn\.modules\.linear\.Linear"),
        ({"action_encoder": None}, "its action_encoder is a NoneType"),
    ],
)
def test_parts_that_are_not_ours_are_refused_by_name(release: Callable, tmp_path: Path, content: dict, message: str):
    folder, _ = release(content=content)
    with pytest.raises(ValueError, match=rf"model_latest\.pth cannot be imported: {message}"):
        import_checkpoint(folder, tmp_path / "run")


@pytest.mark.parametrize(
    ("sizes", "message"), [({"action_dim": 7}, "is not one for PointMaze"), ({"proprio_dim": 2}, "is not one for PointMaze")]
)
def test_models_of_other_actions_or_proprio_are_refused(release: Callable, tmp_path: Path, sizes: dict, message: str):
    folder, _ = release(**sizes)
    with pytest.raises(ValueError, match=message):
        import_checkpoint(folder, tmp_path / "run")


@pytest.mark.parametrize("kind", ["mask", "blind", "heads", "missing", "unknown"])
def test_a_predictor_that_is_not_the_originals_is_refused(
    release: Callable, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
):
    folder, _ = release()
    path = folder / "checkpoints" / "model_latest.pth"
    content = torch.load(path, weights_only=False)  # our own file, just written
    attention, mlp = content["predictor"].transformer.layers._modules["1"].children()
    first = content["predictor"].transformer.layers._modules["0"]._modules["0"]
    if kind == "mask":
        first.bias = torch.ones_like(first.bias).tril()  # causal from token to token
    elif kind == "blind":
        first.bias = torch.zeros_like(first.bias)
    elif kind == "heads":
        attention.heads = 1
    elif kind == "missing":
        del mlp.net._modules["4"]._parameters["bias"]
    else:
        mlp.net.register_buffer("extra", torch.zeros(2))
    torch.save(content, path)
    messages = {
        "mask": "no mask in common",
        "blind": "no mask in common",
        "heads": "no heads and dropout in common",
        "missing": r"missing transformer\.layers\.1\.1\.net\.4\.bias",
        "unknown": r"unknown transformer\.layers\.1\.1\.net\.extra",
    }
    with pytest.raises(ValueError, match=rf"model_latest\.pth cannot be imported: .*({messages[kind]})"):
        import_checkpoint(folder, tmp_path / "run")


def test_a_decoder_of_another_kind_is_left_out_with_a_note(release: Callable, pickled_class: Callable, tmp_path: Path):
    other = pickled_class("models.decoder.transposed_conv.TransposedConvDecoder")()
    folder, _ = release(content={"decoder": other})
    run = import_checkpoint(folder, tmp_path / "run")
    assert not (run / "decoder.yaml").exists()
    assert "its decoder (models.decoder.transposed_conv.TransposedConvDecoder)" in (run / "provenance.json").read_text()


def test_a_run_appears_whole_or_not_at_all(golden_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = tmp_path / "runs"
    runs.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_decoder", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            import_checkpoint(golden_folder, runs / "tiny")
    assert list(runs.iterdir()) == []
    run = import_checkpoint(golden_folder, runs / "tiny")
    before = (run / "config.yaml").stat()
    with pytest.raises(FileExistsError, match=r"tiny exists already; delete it"):
        import_checkpoint(golden_folder, runs / "tiny")
    assert (run / "config.yaml").stat() == before and list(runs.iterdir()) == [run]


def test_a_released_folder_is_told_from_a_run(golden_folder: Path, tmp_path: Path):
    assert is_released(golden_folder)
    assert not is_released(import_checkpoint(golden_folder, tmp_path / "run"))
    assert not is_released(tmp_path / "nothing")
    (golden_folder / "checkpoints" / "model_latest.pth").unlink()
    assert not is_released(golden_folder)


def test_a_folder_is_converted_once_within_it(golden_folder: Path, tmp_path: Path):
    run = convert_once(golden_folder, None, tmp_path / "fallback")
    assert run == golden_folder / "wmbench" and load(run)[2]["step"] == 100
    before = (run / "provenance.json").stat()
    assert convert_once(golden_folder, None, tmp_path / "fallback") == run
    assert (run / "provenance.json").stat() == before and not (tmp_path / "fallback").exists()


def test_a_folder_that_cannot_be_written_to_is_converted_elsewhere(
    golden_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpoint.os, "access", lambda *args: False)
    run = convert_once(golden_folder, None, tmp_path / "runs" / "point_maze")
    assert run == tmp_path / "runs" / "point_maze" and not (golden_folder / "wmbench").exists()
    monkeypatch.undo()
    assert convert_once(golden_folder, None, tmp_path / "runs" / "point_maze") == run


def test_a_conversion_of_another_file_is_replaced_with_a_notice(
    golden_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    run = convert_once(golden_folder, None, tmp_path / "fallback")
    provenance = json.loads((run / "provenance.json").read_text())
    (run / "provenance.json").write_text(json.dumps(provenance | {"source_sha256": "0" * 64}))
    (run / "left over").touch()
    capsys.readouterr()
    assert convert_once(golden_folder, None, tmp_path / "fallback") == run
    assert "came from another file and is replaced" in capsys.readouterr().err
    assert not (run / "left over").exists() and json.loads((run / "provenance.json").read_text())["epoch"] == 100
    assert {path.name for path in golden_folder.iterdir()} == {"hydra.yaml", "checkpoints", "wmbench"}


def test_an_epoch_has_its_own_conversion(golden_folder: Path, tmp_path: Path):
    checkpoints = golden_folder / "checkpoints"
    shutil.copy(checkpoints / "model_latest.pth", checkpoints / "model_100.pth")
    assert convert_once(golden_folder, 100, tmp_path / "fallback") == golden_folder / "wmbench_100"


def test_a_folder_of_somebody_elses_is_never_replaced(golden_folder: Path, tmp_path: Path):
    (golden_folder / "wmbench").mkdir()
    (golden_folder / "wmbench" / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="wmbench is in the place where the conversion"):
        convert_once(golden_folder, None, tmp_path / "fallback")
    assert (golden_folder / "wmbench" / "thesis.tex").exists()


def test_conversions_at_the_same_time_end_in_one_run(golden_folder: Path, tmp_path: Path):
    with ThreadPoolExecutor(4) as pool:
        runs = set(pool.map(lambda _: convert_once(golden_folder, None, tmp_path / "fallback"), range(4)))
    assert runs == {golden_folder / "wmbench"} and load(runs.pop())[2]["step"] == 100
    assert {path.name for path in golden_folder.iterdir()} == {"hydra.yaml", "checkpoints", "wmbench"}


@pytest.mark.parametrize(
    ("changed", "worst"),
    [("predict", "predict"), ("action", "action_embedding"), ("proprio", "proprio_embedding"), ("visual", "decoded")],
)
@pytest.mark.parametrize("value", [3.0, float("nan"), float("inf")])
def test_a_changed_record_fails_under_its_name(
    golden_folder: Path, expected: Path, tmp_path: Path, changed: str, worst: str, value: float
):
    record = torch.load(expected, weights_only=True)
    record[changed].view(-1)[0] = value
    torch.save(record, tmp_path / "changed.pt")
    failed = [name for name, error, limit in verify_checkpoint(golden_folder, tmp_path / "changed.pt") if not error < limit]
    assert failed == [worst]


def test_records_that_cannot_be_compared_are_refused_by_name(golden_folder: Path, expected: Path, tmp_path: Path):
    record, path = torch.load(expected, weights_only=True), tmp_path / "other.pt"
    without = {name: tensor for name, tensor in record.items() if name != "decoded"}
    cases = {
        r"missing decoded": without,
        r"unknown more": record | {"more": record["z"]},
        "": record | {"z": record["z"][..., 1:]},
        r"no dict of tensors": [record["z"]],
    }
    for message, content in cases.items():
        torch.save(content, path)
        with pytest.raises(ValueError, match=rf"other\.pt is damaged or not a record of .*{message}"):
            verify_checkpoint(golden_folder, path)
    path.write_bytes(b"no record")
    with pytest.raises(ValueError, match=r"other\.pt is damaged or not a record"):
        verify_checkpoint(golden_folder, path)
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.pt"):
        verify_checkpoint(golden_folder, tmp_path / "nothing.pt")
