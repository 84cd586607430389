"""What tokenizers trained here share: a frozen backbone, a small head over it, and the head's file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.base import Encoder, weights_hash
from wmbench.encoders.trained import check_trained, save_trained
from wmbench.encoders.weights import file_hash, load_strictly, read_state


class Tokenizer(Encoder):
    """Tokens from a head that pretrain.py trained to keep what frames look like; the backbone stays as it is.

    A subclass writes `tokens` and, where training sees other ones, `sample`.

    Args:
        backbone: as frozen_backbone gives it.
        head: with random weights.
        embed_dim: features of a token.
        method: what the head is, for tables and logs.
        file: the head's weights, as head_file gives it; None leaves it untrained.
        seed: of an untrained head.
        for_training: a head that can be trained, for pretrain.py.

    Raises:
        ValueError: a file of another head, or one trained over another backbone or at another size.
    """

    note = "reimplemented, trained on PointMaze"
    size_sets_grid = False  # the head is tied to the size it was trained at
    official: Mapping[str, str] = {}  # the head's tensors: their names in a file of the method's authors
    remedy: str = "; give encoder.weights= a file of this encoder, or train it with pretrain.py"

    def __init__(
        self,
        backbone: Encoder,
        head: nn.Module,
        embed_dim: int,
        method: str,
        file: Path | None,
        seed: int,
        for_training: bool,
    ):
        state = "trained on PointMaze" if file or for_training else f"head untrained, seed {seed}"
        with_hash = f" ({file}, SHA-256 {file_hash(file)[:12]})" if file else ""
        super().__init__(
            image_size=backbone.image_size,
            grid=backbone.grid,
            embed_dim=embed_dim,
            prefix_tokens=backbone.prefix_tokens,
            pixel_mean=backbone.pixel_mean.flatten().tolist(),
            pixel_std=backbone.pixel_std.flatten().tolist(),
            frozen=not for_training,
            source=f"{method}, {state}{with_hash}, over {backbone.source}",
            licence=backbone.licence,
        )
        if not (file or for_training):
            self.note = "reimplemented, head untrained"
        self.backbone, self.head = backbone, head
        if file:
            self.load_head(file)
        if self.frozen:
            self.freeze()

    def sample(self, pixels: Float[Tensor, "F 3 h w"]) -> tuple[Float[Tensor, "F N D"], Float[Tensor, ""]]:
        """Tokens as a decoder in training gets them, and what the head adds to the loss."""
        return self.tokens(pixels), pixels.new_zeros(())

    def own_decoder(self, image_size: int) -> nn.Module | None:
        """A decoder that belongs to the method, untrained; None: the configured one."""
        return None

    def usage(self) -> dict[str, float]:
        """What training logs of the head, in addition to the error of the frames."""
        return {}

    def conditions(self) -> dict[str, Any]:
        """What a head is tied to: it reads another backbone's features, or those of other pixels, wrongly."""
        return {
            "backbone": weights_hash(self.backbone),
            "image_size": self.image_size,
            "pixel_mean": self.pixel_mean.flatten().tolist(),
            "pixel_std": self.pixel_std.flatten().tolist(),
        }

    def save_head(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Write only the head, with what it is tied to and where it comes from; whole or not at all."""
        save_trained(path, self.head, self.conditions(), provenance)

    def load_head(self, path: Path) -> None:
        """Fill the head from save_head's file or, by the names in `official`, from the authors'; from no other."""
        state = read_state(path)
        names = self.official if any(name in state for name in self.official.values()) else None
        load_strictly(self.head, state, f"{path} is not this tokenizer's head", names, remedy=self.remedy)
        if names is None:
            check_trained(path, state, self.conditions(), self.remedy)


def head_file(pretrained: bool, weights: str | None, file: str, for_training: bool) -> Path | None:
    """Where the head's weights are; None for one that is untrained.

    Args:
        weights: a file that was asked for, with any backbone.
        file: where pretrain.py leaves them under the encoder's name, read where the backbone is pretrained.

    Raises:
        FileNotFoundError: no such file; the message names the command that makes it.
        ValueError: weights for a head that is to be trained.
    """
    if for_training and weights:
        raise ValueError(f"a new head is trained and weights={weights} would go unread; drop it")
    if for_training or not (pretrained or weights):
        return None
    path = Path(weights or file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"no trained tokenizer {path}. Train it on your frames:\n"
            f"python pretrain.py encoder={Path(file).stem} env.data=PATH.h5\n"
            "or say where it is with encoder.weights=PATH.\n"
            "What runs now: encoder.pretrained=false, the same network untrained"
        )
    return path


def frozen_backbone(
    backbone: Callable[..., Encoder], pretrained: bool, seed: int, architecture: Mapping[str, Any]
) -> Encoder:
    """The backbone, pretrained or not as the tokenizer is.

    Raises:
        ValueError: one that is trained with the model, reads several frames, or gives a single token.
    """
    built = backbone(pretrained=pretrained, seed=seed, **({"architecture": architecture} if architecture else {}))
    name = type(built).__name__
    if not built.frozen or built.lookback:
        raise ValueError(f"a tokenizer's backbone must be frozen and read one frame at a time, which {name} does not")
    if built.num_tokens == 1:
        raise ValueError(f"a tokenizer's backbone must give a grid of tokens, and {name} gives one: take output=patches")
    return built
