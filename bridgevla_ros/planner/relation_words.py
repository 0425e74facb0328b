"""Words between and behind things that say where one is, what it is not, or what goes on a list."""

from __future__ import annotations

GOALS = frozenset(
    {
        ("in",), ("into",), ("on",), ("onto",), ("inside",), ("to",), ("within",), ("over",), ("upon",),
        ("on", "top", "of"), ("over", "to"), ("onto", "the", "top", "of"), ("in", "the", "middle", "of"),
        ("to", "the", "inside", "of"), ("down", "in"), ("down", "on"), ("inside", "of"), ("atop",), ("at",),
        ("towards",), ("toward",), ("above",), ("with",),
    }
)  # fmt: skip
"""Words between two things that may make the second the place of the first."""

INTO = frozenset({("in",), ("into",), ("on",), ("onto",), ("inside",), ("within",), ("to",), ("at",)})
HELD = frozenset({("in",), ("on",), ("inside",), ("on", "top", "of"), ("within",), ("inside", "of")})
OUT_OF = frozenset({("from",), ("out", "of"), ("off",), ("off", "of"), ("from", "inside"), ("from", "on")})

SIDES = {"left": "left", "right": "right"}
RELATIONS: dict[tuple[str, ...], str] = {
    ("behind",): "behind", ("in", "back", "of"): "behind", ("in", "front", "of"): "front",
    ("before",): "front", ("next", "to"): "beside", ("beside",): "beside", ("near",): "beside",
    ("near", "to"): "beside", ("by",): "beside", ("close", "to"): "beside", ("adjacent", "to"): "beside",
    ("nearest", "to"): "nearest", ("nearest",): "nearest", ("closest", "to"): "nearest",
    ("closest",): "nearest", ("farthest", "from"): "farthest", ("furthest", "from"): "farthest",
    ("far", "from"): "farthest", ("farthest", "away", "from"): "farthest",
    ("furthest", "away", "from"): "farthest", ("between",): "between", ("in", "between"): "between",
    **{(side, "of"): kind for side, kind in SIDES.items()},
    **{("to", "the", side, "of"): kind for side, kind in SIDES.items()},
    **{("on", "the", side, "of"): kind for side, kind in SIDES.items()},
    **{("on", "the", side, "side", "of"): kind for side, kind in SIDES.items()},
    **{("at", "the", side, "of"): kind for side, kind in SIDES.items()},
}  # fmt: skip
PLACEABLE = frozenset({"left", "right", "behind", "front", "beside", "between"})
"""Relations that can tell where on the table a thing goes."""

NO_PLACES = frozenset(
    {
        ("under",), ("below",), ("beneath",), ("underneath",), ("around",), ("along",), ("across",),
        ("through",), ("past",), ("against",), ("away", "from"), ("nearer", "to"), ("closer", "to"),
    }
)  # fmt: skip
"""Words before a thing that tell of no place where another can be let go."""

ADVERBS = frozenset({"right", "down", "back", "directly", "somewhere", "just", "over", "up", "straight"})
"""May stand between a thing and the words that tell where it goes."""

POSTURE = frozenset(
    {"standing", "lying", "sitting", "placed", "located", "resting", "already", "yet", "currently", "right"}
)
EXCEPT = frozenset(
    {
        ("not",), ("but", "not"), ("and", "not"), ("except",), ("except", "for"), ("other", "than"),
        ("but", "for"), ("excluding",), ("which", "is", "not"), ("that", "is", "not"),
    }
)  # fmt: skip
LISTS = frozenset({("and",), (), ("and", "also"), ("as", "well", "as"), ("and", "then")})
SAYS_WHERE = frozenset(
    {
        "there",
        "here",
        "goes",
        "go",
        "it",
        "its",
        "belongs",
        "belong",
        "should",
        "gets",
        "must",
        "needs",
        "for",
    }
)
"""Words behind "A and B" that make the one the place of the other."""

PLACES: dict[tuple[str, ...], str] = {
    ("on", "the", "left"): "at_left", ("to", "the", "left"): "at_left", ("at", "the", "left"): "at_left",
    ("on", "the", "left", "side"): "at_left", ("on", "the", "far", "left"): "at_left",
    ("on", "the", "right"): "at_right", ("to", "the", "right"): "at_right",
    ("at", "the", "right"): "at_right", ("on", "the", "right", "side"): "at_right",
    ("on", "the", "far", "right"): "at_right",
    ("at", "the", "back"): "at_back", ("in", "the", "back"): "at_back", ("at", "the", "rear"): "at_back",
    ("at", "the", "front"): "at_front", ("in", "the", "front"): "at_front", ("in", "front"): "at_front",
    ("in", "the", "middle"): "at_middle", ("in", "the", "centre"): "at_middle",
    ("in", "the", "center"): "at_middle",
    ("in", "the", "corner"): "at_corner", ("at", "the", "corner"): "at_corner",
}  # fmt: skip
OF_TABLE = ("of", "the", "table")
NOTHING_SAID = (
    "on the table", "over there", "that you see", "lying around", "here", "in the scene",
    "that is standing there", "in front of you", "that you can see", "there", "you see", "next to the robot",
    "from the table", "off the table", "that is on the table", "in front of me", "that i see",
)  # fmt: skip
"""Tails that tell no thing from another: all stand on the table before the robot."""

OBSERVERS = {
    "robot": ("you", "yourself", "the robot", "the arm", "the gripper", "robot", "your base", "the hand"),
    "camera": ("me", "the camera", "the viewer", "my side", "us"),
}
RANKED_FROM = {"left": "left", "right": "right", "front": "front", "back": "back", "rear": "back"}
