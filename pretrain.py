"""Train a tokenizer's head on recorded frames: python pretrain.py encoder=dino_tok env.data=PATH.h5

Common options: encoder=vfm_vae_pointmaze, training.max_steps=1000, encoder.pretrained=false (over an untrained backbone).
Stopped at any point, the same command goes on. The head lands where train.py encoder=dino_tok looks for it; the folder
next to it, of the same name, holds metrics.csv and reconstructions.png (real frames above, drawn ones below).
"""

from omegaconf import DictConfig

from wmbench.commands import command
from wmbench.files import exclusive


@command("pretrain")
def main(cfg: DictConfig) -> None:
    # after --help, which does not wait for PyTorch
    import pandas as pd
    import torch

    from wmbench.commands.learners import ball_position_r2, head_file, learn, new_tokenizer, next_command, open_pretraining
    from wmbench.data.official import open_episodes
    from wmbench.data.windows import split_windows
    from wmbench.encoders.weights import file_hash
    from wmbench.machine import optional, pick_device
    from wmbench.runs.build import build_decoder
    from wmbench.runs.recipe import Recipe
    from wmbench.training.tokenizer import TokenizerTrainee, draw_picture

    device = pick_device(cfg.device)
    recipe = Recipe.of(cfg.training)
    episodes = open_episodes(cfg.env.data)
    train, valid = split_windows(episodes, 1, episodes.store_every, cfg.train_fraction, cfg.split_seed)
    torch.manual_seed(cfg.seed)
    tokenizer = new_tokenizer(cfg).to(device)
    decoder = build_decoder(cfg.decoder, tokenizer.embed_dim, tokenizer.grid, episodes.image_size).to(device)
    output = head_file(cfg)
    run = output.with_suffix("")
    with exclusive(run, "wait for it, or give another output="):
        provenance = open_pretraining(run, cfg, tokenizer, episodes)
        trainee = TokenizerTrainee(tokenizer, decoder, train, valid, recipe, cfg.seed, cfg.l1_weight)
        learn(trainee, run, f"{run}: {len(train):,} frames, {tokenizer.source}", cfg)

        shown = run / "reconstructions.png"
        optional(shown.name, lambda: draw_picture(tokenizer, decoder, valid).save(shown))
        results = pd.read_csv(run / trainee.metrics).iloc[-1][["valid_reconstruction", "valid_psnr"]].to_dict()
        results |= tokenizer.usage()
        results["ball_position_r2"] = ball_position_r2(tokenizer, train, valid)
        tokenizer.save_head(output, provenance | results)
    print(
        f"held-out frames: mean squared error {results['valid_reconstruction']:.5f} (pixels in [-1, 1]), "
        f"PSNR {results['valid_psnr']:.2f} dB; the ball's position can be read linearly with R2 "
        f"{results['ball_position_r2']:.4f}\nwhat it draws: {shown}\n"
        f"trained: {output}, SHA-256 {file_hash(output)}\nnext: {next_command(cfg)}"
    )


if __name__ == "__main__":
    main()
