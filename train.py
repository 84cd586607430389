"""Train a world model on recorded episodes: python train.py env=point_maze encoder=lewm_small

Common options: env.data=PATH.h5, seed=1, training.max_steps=600, model_name=NAME, -m encoder=a,b seed=0,1. Stopped at any
point, the same command goes on. The run lands in checkpoints/outputs/<model_name>. decoder=vqvae (transposed_conv where a
frame is one token) then trains a decoder, which draws what the model imagines; for a finished run it trains only that.
Likewise distance=quasimetric, for plan.py objective=learned, and policy=inverse, for plan.py actor=inverse.
"""

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from wmbench.commands import command, plan_line
from wmbench.files import exclusive
from wmbench.processes.meeting import by_first


@command("train")
def main(cfg: DictConfig) -> None:
    import torch  # after --help, which does not wait for it

    from wmbench.commands.arms import arm_of
    from wmbench.commands.heads import new_heads, train_heads
    from wmbench.commands.learners import check_words, learn, new_decoder, train_decoder, world_model_trainee
    from wmbench.data.facts import complete
    from wmbench.data.normalizer import fit_normalizer
    from wmbench.data.official import open_episodes
    from wmbench.data.windows import Windows, split_windows
    from wmbench.diagnostics.probe import fit_probe
    from wmbench.machine import pick_device
    from wmbench.runs.build import build_world_model
    from wmbench.runs.folder import folder_of, open_parts, open_run
    from wmbench.runs.recipe import Recipe

    device = pick_device(cfg.device)
    cfg.arm = arm_of(cfg)
    recipe = Recipe.of(cfg.training, cfg.encoder_lr if cfg.train_encoder else None)
    check_words(cfg, device)
    episodes = open_episodes(cfg.env.data)
    for note in complete(episodes, **OmegaConf.to_container(cfg.env, resolve=True)):  # type: ignore[arg-type]
        print(f"note: {note}", file=sys.stderr)
    train, valid = split_windows(episodes, cfg.num_hist + cfg.num_pred, cfg.frameskip, cfg.train_fraction, cfg.split_seed)

    torch.manual_seed(cfg.seed)
    model = build_world_model(cfg, fit_normalizer(episodes)).to(device)
    train, valid = train.looking_back(model.lookback), valid.looking_back(model.lookback)
    frames = Windows(episodes, train.which, 1, cfg.frameskip).looking_back(model.lookback)
    decoder = new_decoder(cfg, model.encoder, episodes.image_size).to(device) if cfg.decoder else None
    heads = new_heads(cfg, model)
    with exclusive(folder_of(cfg), "wait for it, or give another model_name="):
        run = by_first(lambda: open_run(cfg, model, episodes))
        by_first(lambda: open_parts(run, cfg))
        trainee = world_model_trainee(cfg, model, train, valid, recipe, run)
        learn(trainee, run, f"{run}: {len(train):,} windows of {len(train.which)} episodes", cfg, cfg.model_name)
        probe = by_first(lambda: fit_probe(model, trainee.windows, trainee.valid).save(run))
        print(f"a frame's latent tells the ball's position linearly with R2 {probe.r2:.4f}; effective rank {probe.rank:.1f}")
        train_heads(cfg, heads, trainee, run)
        if decoder is not None:
            train_decoder(cfg, trainee, decoder, frames, valid, run)
        print(f"trained: {run}\nnext: {plan_line(run, Path(cfg.ckpt_base_path))}")


if __name__ == "__main__":
    main()
