"""The planner's grammar: what a clause means, what is refused by name, and the steps it makes."""

import numpy as np
import pytest

from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.evaluation.grounding_families import NOT_UNDERSTOOD
from bridgevla_ros.evaluation.wording import COMMON, fill, read_wordings
from bridgevla_ros.planner.agenda import Agenda
from bridgevla_ros.planner.clauses import read
from bridgevla_ros.planner.language import normalise
from bridgevla_ros.planner.phrases import ALL, NounPhrase, Relation
from bridgevla_ros.planner.relations import Ground, between, beyond, inside, order, pick, viewer_frame
from bridgevla_ros.planner.saying import say
from bridgevla_ros.planner.steps import sub_goals
from bridgevla_ros.planner.vocabulary import COLOUR_NAMES, THING_NAMES, label


def told(phrase: NounPhrase) -> str:
    """A phrase in a fixed notation, for comparison."""
    text = label(phrase.colour, phrase.thing)
    text += f" x{phrase.count}" if phrase.count != 1 else ""
    text += "" if phrase.definite else " any"
    text += f" {phrase.rank}{phrase.ordinal}" if phrase.rank else ""
    text += f" ~{phrase.size}" if phrase.size else ""
    text += "".join(f" not({told(p)})" for p in phrase.without)
    for relation in phrase.relations:
        names = ", ".join(r if isinstance(r, str) else told(r) for r in relation.references)
        text += f" {'no ' if relation.negated else ''}{relation.kind}({names})"
    return text


@pytest.mark.parametrize(
    ("words", "source"),
    [
        ("put the red cube in the bowl", "red cube"),
        ("put the block left of the red ball in the bowl", "cube left(red ball)"),
        ("put the block to the left of the plate in the bowl", "cube left(plate)"),
        ("put the cube that is lying behind the plate in the bowl", "cube behind(plate)"),
        ("put the nearest block in the bowl", "cube nearest1"),
        ("put the block nearest to the robot in the bowl", "cube nearest(robot)"),
        ("put the ball farthest from me in the bowl", "ball farthest(camera)"),
        ("put the second cube from the left in the bowl", "cube left2"),
        ("put the cube in the back left corner in the bowl", "cube at_corner back left()"),
        ("put the cube on the right in the bowl", "cube at_right()"),
        ("put the can between the plate and the red box in the bowl", "cylinder between(plate, red box)"),
        ("put the can between the two plates in the bowl", "cylinder between(plate x2 any)"),
        ("put the biggest ball in the bowl", "ball biggest1"),
        ("put the small ball in the bowl", "ball ~smallest"),
        ("put the cube that is not red in the bowl", "cube not(red thing)"),
        ("put the cube that isn't red or blue in the bowl", "cube not(red thing) not(blue thing)"),
        ("put the cube, not the red one, in the bowl", "cube not(red thing)"),
        ("put any ball except the green one in the bowl", "ball any not(green thing)"),
        ("take the cube out of the box and put it in the bowl", "cube in(box)"),
        ("put the cube in the box in the bowl", "cube in(box)"),
        ("put two blocks in the bowl", "cube x2 any"),
        ("put all the red balls in the bowl", f"red ball x{ALL} any"),
        ("put the red ones in the bowl", f"red thing x{ALL} any"),
        ("put one of the red cubes in the bowl", "red cube any"),
    ],
)
def test_what_a_clause_means(words: str, source: str) -> None:
    clause = read(words)
    assert told(clause.things[0]) == source
    assert told(clause.things[-1]) == "bowl"
    assert len(set(clause.groups)) == 2


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("smash the red cube in the bowl", "smash"),
        ("put the red cube in the bowl twice", "twice"),
        ("put the red cube in the bowl unless it is hot", "unless"),
        ("put the red cube instead of the ball in the bowl", "instead of"),
        ("put the red blue cube in the bowl", "red blue"),
        ("put the red or blue cube in the bowl", "red or blue"),
        ("put the fluffy cube in the bowl", "fluffy"),
        ("do not put the red cube in the bowl", "not"),
        ("put the other cube in the bowl", "other"),
        ("put the red cube upside down in the bowl", "upside"),
        ("put the cube that is not red, not the blue one, after lunch in the bowl", "after"),
        ("put the red cube in both bowls", "both bowls"),
        ("pick up two cubes", "two cubes"),
    ],
)
def test_what_is_not_understood_is_named(words: str, named: str) -> None:
    with pytest.raises(BridgeError) as caught:
        sub_goals(normalise(words))
    assert caught.value.code == ErrorCode.NOT_UNDERSTOOD
    assert named in caught.value.message


def test_the_suite_asks_what_cannot_be_done() -> None:
    for template in NOT_UNDERSTOOD:
        words = template.format(o="red cube", q="green ball", p="in the blue bowl")
        refused = False
        try:
            clause = read(sub_goals(normalise(words))[0].words)
            refused = len(clause.things) < 2  # left to the learned part: no place, or nothing to take
        except BridgeError as error:
            refused = error.code == ErrorCode.NOT_UNDERSTOOD
        assert refused, words


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (
            "put the red cube and then the ball in the bowl",
            ["put the red cube in the bowl", "put the ball in the bowl"],
        ),
        (
            "put the red cube and the ball in the bowl",
            ["put the red cube in the bowl", "put the ball in the bowl"],
        ),
        (
            "put the red cube in the bowl and the ball on the plate",
            ["put the red cube in the bowl", "put the ball on the plate"],
        ),
        (
            "put both red blocks in the box",
            [
                "put one of the 2 red cubes that are not in the box in the box",
                "put the red cube that is not in the box in the box",
            ],
        ),
        (
            "put the cube, the ball and the bar in the box",
            ["put the cube in the box", "put the ball in the box", "put the bar in the box"],
        ),
    ],
)
def test_lists_and_counts_are_steps(words: str, steps: list[str]) -> None:
    assert [g.words for g in sub_goals(normalise(words))] == steps


def test_all_is_counted_by_looking() -> None:
    agenda = Agenda(strict=True)
    goals = agenda.goals("put all the balls in the box, then the red cube on the plate")
    assert [g.every for g in goals] == [True, False]
    entry = agenda.entry("task", goals, 0)
    agenda.count("task", entry, 3)
    assert agenda.total("task", goals) == 4
    assert agenda.entry("task", goals, 2).index == 0
    assert agenda.entry("task", goals, 3).index == 1
    with pytest.raises(BridgeError, match="4 steps"):
        agenda.entry("task", goals, 4)
    # A planner that was restarted in between counts what is left.
    other = Agenda(strict=True)
    entry = other.entry("task", goals, 2)
    other.count("task", entry, 1)
    assert other.total("task", goals) == 4


def test_other_models_get_clauses_that_the_grammar_lacks() -> None:
    words = "juggle the red cube and the ball"
    assert [g.words for g in Agenda(strict=False).goals(words)] == [words]
    with pytest.raises(BridgeError, match="juggle"):
        Agenda(strict=True).goals(words)


def test_said_and_read_are_inverse() -> None:
    colour, cube, box = COLOUR_NAMES.index("red"), THING_NAMES.index("cube"), THING_NAMES.index("box")
    place = NounPhrase(0, 0, thing=box, relations=(Relation("left", (NounPhrase(0, 0, thing=cube),)),))
    for phrase in (
        NounPhrase(0, 0, colour, cube),
        NounPhrase(0, 0, colour, cube, rank="left", ordinal=2),
        NounPhrase(0, 0, colour, cube, size="smallest"),
        NounPhrase(0, 0, colour, cube, definite=False, count=ALL),
        NounPhrase(0, 0, colour, cube, definite=False, count=3),
        NounPhrase(0, 0, thing=cube, without=(NounPhrase(0, 0, colour=colour),)),
        NounPhrase(0, 0, thing=cube, relations=(Relation("at_corner back left"),)),
        NounPhrase(0, 0, thing=cube, definite=False, relations=(Relation("in", (place,), negated=True),)),
    ):
        clause = read(f"put {say(phrase)} on the plate")
        assert told(clause.things[0]) == told(phrase), say(phrase)


def test_known_wordings_are_let_through() -> None:
    lists = ("wordings/heldout.txt", "wordings/unseen.txt")
    templates = [*COMMON, *(t for name in lists for t in read_wordings(resources.find_config(name)))]
    for template in templates:
        words = fill(template, "crimson toy block", "royal blue soup bowl")
        (goal,) = sub_goals(normalise(words))
        clause = read(goal.words)
        assert sorted(label(p.colour, p.thing) for p in clause.things) == ["blue bowl", "red cube"], words
        assert clause.plain == goal.words  # said to the language part as it was trained


def test_the_clause_for_the_language_part_is_plain() -> None:
    assert read("put the block left of the red ball in the second bowl from the left").plain == (
        "put the cube in the bowl"
    )


# ---- geometry


def ground(*xy: tuple[float, float]) -> Ground:
    count = len(xy)
    return Ground(np.array(xy), np.full(count, 0.02), np.full(count, 1e-4), np.full(count, 0.04))


CORNERS = np.array([[0.3, -0.4], [0.3, 0.4], [0.8, -0.4], [0.8, 0.4]])


def test_sides_are_the_viewers() -> None:
    things = ground((0.5, 0.2), (0.5, -0.2), (0.7, 0.0), (0.3, 0.0))
    middle = np.array([0.5, 0.0])
    assert beyond(things, "left", middle) == [0]
    assert beyond(things, "right", middle) == [1]
    assert beyond(things, "behind", middle) == [2]
    assert beyond(things, "front", middle) == [3]
    # A camera before the arm looks back at it: its left is the arm's right.
    np.testing.assert_allclose(viewer_frame(np.pi) @ [0.5, 0.2], [-0.5, -0.2], atol=1e-12)


def test_between_and_inside() -> None:
    things = ground((0.5, 0.0), (0.5, 0.3), (0.62, 0.02))
    assert between(things, np.array([0.5, -0.2]), np.array([0.5, 0.2])) == [0]
    assert inside(things, np.array([0.6, 0.0]), 0.07) == [2]


def test_ranks_that_cannot_be_told_apart_name_both() -> None:
    values, margin = order(ground((0.4, 0.2), (0.5, 0.19), (0.5, -0.2)), "left", np.zeros(2), CORNERS)
    assert sorted(pick(values, range(3), 1, margin)) == [0, 1]
    values, margin = order(ground((0.4, 0.2), (0.5, 0.1), (0.5, -0.2)), "left", np.zeros(2), CORNERS)
    assert pick(values, range(3), 1, margin) == [0]
    assert pick(values, range(3), 3, margin) == [2]
    assert pick(values, range(3), 4, margin) == []
    values, margin = order(ground((0.75, 0.35), (0.4, 0.0)), "corner back left", np.zeros(2), CORNERS)
    assert pick(values, range(2), 1, margin) == [0]
