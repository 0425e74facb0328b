"""Noun phrases: which thing is meant, by colour, kind, number, rank, size and what it is not.

A strict grammar (docs/language.md): a word between a determiner and its noun that is none of the
vocabulary's, or that contradicts another, is not understood; nothing is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.planner.language import known_words
from bridgevla_ros.planner.lexer import (
    DETERMINERS,
    FILLERS,
    INDEFINITE,
    NUMBERS,
    ORDINALS,
    RANKS,
    SIZES,
    Entry,
    Token,
    match,
)
from bridgevla_ros.planner.vocabulary import COLOUR_ANY, THING_ANY, label

ALL = -1
"""Count of "all", "every", "each"."""


@dataclass(frozen=True)
class Relation:
    """Where a thing is, by others.

    Attributes:
        kind: left, right, front, behind, beside, nearest, farthest, between, in; or of the scene as a
            whole: at_left, at_right, at_front, at_back, at_middle, at_corner.
        references: Things it is told by; none for those of the scene, "robot" or "camera" may stand for one.
        negated: It must not hold.
    """

    kind: str
    references: tuple[NounPhrase | str, ...] = ()
    negated: bool = False


@dataclass(frozen=True)
class NounPhrase:
    """One thing, or several alike, as the words name them.

    Attributes:
        start, end: Character range in the clause, tails included.
        colour, thing: Classes of the vocabulary.
        definite: "the" one; else any that fits will do.
        count: How many; ``ALL``: every one.
        exact: That there are just so many is said too ("both", "the two").
        one_of: One of ``count`` is meant.
        plural: Form of the noun.
        rank: Of ``lexer.RANKS``; empty for none.
        ordinal: The n-th of that rank, from 1.
        size: biggest or smallest where there are several; empty for none.
        without: What it is not.
        relations: Where it is.
        simple: Only determiner, colour and noun: said as the language part was trained on.
    """

    start: int
    end: int
    colour: int = COLOUR_ANY
    thing: int = THING_ANY
    definite: bool = True
    count: int = 1
    exact: bool = False
    one_of: bool = False
    plural: bool = False
    rank: str = ""
    ordinal: int = 1
    size: str = ""
    without: tuple[NounPhrase, ...] = ()
    relations: tuple[Relation, ...] = ()
    simple: bool = True

    @property
    def words(self) -> str:
        """Canonical words, e.g. "the red cube"."""
        return f"the {label(self.colour, self.thing)}"


def not_understood(words: str, why: str = "") -> BridgeError:
    """A refusal that names the words."""
    text = f"the planner does not understand {words!r}" + (f": {why}" if why else "")
    return BridgeError(
        ErrorCode.NOT_UNDERSTOOD,
        text,
        remedy=f"say it in other words, one thing and one place a step; known {known_words()}",
    )


def noun_phrase(tokens: tuple[Token, ...], at: int) -> tuple[NounPhrase, int] | None:
    """The noun phrase that begins with token ``at``, and the token after it; None where none does.

    Raises:
        BridgeError: NOT_UNDERSTOOD: its words contradict each other.
    """
    return _Reader(tokens, at).read()


@dataclass
class _Reader:
    """Reads one noun phrase from left to right."""

    tokens: tuple[Token, ...]
    first: int
    at: int = 0
    colours: list[int] = field(default_factory=list)
    without: list[int] = field(default_factory=list)
    ranks: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)
    determiner: str = ""
    count: int = 1
    exact: bool = False
    one_of: bool = False
    ordinal: int = 0
    simple: bool = True

    def read(self) -> tuple[NounPhrase, int] | None:
        self.at = self.first
        whole = self._everything()
        if whole is not None:
            return whole
        if not self._quantity():
            return None
        self._properties()
        noun = match(self.tokens, self.at, "noun")
        if noun is None:
            return None
        entry, self.at = noun
        if self.at == self.first + 1 and self._is_verb():
            return None
        thing, plural = self._compound(entry.value, entry.plural)
        self._tails()
        return self._made(thing, plural), self.at

    def _is_verb(self) -> bool:
        """ "can you", "stick the cube": a bare word that is a noun elsewhere."""
        word = self.tokens[self.first].word
        return word == "can" or (
            self._word() in DETERMINERS and word in ("stick", "case", "tin", "box", "bin")
        )

    def _word(self, ahead: int = 0) -> str:
        """The word ``ahead`` tokens on; empty at the end and behind a mark other than hyphen or bracket."""
        i = self.at + ahead
        if i >= len(self.tokens) or (i > self.first and self.tokens[i].gap.strip(" -()\u2019'\"")):
            return ""
        return self.tokens[i].word

    def _everything(self) -> tuple[NounPhrase, int] | None:
        word = self._word()
        if word not in ("everything", "anything", "something"):
            return None
        token = self.tokens[self.at]
        count = ALL if word == "everything" else 1
        self.at += 1
        return NounPhrase(
            token.start, token.end, definite=False, count=count, plural=count == ALL, simple=count != ALL
        ), self.at

    def _quantity(self) -> bool:
        """Determiner and number: the, a, two, both, all the, one of the three, the other (refused)."""
        word = self._word()
        if word in ("all", "every", "each", "both"):
            self.count, self.exact, self.simple = (2, True, False) if word == "both" else (ALL, False, False)
            self.determiner = word
            self.at += 1
            if self._word() == "of":
                self.at += 1
            if self._word() in DETERMINERS:
                self.at += 1
            if self._word() in NUMBERS and word != "each":
                self.count, self.exact = NUMBERS[self._word()], True
                self.at += 1
        elif word in ("one", "any", "either") and self._word(1) == "of":
            self._one_of()
        else:
            self._determiner()
        if self._word() == "other" and match(self.tokens, self.at + 1, "noun"):
            raise not_understood("other", "each step is read by itself; say the colour or where it is")
        return True

    def _one_of(self) -> None:
        """ "one of the red cubes", "any of the three balls"."""
        self.simple, self.one_of = False, True
        self.at += 2
        if self._word() in DETERMINERS:
            self.exact = True
            self.at += 1
        if self._word() in NUMBERS:
            self.count = NUMBERS[self._word()]
            self.at += 1
        self.exact = self.exact and self.count != 1

    def _determiner(self) -> None:
        word = self._word()
        if word in DETERMINERS or word in INDEFINITE or (word in ("one", "exactly") and self._word(1)):
            if word == "one" and match(self.tokens, self.at + 1, "noun") is None and not self._adjective(1):
                return  # "one" is the noun
            self.determiner = word
            self.at += 1
        number = self._word()
        if number in NUMBERS:
            self.count, self.exact = NUMBERS[number], self.determiner in DETERMINERS
            self.simple = False
            self.at += 1
        elif number in ORDINALS:
            self.ordinal, self.simple = ORDINALS[number], False
            self.at += 1

    def _adjective(self, ahead: int) -> bool:
        word = self._word(ahead)
        return bool(match(self.tokens, self.at + ahead, "colour")) or word in FILLERS | set(RANKS) | set(
            SIZES
        )

    def _properties(self) -> None:
        """Colours, ranks, sizes and courtesies before the noun."""
        while True:
            word = self._word()
            if not word:
                return
            if match(self.tokens, self.at, "noun") and not match(self.tokens, self.at, "colour"):
                return
            colour = match(self.tokens, self.at, "colour")
            if colour is not None and self._a_noun_follows(colour[1]):
                self.colours.append(colour[0].value)
                self.at = colour[1]
            elif word in ("non", "not") and (negated := match(self.tokens, self.at + 1, "colour")):
                self.without.append(negated[0].value)
                self.at, self.simple = negated[1], False
            elif word in RANKS:
                self.ranks.append(RANKS[word])
                self.at, self.simple = self.at + 1, False
            elif word == "most" and self._word(1) in ("distant", "remote"):
                self.ranks.append("farthest")
                self.at, self.simple = self.at + 2, False
            elif word in SIZES:
                self.sizes.append(SIZES[word])
                self.at, self.simple = self.at + 1, False
            elif word in FILLERS:
                self.at += 1
            elif word in ("and", "or") and self.colours and match(self.tokens, self.at + 1, "colour"):
                self._two_colours(word)
            else:
                return

    def _a_noun_follows(self, at: int) -> bool:
        """A colour before the noun; "orange" may be followed by other properties."""
        return at < len(self.tokens)

    def _two_colours(self, word: str) -> None:
        """ "the red and blue cube": one thing of two colours, or a choice; neither is understood."""
        again = match(self.tokens, self.at + 1, "colour")
        assert again is not None
        if match(self.tokens, again[1], "noun"):
            said = " ".join(t.word for t in self.tokens[self.at - 1 : again[1]])
            why = "it leaves the choice open" if word == "or" else "a thing has one colour here"
            raise not_understood(said, why)
        raise not_understood(word)

    def _compound(self, thing: int, plural: bool) -> tuple[int, bool]:
        """Nouns side by side are one, named by the last ("tin box"), unless both are kinds of their own."""
        while (following := match(self.tokens, self.at, "noun")) is not None and self._word():
            before, now = self.tokens[self.at - 1].word, following[0].value
            if now == THING_ANY:
                break
            if thing not in (THING_ANY, now) and before not in ("tin", "marble", "toy", "can"):
                raise not_understood(f"{before} {self.tokens[self.at].word}", "two kinds of one thing")
            thing, plural, self.at = now, following[0].plural, following[1]
        return thing, plural

    def _tails(self) -> None:
        """What is said of its colour behind the noun."""
        while self._colour_tail():
            pass

    def _colour_tail(self) -> bool:
        i, tokens = self.at, self.tokens
        if i >= len(tokens):
            return False
        gap = tokens[i].gap.strip()
        word = tokens[i].word
        if gap == "(" or (gap == "" and word == "in") or (gap in ("", ",") and word in ("that", "which")):
            return self._said_of_it(i)
        if gap != "," or word != "the":
            return False
        colour = match(tokens, i + 1, "colour")
        if colour is None or colour[1] >= len(tokens) or tokens[colour[1]].word != "one":
            return False
        self.colours.append(colour[0].value)
        self.at = colour[1] + 1
        return True

    def _said_of_it(self, i: int) -> bool:
        tokens = self.tokens
        negated = False
        if tokens[i].word in ("that", "which"):
            i += 1
            if i >= len(tokens) or tokens[i].word not in ("is", "are", "isn't", "aren't"):
                return False
            negated = tokens[i].word.endswith("n't")
            i += 1
            if i < len(tokens) and tokens[i].word in ("not", "neither"):
                negated, i = True, i + 1
            if i < len(tokens) and tokens[i].word in SIZES and not negated:
                self.sizes.append(SIZES[tokens[i].word])
                self.at, self.simple = i + 1, False
                return True
        elif tokens[i].word == "in":
            i += 1
        colour = match(tokens, i, "colour")
        if colour is None:
            return False
        following = match(tokens, colour[1], "noun")
        if following is not None and not tokens[colour[1]].gap.strip():
            return False  # "in red bowl": a place
        if negated:
            self.without.append(colour[0].value)
            self.simple = False
            while (also := self._or_colour(colour[1])) is not None:  # "is not red or blue"
                self.without.append(also[0].value)
                colour = also
        else:
            self.colours.append(colour[0].value)
        self.at = colour[1]
        return True

    def _or_colour(self, i: int) -> tuple[Entry, int] | None:
        if i >= len(self.tokens) or self.tokens[i].word not in ("or", "nor"):
            return None
        return match(self.tokens, i + 1, "colour")

    def _made(self, thing: int, plural: bool) -> NounPhrase:
        colours = list(dict.fromkeys(self.colours))
        words = " ".join(t.word for t in self.tokens[self.first : self.at])
        if len(colours) > 1:
            raise not_understood(words, "it names two colours of one thing")
        if colours and colours[0] in self.without:
            raise not_understood(words, "it contradicts itself")
        if len(set(self.ranks)) > 1 or len(set(self.sizes)) > 1:
            kept = _corner(self.ranks)
            if kept is None or self.sizes:
                raise not_understood(words, "it ranks twice")
            self.ranks = [kept]
        if self.ordinal and not self.ranks:
            self.ranks = ["?"]  # told by a tail: "the second cube from the left"
        start, end = self.tokens[self.first].start, self.tokens[self.at - 1].end
        several = self.count != 1
        definite = self.determiner not in INDEFINITE and not several and not self.one_of
        if plural and not several and not self.one_of and self.determiner in ("", *DETERMINERS):
            self.count, definite, self.simple = ALL, False, False  # "the red cubes": all of them
        without = tuple(NounPhrase(start, end, colour=c) for c in self.without)
        return NounPhrase(
            start, end, colours[0] if colours else COLOUR_ANY, thing, definite, self.count, self.exact,
            self.one_of, plural, self.ranks[0] if self.ranks else "", max(self.ordinal, 1),
            self.sizes[0] if self.sizes else "", without, (), self.simple and not several,
        )  # fmt: skip


def _corner(ranks: list[str]) -> str | None:
    """ "back left" together; None where two ranks are something else."""
    chosen = set(ranks)
    if len(chosen) == 2 and len(chosen & {"left", "right"}) == 1 and len(chosen & {"front", "back"}) == 1:
        return " ".join(sorted(chosen))
    return None


def with_tail(phrase: NounPhrase, end: int, **changes: object) -> NounPhrase:
    """The phrase with a tail that ends at character ``end``; no longer simple."""
    return replace(phrase, end=end, simple=False, **changes)  # type: ignore[arg-type]
