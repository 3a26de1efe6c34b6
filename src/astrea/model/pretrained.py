"""What `AstreaModel` and `AstreaForConditionalGeneration` share: loading, saving, and number types."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig, PreTrainedModel

from astrea.common.errors import AstreaError
from astrea.common.paths import is_folder
from astrea.confidence.agreement import save_agreement
from astrea.experts.bank import ExpertBank
from astrea.model.configuration import AstreaConfig
from astrea.model.folders.saved import settle_modes, write_card
from astrea.model.layout import PARTS, parts_of, renamings
from astrea.model.quantization import leave_out_small_parts

HUB = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


class AstreaPreTrainedModel(PreTrainedModel):
    """The base of both classes, as transformers has one for each of its models."""

    config_class = AstreaConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules: list[str] = []
    _skip_keys_device_placement = ["past_key_values", "cache"]

    config: AstreaConfig
    alignment: Any
    experts: Any
    language_model: Any

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder: Any, *args: Any, trust_remote_code: bool | None = None, **kwargs: Any
    ) -> Any:
        """As in transformers; folders of earlier versions too. Experts of kind "module:Class" are imported only with
        ``trust_remote_code=True``. With a ``quantization_config`` only the language model's own layers are quantised
        (`astrea.model.quantization`)."""
        leave_out_small_parts(kwargs.get("quantization_config"))
        allowed = bool(trust_remote_code)
        old_names = _renamings_for(folder, kwargs)
        kwargs["key_mapping"] = old_names | (kwargs.get("key_mapping") or {})
        loaded = super().from_pretrained(
            folder, *args, trust_remote_code=trust_remote_code, allow_import=allowed, **kwargs
        )
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # transformers would save under the names that it read, and earlier folders end here.
        read: list[Any] = model._weight_conversions  # type: ignore[assignment]
        model._weight_conversions = [one for one in read if not old_names.keys() & {*one._original_source_patterns}]
        refuse_offloaded_parts(model)
        asked = kwargs.get("dtype", kwargs.get("torch_dtype"))
        if asked not in (None, "auto") and model.config.language_dtype is not None:
            # A type of its own is for those who ask for none.
            model.language_model.to(getattr(torch, asked) if isinstance(asked, str) else asked)
        # transformers leaves buffers that are not in the file uninitialised; the language model and our own parts have
        # an answer to that, the experts of others need not.
        lost = unsaved_buffers(model.experts)
        if lost:
            fresh = unsaved_buffers(ExpertBank(model.config.experts, allow_import=allowed))
            for name, buffer in lost.items():
                buffer.copy_(fresh[name])
        return loaded

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; the language model comes back in the type that it has now. Where it once came from is
        left out: the folder is whole, and may go to somebody who need not know the paths of this machine. Whoever
        may read its other files may read the weights, and a model card stands beside them (README.md), unless somebody
        has written one already. How sound experts agree is kept beside the weights, if the model knows it."""
        self.config.text_config.name_or_path = ""
        if self.config.language_dtype is not None:
            self.config.language_dtype = str(self.embedding_table().dtype).removeprefix("torch.")
        saved = super().save_pretrained(*args, **kwargs)
        folder = Path(args[0] if args else kwargs["save_directory"])
        if kwargs.get("is_main_process", True) and is_folder(folder):
            agreement = getattr(self.base_model, "word_agreement", None)
            if agreement is not None:
                save_agreement(agreement, folder)
            settle_modes(folder)
            write_card(folder, self.config)
        return saved

    def _upload_modified_files(self, working_dir: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, with our card in the place of an empty one."""
        write_card(Path(working_dir), self.config)
        return super()._upload_modified_files(working_dir, *args, **kwargs)

    def embedding_table(self) -> Tensor:
        """The language model's word embeddings as they are stored: (V, D)."""
        return self.get_input_embeddings().get_parameter("weight")

    @property
    def dtype(self) -> torch.dtype:
        """The type of adapters and fusion. Each expert and the language model may have one of its own."""
        return next(self.alignment.parameters()).dtype  # type: ignore[no-any-return]

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Every part initialises itself; nothing here may overwrite a zero start or pretrained weights."""

    def _set_gradient_checkpointing(  # type: ignore[override]
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] = checkpoint, **kwargs: Any
    ) -> None:
        """As in transformers, always without re-entrance: the mask learns too (it carries shares and word matches), and
        re-entrant checkpoints would run backwards through what made it once for every layer."""
        plain = getattr(gradient_checkpointing_func, "func", gradient_checkpointing_func)
        options = getattr(gradient_checkpointing_func, "keywords", {}) | {"use_reentrant": False}
        super()._set_gradient_checkpointing(
            enable=enable, gradient_checkpointing_func=partial(plain, **options), **kwargs
        )


def _renamings_for(folder: Any, kwargs: dict[str, Any]) -> dict[str, str]:
    """How the names of an earlier folder change; transformers itself says what is wrong with one that has no
    configuration."""
    config = kwargs.get("config")
    if not isinstance(config, PreTrainedConfig) and (config or folder) is not None:
        with suppress(OSError):
            options = {name: kwargs[name] for name in HUB if name in kwargs}
            config = AstreaConfig.from_pretrained(config or folder, **options)
    return renamings(config.text_config) if isinstance(config, AstreaConfig) else {}


def unsaved_buffers(module: torch.nn.Module) -> dict[str, Tensor]:
    """The buffers that a state dict leaves out, by name."""
    saved = module.state_dict().keys()
    return {name: buffer for name, buffer in module.named_buffers() if name not in saved}


def refuse_offloaded_parts(model: PreTrainedModel) -> None:
    """Offloading fetches weights when the layer that holds them runs; the language model's layers keep to that, those
    of experts need not (torch's attention reads its output layer's weights itself).

    Raises:
        AstreaError: a device map offloads anything but the language model.
    """
    if not hasattr(model, "hf_device_map"):
        return
    for name in PARTS:
        if any(tensor.is_meta for tensor in parts_of(model).get_submodule(name).parameters()):
            raise AstreaError(
                f"the device map offloads {name}, and only the language model can be offloaded",
                'give the small parts a place where they can stay: device_map={"model.experts": DEVICE, '
                '"model.alignment": DEVICE, "model.fusion": DEVICE, "model.language_model": "disk", "lm_head": "disk"}',
            )
