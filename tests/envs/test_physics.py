"""The ball's motion against closed forms, DINO-WM's measured values and gymnasium-robotics' point mass."""

import gymnasium
import gymnasium_robotics
import mujoco
import numpy as np
import pytest

from wmbench.envs.mazes import Maze
from wmbench.envs.physics import Physics, is_success

SUBSTEP = 0.01  # s
MASS = 4 / 3 * np.pi * 0.1**3 * 1000  # kg: a ball of radius 0.1 m and density 1000 kg/m3
FORCE = 100  # N at full throttle
DAMPING = 1  # N s/m


def free_flight(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Implicit damping, semi-implicit position (reference, section 1.2)."""
    position, velocity = state[..., :2], state[..., 2:]
    for _ in range(5):
        velocity = (velocity + SUBSTEP * FORCE * action / MASS) / (1 + SUBSTEP * DAMPING / MASS)
        position = position + SUBSTEP * velocity
    return np.concatenate([position, velocity], axis=-1)


def random_actions(rng: np.random.RandomState, *shape: int) -> np.ndarray:
    """Half of them held for 8 steps, so that balls pick up speed and lean on walls; a third beyond the limits."""
    held = np.repeat(rng.uniform(-1.5, 1.5, (shape[0], -(-shape[1] // 8), 2)), 8, axis=1)[:, : shape[1]]
    return np.where(rng.uniform(size=(*shape, 1)) < 0.5, held, rng.uniform(-1.5, 1.5, (*shape, 2)))


@pytest.fixture(scope="module")
def umaze() -> Physics:
    return Physics(Maze("umaze"), num_threads=2)


def test_free_flight_follows_the_closed_form():
    rng = np.random.RandomState(0)
    state = np.concatenate([rng.uniform(0.9, 2.7, (50, 2)), rng.uniform(-5, 5, (50, 2))], axis=1)  # no wall within reach
    action = rng.uniform(-1, 1, (50, 2))
    np.testing.assert_allclose(Physics(Maze("open")).step(state, action), free_flight(state, action), rtol=0, atol=1e-9)


def test_full_throttle_from_the_speed_limit_gives_dino_wms_top_speeds(umaze: Physics):
    """Reference, section 11: 5 -> 5.226256 after one sub-step (the sampler's range), 6.125902 after an env step."""
    data = mujoco.MjData(umaze.model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = (0.8, 0.8), (0, 5), (0, 1)
    mujoco.mj_step(umaze.model, data)
    assert data.qvel[1] == pytest.approx(5.226256, abs=5e-7)
    after = umaze.step(np.array([[0.8, 0.8, 0, 5.0]]), np.array([[0.0, 1.0]]))
    assert after[0, 3] == pytest.approx(6.125902, abs=5e-7)


def test_full_throttle_from_rest_gives_dino_wms_displacements(umaze: Physics):
    """Reference, section 11: values after one and after five env steps."""
    start = np.array([[0.8, 0.8, 0, 0]])
    path = umaze.rollout(start, np.tile([0.0, 1.0], (1, 5, 1)))
    np.testing.assert_allclose(path[0, 0] - start[0], [0, 0.035611, 0, 1.185160], rtol=0, atol=5e-7)
    np.testing.assert_allclose(path[0, 4] - start[0], [0, 0.759485, 0, 5.786997], rtol=0, atol=5e-7)


def test_a_coasting_ball_slows_as_measured(umaze: Physics):
    """Reference, section 1.2: 0.485 m travelled and 1.884 m/s left of 2 m/s after 0.25 s."""
    after = umaze.rollout(np.array([[0.8, 0.8, 0, 2.0]]), np.zeros((1, 5, 2)))[0, -1]
    np.testing.assert_allclose(after, [0.8, 0.8 + 0.485, 0, 1.884], rtol=0, atol=5e-4)


@pytest.mark.parametrize(("margin", "rest"), [(0.001, 0.4015), (0.002, 0.4034)])
def test_a_ball_pushed_against_a_wall_rests_where_its_margin_says(margin: float, rest: float):
    """Reference, section 11: 0.4015 as in MuJoCo 2.1, which takes the larger margin; 0.4034 where two of 0.002 add up."""
    physics = Physics(Maze("umaze"), geom_margin=margin)
    path = physics.rollout(np.array([[0.8, 0.8, 0, 0]]), np.tile([-1.0, 0.0], (1, 200, 1)))[0]
    np.testing.assert_allclose(path[-1], [rest, 0.8, 0, 0], rtol=0, atol=2e-4)


def test_by_default_contacts_begin_at_the_original_distance():
    maze, start, push = Maze("umaze"), np.array([[0.8, 0.8, 0, 0]]), np.tile([-1.0, 0.0], (1, 200, 1))
    assert Physics(maze).rollout(start, push)[0, -1, 0] == pytest.approx(0.4015, abs=2e-4)


def test_velocity_is_clipped_before_a_step_and_not_after(umaze: Physics):
    actions = np.array([[1.0, -1.0], [1.0, -1.0]])
    fast, limit = umaze.step(np.array([[1.8, 2.8, 9.0, -7.0], [1.8, 2.8, 5.0, -5.0]]), actions)
    np.testing.assert_array_equal(fast, limit)
    np.testing.assert_allclose(limit, free_flight(np.array([1.8, 2.8, 5, -5]), actions[0]), rtol=0, atol=1e-9)
    assert (np.abs(limit[2:]) > 6).all()


def test_actions_are_clipped_to_full_throttle(umaze: Physics):
    state = np.tile([0.8, 0.8, 0.3, -0.2], (3, 1))
    beyond, limit, inside = umaze.step(state, np.array([[-3.0, 1.7], [-1.0, 1.0], [-0.9, 0.9]]))
    np.testing.assert_array_equal(beyond, limit)
    assert (np.abs(beyond - inside) > 1e-3).all()


def test_a_batch_gives_each_ball_the_path_it_has_alone(umaze: Physics):
    rng = np.random.RandomState(1)
    start = np.stack([umaze.maze.sample_state(rng) for _ in range(11)])
    actions = random_actions(rng, 11, 40)
    together = umaze.rollout(start, actions)
    assert (umaze.maze.clearance(together[..., :2]) < 0.1).any()  # walls were hit
    for b in range(11):
        np.testing.assert_array_equal(umaze.rollout(start[[b]], actions[[b]])[0], together[b])


def test_the_number_of_threads_does_not_change_a_path():
    maze, rng = Maze("medium"), np.random.RandomState(2)
    start = np.stack([maze.sample_state(rng) for _ in range(37)])
    actions = random_actions(rng, 37, 30)
    one, three = (Physics(maze, num_threads=n).rollout(start, actions) for n in (1, 3))
    np.testing.assert_array_equal(one, three)


def test_a_rollout_is_its_steps_one_by_one(umaze: Physics):
    rng = np.random.RandomState(3)
    state = np.stack([umaze.maze.sample_state(rng) for _ in range(4)])
    actions = random_actions(rng, 4, 9)
    path = umaze.rollout(state, actions)
    assert path.shape == (4, 9, 4)
    for t in range(9):
        state = umaze.step(state, actions[:, t])
        np.testing.assert_array_equal(path[:, t], state)


@pytest.mark.parametrize("name", ["umaze", "medium", "large", "open"])
def test_walls_keep_every_ball_inside(name: str):
    physics, rng = Physics(Maze(name)), np.random.RandomState(4)
    start = np.stack([physics.maze.sample_state(rng) for _ in range(40)])
    path = physics.rollout(start, random_actions(rng, 40, 150))[..., :2]
    clearance = physics.maze.clearance(path)
    assert (clearance < 0.1).mean() > 0.02  # they lean on the walls
    assert clearance.min() > 0.03  # a soft contact gives way by about 0.05 m of the radius of 0.1 (section 1.3)


# Theirs: x from columns, y from rows downwards, the map's middle at the origin and the ball's body with it.
# Ours: x from rows, y from columns, cell (0, 0) at -0.2.
def to_theirs(state: np.ndarray, maze: Maze) -> np.ndarray:
    num_rows, num_columns = maze.walls.shape
    x, y, vx, vy = np.moveaxis(state, -1, 0)
    return np.stack([y + 0.2 - (num_columns - 1) / 2, (num_rows - 1) / 2 - (x + 0.2), vy, -vx], axis=-1)


def to_ours(state: np.ndarray, maze: Maze) -> np.ndarray:
    num_rows, num_columns = maze.walls.shape
    x, y, vx, vy = np.moveaxis(state, -1, 0)
    return np.stack([(num_rows - 1) / 2 - y - 0.2, x + (num_columns - 1) / 2 - 0.2, -vy, vx], axis=-1)


@pytest.fixture(
    params=[
        ("umaze", "PointMaze_UMaze-v3", 0.002),
        ("medium", "PointMaze_Medium-v3", 0.002),
        ("large", "PointMaze_Large-v3", 0.002),
        ("open", "PointMaze_Open-v3", 0.002),
        ("umaze", "PointMaze_UMaze-v3", 0.001),
    ],
    ids=["umaze", "medium", "large", "open", "umaze with our margin"],
)
def theirs(request: pytest.FixtureRequest):
    """Maze, gymnasium-robotics' model of it, and the margin of every geom in both."""
    name, env_id, margin = request.param
    gymnasium.register_envs(gymnasium_robotics)
    env = gymnasium.make(env_id)
    env.unwrapped.point_env.model.geom_margin[:] = margin
    yield Maze(name), env.unwrapped.point_env.model, margin
    env.close()


class PointMass:
    """gymnasium-robotics' point mass under DINO-WM's order: clip action, clip velocity, five sub-steps.

    Its data is reset before each step: their solver would start from the previous step's solution and stop, within its
    tolerance, up to 1e-6 away.
    """

    def __init__(self, model: mujoco.MjModel):
        self.model, self.data = model, mujoco.MjData(model)
        self.ground = model.geom("ground").id
        self.num_wall_contacts = 0

    def step(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = state[:2]
        self.data.qvel[:] = np.clip(state[2:], -5, 5)
        self.data.ctrl[:] = np.clip(action, -1, 1)
        for _ in range(5):
            mujoco.mj_step(self.model, self.data)
            self.num_wall_contacts += int((self.data.contact.geom != self.ground).all(axis=1).sum())
        return np.concatenate([self.data.qpos, self.data.qvel])


def random_paths(maze: Maze, margin: float, seed: int, balls: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts, our paths from them, and the actions that lead along these in their axes."""
    rng = np.random.RandomState(seed)
    start = np.stack([maze.sample_state(rng) for _ in range(balls)])
    actions = random_actions(rng, balls, steps)
    path = Physics(maze, margin).rollout(start, actions)
    return start, path, np.stack([actions[..., 1], -actions[..., 0]], axis=-1)


def test_their_walls_stand_where_ours_do(theirs):
    maze, model, _ = theirs
    blocks = [g for g in range(model.ngeom) if model.geom(g).name.startswith("block")]
    centres = to_ours(np.concatenate([model.geom_pos[blocks][:, :2], np.zeros((len(blocks), 2))], axis=1), maze)[:, :2]
    np.testing.assert_allclose(np.sort(centres, axis=0), np.sort(np.argwhere(maze.walls) - 0.2, axis=0), atol=1e-12)
    np.testing.assert_allclose(maze.clearance(centres), -0.5, atol=1e-12)


def test_every_step_equals_gymnasium_robotics_point_mass_walls_included(theirs):
    """3,000 steps, each from a state on a long path. Whole paths cannot agree for ever: a ball that bounces off corners
    doubles any rounding difference many times over."""
    maze, model, margin = theirs
    point_mass, (start, path, their_actions) = PointMass(model), random_paths(maze, margin, 5, 10, 300)
    before = to_theirs(np.concatenate([start[:, None], path[:, :-1]], axis=1), maze)
    after = np.array([[point_mass.step(before[b, t], their_actions[b, t]) for t in range(300)] for b in range(10)])
    np.testing.assert_allclose(to_ours(after, maze), path, rtol=0, atol=1e-9)
    assert point_mass.num_wall_contacts > 300


def test_paths_equal_gymnasium_robotics_point_mass_over_many_bounces(theirs):
    maze, model, margin = theirs
    point_mass, (start, path, their_actions) = PointMass(model), random_paths(maze, margin, 6, 20, 50)
    their_path = np.empty_like(path)
    for b in range(20):
        state = to_theirs(start[b], maze)
        for t in range(50):
            state = their_path[b, t] = point_mass.step(state, their_actions[b, t])
    np.testing.assert_allclose(to_ours(their_path, maze), path, rtol=0, atol=1e-6)
    assert point_mass.num_wall_contacts > 100


def test_success_is_a_position_strictly_within_half_a_metre():
    goal = np.array([1.0, 2.5, 0.0, 0.0])
    states = np.array([[1.5, 2.5, 0, 0], [np.nextafter(1.5, 0), 2.5, 0, 0], [1.31, 2.91, 0, 0], [1.29, 2.89, 5, -5]])
    np.testing.assert_array_equal(is_success(states, goal), [False, True, False, True])
