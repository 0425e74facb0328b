"""One step of training the small vision-language model: answers, and where it looks while it writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedTokenizerFast

from bridgevla_ros.training.sft_questions import LETTERS, Question
from bridgevla_ros.training.small_vlm_data import Lesson, Scene
from bridgevla_ros.training.small_vlm_model import END, IMAGE, SCALE, coordinates, names

IGNORE = -100
LOOK = 0.6
"""Image tokens, of the Gaussian about a target that attention is taught."""


@dataclass(frozen=True)
class Batch:
    """``B`` images, ``N`` lessons about them of up to ``L`` tokens.

    Attributes:
        pixels: (B, 3, H, W).
        owner: (N,) image of each lesson.
        tokens, labels: (N, L), padded on the right; labels are the next tokens, IGNORE where not taught.
        looks: (K, 2) lesson and place of the tokens that a coordinate is written after.
        targets: (K, image tokens) where to look then; each sums to 1.
        nouns, named: The same of tokens that name a thing: the last of its words, and the thought's.
    """

    pixels: Tensor
    owner: Tensor
    tokens: Tensor
    labels: Tensor
    looks: Tensor
    targets: Tensor
    nouns: Tensor
    named: Tensor


def pixels(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """(B, 3, H, W) in -1..1, as the checkpoint's processor makes them."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


class Writer:
    """Turns lessons into tokens.

    Args:
        words: Tokenizer of the checkpoint, with its chat template.
        grid: Rows and columns of image tokens.
        patch: Pixels of an image token.
    """

    def __init__(self, words: PreTrainedTokenizerFast, grid: tuple[int, int], patch: int) -> None:
        self.words, self.grid, self.patch = words, grid, patch
        self.axis = torch.full((len(words),), -1)
        self.value = torch.zeros(len(words), dtype=torch.long)
        self.ids = coordinates(words)
        self.names = torch.tensor(words.convert_tokens_to_ids(list(names())))
        for axis, name in enumerate("xy"):
            self.axis[self.ids[name]] = axis
            self.value[self.ids[name]] = torch.arange(SCALE + 1)

    def text(self, lesson: Lesson) -> str:
        """The prompt behind its image tokens."""
        asked = self.words.apply_chat_template(lesson.messages, add_generation_prompt=True, tokenize=False)
        return str(asked).removeprefix(IMAGE)

    def batch(self, scenes: Sequence[Scene]) -> Batch:
        """Tokens of all lessons of some images."""
        rows: list[Tensor] = []
        labels: list[Tensor] = []
        owner, looks, targets, nouns, named = [], [], [], [], []
        for number, scene in enumerate(scenes):
            for lesson in scene.lessons:
                asked, ends = self._asked(lesson)
                nouns += [(len(rows), end) for end in ends]
                named += [self._look(target) for target in lesson.targets[: len(ends)]]
                answer = self.words(lesson.answer + END, add_special_tokens=False)["input_ids"]
                whole = torch.tensor(asked + answer)
                for target, place in zip(lesson.targets, self.thought(whole), strict=False):
                    nouns.append((len(rows), place))
                    named.append(self._look(target))
                taught = torch.cat([torch.full((len(asked) - 1,), IGNORE), torch.tensor(answer)])
                places = (self.axis[taught.clamp_min(0)] >= 0) & (taught != IGNORE)
                for k, place in enumerate(places.nonzero()[:, 0].tolist()):  # x, y, x, y
                    looks.append((len(rows), place))
                    targets.append(self._look(lesson.targets[k // 2]))
                rows.append(whole[:-1])
                labels.append(taught)
                owner.append(number)
        pad = int(self.words.pad_token_id)
        return Batch(
            pixels([s.rgb for s in scenes]),
            torch.tensor(owner),
            nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad),
            nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=IGNORE),
            torch.tensor(looks).reshape(-1, 2),
            torch.stack(targets) if targets else torch.zeros(0, self.grid[0] * self.grid[1]),
            torch.tensor(nouns).reshape(-1, 2),
            torch.stack(named) if named else torch.zeros(0, self.grid[0] * self.grid[1]),
        )

    def thought(self, tokens: Tensor) -> list[int]:
        """Where an answer's thought names a thing."""
        return [int(i) for i in torch.isin(tokens, self.names).nonzero()]

    def _asked(self, lesson: Lesson) -> tuple[list[int], list[int]]:
        """Tokens of the prompt, and the last one of each thing's words; none where one is not found once."""
        text = self.text(lesson)
        given = self.words(text, add_special_tokens=False, return_offsets_mapping=True)
        if any(text.count(noun) != 1 for noun in lesson.nouns):
            return given["input_ids"], []
        last = [text.index(noun) + len(noun.rstrip(" ,;.)")) - 1 for noun in lesson.nouns]
        spans = given["offset_mapping"]
        return given["input_ids"], [next(i for i, (a, b) in enumerate(spans) if a <= at < b) for at in last]

    def _look(self, target: NDArray[np.float64]) -> Tensor:
        column, row = (torch.as_tensor(target, dtype=torch.float32) + 0.5) / self.patch - 0.5
        rows = torch.arange(self.grid[0])[:, None] - row
        columns = torch.arange(self.grid[1])[None] - column
        far: Tensor = (rows**2 + columns**2) / (2 * LOOK**2)
        return (-far).flatten().softmax(0)


@dataclass(frozen=True)
class Losses:
    """Means over tokens, in nats: words, coordinates, looks."""

    words: Tensor
    numbers: Tensor
    looks: Tensor


class Teacher:
    """Losses of a model on batches.

    Args:
        model: LlavaForConditionalGeneration with eager attention.
        writer: Of its tokens.
        near: Deviation of the taught numbers, of 1000.
        layer, heads: Whose attention is taught while a coordinate is written; the layer before is taught to
            look from the words for a thing to that thing.
    """

    def __init__(self, model: Any, writer: Writer, near: float, layer: int, heads: int) -> None:
        self.model, self.writer, self.layer, self.heads = model, writer, layer, heads
        steps = torch.arange(SCALE + 1).float()
        self.near = (-((steps[:, None] - steps) ** 2) / (2 * near**2)).softmax(-1)

    def losses(self, batch: Batch, tower: bool) -> Losses:
        """Image tokens are read once an image; each lesson goes on from its image's."""
        inner = self.model.model
        with torch.set_grad_enabled(tower):
            seen = inner.vision_tower(batch.pixels).last_hidden_state
        image = inner.multi_modal_projector(seen)
        past = DynamicCache()
        inner.language_model(inputs_embeds=image, past_key_values=past, use_cache=True)
        past.batch_select_indices(batch.owner)
        embedded = inner.get_input_embeddings()(batch.tokens)
        count = image.shape[1]
        reach = torch.cat(
            [torch.ones(len(batch.owner), count, dtype=torch.long), (batch.labels != IGNORE).long()], 1
        )
        reach[:, count:] |= (batch.tokens != self.writer.words.pad_token_id).long()
        out = inner.language_model(
            inputs_embeds=embedded, past_key_values=past, attention_mask=reach, use_cache=True,
            output_attentions=True,
        )  # fmt: skip
        words, numbers = self._answer(out.last_hidden_state, batch.labels)
        looks = self._looks(out.attentions[self.layer], batch.looks, batch.targets)
        if self.layer:
            looks = looks + self._looks(out.attentions[self.layer - 1], batch.nouns, batch.named)
        return Losses(words, numbers, looks)

    def _looks(self, attention: Tensor, tokens: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of some tokens' attention to image tokens."""
        if not len(tokens):
            return attention.new_zeros(())
        shares = attention[:, : self.heads].mean(1)[tokens[:, 0], tokens[:, 1], : targets.shape[1]]
        return -(targets * (shares + 1e-5).log()).sum(-1).mean()

    def _answer(self, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        taught = labels != IGNORE
        logits = self.model.lm_head(hidden[taught]).log_softmax(-1)
        right = labels[taught]
        axis = self.writer.axis[right]
        words = F.nll_loss(logits[axis < 0], right[axis < 0])
        numbers = []
        for which, name in enumerate("xy"):
            mine = axis == which
            chances = logits[mine][:, self.writer.ids[name]]
            numbers.append(-(self.near[self.writer.value[right[mine]]] * chances).sum(-1))
        both = torch.cat(numbers)
        return words, both.mean() if len(both) else words.new_zeros(())

    def general(self, questions: Sequence[Question]) -> Tensor:
        """Cross-entropy of the letters of general questions; no image."""
        words = self.writer.words
        asked = [
            words.apply_chat_template(q.messages(), add_generation_prompt=True, tokenize=False)
            for q in questions
        ]
        rows = [torch.tensor(words(a, add_special_tokens=False)["input_ids"]) for a in asked]
        letters = [words(LETTERS[q.answer], add_special_tokens=False)["input_ids"][-1] for q in questions]
        ends = torch.tensor([len(r) - 1 for r in rows])
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=int(words.pad_token_id))
        hidden = self.model.model.language_model(
            input_ids=tokens, attention_mask=(tokens != words.pad_token_id).long(), use_cache=False
        ).last_hidden_state
        return F.cross_entropy(
            self.model.lm_head(hidden[torch.arange(len(rows)), ends]), torch.tensor(letters)
        )
