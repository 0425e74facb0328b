"""Pictures of an episode: what the camera saw before and after, with plan, guidance and the path taken.

An episode repeats bit for bit, so it is run again to be drawn, and nothing heavy is kept meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.camera import project
from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import CameraIntrinsics, RgbdFrame
from bridgevla_ros.evaluation.episode import draw_episode, judge_episode, make_graph
from bridgevla_ros.evaluation.report import Picture
from bridgevla_ros.evaluation.robosuite import episode as robosuite
from bridgevla_ros.evaluation.robosuite.tasks import TASKS
from bridgevla_ros.evaluation.rollout import EpisodeTrace, Graph
from bridgevla_ros.evaluation.spec import EpisodeResult, EpisodeSpec
from bridgevla_ros.planner.draw import annotate
from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.world import World

PATH = (255, 60, 160)
"""Colour of the path that the TCP really took."""


def draw_path(
    rgb: NDArray[np.uint8], path: Array, T_base_camera: Transform, intrinsics: CameraIntrinsics
) -> NDArray[np.uint8]:
    """A copy of an image (or of one enlarged by a whole factor) with a TCP path on it.

    Args:
        rgb: (H, W, 3) uint8.
        path: (M, 3) metres, base frame.
        T_base_camera: Pose of the optical frame.
        intrinsics: Of the image before it was enlarged.
    """
    image = rgb.copy()
    scale = rgb.shape[1] / intrinsics.width
    pixels = project(T_base_camera.inverse().apply(path), intrinsics) * scale
    pixels = np.round(pixels[np.isfinite(pixels).all(axis=1)]).astype(np.int32)
    if len(pixels) > 1:
        cv2.polylines(image, [pixels.reshape(-1, 1, 2)], False, PATH, 2, cv2.LINE_AA)
    return image


def picture(spec: EpisodeSpec) -> Picture:
    """Run an episode again and draw it: before on the left, after on the right."""
    if spec.suite == robosuite.SUITE:
        setup, cell = TASKS[robosuite.NAMES[spec.variant]], robosuite.new_cell()
        cell.reset(setup, spec.seed)
        graph = robosuite.make_graph(spec, cell, setup)
        return drawn(spec, graph, setup.instruction, lambda t: robosuite.judge_episode(spec, setup, cell, t))
    world = World(SimConfig())
    try:
        episode = draw_episode(spec, world)
        graph = make_graph(spec, world, episode)
        return drawn(spec, graph, episode.instruction, lambda t: judge_episode(spec, world, episode, t))
    finally:
        world.close()


def drawn(
    spec: EpisodeSpec, graph: Graph, instruction: str, judge: Callable[[EpisodeTrace], EpisodeResult]
) -> Picture:
    """Run a graph that has not run yet, and draw it."""
    shown: list[RgbdFrame] = []
    inner = graph.frame_filter

    def look(frame: RgbdFrame) -> RgbdFrame:
        frame = frame if inner is None else inner(frame)
        shown[1:] = [frame]  # the first and the last
        return frame

    graph.frame_filter, graph.blind = look, False
    trace = graph.run(instruction)
    result = judge(trace)
    T_base_camera = graph.world.T_base_camera
    first, last = shown[0], shown[-1]
    made = {g.plan_id: g for g in trace.guidances if g.code is ErrorCode.NONE}
    followed = [p for p in trace.plans if p.plan_id in made]
    plan = followed[0] if followed else (trace.plans[-1] if trace.plans else None)
    before = first.rgb if plan is None else annotate(first.rgb, plan, made.get(plan.plan_id))
    after = cv2.resize(last.rgb, (before.shape[1], before.shape[0]), interpolation=cv2.INTER_LINEAR)
    path = np.array(trace.tcp_path)
    both = np.hstack(
        [
            draw_path(before, path, T_base_camera, first.intrinsics),
            np.full((before.shape[0], 6, 3), 255, np.uint8),
            draw_path(np.asarray(after, np.uint8), path, T_base_camera, last.intrinsics),
        ]
    )
    noise = f", guidance off by {spec.guidance_noise[0] * 100:g} cm" if any(spec.guidance_noise) else ""
    outcome = "done" if result.success else f"{result.cause}: {result.message}".rstrip(": ")
    words = f'seed {spec.seed}, {spec.policy}{noise}: "{result.instruction}". {outcome}.'
    return Picture(both, words, result.success)
