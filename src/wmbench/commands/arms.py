"""How a run's encoder differs from what its plain name says: the word of its arm, and every difference in words."""

from collections.abc import Iterator, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from wmbench.commands import CONF, encoder_config
from wmbench.encoders.base import Encoder
from wmbench.encoders.matched import Matched, unmatched

PLACES = ("name", "sha256", "licence", "access", "setting", "file")  # of a release, which its url follows


def arm_of(cfg: DictConfig) -> str:
    """The arm's name, with a word for each other arm that single settings make of it: native with a pool is matched.

    Raises:
        ValueError: an arm whose own settings have been taken back, or an untrained twin of an encoder without weights.
    """
    if cfg.arm == "untrained" and "pretrained" not in signature(get_class(cfg.encoder._target_)).parameters:
        raise ValueError(f"arm=untrained is for pretrained encoders, and {cfg.encoder._target_} is none; leave arm out")
    ways = {
        "matched": (is_matched(cfg), "matched.standardise=true, matched.width or matched.pool"),
        "finetuned": (cfg.train_encoder, "train_encoder=true"),
        "untrained": (cfg.encoder.get("pretrained") is False, "encoder.pretrained=false"),
    }
    if cfg.arm in ways and not ways[cfg.arm][0]:
        raise ValueError(f"arm={cfg.arm} needs {ways[cfg.arm][1]}, which this command line takes back; leave arm out")
    words = [arm for arm, (is_made, _) in ways.items() if is_made and arm != cfg.arm]
    return "_".join(words if cfg.arm == "native" and words else [cfg.arm, *words])


def is_matched(cfg: DictConfig) -> bool:
    """Whether anything is done to make the encoder comparable."""
    return any(value not in (None, False, "random") for value in cfg.matched.values())


def note_of(encoder: Encoder, cfg: DictConfig, provenance: Mapping[str, Any]) -> str:
    """What every table says of a run's encoder after its name.

    Args:
        cfg, provenance: the run's, as load_run gives them.
    """
    words = [unmatched(encoder).note]
    if cfg.encoder is not None:
        config = OmegaConf.to_container(cfg.encoder, resolve=True)
        words += differences(config, plain_config(provenance["encoder"].get("name"), config))  # type: ignore[arg-type]
    if isinstance(encoder, Matched):
        words += encoder.changes
    if cfg.matched.projection == "learned":
        words.append(f"predictor of width {cfg.matched.width or 'its tokens'} between learned layers")
    if cfg.train_encoder:
        words.append(f"fine-tuned at {cfg.encoder_lr:g}")
    return ", ".join(filter(None, words))


def plain_config(name: str | None, config: Mapping[str, Any]) -> dict[str, Any]:
    """What conf/encoder/NAME.yaml says today; an older run, which does not tell the name, is matched by release or class.

    Empty where the file is gone: all of the run's settings are then differences.
    """
    files = {path.stem: path.read_text() for path in sorted(Path(CONF, "encoder").glob("*.yaml"))}
    if name is None and "release" in config:
        name = config["release"]["name"].partition(" ")[0]
    if name is None:
        name = next((stem for stem, text in files.items() if f"_target_: {config['_target_']}\n" in text), None)
    return encoder_config(name) if name in files else {}


def differences(config: Mapping[str, Any], plain: Mapping[str, Any]) -> list[str]:
    """A phrase for every setting of an encoder that is not as in `plain` and decides tokens."""
    before = dict(_settings(plain))
    changed = {key: value for key, value in _settings(config) if before.get(key) != value}
    for key in list(changed):
        prefix, _, leaf = key.rpartition(".")
        owner = prefix.rpartition(".")[0]
        follows_model = leaf == "url" and f"{owner}.model".removeprefix(".") in changed
        is_unread = leaf == "seed" and config.get("pretrained", False)
        if follows_model or is_unread:
            del changed[key]
    return [_phrase(key, value) for key, value in changed.items()]


def _settings(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values that can decide tokens, paths and classes by their last name."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{prefix}{key}.")
        elif key == "_target_":
            yield f"{prefix}class", value.rpartition(".")[2]
        elif key == "file" and "release." not in prefix:
            yield f"{prefix}{key}", Path(value).name
        elif key != "_partial_" and not ("release." in prefix and (key in PLACES or "class" in key)):
            yield f"{prefix}{key}", value


def _phrase(key: str, value: Any) -> str:
    prefix, _, leaf = key.rpartition(".")
    match leaf:
        case "pretrained":
            phrase = "pretrained" if value else "untrained"
        case "weights" | "trunk_weights" if value is not None:
            phrase = f"{leaf.replace('_', ' ')} from {Path(value).name}"
        case "image_size":
            phrase = f"at {value} pixels"
        case _:
            phrase = f"{leaf.replace('_', ' ')} {value}"
    return f"{prefix.replace('.', ' ')} {phrase}".strip()
