"""Training data of one's own: what batches are made of, how rows are filled, and what the experts encode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from further_rows import CAPTIONS, SCENES, TEXT
from PIL import Image

from astrea.data.feature_cache import FeatureCache
from astrea.data.packing import CAPTION_PROMPT, Packer
from astrea.data.picture_features import PictureFeatures
from astrea.data.streaming import filled_rows
from astrea.model.processing import AstreaImageProcessor
from astrea.training.context import TrainingContext
from astrea.training.distributed import Distributed
from astrea.training.stages.align import AlignObjective
from astrea.training.stages.batch import InstructBatch
from own_contexts import data_of, fusing, learned, only_learning


def said_of(ctx: TrainingContext, batch: InstructBatch, row: int) -> str:
    real = batch.packed.attention_mask[row].bool()
    ids = [i for i in batch.packed.input_ids[row][real].tolist() if i != ctx.packer.image]
    return str(ctx.tokenizer.decode(ids))


# What a batch holds


def test_rows_are_the_records_with_their_pictures_in_reading_order(make_own):
    ctx = make_own("mixed.jsonl")
    batch = fusing(ctx).batch(0, 0, 24)
    samples = batch.samples
    records = [sample.record for sample in samples.content]
    assert {len(record.images) for record in records} == {0, 1, 2}
    counts = [len(record.images) for record in records]
    assert samples.pictures == sum(counts) == len(batch.shown)
    assert batch.shown.tolist() == list(range(samples.pictures))
    assert batch.row.tolist() == [row for row, count in enumerate(counts) for _ in range(count)]
    places = torch.tensor(counts).cumsum(0) - torch.tensor(counts)
    assert samples.first.tolist() == [int(at) if count else -1 for at, count in zip(places, counts, strict=True)]
    for row, record in enumerate(records):
        answers = [message.text for message in record.messages if message.role == "assistant"]
        assert batch.groups[row].tolist()[: len(answers)] == [0 if record.images else -1] * len(answers)
        assert batch.groups[row].tolist()[len(answers) :] == [-1] * (batch.groups.shape[1] - len(answers))
        images = (batch.packed.input_ids[row] == ctx.packer.image).sum()
        assert images == len(record.images) * ctx.model.num_visual_tokens
        learned_ids = batch.packed.labels[row][batch.packed.labels[row] != -100].tolist()
        assert learned_ids == [i for answer in answers for i in (*ctx.packer.ids(answer), ctx.packer.format.stop_id)]
        assert all(message.text.replace("<image>", "").strip().split()[0] in said_of(ctx, batch, row)
                   for message in record.messages)  # fmt: skip
        assert samples.names[row] == f"{record.source} {record.id}"
        assert samples.texts[row] == [" ".join(answers)]


def test_the_experts_see_the_pictures_that_the_records_name(make_own):
    ctx = make_own("mixed.jsonl")
    samples = ctx.data.draw(5, 20, 0)
    features = samples.encode()
    paths = [sample.root.real / image.path for sample in samples.content for image in sample.record.images]
    pixels = AstreaImageProcessor(64)([Image.open(path) for path in paths])["pixel_values"]
    for name, part in ctx.model.encode_images(pixels).items():
        torch.testing.assert_close(features[name].tokens, part.tokens, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(features[name].confidence, part.confidence, atol=1e-5, rtol=1e-4)


def test_the_same_picture_has_one_id_and_texts_without_one_differ(make_own):
    ctx = make_own("mixed.jsonl")
    samples = ctx.data.draw(0, len(ctx.data), 0)
    by_picture: dict[str, set[int]] = {}
    for sample, number in zip(samples.content, samples.ids.tolist(), strict=True):
        images = sample.record.images
        by_picture.setdefault(images[0].path if images else str(sample.record.source), set()).add(number)
    assert all(len(numbers) == 1 for numbers in by_picture.values())
    assert len(set(samples.ids.tolist())) == len(by_picture) == SCENES + SCENES
    assert samples.ids.min() >= 0


def test_alignment_reads_the_first_picture_of_those_that_have_any(make_own):
    ctx = make_own("mixed.jsonl", "text.jsonl")
    samples = ctx.data.draw(0, 3 * len(ctx.data.pairs), 0, pairs=True)
    assert samples.pictures == len(samples.names)
    assert samples.first.tolist() == list(range(samples.pictures))
    assert not [sample for sample in samples.content if not sample.record.images]
    assert len(ctx.data.pictured) == 1  # a file without any picture is not asked for one
    assert ctx.data.report.lines == []  # nor is its lack an issue
    reached = learned(ctx, AlignObjective(ctx, joining="detection", aligned=["captioning"], offset=0))
    assert {name.split(".")[0] for name in reached} == {"adapters", "picture_head", "text_head", "contrast", "words"}


def test_a_record_of_captions_alone_is_asked_to_describe_and_each_is_read_sometimes(make_own):
    ctx = make_own("captions.jsonl")
    objective = fusing(ctx)
    told = set()
    for step in range(3):
        batch = objective.batch(step, 0, SCENES)
        for row in range(SCENES):
            words = said_of(ctx, batch, row)
            assert CAPTION_PROMPT.rstrip(".") in words
            told.add(words.split("picture")[1])
            answer = batch.packed.labels[row][batch.packed.labels[row] != -100].tolist()[:-1]
            assert (
                answer
                == batch.captions.tokens[row]
                == ctx.packer.ids(CAPTIONS[0]["caption"][int(batch.captions.which[row])])
            )
    assert len(told) == 2


def test_an_epoch_holds_every_record_once_and_the_order_is_a_function_of_the_seed(make_own):
    ctx = make_own("mixed.jsonl", "text.jsonl")
    size = len(ctx.data)
    whole = list(ctx.data.draw(0, size, 3).names)
    assert len(set(whole)) == size == 6 * SCENES + len(TEXT)
    assert [name for at in (0, 40, 20, 60) for name in ctx.data.draw(at, 20, 3).names] == [
        name for at in (0, 40, 20, 60) for name in (whole + list(ctx.data.draw(size, 20, 3).names))[at : at + 20]
    ]
    assert list(ctx.data.draw(0, size, 4).names) != whole
    assert ctx.data.groups == ("mixed.jsonl", "text.jsonl")


def test_lies_are_judged_on_whole_rounds_of_the_batchs_own_pictures(make_own):
    ctx = make_own("mixed.jsonl", "text.jsonl")
    samples = ctx.data.draw(0, 12, 0)
    pictures = samples.pictures
    same, index = ctx.data.more_pictures(samples, 96, None)
    assert same is samples
    assert len(index) % pictures == 0
    assert 96 - pictures < len(index) <= 96
    assert all(index[i] != index[(i + 1) % len(index)] for i in range(len(index)))
    assert len(ctx.data.more_pictures(samples, 3, None)[1]) == pictures
    one = ctx.data.draw(next(p for p in range(99) if ctx.data.draw(p, 1, 0).pictures == 1), 1, 0)
    assert len(ctx.data.more_pictures(one, 96, None)[1]) == 0  # there would be no telling a lie


# Several conversations in a row


def test_shared_rows_hold_the_same_and_teach_the_same(make_own):
    changes = {"regularisation": {"contribution_every": 1, "expert_dropout": 0, "corruption": 0}}
    apart, shared = (make_own("mixed.jsonl", row_tokens=n, **changes) for n in (None, 260))
    losses = []
    for ctx in (apart, shared):
        ctx.model.load_state_dict(apart.model.state_dict())
        ctx.model.eval()
        objective = fusing(ctx, "tune")
        batch = objective.batch(0, 0, 16)
        features = ctx.encode(batch.samples)
        part = {name: one.rows(batch.shown) for name, one in features.items()}
        with torch.no_grad():
            found = ctx.model(**batch.packed.model_inputs(), features=part, use_cache=False)
        losses.append((batch, float(found.loss)))
        only_learning(ctx, objective)
        ctx.model.train()
        assert objective.loss(batch, 0)[0].isfinite()
    (one, alone), (two, together) = losses
    assert len(two.groups) < len(one.groups) == 16
    assert two.packed.attention_mask.sum(1).max() <= 260
    assert two.packed.attention_mask.sum() == one.packed.attention_mask.sum()
    assert (
        two.packed.labels[two.packed.labels != -100].tolist() == one.packed.labels[one.packed.labels != -100].tolist()
    )
    assert two.shown.tolist() == one.shown.tolist()
    assert sorted(two.groups[two.groups >= 0].tolist()) == sorted(one.groups[one.groups >= 0].tolist())
    assert together == pytest.approx(alone, rel=1e-5)


def test_texts_may_be_said_otherwise(folder, built):
    _, model, tokenizer = built()
    packer = Packer(tokenizer, model.num_visual_tokens)
    data = data_of([folder / "mixed.jsonl"], model, tokenizer)
    samples, which = data.draw(0, 4, 0), torch.zeros(4, dtype=torch.long)
    ways = [None, lambda text: text.replace("?", "? cat"), None, None]
    plain, said = (
        data.pack(packer, samples, which, per_question=False, reworded=reworded) for reworded in (None, ways)
    )
    lengths = [rows.packed.attention_mask.sum(1) for rows in (plain, said)]
    assert ((lengths[1] > lengths[0]) == torch.tensor([False, True, False, False])).all()


def test_rows_are_filled_in_order_and_one_that_is_too_long_has_its_own():
    class Piece:
        def __init__(self, length: int) -> None:
            self.ids = [0] * length

    pieces = [(Piece(length), 0, []) for length in (3, 4, 2, 9, 1, 1)]
    assert [[len(one.ids) for one, _, _ in row] for row in filled_rows(pieces, 7)] == [[3, 4], [2], [9], [1, 1]]
    assert filled_rows([], 5) == []


def test_every_process_has_a_row_and_the_others_stay_the_same(folder, built):
    """Where the rows are fewer than the processes, the rest get one that teaches nothing."""
    _, model, tokenizer = built()
    packer, found = Packer(tokenizer, model.num_visual_tokens), []
    for world in (1, 4):
        data = data_of([folder / "mixed.jsonl"], model, tokenizer, row_tokens=10_000, ranks=Distributed(0, world))
        samples = data.draw(0, 4, 0)
        found.append(data.pack(packer, samples, torch.zeros(4, dtype=torch.long), per_question=False))
    one, four = found
    assert (len(one.groups), len(four.groups)) == (1, 4)
    for name in ("input_ids", "segments", "labels", "label_weights", "questions"):
        assert torch.equal(getattr(one.packed, name)[0], getattr(four.packed, name)[0])
    assert four.packed.labels[1:].eq(-100).all()
    assert four.packed.attention_mask[1:].sum(1).tolist() == [1, 1, 1]
    assert four.groups[1:].eq(-1).all()
    assert four.row.tolist() == one.row.tolist()
    out = model(**{name: value[1:] for name, value in four.packed.model_inputs().items()}, num_items_in_batch=5.0)
    assert float(out.loss.detach()) == 0
    assert out.loss.requires_grad


# What experts look at


def test_experts_look_at_each_picture_once(folder, built, tmp_path, monkeypatch):
    run, model, tokenizer = built()
    looks: dict[str, int] = dict.fromkeys(model.experts.names, 0)
    for name in looks:
        expert, forward = model.experts[name], model.experts[name].forward

        def count(pixels, name=name, forward=forward):
            looks[name] += len(pixels)
            return forward(pixels)

        monkeypatch.setattr(expert, "forward", count)

    def seen() -> list[Any]:
        kept = PictureFeatures(FeatureCache(tmp_path, 10**8), pytest.fail)
        data = data_of([folder / "mixed.jsonl"], model, tokenizer, kept=kept)
        ctx = TrainingContext(run, model, tokenizer, data)
        size = len(data)
        draws = [data.draw(size * epoch, size, 0) for epoch in range(2)]
        draws.append(data.draw(0, size, 0, pairs=True))
        return [ctx.encode(draws[0]), ctx.encode_trainable(draws[1], learning=False), ctx.encode(draws[2])]

    first = seen()
    assert looks == dict.fromkeys(looks, SCENES)
    second = seen()  # another run, from the file
    assert looks == dict.fromkeys(looks, SCENES)
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(one[name].tokens, other[name].tokens) for name in looks)
    with torch.no_grad():
        next(model.experts["detection"].parameters()).mul_(1.01)
    seen()
    assert looks == {**dict.fromkeys(looks, SCENES), "detection": 2 * SCENES}
