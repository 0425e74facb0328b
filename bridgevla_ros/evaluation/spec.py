"""An episode to run, and what came of it: plain data that crosses between processes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpisodeSpec:
    """One episode to run; plain data, so that it can cross to a worker process.

    Attributes:
        suite: Name of the suite, or of one task of ``simulation.suites``.
        seed: Scene and task are drawn from it.
        variant: Which task of the scene (suite ``named``).
        policy: expert, ik or snap.
        planner: Planner backend.
        guidance: "planner", or "oracle": waypoints from the demonstrator's truth.
        weights: Folder of the expert's checkpoint; empty for the one that ships.
        guidance_noise: (metres, degrees), standard deviations of an error drawn anew for each plan, the same
            for all its waypoints.
        depth_noise: Metres, standard deviation of noise added to each depth pixel.
        look: Key of ``conditions.LOOKS``.
        depth_keep, depth_scale: See ``conditions.frame_filter``.
    """

    suite: str
    seed: int
    variant: int = 0
    policy: str = "expert"
    planner: str = "embedded"
    guidance_noise: tuple[float, float] = (0.0, 0.0)
    depth_noise: float = 0.0
    guidance: str = "planner"
    weights: str = ""
    look: str = ""
    depth_keep: float = 1.0
    depth_scale: float = 1.0


@dataclass(frozen=True)
class EpisodeResult:
    """What came of an episode.

    Attributes:
        success: The simulator's judgement (suite black: nothing moved).
        cause: "" for success; else the task's error code, or what went wrong though the task
            believed that it was done (WRONG_OBJECT, NOT_AT_PLACE, NOTHING_MOVED, MOVED).
        code: The task's final error code.
        moved: Objects that ended more than 3 cm from where they began.
        source, destination: Of the last step, truth; destination is empty where there is none.
        task: Name of the task within the suite.
    """

    suite: str
    seed: int
    variant: int
    policy: str
    planner: str
    instruction: str
    source: str
    destination: str
    success: bool
    cause: str
    code: str
    message: str
    moved: tuple[str, ...]
    relations: tuple[str, ...]
    plans: int
    sim_seconds: float
    wall_seconds: float
    task: str = ""
