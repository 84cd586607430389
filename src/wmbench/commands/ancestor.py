"""DINO-WM's command lines: its names of settings, still accepted, and ours."""

import sys

OLD_NAMES = {
    "n_evals": "protocol.num_tasks",
    "max_iter": "protocol.max_rounds",
    "planner.max_iter": "protocol.max_rounds",
    "goal_H": "protocol.goal_H",
    "goal_source": "protocol.goal_source",
    "goal_file_path": "protocol.goal_file",
    "model.train_encoder": "train_encoder",
    "training.encoder_lr": "encoder_lr",
    "n_plot_samples": "num_videos",
    "model_epoch": "checkpoint",
    "planner.sample_type": "planner.start",
    "planner.opt_steps": "planner.num_iters",
    "planner.topk": "planner.num_elites",
    "planner.var_scale": "planner.init_std",
    "planner.sub_planner.opt_steps": "planner.num_iters",
    "planner.sub_planner.topk": "planner.num_elites",
    "planner.sub_planner.num_samples": "planner.num_samples",
    "planner.sub_planner.var_scale": "planner.init_std",
    "planner.sub_planner.lr": "planner.lr",
    "planner.sub_planner.action_noise": "planner.action_noise",
    "planner.sub_planner.sample_type": "planner.start",
}

# Ours, where a reader of protocols looks for them.
OF_PROTOCOLS = {f"protocol.{name}": name for name in ("appearance", "appearance.scale", "goal_appearance")}

# Settings that DINO-WM reads and then overrides by goal_H.
OVERRULED = ("planner.horizon", "planner.n_taken_actions", "planner.sub_planner.horizon")

# Its planners that replan; here a planner plans, and the protocol says when to plan again.
OLD_PLANNERS = {"planner=mpc_cem": "planner=cem", "planner=mpc_gd": "planner=gd"}


def translate(arguments: list[str]) -> list[str]:
    """Replace DINO-WM's key names on a command line by ours, with a notice for each."""
    translated = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        key = key.lstrip("+")
        if key in OVERRULED:
            print(f"note: {key} changes nothing, as in DINO-WM, where goal_H decides; see agent.horizon", file=sys.stderr)
            continue
        if equals and (name := (OLD_NAMES | OF_PROTOCOLS).get(key)):
            print(f"note: {key} is called {name} here", file=sys.stderr)
            argument = f"{name}={value}"
        if planner := OLD_PLANNERS.get(argument):
            print(f"note: {argument} is {planner} here; the protocol says when to plan again", file=sys.stderr)
            argument = planner
        translated.append(argument)
    if any("train.yaml" in argument for argument in arguments) and not any("experiment=" in a for a in arguments):
        print(
            "note: DINO-WM also tells its model the ball's position and velocity; our default shows it only pixels. "
            "For its released recipe add experiment=dino_wm",
            file=sys.stderr,
        )
    return translated
