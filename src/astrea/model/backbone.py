"""The model without its head: experts -> alignment -> fusion -> language model, as a transformers model.

Letters: B rows of text, N pictures (in reading order over the rows), L text length, E experts, M visual tokens per
picture, S questions per row, D language-model width, P contrast width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import can_return_tuple

from astrea.alignment.alignment import Alignment
from astrea.common.errors import AstreaError
from astrea.common.float32 import in_full, wide
from astrea.common.paths import is_folder
from astrea.common.transformers_compat import keep_every_key, room_of
from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import ExpertFeatures
from astrea.fusion.protocol import FusionStrategy, Layout, VisualTokens
from astrea.fusion.registry import build_strategy
from astrea.language.low_rank import inject
from astrea.language.question_span import find_questions
from astrea.language.windows import windows_of
from astrea.model.configuration import AstreaConfig
from astrea.model.embedding import Embedding
from astrea.model.folders.saved import settle_modes, write_card
from astrea.model.keys import Keys, past_mask, recall
from astrea.model.outputs import AstreaModelOutput
from astrea.model.quantization import leave_out_small_parts
from astrea.model.reading import Text, placeholders, read
from astrea.model.rows import rows_of_pictures
from astrea.model.step import Step

Features = Mapping[str, ExpertFeatures]


class AstreaModel(Embedding, PreTrainedModel):
    """Experts, adapters, fusion and language model in one module and in one safetensors folder.

    The language model may be any that `AutoModelForCausalLM` builds and that obeys a four-dimensional mask. Its own
    input embeddings, as its embedding *module* gives them (Gemma scales them there), are the space that visual tokens
    live in. It may have a type of its own (bfloat16, say): whatever meets it is cast where they meet. Shares, trust and
    word matches are computed in float32 at least, whatever the weights are kept in.

    ``language_model`` is the whole of it, head included, so that a folder holds the same tensors whichever class reads
    it; this class does not run the head.

    Args:
        allow_import: whether experts of kind "module:Class" may be imported.
        language_model: a loaded one that ``config.text_config`` describes; None = a fresh one.
    """

    config_class = AstreaConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules: list[str] = []
    _skip_keys_device_placement = ["past_key_values", "cache"]

    def __init__(
        self, config: AstreaConfig, *, allow_import: bool = False, language_model: PreTrainedModel | None = None
    ) -> None:
        super().__init__(config)
        self.windows = windows_of(config.text_config)
        self.experts = ExpertBank(config.experts, allow_import=allow_import)
        width = config.text_config.hidden_size
        self.alignment = Alignment(
            {name: (self.experts[name].num_tokens, self.experts[name].width) for name in self.experts.names},
            hidden=config.adapter_hidden,
            model_width=width,
            contrast=config.contrast_width,
        )
        layout = Layout(
            width, tuple(self.experts.names), tuple(self.experts.token_counts), config.text_config.num_attention_heads
        )
        self.fusion = build_strategy(config.strategy, layout, config.fusion)
        if language_model is None:
            kind = {} if config.language_dtype is None else {"dtype": config.language_dtype}
            language_model = AutoModelForCausalLM.from_config(config.text_config, **kind)
        self.language_model = language_model
        self.post_init()
        # Not before: what is not the language model's own would be given fresh values of its kind.
        if config.low_rank is not None:
            inject(self.language_model, config.low_rank)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder: Any, *args: Any, trust_remote_code: bool | None = None, **kwargs: Any
    ) -> Any:
        """As in transformers. Experts of kind "module:Class" are imported only with ``trust_remote_code=True``. With a
        ``quantization_config`` only the language model's own layers are quantised (`astrea.model.quantization`)."""
        leave_out_small_parts(kwargs.get("quantization_config"))
        allowed = bool(trust_remote_code)
        loaded = super().from_pretrained(
            folder, *args, trust_remote_code=trust_remote_code, allow_import=allowed, **kwargs
        )
        model = loaded[0] if isinstance(loaded, tuple) else loaded
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
        has written one already."""
        self.config.text_config.name_or_path = ""
        if self.config.language_dtype is not None:
            self.config.language_dtype = str(self.embedding_table().dtype).removeprefix("torch.")
        saved = super().save_pretrained(*args, **kwargs)
        folder = Path(args[0] if args else kwargs["save_directory"])
        if kwargs.get("is_main_process", True) and is_folder(folder):
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
        return next(self.alignment.parameters()).dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """As in torch, but what a language model computes its positions with (tables that no folder holds) is never
        narrowed: in half precision far positions would be the same."""
        before = unsaved_buffers(self.language_model) if "language_model" in self._modules else {}
        super()._apply(fn, recurse)
        for name, table in before.items():
            holder = self.language_model.get_submodule(name.rpartition(".")[0])
            now = holder._buffers[name.rpartition(".")[2]]
            if now is not None and table.is_floating_point() and now.dtype.itemsize < table.dtype.itemsize:
                holder._buffers[name.rpartition(".")[2]] = table.to(now.device)
        return self

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Every part initialises itself; nothing here may overwrite a zero start or pretrained weights."""

    @property
    def num_visual_tokens(self) -> int:
        """M: how many image placeholders one picture takes in ``input_ids``."""
        return self.fusion.num_tokens

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: torch.nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """As in transformers: more or fewer words in the language model's tables, and in the configuration."""
        found = self.language_model.resize_token_embeddings(*args, **kwargs)
        self.config.text_config.vocab_size = self.language_model.config.vocab_size
        return found

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

    def see(self, pixel_values: Tensor | None) -> dict[str, ExpertFeatures]:
        """Every expert's features of pictures (N, 3, H, W) in 0..1; no gradient reaches an expert.

        Raises:
            AstreaError: there are no pictures.
        """
        if pixel_values is None:
            raise AstreaError("neither pixel_values nor features were given", "pass one of them")
        with torch.no_grad():
            return self.experts(pixel_values)

    def fuse(
        self,
        features: Features,
        present: Tensor | None,
        question_NSD: Tensor,
        generator: torch.Generator | None,
        fusion: FusionStrategy | None = None,
    ) -> VisualTokens:
        """Alignment and fusion (the model's own, or another one's) of pictures whose questions are (N, S, D)."""
        matrix = in_full(self.alignment, features, present)
        question_NSD = question_NSD.to(matrix.tokens.dtype)
        return in_full(self.fusion if fusion is None else fusion, matrix, question_NSD, generator)

    def get_image_features(
        self, pixel_values: Tensor | None = None, features: Features | None = None, present: Tensor | None = None
    ) -> BaseModelOutputWithPooling:
        """The visual tokens (N, M, D) of pictures for no question in particular, as the language model would read them:
        the ``pooler_output``, as in transformers; the same under ``last_hidden_state``."""
        features = self.see(pixel_values) if features is None else features
        nothing = self.embedding_table().new_zeros(
            len(next(iter(features.values())).tokens), 1, self.config.text_config.hidden_size
        )
        tokens = self.fuse(features, present, nothing.to(wide(nothing.dtype)), None).tokens
        return BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=tokens)

    def step(
        self,
        input_ids: Tensor | None,
        *,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        features: Features | None = None,
        present: Tensor | None = None,
        question_mask: Tensor | None = None,
        segments: Tensor | None = None,
        questions: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        generator: torch.Generator | None = None,
        fusion: FusionStrategy | None = None,
    ) -> Step:
        """All that happens before the language model runs; arguments and errors as in `forward`."""
        fusion = self.fusion if fusion is None else fusion
        embedding = self.get_input_embeddings()
        embeds = embedding(input_ids) if inputs_embeds is None else inputs_embeds
        is_image = placeholders(input_ids, embeds, self.config.image_token_id, embedding)
        use_cache = not self.training if use_cache is None else use_cache
        cache = past_key_values if cache is None else cache
        if cache is None and use_cache:
            cache = DynamicCache()
        past = self._check_cache(cache, embeds.shape[1])
        known = None
        if past and cache is not None:
            known = recall(cache, past) or Keys.of_text(past_mask(attention_mask, embeds, past), embeds)
            if segments is not None:
                raise AstreaError("packed rows cannot go on from a cache", "leave out segments, or the cache")
            if pixel_values is None and features is None:
                # Without a picture to put there it is a word like others; drafts of an answer may hold it.
                is_image = torch.zeros_like(is_image)
        question_mask = self._question_mask(question_mask, None if past or segments is not None else input_ids)
        text = Text(embeds, is_image, attention_mask, question_mask, labels, segments, questions)
        if features is None and pixel_values is not None:
            features = self.see(pixel_values)
        rows = visual = None
        if features is not None or not past:
            rows = rows_of_pictures(is_image, features, fusion.num_tokens)
        if features is not None and rows is not None:
            visual = self.fuse(features, present, text.mean_questions()[rows], generator, fusion)
        reading = read(text, visual, rows, fusion.word_match, fusion.num_tokens, known)
        self._check_length(reading.keys.positions.shape[1], reading.positions)
        return Step(reading, cache, use_cache, visual)

    def _question_mask(self, given: Tensor | None, input_ids: Tensor | None) -> Tensor | None:
        """The mask of the questions; found anew, if the configuration tells how, where there is none, or one of prompts
        that have been moved and answered since."""
        span = self.config.question_span
        if span is None or input_ids is None or (given is not None and given.shape == input_ids.shape):
            return given
        return find_questions(input_ids, span)

    def _check_cache(self, cache: Cache | None, new: int) -> int:
        """How many keys a cache holds; an empty one is made fit for this model's windows."""
        if cache is None:
            return 0
        past = int(cache.get_seq_length())
        if not past and self.windows is not None:
            # A cache made for windows drops keys by their number; here windows count positions: a picture is one.
            keep_every_key(cache)
        room = room_of(cache)
        if room is not None and past + new > room:
            raise AstreaError(
                f"the cache has room for {room} tokens; {past + new} are needed", "make a larger one (max_cache_len)"
            )
        return past

    def _check_length(self, tokens: int, positions_BL: Tensor) -> None:
        """Whether the language model has a position for every token; looks at the positions only where it must."""
        most = getattr(self.config.text_config, "max_position_embeddings", None)
        if most is not None and tokens > most and (last := int(positions_BL.max())) >= most:
            raise AstreaError(
                f"a row has {last + 1} positions; the language model knows {most}: {last + 1 - most} too many",
                "shorten the text, or choose a language model for longer ones",
            )

    def wanted(self, **flags: bool | None) -> dict[str, bool]:
        """What else the language model is to return (output_attentions, output_hidden_states): as the call says, or the
        configuration where the call says nothing."""
        told = {name: getattr(self.config, name, None) if flag is None else flag for name, flag in flags.items()}
        return {name: True for name, flag in told.items() if flag}

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        features: Features | None = None,
        present: Tensor | None = None,
        question_mask: Tensor | None = None,
        segments: Tensor | None = None,
        questions: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        generator: torch.Generator | None = None,
        fusion: FusionStrategy | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> AstreaModelOutput:
        """One pass without the head; see `AstreaForConditionalGeneration.forward`. Labels only say which tokens are an
        answer and therefore no part of the question."""
        step = self.step(
            input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            features=features,
            present=present,
            question_mask=question_mask,
            segments=segments,
            questions=questions,
            labels=labels,
            inputs_embeds=inputs_embeds,
            past_key_values=past_key_values,
            cache=cache,
            use_cache=use_cache,
            generator=generator,
            fusion=fusion,
        )
        more = self.wanted(output_attentions=output_attentions, output_hidden_states=output_hidden_states)
        out = self.language_model.base_model(**step.arguments(self.windows), **more)
        return AstreaModelOutput(last_hidden_state=out.last_hidden_state, **step.outputs(out))


def unsaved_buffers(module: torch.nn.Module) -> dict[str, Tensor]:
    """The buffers that a state dict leaves out, by name."""
    saved = module.state_dict().keys()
    return {name: buffer for name, buffer in module.named_buffers() if name not in saved}


def refuse_offloaded_parts(model: AstreaModel) -> None:
    """Offloading fetches weights when the layer that holds them runs; the language model's layers keep to that, those
    of experts need not (torch's attention reads its output layer's weights itself).

    Raises:
        AstreaError: a device map offloads anything but the language model.
    """
    if not hasattr(model, "hf_device_map"):
        return
    for name in ("experts", "alignment", "fusion"):
        if any(tensor.is_meta for tensor in model.get_submodule(name).parameters()):
            raise AstreaError(
                f"the device map offloads {name}, and only the language model can be offloaded",
                'give the small parts a place where they can stay: device_map={"experts": DEVICE, "alignment": DEVICE, '
                '"fusion": DEVICE, "language_model": "disk"}',
            )
