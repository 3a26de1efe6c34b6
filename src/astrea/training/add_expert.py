"""One more expert for a model that is trained already, by alignment alone.

Only the newcomer's adapter learns, on frozen features: each word of a caption finds its token, pictures find captions,
and what it says agrees with the experts already aligned. All of that happens in the space that the language model and
the others share already; what was there before stays as it was, bit for bit.

Letters: N questions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from astrea.alignment.phrase_ids import spell
from astrea.common.errors import AstreaError
from astrea.common.files import write_json_atomic
from astrea.common.folder_lock import LOCK
from astrea.common.paths import check_empty, file_guard
from astrea.common.progress import SILENT, Reporter
from astrea.data.feature_cache import FeatureCache
from astrea.data.worlds import WorldTrainingData, open_world
from astrea.evaluation.generate import Predictor
from astrea.experts.bank import expert_specs
from astrea.experts.names import wrong_with
from astrea.experts.pretrained.entry import resolve
from astrea.fusion.expand import expand_fusion
from astrea.language.labels import LabelWords
from astrea.language.new_words import grow_words, grown_tokenizer, in_known_words
from astrea.model.components import BUNDLED, components_folder
from astrea.model.configuration import AstreaConfig
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor
from astrea.recipes.recipe import ExpertEntry, Recipe
from astrea.training.assembly import entries_of, load_experts
from astrea.training.context import TrainingContext
from astrea.training.loop import build_optimizer, run_steps
from astrea.training.run_folder import locked_folder
from astrea.training.sources import open_cache
from astrea.training.stages.align import AlignObjective
from astrea.training.trainable import describe_trainable, train_only
from astrea.training.trainer import write_model

SHARE = 0.001
"""Of what the experts get together, on average over questions: what a newcomer starts with."""

CALIBRATED = 256
"""Pictures of the training data whose questions the share is measured on."""


@dataclass(frozen=True, slots=True)
class AddedExpert:
    """A model that has taken in an expert. ``share``: the newcomer's, on average. ``words``: how many are new."""

    model: AstreaForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    share: float
    words: int


def add_expert(
    model: AstreaForConditionalGeneration,
    processor: AstreaProcessor,
    recipe: Recipe,
    name: str,
    entry: ExpertEntry,
    folder: Path,
    *,
    share: float = SHARE,
    cache: Path | None = None,
    report: Reporter = SILENT,
) -> AddedExpert:
    """Take in one more expert, and write the whole model and its processor into ``folder``.

    Args:
        model: the trained model; it is left as it is.
        recipe: the one whose world is looked at, and whose ``align`` and ``contrast`` say how the adapter learns.
        share: of what the experts get together, the newcomer's part on average, 0..1; the others share the rest
            as before.
        cache: where experts' features are kept; ``folder.parent / "cache"`` by default.

    Raises:
        AstreaError: the name is taken or no name, the expert cannot be built, the model's fusion cannot grow, the
            recipe's pictures are of another size than the model's, or the folder holds something already.
    """
    check(model, recipe, name, share, folder)
    torch.set_num_threads(recipe.threads)
    components = BUNDLED if recipe.pretrain == "scratch" else components_folder(recipe.pretrain)
    alone = recipe.align.model_copy(update={"train": ("adapters",)})
    with locked_folder(folder, report=report, leaves_lock=False):
        expanded, tokenizer = expand(model, processor.tokenizer, name, entry, components=components, seed=recipe.seed)
        kept = open_cache(recipe, cache or folder.parent / "cache")
        data = open_world(recipe).training_data(expanded.experts, cache=kept, report=report)
        trained = recipe.model_copy(update={"experts": entries_of(expanded.config.experts), "align": alone})
        ctx = TrainingContext(trained, expanded, tokenizer, data)
        align(ctx, name, kept, report)
        expanded.eval()
        found = set_initial_weight(ctx, data, share)
        write_model(ctx, folder)
        words = len(tokenizer) - len(processor.tokenizer)
        facts = {"expert": {name: entry.model_dump()}, "share": found, "words": words, "steps": recipe.align.steps}
        with file_guard(folder):
            write_json_atomic(folder / "join.json", facts)
        return AddedExpert(expanded, tokenizer, found, words)


def check(model: AstreaForConditionalGeneration, recipe: Recipe, name: str, share: float, folder: Path) -> None:
    """Whether an expert of this name can be added at all, before anything is computed.

    Raises:
        AstreaError: it cannot; says why.
    """
    if (why := wrong_with(name)) is not None:
        raise AstreaError(why, "such as photo")
    if name in model.experts.names:
        raise AstreaError(
            f"the model already has an expert {name!r}", f"choose a name other than {', '.join(model.experts.names)}"
        )
    if not 0 < share < 1:
        raise AstreaError(f"a share of {share} is not between 0 and 1", f"leave it at {SHARE}")
    if recipe.align.steps < 1:
        raise AstreaError("align.steps is 0, so the newcomer would learn nothing", "set align.steps=200 or so")
    if recipe.world.canvas != model.config.image_size:
        raise AstreaError(
            f"the recipe draws pictures of {recipe.world.canvas} pixels, the model looks at {model.config.image_size}",
            f"set world.canvas={model.config.image_size}",
        )
    check_empty(folder, apart=LOCK)


def expand(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    entry: ExpertEntry,
    *,
    components: Path | None = None,
    seed: int = 0,
) -> tuple[AstreaForConditionalGeneration, PreTrainedTokenizerBase]:
    """A copy of the model with one more expert at the end, not aligned yet, and a tokenizer that knows its words.

    Every tensor of the model is in the copy as it was, the larger ones with it as their beginning. The newcomer's
    adapter starts at the words of its channels.

    Args:
        components: the folder that a compact expert is filled from; other experts bring their own weights.

    Raises:
        AstreaError: the expert cannot be built, or the model's fusion cannot grow.
    """
    config = expanded_config(model.config, name, resolve(name, entry), tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for the newcomer's adapter, where its channels have no names
        new = AstreaForConditionalGeneration(config, allow_import=True)
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith("model.fusion.")}
    new.load_state_dict(kept, strict=False)
    new.model.word_agreement = model.model.word_agreement  # which does not judge the newcomer
    expand_fusion(model.fusion, new.fusion)
    load_experts(new.experts, {name: entry}, components)
    new.experts.use_tokenizer(tokenizer)
    labels = new.experts[name].labels
    known = len(tokenizer)
    tokenizer, pieces = grown_tokenizer(tokenizer, labels)
    grow_words(new, known, pieces)
    if any(labels):
        readable = [in_known_words(label, tokenizer, pieces) for label in labels]
        words = LabelWords(readable, tokenizer).read(new.get_input_embeddings())
        new.alignment.adapters[name].start_at_words(words)  # type: ignore[operator]
    new.generation_config = copy.deepcopy(model.generation_config)
    return new.eval(), tokenizer


def expanded_config(
    config: AstreaConfig, name: str, entry: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> AstreaConfig:
    """The configuration of the same model with one more expert, which is added by alignment alone."""
    described = copy.deepcopy(config.to_dict())
    described["experts"][name] = entry
    described["expert_names"] = [*config.expert_names, name]
    described["fusion"]["joined"] = [*described["fusion"].get("joined", ()), name]
    if config.phrase_ids is not None:
        known = described["phrase_ids"]
        own = spell(config.findings, expert_specs({name: entry}), tokenizer, known["scale"])
        assert own is not None
        for what, of_newcomer in own.model_dump(
            mode="json", exclude={"scale", "known", "spelling", "counts", "usual", "least"}
        ).items():
            known[what] = known.get(what, {}) | of_newcomer
        known["counts"] = known.get("counts") or own.counts
    return AstreaConfig.from_dict(described)


def align(ctx: TrainingContext, name: str, cache: FeatureCache, report: Reporter) -> None:
    """Teach the newcomer's adapter, and nothing else of the model."""
    ctx.keep_states(cache, report.track, report.say)
    aligned = [other for other in ctx.model.experts.names if other != name]
    objective = AlignObjective(ctx, joining=name, aligned=aligned, offset=0)
    train_only((p for _, p, _ in objective.trainable()), (ctx.model, ctx.contrast, ctx.words))
    report.say(f"join/{name} {describe_trainable(ctx.model)}")
    schedule = ctx.recipe.align

    def tell(step: int, figures: dict[str, float]) -> None:
        report.track(f"join/{name}", step + 1, schedule.steps, f"loss {figures['loss']:.3f}")

    run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=tell)


@torch.no_grad()
def set_initial_weight(ctx: TrainingContext, data: WorldTrainingData, share: float) -> float:
    """Make the newcomer, the last expert, so quiet that it gets this part of what the experts get together, on average;
    returns what it gets.

    Only its own load bias moves, so the others keep their shares relative to each other.
    """
    model = ctx.model
    asked, features = data.questions_about(CALIBRATED)
    predictor = Predictor(model, ctx.tokenizer)

    def odds() -> Tensor:
        prompts = predictor.prompts(asked, pictures=True)
        shares_NE = model.shares(**prompts, features=features, present=predictor.present(len(asked))).clamp_min(1e-12)
        found: Tensor = shares_NE[:, -1].log() - shares_NE[:, :-1].sum(-1).log()
        return found

    odds_N = odds()
    model.fusion.allocator.load_bias[-1] += root(lambda by: float((odds_N + by).sigmoid().mean()) - share)
    model.fusion.allocator.load[-1] = share
    return float(odds().sigmoid().mean())


def root(rising: Callable[[float], float], low: float = -30.0, high: float = 30.0) -> float:
    """Where a rising function is 0, by halving."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
