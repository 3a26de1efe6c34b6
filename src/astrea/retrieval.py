"""Finding pictures by text: embeddings choose a shortlist, the language model's likelihood orders it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from astrea.data.images import load_image, to_square_array
from astrea.data.world import join_features
from astrea.errors import AstreaError
from astrea.evaluation.answering import Answerer
from astrea.model import AstreaForConditionalGeneration
from astrea.processor import AstreaProcessor
from astrea.progress import Reporter

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
SHORTLIST = 32


@dataclass(frozen=True, slots=True)
class Hit:
    """One picture and how well it fits: mean log-likelihood per token of the text (nats; nearer 0 is better)."""

    path: Path
    score: float


@torch.inference_mode()
def rank_folder(
    model: AstreaForConditionalGeneration,
    processor: AstreaProcessor,
    folder: Path,
    text: str,
    *,
    top: int,
    report: Reporter,
    batch: int = 64,
) -> list[Hit]:
    """The ``top`` pictures of a folder for a text, best first. Unreadable pictures are told and left out.

    Raises:
        AstreaError: no such folder, no readable picture in it, or a text that is empty or too long.
    """
    if not text.strip():
        raise AstreaError("the text is empty", "say what the picture should show")
    if not folder.is_dir():
        raise AstreaError(f"{folder}: is not a folder", "give a folder of pictures")
    processor(text=text)  # refuses a text that is too long, or that asks for pictures of its own
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    answerer = Answerer(model, processor.tokenizer)
    kept: list[Path] = []
    parts, arrays = [], []
    for number, path in enumerate(paths, 1):
        try:
            arrays.append(to_square_array(load_image(path), model.config.image_size))
            kept.append(path)
        except AstreaError as error:
            report.say(f"left out: {error.message}")
        if arrays and (len(arrays) == batch or number == len(paths)):
            pixels = torch.stack([torch.from_numpy(a) for a in arrays]).permute(0, 3, 1, 2).float() / 255
            parts.append(model.see(pixels))
            arrays.clear()
        report.track("looking", number, len(paths))
    if not kept:
        raise AstreaError(f"{folder}: holds no readable picture", f"looked for {', '.join(SUFFIXES)}")
    features = join_features(parts)
    pictures, words = answerer.embed(features, [text])
    short = (pictures @ words.T).flatten().topk(min(max(SHORTLIST, top), len(kept))).indices
    chosen = {name: f.rows(short) for name, f in features.items()}
    likelihood = torch.cat(answerer.likelihood(chosen, [[0]] * len(short), [text]))
    per_token = likelihood / (len(answerer.packer.ids(text)) + 1)
    order = per_token.argsort(descending=True)[:top]
    return [Hit(kept[int(short[i])], float(per_token[i])) for i in order]
