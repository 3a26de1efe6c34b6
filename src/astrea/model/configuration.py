"""What an Astrea model is made of, as a transformers configuration."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from astrea.alignment.phrase_ids import FINDINGS, check_phrase_ids
from astrea.common.errors import AstreaError
from astrea.fusion.registry import renamed_strategy
from astrea.language.question_span import check_span

ATTENTION = ("eager", "sdpa")
DTYPES = ("float32", "bfloat16", "float16", "float64")


class AstreaConfig(PreTrainedConfig):
    """Configuration of `AstreaForConditionalGeneration`.

    Args:
        text_config: configuration (or its dict) of any model that `AutoModelForCausalLM` builds.
        experts: name -> {"kind": ..., "options": {...}}, in the order of alignment.
        fusion: options of the fusion strategy.
        adapter_hidden: hidden width of every adapter's residual MLP.
        contrast_width: P, width of the retrieval embedding.
        image_token_id: the placeholder that visual tokens replace.
        image_size: side of the square picture that experts are given.
        expert_names: the experts' names in the order of alignment; None = the order of ``experts``, which
            a JSON file does not keep.
        attention: attention implementation of the language model, "eager" or "sdpa"; None = what ``text_config`` asks
            for. The others take no mask of four dimensions.
        language_dtype: type of the language model's weights, such as "bfloat16"; None = that of all the others.
        low_rank: low-rank adapters in the language model, the fields of `astrea.language.low_rank_options.LowRank`;
            None = none.
        findings: how experts' findings enter the language model: "tokens", "phrases" or "written".
        phrase_ids: the experts' phrases in tokens, the fields of `astrea.alignment.phrase_ids.PhraseIds`; None where
            findings enter as tokens.
        question_span: the tokens around a user's words, see `astrea.language.question_span`; None = not known.
        agreement: an expert whose words contradict those of the others counts as absent for that picture, where the
            model's folder says how sound ones agree (`astrea.experts.word_agreement`; `astrea.load` reads it). May be
            changed at any time.

    Raises:
        AstreaError: the experts and their names do not match, the language model is an Astrea model, or an option is
            unknown.
    """

    model_type = "astrea"
    sub_configs = {"text_config": AutoConfig}
    # No code comes with the folder; TRL asks.
    auto_map = {}  # type: ignore[var-annotated]  # with an annotation it would be a field of every config.json
    # Trainer.predict gathers all that a model returns, row by row. Pictures are no rows, and a cache no tensor.
    keys_to_ignore_at_inference = [
        *("past_key_values", "cache", "shares", "image_hidden_states", "aux_loss", "router_logits"),
        *("hidden_states", "attentions"),
    ]

    def __init__(
        self,
        text_config: Any = None,
        experts: dict[str, dict[str, Any]] | None = None,
        strategy: str = "astrea",
        fusion: dict[str, Any] | None = None,
        adapter_hidden: int = 128,
        contrast_width: int = 64,
        image_token_id: int = 4,
        image_size: int = 64,
        expert_names: list[str] | None = None,
        attention: str | None = None,
        language_dtype: str | None = None,
        low_rank: dict[str, Any] | None = None,
        question_span: dict[str, Any] | None = None,
        findings: str = "tokens",
        phrase_ids: dict[str, Any] | None = None,
        agreement: bool = False,
        **kwargs: Any,
    ) -> None:
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        self.text_config = text_config if text_config is not None else AutoConfig.for_model("llama")
        if isinstance(self.text_config, AstreaConfig):
            raise AstreaError("the language model is itself an Astrea model", "give it one that reads text alone")
        entries = experts or {}
        self.expert_names = list(entries) if expert_names is None else list(expert_names)
        if sorted(self.expert_names) != sorted(entries):
            raise AstreaError(
                f"expert_names lists {self.expert_names}, experts has {list(entries)}", "list every expert once"
            )
        self.experts = {name: entries[name] for name in self.expert_names}
        self.strategy, self.fusion = renamed_strategy(strategy, fusion or {})
        self.adapter_hidden = adapter_hidden
        self.contrast_width = contrast_width
        self.image_token_id = image_token_id
        self.image_size = image_size
        # The parent's constructor resets the implementation of every sub-configuration, and never saves it.
        self.attention = attention or self.text_config._attn_implementation
        if language_dtype not in (None, *DTYPES):
            raise AstreaError(f"language_dtype is {language_dtype!r:.80}", f"use one of {', '.join(DTYPES)}")
        self.language_dtype = language_dtype
        self.low_rank = low_rank
        self.question_span = check_span(question_span)
        if findings not in FINDINGS:
            raise AstreaError(f"findings is {findings!r:.80}", f"use one of {', '.join(FINDINGS)}")
        self.findings = findings
        check_phrase_ids(phrase_ids, getattr(self.text_config, "vocab_size", 0))
        self.phrase_ids = phrase_ids
        self.agreement = agreement
        kwargs["attn_implementation"] = kwargs.get("attn_implementation") or self.attention
        # transformers would take another name for code on the hub, and fetch it.
        if kwargs["attn_implementation"] not in (None, *ATTENTION) or self.attention not in (None, *ATTENTION):
            asked = f"{kwargs['attn_implementation']!r:.80}, {self.attention!r:.80}"
            raise AstreaError(f"the attention implementation is {asked}", f"use one of {', '.join(ATTENTION)}")
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            kwargs.setdefault(key, getattr(self.text_config, key, None))
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        # What is in use now, so that a loaded model computes what the saved one did.
        found = super().to_dict() | {"attention": self.text_config._attn_implementation}
        # Said where it is on, so that folders without it stay as they are.
        if not found.get("agreement"):
            found.pop("agreement", None)
        return found
