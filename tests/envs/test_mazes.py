"""Maps against gymnasium-robotics, starts against DINO-WM's, and shortest paths against closed forms and a fine grid."""

from itertools import pairwise
from math import gcd, hypot
from pathlib import Path

import numpy as np
import pytest
from gymnasium_robotics.envs.maze import maps
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from wmbench.envs.mazes import MAPS, Maze

TWO_ROOMS = ("#######", "#..#..#", "#..#..#", "#######")

# qpos is world - 1.2 and cell (w, h) is centred at world (w + 1, h + 1): from the middle of cell (w, h) to the ball's qpos.
CELL_CENTRE = -0.2


def chebyshev_clearance(maze: Maze, x: float, y: float) -> float:
    """Largest-coordinate distance to the nearest wall square, one wall at a time."""
    distances = []
    for w, row in enumerate(maze.rows):
        for h, char in enumerate(row):
            if char == "#":
                distances.append(max(abs(x - (w + CELL_CENTRE)), abs(y - (h + CELL_CENTRE))) - 0.5)
    return min(distances)


@pytest.mark.parametrize(
    ("name", "theirs"), [("umaze", "U_MAZE"), ("medium", "MEDIUM_MAZE"), ("large", "LARGE_MAZE"), ("open", "OPEN")]
)
def test_maps_are_those_of_gymnasium_robotics(name: str, theirs: str):
    np.testing.assert_array_equal(Maze(name).walls, np.array(getattr(maps, theirs)) == 1)


def test_rows_of_a_known_map_carry_its_name_and_others_are_custom():
    assert Maze(list(MAPS["large"])).name == "large"
    assert Maze(TWO_ROOMS).name == "custom"


def test_sampler_gives_the_starts_and_goals_of_dino_wms_evaluation(golden: Path):
    tasks = np.load(golden / "eval_tasks_random_state_seed99.npz")
    maze = Maze("umaze")
    for seed, start, goal in zip(tasks["seeds"], tasks["init"], tasks["goal"], strict=True):
        rng = np.random.RandomState(seed)
        np.testing.assert_array_equal(maze.sample_state(rng), start)
        np.testing.assert_array_equal(maze.sample_state(rng), goal)


@pytest.mark.parametrize(
    ("seed", "start", "goal"),
    [
        (1, (0.5003, 1.2861, -3.6923, -4.2611), (0.9843, 1.3985, -1.079, 0.4057)),
        (100, (1.6037, 2.6964, -5.1769, -3.9556), (2.2439, 2.6472, -3.7973, 0.7849)),
        (199, (2.2025, 3.0533, -1.0462, 3.5973), (3.0506, 1.1786, 4.5992, -4.7561)),
    ],
)
def test_sampler_gives_dino_wms_first_pairs(seed: int, start: tuple, goal: tuple):
    """Values of `sample_random_init_goal_states`, printed to four decimals in the reference, section 1.6."""
    maze, rng = Maze("umaze"), np.random.RandomState(seed)
    np.testing.assert_allclose(maze.sample_state(rng), start, rtol=0, atol=5.1e-5)
    np.testing.assert_allclose(maze.sample_state(rng), goal, rtol=0, atol=5.1e-5)


@pytest.mark.parametrize("rows", [*MAPS, TWO_ROOMS], ids=[*MAPS, "two_rooms"])
def test_sampled_balls_keep_a_tenth_of_a_metre_from_walls_and_reach_every_free_cell(rows):
    maze, rng = Maze(rows), np.random.RandomState(0)
    states = np.stack([maze.sample_state(rng) for _ in range(1500)])
    assert min(chebyshev_clearance(maze, x, y) for x, y in states[:, :2]) >= 0.2 - 1e-9  # radius 0.1, gap 0.1
    assert (np.abs(states[:, 2:]) <= 5.2262554).all()
    cells = {(round(x - CELL_CENTRE), round(y - CELL_CENTRE)) for x, y in states[:, :2]}
    assert cells == {(w, h) for w, row in enumerate(maze.rows) for h, char in enumerate(row) if char == "."}


def test_clearance_is_the_distance_to_the_nearest_wall_square():
    maze, rng = Maze("medium"), np.random.default_rng(0)
    points = rng.uniform(0, 7, (5, 40, 2))
    expected = [[chebyshev_clearance(maze, x, y) for x, y in line] for line in points]
    np.testing.assert_allclose(maze.clearance(points), expected, atol=1e-12)
    assert (maze.clearance(points) < 0).any() and (maze.clearance(points) > 0.2).any()  # inside walls, and well away


def path_length(*points: tuple[float, float]) -> float:
    return sum(hypot(x1 - x0, y1 - y0) for (x0, y0), (x1, y1) in pairwise(points))


# The U-maze's inner wall ends at the corners (1.2, 2.4) and (2.4, 2.4) once it is grown by the ball's radius.
PATHS = {
    "in sight along a corridor": ((0.8, 0.8), (0.8, 2.8)),
    "in sight on a slant": ((0.5, 2.6), (3.1, 3.1)),
    "touching the grown wall": ((1.2, 0.8), (1.2, 2.9)),
    "round one corner": ((0.8, 0.8), (1.2, 2.4), (1.8, 2.8)),
    "round one corner from the right": ((2.9, 0.7), (2.4, 2.4), (1.5, 3.0)),
    "round the U": ((0.8, 0.8), (1.2, 2.4), (2.4, 2.4), (2.8, 0.8)),
    "round the U, far ends": ((0.4, 0.4), (1.2, 2.4), (2.4, 2.4), (3.2, 0.5)),
    "nowhere": ((0.9, 1.3), (0.9, 1.3)),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_geodesic_in_the_umaze_runs_straight_or_by_the_corners(path: tuple):
    start, goal = np.array([path[0]]), np.array([path[-1]])
    np.testing.assert_allclose(Maze("umaze").geodesic(start, goal), [path_length(*path)], rtol=1e-12)


@pytest.mark.parametrize("name", MAPS)
def test_geodesic_is_a_metric_no_shorter_than_a_straight_line(name: str):
    maze, rng = Maze(name), np.random.RandomState(1)
    a, b, c = (np.stack([maze.sample_state(rng)[:2] for _ in range(40)]) for _ in range(3))
    there = maze.geodesic(a, b)
    np.testing.assert_allclose(maze.geodesic(b, a), there, rtol=1e-12)
    assert (there >= np.linalg.norm(b - a, axis=1) - 1e-12).all()
    assert (there <= maze.geodesic(a, c) + maze.geodesic(c, b) + 1e-9).all()
    np.testing.assert_array_equal(maze.geodesic(a, a), 0)


def test_geodesic_of_pairs_together_equals_that_of_each_alone():
    maze, rng = Maze("large"), np.random.RandomState(2)
    a, b = (np.stack([maze.sample_state(rng)[:2] for _ in range(7)]) for _ in range(2))
    alone = [maze.geodesic(a[[k]], b[[k]])[0] for k in range(7)]
    np.testing.assert_array_equal(maze.geodesic(a, b), alone)


def test_geodesic_between_rooms_without_a_door_is_infinite():
    maze = Maze(TWO_ROOMS)
    left, right = (0.9, 1.0), (0.9, 4.2)
    distances = maze.geodesic(np.array([left, left, right]), np.array([right, (1.7, 1.6), left]))
    np.testing.assert_allclose(distances, [np.inf, hypot(0.8, 0.6), np.inf], rtol=1e-12)


def test_a_ball_pressed_into_a_wall_still_has_a_path():
    """Contacts are soft: at an impact the centre comes up to 0.05 m nearer to a wall than the ball's radius."""
    pressed, free = np.array([[0.37, 0.8]]), np.array([[0.8, 2.8]])
    expected = hypot(0.43, 2.0)
    for start, goal in ((pressed, free), (free, pressed)):
        np.testing.assert_allclose(Maze("umaze").geodesic(start, goal), [expected], atol=0.06)  # twice its depth
    assert Maze("umaze").geodesic(pressed, pressed)[0] <= 0.06


STEP = 0.1  # m; every grown wall of a maze has its faces on multiples of it
REACH = 6  # steps of a grid edge along an axis


def grid_graph(maze: Maze) -> tuple[np.ndarray, csr_array]:
    """Grid points (n, 2) and the straight edges between them that cross no wall grown by the ball's radius.

    A grown wall is a union of the grid's squares, so that an edge is free if the squares it passes through are.
    """
    shape = np.array(maze.walls.shape) * 10  # squares of the grid from qpos -0.7 on, the corner of cell (0, 0)
    blocked = np.zeros(shape, bool)
    for w, h in np.argwhere(maze.walls):
        blocked[max(10 * w - 1, 0) : 10 * w + 11, max(10 * h - 1, 0) : 10 * h + 11] = True
    reach = range(-REACH, REACH + 1)
    points = np.argwhere(np.ones(shape - 2 * REACH, bool)) + REACH  # the border is wall anyway
    number = np.full(shape, -1)
    number[tuple(points.T)] = np.arange(len(points))
    rows, columns, lengths = [], [], []
    for dw, dh in [(dw, dh) for dw in reach for dh in reach if gcd(dw, dh) == 1]:
        crossings = sorted({k / abs(d) for d in (dw, dh) if d for k in range(abs(d) + 1)})
        middles = (np.array(crossings[:-1]) + np.array(crossings[1:])) / 2
        free = np.ones(len(points), bool)
        for middle in middles:
            spot = points + middle * np.array([dw, dh])
            sides = [np.floor(spot + side * np.array([dh, dw])).astype(int) for side in (-1e-6, 1e-6)]
            free &= ~np.all([blocked[tuple(side.T)] for side in sides], axis=0)  # between two squares: one will do
        ends = points + (dw, dh)
        free &= number[tuple(ends.T)] >= 0
        rows.append(np.flatnonzero(free))
        columns.append(number[tuple(ends[free].T)])
        lengths.append(np.full(free.sum(), STEP * hypot(dw, dh)))
    edges = np.concatenate(lengths), (np.concatenate(rows), np.concatenate(columns))
    return points * STEP + CELL_CENTRE - 0.5, csr_array(edges, shape=(len(points), len(points)))


@pytest.mark.parametrize("name", ["large", "medium"])
def test_geodesic_agrees_with_shortest_paths_on_a_fine_grid(name: str):
    """Directions of the grid are at most 9.5 degrees apart: its paths are 0.35% too long in the open, never too short."""
    maze, rng = Maze(name), np.random.default_rng(3)
    points, graph = grid_graph(maze)
    reachable = np.array([chebyshev_clearance(maze, x, y) > 0.1 + 1e-6 for x, y in points])
    start, goal = rng.choice(np.flatnonzero(reachable), (2, 12))
    grid = dijkstra(graph, indices=start)[:, goal]
    exact = maze.geodesic(np.repeat(points[start], 12, axis=0), np.tile(points[goal], (12, 1))).reshape(12, 12)
    straight = np.linalg.norm(points[start][:, None] - points[goal], axis=-1)
    assert (exact > 1.02 * straight).mean() > 0.5  # most pairs must go round walls
    assert (exact <= grid + 1e-9).all()
    assert (grid <= 1.0035 * exact + 1e-9).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("xmaze", r"unknown maze 'xmaze'; known: umaze, medium, large, open, or give the rows"),
        (("####", "#.#", "####"), r"same length: \['####', '#.#', '####'\]"),
        (("###", "#G#", "###"), r"made of '#' \(wall\) and '.' \(free\), not \['G'\]"),
        (("###", "#..", "###"), r"border of a maze must be wall: \['###', '#..', '###'\]"),
        (("#.#", "#.#", "###"), r"border of a maze must be wall"),
        (("###", "###"), r"needs a free cell: \['###', '###'\]"),
    ],
)
def test_an_impossible_maze_is_refused_with_what_is_wrong(rows, message: str):
    with pytest.raises(ValueError, match=message):
        Maze(rows)


@pytest.mark.parametrize("rows", [(), ("",)], ids=["no rows", "an empty row"])
def test_an_empty_map_is_refused_as_one(rows):
    with pytest.raises(ValueError, match="maze"):
        Maze(rows)


UMAZE_CELLS = maps.U_MAZE


@pytest.mark.parametrize(
    "rows",
    [
        UMAZE_CELLS,
        np.array(UMAZE_CELLS),
        np.array(UMAZE_CELLS, float),
        np.array(UMAZE_CELLS, bool),
        np.array(UMAZE_CELLS, str),
    ],
    ids=["lists", "int", "float", "bool", "str"],
)
def test_gymnasium_robotics_ones_and_zeros_are_walls_and_free_cells(rows):
    assert Maze(rows).rows == MAPS["umaze"] and Maze(rows).name == "umaze"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, 1, 1, 1], [1, "r", "g", 1], [1, 1, 1, 1]], r"not \['g', 'r'\]; .* without letters for starts and goals"),
        ([[1, 1, 1], [1, 2, 1], [1, 1, 1]], r"not \['2'\]"),
        (["####", "#S #", "####"], r"not \[' ', 'S'\]"),
        (None, r"a name \(umaze, medium, large, open\) or the rows of a map, .* not None"),
        (5, "not 5"),
        (True, "not True"),
        ({"###": 1}, "not {'###': 1}"),
        ([5], r"not \[5\]"),
        (np.zeros(3), "not array"),
        (np.array("umaze"), "not array"),
        ([[]], "same length"),
        (np.zeros((0, 4)), "same length"),
    ],
    ids=repr,
)
def test_what_is_no_map_is_refused_in_a_sentence(rows, message: str):
    with pytest.raises(ValueError, match=message):
        Maze(rows)


def test_free_points_are_those_in_the_maps_free_cells():
    points = [(0.8, 0.8), (0.31, 0.8), (0.29, 0.8), (1.8, 1.8), (1.8, 2.8), (-9.0, 0.8), (0.8, 4.5), (99.0, 99.0)]
    expected = [True, True, False, False, True, False, False, False]
    np.testing.assert_array_equal(Maze("umaze").is_free(np.array(points)), expected)


def test_a_path_leads_to_the_same_room_alone():
    left, right = (0.9, 1.0), (0.9, 4.2)
    np.testing.assert_array_equal(
        Maze(TWO_ROOMS).has_path(np.array([left, left]), np.array([right, (1.7, 1.6)])), [False, True]
    )
