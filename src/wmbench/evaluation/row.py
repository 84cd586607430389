"""Whom a row of a table is about, as typed facts: a trained model, a floor or the ceiling."""

from dataclasses import asdict, dataclass, field
from typing import Any

from wmbench.evaluation.conditions import Facts, digest, flat

BASELINES = ("random", "zero", "simulator")  # floors and ceiling of every table

# Settings of a training that its model does not depend on, or that a fact of its own tells.
ELSEWHERE = (
    "env",
    "encoder",
    "predictor",
    "decoder",
    "distance",
    "policy",
    "experiment",
    "cache",
    "arm",
    "proprio",
    "seed",
    "frameskip",
)
ELSEWHERE += ("model_name", "ckpt_base_path", "device", "wandb")
UNNAMED = ("data", "appearance", "position_r2", "effective_rank")  # facts of a row that do not say who it is
UNREAD = ("save_every", "valid_every", "valid_batches")  # of conf/training


@dataclass(frozen=True)
class Row:
    """Facts that a table prints and that tell one model from another; a floor has none but the first.

    row: the name in tables.
    actor: model (which is planned with), inverse (its inverse model acts), or which of BASELINES.
    encoder, encoder_name: its class; its file in conf/encoder, where the run says.
    encoder_weights: their hash; weights_hash is that of the run's own file.
    pixels, output, temporal, input_size: of the encoder, where it has such a setting.
    recipe: settings of the training that decide the model.
    cache_dtype: of the tokens that the model was trained on; None without a cache.
    data, image_size, renderer, appearance: the episodes, and their frames.
    position_r2, effective_rank: of its latents: how well the ball is read from them, and how many directions they fill.
    fitted: settings and weights' hash of what an objective or an inverse model learned from the run's data.
    note: what is not as the encoder's name says, in words.
    code: version of the actor's own code.
    """

    row: str
    actor: str = "model"
    environment: str = "point_maze"
    encoder: str | None = None
    encoder_name: str | None = None
    encoder_source: str | None = None
    encoder_weights: str | None = None
    arm: str | None = None
    pixels: str | None = None
    output: str | None = None
    temporal: str | None = None
    input_size: int | None = None
    predictor: Facts = field(default_factory=dict)
    parameters: int | float | None = None
    recipe: Facts = field(default_factory=dict)
    proprio: str | None = None
    cache_dtype: str | None = None
    train_seed: int | None = None
    step: int | None = None
    weights_hash: str | None = None
    data: str | None = None
    data_hash: str | None = None
    renderer: str | None = None
    image_size: int | None = None
    appearance: str | None = None
    position_r2: float | None = None
    effective_rank: float | None = None
    fitted: Facts = field(default_factory=dict)
    note: str = ""
    code: str | None = None

    @property
    def is_baseline(self) -> bool:
        return self.actor in BASELINES

    @property
    def hash(self) -> str:
        """Names who acts. Where its data are, which their hash tells, and how well its latents are read do not count."""
        return digest({name: value for name, value in flat(asdict(self)) if name not in UNNAMED})

    @property
    def facts(self) -> Facts:
        """What may tell two models apart besides their encoders and seeds."""
        names = ("arm", "proprio", "cache_dtype", "data_hash", "image_size")
        own = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.step != self.recipe.get("max_steps") and self.step is not None:
            own["step"] = self.step
        facts = dict(flat({"predictor": self.predictor, "recipe": self.recipe, **self.fitted}))
        return own | {name: value for name, value in facts.items() if not name.endswith("weights_hash")}


def recipe_of(training: Facts) -> Facts:
    """A run's configuration without what its model does not depend on and what other facts of a row tell."""
    settings = {name: value for name, value in training.items() if name not in ELSEWHERE}
    steps = {name: value for name, value in settings.pop("training").items() if name not in UNREAD}
    return steps | settings


def cache_of(training: Facts, provenance: dict[str, Any], is_frozen: bool) -> str | None:
    """Type of the tokens that a run was trained on: as it recorded it, else as it was configured."""
    if "shown" in provenance:
        return ", ".join(dict.fromkeys(part["dtype"] for part in provenance["shown"] if "dtype" in part)) or None
    cache = training.get("cache") or {"enabled": False}
    return str(cache["dtype"]) if is_frozen and cache["enabled"] is not False else None
