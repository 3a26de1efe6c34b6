"""What experts say against what transformers itself says of the same pictures with the same checkpoint."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

from expert_builders import PHRASES, loaded

DETECTORS = {
    "rt_detr_v2": ("AutoModelForObjectDetection", "RTDetrImageProcessorPil"),
    "detr": ("AutoModelForObjectDetection", "DetrImageProcessorPil"),
    "rt_detr": ("AutoModelForObjectDetection", "RTDetrImageProcessorPil"),
    "d_fine": ("AutoModelForObjectDetection", "RTDetrImageProcessorPil"),
    "yolos": ("AutoModelForObjectDetection", "YolosImageProcessorPil"),
}


def of_transformers(name: str, folder):
    return getattr(transformers, name).from_pretrained(folder).eval()


@pytest.mark.parametrize("architecture", DETECTORS)
def test_boxes_labels_and_scores_are_those_of_transformers(architecture, bank, checkpoint, pixels):
    it = bank(architecture)["it"]
    model, processor = DETECTORS[architecture]
    reference = of_transformers(model, checkpoint(architecture))
    read = getattr(transformers, processor).from_pretrained(checkpoint(architecture))
    with torch.no_grad():
        out = reference(pixel_values=it.inputs(pixels))
        wanted = read.post_process_object_detection(out, threshold=it.settings.threshold, target_sizes=[(1, 1)] * 2)
        found, readings = it(pixels), it.readings(pixels)
    for row, reading in enumerate(readings):
        # transformers may count one query under two classes; the expert keeps each query once, under its likeliest.
        pairs = zip(wanted[row]["scores"].tolist(), wanted[row]["boxes"].clamp(0, 1).tolist(), strict=True)
        best: dict[tuple[float, ...], float] = {}
        for score, box in pairs:
            place = tuple(round(side, 4) for side in box)
            best[place] = max(score, best.get(place, 0))
        top = sorted(best.values(), reverse=True)[: it.num_tokens]
        assert len(top) > 1
        assert sorted(reading.scores, reverse=True) == pytest.approx(top, abs=1e-4)
        for box, score in zip(reading.boxes, reading.scores, strict=True):
            near = [s for place, s in best.items() if max(abs(a - b) for a, b in zip(place, box, strict=True)) < 2e-3]
            assert any(abs(s - score) < 1e-3 for s in near)
    assert (found.confidence > 0).any()


def test_phrases_are_found_as_transformers_finds_them(bank, checkpoint, pixels):
    it = bank("grounding_dino")["it"]
    folder = checkpoint("grounding_dino")
    words = AutoTokenizer.from_pretrained(folder)
    text = words(". ".join(PHRASES) + ".", return_tensors="pt")
    assert text.input_ids[0].tolist() == list(it.settings.prompt_ids)
    reference = of_transformers("GroundingDinoForObjectDetection", folder)
    with torch.no_grad():
        out = reference(pixel_values=it.inputs(pixels), input_ids=text.input_ids.expand(2, -1))
        probability, boxes, _ = it.encode(pixels)
    belief = out.logits.sigmoid()
    # [CLS] cat . red ball . [SEP]
    torch.testing.assert_close(probability[..., 0], belief[..., 1], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(probability[..., 1], belief[..., 3:5].amax(-1), atol=1e-4, rtol=1e-3)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    inside = ((boxes > 0) & (boxes < 1)).all(-1)
    torch.testing.assert_close(middle[inside], out.pred_boxes[..., :2][inside], atol=1e-4, rtol=1e-3)


def test_segformers_regions_are_its_semantic_map(bank, checkpoint, pixels):
    it = bank("segformer")["it"]
    reference = of_transformers("AutoModelForSemanticSegmentation", checkpoint("segformer"))
    with torch.no_grad():
        wanted = reference(pixel_values=it.inputs(pixels)).logits.argmax(1)
        readings = it.readings(pixels)
    names = [name or "class 3" for name in it.class_names]
    for row, reading in enumerate(readings):
        for region, label in enumerate(reading.labels):
            assert torch.equal(reading.mask == region + 1, wanted[row] == names.index(label))


@pytest.mark.parametrize("architecture", ["mask2former", "eomt"])
def test_regions_of_queries_are_masks_of_the_network(architecture, bank, checkpoint, pixels):
    it = bank(architecture)["it"]
    reference = of_transformers("AutoModelForUniversalSegmentation", checkpoint(architecture))
    with torch.no_grad():
        out = reference(pixel_values=it.inputs(pixels))
        readings = it.readings(pixels)
    masks, classes = out.masks_queries_logits > 0, out.class_queries_logits.softmax(-1)[..., :-1]
    names = [name or "class 3" for name in it.class_names]
    for row, reading in enumerate(readings):
        assert reading.labels
        for region, label in enumerate(reading.labels):
            shown = reading.mask == region + 1
            # All of a region lies in the mask of a query of that class, and is at least half of that mask.
            homes = [
                query
                for query in range(masks.shape[1])
                if classes[row, query].argmax() == names.index(label)
                and not (shown & ~masks[row, query]).any()
                and 2 * shown.sum() >= masks[row, query].sum()
            ]
            assert homes


@pytest.mark.parametrize("architecture", ["vit", "dinov2_head", "convnextv2"])
def test_tags_are_the_heads(architecture, bank, checkpoint, pixels):
    it = bank(architecture)["it"]
    reference = of_transformers("AutoModelForImageClassification", checkpoint(architecture))
    with torch.no_grad():
        wanted = reference(pixel_values=it.inputs(pixels)).logits.softmax(-1)
        tags = it(pixels).tokens[:, 0, :5]
    value, index = wanted.topk(3, 1)
    torch.testing.assert_close(tags.gather(1, index), value)


@pytest.mark.parametrize("architecture", ["clip", "siglip", "siglip2"])
def test_zero_shot_tags_are_those_of_both_towers(architecture, bank, checkpoint, pixels):
    it = bank(architecture)["it"]
    folder = checkpoint(architecture)
    reference, words = of_transformers("AutoModel", folder), AutoTokenizer.from_pretrained(folder)
    kept = {"padding": True} if architecture == "clip" else {"padding": "max_length", "max_length": 16}
    text = words([f"a photo of {phrase}." for phrase in PHRASES], return_tensors="pt", truncation=True, **kept)
    looked = {"pixel_values": it.inputs(pixels)}
    if architecture == "siglip2":
        read = transformers.Siglip2ImageProcessorPil.from_pretrained(folder)
        pictures = [(255 * p).round().byte().permute(1, 2, 0).numpy() for p in pixels]
        looked = dict(read(images=pictures, return_tensors="pt", max_num_patches=16))
    mask = {"attention_mask": text.attention_mask} if architecture == "clip" else {}
    with torch.no_grad():
        logits = reference(input_ids=text.input_ids, **mask, **looked).logits_per_image
        tags = it(pixels).tokens[:, 0, : len(PHRASES)]
    wanted = logits.softmax(-1) if architecture == "clip" else logits.sigmoid()
    torch.testing.assert_close(tags, wanted, atol=3e-3 if architecture == "siglip2" else 1e-5, rtol=1e-3)
    assert (wanted[:, 0] - wanted[:, 1]).abs().max() > 1e-4


def test_the_text_tower_is_not_kept(bank):
    it = bank("clip")["it"]
    assert not any("text_model" in name for name in it.state_dict())
    assert it.phrases_KP.norm(dim=-1).tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(
    ("architecture", "model", "layer"),
    [
        ("vit_plain", "ViTModel", -2),
        ("dinov2", "Dinov2Model", -2),
        ("dinov3", "DINOv3ViTModel", -2),
        ("dinov2_registers", "Dinov2WithRegistersModel", 1),
    ],
)
def test_cells_are_the_mean_of_their_patches(architecture, model, layer, entry, checkpoint, pixels):
    it = loaded(entry(architecture, layer=layer))["it"]
    reference = of_transformers(model, checkpoint(architecture))
    with torch.no_grad():
        out = reference(pixel_values=it.inputs(pixels), output_hidden_states=True)
        cells = it.network_output(pixels)[1]
    patches = out.hidden_states[layer][:, -16:].unflatten(1, (4, 4))
    torch.testing.assert_close(cells[:, 1], patches[:, :2, 2:].mean((1, 2)), atol=1e-5, rtol=1e-4)


def test_sams_cells_are_its_encoders(bank, checkpoint, pixels):
    it = bank("sam")["it"]
    reference = of_transformers("SamModel", checkpoint("sam"))
    with torch.no_grad():
        wanted = reference.get_image_embeddings(it.inputs(pixels))
        cells = it.network_output(pixels)[1]
    torch.testing.assert_close(cells[:, 2], wanted[:, :, 2:, :2].mean((2, 3)), atol=1e-5, rtol=1e-4)


def test_sams_layers_can_be_read(entry, pixels):
    it = loaded(entry("sam", layer=1))["it"]
    assert it.width == 16
    assert it(pixels).tokens.shape == (2, 4, 16)


@pytest.mark.parametrize("architecture", ["blip", "git", "florence2"])
def test_sentences_are_those_of_transformers(architecture, bank, checkpoint, pixels):
    it = bank(architecture)["it"]
    folder = checkpoint(architecture)
    model = {
        "blip": "BlipForConditionalGeneration",
        "git": "GitForCausalLM",
        "florence2": "Florence2ForConditionalGeneration",
    }[architecture]
    reference, words = of_transformers(model, folder), AutoTokenizer.from_pretrained(folder)
    ask = {}
    if architecture == "git":
        ask = {"input_ids": torch.full((2, 1), words.cls_token_id)}
    if architecture == "florence2":
        with torch.no_grad():
            tokens = reference.get_image_features(it.inputs(pixels)).pooler_output.shape[1]
        asked = words("What does the image describe?", add_special_tokens=False).input_ids
        ids = [reference.config.image_token_id] * tokens + [words.bos_token_id, *asked, words.eos_token_id]
        ask = {"input_ids": torch.tensor([ids, ids])}
    with torch.no_grad():
        told = reference.generate(
            pixel_values=it.inputs(pixels),
            **ask,
            max_new_tokens=4 + 2 * (architecture == "florence2"),  # its first and last are forced
            do_sample=False,
            num_beams=1,
        )
        readings = it.readings(pixels)
    for row, reading in enumerate(readings):
        assert reading.caption == " ".join(words.decode(told[row], skip_special_tokens=True).split())


def test_a_prompt_is_gone_on_from(entry, bank, pixels):
    plain, told = bank("blip")["it"], loaded(entry("blip", prompt="a photo of"))["it"]
    words = told.words()
    asked = words.encode("a photo of", add_special_tokens=False).ids
    assert list(told.settings.prompt_ids) == [plain.settings.prompt_ids[0], *asked]
    assert len(plain.settings.prompt_ids) == 1
    assert not torch.equal(plain(pixels).tokens, told(pixels).tokens)


def test_heads_that_a_checkpoint_keeps_apart_stay_apart(checkpoint, entry, pixels, tmp_path):
    """RT-DETR v2 says that its box heads are one; its published weights have one per layer."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(checkpoint("rt_detr_v2"), tmp_path / "apart")
    config = AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = False
    model = transformers.RTDetrV2ForObjectDetection.from_pretrained(folder, config=config)
    with torch.no_grad():
        for heads in (model.model.decoder.bbox_embed, model.model.decoder.class_embed):
            for layer, head in enumerate(heads):
                for parameter in head.parameters():
                    parameter.add_(0.3 * (layer + 1))
    save_file({name: t.clone() for name, t in model.state_dict().items()}, folder / "model.safetensors")
    assert len(load_file(folder / "model.safetensors")) == len(model.state_dict())
    it = loaded(entry("rt_detr_v2").model_copy(update={"checkpoint": str(folder)}))["it"]
    with torch.no_grad():
        wanted = model.eval()(pixel_values=it.inputs(pixels))
        probability, _, hidden = it.encode(pixels)
    torch.testing.assert_close(probability, wanted.logits.sigmoid(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(hidden, wanted.last_hidden_state, atol=1e-4, rtol=1e-4)
