"""Changed patches of a frame, and the tokens that they change."""

from itertools import product

from torch import Tensor

from wmbench.encoders.base import Encoder


def assert_a_patch_changes_its_own_token(
    encoder: Encoder, pixels: Tensor, mixing: str = "attn.proj.weight", border: int = 0
) -> None:
    """Change one of 3 x 3 patches after another, where the parameters that mix tokens are zero.

    Args:
        pixels: of one frame or clip.
        mixing: part of the names of these parameters.
        border: pixels on each side of a patch that stay as they are.
    """
    for name, parameter in encoder.named_parameters():
        if mixing in name:
            parameter.zero_()
    assert encoder.grid == (3, 3)
    size, tokens = pixels.shape[-1] // 3, encoder.tokens(pixels)
    for row, column in product(range(3), repeat=2):
        changed = pixels.clone()
        rows, columns = (slice(size * place + border, size * (place + 1) - border) for place in (row, column))
        changed[..., rows, columns] += 1
        moved = (encoder.tokens(changed) != tokens).any(-1)[0]
        assert moved.nonzero().flatten().tolist() == [3 * row + column]
