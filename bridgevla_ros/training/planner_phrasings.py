"""Instructions to train the planner's language part on, with the role of every word.

Families are templates whose parts are drawn at random, here and in ``planner_families``;
config/wordings/heldout.txt holds families that are never drawn.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from bridgevla_ros.planner.language import (
    COLOURS,
    GENERIC_THINGS,
    OTHER_COLOURS,
    THINGS,
    UNKNOWN_THINGS,
    Concept,
    normalise,
    split_clauses,
)
from bridgevla_ros.planner.vocabulary import COLOUR_ANY, COLOUR_OTHER, THING_ANY, THING_NONE, THING_OTHER
from bridgevla_ros.training import planner_families

PUT = ("put", "place", "drop", "set", "lay", "move", "stick", "deposit", "position", "leave", "pop", "bring")
TAKE = (
    "pick up",
    "grab",
    "take",
    "grasp",
    "lift",
    "fetch",
    "get",
    "pick",
    "seize",
    "collect",
    "retrieve",
    "hold",
)
CARRY = ("move", "bring", "take", "carry", "transfer", "shift", "transport", "get", "guide", "pass")
INTO = (
    "in", "into", "on", "onto", "inside", "on top of", "to", "within", "over", "in the middle of",
    "to the inside of", "down in", "down on", "onto the top of",
)  # fmt: skip
PUTTING = ("putting", "placing", "dropping", "moving", "setting", "laying", "bringing")
PLACED = ("placed", "put", "dropped", "moved", "set", "brought", "transferred", "laid", "positioned")
BEFORE = (
    "please ", "could you ", "can you ", "would you please ", "robot, ", "hey, ", "now ", "ok, ",
    "I want you to ", "I'd like you to ", "your task is to ", "you should ", "go ahead and ", "carefully ",
    "quickly ", "try to ", "kindly ", "I need you to ", "let's ", "next, ", "first ", "alright, ",
    "help me ", "would you be so kind as to ",
)  # fmt: skip
AFTER = (
    " please", " for me", " now", ", thanks", " carefully", "!", "?", ".", " with the gripper", " gently",
    " quickly", " if you can", " right away", ", would you", " when you are ready", " and stop there",
    " without touching the rest", " using the arm",
)  # fmt: skip

IMPERATIVE = (
    "{put} {o} {into} {p}", "{put} {o} {into} {p}", "{put} {o} {into} {p}", "{carry} {o} to {p}",
    "{carry} {o} over to {p}", "{carry} {o} {into} {p}", "{take} {o} and {put} it {into} {p}",
    "{take} {o} and then {put} it {into} {p}", "{take} {o}, then {put} it {into} {p}",
    "{take} {o} and {carry} it to {p}", "{take} {o} from the table and {put} it {into} {p}",
    "{into} {p}, {put} {o}", "{into} {p} {put} {o}", "{put} {into} {p} {o}", "fill {p} with {o}",
    "load {p} with {o}", "load {o} {into} {p}", "find {o} and {put} it {into} {p}",
    "find {p} and {put} {o} there", "look for {p} and {put} {o} {into} it", "go to {p} with {o}",
    "use {p} for {o}", "use {p} to hold {o}", "make {p} contain {o}", "let {o} be {placed} {into} {p}",
    "have {o} {placed} {into} {p}", "make sure {o} is {into} {p}", "make sure that {p} has {o} {into} it",
    "insert {o} into {p}", "throw {o} {into} {p}", "toss {o} {into} {p}", "store {o} {into} {p}",
    "slide {o} {into} {p}", "move to {o}, grasp it and {put} it {into} {p}", "get {o} {into} {p}",
    "clean up by {putting} {o} {into} {p}", "remove {o} from the table and {put} it {into} {p}",
    "add {o} to {p}", "give {p} {o}", "cover {p} with {o}", "make {o} go {into} {p}",
    "put down {o} {into} {p}", "pack {o} {into} {p}", "return {o} to {p}", "leave {o} {into} {p}",
    "target {o}, destination {p}", "let {p} have {o}", "unite {o} with {p}",
    "pick {o} up and drop it {into} {p}", "take {o} off the table and {into} {p}",
    "place {o} so that it is {into} {p}", "choose {o} and let it fall {into} {p}",
    "close the gripper on {o} and open it above {p}",
)  # fmt: skip
STATEMENT = (
    "{o} goes {into} {p}", "{o} belongs {into} {p}", "{o} should be {into} {p}",
    "{o} must be {placed} {into} {p}", "I want {o} {into} {p}", "I want to have {o} {into} {p}",
    "I'd like to see {o} {into} {p}", "{o} needs to be {into} {p}", "{o} has to go {into} {p}",
    "{p} should contain {o}", "{p} needs {o}", "{p} is where {o} goes", "{p} is the place for {o}",
    "{p} is supposed to hold {o}", "{p} gets {o}", "would you mind {putting} {o} {into} {p}",
    "how about {putting} {o} {into} {p}", "{o} {into} {p}", "{o} -> {p}", "{o} to {p}", "{o}, {into} {p}",
    "from {o} to {p}", "{p}: {o}", "could {o} go {into} {p}",
    "there is {o} on the table, {put} it {into} {p}", "there is {p} on the table, {put} {o} {into} it",
    "the goal is {o} {into} {p}", "I need {o} {placed} {into} {p}",
    "it would be nice to have {o} {into} {p}", "the job is {putting} {o} {into} {p}",
    "you see {o}; it goes {into} {p}", "you see {p}; {o} goes there",
    "the thing to move is {o} and the place is {p}", "{p} wants {o}", "I wish {o} were {into} {p}",
    "the place for {o} is {p}", "the right place for {o} is {into} {p}", "{o} is to be {placed} {into} {p}",
    "when you see {p}, {put} {o} {into} it", "{p} is on the table. {o} goes {into} it",
    "remember {p}: {o} goes there", "{o} is on the table. {put} it {into} {p}",
    "take note of {p}. now {put} {o} there", "is that {p}? then {put} {o} {into} it",
    "source {o}, target {p}", "{p} is empty, {put} {o} {into} it", "{o} is what I want {into} {p}",
    "{into} {p} is where I want {o}", "can {p} be given {o}",
)  # fmt: skip
SOURCE_ONLY = (
    "{take} {o}", "{take} {o}", "{take} {o} from the table", "lift {o} up", "pick {o} up",
    "find {o} and {take} it", "I want you to hold {o}", "{o} should be lifted", "raise {o}",
    "just {take} {o} and wait", "go and {take} {o}", "give me {o}", "hand me {o}",
    "show me {o} by lifting it",
)  # fmt: skip
NOWHERE = (
    "on the table", "on the floor", "to the left", "to the right", "in the corner", "in my hand",
    "on the shelf", "into the trash", "outside", "next to the robot", "on the chair", "in your pocket",
    "on the ground", "in the kitchen", "in front of the robot", "behind the robot", "in the fridge",
    "on my desk", "at the edge of the table", "on the left", "into the sink", "on the right",
    "in the middle of the table", "to the door", "on my head", "at the back of the table",
)  # fmt: skip
"""Places that the planner does not know."""
STRANGE = (
    "wug", "blicket", "foamy", "fluffy", "metal", "plastic", "woollen", "broken", "sticky", "heavy", "soft",
    "hot", "cold", "wet", "rusty", "glowing", "invisible", "magic", "russet", "sepia", "ochre", "taupe",
    "umber", "azo", "zorp", "dax", "square", "rubbery", "leather", "paper", "marbled", "tartan",
    "polka-dot", "fuzzy", "frozen", "ancient",
)  # fmt: skip
"""Modifiers that the planner cannot check: it must say so, not ignore them."""
NOT_TASKS = (
    "paint {o} {c}", "do not {put} {o} {into} {p}", "don't touch {o}", "never move {o}",
    "what colour is {o}?", "how many {n}s are there?", "tell me a joke about {o}",
    "is {o} bigger than {p}?", "I like {o}", "{p} is nice", "why is {o} {into} {p}?", "eat {o}",
    "describe {o}", "sing a song about {p}", "what is {o}?", "spell {n}", "buy {o}", "count the {n}s",
    "where is {o}?", "who made {p}?", "{o} and {p} are pretty", "translate {n} into french",
    "stop moving {o}", "who put {o} {into} {p}?", "remember {o}", "draw {o}", "is {o} {into} {p}?",
    "burn {o}", "melt {p}", "leave {o} where it is", "open {o}", "close {o}", "open the drawer",
    "close the drawer", "shut {p}", "sort the {n}s by colour", "don't {put} {o} {into} {p}", "ignore {o}",
    "photograph {o}", "has {o} been {placed} {into} {p}?", "can you spot {o}?", "have you found {p}?",
    "did you notice {o} and {p}?", "what is {into} {p}?", "which one is {p}?", "is there {o}?",
    "here is {o}", "{o} is over there", "is {p} empty?", "{p} is free",
)  # fmt: skip
CHAT = (
    "make me a coffee", "make me a {u}", "cook {u} for dinner", "what time is it",
    "what is the weather like today", "play some music", "tell me a joke", "who are you", "hello",
    "good morning", "how are you doing", "thank you", "book a flight to paris", "what is two plus two",
    "call my mother", "turn on the lights", "open the window", "close the door", "drive me home",
    "write a poem", "buy me a {u}", "where is the {u}", "do my homework", "clean the kitchen",
    "wash the dishes", "vacuum the floor", "set an alarm for seven", "translate this sentence",
    "the quick brown fox jumps over the lazy dog", "lorem ipsum dolor sit amet", "dance", "sing a song",
    "go away", "do something useful", "do it", "put", "move", "pick", "go", "yes", "no", "what", "help",
    "stop", "put it there", "move it over there", "take that", "do that again", "fetch me a beer",
    "feed the cat", "walk the dog", "send an e-mail to my boss", "search the web for shoes",
    "what do you see", "what can you do", "are you ready", "dim the lights in the living room",
    "water the plants", "iron my shirt", "order a {u} online", "explain quantum physics",
    "who won the match yesterday", "read the newspaper to me", "repair the {u}", "I am hungry",
    "I love you", "shut down", "reboot the computer", "increase the volume", "take a picture",
    "paint the house", "brew some tea", "boil an egg", "wake me up tomorrow", "solve this equation",
    "the capital of france is paris", "nothing", "whatever", "and", "the", "in the", "put the in the",
    "please", "somewhere over the rainbow", "tidy my room", "take out the trash",
)  # fmt: skip
SIZES = (
    "small ",
    "little ",
    "big ",
    "nice ",
    "shiny ",
    "bright ",
    "plain ",
    "tiny ",
    "large ",
    "lovely ",
    "dark ",
)
WHERE = (
    " on the table", " over there", " next to the robot", " in front of you", " that you see",
    " lying around", " on the left", " on the right", " here", " in the back", " in the scene",
    " that is standing there",
)  # fmt: skip


@dataclass(frozen=True)
class Phrase:
    """An instruction with its labels.

    Attributes:
        text: The words.
        spans: For source and destination, character range (start, end); None where not filled.
        colours, things: Class of each role's colour and thing.
        task: False: nothing that the arm could do.
    """

    text: str
    spans: tuple[tuple[int, int] | None, tuple[int, int] | None]
    colours: tuple[int, int]
    things: tuple[int, int]
    task: bool


def _concept(rng: random.Random, classes: tuple[Concept, ...], wanted: int | None = None) -> tuple[int, str]:
    index = rng.randrange(len(classes)) if wanted is None else wanted - 1
    words = classes[index].words
    return index + 1, words[0] if rng.random() < 0.4 else rng.choice(words)


def noun_phrase(
    rng: random.Random, *, colour: int | None = None, thing: int | None = None, unlike: int | None = None
) -> tuple[str, int, int]:
    """Words for a thing, with its colour class and thing class.

    Args:
        rng: Drawn from.
        colour, thing: Classes of the lexicon to use; None: drawn.
        unlike: A colour class not to use.
    """
    draw = 1.0 if thing is not None else rng.random()
    if draw < 0.05:
        thing, noun = THING_OTHER, rng.choice(UNKNOWN_THINGS)
    elif draw < 0.12:
        thing, noun = THING_ANY, rng.choice(GENERIC_THINGS)
    else:
        thing, noun = _concept(rng, THINGS, thing)
    draw = 1.0 if colour is not None or unlike is not None else rng.random()
    if draw < 0.07:
        colour, word = COLOUR_OTHER, rng.choice(OTHER_COLOURS if rng.random() < 0.5 else STRANGE)
    elif draw < 0.20 and thing != THING_ANY:
        return _determiner(rng) + _size(rng) + noun + _where(rng), COLOUR_ANY, thing
    else:
        if unlike is not None:
            colour = rng.choice([c for c in range(1, len(COLOURS) + 1) if c != unlike])
        colour, word = _concept(rng, COLOURS, colour)
    size, where = _size(rng), _where(rng)
    form = rng.random()
    if form < 0.8:
        text = f"{_determiner(rng)}{size}{word} {noun}{where}"
    elif form < 0.86:
        text = f"the {size}{noun} that is {word}{where}"
    elif form < 0.90:
        text = f"the {size}{word}-coloured {noun}{where}"
    elif form < 0.94:
        text = f"the {noun}, the {word} one,"
    elif form < 0.97:
        text = f"the {noun} in {word}"
    else:
        text = f"the {noun} ({word})"
    return text, colour, thing


def noun_pair(rng: random.Random) -> tuple[tuple[str, int, int], tuple[str, int, int]]:
    """Source and destination; often of one noun with two colours, or of one colour."""
    source = noun_phrase(rng)
    _, colour, thing = source
    known_colour, known_thing = 0 < colour <= len(COLOURS), 0 < thing <= len(THINGS)
    draw = rng.random()
    if draw < 0.15 and known_colour and known_thing:
        return source, noun_phrase(rng, thing=thing, unlike=colour)
    if draw < 0.30 and known_colour:
        return source, noun_phrase(rng, colour=colour)
    if draw < 0.55:
        holders = range(5, len(THINGS) + 1)
        return source, noun_phrase(rng, thing=rng.choice(holders), unlike=colour)
    return source, noun_phrase(rng)


def _determiner(rng: random.Random) -> str:
    return rng.choices(("the ", "", "that ", "this ", "a ", "my ", "one "), (70, 14, 5, 3, 5, 2, 1))[0]


def _size(rng: random.Random) -> str:
    return rng.choice(SIZES) if rng.random() < 0.08 else ""


def _where(rng: random.Random) -> str:
    return rng.choice(WHERE) if rng.random() < 0.06 else ""


def _assemble(
    rng: random.Random, template: str, fills: dict[str, str]
) -> tuple[str, dict[str, tuple[int, int]]]:
    """Fill a template; returns the text and where {o} and {p} came to stand."""
    text, spans, rest = "", {}, template
    while "{" in rest:
        head, _, tail = rest.partition("{")
        key, _, rest = tail.partition("}")
        text += head
        value = fills[key] if key in fills else rng.choice(_PARTS[key])
        if key in ("o", "p"):
            spans[key] = (len(text), len(text) + len(value))
        text += value
    return text + rest, spans


_PARTS: dict[str, tuple[str, ...]] = {
    "put": PUT,
    "take": TAKE,
    "carry": CARRY,
    "into": INTO,
    "putting": PUTTING,
    "placed": PLACED,
    "u": UNKNOWN_THINGS,
    "c": tuple(c.name for c in COLOURS),
    "n": tuple(w for t in THINGS for w in t.words),
}


def sample(rng: random.Random) -> Phrase:
    """Draw one instruction with labels."""
    kind = rng.random()
    if kind < 0.10:
        return Phrase(_chat(rng), (None, None), (0, 0), (THING_NONE, THING_NONE), False)
    if kind < 0.18:
        (source, _, _), (place, _, _) = noun_pair(rng)
        text, _ = _assemble(rng, rng.choice(NOT_TASKS), {"o": source, "p": place})
        return Phrase(_case(rng, text), (None, None), (0, 0), (THING_NONE, THING_NONE), False)
    if kind < 0.62:
        return of_family(rng, planner_families.TRAINING)[1]
    (source, source_colour, source_thing), (place, place_colour, place_thing) = noun_pair(rng)
    fills = {"o": source, "p": place}
    if kind < 0.68:
        template, place_colour, place_thing = rng.choice(SOURCE_ONLY), COLOUR_ANY, THING_NONE
    else:
        template = rng.choice(IMPERATIVE if rng.random() < 0.6 else STATEMENT)
    before = rng.choice(BEFORE) if template not in STATEMENT and rng.random() < 0.35 else ""
    nowhere = kind >= 0.68 and rng.random() < 0.06
    if nowhere:
        fills["p"], place_colour, place_thing = rng.choice(NOWHERE), COLOUR_ANY, THING_OTHER
        template = rng.choice(
            ("{put} {o} {p}", "{carry} {o} {p}", "{take} {o} and {put} it {p}", "I want {o} {p}")
        )
    if rng.random() < 0.05:
        other, _, _ = noun_phrase(rng)
        fills["o"] = f"{source} {rng.choice(('next to', 'beside', 'near', 'left of', 'behind'))} {other}"
    classes = (source_colour, place_colour), (source_thing, place_thing)
    return _phrase(rng, template, fills, len(source), *classes, before=before)


def no_task(rng: random.Random) -> str:
    """Words that are nothing an arm could do: chatter, or a question about things."""
    if rng.random() < 0.5:
        return _chat(rng)
    (source, _, _), (place, _, _) = noun_pair(rng)
    return _case(rng, _assemble(rng, rng.choice(NOT_TASKS), {"o": source, "p": place})[0])


Noun = tuple[str, int, int]
"""Words for a thing, its class of colour and of thing: what ``noun_phrase`` draws."""


def about(rng: random.Random, source: Noun, place: Noun | None) -> Phrase:
    """An instruction about given things; without a place it is about taking alone."""
    if place is not None and rng.random() < 0.5:
        return of_family(rng, planner_families.TRAINING, (source, place))[1]
    fills, length = {"o": source[0]}, len(source[0])
    if place is None:
        template = rng.choice(SOURCE_ONLY)
        return _phrase(rng, template, fills, length, (source[1], COLOUR_ANY), (source[2], THING_NONE))
    template = rng.choice(IMPERATIVE if rng.random() < 0.6 else STATEMENT)
    before = rng.choice(BEFORE) if template not in STATEMENT and rng.random() < 0.35 else ""
    classes = (source[1], place[1]), (source[2], place[2])
    return _phrase(rng, template, fills | {"p": place[0]}, length, *classes, before=before)


def of_family(
    rng: random.Random, families: dict[str, str], pair: tuple[Noun, Noun] | None = None
) -> tuple[str, Phrase]:
    """An instruction of a family of ``planner_families``, and the family's name.

    Args:
        rng: Drawn from.
        families: To choose from.
        pair: Source and place; drawn where it is None.
    """
    source, place = noun_pair(rng) if pair is None else pair
    name, template = planner_families.draw(rng, families)
    fills = {"o": source[0], "p": place[0]}
    classes = (source[1], place[1]), (source[2], place[2])
    return name, _phrase(rng, template, fills, len(source[0]), *classes)


def _phrase(
    rng: random.Random,
    template: str,
    fills: dict[str, str],
    source_length: int,
    colours: tuple[int, int],
    things: tuple[int, int],
    *,
    before: str = "",
) -> Phrase:
    text, spans = _assemble(rng, template, fills)
    if "o" in spans:
        spans["o"] = (spans["o"][0], spans["o"][0] + source_length)
    text = _case(rng, before + text + (rng.choice(AFTER) if rng.random() < 0.25 else ""))
    shift = len(before)
    ranges = [(spans[k][0] + shift, spans[k][1] + shift) if k in spans else None for k in ("o", "p")]
    text, ranges = _as_read(text, ranges)
    return Phrase(text, (ranges[0], ranges[1]), colours, things, True)


def _as_read(text: str, spans: list[tuple[int, int] | None]) -> tuple[str, list[tuple[int, int] | None]]:
    """The clause that the planner makes of a text, with moved spans; the text where it sees several."""
    clauses = split_clauses(normalise(text))
    if len(clauses) != 1 or clauses[0] == text:
        return text, spans
    moved: list[tuple[int, int] | None] = []
    for span in spans:
        words = "" if span is None else text[span[0] : span[1]].strip(" ,;.")
        if span is not None and clauses[0].count(words) != 1:
            return text, spans
        at = clauses[0].find(words)
        moved.append(None if span is None else (at, at + len(words)))
    return clauses[0], moved


def _case(rng: random.Random, text: str) -> str:
    return text[0].upper() + text[1:] if rng.random() < 0.3 else text


def _chat(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.25:
        letters = "abcdefghijklmnopqrstuvwxyz"
        return " ".join("".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(rng.randint(1, 6)))
    if draw < 0.35:
        pool = (*PUT, *TAKE, *INTO, *UNKNOWN_THINGS, "the", "a", "it", "there", "up", "down", "is", "of")
        return " ".join(rng.choices(pool, k=rng.randint(2, 7)))
    text, _ = _assemble(rng, rng.choice(CHAT), {})
    if rng.random() < 0.3:
        text = rng.choice(BEFORE) + text
    return _case(rng, text)
