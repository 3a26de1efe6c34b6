from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.data.images import load_image, to_square_array
from astrea.data.packing import CAPTION_PROMPT
from astrea.evaluation.generate import Predictor
from astrea.retrieval import folder as folder_search
from astrea.retrieval import rank_folder
from astrea.world.scenes.draw import split_scene

TEXT = "a red sun and a blue cow."
COUNT = 6


class Said(Reporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scenes, one of them in a folder below and one with a capital ending, beside what is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "below").mkdir()
    names = ["a.png", "b.png", "c.bmp", "d.PNG", "e.webp", "below/f.png"]
    for index, name in enumerate(names):
        picture = Image.fromarray(split_scene("test", index, 0).image)
        picture.save(folder / name, lossless=True)
    (folder / "notes.txt").write_text("red sun")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "z-last.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    (folder / "folder.png").mkdir()
    return folder


@pytest.fixture(scope="module")
def rank(tiny_model, tiny_processor, folder):
    def rank(text: str = TEXT, where: Path = folder, *, top: int = COUNT, report: Reporter | None = None, **options):
        return rank_folder(tiny_model, tiny_processor, where, text, top=top, report=report or Reporter(), **options)

    return rank


@pytest.fixture(scope="module")
def hits(rank):
    return rank()


def test_every_readable_picture_is_ranked_best_first(hits, folder):
    assert {hit.path.name for hit in hits} == {"a.png", "b.png", "c.bmp", "d.PNG", "e.webp", "f.png"}
    assert all(hit.path.is_file() for hit in hits)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == COUNT
    assert max(scores) < 0


def test_unreadable_pictures_are_told(rank):
    said = Said()
    rank(report=said)
    assert len(said.lines) == 2
    assert "empty.jpg" in said.lines[0]
    assert "z-last.png" in said.lines[1]
    assert all(line.startswith("left out: image ") for line in said.lines)


def test_top_and_batch_size_do_not_change_the_order(rank, hits):
    assert [hit.path for hit in rank(top=2)] == [hit.path for hit in hits[:2]]
    small = rank(batch=2)
    assert [hit.path for hit in small] == [hit.path for hit in hits]
    assert [hit.score for hit in small] == pytest.approx([hit.score for hit in hits], abs=1e-4)
    assert len(rank(top=100)) == COUNT


def test_the_score_is_the_mean_log_likelihood_of_the_text(hits, tiny_model, tiny_processor):
    for hit in hits[:2]:
        messages = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": CAPTION_PROMPT}]},
            {"role": "assistant", "content": [{"type": "text", "text": TEXT}]},
        ]
        text = tiny_processor.apply_chat_template(messages, tokenize=False)
        inputs = dict(tiny_processor(images=[hit.path], text=text))
        ids = inputs["input_ids"]
        length = len(tiny_processor.tokenizer(TEXT, add_special_tokens=False).input_ids) + 1
        end = (ids[0] == tiny_processor.tokenizer.eos_token_id).nonzero().max() + 1
        labels = torch.full_like(ids, -100)
        labels[:, end - length : end] = ids[:, end - length : end]
        inputs["question_mask"] &= labels == -100
        with torch.no_grad():
            assert hit.score == pytest.approx(-float(tiny_model(**inputs, labels=labels).loss), abs=2e-3)


def test_the_embeddings_choose_who_is_ranked(rank, hits, tiny_model, tiny_processor, monkeypatch):
    monkeypatch.setattr(folder_search, "SHORTLIST", 2)
    arrays = [to_square_array(load_image(hit.path), 64) for hit in hits]
    pixels = torch.stack([torch.from_numpy(a) for a in arrays]).permute(0, 3, 1, 2).float() / 255
    pictures, words = Predictor(tiny_model, tiny_processor.tokenizer).embed(tiny_model.encode_images(pixels), [TEXT])
    nearest = (pictures @ words.T).flatten().topk(2).indices.tolist()
    assert [hit.path for hit in rank(top=1)] == [hits[min(nearest)].path]
    # Whoever asks for more than the shortlist gets them.
    assert [hit.path for hit in rank(top=COUNT)] == [hit.path for hit in hits]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the text is empty"),
        (" \n", "the text is empty"),
        ("a" * 100_000, "100,000 characters"),
        ("a red sun " * 1_500, "the limit is 1024"),
        ("a <image>", "<image>"),
    ],
)
def test_bad_texts(rank, text, said):
    with pytest.raises(AstreaError, match=said) as caught:
        rank(text)
    assert caught.value.hint


def test_bad_folders(rank, tmp_path):
    with pytest.raises(AstreaError, match="is not a folder"):
        rank(where=tmp_path / "none")
    (tmp_path / "a.png").write_bytes(b"")
    said = Said()
    with pytest.raises(AstreaError, match="holds no readable picture"):
        rank(where=tmp_path, report=said)
    assert len(said.lines) == 1
