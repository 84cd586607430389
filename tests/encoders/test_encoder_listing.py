"""scripts/encoders.py: every file of conf/encoder is a row, a broken one too, and nothing is downloaded."""

import shutil
from pathlib import Path

import pytest
import torch
from in_process import load_script

from wmbench.commands import configuration, encoder_list

ROOT = Path(__file__).parents[2]
TINY = """
defaults:
  - dinov2
image_size: 28
architecture: {depth: 2, embed_dim: 48, num_heads: 3, img_size: 28}
"""
TOKENIZER = """
defaults:
  - /encoder@backbone: tiny
_target_: wmbench.encoders.dino_tok.DinoTok
backbone: {_partial_: true, pretrained: "${..pretrained}"}
texture_dim: 5
num_codes: null
pretrained: true
weights: null
file: ${oc.env:DATASET_DIR}/tokenizers/tok.safetensors
seed: 0
architecture: {}
"""
NAMES = ["tiny", "lewm_small", "pixels", "state"]  # those in order, by where their weights come from
BROKEN = {
    "wrong_size": "image_size (30) must be a multiple of the patch (14), such as 28",
    "wrong_target": "No module named 'wmbench.encoders.nothing'",
    "wrong_text": "while parsing a flow node",
}


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """scripts/encoders.py over a folder of few encoders, some of them broken, without a network."""
    conf = shutil.copytree(ROOT / "conf", tmp_path / "conf")
    for path in (conf / "encoder").glob("*.yaml"):
        if path.stem not in ("dinov2", *NAMES):
            path.unlink()
    (conf / "encoder" / "tiny.yaml").write_text(TINY)
    (conf / "encoder" / "wrong_size.yaml").write_text(TINY.replace("image_size: 28", "image_size: 30"))
    (conf / "encoder" / "wrong_text.yaml").write_text("_target_: [")
    (conf / "encoder" / "wrong_target.yaml").write_text("_target_: wmbench.encoders.nothing.Nothing\n")

    def no_network(*arguments, **options):
        raise AssertionError("tried to download")

    monkeypatch.setattr("wmbench.encoders.download.urlopen", no_network)
    monkeypatch.setattr("wmbench.commands.configuration.CONF", str(conf))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return load_script("scripts/encoders.py")


@pytest.fixture
def listing(script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What the script prints."""

    def call(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["encoders.py", *words])
        script.main()
        return capsys.readouterr().out

    return call


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split("|")]


def test_every_file_is_a_row_and_a_broken_one_tells_its_error(listing):
    head, _, *rows = (line for line in listing("--markdown", "--no-time").splitlines() if line.startswith("|"))
    table = {cells(row)[0]: cells(row) for row in rows}
    assert cells(head)[:3] == ["encoder", "tokens x width", "pixels"]
    assert list(table) == ["dinov2", *NAMES, *BROKEN]
    assert table["dinov2"][1:] == ["196 x 384", "196", "21.61 M", "9.17", "-", "not cached", "Apache-2.0", "open"]
    assert table["lewm_small"][1:] == ["1 x 64", "64", "1.31 M", "0.02", "-", "with the model", "MIT", "open"]
    assert table["pixels"][1:3] == ["64 x 48", "32"] and table["pixels"][6] == "none"
    for name, error in BROKEN.items():
        assert table[name][1].startswith("error: ") and error in table[name][1]


def test_text_fits_a_line_and_shortens_what_does_not(listing):
    lines = listing("--no-time", f"encoder=pixels,tiny,wrong_target,{'x' * 130}").splitlines()
    assert max(map(len, lines)) == 120
    assert [line.split()[0] for line in lines[:4]] == ["encoder", "tiny", "pixels", "wrong_target"]
    assert len({line.index("MIT") if "MIT" in line else line.index("Apache") for line in lines[1:3]}) == 1


def test_weights_are_cached_once_their_file_is_there(script, tmp_path):
    file = tmp_path / "hub" / "checkpoints" / "dinov2_vits14_pretrain.pth"
    assert encoder_list.describe("tiny", None)["weights"] == "not cached"
    file.parent.mkdir(parents=True)
    file.touch()
    assert encoder_list.describe("tiny", None)["weights"] == "cached"


def test_a_tokenizer_is_cached_once_its_head_is_there_too(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DATASET_DIR", str(tmp_path / "data"))
    (tmp_path / "conf" / "encoder" / "tok.yaml").write_text(TOKENIZER)
    files = (
        tmp_path / "hub" / "checkpoints" / "dinov2_vits14_pretrain.pth",
        tmp_path / "data" / "tokenizers" / "tok.safetensors",
    )
    for file, weights in zip((tmp_path / "nothing", *files), ("not cached", "not trained", "cached"), strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        row = encoder_list.describe("tok", None)
        assert (row["weights"], row["note"]) == (weights, "reimplemented, trained on PointMaze")
    monkeypatch.setattr("sys.argv", ["encoders.py", "encoder=tok,pixels", "--no-time"])
    script.main()
    assert capsys.readouterr().out.endswith("\ntok: reimplemented, trained on PointMaze.\n")


def test_a_large_network_is_timed_where_it_is_cached_alone(script, monkeypatch, tmp_path):
    cpu = torch.device("cpu")
    assert float(encoder_list.describe("tiny", cpu)["ms"]) > 0
    monkeypatch.setattr(encoder_list, "MOST_TIMED", 1000)
    assert encoder_list.describe("tiny", cpu)["ms"] == "-"
    assert float(encoder_list.describe("pixels", cpu)["ms"]) >= 0


def test_flops_are_those_of_the_published_form(script):
    """A ViT layer of N tokens and D features: 12 N D^2 multiplications in its matrices, 2 N^2 D in attention; twice each."""
    encoder = encoder_list.build(configuration.encoder_config("tiny"))
    tokens, width, depth, patch = 1 + 2 * 2, 48, 2, 14
    layer = 12 * tokens * width**2 + 2 * tokens**2 * width
    assert encoder_list.flops(encoder) == 2 * (depth * layer + 2 * 2 * width * 3 * patch**2)


def test_files_are_found_however_deep_a_configuration_names_them(script):
    file = {
        "_target_": "wmbench.encoders.weights.Release",
        "name": "x",
        "url": "https://example.org/a.pth",
        "sha256": None,
        "licence": "MIT",
        "access": "open",
    }
    config = {"release": file, "seed": 0, "trunk": {"release": file | {"url": "https://example.org/b.pth"}, "depth": 2}}
    assert [release.file for release in encoder_list.releases(config)] == ["a.pth", "b.pth"]


def test_a_setting_changes_what_is_fetched(script):
    config = configuration.encoder_config("tiny", ["encoder.release.url=https://example.org/mine.pth"])
    assert [release.file for release in encoder_list.releases(config)] == ["mine.pth"]
