"""Plan with a trained world model: python plan.py model_name=point_maze_lewm

Common options: protocol=bench, planner.num_samples=300, agent.horizon=6, num_videos=0, -m model_name=a,b (or a glob such as
'point_maze_*'). model_name may also be random, zero or simulator, or a checkpoint that DINO-WM released, which is converted
once. Writes plan_outputs/<maze>_<hash>_<model_name>_<protocol>. The hash names the model and all that decides the outcome,
so the same command finds a finished result again.
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from wmbench.commands import command
from wmbench.processes.meeting import by_first


@command("plan")
def main(cfg: DictConfig) -> None:
    # after --help, which does not wait for PyTorch
    from wmbench.commands.players import evaluation_of, load_tasks, load_trained, make_baseline, possible_baselines
    from wmbench.envs.maze_sets import asked_maze
    from wmbench.evaluation.evaluate import evaluate
    from wmbench.evaluation.results import note_asked
    from wmbench.evaluation.row import BASELINES
    from wmbench.evaluation.targets import read_targets
    from wmbench.runs.find import list_runs

    if OmegaConf.is_missing(cfg, "model_name"):
        found = [*list_runs(Path(cfg.ckpt_base_path)), *BASELINES]
        raise ValueError(f"which model? model_name=NAME; found: {', '.join(found)}")
    given = None
    if cfg.protocol.goal_source == "file":
        given, goal_H = read_targets(cfg.protocol.goal_file, cfg.protocol.goal_H)
        cfg = OmegaConf.merge(cfg, {"protocol": {"goal_H": goal_H}})  # type: ignore[assignment]
    is_baseline = cfg.model_name in BASELINES
    player = (
        make_baseline(cfg, cfg.model_name, asked_maze(cfg.env, "test"), cfg.env.frameskip, cfg.row)
        if is_baseline
        else load_trained(cfg)
    )
    tasks, maze = given or by_first(lambda: load_tasks(cfg, player)), player.env.maze
    output = Path(cfg.output_dir)
    asked = evaluation_of(cfg, player, tasks)
    print(f"{cfg.row}: protocol {cfg.protocol.name}, {len(tasks)} tasks ({tasks.hash}) in {maze.name}")
    if unreachable := int((~maze.has_path(tasks.start, tasks.goal)).sum()):
        print(f"note: {unreachable} of the {len(tasks)} goals cannot be reached from their starts in this maze")
    if cfg.baselines and not is_baseline:
        for name in possible_baselines(cfg):
            floor = make_baseline(cfg, name, maze.rows, player.frameskip)
            evaluate(evaluation_of(cfg, floor, tasks), output, is_needed=False)
    evaluate(asked, output)
    by_first(lambda: note_asked(output, output / asked.folder))
    print(f"wrote {output / asked.folder}")


if __name__ == "__main__":
    main()
