"""The kind `rapidocr`: lines of text in a picture, with the PP-OCR networks of the package rapidocr (Apache-2.0, extra
``ocr``), which this module reads itself: of the package only the two ONNX files are used.

One network (Differentiable Binarization, arXiv 1911.08947) says where text is, the other reads one line (CTC). What is
read reaches the language model in its own word pieces, so its tokenizer is needed, see `OcrExpert.use_tokenizer`.

Letters: B pictures, T lines, P word pieces, H W picture height and width, h w sides of the detector's map, S steps of
the reader, K characters.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.common.installation import require_extra
from astrea.common.paths import read_bytes
from astrea.experts.packaged.findings import HORIZONTAL, VERTICAL, side_words
from astrea.experts.packaged.onnx import OnnxExpert
from astrea.experts.packaged.onnx_file import MOST_BYTES
from astrea.experts.packaged.text_lines import Line, cut_out, find_lines, reading_order
from astrea.experts.packaged.text_tiles import put_together, tiled_factor
from astrea.experts.packaged.word_pieces import NO_PIECE, word_pieces
from astrea.experts.protocol import ExpertFeatures, Reading

DETECT, READ = "detect", "read"
FILES = {DETECT: "PP-OCRv6_det_small.onnx", READ: "PP-OCRv6_rec_small.onnx"}
STEP = 32
"""Sides of the detector's pictures are multiples of it."""
ENLARGED = 640
"""Small letters are found in pictures enlarged to this, if that is no more than twice."""
HEIGHT, LONGEST, PADDED = 48, 1536, 320
"""Of the picture of a line: its height, the longest, and what shorter ones are filled up to."""
AT_ONCE = 4
MOST_LETTERS = 200


class Read(NamedTuple):
    """A line that was read: box: x0, y0, x1, y1 as shares of the picture."""

    text: str
    score: float
    box: tuple[float, float, float, float]


class OcrExpert(OnnxExpert):
    """Up to ``lines`` lines of text in reading order, each as word pieces of the language model, with its place.

    Args:
        lines: how many, 1..64; of more, the largest are read. pieces: of a line at most, 1..128; the rest is cut.
        side: longest side of the picture that text is looked for in, a multiple of 32 in 320..2048. Pictures of less
            than 640 pixels are enlarged to that, up to twice.
        threshold: a line whose letters are less sure on average is left out.
        tiles: a picture larger than ``side`` is also looked at in up to so many tiles of ``side`` pixels, for letters
            that are too small to be found in the whole (pages): 0, or 2..256.
        graph_bytes: see `OnnxExpert`.

    Raises:
        AstreaError: an option is out of range, or the networks are not installed.
    """

    num_tokens = 8
    width = 24 + 4 + 2
    labels = (*([None] * 24), *VERTICAL, *HORIZONTAL, None, None)
    phrases = ("text : {text} {vertical} {horizontal} ;",)
    picture = "original"

    tokenizer_hash: Tensor

    def __init__(
        self,
        *,
        lines: int = 8,
        pieces: int = 24,
        side: int = 1280,
        threshold: float = 0.6,
        tiles: int = 0,
        graph_bytes: Mapping[str, int] | None = None,
    ) -> None:
        for name, value, good in (
            ("lines", lines, range(1, 65)),
            ("pieces", pieces, range(1, 129)),
            ("side", side, range(320, 2049, STEP)),
        ):
            if value not in good:
                step = f", a multiple of {good.step}" if good.step > 1 else ""
                raise AstreaError(f"{name}={value!r}", f"a whole number in {good.start}..{good.stop - 1}{step}")
        if not 0 <= threshold < 1:
            raise AstreaError(f"threshold={threshold!r}", "a probability in 0..1")
        if tiles not in (0, *range(2, 257)):
            raise AstreaError(f"tiles={tiles!r}", "0 (none), or a whole number in 2..256")
        super().__init__(graph_bytes=graph_bytes)
        self.side, self.threshold, self.pieces, self.tiles = side, threshold, pieces, tiles
        self.num_tokens = lines
        self.labels = (*([None] * pieces), *VERTICAL, *HORIZONTAL, None, None)
        self.width = len(self.labels)
        self.slots = {"text": (0, pieces), "vertical": (pieces, pieces + 2), "horizontal": (pieces + 2, pieces + 4)}
        self.tokenizer: PreTrainedTokenizerBase | None = None
        # Kept features are known by an expert's tensors, and word pieces are other ones for another tokenizer.
        self.register_buffer("tokenizer_hash", torch.zeros(16, dtype=torch.uint8))

    @classmethod
    def read_graphs(cls) -> Mapping[str, bytes]:
        require_extra("ocr", "the expert rapidocr")
        # Found, not imported: the package would import libraries that nothing here needs.
        spec = importlib.util.find_spec("rapidocr")
        folders = [Path(place) / "models" for place in (spec and spec.submodule_search_locations) or ()]
        return {name: read_bytes(folders[0] / file, MOST_BYTES, "ONNX graph") for name, file in FILES.items()}

    def use_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        words = repr(sorted(tokenizer.get_vocab().items())).encode()
        digest = hashlib.blake2b(words, digest_size=16).digest()
        with torch.no_grad():
            self.tokenizer_hash.copy_(torch.frombuffer(bytearray(digest), dtype=torch.uint8))

    def forward(self, pixels_B3HW: Sequence[Tensor] | Tensor) -> ExpertFeatures:
        count = len(pixels_B3HW)
        ids_BTP = torch.full((count, self.num_tokens, self.pieces), float(NO_PIECE))
        box_BT4, score_BT = torch.zeros(count, self.num_tokens, 4), torch.zeros(count, self.num_tokens)
        for row, pixels_3HW in enumerate(pixels_B3HW):
            for place, line in enumerate(self.lines_of(pixels_3HW)):
                ids = self._pieces(line.text)
                ids_BTP[row, place, : len(ids)] = torch.tensor(ids, dtype=torch.float32)
                box_BT4[row, place], score_BT[row, place] = torch.tensor(line.box), line.score
        middle_BT2, span_BT2 = (box_BT4[..., :2] + box_BT4[..., 2:]) / 2, box_BT4[..., 2:] - box_BT4[..., :2]
        tokens_BTC = torch.cat([ids_BTP, side_words(middle_BT2), span_BT2], -1)
        return ExpertFeatures(tokens_BTC, score_BT, middle_BT2).map(
            lambda part: part.to(pixels_B3HW[0].device) if count else part
        )

    def readings(self, pixels_B3HW: Sequence[Tensor] | Tensor) -> list[Reading]:
        found = [self.lines_of(pixels_3HW) for pixels_3HW in pixels_B3HW]
        return [
            Reading(
                "rapidocr",
                boxes=[line.box for line in lines],
                labels=[line.text for line in lines],
                scores=[line.score for line in lines],
            )
            for lines in found
        ]

    def lines_of(self, pixels_3HW: Tensor) -> list[Read]:
        """What is written in a picture."""
        pixels_3HW = pixels_3HW.detach().float().cpu()
        height, width = pixels_3HW.shape[1:]
        lines, scale = self._lines(pixels_3HW)
        lines = reading_order(lines[: self.num_tokens])
        texts = self._read([cut_out(pixels_3HW, line, scale, HEIGHT, LONGEST) for line in lines])
        share = np.array([width, height]) / scale
        return [
            Read(text, score, share_box(line, share))
            for line, (text, score) in zip(lines, texts, strict=True)
            if text and score >= self.threshold
        ]

    def _lines(self, pixels_3HW: Tensor) -> tuple[list[Line], float]:
        """Where lines of text are, the largest first, in cells of a map, and how many pixels a cell is wide."""
        height, width = pixels_3HW.shape[1:]
        longest = max(height, width)
        factor = min(2.0, max(1.0, ENLARGED / longest), self.side / longest)
        lines = find_lines(self._likely(resized(pixels_3HW, factor)))
        near = tiled_factor(width, height, self.side, self.tiles)
        if near is None:
            return lines, 1 / factor
        found = find_lines(put_together(resized(pixels_3HW, near), self.side, self._likely))
        # Letters that are as large as a tile are found in the whole picture, and tiles show parts of them.
        large = [line for line in (line.enlarged(near / factor) for line in lines) if line.half_height > self.side / 4]
        lines = large + [line for line in found if not any(one.holds(line.middle) for one in large)]
        return sorted(lines, key=lambda line: -line.half_height * line.half_length), 1 / near

    def _likely(self, pixels_3HW: Tensor) -> np.ndarray:
        """How likely there is text at each pixel (H, W)."""
        height, width = pixels_3HW.shape[1:]
        filled = F.pad(pixels_3HW[None], [0, -width % STEP, 0, -height % STEP], mode="constant", value=0.5)
        likely: np.ndarray = self.compute(DETECT, {"x": as_input(filled)})[0]
        return likely[0, 0, :height, :width]

    def _read(self, pictures: list[Tensor]) -> list[tuple[str, float]]:
        """Text and mean probability of its letters, per picture (3, HEIGHT, length) of a line."""
        found: list[tuple[str, float]] = [("", 0.0)] * len(pictures)
        order = sorted(range(len(pictures)), key=lambda index: pictures[index].shape[2])
        for first in range(0, len(order), AT_ONCE):
            part = order[first : first + AT_ONCE]
            length = max(PADDED, *(pictures[index].shape[2] for index in part))
            batch = torch.stack(
                [F.pad(pictures[index], [0, length - pictures[index].shape[2]], value=0.5) for index in part]
            )
            likely_LSK = self.compute(READ, {"x": as_input(batch)})[0]
            characters = self._characters(likely_LSK.shape[-1])
            for index, likely_SK in zip(part, likely_LSK, strict=True):
                found[index] = decode(likely_SK, characters)
        return found

    def _characters(self, count: int) -> list[str]:
        """The reader's characters; the first stands for none.

        Raises:
            AstreaError: the graph names other characters than it has.
        """
        said = self.session(READ).get_modelmeta().custom_metadata_map.get("character", "").split("\n")
        characters = ["", *said, " "]
        if len(characters) != count:
            raise AstreaError(
                f"the reader has {count:,} characters and names {len(said):,}", "use the graphs of the package rapidocr"
            )
        return characters

    def _pieces(self, text: str) -> list[int]:
        """The first word pieces of a line.

        Raises:
            AstreaError: nobody has given the language model's tokenizer.
        """
        if self.tokenizer is None:
            raise AstreaError("the expert rapidocr has no tokenizer", "call use_tokenizer with the language model's")
        return word_pieces(self.tokenizer, text)[: self.pieces]


def resized(pixels_3HW: Tensor, factor: float) -> Tensor:
    """A picture in another size."""
    size = [max(1, round(side * factor)) for side in pixels_3HW.shape[1:]]
    return F.interpolate(pixels_3HW[None], size, mode="bilinear", align_corners=False, antialias=True)[0]


def as_input(pixels_B3HW: Tensor) -> np.ndarray:
    """As these networks were trained: blue first, values -1..1."""
    values: np.ndarray = (pixels_B3HW.clamp(0, 1).flip(1) * 2 - 1).numpy().astype(np.float32)
    return values


def share_box(line: Line, size: np.ndarray) -> tuple[float, float, float, float]:
    """The upright box around a line, as shares of a picture of some size (width, height)."""
    corners = (line.corners() / size).clip(0, 1)
    (x0, y0), (x1, y1) = corners.min(0).tolist(), corners.max(0).tolist()
    return (x0, y0, x1, y1)


def decode(likely_SK: np.ndarray, characters: list[str]) -> tuple[str, float]:
    """The likeliest text, greedily (CTC: repeated characters count once, and the first one stands for none), and the
    mean probability of its letters."""
    best_S = likely_SK.argmax(-1)
    kept = best_S != 0
    kept[1:] &= best_S[1:] != best_S[:-1]
    letters = [characters[index] for index in best_S[kept]]
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in letters).split())[:MOST_LETTERS]
    scores = likely_SK.max(-1)[kept]
    return (text, float(scores.mean().clip(0, 1))) if text else ("", 0.0)
