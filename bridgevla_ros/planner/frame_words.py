"""Words that may stand around the things of a clause, and those that would change what is meant.

The learned language part tells from these who is put where; it was seen to read on over words that it
did not understand. So a word that stands in no list here is refused by name, and words that turn a
meaning round (negation, condition, choice, repetition, comparison) are refused unless the grammar of
``clauses`` has made something of them or they belong to a polite form.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PUT = _words(
    """
    put puts place drop set lay insert deposit stow store load stack position plonk plop stash tuck settle
    rest pop stick dump add pack install fit lower file rack house nestle park slot
    """
)
"""Verbs that need a place."""

TAKE = _words(
    """
    pick grab take grasp lift fetch get seize collect retrieve hold raise catch clutch grip clasp snatch hoist
    choose find select
    """
)
"""Verbs that are content without a place."""

_LIFT = frozenset({"pick", "lift", "grab", "grasp", "raise", "hold", "hoist", "seize"})

CARRY = _words(
    """
    move bring carry transfer shift transport guide pass relocate deliver send hand slide push throw toss slip
    return leave remove guide lead steer shuttle ferry haul convey shove chuck fling direct escort haul cart
    drag clear tidy sort clean fill cover equip supply stock unite pair combine match join release give
    let make use go drive drops puts moves travel reach arrange
    """
)

_OTHER_FORMS = _words(
    """
    putting placing dropping moving setting laying bringing taking getting carrying lifting picking grabbing
    holding handing delivering transferring loading storing filling inserting positioning leaving sliding
    placed dropped moved brought transferred laid positioned filled loaded supplied equipped stocked taken
    picked grabbed lifted grasped held carried stored inserted stowed tucked delivered relocated sent
    handed left returned found collected released landed packed gets goes takes needs lacks misses wants holds
    contains carries receives gives belongs lands sits lies rests fits stays ends gripped seized
    lie land sit fall receive contain belong end need want lack miss require requires calls call demand
    demands claim claims deserve deserves await awaits expect expects expected wanted needed required missing
    waiting meant made intended assigned reserved chosen supposed destined due owed bought prepared given got
    ended containing suffice suffices finish looks plus picture imagine close serves fills joins
    hold stay remain stand resting lying sitting standing going coming headed bound located
    """
)

_FUNCTION = _words(
    """
    the a an this that these those my your our his her its it they them one ones he she
    i i'd i'll i'm i've we we'd you you'd me us
    in into on onto inside to within over at of from with for by and then off up down out above under through
    toward towards as upon atop across along around away back near beside about regarding concerning where
    there here so when which who what whose while once after before now next first last finally lastly
    afterwards later also too well top middle inside surface center centre bottom edge side interior
    is are be been being was were will would shall should can could may might must ought has have had having
    do does did want need like let's lets make sure see look looking find keep
    how very just simply please
    """
)

_POLITE = _words(
    """
    please kindly hey hello ok okay alright right good great fine lovely thanks thank you could can would will
    mind able enough kind favour favor help try attempt go ahead carefully gently quickly slowly safely softly
    neatly directly straight immediately promptly soon swiftly cautiously precisely properly exactly nicely
    quietly calmly steadily smoothly firmly robot gripper arm hand fingers claw table desk surface tabletop
    workspace ready done finished stop wait there time day today moment second minute chance
    appreciate grateful glad happy delighted pleased nice wonderful better best wish hope love like think
    believe seems clearly obviously surely certainly definitely possible trouble ask asking request
    wonder wondering whether task job goal mission aim order command instruction plan duty
    object item thing source target destination place spot home container position location room space way
    something anything namely that's is what's where's belongings touching
    consider notice note observe remember imagine picture look see spot spotted seen view sight
    free empty vacant bare unused open available complete right wrong proper correct suitable new current own
    only all of things rest remain pair occupy final front still short today's real
    fill lend arrange ensure check care take taken see mean means intend
    have place head using use via means good work thing be come comes came bring
    """
)

VOCABULARY = PUT | TAKE | CARRY | _OTHER_FORMS | _FUNCTION | _POLITE
"""All words that may stand around the things."""

OPERATORS = _words(
    """
    not no never don't doesn't isn't aren't won't can't cannot mustn't shouldn't nor neither none nothing
    except unless without instead rather otherwise if until or either but however only twice thrice times
    again half another other else both all every each everything more most less least than same different
    between among before after while until unlike
    """
)
"""Words that turn a meaning; what the grammar has made of them is no longer here."""

_IDIOMS = (
    "if you can", "if you please", "if possible", "if you like", "if you would", "if so", "if you don't mind",
    "if it is no trouble", "if it is possible", "if i may", "when you are ready", "when you are done",
    "appreciate it if", "be great if", "be lovely if", "be nice if", "happy if", "grateful if", "glad if",
    "be good if", "wonderful if", "wonder if", "wondering if", "would it be possible", "no trouble",
    "without touching the rest", "without touching anything else", "without hurry", "without delay",
    "must not stay empty", "should not stay empty", "cannot stay empty", "must not remain empty",
    "should not remain empty", "cannot remain empty", "not be empty", "not where it belongs",
    "not where it should be", "not in its place", "not in the right place", "after that", "before you go",
    "before you move", "before you come", "after you have", "once you have", "after having", "of all things",
    "only when", "only once", "why not", "all you have to do", "all i want is", "all i need is",
    "rather have", "would rather", "is all", "that is all", "nothing else", "and nothing else", "once more",
)  # fmt: skip
"""Forms of courtesy, and turns that keep the meaning, in which operators may stand."""


def refused(words: list[str], *, before_thing: bool) -> str:
    """The words in a stretch between things that are not understood; empty if there are none.

    Args:
        words: Lower case, in order.
        before_thing: Whether a thing follows the stretch.
    """
    text = f" {' '.join(words)} "
    for idiom in sorted(_IDIOMS, key=len, reverse=True):
        text = text.replace(f" {idiom} ", " ")
    left = text.split()
    for i, word in enumerate(left):
        if word in OPERATORS:
            return " ".join(left[i : i + 2]) if word in ("instead", "rather", "do", "more", "less") else word
        if word not in VOCABULARY:
            return word
    return ""


def acts(words: tuple[str, ...]) -> bool:
    """Whether a stretch of words says what to do with a thing that was named before, as "and put it"."""
    return bool(set(words) & (PUT | MOVES)) and bool(set(words) & {"it", "that", "this", "them"})


def only_takes(words: tuple[str, ...]) -> bool:
    """Whether a clause only takes something up: "get the ball in the box" may mean to put it there."""
    said = set(words)
    return bool(said & _LIFT) and not said & (PUT | CARRY - {"let", "go"})


MOVES = _words(
    "move bring carry transfer slide push shift drag shove relocate transport leave shuttle haul cart"
)
"""Verbs beside ``PUT`` that are not content without a place."""


def wants_place(words: tuple[str, ...]) -> bool:
    """Whether the first verb of a clause needs a place."""
    for before, word in zip(("", *words), words, strict=False):
        if word in ("place", "rest") and before in ("the", "a", "its", "new"):
            continue  # "the place for ..."
        if word in PUT or word in MOVES:
            return True
        if word in TAKE or word in CARRY or word in _OTHER_FORMS:
            return False
    return False
