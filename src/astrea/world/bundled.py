"""The trained model in the package: loaded from what `astrea.world.bundle` wrote.

The compact experts are in the package as pretrained components already. A bundled model therefore holds every tensor
but theirs, in fp16, beside a card that says how it was made, what it scores, where its limits are, and which components
it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file
from astrea.common.foreign_files import MAX_JSON_BYTES, WEIGHTS, read_json
from astrea.common.paths import is_file, is_folder
from astrea.experts.bank import COMPACT
from astrea.model.components import BUNDLED, CARD, fill, load_component, read_card
from astrea.model.folders.processor import read_processor
from astrea.model.layout import with_current_names
from astrea.model.loading import check_pair, read_config, read_judgement
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor

BUNDLED_MODEL = BUNDLED / "model"
EXPERTS = "experts"

INSTALL = "install Astrea again; whoever builds it: pack the model again with `astrea pack`"


def load_bundled(
    folder: Path = BUNDLED_MODEL, *, components: Path = BUNDLED
) -> tuple[AstreaForConditionalGeneration, AstreaProcessor]:
    """The packed model with its experts, in fp32 and evaluation mode, and its processor.

    Args:
        components: the folder of the pretrained components that hold the experts.

    Raises:
        AstreaError: there is no such folder; a file is missing, altered or damaged; a tensor is missing, unknown or of
            another shape (named); or the components are not the ones that the card names.
    """
    if not is_folder(folder):
        raise AstreaError(
            "this build of Astrea ships no trained model",
            "train one in minutes with `astrea quickstart`, then give its folder: runs/quickstart/model",
        )
    card = read_json(folder / CARD, MAX_JSON_BYTES)
    named = card.get("experts")
    config = read_config(folder, apart=f"model.{EXPERTS}.")
    processor = read_processor(folder)
    if sha256_file(folder / WEIGHTS) != card.get("sha256"):
        raise AstreaError(f"{folder / WEIGHTS}: its sha256 is not the one that {CARD} names", INSTALL)
    for kind, digest in expert_components(config.experts, components).items():
        if not isinstance(named, dict) or digest != named.get(kind):
            raise AstreaError(f"{components}: the part {kind!r} is not the one that {folder / CARD} names", INSTALL)
    with torch.random.fork_rng(devices=[]):  # building draws weights that are replaced at once
        model = AstreaForConditionalGeneration(config)
    for name, entry in config.experts.items():
        load_component(model.experts[name], components, entry["kind"])
    fill(learned(model), folder / WEIGHTS, "model", rename=lambda own: with_current_names(own, config.text_config))
    if is_file(folder / "generation_config.json"):
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    check_pair(folder, model, processor)
    read_judgement(folder, model)
    return model.eval(), processor


def learned(model: AstreaForConditionalGeneration) -> nn.ModuleDict:
    """Everything but the experts, its tensors under the names that they have in the whole model."""
    inner = {name: child for name, child in model.model.named_children() if name != EXPERTS}
    return nn.ModuleDict({"model": nn.ModuleDict(inner), "lm_head": model.lm_head})


def expert_components(experts: Mapping[str, Mapping[str, Any]], components: Path) -> dict[str, str]:
    """The sha256 of every component that these experts are filled from, by kind, as the card of ``components`` has it.

    Raises:
        AstreaError: an expert of a kind that is no part.
    """
    known = read_card(components).get("sha256", {})
    for name, entry in experts.items():
        if entry["kind"] not in COMPACT or entry["kind"] not in known:
            raise AstreaError(
                f"the expert {name!r} is of kind {entry['kind']!r}, which {components} holds no part for",
                f"a model that ships has experts of these kinds only: {', '.join(COMPACT)}",
            )
    return {kind: known[kind] for kind in COMPACT if kind in {entry["kind"] for entry in experts.values()}}
