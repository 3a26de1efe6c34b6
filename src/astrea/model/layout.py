"""Where the tensors of a model lie: under ``model.`` (experts, alignment, fusion, language model) and ``lm_head.``, as
transformers lays out a vision-language model; and how the names of earlier folders become these.

Earlier folders had no ``model.``, and the whole language model under ``language_model.``, its head included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from astrea.common.errors import AstreaError

PARTS = ("experts", "alignment", "fusion")
"""What is Astrea's own in ``model.``, beside ``language_model``."""

HEADS = ("lm_head", "embed_out", "output_projection", "cls")
"""What causal language models of transformers call their heads."""


def renamings(text_config: PreTrainedConfig) -> dict[str, str]:
    """How names of earlier folders change, as ``from_pretrained(key_mapping=...)`` takes it: pattern -> replacement.
    Names of today match none of the patterns.

    Args:
        text_config: of the language model, whose kind decides what its class calls the model inside.
    """
    kind: Any = AutoModelForCausalLM._model_mapping.get(type(text_config), None)
    inner = "model" if kind is None else kind.base_model_prefix
    own = {rf"^{part}\.": f"model.{part}." for part in PARTS}
    return own | {
        rf"^language_model\.{inner}\.": "model.language_model.",
        rf"^language_model\.(?:{'|'.join(HEADS)})\.": "lm_head.",
    }


def current_names(names: Iterable[str], text_config: PreTrainedConfig) -> dict[str, str]:
    """Today's name of every tensor, by the name that it has in a folder of any version."""
    patterns = [(re.compile(pattern), new) for pattern, new in renamings(text_config).items()]
    found = {}
    for name in names:
        fitting = ((pattern, new) for pattern, new in patterns if pattern.match(name))
        pattern, new = next(fitting, (None, ""))
        found[name] = name if pattern is None else pattern.sub(new, name, count=1)
    return found


def with_current_names(tensors: Mapping[str, Any], text_config: PreTrainedConfig) -> dict[str, Any]:
    """Tensors of a folder of any version under today's names."""
    names = current_names(tensors, text_config)
    return {names[name]: tensor for name, tensor in tensors.items()}


def split_head(causal: PreTrainedModel) -> tuple[PreTrainedModel, str]:
    """The model inside a causal language model, and the name of the child that makes scores of its states.

    Raises:
        AstreaError: it is not made of these two alone.
    """
    inner: Any = causal.base_model
    end = causal.get_output_embeddings()
    heads = [name for name, child in causal.named_children() if any(part is end for part in child.modules())]
    if inner is causal or end is None or len(heads) != 1 or causal.get_submodule(heads[0]) is inner:
        raise AstreaError(
            f"{type(causal).__name__} is no model with a head of its own", "choose another language model"
        )
    known = tuple(f"{name}." for name, child in causal.named_children() if child is inner or name == heads[0])
    others = [name for name in causal.state_dict() if not name.startswith(known)]
    if others:
        raise AstreaError(
            f"{type(causal).__name__} has weights outside of its inner model and its head ({others[0]})",
            "choose another language model",
        )
    return inner, heads[0]


def inner_names(causal: PreTrainedModel) -> dict[str, str]:
    """The beginnings of a causal language model's names -> those that they have in an Astrea model."""
    inner, head = split_head(causal)
    name = next(name for name, child in causal.named_children() if child is inner)
    return {f"{name}.": "model.language_model.", f"{head}.": "lm_head."}


def parts_of(model: nn.Module) -> nn.Module:
    """The module that holds experts, alignment and fusion: the model itself, or the one under its head."""
    return model if "experts" in model._modules else model.get_submodule("model")
