"""What a run is: one tree of small frozen models, read from strict YAML plus dotted overrides.

Defaults live here, once; a recipe states only what it changes or wants seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from astrea.common.devices import Device
from astrea.experts.names import wrong_with
from astrea.fusion.registry import STRATEGIES
from astrea.language.attention import WORD_MATCH
from astrea.recipes.renamed import RENAMED
from astrea.training.loop import Schedule


class Part(BaseModel):
    """Base of every part of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class World(Part):
    """What is trained and evaluated on where ``data.train`` names no files: the embedded world of drawn scenes, or
    another one (see `astrea.data.worlds`)."""

    kind: str = Field("drawn", description='"drawn", a name that a package registered, or "module:Class"')
    canvas: int = Field(64, ge=48, le=512, multiple_of=8)
    difficulty: float = Field(0.5, ge=0, le=1)
    max_objects: int = Field(6, ge=1, le=8)
    seed: int = 0
    options: dict[str, Any] = Field({}, description="of another kind of world; the drawn one has the keys above")

    @model_validator(mode="after")
    def _settings_are_of_its_kind(self) -> World:
        drawn_only = {"difficulty", "max_objects"} & self.model_fields_set
        if self.kind != "drawn" and drawn_only:
            raise ValueError(f"{min(drawn_only)} is of the drawn world; settings of {self.kind!r} stand in options")
        if self.kind == "drawn" and self.options:
            raise ValueError(f"{min(self.options)!r} is no setting of the drawn world")
        return self

    @model_serializer(mode="wrap")
    def _without_usual(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # The drawn world's settings are compared with, and hashed like, those from before there were others.
        own = ("kind", "options") if self.kind == "drawn" else ("difficulty", "max_objects")
        return {key: value for key, value in dump(self).items() if key not in own}


class TrainFile(Part):
    """One data file of one's own (see docs/data.md)."""

    path: str = Field(min_length=1, description='a file, or a pattern such as "shards/*.tar"')
    weight: float = Field(1.0, gt=0, le=1e6, description="how often each of its records is seen per epoch")
    images: str | None = Field(None, description="where its pictures' paths start; null = as data.images says")
    format: str | None = Field(None, description="null = found out from the file")


class Data(Part):
    """How much of the world a run sees, or which data of one's own instead."""

    train: str | tuple[str | TrainFile, ...] | None = Field(
        None, description="a data file, or a list of files or of {path, weight, images, format}; null = the world"
    )
    validation: float | str | tuple[str | TrainFile, ...] | None = Field(
        None,
        description="held-out data of one's own, as train: never learned from, but measured on; or the share of "
        "train's pictures (0.1, say) that is held out with their records",
    )
    validation_every: PositiveInt = Field(
        50, description="optimizer steps of fuse and tune between two measurements of the validation loss"
    )
    validation_records: PositiveInt = Field(128, description="of them that a validation loss is taken on")
    keep_best: bool = Field(False, description="the finished model is that of the lowest validation loss of `tune`")
    images: str | None = Field(None, description="where the pictures' paths start; null = each data file's folder")
    max_tokens: PositiveInt | None = Field(
        None, description="of one's own data: longer conversations are left out; null = what the language model reads"
    )
    row_tokens: PositiveInt | None = Field(
        None, description="of one's own data: conversations share a row of so many tokens; null = one in each row"
    )
    train_scenes: PositiveInt = 6000
    questions_per_scene: int = Field(8, ge=1, le=8, description="one per task at most")
    test_questions: PositiveInt = Field(150, description="per VQA task")
    test_captions: PositiveInt = 150
    test_retrieval_groups: PositiveInt = Field(40, description="each has 4 pictures that differ in one attribute")
    paraphrases: float = Field(
        0.0, ge=0, le=1, description="of the world: share of training questions that are asked in other words"
    )
    unanswerable: float = Field(
        0.0, ge=0, lt=1, description='of the world: share of training questions answered "none" or "cannot tell"'
    )

    @model_validator(mode="after")
    def _is_of_the_world(self) -> Data:
        if self.train is not None and (self.paraphrases or self.unanswerable):
            raise ValueError("paraphrases and unanswerable are of the world's questions, and data.train names others")
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What a run says nothing about is not written, so that it compares with those from before there was more.
        return {key: value for key, value in dump(self).items() if value or key not in ("paraphrases", "unanswerable")}

    @model_validator(mode="after")
    def _a_share_of_something(self) -> Data:
        if isinstance(self.validation, float):
            if not 0 < self.validation < 1:
                raise ValueError("the share that data.validation holds out lies between 0 and 1, such as 0.1")
            if self.train is None:
                raise ValueError("data.validation is a share of data.train, which names no file")
        return self

    @property
    def named_files(self) -> list[str]:
        """Every path or pattern that train and validation name."""
        named = [one for one in (self.train, self.validation) if one is not None and not isinstance(one, float)]
        files = [file for one in named for file in ((one,) if isinstance(one, str) else one)]
        return [file if isinstance(file, str) else file.path for file in files]

    @model_validator(mode="after")
    def _best_of_something(self) -> Data:
        if self.keep_best and self.validation is None:
            raise ValueError("keep_best goes by the loss on held-out data; name some as data.validation")
        return self


class ExpertEntry(Part):
    """One expert: a built-in or registered kind, or "module:Class", and the options of its constructor; or, with
    ``checkpoint``, a kind of task and a transformers checkpoint that does it (see docs/experts.md)."""

    kind: str
    checkpoint: str | None = Field(None, description="a local folder, or a hub id (owner/name) with its revision")
    revision: str | None = Field(None, description="of a hub id: the commit, all 40 digits")
    architecture: dict[str, Any] | None = Field(
        None,
        description="what the checkpoint's config.json says, model_type included; what is left out is as transformers "
        "has it. Estimates then need no checkpoint, and without one the expert has random weights",
    )
    options: dict[str, Any] = {}
    frozen: bool = Field(False, description="stays as it is also where a stage trains `experts`")
    device: Device = Field("auto", description="where it looks in training; auto: as the rest")

    @model_serializer(mode="wrap")
    def _without_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What an entry says nothing about is not written, so that it compares with those from before there was more.
        usual = {"checkpoint": None, "revision": None, "architecture": None, "frozen": False, "device": "auto"}
        return {key: value for key, value in dump(self).items() if key not in usual or value != usual[key]}

    @model_validator(mode="after")
    def _revision_is_of_something(self) -> ExpertEntry:
        if self.revision is not None and self.checkpoint is None:
            raise ValueError(f"a revision {self.revision!r} without a checkpoint says nothing")
        return self


class LowRank(Part):
    """Low-rank tuning of the language model (LoRA): small adapters learn, the language model's own weights do not."""

    rank: int = Field(16, ge=1, le=1024)
    alpha: float = Field(32.0, gt=0, le=1e6, description="what the adapters say counts alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        "all-linear", description="every linear layer but the output's, or names of layers"
    )
    merge: bool = Field(True, description="merge the adapters into the finished model")

    @field_validator("targets")
    @classmethod
    def _are_names(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        # Plain names only: a pattern from somebody else's file could take for ever to match.
        bad = [name for name in targets if not re.fullmatch(r"\w{1,64}(\.\w{1,64}){0,15}", name, re.ASCII)]
        if not isinstance(targets, str) and (bad or not targets):
            raise ValueError(f"{bad[0]!r} is no name of a layer" if bad else "names no layer")
        return targets


class LanguageModel(Part):
    """The language model: the tiny one built here, with this size; or, with ``checkpoint``, any model and tokenizer
    that `AutoModelForCausalLM` and `AutoTokenizer` load; or, with ``architecture`` alone, such a model with random
    weights and the tiny one's tokenizer."""

    width: PositiveInt = 128
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    feed_forward: PositiveInt = 384
    checkpoint: str | None = Field(None, description="a local folder, or a hub id (owner/name) with its revision")
    revision: str | None = Field(
        None, pattern="^[0-9a-f]{40}$", description="of a hub id: the commit, all 40 digits, so that it cannot change"
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
        if self.tiny and self.dtype != "float32":
            raise ValueError("dtype is of a checkpoint or an architecture; name one, or leave it out")
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # As with an expert's entry.
        return {key: value for key, value in dump(self).items() if key != "architecture" or value is not None}

    @property
    def tiny(self) -> bool:
        """Whether this is the language model that is built here, and not one of transformers."""
        return self.checkpoint is None and self.architecture is None


class Model(Part):
    """Alignment and fusion; every ingredient can be switched off."""

    strategy: str = Field("astrea", description="any name of astrea.fusion.registry")
    options: dict[str, Any] = Field({}, description="of another strategy's constructor; Astrea's are the keys below")
    word_match: float = Field(
        WORD_MATCH,
        ge=0,
        description="start of gamma, how strongly a word finds its token; 0 = off. Off where nothing is said and the "
        "language model is not the one built here, for it was never warmed up with it",
    )
    contrast_width: PositiveInt = 64
    adapter_hidden: PositiveInt = 128
    word_start: bool = Field(True, description="adapters start at the language model's embeddings of their labels")
    mixer: bool = True
    residual: bool = Field(False, description="stochastic residual connections, as the paper has them")
    residual_start: float = Field(1.0, ge=0, le=1, description="probability p_0 of the stochastic residual")
    residual_end: float = Field(0.85, ge=0, le=1, description="probability p_1, reached at the end of `fuse`")
    gate: bool = Field(True, description="shares; they learn from contributions alone and are equal without them")
    gate_tau: float = Field(1.0, gt=0)
    gate_question: bool = True
    gate_confidence: bool = False
    reliability: bool = Field(True, description="experts that the others do not echo are not believed")
    prune_share: float = Field(
        0.0, ge=0, lt=1, description="share of training questions that read only their best tokens"
    )
    keep_threshold: float = Field(
        0.0, ge=0, description="at evaluation, tokens that promise less are not read; 1 = what an equal share promises"
    )
    pretrained_llm: bool = Field(True, description="start from the pretrained language model; false = from nothing")

    @field_validator("strategy")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in STRATEGIES:
            raise ValueError(f"unknown strategy {name!r}; known: {', '.join(STRATEGIES)}")
        return name

    def fusion(self) -> dict[str, Any]:
        """Options of the strategy's constructor."""
        if self.strategy != "astrea":
            return dict(self.options)
        return {
            "mixer": self.mixer,
            "residual": self.residual,
            "allocator": self.gate,
            "tau": self.gate_tau,
            "use_question": self.gate_question,
            "use_confidence": self.gate_confidence,
            "trust": self.reliability,
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


class Regularisation(Part):
    """What keeps experts from starving or dominating."""

    expert_dropout: float = Field(0.3, ge=0, lt=1, description="chance that a training picture loses one expert")
    corruption: float = Field(
        0.0, ge=0, lt=1, description="chance that an expert tells a training picture confidently wrong"
    )
    load_rate: float = Field(0.02, ge=0, description="eta of the load bias; 0 = off")
    contribution_every: int = Field(5, ge=0, description="steps between counterfactual passes; 0 = off")


class Losses(Part):
    """Weights of a stage's losses; 0 = off."""

    lm: float = Field(0.0, ge=0)
    word: float = Field(0.0, ge=0)
    itc: float = Field(0.0, ge=0)
    agree: float = Field(0.0, ge=0, description="lambda: contrast with the experts already aligned")
    contribution: float = Field(0.0, ge=0)
    reliability: float = Field(0.0, ge=0, description="telling corrupted experts from reliable ones")


class Stage(Part):
    """One stage as data: what learns, from which losses, for how long."""

    train: tuple[Literal["adapters", "heads", "fusion", "language_model", "experts"], ...]
    losses: Losses
    steps: int = Field(ge=0)
    batch: PositiveInt = 16
    lr: float = Field(gt=0)
    llm_lr_scale: float = Field(1.0, gt=0)
    experts_lr_scale: float = Field(0.1, gt=0, description="of the experts, where they learn, over lr")
    warmup: int = Field(20, ge=1)
    final: float = Field(0.05, ge=0, le=1)
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0)
    muon: float = Field(
        3.0, ge=0, description="learning rate of the language model's hidden matrices over lr, by Muon; 0 = AdamW"
    )
    accumulate: PositiveInt = 1
    save_every: int = Field(200, ge=0, description="optimizer steps between checkpoints; 0 = at the stage's end only")
    progressive: bool = Field(
        True,
        description="align by contrast only: one expert after another, as the paper does it; false = all at once",
    )
    kind: Literal["contrast", "next_token"] = Field(
        "contrast",
        description="align only: next_token trains each adapter alone on the answers of the frozen language model, as "
        "Eagle does, one after another; that is its only loss, so that `losses` is not read",
    )

    def schedule(self, steps: int | None = None) -> Schedule:
        """The loop's view of this stage."""
        return Schedule(
            steps=self.steps if steps is None else steps,
            batch=self.batch,
            lr=self.lr,
            warmup=self.warmup,
            final=self.final,
            weight_decay=self.weight_decay,
            clip=self.clip,
            accumulate=self.accumulate,
            save_every=self.save_every,
            muon=self.muon,
        )


class PretrainPart(Part):
    """Length of one pretrained part's own training."""

    steps: PositiveInt
    batch: PositiveInt
    lr: float = Field(gt=0)
    warmup: int = Field(100, ge=1)
    weight_decay: float = Field(0.02, ge=0)
    muon: float = Field(0.0, ge=0, description="as in a stage; only the language model has hidden matrices")

    def schedule(self) -> Schedule:
        """The loop's view."""
        return Schedule(
            steps=self.steps,
            batch=self.batch,
            lr=self.lr,
            warmup=self.warmup,
            weight_decay=self.weight_decay,
            muon=self.muon,
        )


class ExpertPretraining(PretrainPart):
    """Every compact expert's."""

    steps: PositiveInt = 2400
    batch: PositiveInt = 64
    lr: float = Field(3e-3, gt=0)


class LanguagePretraining(PretrainPart):
    """The small language model's."""

    steps: PositiveInt = 3000
    batch: PositiveInt = 8
    lr: float = Field(2e-3, gt=0)
    muon: float = Field(2.0, ge=0, description="learning rate of the hidden matrices over lr, by Muon; 0 = AdamW")


class Distill(PretrainPart):
    """One student expert, taught by several others before the first stage (see astrea.world.distill)."""

    student: str = Field("student", description="which of the run's experts learns")
    teachers: dict[str, ExpertEntry] = Field(min_length=1, description="experts as in `experts`, from the same parts")
    steps: PositiveInt = 400
    batch: PositiveInt = 64
    lr: float = Field(2e-3, gt=0)
    warmup: int = Field(40, ge=1)


class Pretraining(Part):
    """How `astrea pretrain` makes the parts that ship with the package."""

    expert: ExpertPretraining = ExpertPretraining()
    llm: LanguagePretraining = LanguagePretraining()
    min_accuracy: float = Field(
        0.8, ge=0, le=1, description="accuracy on ground-truth tokens the language model must reach"
    )


class Runtime(Part):
    """What a run is computed on, and how. No part of what the run is: it may go on with other settings."""

    device: Device = Field(
        "auto", description="auto = a GPU for each process where there are any, otherwise the processor"
    )
    llm: Literal["replicated", "fsdp"] = Field(
        "replicated", description="fsdp = share out the blocks of a language model that learns (FSDP2)"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="of the language model's computing; auto = bf16 on a GPU, fp32 on a processor"
    )
    compile: bool = Field(False, description="compile the language model's blocks with torch.compile")
    loaders: PositiveInt = Field(2, description="threads of each process that decode the pictures of one's own data")
    feature_cache_gb: float = Field(
        16.0,
        ge=0,
        le=1e6,
        description="GB in the cache for what experts saw in pictures of one's own; 0 = they look anew every time",
    )
    timeout: PositiveInt = Field(30, description="minutes until a process that does not answer is given up")


class Recipe(Part):
    """A whole run."""

    RENAMED: ClassVar[Mapping[str, str]] = RENAMED

    name: str
    seed: int = 0
    threads: int = Field(2, ge=1)
    pretrain: str = Field("shipped", description='"shipped", "scratch" or a folder of pretrained parts')
    start: str | None = Field(
        None, description='a finished model to go on from ("shipped" or its folder), instead of parts; null = none'
    )
    world: World = World()
    data: Data = Data()
    experts: dict[str, ExpertEntry]
    llm: LanguageModel = LanguageModel()
    model: Model = Model()
    contrast: Contrast = Contrast()
    regularisation: Regularisation = Regularisation()
    pretraining: Pretraining = Pretraining()
    distill: Distill | None = None
    runtime: Runtime = Runtime()
    align: Stage
    fuse: Stage
    tune: Stage

    @model_serializer(mode="wrap")
    def _without_start(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # As with the data's newer keys.
        return {key: value for key, value in dump(self).items() if key != "start" or value is not None}

    @model_validator(mode="after")
    def _no_word_match_unless_warmed_up(self) -> Recipe:
        # Only the language model built here is warmed up with it. Written into the recipe, so that a run's own copy
        # says what it was trained with.
        if not self.llm.tiny and "word_match" not in self.model.model_fields_set:
            object.__setattr__(self, "model", self.model.model_copy(update={"word_match": 0.0}))
        return self

    @model_validator(mode="after")
    def _experts_have_names(self) -> Recipe:
        teachers = () if self.distill is None else self.distill.teachers
        for name in (*self.experts, *teachers):
            if (why := wrong_with(name)) is not None:
                raise ValueError(why)
        return self

    @model_validator(mode="after")
    def _students_are_taught(self) -> Recipe:
        if self.distill is not None and self.distill.student not in self.experts:
            raise ValueError(f"distill.student {self.distill.student!r} is none of the experts {list(self.experts)}")
        others = dict(self.experts)
        if self.distill is not None:
            del others[self.distill.student]
            others |= self.distill.teachers
        idle = [name for name, entry in others.items() if entry.kind == "student"]
        if idle:
            raise ValueError(f"the expert {idle[0]!r} is a student that nobody teaches; give the run a `distill`")
        return self

    @model_validator(mode="after")
    def _some_expert_learns(self) -> Recipe:
        if "experts" in self.align.train:
            raise ValueError("align.train: experts are aligned as they are; let them learn in fuse.train or tune.train")
        stages = [name for name in ("fuse", "tune") if "experts" in getattr(self, name).train]
        if stages and all(entry.frozen for entry in self.experts.values()):
            raise ValueError(f"{stages[0]}.train names `experts`, and every expert is frozen")
        return self

    @property
    def learning_experts(self) -> tuple[str, ...]:
        """The experts that learn in some stage, in order."""
        learn = any("experts" in stage.train and stage.steps for stage in (self.fuse, self.tune))
        return tuple(name for name, entry in self.experts.items() if learn and not entry.frozen)
