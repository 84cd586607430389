"""Training a tokenizer: it learns, resumes, leaves its backbone alone, and is found again by its encoder."""

import csv
import os
import runpy
import signal
from collections.abc import Callable
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from few_steps import FEW_STEPS
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from PIL import Image
from safetensors.torch import load_file
from several import in_processes
from torch import Tensor, nn

from wmbench.commands import CONF
from wmbench.data.windows import Windows
from wmbench.encoders.base import weights_hash
from wmbench.encoders.tokenizer import Tokenizer
from wmbench.models.decoder import VQVAEDecoder, frames_to_pixels
from wmbench.models.precision import Precision
from wmbench.runs.recipe import Recipe
from wmbench.shapes import Obs
from wmbench.training import loop
from wmbench.training.metrics import Metrics
from wmbench.training.tokenizer import TokenizerTrainee, psnr, validate_tokenizer

SCRIPT = Path(__file__).parents[2] / "pretrain.py"
TINY = [
    "encoder.pretrained=false",
    "encoder.backbone.image_size=32",
    "+encoder.architecture={depth: 1, embed_dim: 48, num_heads: 3}",
]
OF = {"dino_tok_vq": ["encoder.num_codes=24"]}
DRAWN = {"dino_tok_vq": [*TINY, *OF["dino_tok_vq"]], "vfm_vae_pointmaze": TINY, "conv_vae": ["encoder.z_dim=3"]}
RECIPE = FEW_STEPS | {"max_steps": 7, "weight_decay": 0.0}


def make(name: str, for_training: bool = True, weights: Path | None = None) -> Tokenizer:
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        config = hydra.compose("train", overrides=[f"encoder={name}", *TINY, *OF.get(name, [])]).encoder
    return instantiate(config, for_training=for_training, weights=weights and str(weights))


def make_decoder(tokenizer: Tokenizer) -> VQVAEDecoder:
    torch.manual_seed(0)
    sizes = {"dim": tokenizer.embed_dim, "grid": tokenizer.grid, "image_size": 8}
    return VQVAEDecoder(**sizes, channel=6, num_res_blocks=1, res_channel=4, num_codes=1, quantize=False)


@pytest.fixture
def windows(numbered_episodes: Callable) -> tuple[Windows, Windows]:
    """Frames of one colour each, which tells episode and step."""
    episodes = numbered_episodes(num_episodes=6, length=12)
    return Windows(episodes, np.array([0, 1, 2, 4, 5]), 1, 1), Windows(episodes, np.array([3]), 1, 1)


def train(name: str, windows: tuple[Windows, Windows], run: Path, **changed) -> tuple[Tokenizer, nn.Module]:
    run.mkdir(exist_ok=True)
    tokenizer = make(name)
    decoder = make_decoder(tokenizer)
    torch.manual_seed(3)
    recipe = Recipe(**{**RECIPE, **changed})
    loop.train(TokenizerTrainee(tokenizer, decoder, *windows, recipe, 1, 0.5), run, announce=lambda seconds: None)
    return tokenizer, decoder


def metrics(run: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv, without the speed."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "steps_per_s"} for row in csv.DictReader(file)]


def learned(tokenizer: Tokenizer, decoder: nn.Module) -> dict[str, Tensor]:
    return tokenizer.head.state_dict() | decoder.state_dict()


@pytest.mark.parametrize("name", ["dino_tok", "dino_tok_vq", "vfm_vae_pointmaze"])
def test_training_draws_held_out_frames_better_and_leaves_the_backbone_alone(
    name: str, windows: tuple[Windows, Windows], tmp_path: Path
):
    fresh = make(name)
    tokenizer, _ = train(name, windows, tmp_path, max_steps=40, batch_size=20, valid_every=4)
    errors = [float(row["valid_reconstruction"]) for row in metrics(tmp_path)]
    assert errors[-1] < 0.6 * errors[0]
    assert weights_hash(tokenizer.backbone) == weights_hash(fresh.backbone)
    before = fresh.head.state_dict()
    assert [key for key, tensor in tokenizer.head.state_dict().items() if torch.equal(tensor, before[key])] == []
    assert not any(module.training for module in tokenizer.backbone.modules())


@pytest.mark.parametrize("name", ["vfm_vae_pointmaze", "dino_tok_vq"])
def test_a_training_stopped_at_any_step_ends_as_if_it_had_not_been(
    name: str, windows: tuple[Windows, Windows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By Ctrl-C before the first save, and by a power cut while logging step 6, when step 4 was saved; both draw."""
    append = Metrics.append
    whole = learned(*train(name, windows, tmp_path / "whole"))
    for run, step, error in ((tmp_path / "early", 3, KeyboardInterrupt), (tmp_path / "cut", 6, RuntimeError)):

        def stop(metrics: Metrics, row: dict, step: int = step, error: type[BaseException] = error) -> None:
            if row["step"] == step and error is RuntimeError:
                raise RuntimeError
            if row["step"] == step:
                os.kill(os.getpid(), signal.SIGINT)
            append(metrics, row)

        with monkeypatch.context() as patch, pytest.raises(error):
            patch.setattr(Metrics, "append", stop)
            train(name, windows, run)
        resumed = learned(*train(name, windows, run))
        assert all(torch.equal(tensor, whole[key]) for key, tensor in resumed.items())
        assert metrics(run) == metrics(tmp_path / "whole")


def test_training_logs_how_many_codes_are_used(windows: tuple[Windows, Windows], tmp_path: Path):
    tokenizer, _ = train("dino_tok_vq", windows, tmp_path)
    *_, row = metrics(tmp_path)
    assert {name: float(row[name]) for name in ("deep_codes", "texture_codes")} == pytest.approx(tokenizer.usage(), rel=1e-4)
    assert all(1 < used <= 24 for used in tokenizer.usage().values())


@torch.no_grad()
def test_the_error_is_that_of_the_tokens_that_a_model_sees(windows: tuple[Windows, Windows]):
    tokenizer, valid = make("vfm_vae_pointmaze"), windows[1]
    decoder = make_decoder(tokenizer)
    found = validate_tokenizer(tokenizer, decoder, valid, Recipe(**{**RECIPE, "batch_size": 12, "valid_batches": 1}))
    obs = valid.get(np.arange(12)).obs
    drawn, _ = decoder(tokenizer(Obs(visual=obs["visual"], proprio=obs["proprio"]))[:, 0])
    assert found == pytest.approx((drawn - frames_to_pixels(obs["visual"][:, 0])).square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("name", ["dino_tok", "dino_tok_vq", "vfm_vae_pointmaze"])
def test_a_head_learns_in_the_precision_in_which_runs_read_it(name: str, windows: tuple[Windows, Windows]):
    """Where losses are bf16, too, which would make other tokens of the same frames: only the decoder is."""
    tokenizer = make(name)
    decoder = make_decoder(tokenizer)
    trainee = TokenizerTrainee(tokenizer, decoder, *windows, Recipe(**RECIPE), 1, 0.5)
    heads, drawn = [], []
    tokenizer.head.register_forward_hook(lambda head, given, found: heads.append(found))
    decoder.register_forward_hook(lambda decoder, given, found: drawn.append(found[0].dtype))
    batch = windows[0].get(np.arange(4))
    with Precision(bf16=True).applied():
        trainee.forward(batch)
        validate_tokenizer(tokenizer, decoder, windows[1], Recipe(**RECIPE))
    tokenizer(batch.obs)  # as a run reads it
    assert set(drawn) == {torch.bfloat16}
    assert {found.dtype for found in heads} == {torch.float32} and torch.equal(heads[0], heads[-1])


def test_psnr_of_an_error_of_a_tenth_of_the_range_is_20_db():
    assert psnr(0.2**2) == pytest.approx(20)


@pytest.fixture
def script(numbered_episodes: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Exit status, output and error of pretrain.py at tiny size."""
    episodes = numbered_episodes(num_episodes=4, length=6)
    monkeypatch.setenv("DATASET_DIR", str(tmp_path))

    def call(*words: str) -> tuple[int, str, str]:
        GlobalHydra.instance().clear()
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # a command sets it for its own errors
        settings = [f"{group}.{key}={'null' if value is None else value}" for group, key, value in SETTINGS]
        monkeypatch.setattr("sys.argv", [str(SCRIPT), f"env.data={episodes.path}", "device=cpu", *settings, *words])
        status = 0
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as exit:
            status = int(exit.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


SETTINGS = [("training", key, value) for key, value in RECIPE.items()]
SETTINGS += [("decoder", key, value) for key, value in (("channel", 6), ("num_res_blocks", 1), ("res_channel", 4))]


def test_the_script_leaves_a_head_that_the_encoder_finds(script: Callable, tmp_path: Path):
    status, output, error = script("encoder=dino_tok_s", *TINY)
    assert status == 0, error
    head = tmp_path / "tokenizers" / "dino_tok_s.safetensors"
    run = head.with_suffix("")
    assert "trained parameters" in output and "PSNR" in output and f"trained: {head}, SHA-256" in output
    assert f"encoder=dino_tok_s env.data={tmp_path}" in output and f"encoder.weights={head}" in output
    assert Image.open(run / "reconstructions.png").height == 2 * 8
    assert [row["step"] for row in metrics(run)] == ["3", "6", "7"]
    before = {path: path.read_bytes() for path in (head, run / "metrics.csv", run / "provenance.json")}
    assert script("encoder=dino_tok_s", *TINY)[0] == 0  # nothing left to do
    assert {path: path.read_bytes() for path in before} == before
    assert "a training with another training.lr; delete it" in script("encoder=dino_tok_s", *TINY, "training.lr=0.1")[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_several_processes_leave_the_head_that_one_leaves(name: str, script: Callable, tmp_path: Path):
    for number in (1, 2):
        words = [f"encoder={name}", *DRAWN[name], "training.max_steps=3", f"output={tmp_path}/{number}.safetensors"]
        ended = in_processes(tmp_path / f"met_{number}", number, lambda words=words: script(*words)[0])
        assert ended == [0] * number
    one, two = (load_file(tmp_path / f"{number}.safetensors") for number in (1, 2))
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-5)
    one, two = ({name: float(value) for name, value in metrics(tmp_path / number)[-1].items()} for number in "12")
    assert two == pytest.approx(one, rel=2e-5)


def test_a_trained_tokenizer_gives_the_same_tokens_from_its_file(windows: tuple[Windows, Windows], tmp_path: Path):
    for name in ("dino_tok", "vfm_vae_pointmaze"):
        tokenizer, _ = train(name, windows, tmp_path / name)
        tokenizer.save_head(tmp_path / "head.safetensors", {"data": "numbered"})
        loaded = make(name, for_training=False, weights=tmp_path / "head.safetensors")
        obs = windows[1].get(np.arange(3)).obs
        assert torch.equal(loaded(obs), tokenizer(obs))
        assert not torch.equal(make(name, for_training=False)(obs), tokenizer(obs))
        assert loaded.frozen and not any(parameter.requires_grad for parameter in loaded.parameters())


def test_an_encoder_without_a_head_is_refused(script: Callable):
    status, _, error = script("encoder=dinov2")
    assert status == 1
    assert "must end in .safetensors" in script(*TINY, "output=head.pt")[2]
    assert "DINOv2 has no head to train: encoder= dino_tok" in error


def test_a_tokenizer_that_is_not_finite_stops_before_its_first_step(windows: tuple[Windows, Windows], tmp_path: Path):
    tokenizer = make("dino_tok")
    decoder = make_decoder(tokenizer)
    with torch.no_grad():
        next(decoder.parameters()).fill_(torch.nan)
    trainee = TokenizerTrainee(tokenizer, decoder, *windows, Recipe(**RECIPE), 1, 0.5)
    with pytest.raises(ValueError, match="training tokenizer: the loss is nan before the first step"):
        loop.train(trainee, tmp_path, announce=lambda seconds: None)
