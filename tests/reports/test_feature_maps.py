"""Maps of tokens against components that are known, and scripts/feature_maps.py as its users run it."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from wmbench.reports.feature_maps import CAPTION, GAP, SIZE, FeatureMap, feature_map, feature_sheet, spread_frames

SCRIPTS = Path(__file__).parents[2] / "scripts"
FRAMES, GRID = 2, (2, 3)
STRENGTH = torch.tensor([7.0, 5.0, 3.0, 1.0], dtype=torch.float64)


def cosines(rows: int, columns: int) -> Tensor:
    """Orthonormal columns (rows, columns), each of mean zero: the discrete cosine transform without its constant."""
    angle = torch.pi / rows * (torch.arange(rows, dtype=torch.float64)[:, None] + 0.5) * torch.arange(1, columns + 1)
    return torch.cos(angle) * (2 / rows) ** 0.5


def known_tokens() -> tuple[Tensor, Tensor]:
    """Tokens whose components have the scores `cosines` times STRENGTH, and these scores."""
    scores = cosines(FRAMES * GRID[0] * GRID[1], 4) * STRENGTH
    axes = cosines(6, 4)
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    tokens = scores @ axes.T + torch.arange(6)  # a mean that is to be taken off
    return tokens.float().reshape(FRAMES, 6, 6), scores


def test_shares_of_variance_are_the_squares_of_the_known_strengths():
    expected = STRENGTH[:3].square() / STRENGTH.square().sum()
    np.testing.assert_allclose(feature_map(known_tokens()[0], GRID).explained, expected, rtol=1e-5)


def test_red_green_and_blue_are_the_known_scores_over_all_frames():
    tokens, scores = known_tokens()
    values = scores[:, :3].numpy()
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    # A component's sign is free where its two largest weights agree in size, as those of cosines do: either is right.
    shade = np.clip((values - low) / (high - low), 0, 1)
    colours = feature_map(tokens, GRID).colours
    assert colours.shape == (FRAMES, *GRID, 3) and colours.dtype == np.uint8
    for channel in range(3):
        found, expected = colours.reshape(-1, 3)[:, channel].astype(int), 255 * shade[:, channel]
        assert min(np.abs(found - expected).max(), np.abs(255 - found - expected).max()) < 1


def test_the_sign_of_a_component_is_that_of_its_largest_weight():
    base = torch.randn(5, 4, 7, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 5, 3, 1, 1, 1, 1])
    colours = feature_map(base, (2, 2)).colours
    brightest = [int(base[..., k].argmax()) for k in range(3)]  # the first features carry the components
    assert all(colours.reshape(-1, 3)[place, k] > 200 for k, place in enumerate(brightest))


def test_the_token_that_stands_out_is_coloured_at_its_row_and_column():
    tokens = torch.randn(3, 20, 6, generator=torch.Generator().manual_seed(1)) * 0.01
    tokens[1, 2 * 5 + 3] += 4.0  # row 2, column 3
    red = feature_map(tokens, (4, 5)).colours[..., 0]
    assert np.argwhere(red == red.max()).tolist() == [[1, 2, 3]]


def test_equal_frames_have_equal_colours():
    tokens, _ = known_tokens()
    colours = feature_map(tokens[[0, 1, 0]], GRID).colours
    assert (colours[0] == colours[2]).all() and (colours[0] != colours[1]).any()


def test_tokens_that_are_all_alike_are_black():
    noise = 3e-7 * torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(2))
    for tokens in (noise + 3.3, torch.zeros(2, 6, 5)):
        shown = feature_map(tokens, GRID)
        assert shown.colours.max() < 30
        assert shown.explained.max() < 0.1


@pytest.mark.parametrize(
    ("shape", "grid", "message"),
    [
        ((4, 1, 8), (1, 1), "one token a frame is no map"),
        ((1, 2, 8), (1, 2), r"need 3 tokens of 3 features, not \(1, 2, 8\)"),
        ((4, 6, 2), (2, 3), r"need 3 tokens of 3 features, not \(4, 6, 2\)"),
    ],
)
def test_what_has_no_map_is_refused(shape, grid, message):
    with pytest.raises(ValueError, match=message):
        feature_map(torch.randn(shape), grid)


def test_the_sheet_shows_frames_above_and_each_encoders_maps_below_them():
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    maps = {
        name: FeatureMap(generator.integers(0, 256, (3, *grid, 3), dtype=np.uint8), np.array([0.5, 0.25, 0.125]))
        for name, grid in (("a", (2, 2)), ("b", (4, 5)))
    }
    sheet = feature_sheet(frames, maps)
    assert sheet.shape == (3 * (SIZE + CAPTION), 3 * (SIZE + GAP) - GAP, 3)
    for row, pictures in enumerate((frames, maps["a"].colours, maps["b"].colours)):
        for column, picture in enumerate(pictures):
            top, left = row * (SIZE + CAPTION) + CAPTION, column * (SIZE + GAP)
            panel = sheet[top : top + SIZE, left : left + SIZE]
            h, w = (SIZE // side for side in picture.shape[:2])
            np.testing.assert_array_equal(panel[::h, ::w], picture)
            np.testing.assert_array_equal(panel[h - 1 :: h, w - 1 :: w], picture)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    """Names of scripts/feature_maps.py."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return runpy.run_path(str(SCRIPTS / "feature_maps.py"))


def test_the_frames_are_spread_over_the_collection(numbered_episodes):
    frames = spread_frames(numbered_episodes(num_episodes=3, length=12, store_every=3), 4)
    # 4 frames an episode, of steps 0, 3, 6, 9; of these 12 the numbers 0, 3, 7 and 11, painted episode * 20 + step
    assert frames[:, 0, 0, 0].tolist() == [0, 9, 20 + 9, 40 + 9]
    few = numbered_episodes(num_episodes=1, length=3)
    assert len(spread_frames(few, 50)) == 3
    with pytest.raises(ValueError, match=r"frames \(0\) must be positive"):
        spread_frames(few, 0)


def test_the_script_draws_encoders_with_a_grid_and_leaves_out_the_others(
    script, numbered_episodes, tmp_path, monkeypatch, capsys
):
    data, output = f"data={numbered_episodes().path}", str(tmp_path / "new" / "maps.png")

    def run(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["feature_maps.py", *words, "--num-frames", "2", "--output", output])
        try:
            script["main"]()
        except SystemExit as exit:
            assert exit.code == 1
        printed = capsys.readouterr()
        return printed.out + printed.err

    out = run("encoder=random_patch,state,pixels", data, "encoder.patch_size=2")
    assert out == f"state: one token per frame is no map; left out\nwrote {output}\n"
    with Image.open(output) as picture:
        assert picture.size == (2 * (SIZE + GAP) - GAP, 3 * (SIZE + CAPTION))
    assert "no map to draw; name an encoder with a grid" in run("encoder=state", data)
    assert "none of pixels has the setting encoder.patches=2" in run("encoder=pixels", data, "encoder.patches=2")
    assert "give encoder=NAME,NAME, data=PATH" in run("encoder=pixels")
    assert "unknown encoder 'pixel', did you mean pixels?" in run("encoder=pixel", data)
    assert "no data set at nowhere.h5" in run("encoder=pixels", "data=nowhere.h5")
