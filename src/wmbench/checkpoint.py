"""Runs on disk: find them, build their model, save and load weights strictly.

A run is a folder: config.yaml (the whole configuration), provenance.json (data, encoder, code it came from),
metrics.csv, step_XXXXXX.safetensors (weights, without a frozen encoder's), resume.safetensors (the optimiser's state),
and where a decoder was trained decoder.yaml, decoder.safetensors, decoder_resume.safetensors, decoder_metrics.csv.
"""

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from wmbench.data.normalizer import Normalizer
from wmbench.data.official import recorded_path
from wmbench.encoders.base import Encoder, weights_hash
from wmbench.encoders.matched import matched, unmatched
from wmbench.encoders.weights import check_state
from wmbench.envs.view import EnvSpec
from wmbench.files import shipped
from wmbench.models.projected import Projected
from wmbench.models.world_model import WorldModel, proprio_part
from wmbench.store import load_mapping, load_tensors, own_state, save_mapping, save_tensors

ACTION_DIM, PROPRIO_DIM = EnvSpec.action_dim, EnvSpec.proprio_dim
UNMATCHED = {"pool": None, "width": None, "standardise": False, "layer_norm": False, "projection": "random"}
MOVED = {"wmbench.models.predictor.FrameCausalViT": "wmbench.models.vit.FrameCausalViT"}  # a run names classes by these
OLDER = {
    "concat_dim": 1,
    "matched": UNMATCHED,
    "train_encoder": False,
    "encoder_lr": 1e-6,
    "precision": "auto",
}  # of older runs


def read_config(path: Path, remedy: str, needed: tuple[str, ...] = ("encoder",)) -> DictConfig:
    """A run's config.yaml, with what older runs do not say and with the names that classes have today.

    Raises:
        ValueError: a damaged file; the message ends with the remedy.
    """

    def renamed(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: MOVED.get(value, value) if key == "_target_" else renamed(value) for key, value in node.items()}
        return node

    merged = OmegaConf.merge(OLDER, renamed(load_mapping(path, remedy, needed)))
    assert isinstance(merged, DictConfig)
    return merged


def build_world_model(cfg: DictConfig, normalizer: Normalizer) -> WorldModel:
    """The untrained model that a training configuration describes."""
    if cfg.num_hist < 1:
        raise ValueError(f"num_hist ({cfg.num_hist}) must be at least 1: the predictor needs a frame to start from")
    if cfg.num_pred != 1:
        raise ValueError(f"num_pred ({cfg.num_pred}) must be 1: a rollout advances one frame a call")
    encoder = instantiate(cfg.encoder)
    if train_encoder := cfg.get("train_encoder", False):
        encoder.unfreeze()
    arm = UNMATCHED | dict(cfg.get("matched", {}))
    encoder = matched(encoder, **arm)
    regularizer = instantiate(cfg.training.regularizer)
    if not encoder.frozen and not train_encoder and regularizer is None:
        raise ValueError("an encoder that trains with the model collapses without training.regularizer; use training=lewm")
    has_proprio = len(range(PROPRIO_DIM)[proprio_part(cfg.proprio)]) > 0
    if cfg.concat_dim not in (0, 1):
        raise ValueError(f"concat_dim ({cfg.concat_dim}) must be 1 (extend every token) or 0 (one more token)")
    dim = encoder.embed_dim + (has_proprio and cfg.concat_dim == 1) * cfg.proprio_embed_dim
    build = instantiate(
        cfg.predictor,
        _partial_=True,
        num_tokens=encoder.num_tokens + (has_proprio and cfg.concat_dim == 0),
        num_hist=cfg.num_hist,
        action_dim=cfg.frameskip * ACTION_DIM,
    )
    return WorldModel(
        encoder,
        Projected(build, dim, arm["width"] or dim) if arm["projection"] == "learned" else build(dim=dim),
        normalizer,
        proprio=cfg.proprio,
        proprio_embed_dim=cfg.proprio_embed_dim,
        concat_dim=cfg.concat_dim,
        frameskip=cfg.frameskip,
        num_hist=cfg.num_hist,
        regularizer=regularizer,
    )


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
RUN_FILES = ("config.yaml", "hydra.yaml")  # one of them makes a folder a run; the second is DINO-WM's
NEIGHBOURS = ("pusht", "wall", "wall_single")  # released beside point_maze
SHIPPED = shipped("checkpoints")


def find_run(base: Path, name: str) -> Path:
    """The folder of a run under base/outputs, base or, from whatever folder one works in, among the shipped ones.

    Raises:
        FileNotFoundError: no such run; the message lists those there are.
    """
    for folder in (base / "outputs" / name, base / name, SHIPPED / name):
        if any((folder / kind).exists() for kind in RUN_FILES):
            return folder
    if name in NEIGHBOURS:
        raise FileNotFoundError(f"{name!r} is DINO-WM's model of another environment, and wmbench has PointMaze alone")
    names = list_runs(base)
    found = ", ".join(names) if names else "none; train one with: python train.py env=point_maze encoder=lewm_small"
    raise FileNotFoundError(f"no run {name!r} in {base / 'outputs'} or {base}; found: {found}")


def list_runs(base: Path, pattern: str = "*") -> list[str]:
    """Names of the runs that match a glob, whose * also stands for folders: exp1/maze is a run in a folder of runs."""
    names = set()
    for folder in (base, SHIPPED, base / "outputs"):
        configs = [path for kind in RUN_FILES for path in folder.glob(f"*/**/{kind}")]
        names |= {path.parent.relative_to(folder).as_posix() for path in configs}
    inside = {name for name in names if any(str(folder) in names for folder in Path(name).parents)}  # of a run
    shown = [name for name in names - inside if not name.startswith(("outputs/", ".")) and "/." not in name]
    return sorted(name for name in shown if fnmatch.fnmatchcase(name, pattern))


def step_path(run: Path, step: int) -> Path:
    return run / f"step_{step:06d}.safetensors"


def saved_steps(run: Path) -> list[int]:
    names = (path.stem.removeprefix("step_") for path in run.glob("step_*.safetensors"))
    return sorted(int(name) for name in names if name.isdigit())


def latest_step(run: Path) -> int | None:
    return max(saved_steps(run), default=None)


def step_of(checkpoint: object) -> int | None:
    """The step that `checkpoint` asks for; None for the latest.

    Raises:
        ValueError: neither `latest` nor a step.
    """
    if checkpoint == "latest":
        return None
    if not isinstance(checkpoint, int) or isinstance(checkpoint, bool) or checkpoint < 0:
        raise ValueError(f"checkpoint ({checkpoint!r}) must be latest or the number of a saved step, such as checkpoint=500")
    return checkpoint


def planned_run(results: Path) -> Path:
    """The run that plan.py wrote a result folder with, found as plan.py found it.

    Raises:
        FileNotFoundError: it is not there any more.
    """
    cfg = OmegaConf.load(results / "config.yaml")
    return find_run(Path(cfg.ckpt_base_path), cfg.model_name)


def save_weights(run: Path, step: int, model: WorldModel) -> None:
    """Write step_XXXXXX.safetensors: all of the model but a frozen encoder."""
    save_tensors(step_path(run, step), own_state(model), {"step": str(step)})


def load_run(
    run: Path, step: int | None = None, encoder: DictConfig | None = None
) -> tuple[WorldModel, DictConfig, dict[str, Any]]:
    """Model in evaluation mode, configuration and provenance of a run at a step (by default the last one saved).

    Args:
        encoder: for an imported run, whose file held no encoder; every other run has its own.

    Raises:
        FileNotFoundError: no weights (of that step).
        ValueError: weights that do not fit the model, tensor by tensor, a frozen encoder that is not the one that the
            run was trained with, an encoder too many or too few.
    """
    provenance = load_mapping(run / "provenance.json", ELSEWHERE, ("data", "encoder"))
    cfg = read_config(run / "config.yaml", ELSEWHERE, NEEDED)
    trained_on = provenance["encoder"]["weights_hash"]  # None: an imported file does not say
    if encoder is not None and trained_on is not None:
        raise ValueError(f"run {run.name} has its own encoder ({cfg.encoder._target_}); leave encoder= out")
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
    model = build_world_model(cfg, Normalizer(*blank))
    if encoder is not None and (model.encoder.num_tokens, model.encoder.embed_dim) != (
        provenance["encoder"]["num_tokens"],
        provenance["encoder"]["embed_dim"],
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


def load_encoder(run: Path) -> tuple[Encoder, str]:
    """The encoder of a run, as its latest step has it, and the path of its data; nothing is downloaded.

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


def build_decoder(config: Mapping[str, Any], dim: int, grid: tuple[int, int], image_size: int) -> nn.Module:
    """The untrained decoder that a configuration describes, from a grid of tokens of width dim to square frames."""
    module = {name: value for name, value in config.items() if name != "training"}
    return instantiate(module, _partial_=True)(dim=dim, grid=grid, image_size=image_size)


def save_decoder(run: Path, config: Mapping[str, Any], decoder: nn.Module) -> None:
    """Write decoder.yaml (conf/decoder's keys; `training` may be left out) and decoder.safetensors."""
    save_mapping(run / "decoder.yaml", dict(config))
    save_tensors(run / "decoder.safetensors", own_state(decoder), {})


WITHOUT = "delete decoder.* in that folder to go without a decoder"


def load_decoder(run: Path, dim: int, grid: tuple[int, int], image_size: int) -> nn.Module | None:
    """The run's decoder in evaluation mode, without gradients; None where it has none.

    Args:
        dim, grid: of the encoder's tokens.
        image_size: side of the frames it draws [pixels].

    Raises:
        ValueError: a damaged file, or weights that do not fit decoder.yaml, tensor by tensor.
    """
    path = run / "decoder.safetensors"
    if not path.exists():
        return None
    config = load_mapping(run / "decoder.yaml", WITHOUT, ("_target_",))
    decoder = build_decoder(config, dim, grid, image_size)
    state, _ = load_tensors(path, WITHOUT)
    shapes = {name: tensor.shape for name, tensor in decoder.state_dict().items()}
    check_state(f"{path} does not fit its decoder.yaml", state, shapes)
    decoder.load_state_dict(state)
    return decoder.eval().requires_grad_(False)
