"""Runs on disk: what is saved comes back, and nothing else is taken for it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file
from tiny_run import FROZEN, REST
from torch import Tensor

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.base import weights_hash
from wmbench.models.base import Predictor
from wmbench.models.world_model import WorldModel
from wmbench.runs import find, store
from wmbench.runs.build import build_decoder, build_world_model, check_sizes
from wmbench.runs.find import SHIPPED, find_run, latest_step, list_runs, step_of, step_path
from wmbench.runs.folder import open_run
from wmbench.runs.load import load_run, read_provenance, save_weights
from wmbench.runs.store import load_resume, save_resume
from wmbench.runs.trust import MOVED
from wmbench.shapes import Batch, Obs

TRAINED = {
    "encoder": {
        "_target_": "wmbench.encoders.lewm.SmallLeWM",
        "image_size": 8,
        "widths": [3, 4],
        "embed_dim": 5,
        "projector_dim": 6,
    },
    "training": {"regularizer": {"_target_": "wmbench.models.sigreg.SIGReg", "num_directions": 9, "weight": 0.1}},
}


@pytest.fixture(params=[FROZEN, TRAINED], ids=["frozen", "trained"])
def kind(request: pytest.FixtureRequest) -> dict:
    return request.param


@pytest.fixture
def make_run(tmp_path: Path, numbered_episodes: Callable) -> Callable[[dict], tuple[Path, WorldModel]]:
    """A run with weights of step 20, and the model that it holds."""

    def make(kind: dict) -> tuple[Path, WorldModel]:
        cfg = OmegaConf.create(REST | kind | {"ckpt_base_path": str(tmp_path)})
        torch.manual_seed(0)
        model = build_world_model(cfg, Normalizer(*(torch.rand(size) + 0.5 for size in (2, 2, 4, 4))))
        run = open_run(cfg, model, numbered_episodes())
        save_weights(run, 20, model)
        return run, model

    return make


def make_batch(frames: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    visual = torch.randint(0, 256, (2, frames, 8, 8, 3), dtype=torch.uint8, generator=generator)
    proprio = torch.randn(2, frames, 4, generator=generator)
    return Batch(Obs(visual=visual, proprio=proprio), torch.randn(2, frames, 6, generator=generator))


def edit_weights(run: Path, **changed: Tensor | None) -> None:
    """Replace tensors of step 20, or leave out those that are None; a dot in a name is written as two underscores."""
    named = {name.replace("__", "."): tensor for name, tensor in changed.items()}
    tensors = {name: tensor for name, tensor in (load_file(step_path(run, 20)) | named).items() if tensor is not None}
    save_file(tensors, step_path(run, 20))


def edit_config(run: Path, key: str, value: object) -> None:
    cfg = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(cfg, key, value)
    OmegaConf.save(cfg, run / "config.yaml")


@torch.no_grad()
def test_a_loaded_model_computes_what_the_saved_one_did(make_run: Callable, kind: dict):
    run, model = make_run(kind)
    loaded, cfg, provenance = load_run(run)
    batch = make_batch(frames=3)
    model.eval()
    assert torch.equal(loaded.encode(batch.obs), model.encode(batch.obs))
    assert torch.equal(loaded.loss(batch).parts["prediction"], model.loss(batch).parts["prediction"])
    assert torch.equal(loaded.normalizer.denormalize_action(batch.action), model.normalizer.denormalize_action(batch.action))
    assert isinstance(cfg, DictConfig) and cfg.model_name == "tiny"
    assert provenance["step"] == 20
    assert (loaded.frameskip, loaded.num_hist) == (3, 2)


def test_a_loaded_model_is_in_evaluation_mode_and_without_gradients(make_run: Callable, kind: dict):
    loaded, _, _ = load_run(make_run(kind)[0])
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("name", MOVED)
def test_a_run_that_names_a_class_by_an_older_name_loads_and_can_be_taken_up_again(
    name: str, make_run: Callable, numbered_episodes: Callable
):
    run, model = make_run(FROZEN)
    cfg = OmegaConf.load(run / "config.yaml")
    assert get_class(MOVED[name]) is type(model.predictor)
    edit_config(run, "predictor._target_", name)
    assert torch.equal(load_run(run)[0].predictor.norm.weight, model.predictor.norm.weight)
    assert open_run(cfg, model, numbered_episodes()) == run  # under today's name it is no other run


def test_the_shipped_run_loads():
    model, cfg, _ = load_run(SHIPPED / "point_maze_lewm")
    assert isinstance(model.predictor, Predictor) and cfg.predictor._target_.startswith("wmbench.models.")


def test_a_file_holds_a_trained_encoder_and_not_a_frozen_one(make_run: Callable, kind: dict):
    run, model = make_run(kind)
    names = load_file(step_path(run, 20)).keys()
    expected = {name for name in model.state_dict() if kind is TRAINED or not name.startswith("encoder.")}
    assert names == expected
    assert any(name.startswith("encoder.") for name in names) == (kind is TRAINED)
    assert {"predictor.norm.weight", "proprio_encoder.weight", "normalizer.action_std"} <= names


def test_the_newest_weights_are_loaded_unless_a_step_is_named(make_run: Callable):
    run, model = make_run(FROZEN)
    before = model.predictor.norm.weight.detach().clone()
    torch.nn.init.constant_(model.predictor.norm.weight, 3.0)
    save_weights(run, 100, model)
    assert latest_step(run) == 100
    assert torch.equal(load_run(run)[0].predictor.norm.weight, torch.full_like(before, 3.0))
    assert torch.equal(load_run(run, step=20)[0].predictor.norm.weight, before)


def test_a_missing_step_is_refused_with_those_there_are(make_run: Callable):
    run, _ = make_run(FROZEN)
    with pytest.raises(FileNotFoundError, match=r"tiny has no weights of step 30; saved: step_000020"):
        load_run(run, step=30)
    step_path(run, 20).unlink()
    assert latest_step(run) is None
    with pytest.raises(FileNotFoundError, match=r"tiny has no weights; saved: none"):
        load_run(run)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"predictor__norm__bias": None}, r"missing predictor\.norm\.bias"),
        ({"normalizer__action_mean": None}, r"missing normalizer\.action_mean"),
        ({"predictor__extra": torch.zeros(2)}, r"unknown predictor\.extra"),
        ({"encoder__project__weight": torch.zeros(5, 3, 4, 4)}, r"unknown encoder\.project\.weight"),
        ({"predictor__norm__bias": torch.full((15,), torch.inf)}, r"predictor\.norm\.bias holds NaN or Inf"),
        ({"predictor__norm__bias": torch.zeros(4)}, r"predictor\.norm\.bias is \(4,\) instead of \(15,\)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(make_run: Callable, changed: dict, message: str):
    run, _ = make_run(FROZEN)
    edit_weights(run, **changed)
    with pytest.raises(ValueError, match=message):
        load_run(run)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.9], ids=["empty", "header cut", "tensors cut"])
def test_a_truncated_file_is_refused_by_name(make_run: Callable, kept: float):
    run, _ = make_run(FROZEN)
    whole = step_path(run, 20).read_bytes()
    step_path(run, 20).write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"step_000020\.safetensors is damaged or truncated"):
        load_run(run)


def test_a_truncated_resume_file_is_refused_by_name(make_run: Callable):
    run, model = make_run(FROZEN)
    optimizer = torch.optim.AdamW(model.parameters())
    save_resume(run, 20, model, optimizer)
    whole = (run / "resume.safetensors").read_bytes()
    (run / "resume.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"resume\.safetensors is damaged or truncated"):
        load_resume(run, model, optimizer)


def test_a_file_half_written_does_not_replace_the_last_one(make_run: Callable, monkeypatch: pytest.MonkeyPatch):
    run, model = make_run(FROZEN)
    before = step_path(run, 20).read_bytes()

    def power_cut(tensors: dict, path: Path, metadata: dict) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("power cut")

    monkeypatch.setattr(store, "save_file", power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        save_weights(run, 20, model)
    assert step_path(run, 20).read_bytes() == before
    assert latest_step(run) == 20


def test_a_frozen_encoder_with_other_weights_is_refused(make_run: Callable):
    run, model = make_run(FROZEN)
    edit_config(run, "encoder.seed", 1)
    with pytest.raises(ValueError, match=rf"tiny was trained on encoder weights {weights_hash(model.encoder)}.*seed 1"):
        load_run(run)


def test_an_unknown_run_is_refused_with_those_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(find, "SHIPPED", tmp_path / "shipped")
    with pytest.raises(FileNotFoundError, match=r"no run 'maze_a'.*found: none; train one with: python train.py"):
        find_run(tmp_path / "base", "maze_a")
    for folder in ("base/outputs/maze_b", "base/maze_c", "shipped/other_d"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.yaml").touch()
        assert find_run(tmp_path / "base", Path(folder).name) == tmp_path / folder
    (tmp_path / "base" / "outputs" / "not_a_run").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no run 'maze_a'.*found: maze_b, maze_c, other_d$"):
        find_run(tmp_path / "base", "maze_a")
    assert list_runs(tmp_path / "base", "maze_*") == ["maze_b", "maze_c"]


@pytest.mark.parametrize("name", ["pusht", "wall_single"])
def test_models_that_dino_wm_released_for_other_environments_are_refused_by_name(tmp_path: Path, name: str):
    with pytest.raises(FileNotFoundError, match=rf"'{name}' is DINO-WM's model of another environment"):
        find_run(tmp_path, name)


def test_saved_training_state_comes_back_whole(make_run: Callable, kind: dict):
    run, model = make_run(kind)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    batch = make_batch(frames=3)
    for _ in range(2):
        optimizer.zero_grad()
        model.loss(batch).total.backward()
        optimizer.step()
    save_resume(run, 2, model, optimizer)
    expected = torch.randn(3)

    torch.manual_seed(7)
    other = build_world_model(OmegaConf.load(run / "config.yaml"), Normalizer(*(torch.ones(size) for size in (2, 2, 4, 4))))
    other_optimizer = torch.optim.AdamW([p for p in other.parameters() if p.requires_grad])
    assert load_resume(run, other, other_optimizer) == 2
    assert torch.equal(torch.randn(3), expected)
    for (name, ours), theirs in zip(other.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    before, after = optimizer.state_dict()["state"], other_optimizer.state_dict()["state"]
    assert before.keys() == after.keys() and before
    for index, state in before.items():
        assert all(torch.equal(after[index][name], value) for name, value in state.items())


def test_a_run_without_a_saved_state_starts_at_zero(make_run: Callable):
    run, model = make_run(FROZEN)
    assert load_resume(run, model, torch.optim.AdamW(model.parameters())) == 0


def test_a_run_is_taken_up_again_with_its_own_settings_alone(
    make_run: Callable, numbered_episodes: Callable, tmp_path: Path
):
    run, model = make_run(FROZEN)
    cfg = OmegaConf.create(REST | FROZEN | {"ckpt_base_path": str(tmp_path)})
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["encoder"]["weights_hash"] == weights_hash(model.encoder)
    assert open_run(cfg, model, numbered_episodes()) == run
    assert json.loads((run / "provenance.json").read_text()) == provenance
    with pytest.raises(ValueError, match=r"holds a run with other encoder\.seed, num_hist; give another model_name="):
        open_run(OmegaConf.merge(cfg, {"num_hist": 3, "encoder": {"seed": 5}}), model, numbered_episodes())
    with pytest.raises(ValueError, match=r"was trained on other data"):
        open_run(cfg, model, numbered_episodes(length=13))


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        (FROZEN, {"num_pred": 2}, r"num_pred \(2\) must be 1"),
        (FROZEN, {"predictor": REST["predictor"] | {"num_heads": 0}}, r"predictor\.num_heads \(0\) must be a whole number"),
        (FROZEN, {"predictor": REST["predictor"] | {"depth": -1}}, r"predictor\.depth \(-1\) must be a whole number from 1"),
        (FROZEN, {"proprio_embed_dim": 0}, r"proprio_embed_dim \(0\) must be at least 1; proprio=none"),
        (FROZEN, {"proprio": "some"}, r"unknown proprio 'some'; known: none, velocity, full"),
        (TRAINED, {"training": {"regularizer": None}}, r"collapses without training\.regularizer"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_by_name(kind: dict, changed: dict, message: str):
    cfg = OmegaConf.create(REST | kind | changed)
    with pytest.raises(ValueError, match=message):
        build_world_model(cfg, Normalizer(*(torch.ones(size) for size in (2, 2, 4, 4))))


@pytest.mark.parametrize("name", ["dropout", "concat_dim", "num_res_blocks"])
def test_settings_that_may_be_zero_are_no_sizes(name: str):
    """`predictor.dropout=0` on a command line is a whole number, as depth=0 is."""
    check_sizes("predictor", {name: 0})
    with pytest.raises(ValueError, match=rf"predictor\.{name} \(-1\) must be a whole number from 0"):
        check_sizes("predictor", {name: -1})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"channel": 1}, r"decoder\.channel \(1\) must be at least 2"),
        ({"channel": 0}, r"decoder\.channel \(0\) must be"),
        ({"num_codes": 0}, r"decoder\.num_codes \(0\) must be"),
        ({"num_res_blocks": -1}, r"decoder\.num_res_blocks \(-1\) must be"),
    ],
)
def test_a_decoder_that_cannot_be_is_refused_by_name(changed: dict, message: str):
    sizes = {"channel": 4, "num_res_blocks": 1, "res_channel": 3, "num_codes": 5, "quantize": False}
    config = {"_target_": "wmbench.models.decoder.VQVAEDecoder", **sizes, **changed}
    with pytest.raises(ValueError, match=message):
        build_decoder(config, dim=5, grid=(2, 2), image_size=8)


@pytest.mark.parametrize("checkpoint", ["best", "", None, -1, 1.5, True, "20"])
def test_a_checkpoint_that_is_no_step_is_refused_by_name(checkpoint: object):
    with pytest.raises(ValueError, match=r"checkpoint \(.*\) must be latest or the number of a saved step"):
        step_of(checkpoint)


def test_a_checkpoint_is_a_step_or_the_latest():
    assert (step_of("latest"), step_of(20), step_of(0)) == (None, 20, 0)


def test_files_that_are_no_steps_are_left_alone(make_run: Callable):
    run, _ = make_run(FROZEN)
    (run / "step_best.safetensors").touch()
    assert latest_step(run) == 20


def test_a_damaged_last_step_names_the_others(make_run: Callable):
    run, model = make_run(FROZEN)
    save_weights(run, 40, model)
    flipped = bytearray(step_path(run, 40).read_bytes())
    flipped[-20] ^= 1
    for damaged in (flipped, b""):
        step_path(run, 40).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"step_000040\.safetensors is damaged .*take another step: checkpoint=20"):
            load_run(run)
    assert load_run(run, 20)[2]["step"] == 20


@pytest.mark.parametrize("name", ["config.yaml", "provenance.json"])
@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_a_run_whose_description_is_damaged_is_refused_by_its_file(make_run: Callable, name: str, kept: float):
    run, _ = make_run(FROZEN)
    whole = (run / name).read_text()
    (run / name).write_text(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=rf"{name} is damaged .*or delete the folder and train it again"):
        load_run(run)


@pytest.mark.parametrize(
    ("place", "name", "value", "message"),
    [
        ("data", "hash", 3, "hash cannot be '3'"),
        ("data", "hash", None, r"it lacks data\.hash"),
        ("encoder", "parameters", "many", "parameters cannot be 'many'"),
        ("", "predictor_parameters", None, "it lacks predictor_parameters"),
        ("", "data", [], r"data cannot be '\[\]'"),
        ("", "encoder", None, "it lacks encoder"),
        ("", "shown", [{"kind": ["frames"]}], "a training cannot look at"),
    ],
)
def test_a_fact_that_is_missing_or_of_another_kind_is_refused_by_name(
    tmp_path: Path, place: str, name: str, value: Any, message: str
):
    """None takes it away."""
    facts = json.loads((SHIPPED / "point_maze_lewm" / "provenance.json").read_text())
    (tmp_path / "provenance.json").write_text(json.dumps(facts))
    assert read_provenance(tmp_path, "delete it") == facts
    told = facts[place] if place else facts
    told[name] = value
    if value is None:
        del told[name]
    (tmp_path / "provenance.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=rf"provenance\.json is damaged \({message}.*\); delete it"):
        read_provenance(tmp_path, "delete it")
