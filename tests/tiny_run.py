"""Configuration of a run so small that a test makes many."""

FROZEN = {
    "encoder": {
        "_target_": "wmbench.encoders.random_patch.RandomPatch",
        "image_size": 8,
        "grid": 2,
        "embed_dim": 5,
        "seed": 0,
    },
    "training": {"regularizer": None},
}
REST = {
    "predictor": {
        "_target_": "wmbench.models.vit.FrameCausalViT",
        "action_embed_dim": 3,
        "depth": 1,
        "num_heads": 2,
        "head_dim": 6,
        "mlp_dim": 11,
        "dropout": 0.1,
    },
    "frameskip": 3,
    "num_hist": 2,
    "num_pred": 1,
    "proprio": "velocity",
    "proprio_embed_dim": 7,
    "concat_dim": 1,
    "model_name": "tiny",
}
