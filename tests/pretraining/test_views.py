"""Views keep a maze a maze, and exactly as many cells are hidden as asked for."""

import pytest
import torch

from wmbench.pretraining.views import BRIGHTNESS, COLOUR, CONTRAST, as_pixels, cover, crop, hidden_cells, jitter


def test_a_crop_of_the_whole_frame_is_the_frame():
    pixels = torch.rand(3, 3, 8, 8) * 2 - 1
    torch.testing.assert_close(crop(pixels, 1.0, 1.0), pixels)


def test_a_crop_is_neither_mirrored_nor_turned_and_shows_its_share():
    """Colours that grow to the right and to the bottom still do; a quarter of the area spans half of each range."""
    ramp = (torch.arange(32) + 0.5) / 16 - 1
    pixels = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), torch.zeros(32, 32)]).expand(50, 3, 32, 32)
    torch.manual_seed(0)
    seen = crop(pixels, 0.25, 0.25)
    across, down = seen[:, 0].diff(dim=2), seen[:, 1].diff(dim=1)
    assert (across >= -1e-5).all() and (down >= -1e-5).all()
    spans = seen[:, 0].amax((1, 2)) - seen[:, 0].amin((1, 2))
    assert spans.max().item() == pytest.approx(0.5 * (2 - 1 / 16), abs=0.05)
    assert seen[:, 0].mean((1, 2)).std() > 0.2  # at different places


def test_jitter_moves_colours_within_its_limits_and_nothing_else():
    grey = torch.zeros(200, 3, 4, 4)
    torch.manual_seed(0)
    seen = jitter(grey)
    assert torch.equal(seen, seen[..., :1, :1].expand_as(seen))  # one colour stays one
    most = BRIGHTNESS + COLOUR * (1 + BRIGHTNESS)
    assert 0.5 * most < seen.abs().max().item() <= most + 1e-6
    bright = jitter(torch.ones(50, 3, 4, 4))
    assert bright.max().item() == 1 and bright.min().item() >= 1 - BRIGHTNESS - 2 * COLOUR - CONTRAST


def test_exactly_so_many_cells_are_hidden_in_every_frame_and_all_cells_take_turns():
    torch.manual_seed(0)
    hidden = hidden_cells(300, 4, 5, torch.device("cpu"))
    assert hidden.sum((1, 2)).tolist() == [5] * 300
    share = hidden.float().mean(0)
    assert share.min() > 0.2 and share.max() < 0.43  # 5 / 16 = 0.31


def test_hidden_cells_are_grey_and_the_others_are_as_they_were():
    pixels = torch.rand(2, 3, 6, 6) + 0.1
    hidden = torch.zeros(2, 3, 3, dtype=torch.bool)
    hidden[0, 1, 2] = True
    covered = cover(pixels, hidden)
    assert torch.equal(covered[1], pixels[1])
    assert not covered[0, :, 2:4, 4:6].any() and as_pixels(hidden, 6).sum() == 4
    assert torch.equal(covered[0, :, :2], pixels[0, :, :2])
