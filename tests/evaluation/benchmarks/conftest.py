"""A miniature data folder: all twelve tasks' official files with a few entries each, and pictures drawn for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

VAL2014 = [42, 73, 74, 133]
FLICKR = ["1007129816.jpg", "1009434119.jpg", "101362133.jpg"]
SAID = ["a red cat and a blue sun", "a green dog under a star", "two yellow umbrellas", "a snowman near a heart"]


def save(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def save_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((64, 48)).save(path)


def coco_name(image_id: int, split: str = "val2014") -> str:
    return f"COCO_{split}_{image_id:012d}.jpg"


def answers(*words: str) -> list[dict[str, Any]]:
    """Ten annotators' answers, the words in turn."""
    return [
        {"answer": words[n % len(words)], "answer_confidence": "yes", "answer_id": n + 1, "raw_answer": "x"}
        for n in range(10)
    ]


def write_vqa(data: Path) -> None:
    asked = [
        (42, 420, "is there a cat?", "yes/no", answers("yes")),
        (42, 421, "how many suns are there?", "number", answers("two", "2", "3")),
        (73, 730, "what colour is the sun?", "other", answers("red", "a red")),
    ]
    for folder, questions, told_in in (
        ("vqav2", "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"),
        ("okvqa", "OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json"),
    ):
        rows = [{"image_id": i, "question": q, "question_id": id_} for i, id_, q, _, _ in asked]
        save(data / folder / questions, {"questions": rows})
        told = [
            {"question_id": id_, "image_id": i, "answer_type": kind, "question_type": "what", "answers": given}
            for i, id_, _, kind, given in asked
        ]
        save(data / folder / told_in, {"annotations": told})
    hidden = [{"image_id": 1, "question": "what is it?", "question_id": 10}]
    save(data / "vqav2" / "v2_OpenEnded_mscoco_test-dev2015_questions.json", {"questions": hidden})
    draw(data / "coco/test2015" / coco_name(1, "test2015"), 1)


def write_gqa(data: Path) -> None:
    rows = {
        "201307251": {"question": "Is it red?", "imageId": "n1", "answer": "yes", "types": {"structural": "verify"}},
        "201640614": {"question": "Who is it?", "imageId": "n1", "answer": "boy", "types": {"structural": "query"}},
        "202225914": {"question": "What is it?", "imageId": "n2", "answer": "cat", "types": {"structural": "query"}},
    }
    save(data / "gqa/testdev_balanced_questions.json", rows)
    for number in (1, 2):
        draw(data / f"gqa/images/n{number}.jpg", 10 + number)


def write_textvqa(data: Path) -> None:
    rows = [
        {"question_id": 34602 + n, "question": "what does it say?", "image_id": f"00{n}a", "answers": ["stop"] * 10}
        for n in range(2)
    ]
    save(data / "textvqa/TextVQA_0.5.1_val.json", {"data": rows, "dataset_type": "val"})
    for n in range(2):
        draw(data / f"textvqa/train_images/00{n}a.jpg", 20 + n)


def write_vizwiz(data: Path) -> None:
    rows = [
        {"answer_type": "other", "answerable": 1, "answers": answers("a can", "can")},
        {"answer_type": "unanswerable", "answerable": 0, "answers": answers("unanswerable")},
    ]
    for n, row in enumerate(rows):
        row |= {"image": f"VizWiz_val_{n:08d}.jpg", "question": "What is this?"}
        draw(data / "vizwiz/val" / row["image"], 30 + n)
    save(data / "vizwiz/val.json", rows)


def write_scienceqa(data: Path) -> None:
    problem = {"choices": ["a cat", "a sun", "a star"], "answer": 1, "hint": "", "image": "image.png"}
    problems = {
        "5": problem | {"question": "Which one shines?", "subject": "natural science"},
        "6": problem | {"question": "Which one is warm?", "hint": "Look up.", "subject": "social science"},
        "7": problem | {"question": "Without a picture?", "image": None},
        "8": problem | {"question": "Of another split?"},
    }
    save(data / "scienceqa/problems.json", problems)
    save(data / "scienceqa/pid_splits.json", {"train": ["8"], "test": ["5", "6", "7"]})
    for pid in "56":
        draw(data / f"scienceqa/images/test/{pid}/image.png", 40 + int(pid))


def write_pope(data: Path) -> None:
    for subset in ("random", "popular", "adversarial"):
        rows = [
            {
                "question_id": n + 1,
                "image": coco_name(VAL2014[n]),
                "text": f"Is there a {what} in the image?",
                "label": label,
            }
            for n, (what, label) in enumerate((("cat", "yes"), ("dog", "no"), ("sun", "yes")))
        ]
        save_lines(data / f"pope/coco_pope_{subset}.json", rows)


def write_captions(data: Path) -> None:
    def sentences(n: int) -> list[dict[str, str]]:
        return [{"raw": SAID[n]}, {"raw": f"{SAID[n]} in a picture."}]

    coco = [
        {"filepath": "val2014", "filename": coco_name(i), "cocoid": i, "split": "test", "sentences": sentences(n)}
        for n, i in enumerate(VAL2014)
    ]
    coco.append(coco[0] | {"split": "train", "filepath": "train2014", "cocoid": 9})
    save(data / "coco/dataset_coco.json", {"images": coco, "dataset": "coco"})
    flickr = [
        {"filename": name, "imgid": n, "split": "test", "sentences": sentences(n)} for n, name in enumerate(FLICKR)
    ]
    save(data / "flickr30k/dataset_flickr30k.json", {"images": flickr, "dataset": "flickr30k"})
    listed = [
        {"image": f"flickr30k-images/{name}", "caption": [SAID[n], SAID[n] + "."]} for n, name in enumerate(FLICKR)
    ]
    save(data / "flickr30k/flickr30k_test.json", listed)
    domains = ["in-domain", "near-domain", "near-domain", "out-domain"]
    images = [{"id": n, "file_name": f"{n:04x}.jpg", "domain": domain} for n, domain in enumerate(domains)]
    told = [{"image_id": n % 4, "id": n, "caption": SAID[n % 4] + "." * (n // 4)} for n in range(8)]
    save(data / "nocaps/nocaps_val_4500_captions.json", {"images": images, "annotations": told})
    for n, image in enumerate(images):
        draw(data / "nocaps/images" / image["file_name"], 50 + n)
    for n, i in enumerate(VAL2014):
        draw(data / "coco/val2014" / coco_name(i), 60 + n)
    for n, name in enumerate(FLICKR):
        draw(data / "flickr30k/flickr30k-images" / name, 70 + n)


@pytest.fixture(scope="session")
def whole_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All twelve tasks. Tests must not change it; `data` is a copy to spoil."""
    data = tmp_path_factory.mktemp("public")
    for write in (write_vqa, write_gqa, write_textvqa, write_vizwiz, write_scienceqa, write_pope, write_captions):
        write(data)
    return data


@pytest.fixture
def data(whole_data: Path, tmp_path: Path) -> Path:
    """A copy of the miniature folder that may be changed."""
    return Path(shutil.copytree(whole_data, tmp_path / "data"))
