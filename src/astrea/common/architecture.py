"""A transformers configuration as plain JSON inside an Astrea model, and the network built from it again.

The JSON may come from anybody, so nothing in it may name code to import or something to fetch.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import first_line

_NEVER = ("auto_map", "quantization_config", "attn_implementation", "_attn_implementation", "custom_pipelines")
_FORGOTTEN = ("label2id", "transformers_version", "_name_or_path", "dtype", "torch_dtype", "_commit_hash")
_TIMM = "timm_backbone"


@dataclass(frozen=True, slots=True)
class Network:
    """Which class of transformers holds an architecture, and how it is built.

    model: name of the class. arguments: of the constructor. fixed: whether it takes pictures of one size only, the
    configuration's ``image_size``. step: sides must be a multiple of this. untied: tensors that the configuration says
    are one are kept apart, because whether they are one depends on the checkpoint (RT-DETR's box heads).
    """

    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    fixed: bool = False
    step: int = 1
    untied: bool = False

    def build(self, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
        """A fresh network.

        Raises:
            AstreaError: it needs a package that is not installed, or the configuration describes nothing.
        """
        found = getattr(transformers, self.model)
        try:
            config = copy.deepcopy(config)
            if self.untied:
                config.tie_word_embeddings = False
            model: PreTrainedModel = found._from_config(config, dtype=dtype, **self.arguments).eval()
        except ImportError as error:
            raise AstreaError(
                f"{self.model} needs a package that is missing: {first_line(error)}", _hint(error)
            ) from error
        except Exception as error:  # a configuration that fits nothing makes networks raise nearly any type
            raise AstreaError(
                f"no {self.model} can be built: {first_line(error)}", "check the configuration"
            ) from error
        for part in model.modules():
            if isinstance(part, PreTrainedModel):
                part.is_custom_code = _keeps_names  # type: ignore[method-assign]
        return model


def _keeps_names() -> bool:
    """transformers writes some networks under the names that older versions gave their tensors, and looks for those
    when it reads. Inside an Astrea model they keep the names that they have, as code of one's own does."""
    return True


def describe(config: PreTrainedConfig) -> dict[str, Any]:
    """A configuration as JSON, the same however it was spelled; `restore` reads it back.

    Raises:
        AstreaError: it holds something that JSON has no word for, or that would be imported or fetched.
    """
    plain = {key: value for key, value in _forget(config.to_dict()).items() if key not in ("architectures",)}
    plain.setdefault("model_type", config.model_type)
    try:
        described: dict[str, Any] = json.loads(json.dumps(plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AstreaError(f"the checkpoint's configuration is no JSON: {error}", "use another checkpoint") from error
    _refuse(described)
    return described


def restore(described: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration that `describe` wrote down.

    Raises:
        AstreaError: it is none, or it names something to import or to fetch.
    """
    _refuse(described)
    kind = described.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise AstreaError(f"the architecture {kind!r} is unknown to transformers", "install a newer transformers")
    try:
        config = CONFIG_MAPPING[kind].from_dict(dict(described))
    except Exception as error:  # values out of range make configurations raise nearly any type
        raise AstreaError(
            f"the {kind} configuration is damaged: {first_line(error)}", "get the checkpoint again"
        ) from error
    return config


def _forget(value: Any) -> Any:
    """Without what says nothing about the network itself, at any depth."""
    if isinstance(value, dict):
        return {key: _forget(inner) for key, inner in value.items() if key not in _FORGOTTEN}
    return value


def _refuse(described: Mapping[str, Any]) -> None:
    for level in _levels(described):
        for key in _NEVER:
            if level.get(key) is not None:
                raise AstreaError(f"the architecture asks for {key!r}", "only plain configurations are built")
        name = level.get("backbone")
        # A name here may be looked up on a hub. Timm's own plain names are not.
        if name is not None and not (
            level.get("model_type") == _TIMM and isinstance(name, str) and re.fullmatch(r"[a-z0-9_.]+", name)
        ):
            raise AstreaError(f"the architecture fetches its backbone {name!r}", "use one that describes its backbone")
        if level.get("use_pretrained_backbone"):
            raise AstreaError("the architecture fetches a pretrained backbone", "set use_pretrained_backbone to false")


def _levels(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from _levels(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _levels(inner)


def _hint(error: ImportError) -> str:
    found = re.search(r"pip install [\w.-]+", str(error))
    return f"`{found[0]}`" if found else "install it"
