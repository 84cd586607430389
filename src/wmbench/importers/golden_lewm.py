"""Files recorded from the original LeWorldModel: rebuild the model in them and recompute every number they hold."""

from collections.abc import Iterator
from typing import Any

import torch

from wmbench.data.normalizer import Normalizer
from wmbench.importers.golden import Quantity
from wmbench.importers.lewm import build_lewm
from wmbench.importers.weights import check_names
from wmbench.models.sigreg import epps_pulley
from wmbench.planning.objective import Objective
from wmbench.shapes import Batch, Obs

RECORDED = ("config", "weights", "pixels", "action", "embedding", "action_embedding", "prediction", "prediction_loss")
RECORDED += ("candidates", "rollout", "cost", "sigreg")


@torch.no_grad()
def recompute_lewm(record: dict[str, Any]) -> Iterator[Quantity]:
    """Recompute everything recorded in a file such as lewm_tiny.pt; its pixels and actions are normalised already.

    Raises:
        ValueError: a part that is missing, or that nothing here recomputes; tensors that do not fit their model.
    """
    check_names("the record", record, RECORDED)
    check_names("sigreg", record["sigreg"], ("z", "directions", "statistic", "mean"))
    check_names("config", record["config"], ("heads", "predictor_heads"), None)
    heads = {
        "encoder": {"num_attention_heads": record["config"]["heads"]},
        "predictor": {"heads": record["config"]["predictor_heads"]},
    }
    one = torch.ones(1)
    model = build_lewm(record["weights"], heads, Normalizer(0 * one, one, 0 * one, one))
    action_encoder: Any = model.predictor.action_encoder
    model.encoder.preprocess = lambda visual: visual.flatten(0, 1)
    pixels, action = record["pixels"], record["action"]
    obs = Obs(visual=pixels, proprio=torch.zeros(*pixels.shape[:2], 1))
    z = model.encode(obs)
    yield Quantity("embedding", z[:, :, 0], record["embedding"])
    yield Quantity("action_embedding", action_encoder(action), record["action_embedding"])
    yield Quantity("prediction", model.predict(z[:, :-1], action[:, :-1])[:, :, 0], record["prediction"])
    yield Quantity("prediction_loss", model.loss(Batch(obs, action)).parts["prediction"], record["prediction_loss"])

    candidates = record["candidates"]
    rollout = model.rollout(z[:, :1], action[:, :0], candidates)
    start = z[:, None, :1].expand(-1, candidates.shape[1], -1, -1, -1)
    yield Quantity("rollout", torch.cat([start, rollout], dim=2)[:, :, :, 0], record["rollout"])
    cost = Objective("last")(model, z[:, 0], rollout, z[:, -1])
    yield Quantity("cost", cost * model.encoder.embed_dim, record["cost"])  # theirs sums over features, ours averages
    statistic = epps_pulley(record["sigreg"]["z"] @ record["sigreg"]["directions"])
    yield Quantity("sigreg.statistic", statistic, record["sigreg"]["statistic"])
    yield Quantity("sigreg.mean", statistic.mean(), record["sigreg"]["mean"])
