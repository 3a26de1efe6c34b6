"""Alignment, fusion, and what keeps experts in balance."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, SerializerFunctionWrapHandler, model_serializer, model_validator

from astrea.experts.corruption_names import KINDS
from astrea.fusion.registry import ASTREA
from astrea.language.defaults import WORD_MATCH
from astrea.recipes.part import BadKey, Part
from astrea.recipes.strategies import MODEL_KEYS, SKIPPING, check_model


class Model(Part):
    """Alignment and fusion; every ingredient can be switched off."""

    strategy: str = Field("astrea", description='a name (astrea.fusion.registry), or "module:Class"')
    options: dict[str, Any] = Field({}, description="of another strategy's constructor; Astrea's are the keys below")
    findings: Literal["tokens", "phrases", "written"] = Field(
        "tokens",
        description="how a finding enters the language model: as one token; as a phrase of words and slots, read like "
        "text (`Expert.phrases`); or written out as its likeliest words, in which nothing learns",
    )
    word_match: float = Field(
        WORD_MATCH,
        ge=0,
        description="start of gamma, how strongly a word finds its token; 0 = off. Off where nothing is said and the "
        "language model is not the one built here, for it was never warmed up with it",
    )
    contrast_width: PositiveInt = 64
    adapter_hidden: PositiveInt = 128
    word_start: bool = Field(True, description="adapters start at the language model's embeddings of their labels")
    mixer: bool = Field(True, description="off where findings are phrases and nothing is said")
    residual: bool = Field(False, description="stochastic residual connections, as the paper has them")
    residual_start: float = Field(1.0, ge=0, le=1, description="probability p_0 of the stochastic residual")
    residual_end: float = Field(0.85, ge=0, le=1, description="probability p_1, reached at the end of `fuse`")
    gate: bool = Field(True, description="shares; they learn from contributions alone and are equal without them")
    gate_tau: float = Field(1.0, gt=0)
    gate_question: bool = True
    gate_confidence: bool = False
    gate_targets: Literal["templates", "items"] = Field(
        "templates",
        description="what the gate learns: the mean contributions of each kind of question; or those of every single "
        "item, which it predicts from the question and all that experts say of the picture",
    )
    reliability: bool = Field(
        True,
        description="experts that the others do not echo are not believed; off where findings are phrases and nothing "
        "is said",
    )
    reliability_kinds: list[str] = Field(
        [],
        description="kinds of corruption that reliability is learned from (astrea.experts.corruption_names); "
        "[] = another picture, and stuck slots",
    )
    agreement: bool = Field(
        False,
        description="an expert whose words contradict those of the others counts as absent when questions are "
        "answered; learned from sound experts alone, when training is done (astrea.experts.word_agreement)",
    )
    prune_share: float = Field(
        0.0, ge=0, lt=1, description="share of training questions that read only their best tokens"
    )
    keep_threshold: float = Field(
        0.0, ge=0, description="at evaluation, tokens that promise less are not read; 1 = what an equal share promises"
    )
    pretrained_llm: bool = Field(True, description="start from the pretrained language model; false = from nothing")

    @model_validator(mode="after")
    def _phrases_stay_as_they_are(self) -> Self:
        if self.findings == "tokens" or self.strategy != ASTREA:
            return self
        if self.word_match and "word_match" in self.model_fields_set:
            said = f"there is none where findings enter as {self.findings}; set model.word_match=0"
            raise BadKey(("word_match",), said)
        # Words that a language model knows are not to be mixed with others, nor compared to see who agrees: any two
        # experts say "left" and "top".
        for key, off in (("word_match", 0.0), ("mixer", False), ("reliability", False)):
            if key not in self.model_fields_set:
                object.__setattr__(self, key, off)
        return self

    @model_validator(mode="after")
    def _knows_the_kinds(self) -> Self:
        unknown = [kind for kind in self.reliability_kinds if kind not in KINDS]
        if unknown:
            raise BadKey(("reliability_kinds",), f"no kind of corruption: {unknown[0]!r}; known: {', '.join(KINDS)}")
        return self

    @model_validator(mode="after")
    def _is_read_by_the_strategy(self) -> Self:
        check_model(self.strategy, self.options, self.model_fields_set)
        return self

    @model_serializer(mode="wrap")
    def _without_anothers(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Read back, keys that the strategy does not read would be refused.
        other = set() if self.strategy == ASTREA else set(MODEL_KEYS)
        # Where it is said, so that models from before there was a choice still compare.
        other |= {"findings"} if self.findings == "tokens" else set()
        other |= {"gate_targets"} if self.gate_targets == "templates" else set()
        other |= set() if self.reliability_kinds else {"reliability_kinds"}
        other |= set() if self.agreement else {"agreement"}
        return {key: value for key, value in dump(self).items() if key not in other}

    def fusion(self) -> dict[str, Any]:
        """Options of the strategy's constructor."""
        if self.strategy != ASTREA:
            # What stands for a position where all visual tokens share one; those of phrases have their own.
            ordered = self.strategy == "sequence_concat" and self.findings != "tokens"
            return ({"slot_embedding": False} if ordered else {}) | self.options
        return {
            "mixer": self.mixer,
            "residual": self.residual,
            # Only where it is on, so that models that were trained without it still compare.
            **({"residual_start": self.residual_start, "residual_end": self.residual_end} if self.residual else {}),
            "allocator": self.gate,
            "tau": self.gate_tau,
            "use_question": self.gate_question,
            "use_confidence": self.gate_confidence,
            **({"targets": self.gate_targets} if self.gate_targets != "templates" else {}),
            "trust": self.reliability,
            **({"reliability_kinds": self.reliability_kinds} if self.reliability_kinds else {}),
            "word_match": self.word_match,
            "thrifty": self.prune_share,
            "threshold": self.keep_threshold,
        }


class Contrast(Part):
    """Momentum contrast (after ALBEF, arXiv 2107.07651)."""

    momentum: float = Field(0.995, ge=0, lt=1)
    queue: int = Field(0, ge=0, description="entries per modality, as the paper has them; 0 = in-batch contrast only")
    temperature: float = Field(0.07, gt=0)
    soft_targets: float = Field(0.4, ge=0, lt=1, description="alpha, reached at the end of the first stage")


PHRASE_KEYS = ("phrase_dropout", "own_words", "borrowed_names", "unfamiliar")
"""Keys of `Regularisation` that are read where findings are phrases."""

BORROWING = "borrowed_names"
"""Key of `Regularisation` that came later: written only where it is on."""


class Regularisation(Part):
    """What keeps experts from starving or dominating."""

    expert_dropout: float = Field(0.3, ge=0, lt=1, description="chance that a training picture loses one expert")
    corruption: float = Field(
        0.0, ge=0, lt=1, description="chance that an expert tells a training picture confidently wrong"
    )
    expert_skipping: float = Field(
        0.0,
        ge=0,
        le=1,
        description="training questions are read without the experts that serving would skip for them, below "
        "thresholds drawn from 0 to this; Astrea with a gate",
    )
    phrase_dropout: float = Field(
        0.5,
        ge=0,
        le=1,
        description="chance that a training picture is read without one of the two phrases of an expert that has two "
        "(its features, its own words), so that neither is forgotten; findings as phrases",
    )
    own_words: float = Field(
        0.0,
        ge=0,
        le=1,
        description="chance that a finding which its expert calls by a word of the picture's texts is read without its "
        "features, and without those of other experts there, so that own words are believed where features are left "
        "out; findings as phrases",
    )
    borrowed_names: float = Field(
        0.0,
        ge=0,
        le=1,
        description="chance that a thing of a training picture which its expert names rightly is called by another of "
        "the expert's labels in the finding, question and answer, so that own words are copied; findings as phrases",
    )
    unfamiliar: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="findings whose features are farther from every word that was taught than this share of the "
        "training pictures' are read by their experts' own words alone; 0 = never; findings as phrases",
    )
    load_rate: float = Field(0.02, ge=0, description="eta of the load bias; 0 = off")
    contribution_every: int = Field(5, ge=0, description="steps between counterfactual passes; 0 = off")

    @model_serializer(mode="wrap")
    def _without_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Not where it is off, so that runs from before there was one still compare.
        return {key: value for key, value in dump(self).items() if key not in (SKIPPING, BORROWING) or value}
