"""World models of the field's history at tiny size: words of train.py, and the objective of plan.py."""

GRID = " encoder=random_patch encoder.grid=2 encoder.embed_dim=5"
VIT = " predictor.depth=1 predictor.num_heads=2 predictor.head_dim=6 predictor.mlp_dim=8 num_hist=2"
RSSM = " num_hist=3 predictor.hidden_dim=6 predictor.variables=3 predictor.mlp_dim=8"
TDMPC2 = " encoder.image_size=40 encoder.channels=2 encoder.embed_dim=16 predictor.mlp_dim=8"
TDMPC2 += " training.regularizer.num_directions=4"
ROWS = {
    "gru": (GRID + " predictor=gru num_hist=3 predictor.hidden_dim=6 predictor.mlp_dim=8 predictor.forecast=2", "cautious"),
    "mdn_rnn": (GRID + " predictor=mdn_rnn num_hist=3 predictor.hidden_dim=6", "cautious"),
    "rssm": (GRID + " predictor=rssm" + RSSM, "uniform"),
    "rssm_v3": (GRID + " predictor=rssm_v3" + RSSM + " predictor.classes=4", "own_space"),
    "gaussian": (GRID + " predictor=gaussian" + VIT, "uniform"),
    "categorical": (GRID + " predictor=categorical predictor.num_codes=7" + VIT, "uniform"),
    "vit_rope": (GRID + " predictor=vit_rope" + VIT, "uniform"),
    "vjepa2_ac": (GRID + " predictor=vjepa2_ac" + VIT, "uniform"),
    "vit_multistep": (GRID + " predictor=vit_multistep" + VIT, "uniform"),
    "vit_masked": (GRID + " predictor=vit_masked predictor.masked_share=0.5" + VIT, "uniform"),
    "straightened": (GRID + " predictor=straightened predictor.channels=3 predictor.width=12" + VIT, "own_space"),
    "tdmpc2_bare": (" encoder=tdmpc2_bare" + TDMPC2, "uniform"),
    "tdmpc2_sigreg": (" encoder=tdmpc2_sigreg" + TDMPC2, "uniform"),
}
