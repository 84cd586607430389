"""How many directions latents fill."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def effective_rank(x: Float[ndarray, "n K"]) -> float:
    """exp of the entropy of the centred data's singular values (Roy and Vetterli 2007); 0 where nothing changes."""
    size = np.linalg.svd(x - x.mean(0), compute_uv=False)
    if not size.sum():
        return 0.0
    share = size[size > 0] / size.sum()
    return float(np.exp(-(share * np.log(share)).sum()))
