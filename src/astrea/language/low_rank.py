"""Low-rank tuning of the language model (LoRA, arXiv 2106.09685) by the library peft.

The adapters are layers inside the language model, which stays what it was otherwise: same class, same names but for the
layers concerned. Their names in a state dict hold ``.lora_``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn
from transformers import PreTrainedModel

from astrea.common.errors import AstreaError
from astrea.common.installation import import_extra
from astrea.language.low_rank_options import LowRank

MARK = ".lora_"


def require_peft() -> Any:
    """The library.

    Raises:
        AstreaError: it is not installed.
    """
    return import_extra("peft", "lora", "low-rank tuning")


def inject(language_model: PreTrainedModel, options: Mapping[str, Any]) -> None:
    """Put fresh adapters into a language model; until they learn it computes what it did.

    Args:
        options: the fields of `astrea.language.low_rank_options.LowRank`.

    Raises:
        AstreaError: peft is missing, the options are out of range, or they name no layer, or the words' own tables.
    """
    hint = 'set llm.low_rank.targets to "all-linear" or to names of linear layers, such as [q_proj, v_proj]'
    try:
        wanted = LowRank.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise AstreaError(
            f"low_rank.{where}: {first['msg']}", "give low_rank the values that a recipe may have"
        ) from None
    peft = require_peft()
    for name in wanted.targets if not isinstance(wanted.targets, str) else ():
        found = [m for path, m in language_model.named_modules() if f".{path}".endswith(f".{name}")]
        ends = (language_model.get_input_embeddings(), language_model.get_output_embeddings())
        if not found or any(module is end for module in found for end in ends):
            said = "names the table of words or the output layer" if found else "is no layer of the language model"
            raise AstreaError(f"low_rank.targets: {name!r} {said}", hint)
    settings = peft.LoraConfig(
        r=wanted.rank,
        lora_alpha=wanted.alpha,
        lora_dropout=wanted.dropout,
        target_modules=wanted.targets if isinstance(wanted.targets, str) else list(wanted.targets),
    )
    with warnings.catch_warnings():
        # GPT-2 keeps its matrices the other way round; peft sees it by itself and says so for every layer.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        try:
            peft.inject_adapter_in_model(settings, language_model)
        except ValueError as error:
            raise AstreaError(f"low_rank.targets: {str(error).splitlines()[0][:200]}", hint) from error
    for _, parameter in adapter_parameters(language_model):
        # Small steps vanish in half precision; peft casts where the two meet.
        parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return MARK in name


def adapter_parameters(language_model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The adapters' own parameters, by name."""
    return ((name, p) for name, p in language_model.named_parameters() if is_adapter(name))


def merge(model: Any) -> None:
    """Add what the adapters of an Astrea model have learned to the matrices they sit on, and take them out.

    Raises:
        AstreaError: the model has none, or one of them holds NaN or infinity.
    """
    if model.config.low_rank is None:
        raise AstreaError("this model has no low-rank adapters", "there is nothing to merge; use it as it is")
    layer_kind = require_peft().tuners.lora.LoraLayer
    language_model = model.language_model
    for path, layer in list(language_model.named_modules()):
        if isinstance(layer, layer_kind):
            try:
                layer.merge(safe_merge=True)
            except ValueError as error:
                raise AstreaError(
                    f"the adapter of {path} holds NaN or infinity", "take an earlier checkpoint of the run"
                ) from error
            parent, _, name = path.rpartition(".")
            setattr(language_model.get_submodule(parent), name, layer.get_base_layer())
    if hasattr(language_model, "peft_config"):
        del language_model.peft_config
    model.config.low_rank = None
