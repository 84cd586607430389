"""Tokens kept on disk: they are the encoder's, survive a kill, and are refused when they are not what they should be."""

import errno
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from several import in_processes
from torch import Tensor, nn

from wmbench.data import token_file as latents
from wmbench.data import windows as windows_module
from wmbench.data.episodes import EpisodeSet
from wmbench.data.normalizer import Normalizer
from wmbench.data.packing import Packing
from wmbench.data.token_file import KeptTokens, TokenFile
from wmbench.data.windows import FrameNumbers, ResidentFrames, StoredFrames, Windows
from wmbench.diagnostics.probe import fit_probe
from wmbench.encoders.base import Encoder
from wmbench.encoders.lewm import SmallLeWM
from wmbench.encoders.matched import Matched, matched, unmatched
from wmbench.encoders.pixels import Pixels
from wmbench.encoders.random_patch import RandomPatch
from wmbench.models.precision import Precision
from wmbench.models.vit import FrameCausalViT
from wmbench.models.world_model import WorldModel
from wmbench.runs.recipe import Recipe
from wmbench.training import loop
from wmbench.training import source as caching
from wmbench.training.source import Cache, FreshTokens, choose_source, identity, make_encode, source_facts
from wmbench.training.world_model import WorldModelTrainee

CPU = torch.device("cpu")
FRAMESKIP, NUM_HIST = 2, 2
ROUNDING = {"float32": 1e-6, "float16": 2**-11, "bfloat16": 2**-8}  # of a feature, at most


class PairPatch(RandomPatch):
    """Tokens of a frame and its predecessor, as V-JEPA 2's in temporal=pair: a frame without one follows itself."""

    lookback = 1

    def preprocess(self, visual: Tensor) -> Tensor:
        frames = rearrange(super().preprocess(visual), "(b t) c h w -> b t c h w", b=len(visual))
        before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
        return rearrange(frames - 0.7 * before, "b t c h w -> (b t) c h w")


def patches(kind: type[RandomPatch] = RandomPatch, seed: int = 0) -> RandomPatch:
    return kind(image_size=8, grid=2, embed_dim=5, seed=seed)


def matched_pairs() -> Matched:
    arm = Matched(patches(PairPatch), pool=1, width=3, standardise=True)
    arm.mean, arm.std = torch.arange(5.0) / 5, torch.arange(5.0) / 4 + 0.5
    return arm


ENCODERS = {"frames": patches, "pairs": lambda: patches(PairPatch), "matched pairs": matched_pairs}


def make_model(encoder: Encoder) -> WorldModel:
    torch.manual_seed(0)
    size = {"action_embed_dim": 4, "depth": 1, "num_heads": 2, "head_dim": 6, "mlp_dim": 11, "dropout": 0.1}
    predictor = FrameCausalViT(
        dim=encoder.embed_dim + 2, num_tokens=encoder.num_tokens, num_hist=NUM_HIST, action_dim=2 * FRAMESKIP, **size
    )
    normalizer = Normalizer(torch.tensor([2.0, 6.0]), torch.tensor([2.0, 4.0]), torch.ones(4), 5 * torch.ones(4))
    options = {"proprio": "full", "proprio_embed_dim": 2, "frameskip": FRAMESKIP, "num_hist": NUM_HIST}
    return WorldModel(encoder, predictor, normalizer, **options)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "CHUNK", 7)


@pytest.fixture(params=[1, 2], ids=["every frame", "every second"])
def episodes(request: pytest.FixtureRequest, numbered_episodes: Callable) -> EpisodeSet:
    """44 or 24 frames of noise."""
    return noise(numbered_episodes(num_episodes=4, length=11, store_every=request.param))


def noise(episodes: EpisodeSet) -> EpisodeSet:
    episodes.pixels = np.random.default_rng(0).integers(0, 256, episodes.pixels.shape, dtype=np.uint8)  # type: ignore[attr-defined]
    return episodes


def new_file(folder: Path, episodes: EpisodeSet, encoder: Encoder, dtype: str = "float32") -> TokenFile:
    encoder = unmatched(encoder)
    packing = Packing(encoder.num_tokens, encoder.embed_dim, dtype)
    return TokenFile([folder], episodes, identity(encoder), packing, encoder.lookback, FRAMESKIP)


def encode_of(encoder: Encoder) -> latents.Encode:
    return make_encode(make_model(encoder), CPU)


def written(folder: Path, episodes: EpisodeSet, encoder: Encoder, dtype: str = "float32") -> TokenFile:
    file = new_file(folder, episodes, encoder, dtype)
    file.write(encode_of(encoder))
    file.check(encode_of(encoder))
    return file


def refusal(file: TokenFile, encoder: Encoder) -> str:
    with pytest.raises(ValueError, match=r"delete it and run the command again: rm .*\.latents") as caught:
        new_file(file.path.parent, file.episodes, encoder, file.packing.dtype).check(encode_of(encoder))
    assert str(file.path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("name", ENCODERS)
def test_a_window_shows_the_tokens_of_its_frames_to_the_dtypes_rounding(
    name: str, dtype: str, episodes: EpisodeSet, tmp_path: Path
):
    """Of a pair encoder also those of first frames, which differ where the window begins with its episode."""
    encoder = ENCODERS[name]()
    windows = Windows(episodes, np.arange(4), num_frames=3, frameskip=FRAMESKIP).looking_back(encoder.lookback)
    kept = windows.showing(written(tmp_path, episodes, encoder, dtype).open(CPU, encode_of(encoder)))
    index = np.random.default_rng(1).permutation(len(windows))
    frames, shown = windows.get(index), kept.get(index)
    tokens = encode_of(encoder)(frames.obs)
    assert shown.obs.get("encoded") and "encoded" not in frames.obs  # what tells them apart
    assert (shown.obs["visual"].dtype, shown.obs["visual"].shape) == (torch.float32, tokens.shape)
    torch.testing.assert_close(shown.obs["visual"], tokens, rtol=ROUNDING[dtype], atol=1e-6)
    assert torch.equal(shown.obs["proprio"], frames.obs["proprio"]) and torch.equal(shown.action, frames.action)


def test_a_windows_first_frame_shows_the_motion_that_planning_shows(numbered_episodes: Callable):
    """Behind the frame one block earlier, as an agent looks; where an episode begins, at rest."""
    episodes, model = noise(numbered_episodes(num_episodes=2, length=12)), make_model(patches(PairPatch))
    windows = Windows(episodes, np.arange(2), NUM_HIST + 1, FRAMESKIP).looking_back(model.lookback)
    z = model.encode(windows.get(np.arange(len(windows))).obs)[:, 0]
    for latent, start, episode in zip(z, windows.start, windows.episode, strict=True):
        steps = np.array([[max(start - FRAMESKIP, start % FRAMESKIP), start]])
        looks = windows_module.observe(
            StoredFrames(episodes), episodes, steps, np.full_like(steps, episode), 0, FRAMESKIP, CPU
        )
        assert torch.equal(model.encode(looks)[0, 1], latent)
        alone = latents.Obs(visual=looks["visual"][:, 1:], proprio=looks["proprio"][:, 1:])
        assert torch.equal(model.encode(alone)[0, 0], latent) == (start < FRAMESKIP)


def test_a_probe_sees_the_motion_that_planning_shows(numbered_episodes: Callable, monkeypatch: pytest.MonkeyPatch):
    episodes, model = noise(numbered_episodes(num_episodes=4, length=12)), make_model(patches(PairPatch)).eval()
    windows = Windows(episodes, np.arange(4), NUM_HIST + 1, FRAMESKIP).looking_back(model.lookback)
    expected, encode, seen = model.encode(windows.get(np.arange(len(windows))).obs)[:, 0], model.encode, []
    monkeypatch.setattr(model, "encode", lambda obs: seen.append(encode(obs)) or seen[-1])
    fit_probe(model, windows, windows, num_frames=len(windows))
    torch.testing.assert_close(torch.cat(seen)[: len(windows), 0], expected)


def test_tokens_on_a_device_are_those_on_disk(episodes: EpisodeSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The GPU's way, on the CPU: for tokens and for frames."""
    encoder = patches(PairPatch)
    file = written(tmp_path, episodes, encoder, "int8")
    windows = Windows(episodes, np.arange(4), num_frames=3, frameskip=FRAMESKIP)
    index = np.arange(len(windows))
    on_disk = file.open(CPU, encode_of(encoder))
    monkeypatch.setattr(latents, "fits", lambda num_bytes, device: True)
    monkeypatch.setattr(windows_module, "UPLOADED_AT_ONCE", 5)
    on_device = file.open(CPU, encode_of(encoder))
    assert isinstance(on_device.rows, Tensor) and not isinstance(on_disk.rows, Tensor)
    for source, other in ((on_disk, on_device), (StoredFrames(episodes), ResidentFrames(episodes, CPU))):
        shown, same = (windows.showing(s).get(index).obs["visual"] for s in (source, other))
        assert torch.equal(shown, same) and shown.dtype == same.dtype


def test_frames_are_counted_through_episodes_of_any_length(numbered_episodes: Callable):
    episodes = numbered_episodes()
    episodes.ep_len, episodes.store_every = np.array([5, 1, 8]), 3
    numbers = FrameNumbers(episodes)
    steps, episode = numbers.place(np.arange(len(numbers)))
    assert list(zip(episode, steps, strict=True)) == [(0, 0), (0, 3), (1, 0), (2, 0), (2, 3), (2, 6)]
    np.testing.assert_array_equal(numbers.of(steps, episode), np.arange(6))


@pytest.mark.parametrize(("name", "dtype"), [("frames", "float32"), ("matched pairs", "float32"), ("pairs", "float16")])
def test_training_from_tokens_is_training_from_frames(name: str, dtype: str, numbered_episodes: Callable, tmp_path: Path):
    """The same batches and losses: bit for bit from float32, and to the rounding from float16."""
    episodes = noise(numbered_episodes(num_episodes=6, length=12))
    lookback = ENCODERS[name]().lookback
    windows = [
        Windows(episodes, np.array(which), NUM_HIST + 1, FRAMESKIP).looking_back(lookback)
        for which in ([0, 1, 3, 5], [2, 4])
    ]
    encoder = ENCODERS[name]()
    source = written(tmp_path, episodes, encoder, dtype).open(CPU, encode_of(encoder))
    recipe = Recipe(9, 4, 0.01, 0.01, 0.2, True, 1.0, save_every=9, valid_every=1, valid_batches=2)
    losses = []
    for shown in (windows, [w.showing(source) for w in windows]):
        rows: list[dict[str, float | int]] = []
        run = tmp_path / f"run{len(losses)}"
        run.mkdir()
        trainee = WorldModelTrainee(make_model(ENCODERS[name]()), *shown, recipe, seed=1)
        loop.train(trainee, run, announce=lambda seconds: None, log=rows.append)
        losses.append([(row["loss"], row["valid_prediction"]) for row in rows])
    np.testing.assert_allclose(*losses, rtol=0 if dtype == "float32" else 1e-3)


def test_a_file_of_int8_is_within_half_a_step_of_every_token(tmp_path: Path):
    tokens = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 3, 0.01, 100, 9.0])
    tokens[1, 2] = 0.0
    packing = Packing(num_tokens=4, embed_dim=5, dtype="int8")
    stored = packing.pack(tokens)
    assert stored.shape == (3, packing.num_bytes) == (3, 4 * (4 + 5))
    bound = tokens.abs().amax(-1, keepdim=True) / 254
    assert ((packing.unpack(stored) - tokens).abs() <= 1.0001 * bound).all()
    assert (packing.unpack(stored)[1, 2] == 0).all()


def test_features_beyond_the_dtype_are_refused_with_one_that_holds_them():
    packing = Packing(num_tokens=2, embed_dim=3, dtype="float16")
    with pytest.raises(ValueError, match=r"of up to 7e\+04 do not fit cache.dtype=float16; try cache.dtype=bfloat16"):
        packing.pack(torch.full((1, 2, 3), 7e4))
    with pytest.raises(ValueError, match=r"cache.dtype \('half'\) must be one of float32, float16, bfloat16, int8"):
        Packing(num_tokens=2, embed_dim=3, dtype="half")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_tokens_that_are_not_finite_are_never_kept(dtype: str, value: float):
    tokens = torch.ones(1, 2, 3)
    tokens[0, 1, 1] = value
    with pytest.raises(ValueError, match="the encoder gives tokens that are NaN or Inf; its weights"):
        Packing(num_tokens=2, embed_dim=3, dtype=dtype).pack(tokens)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np, torch
from wmbench.data import token_file as latents
from wmbench.data.episodes import Episodes
from wmbench.data.packing import Packing

latents.CHUNK, calls = 7, []
def encode(obs):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return obs["visual"].float().mean((2, 3))[:, :, None]

settings = {"name": "mean"}, Packing(1, 3, "float32"), 0, 1
latents.TokenFile([Path(sys.argv[2])], Episodes(sys.argv[1]), *settings, shard_bytes=200).write(encode)
"""


def test_a_full_disk_is_one_line_and_what_is_encoded_is_kept(
    numbered_episodes: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = TokenFile(
        [tmp_path], numbered_episodes(num_episodes=4, length=11), {"name": "mean"}, Packing(1, 3, "float32"), 0, 1
    )
    pwrite, written = os.pwrite, []

    def fill(handle: int, contents: bytes, place: int) -> int:
        written.append(place)
        if len(written) > 4:  # two chunks with their entries
            raise OSError(errno.ENOSPC, "full")
        return pwrite(handle, contents, place)

    def encode(obs: latents.Obs) -> Tensor:
        return obs["visual"].float().mean((2, 3))[:, :, None]

    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match=rf"{file.path} cannot be written: No space .*cache\.dir="),
    ):
        patch.setattr(os, "pwrite", fill)
        file.write(encode)
    assert int((file.journal() != 0).sum()) == 2
    file.write(encode)
    assert file.missing_bytes == 0


def test_a_file_whose_writer_was_killed_is_finished_and_is_what_it_would_have_been(
    numbered_episodes: Callable, tmp_path: Path
):
    """Killed in its fourth chunk of seven, two in a shard: two are written at least, and those are not encoded again."""
    episodes = numbered_episodes(num_episodes=4, length=11)

    def encode(obs: latents.Obs) -> Tensor:
        encoded.append(len(obs["visual"]))
        return obs["visual"].float().mean((2, 3))[:, :, None]

    settings = episodes, {"name": "mean"}, Packing(1, 3, "float32"), 0, 1
    files = [TokenFile([tmp_path / name], *settings, shard_bytes=200) for name in ("whole", "killed")]
    encoded: list[int] = []
    files[0].write(encode)
    assert encoded == [7] * 6 + [2]
    killed = subprocess.run([sys.executable, "-c", KILLED, episodes.path, tmp_path / "killed"], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    files[1] = TokenFile([tmp_path / "killed"], *settings, shard_bytes=200)
    done = int((files[1].journal() != 0).sum())
    assert 2 <= done <= 3
    assert files[1].missing_bytes == (44 - done * 7) * 12 < files[0].num_bytes
    with pytest.raises(ValueError, match="is not complete; run the command that writes it again"):
        files[1].check(encode)
    encoded.clear()
    files[1].write(encode)
    assert encoded == [7] * (6 - done) + [2]
    whole, again = ([shard.path.read_bytes() for shard in file.shards] for file in files)
    assert whole == again and len(whole) == 4
    assert files[0].missing_bytes == files[1].missing_bytes == 0


def test_a_file_that_is_being_written_is_waited_for(
    numbered_episodes: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """A second process that comes while the first one encodes encodes nothing itself."""
    monkeypatch.setattr(latents, "POLL_S", 0.01)
    file = new_file(tmp_path, numbered_episodes(), patches())
    encode, second = encode_of(patches()), []

    def unwanted(obs: latents.Obs) -> Tensor:
        raise AssertionError("encoded twice")

    def with_another(obs: latents.Obs) -> Tensor:
        if not second:
            second.append(threading.Thread(target=new_file(tmp_path, file.episodes, patches()).write, args=[unwanted]))
            second[0].start()
            while "is encoding these frames" not in capsys.readouterr().out:
                time.sleep(0.01)
        return encode(obs)

    file.write(with_another)
    second[0].join(timeout=30)
    assert not second[0].is_alive()
    file.check(encode)


def test_what_a_writer_left_undone_is_encoded_by_the_one_who_waited(
    numbered_episodes: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(latents, "POLL_S", 0.01)
    file, encode = new_file(tmp_path, numbered_episodes(), patches()), encode_of(patches())
    begun, waiting = (
        threading.Event(),
        threading.Thread(target=new_file(tmp_path, file.episodes, patches()).write, args=[encode]),
    )

    def fail_later(obs: latents.Obs) -> Tensor:
        if begun.is_set():
            waiting.start()
            time.sleep(0.1)
            raise RuntimeError("out of memory")
        begun.set()
        return encode(obs)

    with pytest.raises(RuntimeError, match="out of memory"):
        file.write(fail_later)
    waiting.join(timeout=30)
    assert not waiting.is_alive() and not file.missing_bytes
    file.check(encode)


def flipped(contents: bytes, at: int) -> bytes:
    return contents[:at] + bytes([contents[at] ^ 1]) + contents[at + 1 :]


@pytest.mark.parametrize("checked", [0, 16], ids=["while training reads", "when it is opened"])
@pytest.mark.parametrize("place", ["row", "checksum"])
def test_a_damaged_chunk_is_encoded_again_with_a_note(
    place: str, checked: int, numbered_episodes: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    file, encode = written(tmp_path, numbered_episodes(), patches()), encode_of(patches())
    whole = file.path.read_bytes()
    file.path.write_bytes(flipped(whole, 17 * file.row_bytes + 5 if place == "row" else file.rows_bytes + 8 * 2))
    monkeypatch.setattr(latents, "CHECKED_CHUNKS", checked)
    file.check(encode)
    kept = file.open(CPU, encode)
    kept.visual(np.array([[2]]), np.array([[1]]), CPU)  # frame 14 of episodes of 12
    assert file.path.read_bytes() == whole
    assert capsys.readouterr().err.count("frames 14 to 20 are damaged and encoded again") == 1


def test_a_file_that_was_cut_off_is_made_anew_with_a_note(numbered_episodes: Callable, tmp_path: Path, capsys: Any):
    file = written(tmp_path, numbered_episodes(), patches())
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:-50])
    again = new_file(tmp_path, file.episodes, patches())
    assert "truncated, so it is made anew" in capsys.readouterr().err
    assert again.missing_bytes == file.rows_bytes
    again.write(encode_of(patches()))
    assert file.path.read_bytes() == whole


def test_a_file_that_does_not_say_what_it_is_is_refused(numbered_episodes: Callable, tmp_path: Path):
    file = written(tmp_path, numbered_episodes(), patches())
    file.path.with_suffix(".json").write_text("{")
    assert "is missing or damaged" in refusal(file, patches())


def test_a_file_that_says_it_is_another_is_refused(numbered_episodes: Callable, tmp_path: Path):
    file, other = (written(tmp_path, numbered_episodes(), patches(seed=seed)) for seed in (0, 1))
    other.path.rename(file.path)
    other.path.with_suffix(".json").rename(file.path.with_suffix(".json"))
    assert "holds tokens of another encoder" in refusal(file, patches())


def test_tokens_that_the_encoder_does_not_make_are_refused(numbered_episodes: Callable, tmp_path: Path):
    """Whatever the key does not know of: here a change of the encoder's code."""

    class Edited(RandomPatch):
        def tokens(self, pixels: Tensor) -> Tensor:
            return 1.05 * super().tokens(pixels)

    Edited.__name__ = "RandomPatch"
    file = written(tmp_path, noise(numbered_episodes()), patches(), "float16")
    assert "does not hold what this encoder makes of its frames" in refusal(file, patches(Edited))


def test_whatever_changes_the_tokens_changes_the_file(numbered_episodes: Callable, tmp_path: Path):
    episodes = numbered_episodes()
    with_pixels = patches()
    with_pixels.pixel_mean = with_pixels.pixel_mean + 0.1
    encoders = [patches(), patches(seed=1), patches(PairPatch), with_pixels]
    files = [new_file(tmp_path, episodes, encoder) for encoder in encoders]
    files += [
        new_file(tmp_path, episodes, patches(), "float16"),
        new_file(tmp_path, numbered_episodes(length=13), patches()),
    ]
    assert len({file.path for file in files}) == len(files)
    assert new_file(tmp_path, episodes, patches()).path == files[0].path


def test_arms_share_the_file_of_their_encoder(numbered_episodes: Callable, tmp_path: Path):
    episodes = numbered_episodes()
    refitted = matched_pairs()
    refitted.std = refitted.std + 0.1
    arms = [patches(PairPatch), matched_pairs(), refitted, Matched(patches(PairPatch), None, 3, standardise=False)]
    assert len({new_file(tmp_path, episodes, arm).path for arm in arms}) == 1


class Counted(RandomPatch):
    """Counts the frames that it encodes."""

    frames = 0

    def tokens(self, pixels: Tensor) -> Tensor:
        Counted.frames += len(pixels)
        return super().tokens(pixels)


def test_arms_of_one_encoder_encode_each_frame_once_together(
    numbered_episodes: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Statistics included; beyond that each opening looks at a few frames again, to see that the file is this encoder's."""
    monkeypatch.setattr(caching, "DEEP", 1)
    monkeypatch.setattr(Counted, "frames", 0)
    episodes = noise(numbered_episodes(num_episodes=4, length=11))
    arms = ((None, None, False), (1, None, True), (None, 3, True), (1, 7, False))
    for pool, width, standardise in arms:
        encoder = matched(patches(Counted), width, pool=pool, standardise=standardise)
        model = make_model(encoder)
        windows = Windows(episodes, np.arange(4), num_frames=3, frameskip=FRAMESKIP)
        windows = windows.showing(choose(model, episodes, tmp_path, "auto"))
        if standardise:
            encoder.fit(windows, model.normalizer)
        obs = windows.get(np.arange(len(windows))).obs
        assert obs["visual"].shape[2:] == (4, 5) and model.encode_visual(obs).shape[2:] == (
            encoder.num_tokens,
            encoder.embed_dim,
        )
    assert Counted.frames == 44 + len(arms) * latents.CHECKED_FRAMES
    assert len(list((tmp_path / "new" / "kept").glob("*.latents"))) == 1


def test_a_file_of_an_earlier_version_is_named_and_not_read(
    model: WorldModel, numbered_episodes: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
):
    episodes = numbered_episodes()
    older = tmp_path / "new" / "kept" / "numbered_RandomPatch_0123456789ab.latents"
    older.parent.mkdir(parents=True)
    older.write_bytes(bytes(100))
    older.with_suffix(".json").write_text(json.dumps({"key": {"data": episodes.hash, "encoder": {"source": "x"}}}))
    choose(model, episodes, tmp_path, "auto")
    assert f"of an earlier version are not read; python scripts/latents.py --prune {older.stem}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ENCODERS)
def test_where_nothing_is_kept_tokens_are_rounded_as_they_would_have_been(
    name: str, numbered_episodes: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """So that a full disk changes no number."""
    monkeypatch.setattr(caching, "DEEP", 1)
    episodes, model = noise(numbered_episodes(num_episodes=4, length=11)), make_model(ENCODERS[name]())
    windows = Windows(episodes, np.arange(4), num_frames=3, frameskip=FRAMESKIP).looking_back(model.lookback)
    fresh, kept = (choose(model, episodes, tmp_path, "auto", num_frames=n) for n in (35, 1000))
    assert isinstance(fresh, FreshTokens) and isinstance(kept, KeptTokens)
    index = np.arange(len(windows))
    tokens = [windows.showing(source).get(index).obs["visual"] for source in (fresh, kept)]
    assert torch.equal(*tokens)
    assert not torch.equal(tokens[0], make_encode(model, CPU)(windows.get(index).obs))
    assert source_facts(fresh, CPU, True) == source_facts(kept, CPU, True)
    assert source_facts(kept, CPU, True) == {"kind": "tokens", "dtype": "float16", "encoder_precision": "fp32"}


@pytest.mark.parametrize(
    ("frozen", "bf16", "expected"), [(False, True, "bf16"), (False, False, "fp32"), (True, True, "fp32")]
)
@pytest.mark.parametrize("device", [CPU, torch.device("cuda")])
def test_a_run_tells_what_its_encoder_was_rounded_to_on_any_device(
    device: torch.device, frozen: bool, bf16: bool, expected: str, numbered_episodes: Callable
):
    frames = StoredFrames(numbered_episodes(num_episodes=2, length=11))
    with Precision(bf16=bf16).applied():
        assert source_facts(frames, device, frozen) == {"kind": "frames", "encoder_precision": expected}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> WorldModel:
    monkeypatch.setattr(caching, "DEEP", 1)
    return make_model(patches())


def choose(model: WorldModel, episodes: EpisodeSet, tmp_path: Path, enabled: str | bool, num_frames: int = 1000):
    return choose_source(model, episodes, Cache(enabled, str(tmp_path / "new" / "kept"), "float16", 16.0), num_frames, CPU)


def test_auto_keeps_what_is_worth_it_and_says_what_it_takes(
    model: WorldModel, numbered_episodes: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
):
    episodes = numbered_episodes()
    assert isinstance(choose(model, episodes, tmp_path, "auto", num_frames=35), FreshTokens)
    assert "looks at 35, a cache would be of 36" in capsys.readouterr().out
    assert isinstance(choose(model, episodes, tmp_path, False), StoredFrames)
    assert capsys.readouterr().out == "" and not (tmp_path / "new").exists()
    assert isinstance(choose(model, episodes, tmp_path, "auto"), KeptTokens)
    announced = capsys.readouterr().out
    assert "tokens of 36 frames are computed once and kept: 1.49 kB" in announced and "free" in announced
    assert isinstance(choose(model, episodes, tmp_path, "auto", num_frames=1), KeptTokens)  # it is there now
    assert "computed once" not in capsys.readouterr().out


def test_encoders_as_cheap_as_reading_and_those_in_training_are_not_kept(
    numbered_episodes: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    episodes = numbered_episodes()
    trained = SmallLeWM(image_size=8, widths=[3, 4], embed_dim=5, projector_dim=6)
    for encoder in (patches(), Pixels(grid=2, patch_size=2), trained):
        assert isinstance(choose(make_model(encoder), episodes, tmp_path, "auto"), StoredFrames)
    monkeypatch.setattr(caching, "DEEP", 0)
    assert isinstance(choose(make_model(trained), episodes, tmp_path, "auto"), StoredFrames)
    with pytest.raises(ValueError, match=r"cache\.enabled=true needs a frozen encoder"):
        choose(make_model(trained), episodes, tmp_path, True)
    with pytest.raises(ValueError, match=r"cache.enabled \('no'\) must be auto, true or false"):
        Cache("no", "kept", "int8", 16.0)


def test_a_network_is_worth_keeping_however_few_parameters_it_has():
    """EfficientNet-Lite0's map comes from 0.7 M parameters in 33 layers."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 5))
    encoder = patches()
    assert not caching.is_worth_keeping(encoder)
    encoder.network = network.requires_grad_(False)
    assert caching.is_worth_keeping(encoder)


def test_where_the_disk_is_too_small_frames_are_encoded_as_they_come(
    model: WorldModel, numbered_episodes: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    episodes, asked = numbered_episodes(), []

    def disk_usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=1400)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    assert isinstance(choose(model, episodes, tmp_path, "auto"), FreshTokens)
    assert "as they come, and rounded as in a cache: their tokens need 1.44 kB in" in capsys.readouterr().out
    assert set(asked) == {tmp_path}  # the disk of a folder that is not there yet
    with pytest.raises(ValueError, match=r"which has 1.4 kB left; make room .*cache.dtype=int8"):
        choose(model, episodes, tmp_path, True)


def test_the_script_lists_files_and_deletes_incomplete_or_named_ones(
    numbered_episodes: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    episodes = numbered_episodes()
    whole, part = (written(tmp_path, episodes, patches(seed=seed)).path for seed in (0, 1))
    with part.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(bytes(8))
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "latents.py"))

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["latents.py", "--dir", str(tmp_path), *arguments])
        script["main"]()
        return capsys.readouterr().out

    lines = call().splitlines()
    assert "100%" in next(line for line in lines if line.startswith(whole.stem))
    assert "83%" in next(line for line in lines if line.startswith(part.stem))
    with pytest.raises(SystemExit):
        call("--prune", "nothing")
    assert f"no nothing in {tmp_path}; there: " in capsys.readouterr().err
    assert f"{part.stem} deleted" in call("--prune")
    assert sorted(path.name for path in tmp_path.glob("*Patch*")) == [f"{whole.stem}.json", whole.name]
    with whole.open("rb") as file:
        assert latents.try_lock(file)
        assert f"{whole.stem} is being written and stays" in call("--prune", whole.stem)
    assert f"{whole.stem} deleted" in call("--prune", whole.stem)
    assert "no tokens are kept here" in call()


def test_several_processes_encode_every_chunk_once_and_what_a_kill_has_left(episodes: EpisodeSet, tmp_path: Path):
    """Of 3 processes each has some; the file is, to the byte, the one that a single process writes."""
    encoder = patches()

    def work() -> list[int]:
        encode, numbers = encode_of(encoder), []

        def noted(obs: Any) -> Tensor:
            numbers.append(len(obs["visual"]))
            return encode(obs)

        new_file(tmp_path, episodes, encoder).write(noted)
        return numbers

    alone = written(tmp_path / "alone", episodes, encoder).path.read_bytes()
    counts = in_processes(tmp_path / "met", 3, work)
    assert all(counts) and sum(map(sum, counts)) == len(FrameNumbers(episodes)), counts
    file = new_file(tmp_path, episodes, encoder)
    assert file.path.read_bytes() == alone
    with file.path.open("r+b") as opened:  # as a kill leaves it: two chunks have no entry
        opened.seek(file.rows_bytes + 8)
        opened.write(bytes(16))
    assert sorted(map(sum, in_processes(tmp_path / "again", 3, work))) == [0, 7, 7]
    assert file.path.read_bytes() == alone
