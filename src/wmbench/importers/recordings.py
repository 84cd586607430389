"""A file that an original implementation recorded, compared with what this code computes."""

from collections.abc import Iterator
from pathlib import Path

from wmbench.importers import golden, golden_lewm
from wmbench.importers.checkpoint import verify_checkpoint

Line = tuple[str, float, float, str]  # quantity, relative error, limit, what is wrong apart from the number


def compare(file: Path, world_model: Path | None, checkpoint: Path | None) -> Iterator[Line]:
    """Compare every quantity of a file, one line for each; the contents tell the file's kind."""
    record = golden.read_record(file)
    if {"predict", "proprio_embedding"} <= record.keys():
        if checkpoint is None:
            raise ValueError(f"{file} holds outputs of a checkpoint; add --checkpoint FOLDER, the released folder itself")
        yield from ((name, error, limit, "") for name, error, limit in verify_checkpoint(checkpoint, file))
        return
    if "noise" in record:
        if world_model is None:
            raise ValueError(f"{file} is a trace of CEM; add --world-model FILE, the world model that it was recorded with")
        quantities = golden.recompute_cem(record, golden.read_record(world_model))
    elif "encoder_patch_linear" in record:
        quantities = golden.recompute(record)
    elif "weights" in record:
        quantities = golden_lewm.recompute_lewm(record)
    else:
        raise ValueError(f"{file} is no recorded world model, CEM trace, LeWM or checkpoint; it holds {', '.join(record)}")
    for name, ours, recorded, limit in quantities:
        differs = f": {tuple(recorded.shape)} recorded, {tuple(ours.shape)} computed" if ours.shape != recorded.shape else ""
        yield name, golden.relative_error(ours, recorded), limit, differs
