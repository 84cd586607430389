"""Windows cut from episodes: which action leaves which frame, how many there are, and the order they come in."""

from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from wmbench.data import episodes as storage
from wmbench.data.episodes import Episodes
from wmbench.data.windows import Windows, split_windows

ALIGNMENTS = [(1, 1), (2, 1), (3, 1), (5, 1), (2, 2), (4, 2), (3, 3), (5, 5)]  # frameskip, store_every


@pytest.fixture(params=ALIGNMENTS, ids=[f"frameskip{skip}-store_every{every}" for skip, every in ALIGNMENTS])
def all_windows(request: pytest.FixtureRequest, numbered_episodes: Callable):
    """Frameskip, store_every, and episode and step of everything in all windows of 3 frames of 4 episodes of 17 steps."""
    frameskip, store_every = request.param
    episodes = numbered_episodes(num_episodes=4, length=17, store_every=store_every)
    windows = Windows(episodes, np.arange(4), num_frames=3, frameskip=frameskip)
    batch = windows.get(np.arange(len(windows)))
    obs, action = batch.obs, batch.action
    assert obs["visual"].shape == (len(windows), 3, 8, 8, 3)
    assert obs["proprio"].shape == (len(windows), 3, 4)
    assert action.shape == (len(windows), 3, 2 * frameskip)
    frame = np.stack(np.divmod(obs["visual"][..., 0, 0, 0].numpy().astype(int), 20), axis=-1)  # W T (episode, step)
    return frameskip, store_every, frame, obs["proprio"].numpy(), action.numpy().reshape(len(windows), 3, frameskip, 2)


def test_proprio_is_that_of_the_frame(all_windows: tuple):
    _, _, frame, proprio, _ = all_windows
    np.testing.assert_array_equal(proprio, np.concatenate([frame, -frame], axis=-1))


def test_frames_lie_frameskip_steps_apart_and_never_cross_an_episode(all_windows: tuple):
    frameskip, _, frame, _, _ = all_windows
    np.testing.assert_array_equal(np.diff(frame, axis=1), np.broadcast_to([0, frameskip], (len(frame), 2, 2)))


def test_a_block_holds_the_actions_taken_from_its_frame_on_in_time_order(all_windows: tuple):
    frameskip, _, frame, _, blocks = all_windows
    for k in range(frameskip):
        np.testing.assert_array_equal(blocks[:, :, k], frame + [0, k])


def test_every_window_that_fits_is_there_once(all_windows: tuple):
    frameskip, store_every, frame, _, _ = all_windows
    starts = [t for t in range(0, 17, store_every) if t + 3 * frameskip <= 17]
    assert [tuple(first) for first in frame[:, 0]] == [(episode, start) for episode in range(4) for start in starts]


def test_only_windows_of_the_given_episodes_are_cut(numbered_episodes: Callable):
    episodes = numbered_episodes(num_episodes=6, length=9)
    train, valid = episodes.split(0.5)
    for which in (train, valid):
        windows = Windows(episodes, which, num_frames=2, frameskip=3)
        obs = windows.get(np.arange(len(windows))).obs
        assert set((obs["visual"].numpy() // 20).flat) == set(which)


def test_any_selection_of_windows_is_read_in_its_order(numbered_episodes: Callable):
    windows = Windows(numbered_episodes(num_episodes=5, length=14), np.array([4, 1, 2]), num_frames=3, frameskip=2)
    chosen = np.array([17, 3, 3, 26, 0])
    batch = windows.get(chosen)
    for k, index in enumerate(chosen):
        one = windows.get(np.array([index]))
        assert all((batch.obs[name][k] == one.obs[name][0]).all() for name in ("visual", "proprio"))
        assert (batch.action[k] == one.action[0]).all()


def test_episodes_of_other_lengths_give_what_they_hold(tmp_path: Path):
    """Lengths 7, 3 and 10 at 2 frames x frameskip 2: 4, none and 7 windows."""
    lengths, path = (7, 3, 10), tmp_path / "lengths.h5"
    episode, step = np.repeat(np.arange(3), lengths), np.concatenate([np.arange(n) for n in lengths])
    with h5py.File(path, "w") as file:
        file["pixels"] = np.broadcast_to((episode * 20 + step)[:, None, None, None], (20, 4, 4, 3)).astype(np.uint8)
        file["action"] = np.stack([episode, step], 1).astype(np.float32)
        file["state"] = file["proprio"] = np.stack([episode, step, -episode, -step], 1).astype(np.float32)
        file["ep_len"], file["ep_offset"] = lengths, (0, 7, 10)
    windows = Windows(Episodes(path), np.arange(3), num_frames=2, frameskip=2)
    batch = windows.get(np.arange(len(windows)))
    first = batch.obs["visual"][:, 0, 0, 0, 0].tolist()
    assert first == [0, 1, 2, 3, 40, 41, 42, 43, 44, 45, 46]
    np.testing.assert_array_equal(batch.action[:, 0, :2], np.stack(np.divmod(first, 20), 1))


def test_dino_wms_data_set_gives_its_number_of_windows(tmp_path: Path):
    """81 an episode of 100 steps at 4 frames x frameskip 5: 145,800 to train and 16,200 to validate (reference, 2.5)."""
    manifest = {"num_episodes": 2000, "episode_length": 100, "store_every": 5, "image_size": 1}
    storage.create(tmp_path / "all.h5", manifest)
    storage.create(tmp_path / "dense.h5", manifest | {"store_every": 1})
    episodes = Episodes(tmp_path / "dense.h5")
    assert len(Windows(episodes, np.array([7]), num_frames=4, frameskip=5)) == 81
    train, valid = (Windows(episodes, which, num_frames=4, frameskip=5) for which in episodes.split())
    assert (len(train), len(valid)) == (145_800, 16_200)
    assert len(Windows(Episodes(tmp_path / "all.h5"), np.array([7]), num_frames=4, frameskip=5)) == 17  # starts 0, 5, .. 80


def test_a_frameskip_whose_frames_are_not_stored_is_refused(numbered_episodes: Callable):
    episodes = numbered_episodes(store_every=2)
    with pytest.raises(ValueError, match=rf"frameskip \(3\) must be a multiple of the 2 steps .* in {episodes.path}"):
        Windows(episodes, np.arange(3), num_frames=2, frameskip=3)


def test_episodes_too_short_for_a_window_are_refused_with_the_numbers(numbered_episodes: Callable):
    episodes = numbered_episodes(length=12)
    with pytest.raises(ValueError, match=rf"{episodes.path} has the 15 steps that 3 frames at frameskip 5 need"):
        Windows(episodes, np.arange(3), num_frames=3, frameskip=5)
    assert len(Windows(episodes, np.arange(3), num_frames=3, frameskip=4)) == 3  # 12 steps: one window each


@pytest.fixture
def windows(numbered_episodes: Callable) -> Windows:
    """23 windows: five batches of 4 an epoch, and three left out."""
    windows = Windows(numbered_episodes(num_episodes=1, length=19), np.arange(1), num_frames=1, frameskip=1)
    windows.start = np.concatenate([windows.start, windows.start[:4]])
    windows.episode = np.zeros(23, np.int64)
    assert len(windows) == 23
    return windows


@pytest.mark.parametrize("first_step", [1, 4, 5, 6, 10, 13])
def test_batches_are_the_same_whatever_step_training_resumes_from(windows: Windows, first_step: int):
    whole = list(islice(windows.batches(4, seed=3), 18))
    resumed = list(islice(windows.batches(4, seed=3, first_step=first_step), 18 - first_step))
    np.testing.assert_array_equal(resumed, whole[first_step:])


def test_every_epoch_is_another_permutation(windows: Windows):
    epochs = [np.concatenate(list(islice(windows.batches(4, seed=3, first_step=5 * e), 5))) for e in range(4)]
    for epoch in epochs:
        assert len(set(epoch)) == 20 and set(epoch) <= set(range(23))  # nothing twice; three of 23 left out
    assert all((one != other).any() for one, other in pairwise(epochs))
    assert set(np.concatenate(epochs)) == set(range(23))  # and others each time


def test_seeds_shuffle_differently(windows: Windows):
    assert (next(windows.batches(23, seed=0)) != next(windows.batches(23, seed=1))).any()


def test_a_batch_larger_than_the_data_is_all_of_it(windows: Windows):
    first, second = islice(windows.batches(1000, seed=0), 2)
    np.testing.assert_array_equal(np.sort(first), np.arange(23))
    np.testing.assert_array_equal(np.sort(second), np.arange(23))
    assert (first != second).any()


@pytest.mark.parametrize(("fraction", "empty"), [(1, "validation"), (0, "training"), (0.2, "training")])
def test_a_split_without_episodes_on_one_side_says_which_and_what_to_set(
    numbered_episodes: Callable, fraction: float, empty: str
):
    episodes = numbered_episodes(num_episodes=4, length=12)
    with pytest.raises(
        ValueError, match=rf"train_fraction \({fraction}\) leaves none of the 4 .* for {empty}; .* 0.25 and 0.75"
    ):
        split_windows(episodes, 2, 1, train_fraction=fraction)


def test_a_single_episode_is_too_few_whatever_the_fraction(numbered_episodes: Callable):
    for fraction in (0.0, 0.9, 1.0):
        with pytest.raises(ValueError, match="has 1 episode; give at least 2, one to train on and one to validate with"):
            split_windows(numbered_episodes(num_episodes=1, length=12), 2, 1, fraction)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, 2, float("nan"), float("inf")])
def test_a_train_fraction_that_is_no_part_of_the_whole_is_refused(numbered_episodes: Callable, fraction: float):
    with pytest.raises(ValueError, match=r"train_fraction \(.*\) must be a part of the episodes"):
        numbered_episodes().split(fraction)


def test_a_split_seed_beyond_64_bits_is_refused(numbered_episodes: Callable):
    with pytest.raises(ValueError, match=r"split_seed \(\d+\) must be a number of at most 64 bits"):
        numbered_episodes().split(0.5, 2**64)


def test_the_two_sides_are_windows_of_the_splits_episodes(numbered_episodes: Callable):
    episodes = numbered_episodes(num_episodes=6, length=9)
    sides = split_windows(episodes, 3, 2, train_fraction=0.5, split_seed=7)
    for windows, which in zip(sides, episodes.split(0.5, 7), strict=True):
        assert (windows.num_frames, windows.frameskip) == (3, 2)
        np.testing.assert_array_equal(np.unique(windows.episode), which)


def test_episodes_too_short_on_one_side_are_named_with_their_side(tmp_path: Path):
    """Lengths 9 and 3 at 2 frames x frameskip 2: only the first has a window, and the split decides which side it is."""
    path = tmp_path / "short.h5"
    with h5py.File(path, "w") as file:
        file["pixels"] = np.zeros((12, 4, 4, 3), np.uint8)
        file["action"], file["state"], file["proprio"] = np.zeros((12, 2)), np.zeros((12, 4)), np.zeros((12, 4))
        file["ep_len"], file["ep_offset"] = (9, 3), (0, 9)
    message = r"the 4 steps .*; the longest has 3, so lower .* \((training|validation) has 1 of 2 episodes\)"
    with pytest.raises(ValueError, match=message):
        split_windows(Episodes(path), 2, 2, train_fraction=0.5)


@pytest.mark.parametrize(("frameskip", "nearest"), [(7, "6 or 8"), (1, "2"), (0, "2"), (-4, "2")])
def test_a_frameskip_that_does_not_fit_is_refused_with_the_nearest_that_do(
    numbered_episodes: Callable, frameskip: int, nearest: str
):
    with pytest.raises(ValueError, match=rf"frameskip \({frameskip}\) must be .*; try frameskip={nearest}$"):
        Windows(numbered_episodes(store_every=2), np.arange(3), num_frames=2, frameskip=frameskip)


@pytest.mark.parametrize("num_frames", [0, -2])
def test_a_window_without_frames_is_refused(numbered_episodes: Callable, num_frames: int):
    with pytest.raises(ValueError, match=rf"num_hist \+ num_pred \({num_frames}\) must be at least 1"):
        Windows(numbered_episodes(), np.arange(3), num_frames, frameskip=1)


@pytest.mark.parametrize(("store_every", "lookback"), [(1, 1), (2, 3)])
def test_frames_in_front_of_a_window_are_its_predecessors_and_at_an_episodes_start_the_first_one_again(
    store_every: int, lookback: int, numbered_episodes: Callable
):
    """Pixels tell episode and step. Steps 0 to 3 have no frame 4 steps earlier, steps 4 to 7 only one, and so on."""
    episodes = numbered_episodes(num_episodes=3, length=18, store_every=store_every)
    plain = Windows(episodes, np.array([2, 0]), num_frames=2, frameskip=4)
    windows = plain.looking_back(lookback)
    batch = windows.get(np.arange(len(windows)))
    found = batch.obs["before"][..., 0, 0, 0].numpy() - 20 * windows.episode[:, None]  # W L steps
    for start, steps in zip(windows.start, found, strict=True):
        on_stride = [start - 4 * k for k in range(lookback, 0, -1)]
        assert steps.tolist() == [step if step >= 0 else start % 4 for step in on_stride]
    same = plain.get(np.arange(len(plain)))
    assert "before" not in same.obs and torch.equal(same.obs["visual"], batch.obs["visual"])
    assert torch.equal(same.action, batch.action)


def test_validation_looks_at_no_window_twice_however_many_batches_are_asked_for(numbered_episodes):
    episodes = numbered_episodes(num_episodes=2, length=9)
    windows = Windows(episodes, np.arange(2), 2, 1)
    looked = np.concatenate(list(windows.held_out(4, 1000)))
    assert len(looked) == len(windows) // 4 * 4 == len(set(looked.tolist()))
    assert [len(batch) for batch in windows.held_out(1000, 7)] == [len(windows)]
    assert len(list(windows.held_out(4, 2))) == 2
