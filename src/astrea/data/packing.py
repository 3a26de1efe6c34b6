"""Several questions about one picture in one row: the picture is read once, every question sees it alone.

Row layout: what the chat template writes up to and including the picture, once, then for every question the rest of its
prompt and its answer, token for token what the template gives for each question by itself. A row of the tiny model:
``<bos> picture | <user> q1 <assistant> a1 <eos> | <user> q2 ...``. What a template writes behind an answer's end token
(a new line, mostly) is left out. Whole conversations can share a row too, each with its own pictures. See
`astrea.language.attention` for who sees whom.

Letters: B rows, L length, S questions per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from threading import RLock
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from cachetools import LRUCache, cachedmethod
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.data.segments import Segment, conversation_segment, joined
from astrea.language.chat import assistant, name_of, user
from astrea.language.chat_format import TEMPLATE, ChatFormat
from astrea.language.control_tokens import ControlTokens
from astrea.language.tokenizer import IMAGE

CAPTION_PROMPT = "describe the picture."
NOTE_PROMPT = "list."

KEPT = 1 << 22
"""Characters and tokens that each cache of a packer may hold; at most about 40 bytes each."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One question (or instruction) and its answer; ``weight`` scales the loss of each answer token."""

    question: str
    answer: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Rows for the model's ``forward``; all (B, L).

    question_mask: which tokens are the words of a question; None = all of a segment that is no answer. questions: which
    question of its row a token belongs to, from 1; None = its segment.
    """

    input_ids: Tensor
    attention_mask: Tensor
    segments: Tensor
    labels: Tensor
    label_weights: Tensor
    question_mask: Tensor | None = None
    questions: Tensor | None = None

    def model_inputs(self) -> dict[str, Tensor]:
        """Keyword arguments for `AstreaForConditionalGeneration.forward`."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as the template asks it: the shared beginning (with one placeholder per picture), and the rest."""

    prefix: list[int]
    rest: list[int]
    asked: list[bool] = field(default_factory=list)


class _Sized(NamedTuple):
    """A value in a cache, and its size in characters and tokens, those of its key included."""

    value: Any
    size: int


class Packer:
    """Tokenises turns and lays them out in rows. Recently used texts are cached; several threads may share a packer.

    Args:
        picture_tokens: placeholders per picture. max_length: the most tokens that a question with its picture and
            answer, or a conversation, may have; None = any number.

    Raises:
        AstreaError: the tokenizer or its chat template cannot be used, see `astrea.language.chat_format.ChatFormat`.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, picture_tokens: int, *, max_length: int | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.picture_tokens, self.max_length = picture_tokens, max_length
        self.format = ChatFormat(tokenizer)
        self.control = ControlTokens(tokenizer)
        self.image = self.format.image_id
        pad: Any = tokenizer.pad_token_id
        if pad is None:
            raise AstreaError("the tokenizer has no padding token", "set tokenizer.pad_token to a token of its own")
        self.pad = int(pad)
        self.lock = RLock()
        self.text_cache, self.prompt_cache, self.answer_cache = (
            LRUCache[Any, _Sized](KEPT, getsizeof=attrgetter("size")) for _ in range(3)
        )
        self.frame = self._frame()

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens, also where it spells one: what people write is text."""
        found: list[int] = self._ids(text).value
        return found

    @cachedmethod(lambda self: self.text_cache, lock=lambda self: self.lock)
    def _ids(self, text: str) -> _Sized:
        found = list(self.tokenizer(self.plain(text), add_special_tokens=False).input_ids)
        return _Sized(found, len(text) + len(found))

    def plain(self, text: str) -> str:
        """A text whose control tokens are broken up, see `ControlTokens`; the marks of pictures stay."""
        return IMAGE.join(map(self.control.escape, text.split(IMAGE)))

    def prompt(self, question: str, *, pictures: bool = True) -> Prompt:
        """A question as the template asks it, about one picture or none.

        Raises:
            AstreaError: the question itself holds ``<image>``.
        """
        if self.frame is not None:
            before, between, _ = self.frame
            rest = [before[-1], *self.ids(question), *between]
            start = before[:-1] if pictures else [i for i in before[:-1] if i != self.image]
            found = Prompt(start, rest, [True] * len(rest))
        else:
            found = self._rendered(question, pictures).value
        if found.prefix.count(self.image) != int(pictures) or self.image in found.rest:
            raise AstreaError(
                f"the question {question[:60]!r} holds the mark <image>", "take it out: the picture is shown anyway"
            )
        return found

    def answer(self, question: str, answer: str, *, pictures: bool = True) -> list[int]:
        """The tokens of an answer, with the one that ends it.

        Raises:
            AstreaError: the answer's beginning grows together with the prompt's end.
        """
        if self.frame is not None:
            return [*self.ids(answer), *self.frame[2]]
        found: list[int] = self._answered(question, answer, pictures).value
        return found

    @cachedmethod(lambda self: self.answer_cache, lock=lambda self: self.lock)
    def _answered(self, question: str, answer: str, pictures: bool) -> _Sized:
        prompt = self.prompt(question, pictures=pictures)
        start = [*prompt.prefix, *prompt.rest]
        talk = [user(self.plain(question), int(pictures)), assistant(self.plain(answer))]
        whole = self.format.encode(self.format.render(talk)).ids
        if whole[: len(start)] != start or self.format.stop_id not in whole[len(start) :]:
            raise AstreaError(
                f"{name_of(self.tokenizer)}: the prompt of {question[:60]!r} is not how the conversation with the "
                f"answer {answer[:60]!r} begins",
                f"take spaces and new lines off both ends of the answer; or {TEMPLATE}",
            )
        stop = len(whole) - 1 - whole[::-1].index(self.format.stop_id)
        ids = whole[len(start) : stop + 1]
        return _Sized(ids, len(question) + len(answer) + len(ids))

    def conversation(self, messages: Sequence[Any], *, weight: float = 1.0, name: str = "the conversation") -> Segment:
        """A whole conversation: every answer is learned, every picture stands where it is shown.

        Args:
            messages: ``{"role", "content"}`` with contents that are text with ``<image>`` marks, or lists of parts.
            weight: scales the loss of each answer token.
            name: how errors call it, such as its file and line.

        Raises:
            AstreaError: a turn is malformed or an answer empty, nothing is to be learned, the template refuses the
                roles' order, or it is longer than ``max_length``; says by how much.
        """
        said = [self._plain_message(message) for message in messages]
        return conversation_segment(self.format, said, self.picture_tokens, weight, name, self.max_length)

    def _plain_message(self, message: Any) -> Any:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            return {**message, "content": self.plain(content)}
        if not isinstance(content, list):
            return message  # which `conversation_segment` refuses
        parts = [
            {**part, "text": self.plain(str(part["text"]))} if isinstance(part, dict) and "text" in part else part
            for part in content
        ]
        return {**message, "content": parts}

    def pack(self, rows: Sequence[Sequence[Turn]], *, pictures: bool = True) -> PackedBatch:
        """Lay out rows, padded on the right. Without ``pictures`` there is none in the prefix (a blind row).

        Raises:
            AstreaError: a question is too long (says by how much), or cannot be written by the template.
        """
        columns: list[list[list[Any]]] = []
        for turns in rows:
            prompts = self._asked_together(turns, pictures)
            prefix = self._shared(prompts, pictures)
            start = len(self._grown(prefix))
            ids, asked = self._grown(prefix), [False] * start
            segments, labels, weights = [0] * start, [-100] * start, [0.0] * start
            for number, (turn, prompt) in enumerate(zip(turns, prompts, strict=True), 1):
                whole, mask = [*prompt.prefix, *prompt.rest], [False] * len(prompt.prefix) + prompt.asked
                rest, answer = whole[len(prefix) :], self.answer(turn.question, turn.answer, pictures=pictures)
                self._check_length(start + len(rest) + len(answer), f"the question {turn.question[:60]!r}")
                ids += rest + answer
                labels += [-100] * len(rest) + answer
                weights += [0.0] * len(rest) + [turn.weight] * len(answer)
                segments += [number] * (len(rest) + len(answer))
                asked += mask[len(prefix) :] + [False] * len(answer)
            columns.append([ids, segments, labels, weights, asked])
        return self._padded(columns)

    def pack_conversations(self, rows: Sequence[Sequence[Segment]]) -> PackedBatch:
        """Lay out rows of conversations that do not see each other, padded on the right. The model wants the pictures
        of all of them in reading order."""
        return self._padded([joined(row) for row in rows])

    def prompts(self, questions: Sequence[str], *, pictures: bool = True) -> dict[str, Tensor]:
        """Left-padded prompts for ``generate``, with the question's mask."""
        found = [self.prompt(question, pictures=pictures) for question in questions]
        rows = [[*self._grown(one.prefix), *one.rest] for one in found]
        for question, row in zip(questions, rows, strict=True):
            self._check_length(len(row), f"the question {question[:60]!r}")
        gaps = [max(map(len, rows)) - len(row) for row in rows]
        masks = [[False] * (len(row) - len(one.rest)) + one.asked for row, one in zip(rows, found, strict=True)]
        return {
            "input_ids": torch.tensor([[self.pad] * gap + row for gap, row in zip(gaps, rows, strict=True)]),
            "attention_mask": torch.tensor([[0] * gap + [1] * len(row) for gap, row in zip(gaps, rows, strict=True)]),
            "question_mask": torch.tensor([[False] * gap + mask for gap, mask in zip(gaps, masks, strict=True)]),
        }

    def _asked_together(self, turns: Sequence[Turn], pictures: bool) -> list[Prompt]:
        """The prompts of a row. A template may print the date: prompts cached before midnight are rendered again."""
        prompts = [self.prompt(turn.question, pictures=pictures) for turn in turns]
        if pictures and any(one.prefix != prompts[0].prefix for one in prompts):
            with self.lock:
                self.prompt_cache.clear()
                self.answer_cache.clear()
            prompts = [self.prompt(turn.question, pictures=pictures) for turn in turns]
        return prompts

    @cachedmethod(lambda self: self.prompt_cache, lock=lambda self: self.lock)
    def _rendered(self, question: str, pictures: bool) -> _Sized:
        text = self.format.render([user(self.plain(question), int(pictures))], prompt=True)
        encoded = self.format.encode(text)
        ids = encoded.ids
        cut = ids.index(self.image) + 1 if self.image in ids else 0
        mask = self.format.asked(text, encoded)
        found = Prompt(ids[:cut], ids[cut:], [True] * len(ids[cut:]) if self.format.marked else mask[cut:])
        return _Sized(found, len(question) + len(ids) + len(found.rest))

    def _shared(self, prompts: Sequence[Prompt], pictures: bool) -> list[int]:
        """What all prompts of a row begin with: up to the picture, or the same without one as far as it goes."""
        if not prompts or (self.frame is not None and not pictures):
            return self.prompt("a", pictures=pictures).prefix
        if pictures:
            if any(one.prefix != prompts[0].prefix for one in prompts):
                raise AstreaError(
                    f"{name_of(self.tokenizer)} begins differently for different questions",
                    "use one that begins alike up to the picture",
                )
            return prompts[0].prefix
        common = [i for i in self.prompt("a").prefix if i != self.image]
        for one in prompts:
            same = 0
            while same < min(len(common), len(one.rest) - 1) and common[same] == one.rest[same]:
                same += 1
            common = common[:same]
        return common

    def _grown(self, ids: Sequence[int]) -> list[int]:
        """The same with all of a picture's placeholders."""
        return [i for one in ids for i in [one] * (self.picture_tokens if one == self.image else 1)]

    def _check_length(self, length: int, what: str) -> None:
        if self.max_length is not None and length > self.max_length:
            raise AstreaError(
                f"{what} takes {length} tokens with its picture and answer, {length - self.max_length} more than the "
                f"limit of {self.max_length}",
                "shorten it, or raise the limit; pictures are never cut",
            )

    def _padded(self, columns: Sequence[Sequence[list[Any]]]) -> PackedBatch:
        """Rows of one length from [ids, segments, labels, weights, asked, questions]."""
        length = max(len(column[0]) for column in columns)
        fill = (self.pad, -1, -100, 0.0, False, 0)
        made = [
            torch.tensor([column[i] + [fill[i]] * (length - len(column[i])) for column in columns])
            for i in range(len(columns[0]))
        ]
        ids, segments, labels, weights, asked, *questions = made
        return PackedBatch(
            ids,
            (segments >= 0).long(),
            segments,
            labels,
            weights,
            # Where the question's own marks belong to it, everything but answers does.
            None if self.format.marked and not questions else asked,
            questions[0] if questions else None,
        )

    def _frame(self) -> tuple[list[int], list[int], list[int]] | None:
        """Before the question, between it and the answer, behind the answer: in tokens, where the template puts special
        tokens around texts and changes nothing about them, so that each text can be tokenised once; else None."""
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        frame = None
        for question, answer in (("is it", "no"), ("  What?\n", " 12 "), ("a", ".b c")):
            asked, answer_ids = self.ids(question), self.ids(answer)
            rendered = self.format.render([user(question), assistant(answer)])
            prompt = self.format.encode(self.format.render([user(question)], prompt=True)).ids
            ids = self.format.encode(rendered).ids
            if frame is None:
                end = len(prompt) - len(self.format.tail_ids)
                after = len(prompt) + len(answer_ids)
                frame = (prompt[: end - len(asked)], prompt[end:], ids[after:])
            before, between, behind = frame
            plain = before[-2:-1] == [self.image] and {before[-1], *between, *behind} <= special
            if not plain or ids != [*before, *asked, *between, *answer_ids, *behind] or behind != [self.format.stop_id]:
                return None
        return frame


def answers_right(logits_BLV: Tensor, batch: PackedBatch) -> Tensor:
    """Whether every token of each question's answer, its end mark too, is the most likely one behind those before it:
    (B, S) float, NaN where there is none."""
    guess = logits_BLV[:, :-1].argmax(-1).cpu()
    target = batch.labels[:, 1:]
    numbers = batch.segments if batch.questions is None else batch.questions
    count = int(numbers.max())
    labelled = target != -100
    right = torch.full((len(guess), count), float("nan"))
    for number in range(1, count + 1):
        mine = labelled & (numbers[:, 1:] == number)
        has = mine.any(1)
        right[has, number - 1] = (~(mine & (guess != target)).any(1))[has].float()
    return right


def answer_losses(logits_BLV: Tensor, labels_BL: Tensor, segments_BL: Tensor, questions: int) -> Tensor:
    """Mean negative log-likelihood per answer token (with its end mark) of every question: (B, S) nats, 0 where a row
    has no such question."""
    label_BL, segment_BL = labels_BL[:, 1:], segments_BL[:, 1:]
    # Of the few tokens with a label: over a large vocabulary the others would cost several copies of all logits.
    labelled_BL = label_BL != -100
    loss_BL = logits_BLV.new_zeros(labelled_BL.shape, dtype=torch.float32)
    loss_BL[labelled_BL] = F.cross_entropy(
        logits_BLV[:, :-1][labelled_BL].float(), label_BL[labelled_BL], reduction="none"
    )
    numbers_S = torch.arange(1, questions + 1, device=segments_BL.device)
    member_BLS = (segment_BL.unsqueeze(-1) == numbers_S) & (label_BL != -100).unsqueeze(-1)
    return torch.einsum("bl,bls->bs", loss_BL, member_BLS.float()) / member_BLS.sum(1).clamp_min(1)
