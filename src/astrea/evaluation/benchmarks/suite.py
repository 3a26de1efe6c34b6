"""The twelve public tasks as data: the files they want, and who reads, scores and writes them.

Nothing is downloaded. Official files are put, under the names they have, into one folder; `docs/public-tasks.md` shows
the whole layout, and `missing.py` says what is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.evaluation.benchmarks import captions, gqa, pope, retrieval, scienceqa, vqa
from astrea.evaluation.benchmarks.items import Item, Pool, Score
from astrea.evaluation.metrics.vqa import Mode

SHORT, SENTENCE = 16, 64
"""The most tokens of a short answer and of a caption."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file or a folder of pictures.

    Attributes:
        paths: where it belongs, from the data folder; any one of them will do.
        official: what it is called where it is published.
    """

    paths: tuple[str, ...]
    official: str


@dataclass(frozen=True, slots=True)
class PublicTask:
    """What all tasks have.

    Attributes:
        name: as in ``--tasks``. title: as people call it. metric: what its figure is.
        count: how many items the official split has; a run on fewer does not compare.
        files, pictures: what it reads.
    """

    name: str
    title: str
    metric: str
    count: int
    files: tuple[Wanted, ...]
    pictures: Wanted


@dataclass(frozen=True, slots=True)
class AnswerTask(PublicTask):
    """A task whose items are answered with words.

    Attributes:
        read: (files, pictures folder, limit) -> items.
        score: (items, predictions, mode) -> score.
        submit: (items, predictions, mode) -> what the server wants; a dict of lists becomes JSONL files.
        longest: the most tokens of an answer.
    """

    read: Callable[[Sequence[Path], Path, int | None], list[Item]]
    score: Callable[[Sequence[Item], Sequence[str], Mode], Score]
    submit: Callable[[Sequence[Item], Sequence[str], Mode], Any]
    longest: int = SHORT


@dataclass(frozen=True, slots=True)
class RetrievalTask(PublicTask):
    """A task of ranking pictures and captions for each other.

    Attributes:
        read: (files, pictures folder, limit) -> pool.
    """

    read: Callable[[Sequence[Path], Path, int | None], Pool]


def _file(folder: str, *names: str, source: str) -> Wanted:
    return Wanted(tuple(f"{folder}/{name}" for name in names), source)


_VAL2014 = Wanted(("coco/val2014",), "val2014.zip of COCO (cocodataset.org)")
_FLICKR = Wanted(("flickr30k/flickr30k-images",), "flickr30k-images of Flickr30k")
_KARPATHY = "caption_datasets.zip, the Karpathy splits"
_ALBEF = "the retrieval lists published with ALBEF and BLIP"

TASKS: tuple[AnswerTask | RetrievalTask, ...] = (
    AnswerTask(
        "vqav2",
        "VQAv2 val",
        "vqa_accuracy",
        214354,
        (
            _file("vqav2", "v2_OpenEnded_mscoco_val2014_questions.json", source="v2_Questions_Val_mscoco.zip"),
            _file("vqav2", "v2_mscoco_val2014_annotations.json", source="v2_Annotations_Val_mscoco.zip"),
        ),
        _VAL2014,
        vqa.read_vqa,
        vqa.score_vqa,
        vqa.submit_vqa,
    ),
    AnswerTask(
        "gqa",
        "GQA testdev balanced",
        "accuracy",
        12578,
        (_file("gqa", "testdev_balanced_questions.json", source="questions1.2.zip of GQA"),),
        Wanted(("gqa/images",), "images.zip of GQA"),
        gqa.read_gqa,
        gqa.score_gqa,
        gqa.submit_gqa,
    ),
    AnswerTask(
        "okvqa",
        "OK-VQA val",
        "vqa_accuracy",
        5046,
        (
            _file("okvqa", "OpenEnded_mscoco_val2014_questions.json", source="OK-VQA v1.1 testing questions"),
            _file("okvqa", "mscoco_val2014_annotations.json", source="OK-VQA v1.1 testing annotations"),
        ),
        _VAL2014,
        vqa.read_vqa,
        vqa.score_vqa,
        vqa.submit_vqa,
    ),
    AnswerTask(
        "textvqa",
        "TextVQA val",
        "vqa_accuracy",
        5000,
        (_file("textvqa", "TextVQA_0.5.1_val.json", source="TextVQA v0.5.1 (textvqa.org)"),),
        Wanted(("textvqa/train_images",), "train_val_images.zip of TextVQA"),
        vqa.read_textvqa,
        vqa.score_textvqa,
        vqa.submit_vqa,
    ),
    AnswerTask(
        "vizwiz",
        "VizWiz val",
        "vqa_accuracy",
        4319,
        (_file("vizwiz", "val.json", source="Annotations.zip of VizWiz-VQA"),),
        Wanted(("vizwiz/val",), "val.zip of VizWiz-VQA"),
        vqa.read_vizwiz,
        vqa.score_vizwiz,
        vqa.submit_vizwiz,
    ),
    AnswerTask(
        "scienceqa",
        "ScienceQA-IMG test",
        "accuracy",
        2017,
        (
            _file("scienceqa", "problems.json", source="data/scienceqa of the ScienceQA repository"),
            _file("scienceqa", "pid_splits.json", source="data/scienceqa of the ScienceQA repository"),
        ),
        Wanted(("scienceqa/images/test",), "test.zip of ScienceQA"),
        scienceqa.read_scienceqa,
        scienceqa.score_scienceqa,
        scienceqa.submit_scienceqa,
    ),
    AnswerTask(
        "pope",
        "POPE",
        "mean_f1",
        9000,
        tuple(
            _file("pope", f"coco_pope_{subset}.json", source="output/coco of the POPE repository")
            for subset in pope.SUBSETS
        ),
        _VAL2014,
        pope.read_pope,
        pope.score_pope,
        pope.submit_pope,
    ),
    AnswerTask(
        "coco_caption",
        "COCO captions, Karpathy test",
        "cider",
        5000,
        (_file("coco", "dataset_coco.json", source=_KARPATHY),),
        _VAL2014,
        captions.read_karpathy,
        captions.score_captions,
        captions.submit_captions,
        SENTENCE,
    ),
    AnswerTask(
        "nocaps",
        "NoCaps val",
        "cider",
        4500,
        (_file("nocaps", "nocaps_val_4500_captions.json", source="NoCaps validation set (nocaps.org)"),),
        Wanted(("nocaps/images",), "the validation pictures that the NoCaps file lists (Open Images)"),
        captions.read_nocaps,
        captions.score_captions,
        captions.submit_captions,
        SENTENCE,
    ),
    AnswerTask(
        "flickr30k_caption",
        "Flickr30k captions, Karpathy test",
        "cider",
        1000,
        (_file("flickr30k", "dataset_flickr30k.json", source=_KARPATHY),),
        _FLICKR,
        captions.read_karpathy,
        captions.score_captions,
        captions.submit_captions,
        SENTENCE,
    ),
    RetrievalTask(
        "coco_retrieval",
        "COCO 5K retrieval",
        "mean_recall@1",
        5000,
        (_file("coco", "coco_karpathy_test.json", "dataset_coco.json", source=f"{_ALBEF}, or {_KARPATHY}"),),
        _VAL2014,
        retrieval.read_pool,
    ),
    RetrievalTask(
        "flickr30k_retrieval",
        "Flickr30k 1K retrieval",
        "mean_recall@1",
        1000,
        (_file("flickr30k", "flickr30k_test.json", "dataset_flickr30k.json", source=f"{_ALBEF}, or {_KARPATHY}"),),
        _FLICKR,
        retrieval.read_pool,
    ),
)

SERVER_TASKS: tuple[AnswerTask, ...] = (
    AnswerTask(
        "vqav2_testdev",
        "VQAv2 test-dev",
        "none",
        107394,
        (_file("vqav2", "v2_OpenEnded_mscoco_test-dev2015_questions.json", source="v2_Questions_Test_mscoco.zip"),),
        Wanted(("coco/test2015",), "test2015.zip of COCO (cocodataset.org)"),
        vqa.read_vqa,
        vqa.score_vqa,
        vqa.submit_vqa,
    ),
    AnswerTask(
        "textvqa_test",
        "TextVQA test",
        "none",
        5734,
        (_file("textvqa", "TextVQA_0.5.1_test.json", source="TextVQA v0.5.1 (textvqa.org)"),),
        Wanted(("textvqa/test_images",), "test_images.zip of TextVQA"),
        vqa.read_textvqa,
        vqa.score_textvqa,
        vqa.submit_vqa,
    ),
    AnswerTask(
        "vizwiz_test",
        "VizWiz test",
        "none",
        8000,
        (_file("vizwiz", "test.json", source="Annotations.zip of VizWiz-VQA"),),
        Wanted(("vizwiz/test",), "test.zip of VizWiz-VQA"),
        vqa.read_vizwiz,
        vqa.score_vizwiz,
        vqa.submit_vizwiz,
    ),
)
"""Splits whose answers are not public: run only when named, for their submission files."""


def choose_tasks(names: str) -> tuple[AnswerTask | RetrievalTask, ...]:
    """The tasks of a comma-separated list, or "all" of the twelve.

    Raises:
        AstreaError: an unknown name.
    """
    if names == "all":
        return TASKS
    known = {task.name: task for task in (*TASKS, *SERVER_TASKS)}
    wanted = dict.fromkeys(name.strip() for name in names.split(","))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise AstreaError(f"unknown public task {unknown[0]!r}", f"known tasks: {', '.join(known)}")
    return tuple(known[name] for name in wanted)
