"""Grammar of instruction families in which the place, a question or an ellipsis comes first.

A family is one pattern: ``[a|b]`` is a choice, ``{o}`` and ``{p}`` are source and destination, other
braces name word lists of ``planner_phrasings``. Families in ``VALIDATION`` are never drawn in training;
config/wordings/heldout.txt holds further templates that neither split contains.
"""

from __future__ import annotations

import random
import re

TRAINING: dict[str, str] = {
    # The place first.
    "place_is_spot": "{p} [is|will be|was chosen as] [the|the right|the best] [spot|destination|target|goal]"
    " [for|of|meant for] {o}",
    "place_lacks": "{p} [still |][lacks|misses|is missing|requires|is short of|calls for|asks for] {o}",
    "place_topic": "[with|regarding|as for|about|concerning] {p}[,|:] [{put} {o} {into} it|{o} goes there"
    "|it gets {o}|{o} should be {into} it|I want {o} there]",
    "place_room": "{p} [has room|is free|is reserved|is ready|has space|was made|was bought|is there]"
    " for {o}",
    "place_relative": "{p} is the [one|place|container|thing] [that should hold|that needs|which must contain"
    "|that has to take|into which you {put}|in which I want|where I need] {o}",
    "place_locative": "{into} {p}[,|] [I want|I would like|I need|you should {put}|you can {put}|we need]"
    " {o}",
    "place_must_be": "{into} {p}[,|] [there |][should|must|ought to|has to] be {o}",
    "place_passive": "{p} [should|must|has to|is to|wants to] be [filled|loaded|supplied|equipped|stocked]"
    " with {o}",
    "place_shown": "[here is|there is|this is|look at|notice|consider|observe|look,] {p}[.|;|,| -| and]"
    " [it is for {o}|{put} {o} {into} it|{o} goes there|it should get {o}|{carry} {o} to it]",
    "place_not_empty": "{p} [must not|should not|cannot] [stay|remain] empty[:|;|,| and so]"
    " {put} {o} {into} it",
    "place_for_it": "{p}[,|;|:| -] [the one|the thing|the object|the item] for it is {o}",
    "place_chosen": "[choose|select|use|take|consider|pick] {p} as the [place|destination|target|goal]"
    " [for|of] {o}",
    "place_of_it": "the [place|spot|container|destination] [where|in which] {o} [goes|should be|should end up"
    "|must lie|is wanted] is {p}",
    "place_have": "I [have|see|prepared|brought] {p}[. | and |; ]"
    "it [should hold|is for|needs|gets|takes] {o}",
    "place_late": "[see to it|take care|check|arrange it so] that {p} [ends up with|gets|contains"
    "|is holding|is filled with] {o}",
    "place_holding": "[it would be great|I'd be happy|it would be good] to [see|find|have] {p}"
    " [with|holding|containing] {o}[ in it| inside| on it|]",
    # Questions first.
    "question_place": "[can you spot|have you found|did you notice|can you find|is there|can you make out]"
    " {p}? [good, |great, |then |if so, |][{put} {o} {into} it|{o} goes there|{carry} {o} there|it gets {o}"
    "|it is meant for {o}]",
    "question_source": "[can you spot|have you found|did you notice|can you find|is there|do you have]"
    " {o}? [good, |great, |then |if so, |][{put} it {into} {p}|it goes {into} {p}|{carry} it to {p}"
    "|it should end up {into} {p}]",
    "question_where": "[where does {o} go|where should {o} go|where do I want {o}|where to with {o}]?"
    " [well, |][{into}|to] {p}[, please|]",
    "question_which_place": "[which place|which container|which one] [is for|should hold|gets] {o}? {p}",
    "question_see_relative": "[do you see|see|spot] {o}? [{p} is for it|{p} is the place for it"
    "|{p} should get it|{p} must have it]",
    "question_would": "would {p} [be a good place|be right|do|suffice] for {o}? then {put} it there",
    # Ellipses: colon, dash, arrow.
    "ellipsis_source": "{o}[:| -|...|;| --|,] [{into} {p}|destination {p}|goes {into} {p}"
    "|to be {placed} {into} {p}|target {p}|place {p}|over to {p}|the place is {p}|{p} is its place]",
    "ellipsis_place": "{p}[:| -| --|...|;] [for {o}|needs {o}|source {o}|{put} {o} here|reserved for {o}"
    "|{o} here|this is for {o}]",
    "form_forward": "[object|source|item|thing|take|pick]: {o}[,|;| -|.] [place|target|destination|to|goal"
    "|drop]: {p}",
    "form_backward": "[place|target|destination|to|goal|drop]: {p}[,|;| -|.] [object|source|item|thing|take"
    "|pick]: {o}",
    "arrow_forward": "{o} [=>|-->|>>|->|==>] {p}",
    "ellipsis_something": "[something goes|one thing goes|there is something to {put}|{put} something]"
    " {into} {p}[:|, namely| -|, that is,] {o}",
    # Relative clauses.
    "source_relative": "{o} [is|must be|will be] the [one|thing|item] [that goes|that should go|which belongs"
    "|to be {placed}|you must {put}|I need] {into} {p}",
    "source_which": "{take} {o}[,|] which [goes|belongs|should be|must be {placed}|has a place] {into} {p}",
    "source_for_it": "{o}[,|;|:| -] the [one|container|place|target] for it is {p}",
    "thing_for": "the [thing|item|object|one] [for|that fits|meant for|assigned to|intended for] {p} is {o}",
    "needs_is": "what {p} [needs|lacks|wants|should get|is missing] is {o}",
    # The source named late.
    "hover_after": "[open the gripper over|move above|go to|drive to] {p} [after|once] you have"
    " [taken|grasped|picked up|grabbed] {o}",
    "before_go": "before you [go|move|come] to {p}[,|] {take} {o}",
    "go_get": "{p} is [over there|in front of you|the target|the goal]. [{take} {o} and {put} it there"
    "|bring {o} there|{carry} {o} to it]",
    "carry_late": "{carry} [over |]to {p} {o}",
    # Passive.
    "passive_taken": "{o} [is|has|ought|needs] to be [taken|picked up|grabbed|lifted] and [then |]{placed}"
    " {into} {p}",
    "passive_late": "{into} {p}[,|] {o} [is to|should|must|can] be {placed}",
    # Two sentences, and polite wrappers.
    "two_have": "I [have|brought|see|found] {o}[. | and |; ][I would like it|it should be|please {put} it"
    "|it goes|it must be] {into} {p}",
    "two_once": "once {o} is [in your gripper|grasped|held|in hand], [{put} it {into} {p}|{carry} it to {p}]",
    "polite_if": "[I would appreciate it if|it would be great if|it would be lovely if|I'd be happy if] {o}"
    " [were|was|ended up|got {placed}] {into} {p}",
    "polite_able": "[would you be able to|would you be kind enough to|might I ask you to|if it is no trouble,"
    "|would it be possible to] {put} {o} {into} {p}",
    "favour": "do me a favour[:| and| -] [{into} {p}, {put} {o}|{put} {o} {into} {p}|{take} {o} and {put} it"
    " {into} {p}]",
    "pair": "[pair|match|combine|join] {o} with {p}",
    "clear": "[clear|tidy|put away] {o} [away |][{into}|using] {p}",
    "would_fit": "[I think|I believe|it seems that|clearly,] {o} [would fit|would be nice|would look good"
    "|would be better] {into} {p}",
}  # fmt: skip

VALIDATION: dict[str, str] = {
    "place_claims": "{p} [claims|demands|is owed|shall have|is to be given] {o}",
    "place_among": "[of all things|today|this time], {p} [is going to hold|will take|will carry] {o}",
    "place_vacant": "{p} looks [vacant|bare|unused][.|,|;] [so |]{o} could [fill|occupy] it",
    "question_what": "[what|which thing|which object] [should go|has to go|must be] {into} {p}? {o}",
    "question_got": "got {p} in view? [fine, |]{o} [has to be|must end up] in there",
    "question_reach": "can you reach {o}? [lovely, |]{p} is [the destination|where it should end up]",
    "arrow_backward": "{p} [<-|<=|<--|<<] {o}",
    "ellipsis_mission": "[mission|task|today's job] - {p} [with|and in it|plus] {o}",
    "ellipsis_next": "next up: {o} ... [aim for|head for|finish at] {p}",
    "relative_whose": "{o}, whose [spot|destination|resting place] is {p}",
    "relative_any": "{p}, in which {o} [ought to lie|is supposed to sit], is over there",
    "late_except": "{p} [is complete|is finished] only [once|when] {o} is {into} it",
    "passive_expected": "{o} is [expected|awaited|required|wanted] {into} {p}",
    "two_picture": "[picture|imagine] {p}. [now picture|now imagine] {o} {into} it. [do that|make it real]",
    "polite_wonder": "[I was wondering whether|I wonder if] {p} [could|might] [get|be given|end up with] {o}",
}  # fmt: skip

_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def expand(pattern: str, rng: random.Random) -> str:
    """Draw one option of each choice: a template that holds only braces."""
    return _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), pattern)


def draw(rng: random.Random, families: dict[str, str]) -> tuple[str, str]:
    """A family's name and a template of it."""
    name = rng.choice(sorted(families))
    return name, expand(families[name], rng)
