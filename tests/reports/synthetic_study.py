"""Small studies with made-up numbers, in the form that study.py writes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from wmbench.envs.mazes import MAPS, Maze

ABILITY = {"dinov2": 1.6, "dinov2_cls": 0.2, "efficientnet_lite0": 0.6, "lewm_small": 1.0, "random": -3.0, "simulator": 4.0}
SOURCES = {"dinov2": "hub release, sha256 6f2b", "lewm_small": "trained with the model"}
FLOORS = ("random", "simulator")
NUM_STEPS = 40


def make_study(
    folder: Path, num_seeds: int = 5, num_tasks: int = 60, evaluations: tuple[str, ...] = ("closed", "open")
) -> Path:
    """Write outcomes.csv, table.csv, contrasts.csv, cells.csv and lock.json; the better a row, the farther it gets."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    frames = [
        _outcomes(rng, row, seed, evaluation, num_tasks)
        for evaluation in evaluations
        for row in ABILITY
        for seed in ([None] if row in FLOORS else range(num_seeds))
    ]
    outcomes = pd.concat(frames, ignore_index=True)
    outcomes["seed"] = outcomes["seed"].astype("Int64")
    outcomes.to_csv(folder / "outcomes.csv", index=False)
    _table(outcomes, folder).to_csv(folder / "table.csv", index=False)
    _contrasts(outcomes, evaluations[0]).to_csv(folder / "contrasts.csv", index=False)
    pairs = pd.DataFrame(
        {"a": "dinov2", "b": list(ABILITY)[1:4], "evaluation": evaluations[0], "letters_a": "a", "letters_b": "b"}
    )
    pairs.to_csv(folder / "pairs.csv", index=False)
    cells = outcomes[["row", "seed", "evaluation"]].drop_duplicates().assign(state="done")
    cells.to_csv(folder / "cells.csv", index=False)
    lock = {
        "study": folder.name,
        "about": "Made-up outcomes of 60 tasks.",
        "locked": "2026-11-27T03:00:00",
        "hash": "1f2e3d4c",
        "tasks": ["aaaabbbbcccc"],
        "changes": [],
    }
    (folder / "lock.json").write_text(json.dumps(lock))
    return folder


def _outcomes(rng: np.random.Generator, row: str, seed: int | None, evaluation: str, num_tasks: int) -> pd.DataFrame:
    geodesic = np.linspace(0.6, 5.4, num_tasks)
    reach = ABILITY[row] + (0.3 * rng.standard_normal() if seed is not None else 0) - (0.8 if evaluation == "open" else 0)
    chance = 1 / (1 + np.exp(geodesic - 2.2 - reach))
    luck = rng.random(num_tasks)
    columns = {
        "row": row,
        "seed": seed,
        "evaluation": evaluation,
        "protocol": "bench",
        "planner": "cem",
        "conditions": "c0ffee00",
        "task": np.arange(num_tasks),
        "stratum": np.arange(num_tasks) * 3 // num_tasks,
        "geodesic": geodesic,
        "success": luck < chance,
        "success_0.25": luck < 0.8 * chance,
        "success_0.1": luck < 0.5 * chance,
        "held": luck < 0.9 * chance,
        "spl": np.where(luck < chance, 0.5 + luck / 2, 0.0),
        "steps": np.where(luck < chance, np.minimum(NUM_STEPS, 5 + 6 * geodesic), NUM_STEPS).astype(int),
        "final_distance": np.where(luck < 0.9 * chance, 0.2, 0.3 * geodesic + luck),
    }
    return pd.DataFrame(columns)


def _table(outcomes: pd.DataFrame, folder: Path) -> pd.DataFrame:
    rows = []
    for (row, evaluation), group in outcomes.groupby(["row", "evaluation"], sort=False):
        radii = {"success": 0.5, "success_0.25": 0.25, "success_0.1": 0.1, "held": 0.5, "spl": None, "final_distance": None}
        for column, radius in radii.items():
            rate = group[column].mean()
            rows.append(
                {
                    "row": row,
                    "encoder": row,
                    "evaluation": evaluation,
                    "protocol": "bench",
                    "planner": "cem",
                    "outcome": column,
                    "radius": radius,
                    "success": rate,
                    "success_low": max(0.0, rate - 0.07),
                    "success_high": min(1.0, rate + 0.07),
                    "n_seeds": group["seed"].nunique(),
                    "n_tasks": group["task"].nunique(),
                    "gap": 0.9 - rate,
                    "gap_low": 0.8 - rate,
                    "gap_high": 1.0 - rate,
                    "weights": SOURCES.get(row, ""),
                    "parameters": None if row in FLOORS else 1e6 * (3 + 7 * list(ABILITY).index(row)),
                    "seconds_per_decision": 0.01 * (1 + len(row)),
                    "evaluations_per_plan": 1000.0,
                    "spl": group["spl"].mean(),
                    "final_distance": group["final_distance"].mean(),
                    "note": "4 x 4 tokens" if row == "dinov2" else "",
                    "folders": str(folder / "results" / f"{row}_{evaluation}"),
                }
            )
    return pd.DataFrame(rows)


def _contrasts(outcomes: pd.DataFrame, evaluation: str) -> pd.DataFrame:
    means = outcomes[outcomes["evaluation"] == evaluation].groupby("row")["success"].mean()
    asked = (
        ("space", "dinov2", "dinov2_cls", "patches plan better than one summary vector", "supported", 0.0002),
        ("cnn", "dinov2", "efficientnet_lite0", "self-supervised patches beat an ImageNet network", "supported", 0.012),
        ("trained", "lewm_small", "dinov2", "learning end to end beats a frozen encoder", "undecided", 0.21),
        ("tok", "dino_tok", "dinov2", "a tokenizer keeps what planning needs", "untested", np.nan),
    )
    rows = []
    for name, a, b, question, verdict, p in asked:
        difference = means.get(a, np.nan) - means[b]
        spread = {
            "low": difference - 0.09,
            "high": difference + 0.09,
            "t_low": difference - 0.12,
            "t_high": difference + 0.12,
        }
        rest = {"p_holm": p, "verdict": verdict, "margin": 0.03, "n_seeds_a": 5, "n_seeds_b": 5, "n_tasks": 60}
        power = "With 5 seeds and 60 tasks, a difference of 12 points would be found 8 times in 10."
        names = {
            "name": name,
            "a": a,
            "b": b,
            "evaluation": evaluation,
            "outcome": "success",
            "expect": "a > b",
            "question": question,
        }
        rows.append(names | {"difference": difference} | spread | rest | {"power": power})
    return pd.DataFrame(rows)


def add_shifts(study: Path) -> None:
    """Add what study.py leaves where evaluations show other pictures: one row, dinov2_cls, was trained on varied ones."""
    table, looks = pd.read_csv(study / "table.csv"), {"near": ("all", 0.1), "far": ("all", 0.2), "dim": ("lit", 0.1)}
    clean = table[(table["evaluation"] == "closed") & (table["outcome"] == "success")]
    lines, shifts, areas = [table], [], []
    for row, seeds, tasks, success in clean[["row", "n_seeds", "n_tasks", "success"]].itertuples(index=False):
        sees = row not in FLOORS
        setting, trained = "clean to shifted" if sees else "no training", "clean" if sees else None
        ends = {"low": -0.2 if sees else -0.04, "high": 0.01 if sees else 0.04}
        if row == "dinov2_cls":
            setting, trained = "varied to varied, in range", "all 0.15"
        for name, (factors, scale) in looks.items():
            rate = success - sees * scale / 2
            if row == "dinov2_cls" and name == "far":
                setting = "varied to varied, out of range"
            told = {"row": row, "trained_on": trained, "setting": setting, "evaluation": name, "against": "closed"}
            told |= {"factors": factors, "s": scale, "goals": "clean", "success": rate, "clean": success}
            shifts.append(told | {"difference": rate - success, **ends, "n_seeds": seeds, "n_tasks": tasks})
            interval = {"success": rate, "success_low": rate - 0.07, "success_high": rate + 0.07}
            lines.append(clean[clean["row"] == row].assign(evaluation=name, gap=np.nan, **interval))
        told = {"row": row, "trained_on": trained, "against": "closed", "factors": "all", "goals": "clean"}
        areas.append(told | {"largest_s": 0.2, "area": 0.8, "low": 0.7, "high": 0.9, "clean": success, "n_scales": 3})
    pd.concat(lines, ignore_index=True).to_csv(study / "table.csv", index=False)
    pd.DataFrame(shifts).to_csv(study / "shifts.csv", index=False)
    pd.DataFrame(areas).to_csv(study / "areas.csv", index=False)


def add_results(study: Path) -> None:
    """Add what plan.py and diagnose.py leave: each row's result folder with paths, and its run with diagnostics."""
    rng = np.random.default_rng(1)
    maze = Maze("umaze")
    for folder in sorted(set(pd.read_csv(study / "table.csv")["folders"])):
        row = Path(folder).name.rpartition("_")[0]
        tasks = _paths(rng, Path(folder), maze, solved=ABILITY[row] > 0.5)
        summary = {"row": row, "conditions": {"maze": list(MAPS["umaze"])}, "n_tasks": len(tasks), "data": "gone.h5"}
        (Path(folder) / "summary.json").write_text(json.dumps(summary))
        if row in FLOORS:
            continue
        run = study / "runs" / f"{row}_s0"
        (Path(folder) / "config.yaml").write_text(f"ckpt_base_path: {study / 'runs'}\nmodel_name: {row}_s0\n")
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.yaml").touch()
        (run / "diagnostics.json").write_text(json.dumps(_diagnostics(ABILITY[row])))


def _paths(rng: np.random.Generator, folder: Path, maze: Maze, solved: bool) -> pd.DataFrame:
    """Four tasks: the ball rolls straight to its goal, or half of the way."""
    folder.mkdir(parents=True)
    start, goal = np.tile([0.8, 0.8], (4, 1)), np.array([[0.8, 2.6], [0.8, 1.8], [0.8, 2.2], [0.8, 2.8]])
    share = np.where(np.arange(4) < (3 if solved else 1), 1.0, 0.5)
    way = share[:, None, None] * np.linspace(0, 1, NUM_STEPS + 1)[None, :, None]
    position = start[:, None] + way * (goal - start)[:, None]
    states = np.concatenate([position, np.zeros_like(position)], -1).astype(np.float32)
    np.savez_compressed(folder / "paths.npz", states=states, imagined=np.repeat(goal[:, None], 2, 1).astype(np.float32))
    columns = {
        "task": range(4),
        "start_x": start[:, 0],
        "start_y": start[:, 1],
        "goal_x": goal[:, 0],
        "goal_y": goal[:, 1],
        "geodesic": maze.geodesic(start, goal),
        "success": share == 1,
        "steps": np.where(share == 1, 30, NUM_STEPS),
        "spl": np.where(share == 1, 0.9, 0.0),
        "final_distance": np.linalg.norm(goal - position[:, -1], axis=-1),
    }
    tasks = pd.DataFrame(columns)
    tasks.to_csv(folder / "tasks.csv", index=False)
    return tasks


def _diagnostics(ability: float) -> dict:
    square = {
        "success_true_latent": 0.5 + 0.2 * ability,
        "success_true_probe": 0.95,
        "success_learned_latent": 0.3 + 0.2 * ability,
        "success_learned_probe": 0.6,
    }
    probes = {"position_r2": 0.9 + 0.05 * ability, "position_r2_low": 0.9, "position_r2_high": 0.99}
    return {"probes": probes, "two_by_two": square, "rank": {"effective_rank": 10 + ability}}


if __name__ == "__main__":
    import sys

    add_results(make_study(Path(sys.argv[1])))
