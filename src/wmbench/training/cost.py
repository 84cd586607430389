"""What a training will take: time, disk and memory, before its first step."""

from wmbench.machine import duration, peak_memory, size
from wmbench.runs.store import own_state
from wmbench.training.trainee import Trainee


def disk_bytes(trainee: Trainee, step: int) -> int:
    """Bytes that the steps after `step` will write: every file of weights, and two of the state, one replacing the other."""
    recipe = trainee.recipe
    num_saves = -(-recipe.max_steps // recipe.save_every) - step // recipe.save_every
    weights = sum(tensor.nbytes for tensor in own_state(trainee.module).values())
    learned = sum(p.nbytes for group in trainee.optimizer.param_groups for p in group["params"])
    return trainee.num_files(num_saves) * weights + 2 * (weights + 2 * learned)  # Adam keeps two numbers of each weight


def forecast(what: str, trainee: Trainee, step: int, seconds: float) -> str:
    """Two lines on what the steps after `step` will take."""
    number = sum(p.numel() for group in trainee.optimizer.param_groups for p in group["params"])
    return (
        f"{what}, {number / 1e6:.1f} M trained parameters\n"
        f"will take about {duration(seconds)} on {trainee.device}, {size(disk_bytes(trainee, step))} of disk, "
        f"{size(peak_memory(trainee.device))} of memory"
    )
