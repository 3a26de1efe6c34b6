"""COCO (Karpathy split), NoCaps and Flickr30k captions: CIDEr-D, with BLEU and ROUGE-L beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from astrea.evaluation.benchmarks.files import Entry, read_object, unique
from astrea.evaluation.benchmarks.items import Item, Score
from astrea.evaluation.metrics.captions import bleu, cider_d, rouge_l
from astrea.evaluation.metrics.vqa import Mode

DESCRIBE = "Provide a one-sentence caption for the provided image."


def karpathy_test(root: Entry) -> Iterator[Entry]:
    """The pictures of the test split of a ``dataset_*.json``."""
    return (entry for entry in root.entries("images") if entry.text("split") == "test")


def karpathy_picture(entry: Entry, pictures: Path) -> Path:
    """COCO's entries name a folder beside ``pictures``; Flickr30k's name only the file."""
    folder = entry.text("filepath") if entry.has("filepath") else pictures.name
    return entry.picture(pictures.parent, f"{folder}/{entry.text('filename')}")


def karpathy_id(entry: Entry) -> int | str:
    """COCO's own id of the picture; for Flickr30k, the number that is the file's name."""
    if entry.has("cocoid"):
        return entry.id("cocoid")
    stem = entry.text("filename").rsplit(".", 1)[0]
    return int(stem) if stem.isdecimal() else stem


def read_karpathy(files: Sequence[Path], pictures: Path, limit: int | None) -> list[Item]:
    """Karpathy's ``dataset_coco.json`` or ``dataset_flickr30k.json``, test split."""
    entries = unique((karpathy_id(entry), entry) for entry in karpathy_test(read_object(files[0])))
    return [
        Item(id_, karpathy_picture(entry, pictures), "", DESCRIBE, entry.texts("sentences", "raw"))
        for id_, entry in list(entries.items())[:limit]
    ]


def read_nocaps(files: Sequence[Path], pictures: Path, limit: int | None) -> list[Item]:
    """NoCaps validation: COCO-style ``images`` (with their ``domain``) and ``annotations``."""
    root = read_object(files[0])
    images = unique((entry.id("id"), entry) for entry in root.entries("images"))
    captions: dict[int | str, list[str]] = {}
    for entry in root.entries("annotations"):
        captions.setdefault(entry.id("image_id"), []).append(entry.text("caption"))
    items = []
    for id_, entry in list(images.items())[:limit]:
        if id_ not in captions:
            raise entry.error(f"picture {id_!r} has no caption among the annotations")
        picture = entry.picture(pictures, entry.text("file_name"))
        items.append(Item(id_, picture, "", DESCRIBE, tuple(captions[id_]), entry.text("domain")))
    return items


def score_captions(items: Sequence[Item], predictions: Sequence[str], mode: Mode) -> Score:
    """CIDEr-D times 100. A domain is scored as a data set of its own, as published NoCaps figures are."""
    groups = list(dict.fromkeys(item.group for item in items if item.group))
    whole = _figures(items, predictions)
    if len(items) == 1:
        # The weight of a word is the logarithm of pictures / pictures with it: of one picture, 0.
        whole["note"] = "CIDEr weighs words by how few pictures have them: of one picture it is always 0"
    if not groups:
        return Score(whole["cider"], whole)
    parts = {}
    for group in groups:
        mine = [(item, p) for item, p in zip(items, predictions, strict=True) if item.group == group]
        parts[group] = _figures([item for item, _ in mine], [p for _, p in mine]) | {"n": len(mine)}
    return Score(whole["cider"], whole | {"groups": parts})


def _figures(items: Sequence[Item], predictions: Sequence[str]) -> dict[str, Any]:
    truths = [item.truth for item in items]
    blues = {f"bleu{n}": 100.0 * score.corpus for n, score in enumerate(bleu(predictions, truths), 1)}
    return {
        "cider": 100.0 * cider_d(predictions, truths).corpus,
        **blues,
        "rouge_l": 100.0 * rouge_l(predictions, truths).corpus,
    }


def submit_captions(items: Sequence[Item], predictions: Sequence[str], mode: Mode) -> list[dict[str, Any]]:
    """``[{image_id, caption}]``."""
    return [{"image_id": item.id, "caption": p} for item, p in zip(items, predictions, strict=True)]
