"""Ask a trained model why it plans as it does: python scripts/diagnose.py model_name=point_maze_lewm env.data=data/maze.h5

Writes diagnostics.json and landscape.png into the run's folder, from its validation episodes and tasks only. A part that is
there under the same settings is not computed again. Several runs (model_name='study_*') also give a table, and which of the
numbers go with their success. docs/diagnostics.md says what each number means.
"""

from omegaconf import DictConfig

from wmbench.commands import command


@command("diagnose")
def main(cfg: DictConfig) -> None:
    # after --help, which does not wait for PyTorch
    from wmbench.commands.diagnosis import diagnose_run, runs_asked, tell

    tell(cfg, {name: diagnose_run(cfg, name) for name in runs_asked(cfg)})


if __name__ == "__main__":
    main()
