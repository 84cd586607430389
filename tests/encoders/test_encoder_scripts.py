"""scripts/verify_encoder.py and scripts/fetch.py, as their users run them."""

import runpy
from pathlib import Path

import pytest
import torch

PARTS = ((1, "attn.proj"), (2, "mlp.fc2"))  # the layers before DINOv2's two scales
SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Exit status, output and error of a script."""

    def call(script: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", [script, *arguments])
        status = 0
        try:
            runpy.run_path(str(SCRIPTS / script), run_name="__main__")
        except SystemExit as exit:
            status = int(exit.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


def smaller(golden: Path) -> dict:
    """The golden file with one image size."""
    recorded = torch.load(golden / "dinov2_encoder_tiny.pt", weights_only=True)
    for variant in ("plain", "registers"):
        recorded[variant] = {k: v for k, v in recorded[variant].items() if not k.endswith(("_98", "_196"))}
    return recorded


def test_a_recording_is_verified_line_by_line(run, golden, tmp_path):
    torch.save(smaller(golden), tmp_path / "recorded.pt")
    status, output, _ = run("verify_encoder.py", "encoder=dinov2", f"file={tmp_path / 'recorded.pt'}")
    assert status == 0
    lines = [line.split() for line in output.splitlines()]
    assert sorted(line[:2] for line in lines) == [
        [variant, name] for variant in ("plain", "registers") for name in ("cls_70", "patch_tokens_70")
    ]
    assert all(float(error) <= 1e-5 and "e" in error for _, _, error in lines)


@pytest.mark.parametrize("wrong", [1.001, float("nan")])
def test_a_recording_that_differs_fails(run, golden, tmp_path, wrong):
    recorded = smaller(golden)
    recorded["registers"]["cls_70"] = recorded["registers"]["cls_70"] * wrong
    torch.save(recorded, tmp_path / "recorded.pt")
    status, output, _ = run("verify_encoder.py", "encoder=dinov2", f"file={tmp_path / 'recorded.pt'}")
    assert status == 1
    assert [line.split()[:2] for line in output.splitlines() if line.endswith("fails")] == [["registers", "cls_70"]]


def test_what_cannot_be_verified_is_refused_by_name(run, tmp_path):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    file = f"file={tmp_path / 'other.pt'}"
    assert "no recording of dinov2: it has no 'config'" in run("verify_encoder.py", "encoder=dinov2", file)[2]
    assert "'lewm' can be checked; known: dinov2" in run("verify_encoder.py", "encoder=lewm", file)[2]
    assert "give encoder=NAME and file=PATH" in run("verify_encoder.py", "encoder=dinov2", "golden.pt")[2]


def test_a_network_without_layer_scale_is_built_from_its_config(run, golden, tmp_path):
    """Scales multiplied into the layer before them give the recorded outputs."""
    recorded = smaller(golden)
    del recorded["registers"]
    state = recorded["plain"]["state_dict"]
    for scale, layer in ((f"blocks.{i}.ls{n}.gamma", f"blocks.{i}.{part}") for i in range(3) for n, part in PARTS):
        gamma = state.pop(scale)
        state[f"{layer}.weight"], state[f"{layer}.bias"] = (
            gamma[:, None] * state[f"{layer}.weight"],
            gamma * state[f"{layer}.bias"],
        )
    recorded["config"]["layer_scale"] = False
    torch.save(recorded, tmp_path / "recorded.pt")
    status, output, error = run("verify_encoder.py", "encoder=dinov2", f"file={tmp_path / 'recorded.pt'}")
    assert (status, error) == (0, "") and len(output.splitlines()) == 2


@pytest.mark.parametrize(
    ("encoder", "file", "weights", "tensor"),
    [
        ("dinov3", "dinov3_encoder_tiny", "state_dict", "blocks.1.norm2.weight"),
        ("vjepa2", "vjepa2_encoder_tiny", "encoder", "module.backbone.blocks.1.norm2.weight"),
        ("vfm_vae", "vfm_vae_adapter_tiny", "G_ema", "ldm_adapter.final_quant.blocks.0.norm2.weight"),
    ],
)
def test_a_recording_of_another_network_fails_and_names_the_tensor(
    run, golden, tmp_path, encoder: str, file: str, weights: str, tensor: str
):
    recorded = torch.load(golden / f"{file}.pt", weights_only=True)
    other = tensor.replace("norm2", "norm7")
    for changed, message in (
        ({tensor: None}, f"missing {tensor}"),
        ({other: torch.ones(3)}, f"unknown {other}"),
        ({tensor: torch.ones(5)}, rf"{tensor} is (5,) instead of"),
    ):
        state = {name: t for name, t in {**recorded[weights], **changed}.items() if t is not None}
        torch.save({**recorded, weights: state}, tmp_path / "recorded.pt")
        status, output, error = run("verify_encoder.py", f"encoder={encoder}", f"file={tmp_path / 'recorded.pt'}")
        assert (status, output, error.count("\n")) == (1, "", 1) and message in error


@pytest.mark.parametrize("encoder", ["dinov2", "dinov3", "vjepa2", "vfm_vae"])
def test_a_damaged_recording_ends_in_one_line(run, tmp_path, encoder: str):
    sizes = {"rope": True, "level_side": 0, "level_width": 0, "level_dim": 0, "latent_side": 0, "z_dim": 0}
    path = tmp_path / "recorded.pt"
    for content in ([1], {"config": None}, {"config": sizes, "plain": 3}, {"config": 3}):
        torch.save(content, path)
        status, output, error = run("verify_encoder.py", f"encoder={encoder}", f"file={path}")
        assert (status, output, error.count("\n")) == (1, "", 1) and str(path) in error
    path.write_bytes(path.read_bytes()[:200])
    assert "is damaged" in run("verify_encoder.py", f"encoder={encoder}", f"file={path}")[2]
    assert f"no file {tmp_path}" in run("verify_encoder.py", f"encoder={encoder}", f"file={tmp_path}")[2]


def test_fetch_names_what_it_does_not_know_and_skips_what_needs_nothing(run):
    assert run("fetch.py", "encoder=lewm_small,state")[1] == "lewm_small: needs no weights\nstate: needs no weights\n"
    status, _, error = run("fetch.py", "encoder=dinov22")
    assert status == 1
    assert "unknown encoder 'dinov22', did you mean dinov2" in error
    assert "must be encoder=NAME" in run("fetch.py", "dinov2")[2]


def test_fetch_reports_a_file_that_is_not_the_release(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "dinov2_vits14_pretrain.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not the weights")
    status, _, error = run("fetch.py", "encoder=dinov2")
    assert status == 1
    assert f"{file} has SHA-256" in error
