"""Train an encoder on recorded frames: python pretrain.py encoder=scratch pretraining=jepa env.data=PATH.h5

Without pretraining=, encoder=dino_tok (dino_tok_vq, vfm_vae_pointmaze) gets its head, over an untrained backbone with
encoder.pretrained=false. Common options: encoder=scratch_vit, encoder.output=mean, training.max_steps=1000, output=PATH.
Stopped at any point, the same command goes on. A folder next to the weights, of the same name, holds metrics.csv and what
the encoder sees: features.png, and reconstructions.png (real frames above, drawn ones below) where frames are drawn.
"""

from omegaconf import DictConfig

from wmbench.commands import command
from wmbench.files import exclusive
from wmbench.processes.group import alone, is_first
from wmbench.processes.meeting import by_first


@command("pretrain")
def main(cfg: DictConfig) -> None:
    # after --help, which does not wait for PyTorch
    import torch

    from wmbench.commands.learners import learn
    from wmbench.commands.pretraining import draw_pictures, facts, new_trainee, next_command, open_pretraining, output_file
    from wmbench.data.official import open_episodes
    from wmbench.encoders.weights import file_hash
    from wmbench.machine import pick_device
    from wmbench.runs.recipe import Recipe

    device = pick_device(cfg.device)
    recipe = Recipe.of(cfg.training)
    episodes = open_episodes(cfg.env.data)
    output = output_file(cfg)
    torch.manual_seed(cfg.seed)
    trainee = new_trainee(cfg, episodes, recipe, device)
    run = output.with_suffix("")
    with exclusive(run, "wait for it, or give another output="):
        provenance = by_first(lambda: open_pretraining(run, cfg, trainee.encoder, episodes))
        if trainee.learns:
            learn(trainee, run, f"{run}: {len(trainee.windows):,} frames, {trainee.encoder.source}", cfg)
        if not is_first():
            return
        with alone():
            pictures = draw_pictures(trainee, run, output.stem)
            results = facts(cfg, trainee)
            trainee.encoder.save_head(output, provenance | results)
    print(
        f"{trainee.told(results)}; the ball's position can be read linearly with R2 {results['ball_position_r2']:.4f}\n"
        f"what it sees: {', '.join(map(str, pictures)) or 'no picture'}\n"
        f"trained: {output}, SHA-256 {file_hash(output)}\nnext: {next_command(cfg)}"
    )


if __name__ == "__main__":
    main()
