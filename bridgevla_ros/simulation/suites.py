"""Tasks of the suites short, mid and long, and the scenes they are drawn with.

Objects vary in shape, size, colour, mass and friction and stand among clutter; most are nearly as wide
as the gripper opens (55 to 70 of 85 mm), so that guidance that is 2 cm off does not grip them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bridgevla_ros.core.transforms import Array
from bridgevla_ros.simulation import tasks
from bridgevla_ros.simulation.goals import Goal
from bridgevla_ros.simulation.robot import HOME
from bridgevla_ros.simulation.scene import COLOURS, LONG, CameraSpec, LightSpec, ObjectSpec, SceneSpec

CLUTTER = ("cube", "ball", "cylinder", "bar")


@dataclass(frozen=True)
class Step:
    """One sub-goal.

    Attributes:
        skill: press, lift, push, turn, pick_place, open or close.
        source: Name of what is handled.
        destination: Name of the place; empty where there is none.
    """

    skill: str
    source: str
    destination: str = ""


@dataclass(frozen=True)
class SuiteTask:
    """A task with its sub-goals.

    Attributes:
        name: Key of TASKS, or "pick and place".
        suite: short, mid, long or "".
        instruction: Words that ask for it.
        steps: Sub-goals, in order.
        goals: All must hold in the end.
    """

    name: str
    suite: str
    instruction: str
    steps: tuple[Step, ...]
    goals: tuple[Goal, ...]


def pick_and_place(source: str, destination: str, instruction: str = "") -> SuiteTask:
    """The task of ``tasks.sample_scene``'s scenes."""
    words = instruction or f"put the {source} in the {destination}"
    steps = (Step("pick_place", source, destination),)
    return SuiteTask("pick and place", "", words, steps, (Goal("placed", source, destination),))


def tasks_of(suite: str) -> tuple[str, ...]:
    """Names of a suite's tasks, in order.

    Raises:
        ValueError: No such suite.
    """
    names = tuple(name for name, (where, _) in TASKS.items() if where == suite)
    if not suite or not names:
        known = sorted({where for where, _ in TASKS.values() if where})
        raise ValueError(f"suite {suite!r}; expected one of {known}")
    return names


def draw(name: str, seed: int) -> tuple[SceneSpec, SuiteTask]:
    """Draw a scene and its task.

    Args:
        name: Key of TASKS.
        seed: The same seed gives the same scene and task.

    Raises:
        ValueError: No such task.
    """
    if name not in TASKS:
        raise ValueError(f"task {name!r}; expected one of {list(TASKS)}")
    suite, lay = TASKS[name]
    for attempt in range(400):
        rng = np.random.default_rng([seed, attempt, *name.encode()])
        table = Table(rng)
        try:
            words, steps, goals = lay(table)
            table.clutter()
        except NoRoom:
            continue
        order = rng.permutation(len(table.things))
        dressed = tasks.dress(seed, tuple(table.things[i] for i in order), rng)
        return dressed, SuiteTask(name, suite, words, steps, goals)
    raise RuntimeError(f"task {name!r} fits no table (seed {seed})")


class NoRoom(Exception):
    """This try at a scene failed; the next one is drawn."""


class Table:
    """Draws things and finds room for them.

    Attributes:
        rng: Source of all randomness.
        things: What stands there so far.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.things: list[ObjectSpec] = []
        self._discs: list[tuple[float, float, float]] = []

    def u(self, low: float, high: float) -> float:
        """A number between."""
        return float(self.rng.uniform(low, high))

    def colour(self, kind: str, without: tuple[str, ...] = ()) -> str:
        """One that no thing of this kind has."""
        taken = {t.colour for t in self.things if t.kind == kind} | set(without)
        return str(self.rng.choice([c for c in COLOURS if c not in taken]))

    def free(self, x: float, y: float, radius: float, clearance: float = tasks.CLEARANCE) -> bool:
        """Whether a disc is clear of all others."""
        return all(math.hypot(x - a, y - b) > radius + r + clearance for a, b, r in self._discs)

    def reserve(self, point: Array, radius: float) -> None:
        """Keep a disc about (2,) clear of what comes later, whatever stands there now."""
        self._discs.append((float(point[0]), float(point[1]), radius))

    def put(
        self,
        kind: str,
        size: tuple[float, float, float],
        *,
        colour: str = "",
        at: tuple[float, float] | None = None,
        z: float = 0.0,
        yaw: float | None = None,
        mass: float | None = None,
        handle: float = 0.0,
        radius: float | None = None,
        x_range: tuple[float, float] = tasks.X_RANGE,
        y_range: tuple[float, float] = tasks.Y_RANGE,
        claim: bool = True,
    ) -> ObjectSpec:
        """Stand a thing somewhere.

        Args:
            kind, size, colour, z, yaw, handle: Of the thing; colour and yaw are drawn where not given.
            at: x, y; drawn free of all others where not given.
            mass: kg; by volume and a drawn density where not given.
            radius: Metres to keep clear about it; its own where not given.
            claim: False: it stands on something that has claimed the room.

        Raises:
            NoRoom: Nowhere.
        """
        colour = colour or self.colour(kind)
        name = f"{colour} {kind}"
        if any(t.name == name for t in self.things):
            raise NoRoom
        thing = ObjectSpec(
            name, kind, colour, size, (0.0, 0.0, z), self.u(-math.pi, math.pi) if yaw is None else yaw,
            self._mass(kind, size) if mass is None else mass, self.u(0.6, 1.0), handle=handle,
        )  # fmt: skip
        reach = thing.radius if radius is None else radius
        for _ in range(60):
            x, y = at if at is not None else (self.u(*x_range), self.u(*y_range))
            if not claim or self.free(x, y, reach):
                if claim:
                    self._discs.append((x, y, reach))
                thing = dataclasses.replace(thing, position=(x, y, z))
                self.things.append(thing)
                return thing
            if at is not None:
                break
        raise NoRoom

    def _mass(self, kind: str, size: tuple[float, float, float]) -> float:
        fill = {"ball": math.pi / 6, "cylinder": math.pi / 4, "ring": 0.55}.get(kind, 1.0)
        return self.u(200.0, 600.0) * fill * size[0] * size[1] * size[2]

    def wide(self, kind: str = "", colour: str = "", **where: object) -> ObjectSpec:
        """A thing to grip: most are 55 to 70 mm wide, some 40 to 55."""
        kind = kind or str(self.rng.choice(["cube", "cylinder", "ball"], p=[0.5, 0.35, 0.15]))
        side = self.u(0.055, 0.070) if self.rng.random() < 0.75 else self.u(0.040, 0.055)
        height = self.u(0.05, 0.09) if kind == "cylinder" else side
        return self.put(kind, (side, side, height), colour=colour, **where)  # type: ignore[arg-type]

    def place(self, kind: str, colour: str = "", **where: object) -> ObjectSpec:
        """A bowl, plate, box or mark."""
        size = (0.12, 0.12, 0.0016) if kind == "mark" else tasks.object_size(self.rng, kind)
        return self.put(kind, size, colour=colour, mass=0.4, **where)  # type: ignore[arg-type]

    def drawer(self, opening: float) -> ObjectSpec:
        """A cabinet at the side whose drawer opens towards the middle; the way out is kept clear."""
        side = float(self.rng.choice([-1.0, 1.0]))
        x, y = self.u(0.44, 0.54), side * self.u(0.33, 0.36)
        yaw = -side * math.pi / 2 + self.u(-0.12, 0.12)
        for r in np.linspace(0.0, 0.28, 5):
            self._discs.append((x + float(r) * math.cos(yaw), y + float(r) * math.sin(yaw), 0.09))
        colour = self.colour("drawer")
        thing = ObjectSpec(
            f"{colour} drawer", "drawer", colour, (0.20, 0.17, 0.085), (x, y, 0.0), yaw, 0.30,
            self.u(0.6, 1.0), opening, handle=self.u(0.052, 0.066),
        )  # fmt: skip
        self.things.append(thing)
        return thing

    def clutter(self) -> None:
        """Up to three more things, where there is room."""
        for _ in range(int(self.rng.integers(0, 4))):
            kind = str(self.rng.choice(CLUTTER))
            try:
                self.put(kind, tasks.object_size(self.rng, kind))
            except NoRoom:
                return


_Laid = tuple[str, tuple[Step, ...], tuple[Goal, ...]]


def _press(table: Table) -> _Laid:
    side = table.u(0.065, 0.090)
    thing = table.put("button", (side, side, table.u(0.032, 0.050)), mass=0.1)
    return f"press the {thing.name}", (Step("press", thing.name),), (Goal("pressed", thing.name),)


def _lift(table: Table) -> _Laid:
    thing = table.wide()
    return f"lift the {thing.name}", (Step("lift", thing.name),), (Goal("lifted", thing.name),)


def _push(table: Table) -> _Laid:
    kind = str(table.rng.choice(["cube", "cylinder"]))
    side = table.u(0.050, 0.070)
    height = table.u(0.045, 0.065)
    x, y, way = table.u(0.38, 0.62), table.u(-0.22, 0.22), table.u(-math.pi, math.pi)
    direction = np.array([math.cos(way), math.sin(way)])
    length = table.u(0.10, 0.16)
    goal = np.array([x, y]) + length * direction
    hand = np.array([x, y]) - (side / 2 + 0.03) * direction
    for point in (goal, hand):
        if not (0.30 < point[0] < 0.68 and abs(point[1]) < 0.32):
            raise NoRoom
    size = (side, side, side if kind == "cube" else height)
    yaw = way + math.pi / 2 * int(table.rng.integers(4)) + table.u(-0.06, 0.06)
    thing = table.put(kind, size, at=(x, y), yaw=yaw)
    mark = table.place("mark", at=(float(goal[0]), float(goal[1])), claim=False)
    for share in (0.6, 0.8, 1.0):
        point = np.array([x, y]) + share * length * direction
        table.reserve(point, side / 2)
    table.reserve(hand, 0.03)
    return (
        f"push the {thing.name} to the {mark.name}",
        (Step("push", thing.name, mark.name),),
        (Goal("placed", thing.name, mark.name),),
    )


def _turn(table: Table) -> _Laid:
    size = (table.u(0.054, 0.068), table.u(0.034, 0.044), table.u(0.046, 0.058))
    thing = table.put("knob", size, mass=0.08, radius=0.07)
    return f"turn the {thing.name}", (Step("turn", thing.name),), (Goal("turned", thing.name),)


def _lid(table: Table) -> _Laid:
    disc = table.u(0.105, 0.125)
    size = (disc - 0.010, disc - 0.010, table.u(0.045, 0.070))
    pot = table.put("pot", size, mass=0.5, radius=0.075)
    thing = table.put(
        "lid", (disc, table.u(0.052, 0.068), table.u(0.036, 0.046)), at=pot.position[:2], z=size[2],
        mass=table.u(0.08, 0.18), claim=False,
    )  # fmt: skip
    return (
        f"lift the {thing.name} off the {pot.name}",
        (Step("lift", thing.name),),
        (Goal("uncovered", thing.name, pot.name),),
    )


def _put_in(table: Table, where: ObjectSpec, what: ObjectSpec) -> _Laid:
    preposition = "on" if where.kind in ("plate", "cube", "post", "mark") else "in"
    words = f"put the {what.name} {preposition} the {where.name}"
    return words, (Step("pick_place", what.name, where.name),), (Goal("placed", what.name, where.name),)


def _place(table: Table) -> _Laid:
    where = table.place(str(table.rng.choice(["bowl", "plate", "box"])))
    kinds = ["cube", "cylinder", "ball"] if where.kind != "plate" else ["cube", "cylinder"]
    return _put_in(table, where, table.wide(str(table.rng.choice(kinds))))


def _open(table: Table) -> _Laid:
    thing = table.drawer(0.0)
    return f"open the {thing.name}", (Step("open", thing.name),), (Goal("open", thing.name),)


def _close(table: Table) -> _Laid:
    thing = table.drawer(table.u(0.10, 0.14))
    return f"close the {thing.name}", (Step("close", thing.name),), (Goal("closed", thing.name),)


def _stack(table: Table) -> _Laid:
    below, above = table.wide("cube"), table.wide("cube")
    return _put_in(table, below, above)


def _ring(table: Table) -> _Laid:
    post = table.put("post", (table.u(0.014, 0.018), 0.09, table.u(0.06, 0.08)), mass=0.5)
    size = (table.u(0.056, 0.070), table.u(0.034, 0.038), table.u(0.028, 0.036))
    return _put_in(table, post, table.put("ring", size))


def _joined(*parts: _Laid) -> _Laid:
    words = ", then ".join(p[0] for p in parts)
    return words, tuple(s for p in parts for s in p[1]), tuple(g for p in parts for g in p[2])


def _stack_three(table: Table) -> _Laid:
    low, middle, high = (table.wide("cube") for _ in range(3))
    return _joined(_put_in(table, low, middle), _put_in(table, middle, high))


def _put_away(table: Table) -> _Laid:
    drawer = table.drawer(0.0)
    side = table.u(0.040, 0.056)
    kind = str(table.rng.choice(["cube", "ball"]))
    what = table.put(kind, (side, side, side))
    words, steps, goals = _put_in(table, drawer, what)
    return (
        f"open the {drawer.name}, then {words}, then close the {drawer.name}",
        (Step("open", drawer.name), *steps, Step("close", drawer.name)),
        (*goals, Goal("closed", drawer.name)),
    )


def _sort(table: Table) -> _Laid:
    parts = []
    for _ in range(int(table.rng.integers(2, 4))):
        where = table.place(str(table.rng.choice(["bowl", "plate", "box"])))
        kind = str(table.rng.choice(["cube", "cylinder"]))
        parts.append(_put_in(table, where, table.wide(kind, where.colour)))
    _, steps, goals = _joined(*parts)
    words = "put each thing in the place of its colour: " + ", ".join(p[0] for p in parts)
    return words, steps, goals


def _swap(table: Table) -> _Laid:
    first, second, spare = (table.place("mark", radius=0.055) for _ in range(3))
    kinds = [str(k) for k in table.rng.choice(["cube", "cylinder"], 2)]
    a = table.wide(kinds[0], at=first.position[:2], claim=False)
    b = table.wide(kinds[1], at=second.position[:2], claim=False)
    steps = (
        Step("pick_place", a.name, spare.name),
        Step("pick_place", b.name, first.name),
        Step("pick_place", a.name, second.name),
    )
    goals = (Goal("placed", a.name, second.name), Goal("placed", b.name, first.name))
    return f"swap the {a.name} and the {b.name}", steps, goals


def _twins(table: Table) -> _Laid:
    """Two things that look the same, 10 cm apart from middle to middle; one is meant."""
    kind = str(table.rng.choice(["cube", "cylinder"]))
    side, way = table.u(0.050, 0.058), table.u(-math.pi, math.pi)
    size = (side, side, side if kind == "cube" else table.u(0.05, 0.08))
    x, y, yaw = table.u(0.38, 0.60), table.u(-0.22, 0.22), way + table.u(-0.2, 0.2)
    first = table.put(kind, size, at=(x, y), yaw=yaw)
    other = dataclasses.replace(
        first, name=f"other {first.name}", position=(x + 0.1 * math.cos(way), y + 0.1 * math.sin(way), 0.0)
    )
    table.things.append(other)
    table.reserve(np.array(other.position[:2]), other.radius)
    return f"lift the {first.name}", (Step("lift", first.name),), (Goal("lifted", first.name),)


def _long(table: Table) -> _Laid:
    """Something long to take: a bar, or a tool by its handle."""
    kind = str(table.rng.choice(LONG))
    across, height = table.u(0.018, 0.045), table.u(0.022, 0.040)
    if kind == "bar":
        size, handle = (table.u(0.10, 0.18), across, height), 0.0
    else:
        head = table.u(max(0.040, across + 0.010), 0.080)
        size, handle = (table.u(0.075, 0.115) + head, head, height), across
    thing = table.put(kind, size, mass=table.u(0.04, 0.12), handle=handle)
    return f"lift the {thing.name}", (Step("lift", thing.name),), (Goal("lifted", thing.name),)


TASKS: dict[str, tuple[str, Callable[[Table], _Laid]]] = {
    "press": ("short", _press),
    "lift": ("short", _lift),
    "push": ("short", _push),
    "turn": ("short", _turn),
    "lid": ("short", _lid),
    "place": ("mid", _place),
    "open": ("mid", _open),
    "close": ("mid", _close),
    "stack": ("mid", _stack),
    "ring": ("mid", _ring),
    "stack three": ("long", _stack_three),
    "put away": ("long", _put_away),
    "sort": ("long", _sort),
    "swap": ("long", _swap),
    "twins": ("", _twins),
    "long thing": ("", _long),
}
"""Suite and layout of each task; twins and long things belong to none."""


def randomise(
    scene: SceneSpec,
    rng: np.random.Generator,
    *,
    physics: bool = True,
    light: bool = True,
    camera: bool = True,
    start: bool = True,
) -> SceneSpec:
    """A scene with other masses, friction, light, camera pose and start posture.

    The camera looks at the table from anywhere in front of the arm or beside it, 0.75 to 1.3 m away.
    A turned or moved base is the same thing as everything else moved: the camera's pose and the
    objects' poses in the base frame are what it changes.
    """
    objects, camera_spec, light_spec, posture = scene.objects, scene.camera, scene.light, scene.start
    if physics:
        factors = np.exp(rng.normal(0.0, 0.4, len(objects))), rng.uniform(0.5, 1.2, len(objects))
        objects = tuple(
            dataclasses.replace(o, mass=o.mass * float(m), friction=float(f))
            for o, m, f in zip(objects, *factors, strict=True)
        )
    if light:
        direction = (float(rng.uniform(-0.8, 0.8)), float(rng.uniform(-0.8, 0.8)), -1.0)
        light_spec = LightSpec(direction, float(rng.uniform(0.3, 0.8)), float(rng.uniform(0.2, 0.55)))
    if camera:
        camera_spec = _other_camera(rng, scene.camera)
    if start:
        posture = tuple(float(q) for q in HOME + rng.normal(0.0, 1.0, 7) * _START_SPREAD)
    return dataclasses.replace(scene, objects=objects, light=light_spec, camera=camera_spec, start=posture)


_START_SPREAD: Array = np.array([0.20, 0.12, 0.15, 0.12, 0.15, 0.15, 0.30])
"""(7,) rad, standard deviations about HOME."""


def _other_camera(rng: np.random.Generator, now: CameraSpec) -> CameraSpec:
    azimuth, elevation = rng.uniform(-1.0, 1.0), rng.uniform(0.55, 1.05)
    distance = rng.uniform(0.75, 1.30)
    target = (0.50 + rng.uniform(-0.04, 0.04), rng.uniform(-0.04, 0.04), 0.03)
    flat = distance * math.cos(elevation)
    position = (
        float(target[0] + flat * math.cos(azimuth)),
        float(target[1] + flat * math.sin(azimuth)),
        float(target[2] + distance * math.sin(elevation)),
    )
    aim = (float(target[0]), float(target[1]), target[2])
    return CameraSpec.look_at(position, aim, now.fovy, roll=math.radians(3.0) * float(rng.normal()))
