"""Train a world model on recorded episodes: python train.py env=point_maze encoder=lewm_small

Common options: env.data=PATH.h5, seed=1, training.max_steps=600, model_name=NAME, -m encoder=a,b seed=0,1. Stopped at any
point, the same command goes on. The run lands in checkpoints/outputs/<model_name>.
"""

import torch
from omegaconf import DictConfig, OmegaConf

from wmbench import runs
from wmbench.checkpoint import build_world_model
from wmbench.commands import command, duration, peak_memory, pick_device, size
from wmbench.data.episodes import Episodes
from wmbench.data.normalizer import fit_normalizer
from wmbench.data.windows import Windows
from wmbench.evaluation.diagnostics import fit_probe
from wmbench.training import Recipe, fit


@command("train")
def main(cfg: DictConfig) -> None:
    device = pick_device(cfg.device)
    recipe = Recipe(**{k: v for k, v in cfg.training.items() if k != "regularizer"})
    episodes = Episodes(cfg.env.data)
    which_train, which_valid = episodes.split(cfg.train_fraction, cfg.split_seed)
    train = Windows(episodes, which_train, cfg.num_hist + cfg.num_pred, cfg.frameskip)
    valid = Windows(episodes, which_valid, cfg.num_hist + cfg.num_pred, cfg.frameskip)

    torch.manual_seed(cfg.seed)
    model = build_world_model(cfg, fit_normalizer(episodes)).to(device)
    run = runs.open_run(cfg, model, episodes)

    def announce(seconds: float) -> None:
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        saves = recipe.max_steps // recipe.save_every + 1
        print(
            f"{run}: {len(train):,} windows of {len(which_train)} episodes, {trained / 1e6:.1f} M trained parameters\n"
            f"will take about {duration(seconds)} on {device}, {size(trained * 4 * (saves + 3))} of disk, "
            f"{size(peak_memory(device))} of memory"
        )

    with runs.wandb_log(cfg.wandb, cfg.model_name, OmegaConf.to_container(cfg, resolve=True)) as log:
        fit(model, train, valid, recipe, run, seed=cfg.seed, announce=announce, log=log)
    probe = fit_probe(model.eval(), train, valid)
    probe.save(run)
    print(f"the ball's position can be read linearly from a frame's latent with R2 {probe.r2:.4f}")
    print(f"trained: {run}\nnext: python plan.py model_name={run.name}")


if __name__ == "__main__":
    main()
