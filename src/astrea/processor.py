"""From pictures and chat text to the model's tensors, as transformers processors.

Letters: B rows of text, N pictures (in reading order over the rows), L text length, S side of the square picture,
M visual tokens per picture.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image
from transformers import BatchFeature, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from astrea.data.images import load_image, to_square_array
from astrea.errors import AstreaError
from astrea.language.chat import settled_template
from astrea.language.chat_format import ChatFormat, known_id
from astrea.language.tokenizer import ASSISTANT, IMAGE, USER

CHARACTERS_PER_TOKEN = 16
"""A text of more characters than this per allowed token is refused unread: a tokenizer may take a very long word for
one unknown token, and a very long text takes a while."""


class AstreaImageProcessor(BaseImageProcessor):
    """Pictures of any size and kind -> ``pixel_values`` (N, 3, S, S), float32 in 0..1.

    Args:
        image_size: S.
    """

    model_input_names = ["pixel_values"]

    def __init__(self, image_size: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_size = image_size

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:  # type: ignore[override]
        return self.preprocess(images, *args, **kwargs)

    def preprocess(self, images: Any, return_tensors: str | None = "pt", **kwargs: Any) -> BatchFeature:  # type: ignore[override]
        """Load, fit into the square and scale.

        Args:
            images: a path, the bytes of an image file, a Pillow image, a uint8 array (H, W), (H, W, 1), (H, W, 3) or
                (H, W, 4), or lists of them, nested as you like; they come out flat, in reading order.
            return_tensors: "pt", "np" or None.

        Raises:
            AstreaError: a picture cannot be read (names which), there is none, or an option is unknown.
        """
        if kwargs:
            raise AstreaError(f"unknown image options: {', '.join(kwargs)}", "the image processor takes return_tensors")
        flat = list(flat_images(images))
        if not flat:
            raise AstreaError("the list of images is empty", "pass images=None for text without pictures")
        pixels = np.stack(
            [
                self._square(image, f"image {number} of {len(flat)}" if len(flat) > 1 else None)
                for number, image in enumerate(flat, 1)
            ]
        )
        return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)

    def _square(self, image: Any, name: str | None) -> np.ndarray:
        """One picture as (3, S, S) float32 in 0..1."""
        if isinstance(image, np.ndarray):
            image = _from_array(image, name or "the image")
        elif isinstance(image, str) and image.startswith(("http://", "https://", "data:")):
            raise AstreaError(f"{name or 'the image'} is a URL, {image[:60]!r}", "download it and pass the file's path")
        square = to_square_array(load_image(image, name=name), self.image_size)
        return square.transpose(2, 0, 1).astype(np.float32) / np.float32(255)


def flat_images(images: Any) -> Iterator[Any]:
    """The pictures of arbitrarily nested lists, in reading order; a 4-dimensional array is a list of pictures."""
    if isinstance(images, (list, tuple)) or (isinstance(images, np.ndarray) and images.ndim == 4):
        for image in images:
            yield from flat_images(image)
    elif images is not None:
        yield images


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    """A uint8 array as a Pillow image."""
    if array.dtype != np.uint8:
        raise AstreaError(f"{name} is an array of {array.dtype}", "pass uint8 values in 0..255")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if 0 in array.shape or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise AstreaError(
            f"{name} is an array of shape {array.shape}", "pass (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
        )
    return Image.fromarray(np.ascontiguousarray(array))


class AstreaProcessor(ProcessorMixin):
    """Chat text with ``<image>`` marks, and pictures -> everything `AstreaForConditionalGeneration` reads.

    Args:
        image_processor, tokenizer: the two halves; the tokenizer must know the ``<image>`` token. If it has no marks
            ``<user>`` and ``<assistant>``, its chat template tells where the question is.
        num_visual_tokens: M, how many placeholders one picture takes (``model.num_visual_tokens``).
        max_length: the longest text in tokens, placeholders included, unless a call says otherwise.
        chat_template: None = the tokenizer's, with what it lacks for pictures (see `astrea.language.chat`).

    Raises:
        AstreaError: the tokenizer has no ``<image>`` token.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        num_visual_tokens: int = 1,
        max_length: int = 1024,
        chat_template: Any = None,
    ) -> None:
        self.num_visual_tokens = num_visual_tokens
        self.max_length = max_length
        image, self.user_id, self.assistant_id = (known_id(tokenizer, mark) for mark in (IMAGE, USER, ASSISTANT))
        if image is None:
            raise AstreaError(f"the tokenizer has no {IMAGE} token", f"call tokenizer.add_tokens([{IMAGE!r}])")
        self.image_token, self.image_token_id = IMAGE, image
        if chat_template is None:
            chat_template = tokenizer.chat_template if self.marked else settled_template(tokenizer)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @cached_property
    def chat(self) -> ChatFormat:
        """How the tokenizer writes conversations, for tokenizers without marks."""
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
        max_length: int | None = None,
        padding: bool | str = True,
        padding_side: str | None = None,
        truncation: bool = False,
        add_special_tokens: bool = True,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Tensors for the model.

        Args:
            images: one picture, a flat list over all rows, or one list per row; see `AstreaImageProcessor`.
            text: one text or a list of B texts, with one ``<image>`` per picture.
            max_length: the longest text in tokens; None = the processor's.
            padding: True (to the longest row), "max_length" or False.
            padding_side: "left" or "right"; None = left, which generation wants.
            return_tensors: "pt", "np" or None (lists).

        Returns:
            input_ids and attention_mask (B, L); question_mask (B, L) bool, the last user turn: with its ``<user>`` and
            ``<assistant>`` marks where the vocabulary has them, otherwise its words (all text, if it is no prompt of
            the chat template); pixel_values (N, 3, S, S) if there are pictures. Without text, pixel_values alone.

        Raises:
            AstreaError: marks and pictures do not match, a question is empty, a text is too long, a picture cannot be
                read, or an option is unknown.
        """
        if truncation or videos is not None or audio is not None or kwargs:
            wrong = [n for n, v in (("truncation", truncation), ("videos", videos), ("audio", audio)) if v] + [*kwargs]
            raise AstreaError(
                f"options not supported: {', '.join(wrong)}", "Astrea reads whole texts and pictures; leave them out"
            )
        if text is None:
            if images is None:
                raise AstreaError("neither text nor images were given", "pass at least one of them")
            return self.image_processor(images, return_tensors=return_tensors)
        limit = self.max_length if max_length is None else max_length
        texts = _texts(text)
        short = [self._tokens(row, one, limit, add_special_tokens) for row, one in enumerate(texts)]
        self._check_marks([ids.count(self.image_token_id) for ids, _ in short], images)
        rows = [self._expanded(row, ids, limit) for row, (ids, _) in enumerate(short)]
        asked = [self._question(row, ids, mask) for row, (ids, mask) in enumerate(short)]
        side = padding_side or "left"
        data: dict[str, Any] = self._padded(rows, asked, padding, limit, side)
        if any(True for _ in flat_images(images)):
            data |= self.image_processor(images, return_tensors="np")
        return BatchFeature(data, tensor_type=return_tensors)

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """As in transformers. What the template writes is all there is: no further special tokens are added."""
        if kwargs.get("tokenize"):
            given = kwargs.get("processor_kwargs") or {}
            kwargs["processor_kwargs"] = {"add_special_tokens": False, **given}
        return super().apply_chat_template(conversation, *args, **kwargs)

    def _tokens(self, row: int, text: str, limit: int, add_special_tokens: bool) -> tuple[list[int], list[bool] | None]:
        """Token ids of a text, one per ``<image>`` mark, and which of them are the question, where the template and
        not marks tell."""
        most = limit * CHARACTERS_PER_TOKEN
        if len(text) > most:
            raise AstreaError(
                f"the text of row {row} has {len(text):,} characters; {limit} tokens hold at most {most:,}",
                "shorten the question, or raise max_length",
            )
        if self.marked or not text.endswith(self.chat.tail):
            return list(self.tokenizer(text, add_special_tokens=add_special_tokens).input_ids), None
        encoded = self.chat.encode(text)  # a prompt that the template wrote, special tokens and all
        return encoded.ids, self.chat.asked(text, encoded)

    def _check_marks(self, marks: list[int], images: Any) -> None:
        """Whether every row has as many marks as pictures."""
        mend = f"write one {IMAGE} per picture, or put pictures into the messages and use apply_chat_template"
        nested = isinstance(images, (list, tuple)) and all(isinstance(i, (list, tuple)) or i is None for i in images)
        if nested and images:
            counts = [sum(1 for _ in flat_images(row)) for row in images]
            if len(counts) != len(marks):
                raise AstreaError(f"{len(marks)} texts but pictures for {len(counts)}", "give one list per text")
            for row, (marked, given) in enumerate(zip(marks, counts, strict=True)):
                if marked != given:
                    raise AstreaError(f"row {row} has {marked} {IMAGE} marks but {given} pictures", mend)
            return
        given = sum(1 for _ in flat_images(images))
        left = given
        for row, marked in enumerate(marks):
            last = row == len(marks) - 1
            if marked > left or (last and marked != left):
                raise AstreaError(
                    f"row {row} has {marked} {IMAGE} marks but {left} pictures are left for it "
                    f"({sum(marks)} marks and {given} pictures in all)",
                    mend,
                )
            left -= marked

    def _expanded(self, row: int, ids: list[int], limit: int) -> list[int]:
        """The ids with M placeholders per mark."""
        long = [i for one in ids for i in [one] * (self.num_visual_tokens if one == self.image_token_id else 1)]
        if len(long) > limit:
            pictures = ids.count(self.image_token_id)
            raise AstreaError(
                f"the text of row {row} has {len(long)} tokens ({pictures} pictures of {self.num_visual_tokens} each "
                f"among them); the limit is {limit}",
                "shorten the question or show fewer pictures, or raise max_length",
            )
        return long

    def _question(self, row: int, ids: list[int], asked: list[bool] | None) -> list[bool]:
        """Which tokens of a row are its question, all of a picture's placeholders among the tokens."""
        outside = {self.image_token_id, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id}
        if asked is not None:
            words = [i for i, mine in zip(ids, asked, strict=True) if mine and not self._is_blank(i)]
        elif not self.marked or self.user_id not in ids:
            asked = [i not in outside for i in ids]
            words = [i for i in ids if i not in outside]
        else:
            start = len(ids) - 1 - ids[::-1].index(self.user_id)
            stop = ids.index(self.assistant_id, start) if self.assistant_id in ids[start:] else len(ids) - 1
            asked = [start <= place <= stop and i not in outside for place, i in enumerate(ids)]
            words = [
                i for i, mine in zip(ids, asked, strict=True) if mine and i not in (self.user_id, self.assistant_id)
            ]
        if not words:
            raise AstreaError(f"the question of row {row} is empty", "ask something in words")
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and all(i == unknown for i in words):
            warnings.warn(
                f"no word of the question of row {row} is known to the model's tokenizer; the answer will be a guess",
                stacklevel=3,
            )
        return [
            mine
            for i, mine in zip(ids, asked, strict=True)
            for _ in range(self.num_visual_tokens if i == self.image_token_id else 1)
        ]

    def _is_blank(self, token: int) -> bool:
        return not str(self.tokenizer.decode([token])).strip()

    def _padded(
        self, rows: list[list[int]], asked: list[list[bool]], padding: bool | str, limit: int, side: str
    ) -> dict[str, list[list[Any]]]:
        """Rows of one length."""
        if padding not in (True, False, "longest", "max_length", "do_not_pad") or side not in ("left", "right"):
            raise AstreaError(
                f"padding={padding!r} on the {side!r} is unknown",
                'padding is True, False or "max_length", padding_side "left" or "right"',
            )
        lengths = [len(ids) for ids in rows]
        if padding is False or padding == "do_not_pad":
            gaps = [0] * len(rows)
        else:
            wanted = limit if padding == "max_length" else max(lengths)
            gaps = [wanted - length for length in lengths]
        fill = self.tokenizer.pad_token_id
        if fill is None and any(gaps):
            raise AstreaError("the tokenizer has no padding token", "set tokenizer.pad_token")

        def pad(values: list[Any], gap: int, what: Any) -> list[Any]:
            return [what] * gap + values if side == "left" else values + [what] * gap

        return {
            "input_ids": [pad(ids, gap, fill) for ids, gap in zip(rows, gaps, strict=True)],
            "attention_mask": [pad([1] * length, gap, 0) for length, gap in zip(lengths, gaps, strict=True)],
            "question_mask": [pad(mask, gap, False) for mask, gap in zip(asked, gaps, strict=True)],
        }

    def batch_decode(self, *args: Any, **kwargs: Any) -> list[str]:
        return self.tokenizer.batch_decode(*args, **kwargs)

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


def _texts(text: Any) -> list[str]:
    """One text or several as a list."""
    texts = [text] if isinstance(text, str) else list(text) if isinstance(text, Iterable) else [text]
    for row, one in enumerate(texts):
        if not isinstance(one, str):
            raise AstreaError(f"the text of row {row} is a {type(one).__name__}", "pass a string, or a list of strings")
    if not texts:
        raise AstreaError("the list of texts is empty", "pass at least one text")
    return texts


def _after_last(ids: list[int], mark: int | None) -> list[int]:
    """What follows the last mark; everything if there is none."""
    return ids[len(ids) - ids[::-1].index(mark) :] if mark in ids else ids
