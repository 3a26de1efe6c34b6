"""Finding pictures by text without an index: every picture is embedded now."""

from __future__ import annotations

from pathlib import Path

import torch

from astrea.common.errors import AstreaError
from astrea.common.progress import SILENT, Reporter
from astrea.common.terminal import counted
from astrea.data.suffixes import READ
from astrea.evaluation.generate import Predictor
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor
from astrea.retrieval.pictures import encode_files, find_pictures
from astrea.retrieval.rerank import SHORTLIST, Hit, check_text, per_token_likelihood

MANY = 500
"""From this number of pictures on, a search without an index recommends `astrea index`."""


@torch.inference_mode()
def rank_folder(
    model: AstreaForConditionalGeneration,
    processor: AstreaProcessor,
    folder: Path,
    text: str,
    *,
    top: int,
    report: Reporter = SILENT,
    batch: int = 64,
    shortlist: int | None = None,
) -> list[Hit]:
    """The ``top`` pictures of a folder for a text, best first. Unreadable pictures are reported and left out.

    Embeddings choose a shortlist (`SHORTLIST`, or ``top`` if that is more), the language model's likelihood orders it.

    Args:
        shortlist: how many pictures the language model orders; 0 = none, the cosine of the embeddings decides.

    Raises:
        AstreaError: no such folder, no readable picture in it, or a text that is empty or too long.
    """
    shortlist = SHORTLIST if shortlist is None else shortlist
    check_text(processor, text)
    paths = find_pictures(folder, lambda path, error: report.say(f"left out: {error.message}"))
    if len(paths) >= MANY:
        report.say(
            f"{counted(len(paths), 'picture')}: `astrea index` embeds each once, and searching then takes a moment"
        )
    predictor = Predictor(model, processor.tokenizer)
    readable, features = encode_files(
        model,
        paths,
        unreadable=lambda path, error: report.say(f"left out: {error.message}"),
        looked=lambda done: report.track("looking", done, len(paths)),
        batch=batch,
    )
    if not readable:
        raise AstreaError(f"{folder}: holds no readable picture", f"looked for {', '.join(READ)}")
    kept = [paths[number] for number in readable]
    pictures, words = predictor.embed(features, [text])
    best = (pictures @ words.T).flatten().topk(min(max(shortlist, top), len(kept)))
    if not shortlist:
        return [Hit(kept[int(i)], float(s)) for i, s in zip(best.indices, best.values, strict=True)]
    per_token = per_token_likelihood(predictor, {name: f.rows(best.indices) for name, f in features.items()}, text)
    order = per_token.argsort(descending=True)[:top]
    return [Hit(kept[int(best.indices[i])], float(per_token[i])) for i in order]
