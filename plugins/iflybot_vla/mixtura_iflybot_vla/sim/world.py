"""One Meta-World environment: exact resets, snapshots, held actions, rendered views, points projected into views.

Everything random comes from the seed of a reset. A `World` steps on the CPU and renders with software OpenGL; what
a picture looks like depends on the settings in `Rendering`, which are stored with every dataset made here, because
pictures of two qualities must never be mixed.
"""

from __future__ import annotations

import atexit
import ctypes.util
import os
import sys
import warnings
import weakref
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from typing import Any, Literal

import numpy as np

from mixtura.errors import ConfigError, RunError
from mixtura.rng import key64

STATE_NAMES = ("x", "y", "z", "gripper")
"""Robot state: end effector in metres and gripper opening in [0, 1]. No object positions."""
ACTION_NAMES = ("dx", "dy", "dz", "gripper")
"""Action in [-1, 1]: displacement of the gripper (1 = 1 cm per simulator step), gripper effort (1 closes)."""
STEPS_PER_SECOND = 80
PLACED = {
    "table": ("topview", (0.0, 0.65, 1.5), None, 30.0),
    "side": ("corner4", (0.95, 0.65, 0.2), (0.5, 0.5, 0.5, 0.5), 45.0),
}
"""Our own views, in place of one of the simulator's: its name, position in metres, turn (None: as it is), field of view in
degrees. `table` looks straight down at where things are, `side` along the x axis at their height."""
CAMERAS = ("topview", "corner", "corner2", "corner3", "corner4", "behindGripper", "gripperPOV", *PLACED)
GOAL = -2
"""Label of the goal mark in `World.labels`."""


@dataclass(frozen=True)
class Thing:
    """Something on the table: what it is called, the body that holds it ("" for the goal mark), its point.

    The point is the environment's own object position plus `offset` in metres; for the goal mark the target.
    """

    name: str
    body: str
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Task:
    """A task of the simulator: instructions that mean it (the first is the standard one) and what it is about."""

    name: str
    phrases: tuple[str, ...]
    thing: Thing
    scene: str
    opens: str = ""
    distractor: Thing | None = None


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "reach",
            ("reach the red goal", "move the gripper to the red dot", "go to the red goal", "touch the red point"),
            Thing("goal", ""),
            "a red goal",
            distractor=Thing("block", "obj"),
        ),
        Task(
            "drawer-open",
            ("open the drawer", "pull the drawer open", "open the green drawer", "pull the drawer out by its handle"),
            Thing("drawer handle", "drawer"),
            "a green drawer",
            opens="drawer",
        ),
        Task(
            "drawer-close",
            ("close the drawer", "push the drawer shut", "close the green drawer", "push the drawer in"),
            Thing("drawer handle", "drawer", (0.0, 0.0, -0.05)),
            "a green drawer",
            opens="drawer",
        ),
        Task(
            "button-press-topdown",
            ("press the button", "push the red button down", "press the red button from above", "push the button"),
            Thing("button", "box"),
            "a red button",
        ),
    )
}
"""Tasks with instructions and questions; the scripted experts solve all of them."""


@dataclass(frozen=True)
class Rendering:
    """What a picture depends on: `fast` has no shadows, reflections or antialiasing; `benchmark` is MuJoCo's default."""

    image_size: int = 80
    cameras: tuple[str, ...] = ("table", "side")
    quality: Literal["fast", "benchmark"] = "fast"

    def settings(self) -> dict[str, Any]:
        """The settings as they are stored next to the pictures."""
        fast = self.quality == "fast"
        marks = {"offsamples": 0, "shadowsize": 0, "shadow": False, "reflection": False} if fast else {}
        return {**asdict(self), "cameras": list(self.cameras), **marks}


@dataclass(frozen=True)
class Snapshot:
    """A complete state of a world: simulator state, what a reset moved in the model, what the environment remembers."""

    seed: int
    state: np.ndarray
    body_pos: np.ndarray
    site_pos: np.ndarray
    memory: dict[str, Any]


def episode_seed(space: Literal["train", "evaluate"], seed: int, task: str, index: int) -> int:
    """Seed of an episode. Training seeds are even and evaluation seeds are odd, so the two can never meet."""
    return 2 * (key64("metaworld", space, seed, task, index) >> 2) + (space == "evaluate")


def check_names(tasks: Iterable[str], cameras: Iterable[str]) -> None:
    """Raise ValueError for a task or camera that does not exist, with those that do."""
    cameras = tuple(cameras)
    for kind, names, known in (("task", tasks, tuple(TASKS)), ("camera", cameras, CAMERAS)):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(f"{kind} '{unknown[0]}' is not known; there are {', '.join(known)}")
    for camera in cameras:
        if camera in PLACED and PLACED[camera][0] in cameras:
            raise ValueError(f"camera '{camera}' takes the place of '{PLACED[camera][0]}'; choose one of them")


def base_camera(camera: str) -> str:
    """The simulator's name of a view."""
    return PLACED[camera][0] if camera in PLACED else camera


def known_task(name: str) -> Task:
    """The task called `name`; raises ConfigError with the known ones."""
    if name not in TASKS:
        raise ConfigError(f"task '{name}' is not known; the tasks are: {', '.join(TASKS)}")
    return TASKS[name]


@cache
def simulator() -> Any:
    """The modules (mujoco, metaworld), imported with a GL backend that exists; raises RunError with the remedy."""
    if sys.platform.startswith("linux") and "MUJOCO_GL" not in os.environ:
        found = [name for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")) if ctypes.util.find_library(library)]
        if not found:
            raise RunError("rendering needs libEGL or libOSMesa; install libegl1 and libgl1-mesa-dri (or libosmesa6)")
        os.environ["MUJOCO_GL"] = found[0]
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's helper threads only cost time at these picture sizes
    try:
        import metaworld
        import metaworld.env_dict
        import metaworld.policies
        import mujoco
    except (ImportError, AttributeError, RuntimeError) as error:  # the last two from a GL library that does not load
        raise RunError(
            f"the simulator cannot be imported ({error}); it needs `pip install metaworld==3.1.1 mujoco==3.3.0`"
        ) from error
    warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high")  # scripts rely on the clipping, and so do we
    return mujoco, metaworld


def versions() -> dict[str, str]:
    """The versions that pictures and physics come from."""
    return {name: metadata.version(name) for name in ("mujoco", "metaworld")}


class World:
    """One environment of one task with its cameras. Built in about 0.3 s; the GL context is made at the first picture.

    Not to be shared between processes. `close()` frees the GL context; what is still open is closed when the process ends.
    """

    def __init__(self, task: str, rendering: Rendering) -> None:
        self.task, self.rendering = known_task(task), rendering
        self._mujoco, metaworld = simulator()
        self.env = metaworld.env_dict.ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{task}-v3-goal-observable"](seed=0)
        self.env._freeze_rand_vec = False
        self.env.seeded_rand_vec = True  # else resets draw from NumPy's global generator and ignore the seed
        self.env.max_path_length = 10**9
        self.policy = metaworld.policies.ENV_POLICY_MAP[f"{task}-v3"]()
        self.model, self.data = self.env.model, self.env.data
        for camera in rendering.cameras:
            self._place(camera)
        self._renderer: Any = None
        self._seed = 0
        self._kind = self._mujoco.mjtState.mjSTATE_INTEGRATION

    def _place(self, camera: str) -> None:
        """Move a camera of the simulator to where one of our own views is."""
        if camera in PLACED:
            base, position, turn, view = PLACED[camera]
            number = self.model.camera(base).id
            self.model.cam_pos[number] = position
            self.model.cam_fovy[number] = view
            if turn is not None:
                self.model.cam_quat[number] = turn

    # -- states ----------------------------------------------------------------------------------------------
    def reset(self, seed: int) -> None:
        """Start the episode of `seed`; equal for equal seeds, whatever happened before."""
        self._seed = seed
        self.env.seed(seed)
        self.env.reset()
        self._mujoco.mj_forward(self.model, self.data)

    def snapshot(self) -> Snapshot:
        """The present state, complete enough that going on from it later gives the same future bit for bit."""
        state = np.empty(self._mujoco.mj_stateSize(self.model, self._kind))
        self._mujoco.mj_getState(self.model, self.data, state, self._kind)
        # The environment replaces its arrays and never writes into them, so a shallow copy of its attributes is safe.
        return Snapshot(self._seed, state, self.model.body_pos.copy(), self.model.site_pos.copy(), dict(vars(self.env)))

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot that this world took."""
        vars(self.env).update(snapshot.memory)
        self._seed = snapshot.seed
        self.model.body_pos[:], self.model.site_pos[:] = snapshot.body_pos, snapshot.site_pos
        self._mujoco.mj_setState(self.model, self.data, snapshot.state, self._kind)
        self._mujoco.mj_forward(self.model, self.data)
        self._mujoco.mj_setState(self.model, self.data, snapshot.state, self._kind)  # the warm start as it was

    # -- what is known ---------------------------------------------------------------------------------------
    def state(self) -> np.ndarray:
        """The robot state (4,) float32: end effector x, y, z in metres, gripper opening in [0, 1]."""
        return np.array(self.env._get_curr_obs_combined_no_goal()[:4], np.float32)

    def expert(self) -> np.ndarray:
        """The scripted action (4,) in [-1, 1] for the present state; it sees object positions.

        Scripts steer the hand. Where a task asks for the point between the finger tips, 4.5 cm away and judged within
        5 cm, the goal that the script is told is moved by as much, so that it ends on the goal and not at its edge.
        """
        now = self.env._get_curr_obs_combined_no_goal()
        goal = self.env._target_pos
        if not self.task.thing.body:
            goal = goal + now[:3] - self.gripper()
        action = self.policy.get_action(np.hstack((now, now, goal)))
        return np.clip(np.asarray(action, np.float64), -1.0, 1.0)

    def gripper(self) -> np.ndarray:
        """The point between the finger tips (3,), in metres."""
        return np.array(self.env.tcp_center)

    def point(self, thing: Thing) -> np.ndarray:
        """Where a thing is (3,), in metres."""
        if not thing.body:
            return np.array(self.env._target_pos, np.float64)
        return np.asarray(self.env._get_pos_objects()[:3], np.float64) + thing.offset

    def travel(self, body: str) -> float:
        """How far the first joint below a body is from its rest position, in metres (0 is a closed drawer)."""
        joints = [joint for joint in range(self.model.njnt) if int(self.model.jnt_bodyid[joint]) in self.parts(body)]
        return abs(float(self.data.qpos[self.model.jnt_qposadr[joints[0]]]))

    # -- acting ----------------------------------------------------------------------------------------------
    def hold(self, action: np.ndarray, steps: int) -> bool:
        """Hold one action (4,) for `steps` simulator steps; returns whether the task was solved at any of them."""
        solved = False
        for _ in range(steps):
            solved |= self._step(action)
        return solved

    def follow(self, steps: int, noise: np.ndarray | None = None) -> tuple[np.ndarray, bool]:
        """Let the script act for `steps` simulator steps; returns its mean clean action (4,) and whether it solved the task.

        `noise` (3,) is added to what is carried out, never to what is returned. The simulator moves linearly with
        the action, so holding the mean for as many steps moves the gripper as far.
        """
        labels, solved = [], False
        for _ in range(steps):
            clean = self.expert()
            labels.append(clean)
            done = clean.copy()
            if noise is not None:
                done[:3] += noise
            solved |= self._step(done)
        return np.mean(labels, 0).astype(np.float32), solved

    def _step(self, action: np.ndarray) -> bool:
        return bool(self.env.step(np.clip(np.asarray(action, np.float64), -1.0, 1.0))[4]["success"])

    # -- seeing ----------------------------------------------------------------------------------------------
    def images(self) -> np.ndarray:
        """All views (V, H, W, 3) uint8, in the order of `rendering.cameras`."""
        return np.stack([self.image(camera) for camera in self.rendering.cameras])

    def image(self, camera: str) -> np.ndarray:
        """One view (H, W, 3) uint8."""
        if self._renderer is None:
            self._renderer = self._open_renderer()
        self._renderer.update_scene(self.data, base_camera(camera))
        return np.asarray(self._renderer.render())

    def labels(self, camera: str) -> np.ndarray:
        """What every pixel of a view shows (H, W) int: the number of a body, GOAL for the goal mark, -1 for nothing."""
        if self._renderer is None:
            self._renderer = self._open_renderer()
        self._renderer.enable_segmentation_rendering()
        self._renderer.update_scene(self.data, base_camera(camera))
        ids, kinds = np.moveaxis(self._renderer.render(), -1, 0)
        self._renderer.disable_segmentation_rendering()
        kind = self._mujoco.mjtObj
        labels = np.where(kinds == int(kind.mjOBJ_GEOM), self.model.geom_bodyid[ids], -1)
        goals = [site for site in range(self.model.nsite) if self.model.site(site).name == "goal"]
        return np.where((kinds == int(kind.mjOBJ_SITE)) & np.isin(ids, goals), GOAL, labels)

    def _open_renderer(self) -> Any:
        fast = self.rendering.quality == "fast"
        if fast:  # read when the GL context is made, so they come first
            self.model.vis.quality.offsamples = 0
            self.model.vis.quality.shadowsize = 0
        size = self.rendering.image_size
        try:
            renderer = self._mujoco.Renderer(self.model, size, size)
        except Exception as error:
            backend = os.environ.get("MUJOCO_GL", "default")
            raise RunError(f"no OpenGL context with MUJOCO_GL={backend} ({error}); install Mesa, or set egl or osmesa") from error
        if fast:
            flags = self._mujoco.mjtRndFlag
            renderer.scene.flags[flags.mjRND_SHADOW] = 0
            renderer.scene.flags[flags.mjRND_REFLECTION] = 0
        if not _DRAWING:
            atexit.register(_stop_drawing)  # after MuJoCo's own hook, which shuts EGL down, so it runs before that
        _DRAWING.add(self)
        return renderer

    def project(self, points: np.ndarray, camera: str) -> np.ndarray:
        """Points (..., 3) in metres to (..., 3): x and y in the image, in [0, 1] when inside, and depth in metres."""
        view = self.data.camera(base_camera(camera))
        local = (np.asarray(points) - view.xpos) @ view.xmat.reshape(3, 3)
        depth = -local[..., 2]
        half = np.tan(np.deg2rad(self.model.camera(base_camera(camera)).fovy[0]) / 2) * np.where(depth > 1e-6, depth, np.nan)
        return np.stack([0.5 + local[..., 0] / half / 2, 0.5 - local[..., 1] / half / 2, depth], -1)

    def moves(self, camera: str) -> bool:
        """Whether a camera hangs on a moving body."""
        return int(self.model.camera(base_camera(camera)).bodyid[0]) != 0

    def parts(self, body: str) -> set[int]:
        """The numbers of a body and of all that hangs on it."""
        found = {self.model.body(body).id}
        for child in range(self.model.nbody):  # parents come before their children
            if int(self.model.body_parentid[child]) in found:
                found.add(child)
        return found

    def extent(self, body: str) -> np.ndarray:
        """Points (N, 3) on the drawn shapes of a body and of all that hangs on it: mesh vertices and box corners."""
        inside = self.parts(body)
        drawn = [geom for geom in range(self.model.ngeom) if self.model.geom_group[geom] <= 2]  # the others are for collisions
        return np.concatenate([self._surface(geom) for geom in drawn if int(self.model.geom_bodyid[geom]) in inside])

    def _surface(self, geom: int) -> np.ndarray:
        mesh = int(self.model.geom_dataid[geom])
        if mesh >= 0:
            start, count = int(self.model.mesh_vertadr[mesh]), int(self.model.mesh_vertnum[mesh])
            local = self.model.mesh_vert[start : start + count]
        else:
            box = self.model.geom_aabb[geom]
            local = box[:3] + box[3:] * np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), -1).reshape(-1, 3)
        return np.asarray(local @ self.data.geom_xmat[geom].reshape(3, 3).T + self.data.geom_xpos[geom])

    def close(self) -> None:
        """Free the GL context; the next picture makes a new one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


_DRAWING: weakref.WeakSet[World] = weakref.WeakSet()
"""Worlds of this process that have had a GL context."""


def _stop_drawing() -> None:
    for world in list(_DRAWING):
        world.close()


_WORLDS: dict[tuple[str, Rendering], World] = {}


def shared_world(task: str, rendering: Rendering) -> World:
    """The world of this process for a task and rendering, built once."""
    key = (task, rendering)
    if key not in _WORLDS:
        _WORLDS[key] = World(task, rendering)
    return _WORLDS[key]


def close_worlds() -> None:
    """Close all shared worlds of this process."""
    while _WORLDS:
        _WORLDS.popitem()[1].close()
