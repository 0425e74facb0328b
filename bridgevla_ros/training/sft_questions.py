"""General questions in MMLU's format, scored by the likelihood of the answer's letter.

They have nothing to do with robots: a model that is taught to point should still answer them. The paper's
model fell from 70 to 30 on MMLU when it was fine-tuned for too long.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.planner.prompt import Message

LETTERS = "ABCD"
FORMAT = 'columns "question", "A", "B", "C", "D" and "answer" (a letter)'


@dataclass(frozen=True)
class Question:
    """A question with four choices; ``answer`` is 0..3, ``subject`` may be empty."""

    text: str
    choices: tuple[str, str, str, str]
    answer: int
    subject: str = ""

    def messages(self) -> list[Message]:
        """The question as a conversation without an image."""
        lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=True)]
        text = "\n".join([self.text, *lines, "Answer with the letter only."])
        return [{"role": "user", "content": [{"type": "text", "text": text}]}]


def read(path: Path) -> list[Question]:
    """Questions of a file.

    CSV with a header or one object a line (.jsonl): question, A, B, C, D, answer, perhaps subject.
    MMLU's own files are read as well: CSV without a header in that order, and objects with "choices" (a list)
    and "answer" 0..3.

    Raises:
        BridgeError: BAD_INPUT, with the line and what it lacks.
        FileNotFoundError: There is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of questions {path}")
    rows = _jsonl(path) if path.suffix in (".jsonl", ".json") else _csv(path)
    questions = [_question(path, line, row) for line, row in rows]
    if not questions:
        raise _wrong(path, 1, "holds no question")
    return questions


def _wrong(path: Path, line: int, what: str) -> BridgeError:
    return BridgeError(
        ErrorCode.BAD_INPUT,
        f"{path}, line {line}: {what}",
        remedy=f"a file of questions is CSV or JSON lines with {FORMAT}",
    )


def _jsonl(path: Path) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise _wrong(path, line, f"no JSON ({error})") from error
        if not isinstance(row, dict):
            raise _wrong(path, line, "no object")
        if isinstance(row.get("choices"), list):
            row |= dict(zip(LETTERS, row["choices"], strict=False))
        rows.append((line, row))
    return rows


def _csv(path: Path) -> list[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8", newline="") as file:
        lines = [row for row in csv.reader(file) if row]
    if not lines:
        return []
    names = [name.strip() for name in lines[0]]
    if len(names) == 6 and "question" not in names and _letter(names[-1]) is not None:
        names, first = ["question", *LETTERS, "answer"], 0  # MMLU's own: no header
    else:
        first = 1
    lacking = [n for n in ("question", *LETTERS, "answer") if n not in names]
    if lacking:
        raise _wrong(path, 1, f"columns {names} lack {lacking}")
    rows = []
    for line, row in enumerate(lines[first:], first + 1):
        if len(row) != len(names):
            raise _wrong(path, line, f"{len(row)} columns, not {len(names)}")
        rows.append((line, dict(zip(names, row, strict=True))))
    return rows


def _letter(value: Any) -> int | None:
    """0..3 of "A".."D", or of 0..3 itself."""
    text = str(value).strip().upper()
    if len(text) == 1 and text in LETTERS:
        return LETTERS.index(text)
    return int(text) if text in ("0", "1", "2", "3") else None


def _question(path: Path, line: int, row: dict[str, Any]) -> Question:
    lacking = [n for n in ("question", *LETTERS, "answer") if row.get(n) in (None, "")]
    if lacking:
        raise _wrong(path, line, f"{lacking[0]!r} is missing")
    answer = _letter(row["answer"])
    if answer is None:
        raise _wrong(path, line, f"answer {row['answer']!r} is none of A, B, C, D")
    a, b, c, d = (str(row[letter]) for letter in LETTERS)
    return Question(str(row["question"]), (a, b, c, d), answer, str(row.get("subject", "")))


@dataclass(frozen=True)
class Score:
    """Of a set of questions: how many there are and were answered right, and the mean log-likelihood of the
    right letter among the four (nats; -1.386 is guessing)."""

    count: int
    right: int
    likelihood: float

    @property
    def rate(self) -> float:
        """Share answered right, 0..1; guessing gives 0.25."""
        return self.right / self.count


@torch.inference_mode()
def score(
    model: Any, tokenizer: Any, render: Callable[[list[Message]], str], questions: list[Question]
) -> Score:
    """Let a model choose by the likelihood of the letters, as the first token of its answer.

    Args:
        model: Of the image-text-to-text kind; no image is shown.
        tokenizer: Its own.
        render: Conversation to the prompt that the model wants.
        questions: At least one.

    Raises:
        BridgeError: MODEL_ERROR: the tokenizer writes two letters with the same token.
    """
    letters = [tokenizer(letter, add_special_tokens=False)["input_ids"][-1] for letter in LETTERS]
    if len(set(letters)) != len(letters):
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"the tokenizer writes the letters A to D as tokens {letters}, which are not four",
            remedy="take a tokenizer that has them",
        )
    training = model.training
    model.eval()
    right, total = 0, 0.0
    for question in questions:
        inputs = tokenizer(render(question.messages()), return_tensors="pt", add_special_tokens=False)
        inputs.pop("token_type_ids", None)
        logits = model(**inputs.to(model.device), logits_to_keep=1).logits[0, -1].float()
        chances = torch.log_softmax(logits[letters], 0)
        right += int(chances.argmax()) == question.answer
        total += float(chances[question.answer])
    model.train(training)
    return Score(len(questions), right, total / len(questions))
