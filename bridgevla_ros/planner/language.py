"""Words: the lexicon of colours and things, clauses of an instruction, and what counts as input.

The lexicon names what the embedded planner was trained to see. It is the source of the training
phrasings, of the labels that people read, and of the list of known words in a refusal. The grammar of
``phrases`` and ``clauses`` finds things by it; which thing fills which role is the model's work.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.task_status import check_instruction

MAX_INSTRUCTION_CHARACTERS = 400
"""Our choice: the longest training phrasing has about 200."""

MAX_CLAUSES = 8


@dataclass(frozen=True)
class Concept:
    """A colour or a kind of thing, with the words for it.

    Attributes:
        name: Canonical word, as the simulator and the labels use it.
        synonyms: Other words, used in training.
        heldout: Other words, never used in training: they measure what MiniLM brings along.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    heldout: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """Words used in training, canonical first."""
        return (self.name, *self.synonyms)


COLOURS: tuple[Concept, ...] = (
    Concept(
        "red",
        (
            "crimson",
            "scarlet",
            "cherry-red",
            "ruby",
            "blood-red",
            "brick-red",
            "fire-red",
            "tomato-red",
            "reddish",
            "strawberry-red",
            "garnet",
            "cardinal red",
            "rosso",
            "cherry",
        ),
        ("vermilion", "carmine"),
    ),
    Concept(
        "green",
        (
            "emerald",
            "grass-green",
            "forest green",
            "lime-green",
            "leaf-green",
            "bottle-green",
            "sea-green",
            "lime",
            "greenish",
            "fern-green",
            "moss-green",
            "pine-green",
            "shamrock",
            "pea-green",
        ),
        ("jade",),
    ),
    Concept(
        "blue",
        (
            "navy",
            "azure",
            "royal blue",
            "sapphire",
            "sky-blue",
            "ocean-blue",
            "dark-blue",
            "bluish",
            "denim-blue",
            "cerulean",
            "indigo-blue",
            "steel-blue",
            "navy-blue",
            "midnight-blue",
        ),
        ("cobalt", "ultramarine"),
    ),
    Concept(
        "yellow",
        (
            "golden",
            "lemon-yellow",
            "canary yellow",
            "gold",
            "sunflower-yellow",
            "banana-yellow",
            "butter-yellow",
            "yellowish",
            "sunny yellow",
            "honey-yellow",
            "lemon-coloured",
            "corn-coloured",
            "saffron",
        ),
        ("mustard",),
    ),
    Concept(
        "orange",
        (
            "tangerine",
            "amber",
            "pumpkin-orange",
            "orangish",
            "apricot-orange",
            "mandarin",
            "pumpkin-coloured",
            "burnt-orange",
            "sunset-orange",
            "traffic-cone orange",
        ),
        ("carrot-coloured",),
    ),
    Concept(
        "purple",
        (
            "violet",
            "lilac",
            "plum-coloured",
            "purplish",
            "grape-coloured",
            "royal purple",
            "amethyst",
            "plum",
            "aubergine-coloured",
            "eggplant-coloured",
            "orchid-purple",
            "wine-purple",
        ),
        ("lavender", "mauve"),
    ),
    Concept(
        "pink",
        (
            "rose-coloured",
            "rosy",
            "bubblegum-pink",
            "pinkish",
            "rose",
            "baby-pink",
            "blush-pink",
            "coral-pink",
            "flamingo-pink",
            "hot-pink",
            "candy-pink",
        ),
        ("salmon-pink",),
    ),
    Concept(
        "white",
        (
            "snow-white",
            "ivory",
            "pearl-white",
            "whitish",
            "milk-white",
            "snowy",
            "pearly",
            "milky white",
            "bone-white",
            "paper-white",
            "alabaster",
        ),
        ("chalk-white",),
    ),
)

THINGS: tuple[Concept, ...] = (
    Concept(
        "cube",
        ("block", "dice", "toy block", "building block", "cubic block", "square block", "wooden cube"),
        ("die",),
    ),
    Concept(
        "ball",
        ("sphere", "marble", "round ball", "spherical ball", "rubber ball", "bouncy ball"),
        ("orb", "globe"),
    ),
    Concept(
        "cylinder",
        ("can", "tube", "tin can", "tin", "soda can", "round column", "cylindrical object"),
        ("drum", "canister"),
    ),
    Concept("bar", ("stick", "rod", "beam", "long block", "pole", "plank", "long bar"), ("baton",)),
    Concept(
        "bowl", ("dish", "basin", "soup bowl", "salad bowl", "cereal bowl", "round bowl"), ("porringer",)
    ),
    Concept("plate", ("saucer", "platter", "dinner plate", "flat plate", "tray", "flat dish"), ("disc",)),
    Concept(
        "box",
        ("crate", "bin", "container", "open box", "storage box", "square box", "case"),
        ("carton", "coffer"),
    ),
    Concept(
        "drawer",
        (
            "desk drawer",
            "pull-out drawer",
            "cabinet",
            "open drawer",
            "cabinet drawer",
            "chest of drawers",
            "cupboard",
        ),
        ("sliding compartment",),
    ),
)

MOVABLE_THINGS = ("cube", "ball", "cylinder", "bar")
"""Things that can be taken; the others hold things."""

GENERIC_THINGS = ("thing", "object", "item", "one", "toy", "piece")
"""Words that name no kind: the colour alone has to do."""

UNKNOWN_THINGS = (
    "banana", "apple", "cup of tea", "coffee", "stapler", "phone", "book", "spoon", "fork", "knife",
    "bottle", "hammer", "screwdriver", "sock", "shoe", "cat", "dog", "toaster", "window", "door", "car",
    "chair", "pencil", "teddy bear", "unicorn", "remote control", "keyboard", "sandwich", "pizza", "carrot",
    "orange juice", "lamp", "towel", "sponge", "scissors", "newspaper", "candle", "guitar", "umbrella",
    "hat", "key", "wallet", "laptop", "bucket of paint", "glove", "egg", "flower", "rope", "battery",
    "coin", "envelope", "magnet", "camera", "monkey", "rocket", "bicycle", "mushroom", "pillow", "blanket",
    "ladder", "kettle", "pan", "mirror", "clock", "star", "triangle", "cheese", "bread", "onion", "tomato",
    "potato", "grape", "lemon tart", "strawberry",
)  # fmt: skip
"""Things that the planner does not know: in training they teach it to say so."""

OTHER_COLOURS = (
    "beige", "maroon", "khaki", "bronze", "indigo", "striped", "transparent", "rainbow-coloured",
    "checkered", "black", "gray", "grey", "brown", "cyan", "turquoise", "magenta", "silver", "tan", "teal",
    "olive", "burgundy", "spotted", "glass", "copper", "cream-coloured", "peach-coloured",
)  # fmt: skip
"""Colours that no thing of the lexicon has."""

_PRONOUNS = {"it", "this", "that", "them"}
_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")
_SPLIT = re.compile(
    r"(?:[.;!?]\s+|,\s*|\s+)(?:and\s+)?(?:then|after that|afterwards|next(?! to\b)|finally|lastly)\b[,:]?\s*"
    r"|[.;]\s+(?:and\s+)?(?=\w)",
    re.IGNORECASE,
)
_VERBS = [
    "put",
    "place",
    "drop",
    "move",
    "set",
    "lay",
    "pick",
    "grab",
    "take",
    "get",
    "fetch",
    "bring",
    "transfer",
    "carry",
    "lift",
    "grasp",
    "toss",
    "load",
    "stack",
    "deliver",
    "store",
    "insert",
    "stow",
    "throw",
    "push",
    "slide",
    "position",
    "deposit",
    "relocate",
    "shift",
    "pop",
    "leave",
    "open",
    "close",
    "shut",
]
_AND_VERB = re.compile(r"(?:,\s*|\s+)and\s+(?=(?:" + "|".join(_VERBS) + r")\b)", re.IGNORECASE)


def names(clause: str, concept: Concept) -> bool:
    """Whether a clause holds a word for a concept, also in the plural or joined by hyphens."""
    text = f" {' '.join(_words(clause.replace('-', ' ')))} "
    for word in concept.words:
        plain = word.replace("-", " ").casefold()
        if f" {plain} " in text or f" {plain}s " in text or f" {plain}es " in text:
            return True
    return False


def known_words() -> str:
    """What the embedded planner knows, for a refusal."""
    colours = ", ".join(c.name for c in COLOURS)
    things = ", ".join(t.name for t in THINGS)
    return f"colours: {colours}; things: {things}"


def normalise(instruction: str) -> str:
    """Check and clean an operator's words.

    Args:
        instruction: Anything.

    Returns:
        The words on one line, Unicode normalised, single spaces.

    Raises:
        BridgeError: NOT_UNDERSTOOD: empty, too long, or not text.
    """
    text = unicodedata.normalize("NFKC", instruction)
    return check_instruction(text, limit=MAX_INSTRUCTION_CHARACTERS, unreadable=ErrorCode.NOT_UNDERSTOOD)


def _words(clause: str) -> list[str]:
    return _WORD.findall(clause.casefold())


def _continues(clause: str) -> bool:
    """A clause about what the one before named: its object is a pronoun."""
    return bool(_PRONOUNS & set(_words(clause))) and not _names_two(clause)


def _completes(clause: str, before: str) -> bool:
    """Each names one thing, and the second says "there", or neither has a verb that would start a step."""
    if _names_two(clause) or _names_two(before):
        return False
    words = _words(clause)
    return "there" in words[1:] or not set(_VERBS) & {*words, *_words(before)}


def _names_two(clause: str) -> bool:
    """Two noun phrases; nouns side by side ("desk drawer", "tin box") are one."""
    nouns = {w for t in THINGS for w in (*t.words, *t.heldout)} | set(GENERIC_THINGS)
    longest_first = sorted(nouns, key=len, reverse=True)
    one = "|".join(re.escape(noun) for noun in longest_first)
    return len(re.findall(rf"\b(?:{one})(?: (?:{one}))*\b", " ".join(_words(clause)))) >= 2


def split_clauses(instruction: str) -> tuple[str, ...]:
    """Split an instruction into sub-goals, each one pick-and-place.

    "pick up the red cube and put it in the bowl" is one; "put the cube in the bowl, then the ball on
    the plate" are two. A clause whose object is a pronoun belongs to the clause before it; a second
    clause without a verb borrows the first one's.

    Args:
        instruction: Cleaned by ``normalise``.

    Returns:
        At least one clause, in order.

    Raises:
        BridgeError: NOT_UNDERSTOOD: more than ``MAX_CLAUSES`` of them.
    """
    rough: list[str] = []
    for sentence in _SPLIT.split(instruction):
        parts = _AND_VERB.split(sentence)
        for part in parts:
            part = part.strip(" ,;.")
            if any(c.isalpha() for c in part):
                rough.append(part)
    clauses: list[str] = []
    for part in rough:
        if clauses and (
            _continues(part)
            or _completes(part, clauses[-1])
            or not _names_thing(part)
            or not _names_thing(clauses[-1])
        ):
            clauses[-1] = f"{clauses[-1]} and {part}"
        elif clauses and not set(_words(part)) & set(_VERBS) and set(_words(clauses[-1])) & set(_VERBS):
            verb = next(w for w in _words(clauses[-1]) if w in _VERBS)
            clauses.append(f"{verb} {part}")
        else:
            clauses.append(part)
    if len(clauses) > MAX_CLAUSES:
        raise too_many(len(clauses))
    return tuple(clauses) if clauses else (instruction,)


def too_many(steps: int) -> BridgeError:
    """A refusal of an instruction of more than ``MAX_CLAUSES`` steps."""
    return BridgeError(
        ErrorCode.NOT_UNDERSTOOD,
        f"the instruction has {steps} steps; the limit is {MAX_CLAUSES}",
        value=float(steps),
        limit=float(MAX_CLAUSES),
        unit="steps",
        remedy="give the steps in several instructions",
    )


def _names_thing(clause: str) -> bool:
    text = f" {' '.join(_words(clause))} "
    nouns = {w for t in THINGS for w in (*t.words, *t.heldout)} | set(GENERIC_THINGS) | set(UNKNOWN_THINGS)
    return any(f" {noun} " in text for noun in nouns)
