"""What the stages of a run start from: pretrained components, or a finished model that the run goes on from."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from astrea.common.errors import AstreaError
from astrea.data.worlds import open_world
from astrea.experts.pretrained.entry import resolve
from astrea.fusion.registry import options_of, strategy_class
from astrea.language.low_rank import inject
from astrea.model.configuration import AstreaConfig
from astrea.model.loading import load_model
from astrea.recipes.recipe import Recipe
from astrea.training.assembly import Assembled, assemble_with_reference, configure

COMPARED = (
    *("experts", "strategy", "fusion", "findings", "adapter_hidden", "contrast_width", "image_size", "attention"),
    "low_rank",
)
"""What a recipe says of the model, and has to say of the one it goes on from."""


def beginning(recipe: Recipe, components: Path | None) -> Assembled:
    """What a recipe's stages start from: `assemble_with_reference`, or the finished model that ``run.start`` names;
    with the words of the questions that it will be asked.

    Raises:
        AstreaError: see `assemble_with_reference` and `begun`.
    """
    made = assemble_with_reference(recipe, components) if recipe.start is None else begun(recipe)
    if recipe.data.train is not None:
        return made
    return made._replace(tokenizer=open_world(recipe).learn_vocabulary(made.model, made.tokenizer))


def begun(recipe: Recipe) -> Assembled:
    """The finished model that ``run.start`` names, and its tokenizer.

    Raises:
        AstreaError: there is no such model, or it is another one than the recipe describes; says where they differ.
    """
    assert recipe.start is not None
    # A recipe is the user's own word: what it names may be imported.
    model, processor = load_model(recipe.start, trust_remote_code=True)
    if model.config.low_rank is None and recipe.llm.low_rank is not None:
        # What a run learned was merged when it was written: this one learns on top of it.
        model.config.low_rank = recipe.llm.low_rank.model_dump(mode="json")
        inject(model.language_model, model.config.low_rank)
    check_fits(recipe, model.config, recipe.start)
    model.config.agreement = recipe.model.agreement
    # What is usual is learned anew at the end; nobody is left out meanwhile.
    model.model.word_agreement = None
    return Assembled(model, processor.tokenizer, None)


def check_fits(recipe: Recipe, config: AstreaConfig, folder: str) -> None:
    """Whether a model's configuration is what a recipe describes.

    Args:
        folder: the model's, as messages name it.

    Raises:
        AstreaError: it is another; says where they differ.
    """
    entries = {name: resolve(name, entry) for name, entry in recipe.experts.items()}
    wanted = configure(recipe, entries, config.text_config, config.image_token_id)
    for name in COMPARED:
        asked, there = getattr(wanted, name), getattr(config, name)
        if asked != there and not (name == "fusion" and same_fusion(wanted.strategy, asked, there)):
            hint = f"go on with the recipe that it was made with, which `astrea recipe show {folder}` prints"
            if name == "experts" and asked.keys() == there.keys():
                other = next(key for key in there if asked[key] != there[key])
                name, asked, there = f"experts.{other}", asked[other], there[other]
                hint = f"say the same, {shlex.quote(f'{name}={json.dumps(there)}')}, or {hint}"
            raise AstreaError(f"the model in {folder} has {name}={there!r}, and the recipe asks for {asked!r}", hint)


def same_fusion(strategy: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether options of a strategy mean the same, what is missing being at its default: earlier versions had fewer."""
    found = strategy_class(strategy, allow_import=True)
    try:
        sides = [options_of(found, side).model_validate(dict(side)) for side in (one, other)]
        # What they hold: their models may be made anew each time, and then are two.
        return sides[0].model_dump() == sides[1].model_dump()
    except ValidationError:
        return False
