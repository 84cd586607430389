"""Weights of runs, saved and loaded strictly.

A run is a folder: config.yaml (the whole configuration), provenance.json (data, encoder, code it came from),
metrics.csv, step_XXXXXX.safetensors (weights, without a frozen encoder's), resume.safetensors (the optimiser's state),
resume_before.safetensors (the same as saved the time before), and where a decoder was trained decoder.yaml,
decoder.safetensors, decoder_resume.safetensors, decoder_metrics.csv; likewise for a distance and a policy.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from wmbench.data.normalizer import Normalizer
from wmbench.data.official import recorded_path
from wmbench.encoders.base import Encoder, weights_hash
from wmbench.encoders.matched import unmatched
from wmbench.encoders.weights import check_state
from wmbench.models.world_model import WorldModel
from wmbench.runs.build import ACTION_DIM, PROPRIO_DIM, UNMATCHED, build_decoder, build_head, build_world_model
from wmbench.runs.find import latest_step, saved_steps, step_path
from wmbench.runs.store import load_mapping, load_tensors, own_state, save_mapping, save_tensors
from wmbench.runs.trust import check_names, renamed

OLDER = {
    "concat_dim": 1,
    "matched": UNMATCHED,
    "train_encoder": False,
    "encoder_lr": 1e-6,
    "precision": "auto",
}  # of older runs


def read_config(path: Path, remedy: str, needed: tuple[str, ...] = ("encoder",)) -> DictConfig:
    """Read a run's config.yaml, with what older runs do not say and with the names that classes have today.

    Raises:
        ValueError: a damaged file, or one that names what a run may not name; the message has the remedy.
    """
    config = renamed(load_mapping(path, remedy, needed))
    for group, node in config.items():
        if node == "???":
            raise ValueError(f"{path} is damaged ({group} is a value that was still to be given); {remedy}")
        check_names(node, str(group), str(path), remedy)
    try:
        return OmegaConf.merge(OLDER, config)  # type: ignore[return-value]
    except OmegaConfBaseException as error:  # a list in place of named values
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())}); {remedy}") from None


def read_provenance(run: Path, remedy: str) -> dict[str, Any]:
    """Read what a run's data, encoder and code were.

    Raises:
        ValueError: a damaged file, or facts of another kind than those that were written; the message has the remedy.
    """
    path = run / "provenance.json"
    found = load_mapping(path, remedy, ("data", "encoder"))
    for place, kinds in KINDS.items():
        facts = found[place] if place else found
        if not isinstance(facts, dict):
            raise ValueError(f"{path} is damaged ({place} cannot be {str(facts)[:40]!r}); {remedy}")
        for name, kind in kinds.items():
            if name in NEEDED_FACTS and name not in facts:
                raise ValueError(f"{path} is damaged (it lacks {f'{place}.{name}'.strip('.')}); {remedy}")
            if name in facts and not isinstance(facts[name], kind):
                raise ValueError(f"{path} is damaged ({name} cannot be {str(facts[name])[:40]!r}); {remedy}")
    for one in found.get("shown", []):
        if not isinstance(one, dict) or not all(isinstance(fact, str | int) for fact in one.values()):
            raise ValueError(f"{path} is damaged (a training cannot look at {str(one)[:40]!r}); {remedy}")
    return found


# Facts of provenance.json that are read again, and those of them without which a run cannot be told from another.
KINDS = {
    "": {"predictor_parameters": int, "shown": list},
    "data": {"hash": str, "renderer": str, "image_size": int, "path": str, "absolute_path": str},
    "encoder": {"weights_hash": str | None, "name": str | None, "parameters": int},
}
NEEDED_FACTS = ("hash", "weights_hash", "parameters", "predictor_parameters")

# Without these a run cannot be built; each is on every run's first level.
NEEDED = (
    "encoder",
    "predictor",
    "training",
    "frameskip",
    "num_hist",
    "num_pred",
    "proprio",
    "proprio_embed_dim",
    "model_name",
)
ELSEWHERE = "take it from a copy of the run, or delete the folder and train it again"


def save_weights(run: Path, step: int, model: WorldModel) -> None:
    """Write step_XXXXXX.safetensors: all of the model but a frozen encoder."""
    save_tensors(step_path(run, step), own_state(model))


def load_run(
    run: Path, step: int | None = None, encoder: DictConfig | None = None
) -> tuple[WorldModel, DictConfig, dict[str, Any]]:
    """Load the model in evaluation mode, configuration and provenance of a run at a step (by default the last one saved).

    Args:
        encoder: for an imported run, whose file held no encoder; every other run has its own.

    Raises:
        FileNotFoundError: no weights (of that step).
        ValueError: weights that do not fit the model, tensor by tensor, a frozen encoder that is not the one that the
            run was trained with, an encoder too many or too few.
    """
    provenance = read_provenance(run, ELSEWHERE)
    cfg = read_config(run / "config.yaml", ELSEWHERE, NEEDED)
    about = provenance["encoder"]
    if not isinstance(cfg.encoder, DictConfig | None):
        raise ValueError(f"{run / 'config.yaml'} is damaged (its encoder is {cfg.encoder!r}); {ELSEWHERE}")
    trained_on = about["weights_hash"]  # None: an imported file does not say
    if encoder is not None and trained_on is not None:
        own = OmegaConf.select(cfg, "encoder._target_")
        raise ValueError(f"run {run.name} has its own encoder ({own}); leave encoder= out")
    if encoder is None and cfg.encoder is None:
        raise ValueError(f"{_wanted_encoder(cfg, provenance)}; name one that gives them, for example encoder=dino")
    if encoder is not None:
        cfg.encoder = encoder
    wanted = latest_step(run) if step is None else step
    if wanted is None or not step_path(run, wanted).exists():
        saved = ", ".join(sorted(path.stem for path in run.glob("step_*.safetensors"))) or "none"
        raise FileNotFoundError(f"run {run.name} has no weights{'' if step is None else f' of step {step}'}; saved: {saved}")
    path = step_path(run, wanted)
    earlier = [str(saved) for saved in saved_steps(run) if saved != wanted]
    way_out = f"take another step: checkpoint={' or '.join(earlier)}" if earlier else "delete it and train again"
    state, _ = load_tensors(path, way_out)
    blank = torch.zeros(ACTION_DIM), torch.ones(ACTION_DIM), torch.zeros(PROPRIO_DIM), torch.ones(PROPRIO_DIM)
    with _described_by(run / "config.yaml"):
        model = build_world_model(cfg, Normalizer(*blank))
    if encoder is not None and (model.encoder.num_tokens, model.encoder.embed_dim) != (
        about["num_tokens"],
        about["embed_dim"],
    ):
        gives = f"{model.encoder.num_tokens} of width {model.encoder.embed_dim}"
        raise ValueError(f"{_wanted_encoder(cfg, provenance)}; this encoder gives {gives}")
    own = own_state(model)
    check_state(f"{path} does not fit its config.yaml", state, {name: tensor.shape for name, tensor in own.items()})
    model.load_state_dict(state, strict=False)  # strict by the check above, up to the frozen encoder
    if model.encoder.frozen and trained_on and (found := weights_hash(unmatched(model.encoder))) != trained_on:
        raise ValueError(
            f"run {run.name} was trained on encoder weights {trained_on}, these are {found} ({model.encoder.source})"
        )
    provenance["step"] = wanted
    return model.eval().requires_grad_(False), cfg, provenance


@contextmanager
def _described_by(path: Path) -> Iterator[None]:
    """Name the file that describes what cannot be built; weights that are not on this machine say so themselves."""
    try:
        yield
    except Exception as error:  # a damaged file can describe anything
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        if isinstance(cause, OSError):
            raise cause from None
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise ValueError(f"{path} describes nothing that can be built: {reason}") from error


def load_encoder(run: Path) -> tuple[Encoder, str]:
    """Load the encoder of a run, as its latest step has it, and the path of its data; nothing is downloaded.

    Raises:
        FileNotFoundError, ValueError: as load_run, and for weights that are not cached.
    """
    if not (run / "config.yaml").exists():
        raise FileNotFoundError(f"{run} is no run of ours, which would say what its encoder is")
    if missing := _not_cached(read_config(run / "config.yaml", ELSEWHERE).encoder):
        raise FileNotFoundError(f"the weights {', '.join(missing)} are not on this machine")
    model, _, provenance = load_run(run)
    data = recorded_path(provenance["data"])
    if data is None:
        raise FileNotFoundError(f"{run} does not say what data it was trained on")
    return model.encoder, data


def _not_cached(encoder: DictConfig | None) -> list[str]:
    """Released files that building a configured encoder, or the backbone inside it, would download."""
    if encoder is None or not encoder.get("pretrained", False):
        return []
    places = [("release", "weights"), ("trunk_release", "trunk_weights")]
    releases = [instantiate(encoder[name]) for name, given in places if encoder.get(name) and not encoder[given]]
    missing = [release.file for release in releases if not release.path.exists()]
    return missing + _not_cached(encoder.get("backbone"))


def _wanted_encoder(cfg: DictConfig, provenance: dict[str, Any]) -> str:
    encoder = provenance["encoder"]
    needs = f"{encoder['num_tokens']} tokens of width {encoder['embed_dim']}"
    return f"run {cfg.model_name} was imported without its encoder and needs {needs}"


def save_part(run: Path, name: str, config: Mapping[str, Any], module: nn.Module) -> None:
    """Write what was trained after the model: NAME.yaml (as in conf/NAME; `training` may be left out), NAME.safetensors."""
    plain = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config
    save_mapping(run / f"{name}.yaml", dict(plain))  # type: ignore[arg-type]
    save_tensors(run / f"{name}.safetensors", own_state(module))


def load_part(run: Path, name: str, build: Callable[[dict[str, Any]], nn.Module]) -> nn.Module | None:
    """Load what save_part wrote in evaluation mode, without gradients; None where the run has none.

    Args:
        build: the untrained module that a configuration describes.

    Raises:
        ValueError: a damaged file, one that names what a run may not name, or weights that do not fit NAME.yaml, tensor
            by tensor.
    """
    path, remedy = run / f"{name}.safetensors", f"delete {name}.* in that folder to go without a {name}"
    if not path.exists():
        return None
    config = renamed(load_mapping(run / f"{name}.yaml", remedy, ("_target_",)))
    check_names(config, name, str(run / f"{name}.yaml"), remedy)
    with _described_by(run / f"{name}.yaml"):
        module = build(config)
    state, _ = load_tensors(path, remedy)
    shapes = {key: tensor.shape for key, tensor in module.state_dict().items()}
    check_state(f"{path} does not fit its {name}.yaml", state, shapes)
    module.load_state_dict(state)
    return module.eval().requires_grad_(False)


def save_decoder(run: Path, config: Mapping[str, Any], decoder: nn.Module) -> None:
    save_part(run, "decoder", config, decoder)


def load_decoder(run: Path, dim: int, grid: tuple[int, int], image_size: int) -> nn.Module | None:
    """Load the run's decoder in evaluation mode, without gradients; None where it has none.

    Args:
        dim, grid: of the encoder's tokens.
        image_size: side of the frames it draws [pixels].

    Raises:
        ValueError: a damaged file, or weights that do not fit decoder.yaml, tensor by tensor.
    """
    return load_part(run, "decoder", lambda config: build_decoder(config, dim, grid, image_size))


def load_head(run: Path, name: str, model: WorldModel) -> nn.Module:
    """Load the run's distance or policy, for the visual latents of its model.

    Raises:
        FileNotFoundError: the run has none.
        ValueError: as load_part.
    """
    head = load_part(run, name, lambda config: build_head(config, model))
    if head is None:
        kind = {"distance": "quasimetric", "policy": "inverse"}[name]
        raise FileNotFoundError(
            f"{run} has no {name}; train one: the train.py command that made the run, with {name}={kind} added"
        )
    return head
