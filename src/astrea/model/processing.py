"""From pictures and chat text to the model's tensors, as a transformers processor.

Letters: B rows of text, N pictures (in reading order over the rows), L text length, M visual tokens per picture.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from transformers import BatchFeature, ProcessorMixin
from transformers.processing_utils import MultiModalData

from astrea.common.call_options import call_options, sorted_options
from astrea.common.errors import AstreaError
from astrea.common.paths import is_text
from astrea.common.terminal import counted
from astrea.language.chat import render, rendered, settled_template
from astrea.language.chat_format import ChatFormat, Encoded, known_id
from astrea.language.control_tokens import ControlTokens
from astrea.language.messages import escaped, read_conversation, several
from astrea.language.tokenizer import ASSISTANT, IMAGE, USER
from astrea.model.image_processing import (
    ORIGINALS,
    AstreaImageProcessor,
    flat_images,
    known_tensors,
    whole_number,
    with_originals,
)
from astrea.model.text_rows import TextRow, check_marks, padded

__all__ = ["AstreaImageProcessor", "AstreaProcessor"]

CHARACTERS_PER_TOKEN = 16
"""A text of more characters than this per allowed token is refused unread: a tokenizer may take a very long word for
one unknown token, and a very long text takes a while."""

MOST_TOKENS = 1 << 24
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class AstreaProcessor(ProcessorMixin):
    """Chat text with ``<image>`` marks, and pictures -> everything `AstreaForConditionalGeneration` reads.

    Args:
        image_processor, tokenizer: the two halves; the tokenizer must know the ``<image>`` token. If it has no marks
            ``<user>`` and ``<assistant>``, its chat template tells where the question is.
        num_visual_tokens: M, how many placeholders one picture takes (``model.num_visual_tokens``).
        max_length: the longest text in tokens, placeholders included, unless a call says otherwise.
        chat_template: None = the tokenizer's, with what it lacks for pictures (see `astrea.language.chat`).

    Raises:
        AstreaError: the tokenizer has no ``<image>`` token, or a number is none.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        num_visual_tokens: int = 1,
        max_length: int = 1024,
        chat_template: Any = None,
    ) -> None:
        self.num_visual_tokens = whole_number(num_visual_tokens, "num_visual_tokens", MOST_TOKENS)
        self.max_length = whole_number(max_length, "max_length", MOST_TOKENS)
        image, self.user_id, self.assistant_id = (known_id(tokenizer, mark) for mark in (IMAGE, USER, ASSISTANT))
        if image is None:
            raise AstreaError(f"the tokenizer has no {IMAGE} token", f"call tokenizer.add_tokens([{IMAGE!r}])")
        self.image_token, self.image_token_id = IMAGE, image
        if chat_template is None:
            chat_template = tokenizer.chat_template if self.marked else settled_template(tokenizer)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)  # type: ignore[no-untyped-call]

    @cached_property
    def chat(self) -> ChatFormat:
        """How the tokenizer writes conversations."""
        return ChatFormat(self.tokenizer)

    @property
    def marked(self) -> bool:
        """Whether marks of the vocabulary's own tell where question and answer begin."""
        return self.user_id is not None and self.assistant_id is not None

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values", "question_mask"]

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        videos: None = None,
        audio: None = None,
        *,
        return_tensors: str | None = "pt",
        **options: Any,
    ) -> BatchFeature:
        """Tensors for the model.

        Args:
            images: one picture, a flat list over all rows, or one list per row; see `AstreaImageProcessor`.
            text: one text or a list of B texts, with one ``<image>`` per picture.
            return_tensors: "pt", "np" or None (lists).
            options: max_length, the longest text in tokens; None = the processor's. truncation: cut what is longer,
                with a warning, instead of an error; pictures are never cut. padding: True (to the longest row),
                "max_length" or False. padding_side: "left" or "right"; None = left, which generation wants.
                pad_to_multiple_of. add_special_tokens: those that the tokenizer puts around a text.
                return_offsets_mapping: also offset_mapping (B, L, 2), each token's characters in its text; a picture's
                placeholders all have those of its mark. return_mm_token_type_ids: also mm_token_type_ids (B, L), 1 at
                pictures and 0 at text. input_data_format: of arrays. They may also be given in the dictionaries
                text_kwargs, images_kwargs and common_kwargs.

        Returns:
            input_ids and attention_mask (B, L); question_mask (B, L) bool, the last user turn: with its ``<user>`` and
            ``<assistant>`` marks where the vocabulary has them, otherwise its words (all text, if it was not written by
            the chat template); pixel_values (N, 3, S, S) if there are pictures, and original_images where the image
            processor gives them. Without text, pictures alone.

        Raises:
            AstreaError: marks and pictures do not match, a question is empty, a text is too long, a picture cannot be
                read, or an option is unknown.
        """
        if videos is not None or audio is not None:
            raise AstreaError("videos and audio are not supported", "Astrea reads texts and pictures; leave them out")
        return self._batch(images, text, call_options(options), known_tensors(return_tensors), None)

    def text_row(self, text: str, pictures: Sequence[Any]) -> TextRow:
        """One text in tokens, M placeholders per picture among them, for whoever has tensors of the pictures already.

        Args:
            text: with one ``<image>`` per picture. pictures: are only counted.

        Raises:
            AstreaError: as `__call__` of a text.
        """
        row = self._row("", text, self.max_length, True)
        check_marks([row.ids.count(self.image_token_id)], pictures)
        return self._grown(row, self.max_length, False)

    def apply_chat_template(  # type: ignore[override]
        self,
        conversation: Any,
        chat_template: str | None = None,
        *,
        tools: Any = None,
        documents: Any = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_tensors: str | None = "pt",
        return_dict: bool = False,
        processor_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As in transformers. What the template writes is all there is: no further special tokens are added, and
        control tokens in what people wrote, such as ``<assistant>``, are broken up by a space and so are plain text.

        Args:
            conversation: one or a list of them, see `astrea.language.messages.read_conversation`.
            tools, documents: for templates that read them.
            return_assistant_tokens_mask: also assistant_masks (B, L), 1 where the assistant speaks: as the template's
                ``{% generation %}`` marks have it, otherwise its words and the token that ends them, found by trial.
            processor_kwargs: options of `__call__`, which may also be given directly; everything else must be a
                variable that the template reads.

        Returns:
            The text (with a list of conversations, texts); with ``tokenize``, input_ids (B, L), or with ``return_dict``
            everything that `__call__` returns.

        Raises:
            AstreaError: a message or option has no meaning here, the template refuses the conversation, or as
                `__call__`.
        """
        template = self._template(chat_template)
        control = ControlTokens(self.tokenizer, template)
        variables, options = sorted_options(template, {"tools": tools, "documents": documents, **kwargs})
        conversations, batched = several(conversation)
        turns, pictures = [], []
        for number, one in enumerate(conversations):
            said, shown = read_conversation(one, control, template, f"conversation {number}: " if batched else "")
            turns.append(said)
            pictures.append(shown)
        written = {"continue_final_message": continue_final_message, **escaped(variables, control)}
        texts = [render(self.tokenizer, template, one, prompt=add_generation_prompt, **written) for one in turns]
        if not tokenize:
            return texts if batched else texts[0]
        options = {"add_special_tokens": False, **options, **(processor_kwargs or {})}
        images = options.pop("images", None)
        if images is not None and any(pictures):
            raise AstreaError("pictures are given in the messages and beside them", "give them in one of the places")
        answered = None
        if return_assistant_tokens_mask:
            more = {"add_generation_prompt": add_generation_prompt, **written}
            both = zip(turns, texts, strict=True)
            answered = [self._answered(template, said, text, more) for said, text in both]
        tensors = "pt" if return_tensors == "auto" else known_tensors(return_tensors)
        images = pictures if any(pictures) else images
        found = self._batch(images, texts, call_options(options), tensors, answered)
        return found if return_dict else found["input_ids"]

    def _batch(
        self, images: Any, text: Any, options: dict[str, Any], tensors: str | None, answered: Any
    ) -> BatchFeature:
        """`__call__` with all its options; ``answered``: per text, 1 for each token of the assistant."""
        layout = {"input_data_format": options["input_data_format"]}
        if text is None:
            if images is None:
                raise AstreaError("neither text nor images were given", "pass at least one of them")
            found: BatchFeature = self.image_processor(images, return_tensors=tensors, **layout)
            return found
        limit = options["max_length"]
        limit = self.max_length if limit is None else whole_number(limit, "max_length", MOST_TOKENS)
        cut = getattr(options["truncation"], "value", options["truncation"]) not in (None, False, "do_not_truncate")
        texts = _texts(text)
        alone = len(texts) == 1
        rows = [
            self._row("" if alone else f" of row {row}", one, limit, options["add_special_tokens"])
            for row, one in enumerate(texts)
        ]
        check_marks([row.ids.count(self.image_token_id) for row in rows], images)
        if answered is not None:
            rows = [_with_answers(row, one) for row, one in zip(rows, answered, strict=True)]
        rows = [self._grown(row, limit, cut) for row in rows]
        side = options["padding_side"] or "left"
        columns = padded(
            rows, self.tokenizer.pad_token_id, options["padding"], side, limit, options["pad_to_multiple_of"]
        )
        if not options["return_offsets_mapping"]:
            del columns["offset_mapping"]
        if answered is None:
            del columns["assistant_masks"]
        if options["return_mm_token_type_ids"]:
            columns["mm_token_type_ids"] = [
                [int(i == self.image_token_id) for i in ids] for ids in columns["input_ids"]
            ]
        if tensors is not None and len({len(ids) for ids in columns["input_ids"]}) > 1:
            raise AstreaError("rows of different lengths make no tensor", "pass padding=True, or return_tensors=None")
        data: dict[str, Any] = dict(columns)
        if any(True for _ in flat_images(images)):
            data |= self.image_processor(images, return_tensors="np", **layout)
        originals = data.pop(ORIGINALS, None)
        return with_originals(BatchFeature(data, tensor_type=tensors), originals)

    def _template(self, given: str | None) -> str:
        """The chat template to use: a text, or the name of one of the processor's."""
        own = self.chat_template
        if isinstance(own, Mapping):
            return str(own.get(given or "default") or given or next(iter(own.values())))
        return str(given or own)

    def _row(self, of_row: str, text: str, limit: int, add_special_tokens: bool) -> TextRow:
        """A text in tokens, one per ``<image>`` mark; ``of_row``: what errors put behind "the text"."""
        most = limit * CHARACTERS_PER_TOKEN
        name = f"the text{of_row}"
        if not is_text(text):
            what = f"{name} holds half of a character (a lone \\ud800..\\udfff)"
            raise AstreaError(what, "write whole characters; in a terminal, in UTF-8")
        if len(text) > most:
            raise AstreaError(
                f"{name} has {len(text):,} characters; {limit} tokens hold at most {most:,}",
                "shorten the question, or raise max_length",
            )
        if self.marked or self.chat.tail not in text:
            encoded = self._encoded(text, add_special_tokens)
            asked = self._marked_question(encoded.ids)
        else:
            encoded = self.chat.encode(text)  # the template wrote it, special tokens and all
            asked = self.chat.asked(text, encoded)
        self._check_question(of_row, encoded.ids, asked)
        return TextRow(name, encoded.ids, asked, encoded.spans, [0] * len(asked))

    def _encoded(self, text: str, add_special_tokens: bool) -> Encoded:
        options = {"return_offsets_mapping": True} if self.tokenizer.is_fast else {}
        found = self.tokenizer(text, add_special_tokens=add_special_tokens, **options)
        ids = list(found.input_ids)
        spans = [(int(a), int(b)) for a, b in found["offset_mapping"]] if options else [(0, 0)] * len(ids)
        return Encoded(ids, spans)

    def _marked_question(self, ids: list[int]) -> list[bool]:
        """Which tokens are the last user's turn with its marks; all text, where there is no ``<user>``."""
        outside = {self.image_token_id, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id}
        if not self.marked or self.user_id not in ids:
            return [i not in outside for i in ids]
        start = len(ids) - 1 - ids[::-1].index(self.user_id)
        stop = ids.index(self.assistant_id, start) if self.assistant_id in ids[start:] else len(ids) - 1
        return [start <= place <= stop and i not in outside for place, i in enumerate(ids)]

    def _check_question(self, of_row: str, ids: list[int], asked: list[bool]) -> None:
        """Whether a question has words, and the tokenizer knows one of them."""
        marks = {self.user_id, self.assistant_id} if self.marked and self.user_id in ids else set()
        words = [i for i, mine in zip(ids, asked, strict=True) if mine and i not in marks]
        if not self.marked:
            words = [i for i in words if str(self.tokenizer.decode([i])).strip()]
        if not words:
            raise AstreaError(f"the question{of_row} is empty", "ask something in words")
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and all(i == unknown for i in words):
            warnings.warn(
                f"no word of the question{of_row} is known to the model's tokenizer; the answer will be a guess",
                stacklevel=4,
            )

    def _grown(self, row: TextRow, limit: int, cut: bool) -> TextRow:
        """The row with M placeholders per mark, and within the limit."""
        long = row.grown(self.image_token_id, self.num_visual_tokens)
        if cut:
            return long.cut(limit, self.tokenizer.truncation_side, self.image_token_id)
        if len(long.ids) > limit:
            pictures = counted(row.ids.count(self.image_token_id), "picture")
            raise AstreaError(
                f"{row.name} has {len(long.ids)} tokens ({pictures} of {self.num_visual_tokens} each among them); "
                f"the limit is {limit}",
                "shorten the question or show fewer pictures, or raise max_length",
            )
        return long

    def _answered(self, template: str, turns: Sequence[Any], text: str, options: dict[str, Any]) -> list[int]:
        """1 for each token of a rendered conversation that the assistant said."""
        if GENERATION.search(template):
            whole, said = rendered(self.tokenizer, template, turns, **options)
            encoded = self.chat.encode(whole)
            mine = {token for start, stop in said for token in encoded.touching(start, stop)}
            return [int(token in mine) for token in range(len(encoded.ids))]
        if template != self.chat.template:
            raise AstreaError(
                "this chat template does not tell what the assistant says",
                "put {% generation %} and {% endgeneration %} around what it writes for the assistant",
            )
        return self.chat.answered(turns, text)

    def _get_num_multimodal_tokens(self, image_sizes: Any = None, **kwargs: Any) -> MultiModalData:
        """How many placeholders pictures of these sizes take, as serving engines ask: M each, whatever the size."""
        count = len(image_sizes or [])
        return MultiModalData(num_image_tokens=[self.num_visual_tokens] * count, num_image_patches=[1] * count)

    def batch_decode(self, *args: Any, **kwargs: Any) -> list[str]:
        found: list[str] = self.tokenizer.batch_decode(*args, **kwargs)
        return found

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        return self.tokenizer.decode(*args, **kwargs)

    def post_process_image_text_to_text(
        self, generated_outputs: Any, skip_special_tokens: bool = True, **kwargs: Any
    ) -> list[str]:
        """The texts of generated rows (B, L): what follows the last prompt, or all of it if there is none.

        The stock pipeline takes the prompt's text off the front of the answer's; cutting at the mark leaves it nothing
        to take off, and no space between the two in front of the answer.
        """
        rows = [row.tolist() if hasattr(row, "tolist") else list(row) for row in generated_outputs]
        if self.marked:
            answers = [_after_last(row, self.assistant_id) for row in rows]
        else:
            answers = [self.chat.answers(row) for row in rows]
        return [self.tokenizer.decode(row, skip_special_tokens=skip_special_tokens, **kwargs) for row in answers]


def _with_answers(row: TextRow, answered: list[int]) -> TextRow:
    if len(answered) != len(row.ids):
        raise AstreaError(
            f"{row.name} has {len(row.ids)} tokens with special tokens of its own, {len(answered)} without",
            "leave add_special_tokens=False, the template has put them",
        )
    return TextRow(row.name, row.ids, row.asked, row.spans, answered)


def _texts(text: Any) -> list[str]:
    """One text or several as a list."""
    several = isinstance(text, Iterable) and not isinstance(text, (str, bytes, Mapping))
    texts = list(text) if several else [text]
    for row, one in enumerate(texts):
        if not isinstance(one, str):
            raise AstreaError(f"the text of row {row} is a {type(one).__name__}", "pass a string, or a list of strings")
    if not texts:
        raise AstreaError("the list of texts is empty", "pass at least one text")
    return texts


def _after_last(ids: list[int], mark: int | None) -> list[int]:
    """What follows the last mark; everything if there is none."""
    return ids[len(ids) - ids[::-1].index(mark) :] if mark in ids else ids
