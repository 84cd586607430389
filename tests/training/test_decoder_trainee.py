"""Training a decoder apart: it learns, resumes, is saved and loaded, and never touches the world model."""

import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from few_steps import FEW_STEPS, FRAMESKIP, NUM_HIST, new_normalizer, read_metrics
from in_process import compose, load_script
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wmbench.data.windows import Windows
from wmbench.encoders.lewm import SmallLeWM
from wmbench.encoders.random_patch import RandomPatch
from wmbench.envs.vector import PointMazes
from wmbench.evaluation.episode_loop import Outcome
from wmbench.evaluation.tasks import Tasks
from wmbench.models.adaln import AdaLNPredictor
from wmbench.models.decoder import TransposedConvDecoder, VQVAEDecoder, decode_frames
from wmbench.models.vit import FrameCausalViT
from wmbench.models.world_model import WorldModel
from wmbench.reports.film import SIZE, film_task
from wmbench.runs.folder import open_decoder
from wmbench.runs.load import load_decoder, save_decoder
from wmbench.runs.recipe import Recipe
from wmbench.shapes import Obs
from wmbench.training import loop
from wmbench.training.decoder import DecoderTrainee, draw_samples, validate_decoder
from wmbench.training.part import Part

ROOT = Path(__file__).parents[2]
OPTIONS = {"proprio": "velocity", "proprio_embed_dim": 4, "frameskip": FRAMESKIP, "num_hist": NUM_HIST}
MODULE = {"channel": 6, "num_res_blocks": 1, "res_channel": 4, "num_codes": 7, "quantize": True}
CONFIG = {"_target_": "wmbench.models.decoder.VQVAEDecoder", **MODULE}
SIZES = {"dim": 5, "grid": (2, 2), "image_size": 8}


def make_recipe(**changed) -> Recipe:
    return Recipe(**FEW_STEPS | {"weight_decay": 0.0} | changed)


def make_decoder() -> VQVAEDecoder:
    torch.manual_seed(0)
    return VQVAEDecoder(**SIZES, **MODULE)


def make_frozen() -> WorldModel:
    torch.manual_seed(0)
    size = {"action_embed_dim": 4, "depth": 1, "num_heads": 2, "head_dim": 6, "mlp_dim": 11, "dropout": 0.1}
    predictor = FrameCausalViT(dim=9, num_tokens=4, num_hist=NUM_HIST, action_dim=2 * FRAMESKIP, **size)
    return WorldModel(RandomPatch(image_size=8, grid=2, embed_dim=5, seed=0), predictor, new_normalizer(), **OPTIONS)


def make_trained() -> WorldModel:
    """With BatchNorm, whose statistics a pass in training mode would move."""
    torch.manual_seed(0)
    encoder = SmallLeWM(image_size=8, widths=[3, 4], embed_dim=5, projector_dim=6)
    size = {"smoothed_dim": 3, "depth": 1, "num_heads": 2, "head_dim": 4, "mlp_dim": 7, "dropout": 0.1, "projector_dim": 6}
    predictor = AdaLNPredictor(dim=9, num_tokens=1, num_hist=NUM_HIST, action_dim=2 * FRAMESKIP, **size)
    return WorldModel(encoder, predictor, new_normalizer(), **OPTIONS)


@pytest.fixture
def windows(numbered_episodes: Callable) -> tuple[Windows, Windows]:
    """50 single frames to train on, four windows to validate."""
    episodes = numbered_episodes(num_episodes=6, length=12)
    train = Windows(episodes, np.array([0, 1, 2, 4, 5]), 1, FRAMESKIP)
    valid = Windows(episodes, np.array([3]), NUM_HIST + 1, FRAMESKIP)
    assert (len(train), len(valid)) == (50, 4)
    return train, valid


def train(model: WorldModel, decoder: nn.Module, windows: tuple[Windows, Windows], run: Path, **changed) -> nn.Module:
    run.mkdir(exist_ok=True)
    options = {"recipe": make_recipe(), "seed": 1, "announce": lambda seconds: None, "log": lambda row: None} | changed
    trainee = DecoderTrainee(model, Part("decoder", CONFIG, decoder), *windows, options.pop("recipe"), options.pop("seed"))
    loop.train(trainee, run, **options)
    return decoder


def metrics(run: Path) -> list[dict[str, str]]:
    return read_metrics(run / "decoder_metrics.csv")


def assert_same(module: nn.Module, state: dict[str, Tensor]) -> None:
    assert module.state_dict().keys() == state.keys()
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_the_decoder_learns_to_draw(windows: tuple[Windows, Windows], tmp_path: Path):
    recipe = make_recipe(max_steps=60, batch_size=25, valid_every=5)
    train(make_frozen(), make_decoder(), windows, tmp_path, recipe=recipe)
    errors = [float(row["valid_reconstruction"]) for row in metrics(tmp_path)]
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize("kind", ["frozen", "trained"])
def test_training_a_decoder_leaves_the_world_model_alone(
    kind: str, windows: tuple[Windows, Windows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(TransposedConvDecoder, "CHANNELS", (12, 9, 7, 5, 4, 3))
    model = make_frozen() if kind == "frozen" else make_trained()
    decoder = make_decoder() if kind == "frozen" else TransposedConvDecoder(dim=5, image_size=8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, decoder, windows, tmp_path)
    draw_samples(model, decoder, windows[1], count=2)
    assert_same(model, before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_decoder_stopped_at_any_step_ends_as_if_it_had_not_been(windows: tuple[Windows, Windows], tmp_path: Path):
    """By Ctrl-C before the first save and after one, and by a power cut while logging step 6, when step 4 was saved."""
    whole = train(make_frozen(), make_decoder(), windows, tmp_path / "whole")
    for name, step, error in (("early", 3, KeyboardInterrupt), ("late", 9, KeyboardInterrupt), ("cut", 6, RuntimeError)):

        def stop(row: dict, step: int = step, error: type[BaseException] = error) -> None:
            if row["step"] == step and error is RuntimeError:
                raise RuntimeError
            if row["step"] == step:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(error):
            train(make_frozen(), make_decoder(), windows, tmp_path / name, log=stop)
        torch.manual_seed(7)
        announced: list[float] = []
        resumed = train(make_frozen(), make_decoder(), windows, tmp_path / name, announce=announced.append)
        assert_same(resumed, whole.state_dict())
        assert metrics(tmp_path / name) == metrics(tmp_path / "whole")
        assert len(announced) == 1 and announced[0] > 0


class Tokens:
    """Those of the encoder, computed before."""

    encoded = True

    def __init__(self, model: WorldModel, windows: Windows):
        every = windows.get(np.arange(len(windows)))
        self.table = dict(zip(zip(windows.episode, windows.start, strict=True), model.encoder(every.obs)[:, 0], strict=True))

    def visual(self, steps: np.ndarray, episode: np.ndarray, device: torch.device) -> Tensor:
        return torch.stack([self.table[e, t] for e, t in zip(episode[:, 0], steps[:, 0], strict=True)])[:, None]


def test_a_decoder_that_reads_kept_tokens_learns_the_same_and_encodes_nothing(
    windows: tuple[Windows, Windows], monkeypatch: pytest.MonkeyPatch
):
    model, losses = make_frozen(), []
    tokens = Tokens(model, windows[0])
    for source in (None, tokens):
        if source:
            monkeypatch.setattr(model.encoder, "tokens", None)  # whoever calls it fails
        part = Part("decoder", CONFIG, make_decoder())
        trainee = DecoderTrainee(model, part, *windows, make_recipe(), 1, tokens=source)
        with closing(trainee.batches(0)) as batches:
            losses.append([trainee.forward(next(batches)).total.item() for _ in range(3)])
    assert losses[0] == losses[1] and len(set(losses[0])) == 3


def test_a_finished_decoder_is_left_alone(windows: tuple[Windows, Windows], tmp_path: Path):
    whole = train(make_frozen(), make_decoder(), windows, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    names = {"decoder.yaml", "decoder.safetensors", "decoder_resume.safetensors", "decoder_metrics.csv"}
    assert before.keys() >= names
    again = train(make_frozen(), make_decoder(), windows, tmp_path, announce=lambda seconds: pytest.fail("nothing to do"))
    assert_same(again, whole.state_dict())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@torch.no_grad()
def test_validation_compares_frames_with_what_was_seen_and_what_was_predicted(windows: tuple[Windows, Windows]):
    model, decoder, valid = make_frozen().eval(), make_decoder().train(), windows[1]
    before = {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
    batch = valid.get(np.arange(4))
    z = model.encode(batch.obs)
    predicted = model.predict(z[:, :NUM_HIST], model.normalizer.normalize_action(batch.action)[:, :NUM_HIST])
    target = batch.obs["visual"][:, 1:].permute(0, 1, 4, 2, 3) / 127.5 - 1
    found = validate_decoder(model, decoder, valid, make_recipe(batch_size=12, valid_batches=1))
    assert all(module.training for module in decoder.modules())
    assert_same(decoder.eval(), before)  # its codes, too, which training would move
    for name, latents in (("valid_reconstruction", z[:, 1:]), ("valid_prediction", predicted)):
        pixels = decoder(latents[..., :5].flatten(0, 1))[0]
        assert found[name] == pytest.approx((pixels - target.flatten(0, 1)).square().mean().item(), rel=1e-5)
    assert found["valid_reconstruction"] != found["valid_prediction"]


@torch.no_grad()
def test_samples_show_the_same_moment_three_times(windows: tuple[Windows, Windows]):
    model, decoder, valid = make_frozen().eval(), make_decoder().eval(), windows[1]
    real, seen, predicted = draw_samples(model, decoder, valid, count=2)
    obs = valid.get(np.array([0, 3])).obs
    assert (real == obs["visual"][:, -1].numpy()).all()
    last = Obs(visual=obs["visual"][:, -1:], proprio=obs["proprio"][:, -1:])
    assert (seen == decode_frames(decoder, model.split(model.encode(last))[0][:, 0])).all()
    assert predicted.shape == seen.shape == (2, 8, 8, 3)


def test_a_saved_decoder_comes_back_ready_to_use(tmp_path: Path):
    assert load_decoder(tmp_path, **SIZES) is None
    decoder = make_decoder()
    save_decoder(tmp_path, CONFIG, decoder)
    loaded = load_decoder(tmp_path, **SIZES)
    assert loaded is not None and not loaded.training
    assert_same(loaded, decoder.state_dict())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dec.blocks.0.bias": None}, r"does not fit its decoder\.yaml: missing dec\.blocks\.0\.bias"),
        ({"extra": torch.zeros(2)}, r"unknown extra"),
        ({"quantize_b.embed": torch.zeros(5, 8)}, r"quantize_b\.embed is \(5, 8\) instead of \(5, 7\)"),
    ],
)
def test_decoder_tensors_that_do_not_fit_are_refused_by_name(tmp_path: Path, changed: dict, message: str):
    save_decoder(tmp_path, CONFIG, make_decoder())
    tensors = load_file(tmp_path / "decoder.safetensors") | changed
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, tmp_path / "decoder.safetensors")
    with pytest.raises(ValueError, match=message):
        load_decoder(tmp_path, **SIZES)


def test_a_truncated_decoder_is_refused_by_name(tmp_path: Path):
    save_decoder(tmp_path, CONFIG, make_decoder())
    os.truncate(tmp_path / "decoder.safetensors", 1000)
    with pytest.raises(ValueError, match=r"decoder\.safetensors is damaged or truncated"):
        load_decoder(tmp_path, **SIZES)


def test_a_run_keeps_one_decoder_until_it_is_deleted(tmp_path: Path):
    config = OmegaConf.create(CONFIG)
    open_decoder(tmp_path, config)
    open_decoder(tmp_path, config)
    with pytest.raises(ValueError, match=r"holds a decoder with other channel, quantize; delete .*decoder\*"):
        open_decoder(tmp_path, OmegaConf.merge(config, {"channel": 8, "quantize": False}))


@pytest.mark.parametrize("name", ["vqvae", "transposed_conv"])
def test_a_configured_decoder_has_a_recipe(name: str):
    Recipe.of(compose("train", f"decoder={name}").decoder.training)


def test_the_world_model_is_the_same_without_a_decoder_with_one_and_with_one_added_later(
    numbered_episodes: Callable, tmp_path: Path
):
    """By train.py itself; the decoder, too, is the same at once or later."""
    script = load_script("train.py")
    data = numbered_episodes(num_episodes=6, length=12).path
    common = f"env.data={data} ckpt_base_path={tmp_path} device=cpu num_hist=2 frameskip=3 predictor.depth=1"
    common += " encoder=random_patch encoder.image_size=8 encoder.grid=2 encoder.embed_dim=5 predictor.mlp_dim=7"
    common += " training.batch_size=4 training.max_steps=5 training.save_every=2 training.valid_every=2"
    decoder = "decoder=vqvae decoder.channel=6 decoder.res_channel=4 decoder.num_codes=7 decoder.quantize=true"
    decoder += " decoder.training.max_steps=3 decoder.training.batch_size=4"
    for name, added in (("without", ""), ("at_once", decoder), ("later", ""), ("later", decoder)):
        script.main.__wrapped__(compose("train", f"{common} model_name={name} {added}"))
    files = {
        run.name: {path.name: path.read_bytes() for path in run.glob("*.safetensors")}
        for run in (tmp_path / "outputs").iterdir()
    }
    steps = [f"step_{step:06d}.safetensors" for step in (2, 4, 5)]
    states = {"resume.safetensors", "resume_before.safetensors"}
    assert files["without"].keys() == {*steps, *states, "probe.safetensors", "variance.safetensors"}
    for name in ("at_once", "later"):
        of_decoder = {"decoder.safetensors", "decoder_resume.safetensors"}
        assert files[name].keys() - files["without"].keys() >= of_decoder
        assert all(files[name][step] == files["without"][step] for step in steps)
        assert (tmp_path / "outputs" / name / "decoder.png").stat().st_size > 1000
    assert files["at_once"] == files["later"]
    last = tmp_path / "outputs" / "without" / "step_000005.safetensors"
    last.unlink()  # the way out where it is damaged
    script.main.__wrapped__(compose("train", f"{common} model_name=without"))
    assert last.read_bytes() == files["without"][last.name]


def test_a_film_shows_what_the_model_expected_beside_what_came(monkeypatch: pytest.MonkeyPatch):
    """Frames of block k are of grey level 50 + k; each stands until the step that it is about."""
    env = PointMazes("umaze", image_size=SIZE)
    monkeypatch.setattr(env, "frames", lambda state: np.zeros((len(state), SIZE, SIZE, 3), np.uint8))
    tasks = Tasks(np.full((2, 4), 0.8), np.full((2, 4), 2.8), np.arange(2))
    outcome = Outcome(np.full((2, 7, 4), 0.8), np.array([True, False]), np.array([4, 6]), np.array([0.4, 2.0]), 0.0)
    imagined = np.arange(50, 52, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    film = film_task(env, tasks, outcome, {}, FRAMESKIP, 1, imagined)
    assert film.shape[2] == 4 * SIZE
    corner = film[:7, -1, 3 * SIZE - 1]  # of the panel before the last
    assert corner[:, 0].tolist() == [50, 50, 50, 50, 51, 51, 51]
    assert film_task(env, tasks, outcome, {}, FRAMESKIP, 1).shape[2] == 3 * SIZE


def test_a_decoder_that_is_not_finite_stops_before_its_first_step(windows: tuple[Windows, Windows], tmp_path: Path):
    decoder = make_decoder()
    with torch.no_grad():
        next(decoder.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="training decoder: the loss is nan before the first step"):
        train(make_frozen(), decoder, windows, tmp_path)
