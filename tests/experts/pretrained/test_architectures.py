"""Every architecture, from a folder to tokens and readings."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from astrea.experts.bank import expert_specs
from astrea.experts.drawing import draw_readings
from astrea.experts.pretrained.entry import KNOWN, resolve
from astrea.experts.protocol import from_bins
from expert_builders import KINDS, MODELS, PHRASES

GRIDS = ("sam", "vit_plain", "dinov2", "dinov2_registers", "dinov3")
TAGS = ("vit", "dinov2_head", "convnextv2")
COMPARED = ("siglip", "siglip2", "clip")
NAMES = ("person", "traffic light", "dining table", None, "cat")


@pytest.mark.parametrize("architecture", MODELS)
def test_tokens_are_what_the_expert_declares(architecture, bank, pixels):
    it = bank(architecture)["it"]
    with torch.no_grad():
        found = it(pixels)
    assert found.tokens.shape == (2, it.num_tokens, it.width)
    assert found.tokens.dtype == torch.float32
    assert found.tokens.isfinite().all()
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()
    assert (found.confidence > 0).any()
    assert len(it.labels) == it.width
    if found.places is not None:
        known = found.places[~found.places.isnan().any(-1)]
        assert len(known)
        assert ((known >= 0) & (known <= 1)).all()
    named = torch.tensor([label is not None for label in it.labels])
    if named.any():
        assert found.tokens[..., named].amax() <= 1 + 1e-5
        assert found.tokens[..., named].amin() >= 0
    assert (found.tokens[0] - found.tokens[1]).abs().max() > 1e-3  # it looks at the picture


@pytest.mark.parametrize("architecture", MODELS)
def test_a_picture_is_seen_alike_alone_and_in_company(architecture, bank, pixels):
    it = bank(architecture)["it"]
    with torch.no_grad():
        both = it(pixels)
        alone = [it(pixels[row : row + 1]) for row in range(2)]
    for row, one in enumerate(alone):
        torch.testing.assert_close(both.tokens[row], one.tokens[0], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(both.confidence[row], one.confidence[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", MODELS)
def test_nothing_learns(architecture, bank, pixels):
    it = bank(architecture)
    it.train()
    assert not any(part.training for part in it.modules())
    assert not any(parameter.requires_grad for parameter in it.parameters())
    assert not it(pixels[:1])["it"].tokens.requires_grad


@pytest.mark.parametrize("architecture", MODELS)
def test_readings_can_be_looked_at(architecture, bank, pixels):
    it = bank(architecture)
    with torch.no_grad():
        first = it.readings(pixels)[0]["it"]
    for box in first.boxes:
        assert 0 <= box[0] <= box[2] <= 1
        assert 0 <= box[1] <= box[3] <= 1
    assert all(0 < score <= 1 for score in first.scores)
    if first.boxes:
        assert len(first.boxes) == len(first.labels) == len(first.scores)
        assert [box[0] + box[2] for box in first.boxes] == sorted(box[0] + box[2] for box in first.boxes)
    if architecture in KINDS["captioning"]:
        assert first.caption
        assert first.caption.split() == first.labels
        assert len(first.scores) == len(first.labels)
    elif architecture not in GRIDS:
        assert first.labels
        spoken = PHRASES if architecture in (*COMPARED, "grounding_dino") else [*filter(None, NAMES), "class 3"]
        assert set(first.labels) <= set(spoken)
    if architecture in (*KINDS["segmentation"], *GRIDS):
        assert first.mask.dtype == torch.long
        assert 0 < first.mask.max() <= max(1, len(first.boxes))
    assert draw_readings(Image.new("RGB", (64, 64)), {"it": first}).width > 64


@pytest.mark.parametrize("architecture", MODELS)
def test_it_is_outlined_without_memory(architecture, entry, bank):
    outlined = expert_specs({"it": resolve("it", entry(architecture))})["it"]
    built = bank(architecture)["it"]
    assert (outlined.num_tokens, outlined.width, outlined.labels) == (built.num_tokens, built.width, built.labels)
    # Grounding DINO makes one small table in a way that knows no device.
    real = sum(parameter.numel() for parameter in outlined.parameters() if not parameter.is_meta)
    assert real <= 0.01 * sum(parameter.numel() for parameter in outlined.parameters())
    shapes = {name: tensor.shape for name, tensor in built.state_dict().items()}
    assert {name: tensor.shape for name, tensor in outlined.state_dict().items()} == shapes


def test_all_known_architectures_are_tried(entry):
    tried = {resolve("it", entry(name))["options"]["architecture"]["model_type"] for name in MODELS}
    known = {name for kind in KNOWN.values() for name in kind}
    parts = {"sam", "clip", "siglip", "siglip2"}
    assert tried == known - parts | {f"{name}_vision_model" for name in parts}


# What channels say


@pytest.mark.parametrize("architecture", ["rt_detr_v2", "detr", "d_fine", "yolos", "grounding_dino"])
def test_a_boxs_words_say_where_it_is(architecture, bank, pixels):
    it = bank(architecture)["it"]
    with torch.no_grad():
        found, reading = it(pixels), it.readings(pixels)[0]
    start = it.labels.index("x0")
    bins = {name: it.labels.index(f"{name}0") for name in ("x", "y", "wide", "high")}
    assert start == len(it.class_names)
    assert it.class_names == (tuple(PHRASES) if architecture == "grounding_dino" else NAMES)
    keep = found.confidence[0] > 0
    code = {name: from_bins(found.tokens[0, keep, at : at + (16 if name in "xy" else 15)]) for name, at in bins.items()}
    boxes = torch.tensor(reading.boxes)
    torch.testing.assert_close(code["x"], (boxes[:, 0] + boxes[:, 2]) / 2, atol=1e-5, rtol=0)
    torch.testing.assert_close(code["y"], (boxes[:, 1] + boxes[:, 3]) / 2, atol=1e-5, rtol=0)
    torch.testing.assert_close(code["wide"], boxes[:, 2] - boxes[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(code["high"], boxes[:, 3] - boxes[:, 1], atol=1e-5, rtol=0)
    ranks = it.labels.index("first")
    assert found.tokens[0, keep, ranks : ranks + int(keep.sum())].equal(torch.eye(int(keep.sum())))


@pytest.mark.parametrize("architecture", ["segformer", "mask2former", "eomt"])
def test_a_regions_words_say_what_its_mask_shows(architecture, bank, pixels):
    it = bank(architecture)["it"]
    with torch.no_grad():
        found, reading = it(pixels), it.readings(pixels)[0]
    keep = found.confidence[0] > 0
    area = it.labels.index("area0")
    told = from_bins(found.tokens[0, keep, area : area + 33]).square() * 0.12 * (32 / 11) ** 2
    shown = torch.tensor([(reading.mask == region + 1).float().mean() for region in range(int(keep.sum()))])
    torch.testing.assert_close(told, shown, atol=1e-5, rtol=1e-4)
    for region, (x, y) in enumerate(found.places[0, keep].tolist()):
        rows, columns = (reading.mask == region + 1).nonzero(as_tuple=True)
        assert x == pytest.approx((columns.float().mean().item() + 0.5) / reading.mask.shape[1], abs=1e-5)
        assert y == pytest.approx((rows.float().mean().item() + 0.5) / reading.mask.shape[0], abs=1e-5)


@pytest.mark.parametrize("architecture", [*TAGS, *COMPARED])
def test_the_first_token_holds_the_likeliest_tags(architecture, bank, pixels):
    it = bank(architecture)["it"]
    with torch.no_grad():
        found = it(pixels)
    tags = found.tokens[:, 0, : len(it.class_names)]
    count = 3 if architecture in TAGS else len(PHRASES)
    assert ((tags > 0).sum(1) == count).all()
    assert torch.equal(found.confidence[:, 0], tags.amax(1))
    assert found.tokens[:, 1:, : len(it.class_names)].eq(0).all()
    assert found.places[:, 0].isnan().all()
    assert not found.places[:, 1:].isnan().any()


def test_grid_cells_lie_where_the_crop_lies(bank, pixels):
    whole, cropped = bank("vit_plain")["it"], bank("dinov2")["it"]
    with torch.no_grad():
        assert whole(pixels).places[0].tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
        # 32 of 36 pixels are seen.
        near, far = cropped(pixels).places[0, 0, 0].item(), cropped(pixels).places[0, 3, 1].item()
    assert (near, far) == pytest.approx((0.5 - 0.25 * 32 / 36, 0.5 + 0.25 * 32 / 36))


@pytest.mark.parametrize("architecture", KINDS["captioning"])
def test_slots_after_the_sentence_are_empty(architecture, entry, pixels):
    from expert_builders import loaded

    it = loaded(entry(architecture, tokens=8))["it"]
    with torch.no_grad():
        pieces, sure, _ = it.generate(pixels)
        # Make the third piece of the first picture the end of every sentence.
        it.settings = it.settings.model_copy(update={"end_ids": (*it.settings.end_ids, int(pieces[0, 2]))})
        found, reading = it(pixels[:1]), it.readings(pixels[:1])[0]
    kept = pieces[0].tolist().index(int(pieces[0, 2]))
    assert (found.confidence[0] > 0).tolist() == [True] * kept + [False] * (8 - kept)
    torch.testing.assert_close(found.confidence[0, :kept], sure[0, :kept])
    assert found.tokens[0, kept:].eq(0).all()
    assert len(reading.labels) <= kept


def test_wide_vocabularies_stay_one_token(entry, tmp_path):
    names = {i: f"thing {i}, a thing" for i in range(1000)}
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=8, id2label=names)).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    resolved = resolve("it", entry("vit").model_copy(update={"checkpoint": str(tmp_path)}))
    it = expert_specs({"it": resolved})["it"]
    assert (it.num_tokens, it.width) == (5, 1000 + 2 + 16)
    assert it.labels[:2] == ("thing 0", "thing 1")
