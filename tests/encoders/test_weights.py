"""Released weights: downloaded once and whole, or refused with the way out."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from wmbench.commands import encoder_config
from wmbench.encoders.weights import Release, Weights, fetch, read_state


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hub" / "checkpoints"


def release_of(file: Path, content: bytes = b"the weights") -> Release:
    digest = hashlib.sha256(content).hexdigest()
    return Release(name="some_vit", url=file.as_uri(), sha256=digest, licence="MIT", access="open")


def test_a_file_is_downloaded_once(cache, tmp_path):
    source = tmp_path / "vit.pth"
    source.write_bytes(b"the weights")
    assert fetch(release_of(source)) == cache / "vit.pth"
    source.unlink()
    assert fetch(release_of(source)).read_bytes() == b"the weights"


def test_a_download_of_another_hash_is_refused_and_leaves_nothing(cache, tmp_path):
    source = tmp_path / "vit.pth"
    source.write_bytes(b"the weights, cut sho")
    with pytest.raises(ValueError, match=r"vit\.pth.* has SHA-256 .* instead of .*download it again"):
        fetch(release_of(source))
    assert list(cache.iterdir()) == []


def test_a_cached_file_of_another_hash_is_refused(cache, tmp_path):
    cache.mkdir(parents=True)
    (cache / "vit.pth").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"vit\.pth has SHA-256 .* delete it to download it again"):
        fetch(release_of(tmp_path / "vit.pth"))


def test_without_a_network_the_error_says_what_is_missing_and_every_way_out(cache, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        fetch(release_of(tmp_path / "vit.pth"))
    for part in (
        "the weights vit.pth",
        "python scripts/fetch.py encoder=some_vit",
        f"copy the file to {cache / 'vit.pth'}",
        "encoder.weights=PATH",
        "encoder.pretrained=false",
        "encoder=lewm_small, random_patch or pixels",
    ):
        assert part in str(error.value)
    assert list(cache.iterdir()) == []


def test_the_error_names_the_setting_that_takes_the_file(cache, tmp_path):
    tower = replace(release_of(tmp_path / "tower.pth"), setting="trunk_weights")
    with pytest.raises(FileNotFoundError, match=r"with encoder\.trunk_weights=PATH\."):
        _ = Weights(True, None, tower, seed=0).path
    with pytest.raises(ValueError, match=r"leaves trunk_weights=tower\.pth unread"):
        Weights(False, "tower.pth", tower, seed=0)


@pytest.mark.parametrize(
    ("encoder", "settings"),
    [
        ("vfm_vae", ["weights", "trunk_weights"]),
        ("dino_tok_s", ["backbone.weights"]),
        ("vfm_vae_pointmaze", ["backbone.weights"]),
        ("dinov2", ["weights"]),
    ],
)
def test_every_file_of_a_configuration_has_a_setting_that_takes_another(encoder: str, settings: list[str]):
    config = OmegaConf.create(encoder_config(encoder))
    nodes = [config, config.get("backbone", {})]
    files = [node[name] for node in nodes for name in ("release", "trunk_release") if name in node]
    assert [file.get("setting", "weights") for file in files] == settings
    assert all(OmegaConf.select(config, setting, default="none") is None for setting in settings)


def unpinned(file: Path) -> Release:
    return replace(release_of(file), sha256=None)


def test_a_file_without_a_published_hash_is_pinned_by_its_first_download(cache, tmp_path):
    source = tmp_path / "vit.pth"
    source.write_bytes(b"the weights")
    assert unpinned(source).description == "vit.pth, SHA-256 unknown"
    fetch(unpinned(source), unpinned=True)
    digest = hashlib.sha256(b"the weights").hexdigest()
    assert (cache / "vit.pth.sha256").read_text() == f"{digest}  vit.pth\n"  # as sha256sum -c wants it
    assert unpinned(source).description == f"vit.pth, SHA-256 {digest[:12]}" == release_of(source).description
    fetch(unpinned(source), unpinned=True)
    (cache / "vit.pth").write_bytes(b"something else")
    with pytest.raises(
        ValueError, match=r"vit\.pth has SHA-256 .* delete it .*vit\.pth\.sha256, if its authors replaced it"
    ):
        fetch(unpinned(source), unpinned=True)
    (cache / "vit.pth").unlink()
    source.write_bytes(b"another version")
    with pytest.raises(ValueError, match=rf"instead of {digest}.*download it again"):
        fetch(unpinned(source), unpinned=True)


def test_a_file_copied_into_the_cache_is_pinned_by_its_first_use(cache, tmp_path):
    cache.mkdir(parents=True)
    (cache / "vit.pth").write_bytes(b"copied")
    fetch(unpinned(tmp_path / "vit.pth"))
    assert unpinned(tmp_path / "vit.pth").digest == hashlib.sha256(b"copied").hexdigest()


def test_a_pinned_file_leaves_no_record_and_heeds_none(cache, tmp_path):
    source = tmp_path / "vit.pth"
    source.write_bytes(b"the weights")
    fetch(release_of(source))
    assert [path.name for path in cache.iterdir()] == ["vit.pth"]
    (cache / "vit.pth.sha256").write_text(f"{'0' * 64}  vit.pth\n")
    fetch(release_of(source))


def test_a_name_in_the_cache_tells_files_of_one_name_apart(cache, tmp_path):
    source = tmp_path / "model.safetensors"
    source.write_bytes(b"the weights")
    assert fetch(replace(release_of(source), file="some_vit.safetensors")) == cache / "some_vit.safetensors"


def test_a_page_in_place_of_the_file_is_refused(cache, tmp_path):
    page = tmp_path / "login.html"
    page.write_text("<html>agree to this first</html>")
    with pytest.raises(FileNotFoundError, match=r"login\.html is a page, not a file"):
        fetch(replace(unpinned(page), file="vit.pth"), unpinned=True)
    assert list(cache.iterdir()) == []


def test_the_network_is_taken_out_of_a_training_checkpoint(tmp_path):
    weights, other = torch.arange(6.0).reshape(2, 3), torch.zeros(5)
    torch.save({"model": {"a": weights}, "optimizer": {"lr": 0.1, "state": {0: other}}, "epoch": 3}, tmp_path / "a.pth")
    torch.save({"a": weights}, tmp_path / "flat.pth")
    for name in ("a.pth", "flat.pth"):
        assert torch.equal(read_state(tmp_path / name, entry="model")["a"], weights)
    with pytest.raises(ValueError, match=r"a\.pth is no state dict"):
        read_state(tmp_path / "a.pth", entry="encoder")


def test_both_formats_are_read(tmp_path):
    state = {"a": torch.arange(6.0).reshape(2, 3)}
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        assert torch.equal(read_state(tmp_path / name)["a"], state["a"])


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_file_that_would_run_a_command_is_refused_and_runs_nothing(tmp_path):
    proof = tmp_path / "ran"
    torch.save({"a": Command(f"touch {proof}")}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth is damaged or holds more than tensors"):
        read_state(tmp_path / "a.pth")
    assert not proof.exists()


def test_files_that_are_no_weights_are_refused_by_name(tmp_path):
    torch.save({"model": {"a": torch.zeros(2)}}, tmp_path / "nested.pth")
    torch.save({"a": torch.zeros(50)}, tmp_path / "whole.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:600])
    (tmp_path / "empty.pth").touch()
    (tmp_path / "half.safetensors").write_bytes(b"\x08")
    with pytest.raises(ValueError, match=r"nested\.pth is no state dict"):
        read_state(tmp_path / "nested.pth")
    for name in ("half.pth", "empty.pth", "half.safetensors"):
        with pytest.raises(ValueError, match=rf"{name} is damaged"):
            read_state(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"absent\.pth is no file"):
        read_state(tmp_path / "absent.pth")


def test_an_untrained_network_leaves_every_random_state_alone(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """The GPU's too, which torch.manual_seed would seed."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the GPU is seeded"))
    before = torch.get_rng_state()
    untrained = Weights(False, None, release_of(tmp_path / "vit.pth"), seed=3)
    with untrained.building():
        drawn = torch.randn(4)
    assert torch.equal(torch.get_rng_state(), before)
    with untrained.building():
        assert torch.equal(torch.randn(4), drawn)


def test_where_the_hub_is_switched_off_it_is_not_asked(cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("wmbench.encoders.download.urlopen", None)
    release = Release("x", "https://huggingface.co/timm/x/resolve/main/x.pth", sha256=None, licence="MIT", access="open")
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded \(HF_HUB_OFFLINE is set\).*\n.*encoder=x"):
        fetch(release)
