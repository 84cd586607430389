"""Arms set what they name, and whatever makes an encoder other than its plain name is said in words."""

import json
from pathlib import Path
from typing import Any

import pytest
from in_process import compose
from omegaconf import OmegaConf

from wmbench.commands import CONF, encoder_config
from wmbench.commands.arms import arm_of, differences, is_matched, note_of, plain_config
from wmbench.encoders.matched import matched
from wmbench.encoders.random_patch import RandomPatch
from wmbench.evaluation.row import cache_of
from wmbench.runs.folder import note_source

ENCODERS = sorted(path.stem for path in Path(CONF, "encoder").glob("*.yaml"))
OTHERS = {True: False, False: True}


def arm(words: str) -> str:
    return arm_of(compose("train", words))


def note(words: str, name: str | None = None) -> str:
    """Of a run of this command line, whose encoder itself has nothing to say."""
    cfg = compose("train", words)
    encoder = RandomPatch(image_size=8, grid=2, embed_dim=5, seed=0)
    return note_of(matched(encoder, **cfg.matched), cfg, {"encoder": {"name": name}})


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("encoder=dinov2", "native"),
        ("encoder=dinov2 arm=matched", "matched"),
        ("encoder=dinov2 arm=matched matched.pool=7 matched.width=384 matched.standardise=true", "matched"),
        ("encoder=dinov2 matched.pool=7", "matched"),
        ("encoder=dinov2 train_encoder=true", "finetuned"),
        ("encoder=dinov2 arm=finetuned", "finetuned"),
        ("encoder=dinov2 encoder.pretrained=false", "untrained"),
        ("encoder=dinov2 arm=untrained", "untrained"),
        ("encoder=dinov2 arm=untrained matched.width=8", "untrained_matched"),
        ("encoder=dinov2 encoder.pretrained=false train_encoder=true", "finetuned_untrained"),
        ("experiment=dino_wm", "dino_wm"),
        ("experiment=dino_wm matched.pool=2", "dino_wm_matched"),
        ("experiment=dino_wm arm=finetuned", "dino_wm_finetuned"),
    ],
)
def test_the_name_of_an_arm_is_what_its_settings_make(words: str, name: str):
    assert arm(words) == name


def test_an_arm_sets_what_it_names():
    assert is_matched(compose("train", "encoder=dinov2 arm=matched"))
    assert compose("train", "encoder=dinov2 arm=finetuned").train_encoder is True
    assert compose("train", "encoder=dinov2 arm=untrained").encoder.pretrained is False
    native = compose("train", "encoder=dinov2")
    assert not is_matched(native) and not native.train_encoder and native.encoder.pretrained


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "arm=matched matched.standardise=false matched.width=null matched.projection=random",
            "arm=matched needs matched.standardise=true",
        ),
        ("arm=finetuned train_encoder=false", "arm=finetuned needs train_encoder=true"),
        ("arm=untrained encoder.pretrained=true", "arm=untrained needs encoder.pretrained=false"),
        ("encoder=random_patch arm=untrained", "arm=untrained is for pretrained encoders, and .*RandomPatch is none"),
    ],
)
def test_an_arm_whose_settings_are_taken_back_is_refused(words: str, message: str):
    with pytest.raises(ValueError, match=message):
        arm(words if "encoder=" in words else f"encoder=dinov2 {words}")


@pytest.mark.parametrize("name", ENCODERS)
def test_a_plain_encoder_has_nothing_to_say(name: str):
    assert note(f"encoder={name}", name) == ""


@pytest.mark.parametrize("name", ENCODERS)
def test_every_setting_of_every_encoder_is_in_its_note(name: str):
    plain = encoder_config(name)
    for key, value in plain.items():
        if isinstance(value, dict) or key == "_target_" or (key == "seed" and plain.get("pretrained")):
            continue
        other: Any = OTHERS.get(value) if isinstance(value, bool) else (value + 1 if isinstance(value, int) else "other")
        assert len(differences(plain | {key: other}, plain)) == 1, key
    if "architecture" in plain:
        assert differences(plain | {"architecture": {**plain["architecture"], "depth": 99}}, plain) == [
            "architecture depth 99"
        ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("encoder=dinov2 encoder.pretrained=false", "untrained"),
        ("encoder=dinov2 encoder.pretrained=false encoder.seed=3", "untrained, seed 3"),
        ("encoder=dinov2 encoder.weights=/some/where/own.pth", "weights from own.pth"),
        ("encoder=dinov2 encoder.pixels=dino_wm encoder.image_size=224", "at 224 pixels, pixels dino_wm"),
        ("encoder=dinov2 +encoder.architecture.depth=2", "architecture depth 2"),
        ("encoder=dinov2_cls encoder.output=patches", "output patches"),
        ("encoder=vjepa2 encoder.temporal=pair", "temporal pair"),
        ("encoder=vjepa2_1 encoder.temporal=still", "temporal still"),
        ("encoder=timm encoder.model=vit_base_patch16_224.mae", "model vit_base_patch16_224.mae"),
        ("encoder=dino_tok encoder.backbone.image_size=224", "backbone at 224 pixels"),
        ("encoder=resnet18 encoder.release.url=https://example.org/a.pth", "release url https://example.org/a.pth"),
        ("encoder=dinov2 matched.pool=1", "pooled to 1 x 1"),
        ("encoder=dinov2 matched.width=3 matched.standardise=true", "standardised, projected to 3"),
        ("encoder=dinov2 arm=matched", "standardised, predictor of width 384 between learned layers"),
        ("encoder=dinov2 matched.layer_norm=true", "layer-normalised"),
        ("encoder=dinov2 train_encoder=true", "fine-tuned at 1e-06"),
        ("encoder=random_patch encoder.seed=2", "seed 2"),
    ],
)
def test_what_makes_an_encoder_another_is_said_without_being_asked(words: str, expected: str):
    name = words.split()[0].removeprefix("encoder=")
    assert note(words, name) == expected


def test_another_backbone_is_named():
    words = note("encoder=dino_tok encoder@encoder.backbone=dinov2", "dino_tok")
    assert "backbone model vit_small_patch14_dinov2.lvd142m" in words and "backbone class DINOv2" in words
    assert "release" not in words


@pytest.mark.parametrize(("name", "found"), [("dinov2_b", "dinov2_b"), ("timm", "timm"), ("lewm_small", "lewm_small")])
def test_a_run_that_does_not_tell_its_encoders_name_is_compared_with_the_file_of_its_release(name: str, found: str):
    config = encoder_config(name)
    assert plain_config(None, config) == encoder_config(found)
    assert note(f"encoder={name}") == ""
    assert OmegaConf.create(plain_config("no longer there", config)) == {}


def test_tokens_that_were_kept_in_another_dtype_are_said():
    shown = [{"kind": "tokens", "dtype": "float16"}, {"kind": "frames"}, {"kind": "tokens", "dtype": "int8"}]
    assert cache_of({}, {"shown": shown}, True) == "float16, int8"
    assert cache_of({}, {"shown": shown[1:2]}, True) is None
    assert cache_of({}, {"trained_on": "data of the release"}, False) is None


def test_a_run_tells_what_its_training_looked_at_and_where_that_changed(tmp_path: Path, capsys: pytest.CaptureFixture):
    text = (Path(__file__).parents[2] / "checkpoints" / "point_maze_lewm" / "provenance.json").read_text()
    (tmp_path / "provenance.json").write_text(text)
    frames, tokens = {"kind": "frames", "encoder_precision": "bf16"}, {"kind": "tokens", "dtype": "float16"}
    for step, facts in ((0, frames), (3, frames), (5, tokens), (6, tokens)):
        note_source(tmp_path, step, facts)
    assert capsys.readouterr().out.startswith(
        "note: from step 5 on training looks at tokens, float16, before at frames, bf16;"
    )
    kept = json.loads((tmp_path / "provenance.json").read_text())
    assert kept == json.loads(text) | {"shown": [{"from_step": 0, **frames}, {"from_step": 5, **tokens}]}
