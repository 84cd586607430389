"""DINOv2's official tensors from the names and constants of an ONNX export."""

import pytest
import torch

from wmbench.encoders import dinov2
from wmbench.importers.onnx_dinov2 import OF_A_BLOCK, PRODUCTS, QKV, official_state

VIT = {"embed_dim": 12, "depth": 2, "num_heads": 3}


def exported():
    """A tiny network's official tensors, and what an export makes of them."""
    trunk = dinov2.build_trunk("vit_small_patch14_dinov2.lvd142m", VIT)
    official = {name: torch.randn(tensor.shape) for name, tensor in trunk.state_dict().items()}
    tensors = {
        "backbone.embeddings.cls_token": official["cls_token"],
        "backbone.embeddings.patch_embeddings.projection.weight": official["patch_embed.proj.weight"],
        "backbone.embeddings.patch_embeddings.projection.bias": official["patch_embed.proj.bias"],
        "backbone.layernorm.weight": official["norm.weight"],
        "backbone.layernorm.bias": official["norm.bias"],
        "onnx::Concat_7": official["pos_embed"][:, 1:],
    }
    products = {}
    for layer in range(VIT["depth"]):
        of, node, to = f"backbone.encoder.layer.{layer}.", f"/backbone/encoder/layer.{layer}/", f"blocks.{layer}."
        tensors |= {f"{of}{name}": official[f"{to}{there}"] for there, name in OF_A_BLOCK.items()}
        products |= {f"{node}{name}/MatMul": official[f"{to}{there}"].T for there, name in PRODUCTS.items()}
        for part, weight, bias in zip(
            QKV, official[f"{to}attn.qkv.weight"].chunk(3), official[f"{to}attn.qkv.bias"].chunk(3), strict=True
        ):
            products[f"{node}attention/attention/{part}/MatMul"] = weight.T
            tensors[f"{of}attention.attention.{part}.bias"] = bias
    return official, tensors, products


def test_every_tensor_of_the_official_file_comes_back():
    official, tensors, products = exported()
    state = official_state(tensors, products, official["pos_embed"][:, :1])
    assert state.keys() - official.keys() == {"mask_token"}
    for name, tensor in official.items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)


def test_an_export_that_lacks_a_tensor_is_refused_by_its_name():
    official, tensors, products = exported()
    del tensors["backbone.encoder.layer.1.mlp.fc2.bias"]
    with pytest.raises(ValueError, match=r"the export lacks 'backbone.encoder.layer.1.mlp.fc2.bias', so it is no DINOv2"):
        official_state(tensors, products, official["pos_embed"][:, :1])
