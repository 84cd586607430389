"""Compare encoders under one protocol with several training seeds: python study.py study=demo

Runs every cell (a row's training run under an evaluation) of conf/study/NAME.yaml that is not on disk yet, and writes
tables, contrasts and report into studies/NAME. Stopped at any point, the same command goes on. status=true prints how far
it is, dry_run=true what is left and what that takes, shard=1/4 makes a quarter (machines that share the folder make all).
What fails is told, the rest is made, and the exit status is then 1; the same command tries it again.
"""

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from wmbench.commands import command


@command("study")
def main(cfg: DictConfig) -> None:
    # after --help, which does not wait for PyTorch
    from wmbench.reports.study_report import write_study_report
    from wmbench.study.grid import Study
    from wmbench.study.lock import changes, lock_now
    from wmbench.study.runner import Runner, finished
    from wmbench.study.status import plan_of, problems, status
    from wmbench.study.tables import write_tables

    config: dict = OmegaConf.to_container(cfg.study, resolve=True)  # type: ignore[assignment]
    study = Study.of(config, Path(cfg.folder))
    cells = study.shard(cfg.shard)
    for note in study.notes:
        print(f"note: {note}", file=sys.stderr)
    done = finished(study)
    if cfg.dry_run:
        print(plan_of(study, cells, done))
    elif cfg.status:
        print(status(study, cells, done))
    else:
        lock_now(study, list(done.values()))
        Runner(study, cells, lambda done: write_tables(study, done)).run()
        write_tables(study, done := finished(study))
        for change in changes(lock_now(study, list(done.values()))):
            print(f"note: {change}", file=sys.stderr)
        print(f"report: {write_study_report(study.folder)}")
    went_wrong = [] if cfg.dry_run or cfg.status else problems(study, cells, done)
    for problem in went_wrong:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{len(done.keys() & set(cells))} of {len(cells)} cells done")
    if went_wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
