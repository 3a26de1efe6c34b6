"""A small random model, its processor and its folder, made once per session. Tests must not change them. A plugin that
`conftest.py` loads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

from astrea import AstreaConfig, AstreaForConditionalGeneration, AstreaProcessor
from astrea.model.components import LANGUAGE, save_component
from astrea.model.processing import AstreaImageProcessor
from astrea.recipes.loader import dump_recipe, load_recipe
from astrea.recipes.recipe import LanguageModel, Recipe
from astrea.training.assembly import assemble
from astrea.world.language.tiny import tiny_language_model, tiny_tokenizer
from astrea.world.pretrain import write_card
from few_scenes import limit_scenes
from language_builders import small_language_model
from small_recipes import SIZES

# No test is about speed, and a busy machine must not make one fail.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

EXPERTS = {
    "captioning": {"kind": "captioning"},
    "classification": {"kind": "classification"},
    # Untrained heads believe in nothing; a low threshold gives these two some slots that are full and some empty.
    "segmentation": {"kind": "segmentation", "options": {"threshold": 0.05}},
    "detection": {"kind": "detection", "options": {"threshold": 0.02}},
}


@torch.no_grad()
def randomise(model: AstreaForConditionalGeneration) -> None:
    """Give every weight and buffer a value of its own, so that no zero start hides a part of the model."""
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if name.startswith("model.experts."):
            # Fresh convolutions let next to nothing of the picture through.
            parameter.mul_(2.5 if parameter.ndim == 4 else 1.0)
        elif parameter.ndim > 1:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
        else:
            parameter.add_(torch.rand(parameter.shape, generator=generator) * 0.2)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var", "load_bias", "load")):
            buffer.add_(torch.rand(buffer.shape, generator=generator) * 0.3)
    model.fusion.residual_keep.fill_(0.85)


@pytest.fixture(scope="session")
def tiny_model() -> AstreaForConditionalGeneration:
    """Four compact experts and a two-layer language model, in evaluation mode."""
    torch.manual_seed(5)  # with this one every expert says something, and detection and segmentation leave slots empty
    tokenizer = tiny_tokenizer()
    language = tiny_language_model(LanguageModel(width=32, layers=2, heads=2, feed_forward=64), tokenizer)
    config = AstreaConfig(
        text_config=language.config.to_dict(),
        experts=EXPERTS,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        attention="eager",
    )
    model = AstreaForConditionalGeneration(config).eval()
    randomise(model)
    return model


@pytest.fixture(scope="session")
def tiny_processor(tiny_model: AstreaForConditionalGeneration) -> AstreaProcessor:
    """The processor of `tiny_model`."""
    return AstreaProcessor(
        AstreaImageProcessor(tiny_model.config.image_size), tiny_tokenizer(), tiny_model.num_visual_tokens
    )


@pytest.fixture(scope="session")
def tiny_folder(
    tiny_model: AstreaForConditionalGeneration,
    tiny_processor: AstreaProcessor,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """`tiny_model` and `tiny_processor`, saved."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Four pictures of different shapes: coarse coloured blocks."""
    generator = np.random.default_rng(3)
    sizes = [(64, 64), (48, 64), (90, 60), (64, 64)]
    blocks = [generator.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in sizes]
    return [Image.fromarray(b).resize(size, Image.Resampling.BICUBIC) for b, size in zip(blocks, sizes, strict=True)]


SMALL = (
    # Every ingredient, also those that are not in the default.
    *("align.progressive=true", "align.train=[adapters, heads]", "align.losses={word: 1.0, itc: 0.3, agree: 0.1}"),
    *("model.residual=true", "model.prune_share=0.3", "regularisation.corruption=0.1"),
    "threads=1",
    *SIZES,
    "contrast.momentum=0.9",
    "experts.segmentation.options={threshold: 0.05}",
    "experts.detection.options={threshold: 0.02}",
    "data.train_scenes=40",
    "data.test_questions=4",
    "data.test_captions=4",
    "data.test_retrieval_groups=2",
    *(
        f"{stage}.{setting}"
        for stage in ("align", "fuse", "tune")
        for setting in ("batch=4", "warmup=1", "save_every=2")
    ),
    "align.steps=10",
    "fuse.steps=4",
    "tune.steps=6",
)


@pytest.fixture(scope="session")
def small_overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What makes the shipped recipe a run of seconds, from parts that are fresh and never trained."""
    folder = tmp_path_factory.mktemp("parts")
    recipe = load_recipe(Recipe, "tiny", SMALL)
    model, _ = assemble(recipe, None)
    with torch.no_grad():
        for parameter in model.experts.parameters():
            parameter.mul_(2.5 if parameter.ndim == 4 else 1.0)  # as in `randomise`
    for name in model.experts.names:
        save_component(model.experts[name], folder / f"{name}.safetensors")
    save_component(model.language_model, folder / f"{LANGUAGE}.safetensors")
    write_card(recipe, folder, judged=0)
    return [*SMALL, f"pretrain={folder}"]


@pytest.fixture(scope="session")
def small_recipe(small_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a recipe of its own."""
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(dump_recipe(load_recipe(Recipe, "tiny", small_overrides)))
    return path


@pytest.fixture(scope="session")
def language_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small random language model of a family (see tests/language/language_builders.py), made once."""
    return functools.cache(lambda family: small_language_model(family, tmp_path_factory.mktemp(family)))


Built = tuple[AstreaForConditionalGeneration, AstreaProcessor]


@pytest.fixture(scope="session")
def build_around(language_checkpoint: Callable[[str], Path]) -> Callable[..., Built]:
    """A model with compact experts around a small language model of a family, in evaluation mode, every weight random,
    and its processor. Further arguments are changes of the recipe. Made once: tests must not change it."""

    @functools.cache
    def build(family: str, *overrides: str) -> Built:
        # Never warmed up with it, but nothing that reads it may lose its tests.
        own = (f"llm.checkpoint={language_checkpoint(family)}", "model.word_match=16", *overrides)
        model, tokenizer = assemble(load_recipe(Recipe, "tiny", [*SMALL, *own]), None)
        randomise(model)
        processor = AstreaProcessor(AstreaImageProcessor(model.config.image_size), tokenizer, model.num_visual_tokens)
        return model.eval(), processor

    return build


@pytest.fixture
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let evaluations judge the experts on 20 scenes instead of 300, for one."""
    limit_scenes(monkeypatch)
