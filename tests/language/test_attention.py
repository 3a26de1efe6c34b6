"""Who may read whom: packing, padding and absent experts must change nothing that they should not."""

from __future__ import annotations

import pytest
import torch

from astrea.data.packing import Packer, Turn
from astrea.experts.protocol import ExpertFeatures
from astrea.language.attention import attention_mask, picture_blocks, position_ids, within_window

TURNS = [
    [Turn("is it red?", "no"), Turn("what is to the left of the big blue ball?", "a small cup"), Turn("why?", "yes")],
    [Turn("how many cups are there?", "two")],
    [Turn("is the ball big?", "yes"), Turn("what is it?", "a green tree in front of the red house")],
]


@pytest.fixture(scope="module")
def packer(tiny_model, tiny_processor) -> Packer:
    return Packer(tiny_processor.tokenizer, tiny_model.num_visual_tokens)


@pytest.fixture(scope="module")
def features(tiny_model, tiny_processor, pictures) -> dict[str, ExpertFeatures]:
    """Of three pictures; every expert has confident tokens, and detection and segmentation empty slots too."""
    found = tiny_model.encode_images(tiny_processor(images=pictures[:3])["pixel_values"])
    assert all((f.confidence > 0).any() for f in found.values())
    assert all((found[name].confidence == 0).any() for name in ("segmentation", "detection"))
    return found


@torch.no_grad()
def run(model, inputs: dict, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, L, V) and shares (N, S, E)."""
    out = model(**inputs, **options)
    return out.logits, out.shares


def rows_of(features: dict[str, ExpertFeatures], row: int) -> dict[str, ExpertFeatures]:
    return {name: found.rows(slice(row, row + 1)) for name, found in features.items()}


# Positions and masks by hand


def test_a_picture_takes_one_position_whatever_its_tokens():
    is_image = torch.tensor([[0, 1, 1, 1, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 0, 0, 0]]).bool()
    real = torch.tensor([[1] * 9, [0, 0, 1, 1, 1, 1, 1, 1, 1]]).bool()
    assert picture_blocks(is_image).tolist() == [[0, 1, 1, 1, 0, 0, 2, 2, 0], [0, 0, 0, 1, 1, 1, 0, 0, 0]]
    assert position_ids(is_image, real, None).tolist() == [[0, 1, 1, 1, 2, 3, 4, 4, 5], [0, 0, 0, 1, 1, 1, 2, 3, 4]]


def test_pictures_that_are_read_like_text_count_what_is_read_of_them():
    is_image = torch.tensor([[0, 1, 1, 1, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 0, 0, 0]]).bool()
    real = torch.tensor([[1] * 9, [0, 0, 1, 1, 1, 1, 1, 1, 1]]).bool()
    read = torch.tensor([[0, 1, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0, 0]]).bool()
    found = position_ids(is_image, real, None, read_BL=read)
    assert found.tolist() == [[0, 1, 1, 2, 3, 4, 4, 4, 5], [0, 0, 0, 0, 1, 2, 3, 4, 5]]


def test_segments_may_begin_with_a_picture_of_which_nothing_is_read():
    is_image = torch.tensor([[0, 1, 0, 1, 1, 0, 0]]).bool()
    segments = torch.tensor([[0, 1, 1, 2, 2, 2, 2]])
    read = torch.tensor([[0, 0, 0, 0, 1, 0, 0]]).bool()
    found = position_ids(is_image, segments >= 0, segments, read_BL=read)
    assert found[0, [0, 2, 4, 5, 6]].tolist() == [0, 1, 1, 2, 3]


def test_visual_tokens_in_order_read_what_stands_before_them():
    is_image = torch.tensor([[0, 1, 1, 1, 0]]).bool()
    read = torch.tensor([[1, 1, 0, 1, 1]]).bool()
    blocks = picture_blocks(is_image)
    found = attention_mask(read, blocks, None, None, queries=5, dtype=torch.float32, in_order=True)[0, 0] == 0
    # What is not read keeps itself alone, so that no row is empty.
    wanted = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 1, 1]]
    assert found.long().tolist() == wanted
    # A bias is the text's alone, as in a set.
    bias = torch.tensor([[[0.0, 1.0, 1.0, 2.0, 0.0]]])
    biased = attention_mask(read, blocks, None, bias, queries=5, dtype=torch.float32, in_order=True)[0, 0]
    assert biased[4].tolist()[:2] == [0.0, 1.0]
    assert biased[3].tolist()[1] == 0.0


def test_packed_questions_all_start_behind_the_prefix():
    is_image = torch.tensor([[0, 1, 1, 0, 0, 0, 0, 0, 0, 0]]).bool()
    segments = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 3, -1]])
    found = position_ids(is_image, segments >= 0, segments)
    assert found[0, :-1].tolist() == [0, 1, 1, 2, 3, 2, 3, 4, 2]


def test_who_sees_whom():
    is_image = torch.tensor([[0, 1, 1, 0, 0, 0]]).bool()
    segments = torch.tensor([[0, 0, 0, 1, 1, 2]])
    real = torch.tensor([[1, 1, 0, 1, 1, 1]]).bool()
    bias = torch.tensor([[[0, 0.5, 0.7, 0, 0, 0], [0, -0.5, -0.7, 0, 0, 0]]])
    mask = attention_mask(real, picture_blocks(is_image), segments, bias, queries=6, dtype=torch.float32)[0, 0]
    no = torch.finfo(torch.float32).min
    wanted = torch.tensor(
        [
            [0, no, no, no, no, no],
            [0, 0, no, no, no, no],
            [0, 0, 0, no, no, no],  # an empty slot reads, so that its row is not empty, but nobody reads it
            [0, 0.5, no, 0, no, no],
            [0, 0.5, no, 0, 0, no],
            [0, -0.5, no, no, no, 0],
        ]
    )
    assert torch.equal(mask, wanted)
    last = attention_mask(real, None, None, bias[:, :1], queries=1, dtype=torch.float32)[0, 0]
    assert torch.equal(last, torch.tensor([[0, 0.5, no, 0, 0, 0]]))


def test_pictures_read_both_ways_within_themselves_only():
    is_image = torch.tensor([[1, 1, 0, 1, 1]]).bool()
    mask = attention_mask(
        torch.ones(1, 5).bool(), picture_blocks(is_image), None, None, queries=5, dtype=torch.float32
    )[0, 0]
    wanted = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert (mask == 0).long().tolist() == wanted


def test_tokens_apart_are_read_by_words_and_by_no_other_visual_token():
    is_image = torch.tensor([[0, 1, 1, 1, 0]]).bool()
    apart = torch.tensor([[0, 0, 0, 1, 0]]).bool()
    mask = attention_mask(
        torch.ones(1, 5).bool(),
        picture_blocks(is_image),
        None,
        None,
        queries=5,
        dtype=torch.float32,
        cross_only_BL=apart,
    )[0, 0]
    wanted = [[1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert (mask == 0).long().tolist() == wanted


# The same through the model


def test_packed_questions_are_answered_as_if_alone(tiny_model, packer, features):
    packed = packer.pack(TURNS)
    inputs = packed.model_inputs()
    together, shares = run(tiny_model, inputs, features=features)
    assert (shares[0, 0] - shares[0, 1]).abs().max() > 1e-3
    for row, turns in enumerate(TURNS):
        for number, turn in enumerate(turns, 1):
            alone = packer.pack([[turn]])
            logits, share = run(tiny_model, alone.model_inputs(), features=rows_of(features, row))
            mine = packed.segments[row] == number
            assert torch.equal(packed.input_ids[row, mine], alone.input_ids[alone.segments == 1])
            torch.testing.assert_close(together[row, mine], logits[0, alone.segments[0] == 1], atol=1e-5, rtol=0)
            torch.testing.assert_close(shares[row, number - 1], share[0, 0], atol=1e-6, rtol=0)


def test_the_loss_of_packed_rows_is_the_mean_over_their_answers(tiny_model, packer, features):
    with torch.no_grad():
        packed = packer.pack(TURNS)
        loss = tiny_model(**packed.model_inputs(), features=features).loss
        total, count = 0.0, 0
        for row, turns in enumerate(TURNS):
            for turn in turns:
                alone = packer.pack([[turn]])
                tokens = int((alone.labels != -100).sum())
                one = tiny_model(**alone.model_inputs(), features=rows_of(features, row)).loss
                total, count = total + one.item() * tokens, count + tokens
    assert loss.item() == pytest.approx(total / count, abs=1e-5)


def test_training_and_the_processor_ask_the_same(tiny_model, tiny_processor, packer, features):
    alone = packer.pack([TURNS[0][:1]])
    trained, share = run(tiny_model, alone.model_inputs(), features=rows_of(features, 0))
    text = f"<bos><image><user>{TURNS[0][0].question}<assistant>"
    prompt = tiny_processor(images=torch.zeros(64, 64, 3).byte().numpy(), text=text)
    del prompt["pixel_values"]
    asked, own_share = run(tiny_model, prompt, features=rows_of(features, 0))
    length = prompt["input_ids"].shape[1]
    assert torch.equal(share[0, 0], own_share[0, 0])
    torch.testing.assert_close(asked, trained[:, :length], atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(tiny_model, tiny_processor, pictures, side):
    text = "<bos><image><user>what is to the left of the big blue ball?<assistant>"
    short = tiny_processor(images=pictures[0], text=text)
    wide = tiny_processor(images=pictures[0], text=text, padding="max_length", max_length=60, padding_side=side)
    assert wide["input_ids"].shape == (1, 60)
    logits, shares = run(tiny_model, short)
    padded, padded_shares = run(tiny_model, wide)
    torch.testing.assert_close(padded[wide["attention_mask"].bool()], logits[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(padded_shares, shares, atol=1e-6, rtol=0)
    # What lies under the padding is nobody's business.
    wide["input_ids"][wide["attention_mask"] == 0] = 77
    assert torch.equal(run(tiny_model, wide)[0][wide["attention_mask"].bool()], padded[wide["attention_mask"].bool()])


@pytest.mark.parametrize("gone", [["captioning"], ["classification", "detection"], ["segmentation"]])
def test_masking_an_expert_equals_removing_it(tiny_model, packer, features, gone):
    packed = packer.pack(TURNS)
    text = packed.input_ids != tiny_model.config.image_token_id
    names = tiny_model.experts.names
    present = torch.tensor([[name not in gone for name in names]]).expand(3, -1)
    masked, shares = run(tiny_model, packed.model_inputs(), features=features, present=present)
    rest = {name: found for name, found in features.items() if name not in gone}
    removed, removed_shares = run(tiny_model, packed.model_inputs(), features=rest)
    whole, _ = run(tiny_model, packed.model_inputs(), features=features)
    assert torch.equal(masked[text], removed[text])
    assert torch.equal(shares, removed_shares)
    assert (shares[..., [names.index(name) for name in gone]] == 0).all()
    assert ((shares.sum(-1) > 0) & (shares.sum(-1) < 1)).all()
    assert (whole[text] - masked[text]).abs().max() > 1e-4


def test_the_content_of_absent_experts_is_never_read(tiny_model, packer, features):
    packed = packer.pack(TURNS)
    text = packed.input_ids != tiny_model.config.image_token_id
    # Each picture lacks another expert, and the last lacks two.
    present = torch.tensor([[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 0]]).bool()
    before = run(tiny_model, packed.model_inputs(), features=features, present=present)
    other = {}
    for column, name in enumerate(tiny_model.experts.names):
        absent = ~present[:, column, None]
        tokens, sure = features[name].tokens, features[name].confidence
        generator = torch.Generator().manual_seed(column)
        order = torch.randperm(tokens.shape[1], generator=generator)
        noise = torch.randn(tokens.shape, generator=generator)
        other[name] = ExpertFeatures(
            torch.where(absent[..., None], tokens[:, order] + noise, tokens),
            torch.where(absent, 1 - sure, sure),
            features[name].places,
        )
    after = run(tiny_model, packed.model_inputs(), features=other, present=present)
    assert torch.equal(before[0][text], after[0][text])
    assert torch.equal(before[1], after[1])


def test_empty_slots_are_never_read(tiny_model, packer, features):
    packed = packer.pack(TURNS)
    text = packed.input_ids != tiny_model.config.image_token_id
    other = {
        name: ExpertFeatures(torch.where(f.confidence[..., None] == 0, 9.0, f.tokens), f.confidence, f.places)
        for name, f in features.items()
    }
    one, two = (run(tiny_model, packed.model_inputs(), features=f)[0] for f in (features, other))
    assert torch.equal(one[text], two[text])


def test_without_any_expert_the_answer_depends_on_the_text_alone(tiny_model, packer, features):
    packed = packer.pack(TURNS)
    text = packed.input_ids != tiny_model.config.image_token_id
    nobody = torch.zeros(3, 4, dtype=torch.bool)
    turned = {name: found.rows(torch.tensor([2, 0, 1])) for name, found in features.items()}
    one, two = (run(tiny_model, packed.model_inputs(), features=f, present=nobody) for f in (features, turned))
    assert torch.isfinite(one[0]).all()
    assert torch.equal(one[0][text], two[0][text])
    assert (one[1] == 0).all()


# Segments with pictures and turns of their own


def test_neighbouring_pictures_of_a_known_size_are_told_apart():
    is_image = torch.tensor([[0, 1, 1, 1, 1, 0, 1, 1]]).bool()
    real = torch.ones(1, 8).bool()
    assert picture_blocks(is_image, 2).tolist() == [[0, 1, 1, 2, 2, 0, 3, 3]]
    assert position_ids(is_image, real, None, 2).tolist() == [[0, 1, 1, 2, 2, 3, 4, 4]]
    assert picture_blocks(is_image).tolist() == [[0, 1, 1, 1, 1, 0, 2, 2]]


def test_conversations_with_pictures_see_only_their_own():
    is_image = torch.tensor([[1, 1, 0, 1, 1, 0, 0]]).bool()
    segments = torch.tensor([[1, 1, 1, 2, 2, 2, -1]])
    real = segments >= 0
    mask = attention_mask(real, picture_blocks(is_image, 2), segments, None, queries=7, dtype=torch.float32)[0, 0]
    wanted = [
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
    ]
    assert (mask == 0).long().tolist() == wanted
    assert position_ids(is_image, real, segments, 2)[0, :6].tolist() == [0, 0, 1, 0, 0, 1]


def test_every_turn_has_shares_of_its_own():
    segments = torch.tensor([[1, 1, 1, 1]])
    questions = torch.tensor([[1, 1, 2, 2]])
    bias = torch.tensor([[[0.5, 0, 0, 0], [-0.5, 0, 0, 0]]])
    is_image = torch.tensor([[1, 0, 0, 0]]).bool()
    mask = attention_mask(
        segments > 0,
        picture_blocks(is_image, 1),
        segments,
        bias,
        queries=4,
        dtype=torch.float32,
        questions_BL=questions,
    )
    assert mask[0, 0, :, 0].tolist() == [0, 0.5, -0.5, -0.5]


def test_a_window_counts_positions():
    is_image = torch.tensor([[0, 1, 1, 1, 0, 0]]).bool()
    real = torch.ones(1, 6).bool()
    mask = attention_mask(real, picture_blocks(is_image), None, None, queries=6, dtype=torch.float32)
    positions = position_ids(is_image, real, None)
    seen = within_window(mask, positions, 3)[0, 0] == 0
    assert seen.long()[4:].tolist() == [[1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1]]
    last = attention_mask(real, None, None, None, queries=1, dtype=torch.float32)
    assert torch.equal(within_window(last, positions, 3)[0, 0, 0] == 0, seen[5])
    assert torch.equal(within_window(mask, positions, 9), mask)
