"""Scenes in which colour and kind do not name each thing: lookalikes, and pairs that are wanted there."""

from __future__ import annotations

import dataclasses

import numpy as np

from bridgevla_ros.simulation.scene import SceneSpec


def with_lookalike(
    scene: SceneSpec, rng: np.random.Generator, kinds: tuple[str, ...] = ()
) -> SceneSpec | None:
    """Give one movable thing the colour of another of its kind; None where no two are of one kind.

    Args:
        scene: Not changed.
        rng: Drawn from.
        kinds: Only things of these kinds; empty for any.
    """
    things = list(scene.objects)
    choices = [
        (i, j)
        for i, a in enumerate(things)
        for j, b in enumerate(things)
        if i != j
        and a.movable
        and a.kind == b.kind
        and a.colour != b.colour
        and (not kinds or a.kind in kinds)
    ]
    if not choices:
        return None
    i, j = choices[int(rng.integers(len(choices)))]
    things[j] = dataclasses.replace(things[j], colour=things[i].colour, name=_name(scene, things[i].name))
    return dataclasses.replace(scene, objects=tuple(things))


def with_colour(scene: SceneSpec, index: int, colour: str) -> SceneSpec:
    """The scene with one thing of another colour.

    Raises:
        ValueError: A thing of that colour and kind stands there already.
    """
    things = list(scene.objects)
    name = f"{colour} {things[index].kind}"
    if any(thing.name == name for thing in things):
        raise ValueError(f"there is a {name} in the scene already")
    things[index] = dataclasses.replace(things[index], colour=colour, name=name)
    return dataclasses.replace(scene, objects=tuple(things))


def _name(scene: SceneSpec, name: str) -> str:
    taken = {thing.name for thing in scene.objects}
    return next(f"{order} {name}" for order in _ORDERS if f"{order} {name}" not in taken)


_ORDERS = ("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
