"""How far a tensor may be from a recorded one."""

from collections.abc import Callable

import pytest
from torch import Tensor


@pytest.fixture
def assert_recorded() -> Callable[..., None]:
    """Relative L2 error of a whole tensor, ||ours - recorded|| / ||recorded||; NaN fails."""

    def check(ours: Tensor, recorded: Tensor, tolerance: float = 1e-5) -> None:
        assert ours.shape == recorded.shape
        error = ((ours - recorded).norm() / recorded.norm()).item()
        assert error < tolerance, f"relative error {error:.2e}"

    return check
