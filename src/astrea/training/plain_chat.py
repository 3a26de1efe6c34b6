"""Plain chat of a pretrained language model with itself, made before it learns anything, so that it forgets less.

The untouched model answers a list of plain questions, once. While it learns, a share of every batch's samples
(``data.text_share``) are such questions with those answers, without a picture: what it said, it keeps saying.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.common.files import write_json_atomic
from astrea.common.fingerprint import tensors_fingerprint
from astrea.common.kept_folders import kept_folder
from astrea.common.paths import file_guard, is_file, read_json
from astrea.common.progress import SILENT, Reporter
from astrea.common.seeds import generator_for
from astrea.data.packing import PackedBatch, Packer, Turn
from astrea.data.protocol import Rows
from astrea.evaluation.plain_answers import BATCH, plain_answers
from astrea.language.low_rank import is_adapter
from astrea.language.tokenizer import IMAGE
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.recipes.recipe import Recipe
from astrea.training.distributed import Distributed

KEPT = "chat.json"
"""A run's own copy of the chat, which it reads when it goes on: the cache may be pruned, another machine answer
otherwise."""

PARTIAL = "chat.partial.json"
"""The answers that a run has so far, in its folder while it asks: a run that is killed goes on from them."""

LONGEST = 48
"""Tokens of an answer that are waited for; longer ones end with their last whole sentence."""

FORMAT = 1
FILL = {"segments": -1, "labels": -100}
"""What rows of a batch are padded with, where it is not 0; ``input_ids`` by the padding token."""


@dataclass(frozen=True)
class PlainChat:
    """Questions with the language model's own answers."""

    turns: tuple[Turn, ...]

    def rows(self, packer: Packer, count: int, generator: torch.Generator, *, conversations: bool) -> PackedBatch:
        """Some turns, drawn at random, each in a row of its own without a picture.

        Args:
            conversations: laid out as `Packer.pack_conversations` does, which numbers questions; else as `Packer.pack`.
        """
        drawn = [self.turns[at] for at in torch.randint(len(self.turns), (count,), generator=generator).tolist()]
        if not conversations:
            return packer.pack([[turn] for turn in drawn], pictures=False)
        return packer.pack_conversations([[packer.conversation(_messages(turn), name=turn.question)] for turn in drawn])


def _messages(turn: Turn) -> list[dict[str, str]]:
    return [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]


@dataclass(frozen=True)
class PartialAnswers:
    """The first answers to a list of questions, in a file while the others are asked for.

    path: None = they are kept nowhere. key: what they depend on; those of another key are of no use.
    """

    path: Path | None
    key: Mapping[str, Any]

    def read(self, most: int) -> list[str]:
        """The answers that are kept, whole batches of them and at most so many; none where the file cannot be used."""
        try:
            kept = read_json(self.path) if self.path is not None and is_file(self.path) else None
        except AstreaError:  # cut short: the questions are asked again
            return []
        answers = kept.get("answers") if isinstance(kept, dict) and kept.get("key") == self.key else None
        if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
            return []
        return answers if len(answers) == most else answers[: min(len(answers), most) // BATCH * BATCH]

    def write(self, answers: Sequence[str]) -> None:
        """Keep these answers in the place of those before."""
        if self.path is not None:
            with file_guard(self.path):
                write_json_atomic(self.path, {"key": dict(self.key), "answers": list(answers)})


def plain_questions() -> list[str]:
    """The packaged questions and instructions: plain English, none of which needs a picture."""
    found: list[str] = read_json(Path(__file__).parents[1] / "language" / "plain_questions.json")
    return found


def most_chat(share: float, size: int) -> int:
    """The most samples of a batch that give way to plain chat; one stays."""
    return min(math.ceil(share * size), size - 1)


def chat_rows(recipe: Recipe, stage: str, step: int, micro: int, size: int) -> int:
    """How many rows of a batch are plain chat: ``share * size`` on average."""
    draw = float(torch.rand((), generator=generator_for(recipe.seed, stage, "texts", step, micro)))
    return math.floor(recipe.data.text_share * size + draw)


def with_chat(rows: Rows, chat: PackedBatch, pad: int) -> Rows:
    """Rows with those of plain chat behind them, which belong to no group and show no picture."""
    groups = F.pad(rows.groups, (0, 0, 0, len(chat.input_ids)), value=-1)
    return Rows(stacked(rows.packed, chat, pad), groups, rows.shown, rows.row)


def stacked(first: PackedBatch, second: PackedBatch, pad: int) -> PackedBatch:
    """The rows of two batches, padded on the right to the longer one."""
    length = max(first.input_ids.shape[1], second.input_ids.shape[1])

    def joined(name: str) -> Tensor | None:
        parts = [getattr(first, name), getattr(second, name)]
        if all(part is None for part in parts):
            return None
        fill = pad if name == "input_ids" else FILL.get(name, 0)
        return torch.cat([F.pad(part, (0, length - part.shape[1]), value=fill) for part in parts])

    return PackedBatch(**{field.name: joined(field.name) for field in fields(PackedBatch)})  # type: ignore[arg-type]


def plain_chat(
    recipe: Recipe,
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    cache: Path,
    ranks: Distributed,
    report: Reporter = SILENT,
) -> PlainChat | None:
    """The chat of a run's untouched language model: from the run's folder, else from the cache, else made now.

    Args:
        folder: the run's, where it is kept.

    Raises:
        AstreaError: the language model answers nothing that could be learned, or a folder cannot be written.
    """
    if not recipe.data.text_share:
        return None
    questions = plain_questions()
    key = chat_key(model, tokenizer, questions)
    own = folder / KEPT
    with ranks.main_first():
        noted = read_json(own) if is_file(own) else None
        if not isinstance(noted, dict) or noted.get("key") != key:
            partial = PartialAnswers(folder / PARTIAL if ranks.is_main else None, key)
            made = kept_folder(
                cache, key, lambda new: _write(new, model, tokenizer, questions, partial, report), on_event=report.say
            )
            noted = {"key": key, "turns": read_json(made / KEPT)}
            if ranks.is_main:
                with file_guard(folder):
                    write_json_atomic(own, noted)
                    (folder / PARTIAL).unlink(missing_ok=True)
    turns = tuple(Turn(question, answer) for question, answer in noted["turns"])
    share = f"{recipe.data.text_share:.1%} of samples"
    report.say(f"plain chat: {len(turns)} answers of the untouched language model, {share} where it learns")
    return PlainChat(turns)


def chat_key(
    model: AstreaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str]
) -> dict[str, Any]:
    """What the chat depends on. Adapters of low rank change nothing before they have learned."""
    state = model.language_model.state_dict()
    weights = {name.replace(".base_layer", ""): value for name, value in state.items() if not is_adapter(name)}
    template = tokenizer.get_chat_template()
    asked = json.dumps([*questions, template], ensure_ascii=True)
    return {
        "what": "plain chat",
        "weights": tensors_fingerprint(weights),
        "asked": hashlib.sha256(asked.encode()).hexdigest(),
        "longest": LONGEST,
        "batch": BATCH,
        "format": FORMAT,
    }


def _write(
    folder: Path,
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    partial: PartialAnswers,
    report: Reporter,
) -> None:
    """Ask the questions and write down the answers that can be learned."""
    label = "asking the language model plain questions"
    packer = Packer(tokenizer, model.num_visual_tokens)
    answers = partial.read(len(questions))
    report.track(label, len(answers), len(questions))
    for start in range(len(answers), len(questions), BATCH):
        answers += plain_answers(model, tokenizer, questions[start : start + BATCH], longest=LONGEST)
        partial.write(answers)
        report.track(label, len(answers), len(questions))
    given = [
        (question, whole_sentences(answer, cut=len(packer.ids(answer)) >= LONGEST - 1))
        for question, answer in zip(questions, answers, strict=True)
    ]
    kept = [[question, answer] for question, answer in given if can_be_learned(packer, Turn(question, answer))]
    if not kept:
        raise AstreaError(
            "the language model answers plain questions with nothing that could be learned",
            "set data.text_share=0, or choose a language model that has been taught to chat",
        )
    with file_guard(folder):
        folder.mkdir()
        write_json_atomic(folder / KEPT, kept)


def whole_sentences(answer: str, *, cut: bool) -> str:
    """An answer as it is; one that was cut off, up to its last whole sentence if it has one."""
    found = re.match(r".*[^\d\s][.!?]", answer, re.DOTALL) if cut else None
    return (found[0] if found else answer).strip()


def can_be_learned(packer: Packer, turn: Turn) -> bool:
    """Whether a turn can be written by the chat template, both ways in which rows are laid out."""
    if not turn.answer or IMAGE in turn.answer:
        return False
    try:
        packer.pack([[turn]], pictures=False)
        packer.conversation(_messages(turn), name=turn.question)
    except AstreaError:
        return False
    return True
