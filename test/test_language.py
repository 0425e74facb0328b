"""Clauses, limits of an instruction, and the lexicon."""

import random
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.planner.language import (
    COLOURS,
    MAX_CLAUSES,
    MAX_INSTRUCTION_CHARACTERS,
    THINGS,
    normalise,
    split_clauses,
)
from bridgevla_ros.training import planner_families
from bridgevla_ros.training.planner_phrasings import (
    AFTER,
    BEFORE,
    IMPERATIVE,
    INTO,
    PLACED,
    PUT,
    SOURCE_ONLY,
    STATEMENT,
    Phrase,
    of_family,
    sample,
)


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("put the red cube in the blue bowl", 1),
        ("pick up the red cube and put it in the blue bowl", 1),
        ("pick up the red cube, then put it in the blue bowl", 1),
        ("grab the red cube. drop it into the box", 1),
        ("pick up the white ball and put it into the orange desk drawer", 1),
        ("pick up the can and put it into the tin box", 1),
        ("put the red cube in the bowl, then put the green ball on the plate", 2),
        ("put the red cube in the bowl and then the green ball on the plate", 2),
        ("put the red cube in the bowl and put the green ball on the plate", 2),
        (
            "Put the cube in the bowl. After that move the ball to the box; finally put the bar on the plate",
            3,
        ),
        ("look at the blue bowl. put the red cube there", 1),
        ("I have the red cube. the blue bowl is over there", 1),
        ("put the red cube in the bowl. the green ball goes on the plate", 2),
        ("put the red cube in the bowl. put the green ball over there", 2),
    ],
)
def test_steps(text: str, clauses: int) -> None:
    assert len(split_clauses(normalise(text))) == clauses


def test_a_clause_without_a_verb_borrows_it() -> None:
    assert split_clauses("put the red cube in the bowl, then the green ball on the plate")[1] == (
        "put the green ball on the plate"
    )


@pytest.mark.parametrize(
    "text", ["", "   \n\t", "?!...", "12 34", "\x00\x01put", "put the \ufffd cube", "\ud800 cube"]
)
def test_no_text_is_not_understood(text: str) -> None:
    with pytest.raises(BridgeError) as caught:
        normalise(text)
    assert caught.value.code == ErrorCode.NOT_UNDERSTOOD


def test_a_hundred_kilobytes_name_value_and_limit() -> None:
    with pytest.raises(BridgeError) as caught:
        normalise("put the red cube in the blue bowl " * 3000)
    assert caught.value.code == ErrorCode.NOT_UNDERSTOOD
    assert caught.value.value == 34 * 3000
    assert caught.value.limit == MAX_INSTRUCTION_CHARACTERS


def test_too_many_steps() -> None:
    text = ", then ".join(["put the cube in the box"] * (MAX_CLAUSES + 1))
    with pytest.raises(BridgeError, match="9 steps"):
        split_clauses(text)


@given(st.text(max_size=MAX_INSTRUCTION_CHARACTERS))
@settings(max_examples=200)
def test_any_text_is_clauses_or_a_refusal(text: str) -> None:
    code = ErrorCode.NONE
    clauses: tuple[str, ...] = ()
    try:
        clauses = split_clauses(normalise(text))
    except BridgeError as error:
        code = error.code
    if code == ErrorCode.NONE:
        assert 1 <= len(clauses) <= MAX_CLAUSES
        assert all(c.strip() for c in clauses)
    else:
        assert code == ErrorCode.NOT_UNDERSTOOD


def test_no_word_names_two_concepts() -> None:
    for concepts in (COLOURS, THINGS):
        words = [w for c in concepts for w in (*c.words, *c.heldout)]
        assert len(words) == len(set(words))


def test_training_never_uses_what_is_held_out() -> None:
    rng = random.Random(5)
    said = "\n".join(sample(rng).text.casefold() for _ in range(3000))
    heldout = [w for c in (*COLOURS, *THINGS) for w in c.heldout]
    assert not [w for w in heldout if re.search(rf"\b{re.escape(w)}\b", said)]
    lines = resources.find_config("wordings/heldout.txt").read_text(encoding="utf-8").splitlines()
    trained = {*IMPERATIVE, *STATEMENT, *SOURCE_ONLY, *BEFORE, *AFTER}
    for line in lines:
        assert line.replace("the {object}", "{o}").replace("the {place}", "{p}") not in trained


WORD_LISTS = {"into": INTO, "placed": PLACED, "put": PUT}


def matcher(pattern: str) -> re.Pattern[str]:
    """All that a family can say, with OBJECT and PLACE for its noun phrases."""
    text = pattern.replace("{o}", "OBJECT").replace("{p}", "PLACE")
    for key, words in WORD_LISTS.items():
        text = text.replace(f"{{{key}}}", f"[{'|'.join(words)}]")
    text = re.sub(r"\{\w+\}", r"\\w+", text).replace(".", r"\.").replace("?", r"\?")
    return re.compile(text.replace("[", "(?:").replace("]", ")"), re.IGNORECASE)


def test_held_out_families_are_not_drawn() -> None:
    lines = resources.find_config("wordings/heldout.txt").read_text(encoding="utf-8").splitlines()
    heldout = [
        line.replace("the {object}", "OBJECT").replace("the {place}", "PLACE")
        for line in lines
        if not line.startswith("#")
    ]
    plain = {template: template for template in (*IMPERATIVE, *STATEMENT)}
    for pattern in (plain | planner_families.TRAINING | planner_families.VALIDATION).values():
        assert not [line for line in heldout if matcher(pattern).fullmatch(line)], pattern


def test_validation_families_are_not_trained_on() -> None:
    trained = [matcher(p) for p in (*planner_families.TRAINING.values(), *IMPERATIVE, *STATEMENT)]
    rng = random.Random(8)
    for pattern in planner_families.VALIDATION.values():
        for _ in range(40):
            said = planner_families.expand(pattern, rng).replace("{o}", "OBJECT").replace("{p}", "PLACE")
            said = said.replace("{into}", rng.choice(INTO))
            assert not [t.pattern for t in trained if t.fullmatch(said)], said


@pytest.mark.parametrize(
    "draw",
    [
        sample,
        lambda rng: of_family(rng, planner_families.TRAINING)[1],
        lambda rng: of_family(rng, planner_families.VALIDATION)[1],
    ],
    ids=["sample", "training", "validation"],
)
def test_labels_point_at_their_words(draw: Callable[[random.Random], Phrase]) -> None:
    rng = random.Random(6)
    for _ in range(300):
        phrase = draw(rng)
        for span, colour, thing in zip(phrase.spans, phrase.colours, phrase.things, strict=True):
            if span is None or not 0 < thing <= len(THINGS):
                continue
            words = phrase.text[span[0] : span[1]].casefold()
            assert any(w in words for w in THINGS[thing - 1].words)
            if 0 < colour <= len(COLOURS):
                assert any(w in words for w in COLOURS[colour - 1].words)
