"""ResNet-18 and R3M: torchvision's outputs from files in the published formats, and refusal of everything else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from einops import rearrange
from hydra.errors import InstantiationException
from in_process import build_encoder, encoder_config
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.transforms.functional import normalize

from wmbench.encoders.resnet import build_network, load_network

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
NAMES = ("resnet18", "resnet18_layer3", "r3m", "r3m_layer3")
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def torchvisions() -> nn.Module:
    """torchvision's network, whose norms do something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = resnet18().eval()
        for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 2)
            norm.weight.data.uniform_(0.5, 1.5)
            norm.bias.data.normal_(0, 0.3)
    return network


def older_torchvision(state: State) -> State:
    """Without the counters of batches, as in the released file of 46,830,571 bytes."""
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def r3m_alone(state: State) -> State:
    return {f"convnet.{name}": tensor for name, tensor in state.items() if not name.startswith("fc.")}


def r3m_checkpoint(state: State) -> dict[str, Any]:
    language = {f"module.{name}.weight": torch.ones(2, 3) for name in ("lang_enc.model.embeddings", "lang_rew.pred.0")}
    return {"r3m": {f"module.{n}": t for n, t in r3m_alone(state).items()} | language, "global_step": 7}


FORMATS: list[tuple[str, Callable[[State], dict[str, Any]]]] = [
    ("resnet18", dict),
    ("resnet18", older_torchvision),
    ("r3m", r3m_alone),
    ("r3m", r3m_checkpoint),
]


@torch.no_grad()
@pytest.mark.parametrize(("name", "publish"), FORMATS)
def test_a_published_file_gives_torchvisions_features(torchvisions, tmp_path, name, publish):
    torch.save(publish(torchvisions.state_dict()), tmp_path / "model.pt")
    pixels = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    stem = torchvisions.maxpool(torchvisions.relu(torchvisions.bn1(torchvisions.conv1(pixels))))
    layer3 = torchvisions.layer3(torchvisions.layer2(torchvisions.layer1(stem)))
    expected = {
        name: torchvisions.layer4(layer3).mean((2, 3))[:, None],
        f"{name}_layer3": rearrange(layer3, "f d h w -> f (h w) d"),
    }
    for encoder, features in expected.items():
        found = build_encoder(encoder, tmp_path / "model.pt", image_size=96).tokens(pixels)
        assert found.shape == features.shape
        assert (found - features).norm() <= 1e-5 * features.norm()


@pytest.mark.parametrize(("name", "publish"), [FORMATS[0], FORMATS[2]])
def test_a_missing_extra_or_misshapen_tensor_is_refused_by_name(tmp_path, name, publish):
    with torch.device("meta"):
        network = build_network()
    state = publish({name: torch.zeros(()).expand(tensor.shape) for name, tensor in network.state_dict().items()})

    def refused(changed: State, message: str) -> None:
        torch.save(changed, tmp_path / "model.pt")
        with pytest.raises(ValueError, match=rf"model\.pt is no ResNet-18.*{message}.*; give weights="):
            load_network(network, tmp_path / "model.pt", None, encoder_config(name).prefix)

    weights = [key for key in state if not key.endswith("num_batches_tracked")]
    for key in weights[::7]:
        refused({n: t for n, t in state.items() if n != key}, f"missing {key}")
        refused(state | {key: torch.zeros(2, 3)}, rf"{key} is \(2, 3\) instead of")
    refused(state | {"layer5.weight": torch.zeros(2)}, r"unknown layer5\.weight")


def test_r3m_is_not_taken_for_imagenets_network_nor_the_other_way_round(torchvisions, tmp_path):
    torch.save(torchvisions.state_dict(), tmp_path / "imagenet.pth")
    torch.save(r3m_alone(torchvisions.state_dict()), tmp_path / "r3m.bin")
    with pytest.raises(InstantiationException, match=r"missing conv1\.weight"):
        build_encoder("resnet18", tmp_path / "r3m.bin")
    with pytest.raises(InstantiationException, match=r"missing convnet\.conv1\.weight"):
        build_encoder("r3m", tmp_path / "imagenet.pth")


@pytest.mark.parametrize("name", NAMES)
def test_pixels_are_scaled_as_in_training_or_twice_as_in_dino_wm(name):
    """R3M wants 0 to 255 and divides by 255 itself, which comes to the same as the others' scale."""
    visual = torch.randint(0, 256, (1, 2, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    frames = visual[0].permute(0, 3, 1, 2) / 255
    native, dino_wm = (
        build_encoder(name, image_size=96, pixels=pixels).preprocess(visual) for pixels in ("native", "dino_wm")
    )
    torch.testing.assert_close(native, normalize(frames, MEAN, STD))
    torch.testing.assert_close(dino_wm, normalize((frames - 0.5) / 0.5, MEAN, STD))


def test_batch_norm_never_moves():
    encoder = build_encoder("resnet18", image_size=32).train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    assert any(name.endswith("running_mean") for name in before)
    pixels = 5 + torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first = encoder.tokens(pixels)
    assert torch.equal(encoder.tokens(pixels), first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_every_block_of_an_untrained_network_counts():
    network = build_encoder("resnet18", image_size=32).trunk
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 20
    assert all(norm.weight.all() for norm in norms)


@pytest.mark.parametrize(
    ("name", "parameters", "grid", "width"),
    [
        ("resnet18", 11_176_512, (1, 1), 512),
        ("resnet18_layer3", 2_782_784, (14, 14), 256),
        ("r3m", 11_176_512, (1, 1), 512),
        ("r3m_layer3", 2_782_784, (14, 14), 256),
    ],
)
def test_size_and_parameters(name, parameters, grid, width):
    encoder = build_encoder(name)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == parameters
    assert (encoder.grid, encoder.embed_dim, encoder.image_size) == (grid, width, 224)


@pytest.mark.parametrize("name", NAMES)
def test_fetch_gets_what_the_encoder_asks_for(name):
    release = encoder_config(name).release
    assert encoder_config(release.name).release == release
    assert release.file not in ("", "pytorch_model.bin")
    assert ("r3m" in release.url) == name.startswith("r3m")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output": "layer3", "image_size": 196}, r"image_size \(196\) must be a multiple of the stride of layer3 \(16\)"),
        ({"image_size": 208}, r"image_size \(208\) must be a multiple of the stride of pooled \(32\)"),
        ({"output": "layer4"}, r"output \('layer4'\) must be one of pooled, layer3"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(settings, message):
    with pytest.raises(InstantiationException, match=message):
        build_encoder("resnet18", **settings)
