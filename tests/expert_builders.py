"""Small random checkpoints of true architectures, saved as transformers saves them: weights, processor, tokenizer.

``small_checkpoint("rt_detr_v2", folder)`` writes one; a kind of task stands for its first architecture.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from astrea.experts.bank import ExpertBank
from astrea.experts.pretrained.entry import resolve
from astrea.experts.pretrained.weights import load_checkpoint
from astrea.recipes.recipe import ExpertEntry

SIDE = 64
CLASSES = ["person", "traffic_light", "dining table, board", "N/A", "cat"]
PHRASES = ["cat", "red ball"]
WORDS = ["a", "photo", "of", "cat", "red", "ball", "dog", "what", "does", "the", "image", "describe", "one", "two"]


def _names() -> dict[str, Any]:
    return {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}


VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}
LEVELS = ["stage2", "stage3", "stage4"]
DETR = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "num_queries": 12,
}
HYBRID = DETR | {
    "encoder_hidden_dim": 16,
    "encoder_in_channels": [16, 16, 16],
    "feat_strides": [8, 16, 32],
    "decoder_in_channels": [16, 16, 16],
    "num_feature_levels": 3,
    "hidden_expansion": 1.0,
    "num_denoising": 0,
}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
SWIN = {"image_size": SIDE, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2}
QUERIES = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "num_queries": 12}


def small_tokenizer(*, begin: str, end: str, size: int = 0) -> PreTrainedTokenizerFast:
    """Whole words with letters as the fallback; ids as BERT's where ``size`` asks for room."""
    special = {"[PAD]": 0, "[UNK]": 100, begin: 101, end: 102, ".": 1012} if size else {}
    pieces = [*dict.fromkeys(["[PAD]", "[UNK]", begin, end, ".", *WORDS, *(f"##{c}" for c in "abcdefghijkls")])]
    vocabulary: dict[str, int] = {}
    free = iter(index for index in range(size or len(pieces)) if index not in special.values())
    for piece in pieces:
        vocabulary[piece] = special[piece] if piece in special else next(free)
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(prefix="##")
    from tokenizers.processors import TemplateProcessing

    core.post_processor = TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(begin, vocabulary[begin]), (end, vocabulary[end])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token=begin,
        eos_token=end,
        cls_token=begin,
        sep_token=end,
    )


def _detr(t: Any) -> Any:
    backbone = t.ResNetConfig(**RESNET, out_features=["stage4"])
    return t.DetrForObjectDetection(t.DetrConfig(use_timm_backbone=False, backbone_config=backbone, **DETR, **_names()))


def _rt_detr(t: Any, model: str, config: str) -> Any:
    backbone = t.RTDetrResNetConfig(**RESNET, out_features=LEVELS)
    return getattr(t, model)(getattr(t, config)(backbone_config=backbone, **HYBRID, decoder_n_points=2, **_names()))


def _d_fine(t: Any) -> Any:
    backbone = t.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 8, 16, 16],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[8, 16, 16, 16],
        stage_num_blocks=[1, 1, 1, 1],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False] * 4,
        stage_kernel_size=[3] * 4,
        stage_numb_of_layers=[1] * 4,
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        out_features=LEVELS,
    )
    config = t.DFineConfig(backbone_config=backbone, **HYBRID, decoder_n_points=[2, 2, 2], depth_mult=0.34, **_names())
    return t.DFineForObjectDetection(config)


def _yolos(t: Any) -> Any:
    sizes = VIT | {"image_size": [SIDE, SIDE], "patch_size": 16}
    return t.YolosForObjectDetection(t.YolosConfig(**sizes, num_detection_tokens=12, **_names()))


def _grounding_dino(t: Any) -> Any:
    backbone = t.SwinConfig(**SWIN, out_features=LEVELS)
    text = t.BertConfig(**TEXT | {"max_position_embeddings": 64}, vocab_size=1013)
    sizes = DETR | {"d_model": 32, "encoder_n_points": 2, "decoder_n_points": 2, "num_feature_levels": 4}
    config = t.GroundingDinoConfig(backbone_config=backbone, text_config=text, max_text_len=32, **sizes)
    return t.GroundingDinoForObjectDetection(config)


def _segformer(t: Any) -> Any:
    config = t.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        **_names(),
    )
    return t.SegformerForSemanticSegmentation(config)


def _mask2former(t: Any) -> Any:
    backbone = t.SwinConfig(**SWIN, out_features=["stage1", *LEVELS])
    sizes = {"encoder_feedforward_dim": 16, "encoder_layers": 1, "decoder_layers": 3, "dim_feedforward": 16}
    config = t.Mask2FormerConfig(backbone_config=backbone, **QUERIES, **sizes, num_attention_heads=2, **_names())
    return t.Mask2FormerForUniversalSegmentation(config)


def _eomt(t: Any) -> Any:
    sizes = VIT | {"image_size": SIDE, "patch_size": 16}
    sizes.pop("intermediate_size")
    config = t.EomtConfig(
        **sizes, num_blocks=1, num_queries=12, num_upscale_blocks=1, num_register_tokens=1, **_names()
    )
    model = t.EomtForUniversalSegmentation(config)
    model.attn_mask_probs.zero_()  # as training leaves it
    return model


def _sam(t: Any) -> Any:
    vision = VIT | {"image_size": SIDE, "patch_size": 16, "output_channels": 24, "window_size": 2, "mlp_dim": 16}
    vision |= {"global_attn_indexes": [1], "num_pos_feats": 12}
    vision.pop("intermediate_size")
    prompt = {"hidden_size": 24, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 4}
    mask = {"hidden_size": 24, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    mask |= {"iou_head_hidden_dim": 16, "iou_head_depth": 2}
    return t.SamModel(t.SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=mask))


def _clip_like(t: Any, model: str, config: str, **vision: Any) -> Any:
    text = TEXT | {"vocab_size": 60, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    more = {"projection_dim": 12} if model == "CLIPModel" else {}
    text |= {"projection_size": 16} if model != "CLIPModel" else {}
    return getattr(t, model)(getattr(t, config)(text_config=text, vision_config=VIT | vision, **more))


def _siglip2(t: Any) -> Any:
    return _clip_like(t, "Siglip2Model", "Siglip2Config", num_patches=16)


def _convnextv2(t: Any) -> Any:
    config = t.ConvNextV2Config(depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], **_names())
    return t.ConvNextV2ForImageClassification(config)


def _blip(t: Any) -> Any:
    frame = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = TEXT | frame | {"vocab_size": 60, "max_position_embeddings": 32, "encoder_hidden_size": 16}
    config = t.BlipConfig(text_config=text, vision_config=VIT, projection_dim=16, image_text_hidden_size=16)
    return t.BlipForConditionalGeneration(config)


def _git(t: Any) -> Any:
    sizes = TEXT | {"vocab_size": 60, "max_position_embeddings": 64}
    return t.GitForCausalLM(t.GitConfig(vision_config=VIT, **sizes, bos_token_id=2, eos_token_id=3, pad_token_id=0))


def _florence2(t: Any) -> Any:
    vision = {"embed_dim": [8, 8, 16, 16], "depths": [1] * 4, "num_heads": [1, 1, 2, 2], "num_groups": [1, 1, 2, 2]}
    frame = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "decoder_start_token_id": 3}
    text = {k: v for k, v in DETR.items() if k != "num_queries"} | frame
    text |= {"model_type": "bart", "vocab_size": 60, "max_position_embeddings": 64}
    config = t.Florence2Config(
        vision_config=vision | {"window_size": 2, "projection_dim": 16}, text_config=text, image_token_id=59
    )
    model = t.Florence2ForConditionalGeneration(config)
    model.generation_config.forced_bos_token_id = 2
    model.generation_config.forced_eos_token_id = 3
    return model


BERT = {"begin": "[CLS]", "end": "[SEP]"}
MODELS: dict[str, Callable[[Any], Any]] = {
    "rt_detr_v2": lambda t: _rt_detr(t, "RTDetrV2ForObjectDetection", "RTDetrV2Config"),
    "detr": _detr,
    "rt_detr": lambda t: _rt_detr(t, "RTDetrForObjectDetection", "RTDetrConfig"),
    "d_fine": _d_fine,
    "yolos": _yolos,
    "grounding_dino": _grounding_dino,
    "segformer": _segformer,
    "mask2former": _mask2former,
    "eomt": _eomt,
    "sam": _sam,
    "vit": lambda t: t.ViTForImageClassification(t.ViTConfig(**VIT, **_names())),
    "vit_plain": lambda t: t.ViTModel(t.ViTConfig(**VIT)),
    "dinov2": lambda t: t.Dinov2Model(t.Dinov2Config(**VIT)),
    "dinov2_head": lambda t: t.Dinov2ForImageClassification(t.Dinov2Config(**VIT, **_names())),
    "dinov2_registers": lambda t: t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**VIT)),
    "dinov3": lambda t: t.DINOv3ViTModel(t.DINOv3ViTConfig(**VIT, num_register_tokens=2)),
    "siglip": lambda t: _clip_like(t, "SiglipModel", "SiglipConfig"),
    "siglip2": _siglip2,
    "clip": lambda t: _clip_like(t, "CLIPModel", "CLIPConfig"),
    "convnextv2": _convnextv2,
    "blip": _blip,
    "git": _git,
    "florence2": _florence2,
}
"""Architecture -> a small model of it, given the transformers module."""

SHORTEST = {"shortest_edge": SIDE, "longest_edge": 2 * SIDE}
SQUARE = {"height": 32, "width": 32}
CROPPED = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "rt_detr_v2": ("RTDetrImageProcessorPil", {"size": {"height": SIDE, "width": SIDE}}),
    "detr": ("DetrImageProcessorPil", {"size": SHORTEST}),
    "rt_detr": ("RTDetrImageProcessorPil", {"size": {"height": SIDE, "width": SIDE}}),
    "d_fine": ("RTDetrImageProcessorPil", {"size": {"height": SIDE, "width": SIDE}}),
    "yolos": ("YolosImageProcessorPil", {"size": {"shortest_edge": SIDE + 5, "longest_edge": 2 * SIDE}}),
    # Its extra level would be a single pixel of a smaller picture, which its group norm refuses.
    "grounding_dino": ("GroundingDinoImageProcessorPil", {"size": {"shortest_edge": 128, "longest_edge": 200}}),
    "segformer": ("SegformerImageProcessorPil", {"size": {"height": SIDE, "width": SIDE}}),
    "mask2former": ("Mask2FormerImageProcessorPil", {"size": {"shortest_edge": SIDE - 6, "longest_edge": 200}}),
    "eomt": ("EomtImageProcessorPil", {"size": {"shortest_edge": SIDE, "longest_edge": SIDE}}),
    "sam": (
        "SamImageProcessorPil",
        {"size": {"longest_edge": SIDE}, "pad_size": {"height": SIDE, "width": SIDE}},
    ),
    "vit": ("ViTImageProcessorPil", {"size": SQUARE}),
    "vit_plain": ("ViTImageProcessorPil", {"size": SQUARE}),
    "dinov2": ("BitImageProcessorPil", CROPPED),
    "dinov2_head": ("BitImageProcessorPil", CROPPED),
    "dinov2_registers": ("BitImageProcessorPil", CROPPED),
    "siglip": ("SiglipImageProcessorPil", {"size": SQUARE}),
    "siglip2": ("Siglip2ImageProcessorPil", {"patch_size": 8, "max_num_patches": 17}),
    "clip": ("CLIPImageProcessorPil", CROPPED),
    "convnextv2": ("ConvNextImageProcessorPil", {"size": {"shortest_edge": SIDE}}),
    "blip": ("BlipImageProcessorPil", {"size": SQUARE}),
    "git": ("CLIPImageProcessorPil", CROPPED),
    "florence2": ("CLIPImageProcessorPil", {"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False}),
}
DINOV3 = {
    "image_processor_type": "DINOv3ViTImageProcessorFast",
    "size": SQUARE,
    "resample": 2,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
"""Its image processor needs torchvision, so its file is written by hand."""

TOKENIZERS: dict[str, dict[str, Any]] = {
    "grounding_dino": BERT | {"size": 1013},
    "siglip": {"begin": "<s>", "end": "</s>"},
    "clip": {"begin": "<s>", "end": "</s>"},
    "blip": BERT,
    "git": BERT,
    "florence2": {"begin": "<s>", "end": "</s>"},
}
KINDS = {
    "detection": ("rt_detr_v2", "detr", "rt_detr", "d_fine", "yolos", "grounding_dino"),
    "segmentation": ("mask2former", "segformer", "eomt", "sam"),
    "classification": (
        *("vit", "vit_plain", "dinov2", "dinov2_head", "dinov2_registers", "dinov3"),
        *("siglip", "siglip2", "clip", "convnextv2"),
    ),
    "captioning": ("blip", "git", "florence2"),
}
"""Which architectures are of which kind of task; the first stands for the kind."""


def kind_of(architecture: str) -> str:
    """The recipe's kind of an architecture."""
    return next(kind for kind, names in KINDS.items() if architecture in names)


def small_checkpoint(kind_or_architecture: str, folder: Path) -> Path:
    """Write a small random checkpoint.

    Args:
        kind_or_architecture: a key of `KINDS` or of `MODELS`.

    Returns:
        The folder, which is made.
    """
    name = KINDS.get(kind_or_architecture, (kind_or_architecture,))[0]
    torch.manual_seed(3)
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    model = MODELS[name](transformers).eval()
    # Fresh networks hardly tell one picture from another.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.25 if parameter.ndim > 1 else 0.05))
    model.save_pretrained(folder)
    if name in PROCESSORS:
        processor, options = PROCESSORS[name]
        getattr(transformers, processor)(**options).save_pretrained(folder)
    else:
        (folder / "preprocessor_config.json").write_text(json.dumps(DINOV3))
    if name == "siglip2":
        letters = {
            piece: i for i, piece in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", "▁", ".", *"abcdefghilopqrst"])
        }
        transformers.Siglip2Tokenizer(vocab=letters, merges=[]).save_pretrained(folder)
    if name in TOKENIZERS:
        small_tokenizer(**TOKENIZERS[name]).save_pretrained(folder)
    logging.set_verbosity(level)
    return folder


# Untrained networks are sure of little; the thresholds leave some slots full.
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"tokens": 6, "threshold": 0.2} for name in ("rt_detr_v2", "detr", "rt_detr", "d_fine", "yolos")},
    "grounding_dino": {"tokens": 6, "phrases": PHRASES},
    **{name: {"tokens": 4, "threshold": 0.05} for name in ("mask2former", "segformer", "eomt")},
    **{name: {"tokens": 4} for name in ("sam", "vit_plain", "dinov2", "dinov2_registers", "dinov3")},
    **{name: {"tokens": 5, "top": 3} for name in ("vit", "dinov2_head", "convnextv2")},
    **{name: {"tokens": 5, "phrases": PHRASES} for name in ("siglip", "siglip2", "clip")},
    **{name: {"tokens": 4} for name in ("blip", "git", "florence2")},
}


def loaded(entry: ExpertEntry) -> ExpertBank:
    """A bank of one expert, "it", with the checkpoint's weights."""
    bank = ExpertBank({"it": resolve("it", entry)})
    load_checkpoint("it", bank["it"], entry)
    return bank
