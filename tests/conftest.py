"""Fixtures that several test files share."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hanging import IDLE_S, STARTS, ended_if_it_hangs

from wmbench.data import episodes as storage

torch.set_num_threads(1)  # the tests are small: a second thread costs more than it gives

GOLDEN = Path(__file__).parent / "data"
START_S = time.process_time()  # what Python and PyTorch took to be here: a measure of the machine


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    with ended_if_it_hangs(IDLE_S, STARTS * START_S):
        return (yield)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of tensors recorded from the original implementations."""
    return GOLDEN


@pytest.fixture
def numbered_episodes(tmp_path: Path):
    """Factory of small data sets whose every number tells its episode and step.

    Episode e, step t: pixels are e * 20 + t (so t < 20), action (e, t), state and proprio (e, t, -e, -t).
    """

    def make(num_episodes: int = 3, length: int = 12, store_every: int = 1, image_size: int = 8) -> storage.Episodes:
        path = tmp_path / f"numbered_{num_episodes}_{length}_{store_every}_{image_size}.h5"
        manifest = {
            "num_episodes": num_episodes,
            "episode_length": length,
            "store_every": store_every,
            "image_size": image_size,
            "hash": f"numbered-{num_episodes}-{length}-{store_every}",
            "maze": ["#####", "#...#", "###.#", "#...#", "#####"],
            "renderer": "warp",
            "render_lag": False,
        }
        storage.create(path, manifest)
        columns = storage.map_columns(path, "r+")
        episode, step = np.divmod(np.arange(num_episodes * length), length)
        columns["action"][:] = np.stack([episode, step], 1)
        columns["state"][:] = columns["proprio"][:] = np.stack([episode, step, -episode, -step], 1)
        stored = step % store_every == 0
        columns["pixels"][:] = (episode * 20 + step)[stored][:, None, None, None]
        for column in columns.values():
            column.flush()
        return storage.Episodes(path)

    return make
