"""The pretrained parts: four compact experts and the small language model, as fp16 safetensors with a card.

`astrea pretrain` writes such a folder, the package ships one, and a model is assembled from one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.common.files import atomic_path, sha256_file
from astrea.common.paths import is_file, read_json
from astrea.experts.bank import COMPACT, ExpertBank, expert_specs
from astrea.experts.pretrained.entry import resolve
from astrea.experts.pretrained.fresh import start_fresh
from astrea.experts.pretrained.weights import load_checkpoint
from astrea.language.builtin import tiny_language
from astrea.language.chat_format import ChatFormat
from astrea.language.checkpoint import language_from_architecture, load_language, settle_generation, warmed_up
from astrea.language.labels import LabelWords
from astrea.language.plain import Kept, Said, compare
from astrea.model.configuration import AstreaConfig
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.recipes.recipe import ExpertEntry, Recipe

SHIPPED = Path(__file__).parents[1] / "world" / "weights"
CARD = "card.json"
LANGUAGE = "language"


def save_part(module: nn.Module, path: Path, *, settings: str = "") -> None:
    """Write a part's weights as fp16 (whole numbers as they are); tied copies are written once.

    Args:
        settings: identifies what it was made with, for `made_with`.
    """
    tensors: dict[str, torch.Tensor] = {}
    written: set[int] = set()
    for name, value in module.state_dict().items():
        if value.data_ptr() in written and value.numel():
            continue
        written.add(value.data_ptr())
        tensors[name] = (value.half() if value.is_floating_point() else value).contiguous()
    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata={"settings": settings} if settings else None)


def made_with(path: Path) -> str | None:
    """The ``settings`` that a part was saved with; None where nobody said.

    Raises:
        AstreaError: the file is no safetensors file.
    """
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("settings")
    except (OSError, SafetensorError) as error:
        raise AstreaError(f"{path}: {error}", "remove it: it is not a whole part") from error


def load_part(module: nn.Module, folder: Path, name: str) -> None:
    """Fill a module with a part's weights, checked against the folder's card.

    Raises:
        AstreaError: the file or the card is missing, altered, or of another size than the recipe asks for.
    """
    path = folder / f"{name}.safetensors"
    hint = "make the parts again with `astrea pretrain`, or use pretrain=shipped"
    card = read_card(folder)
    if not is_file(path):
        raise AstreaError(f"{path}: the pretrained part {name!r} is missing", hint)
    if sha256_file(path) != card.get("sha256", {}).get(name):
        raise AstreaError(f"{path}: its sha256 is not the one that {CARD} names", hint)
    fill(module, path, name)


def fill(
    module: nn.Module,
    path: Path,
    name: str,
    *,
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> None:
    """Fill a module with a part's weights.

    Args:
        rename: what becomes of the names in the file.

    Raises:
        AstreaError: the file is of another size than the module.
    """
    tensors = rename(load_file(path))
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    own = module.state_dict()
    there = {own[key].data_ptr() for key in tensors if key in own}
    tied = {key for key in own if key not in tensors and own[key].data_ptr() in there}
    wrong = [k for k in own if k not in tied and (k not in tensors or tensors[k].shape != own[k].shape)]
    wrong += [k for k in tensors if k not in own]
    if wrong:
        raise AstreaError(f"{path}: does not fit this recipe's {name} ({wrong[0]})", "use the size that the card names")
    module.load_state_dict(tensors, strict=False)


def entries_of(experts: Mapping[str, Mapping[str, Any]]) -> dict[str, ExpertEntry]:
    """A configuration's experts as the recipe writes them."""
    return {name: ExpertEntry(kind=e["kind"], options=e.get("options") or {}) for name, e in experts.items()}


def load_experts(bank: ExpertBank, entries: Mapping[str, ExpertEntry], parts: Path | None) -> None:
    """Fill a bank's experts: from their checkpoints, and the compact ones from a parts folder (None: leave them
    fresh). Those that are only described keep their random weights; experts of any other kind bring their own.

    Raises:
        AstreaError: a part or a checkpoint is missing, altered or does not fit.
    """
    for name, entry in entries.items():
        if entry.checkpoint is not None:
            load_checkpoint(name, bank[name], entry)
        elif entry.architecture is not None:
            start_fresh(name, bank[name])
        elif parts is not None and entry.kind in COMPACT:
            load_part(bank[name], parts, entry.kind)


def read_card(folder: Path) -> dict[str, Any]:
    """The card beside the parts: command, commit, seeds, scores, sha256.

    Raises:
        AstreaError: no readable card.
    """
    path = folder / CARD
    hint = "point pretrain= at a folder that `astrea pretrain` wrote"
    try:
        card = read_json(path, "card")
    except AstreaError as error:
        raise AstreaError(error.message, hint) from error
    if not isinstance(card, dict) or not isinstance(card.get("sha256", {}), dict):
        raise AstreaError(f"{path}: is not a card", hint)
    return card


def configure(
    recipe: Recipe, experts: Mapping[str, Mapping[str, Any]], text: PreTrainedConfig, image_token_id: int
) -> AstreaConfig:
    """The configuration of a recipe's model.

    Args:
        experts: what `AstreaConfig.experts` says of them. text: the language model's.
    """
    low_rank = recipe.llm.low_rank
    return AstreaConfig(
        text_config=text.to_dict(),
        experts={name: dict(entry) for name, entry in experts.items()},
        strategy=recipe.model.strategy,
        fusion=recipe.model.fusion(),
        adapter_hidden=recipe.model.adapter_hidden,
        contrast_width=recipe.model.contrast_width,
        image_token_id=image_token_id,
        image_size=recipe.world.canvas,
        attention=recipe.llm.attention,
        language_dtype=None if recipe.llm.tiny else recipe.llm.dtype,
        low_rank=None if low_rank is None else low_rank.model_dump(mode="json"),
        findings=recipe.model.findings,
    )


def random_weights(recipe: Recipe) -> str | None:
    """A sentence that names what a recipe only describes, so that nobody takes it for real; None if nothing."""
    described = [
        f"experts.{name}" for name, entry in recipe.experts.items() if entry.checkpoint is None and entry.architecture
    ]
    if recipe.llm.checkpoint is None and not recipe.llm.tiny:
        described.append("llm")
    if not described:
        return None
    return f"random weights: {', '.join(described)} (an architecture without a checkpoint; good for measuring only)"


class Assembled(NamedTuple):
    """A recipe's model. said: what its language model said of plain sentences when it was loaded; None if that has no
    checkpoint, or fresh weights."""

    model: AstreaForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    said: Said | None

    def kept(self) -> Kept | None:
        """How much of that the model still says; None where nothing was said."""
        if self.said is None:
            return None
        model, was_training = self.model, self.model.training
        model.eval()
        try:
            return compare(self.said, self._ask, model.embedding_table().dtype)
        finally:
            model.train(was_training)

    def _ask(self, ids: Tensor, mask: Tensor) -> Tensor:
        device = self.model.embedding_table().device
        logits: Tensor = self.model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
        assert logits is not None
        return logits


def never_warmed_up(recipe: Recipe, text: PreTrainedConfig) -> str | None:
    """A warning for whoever asks for a word match that the language model was never trained with; None if all is
    well.

    Args:
        text: the language model's configuration.
    """
    if recipe.llm.checkpoint is None or not recipe.model.word_match or warmed_up(text):
        return None
    return (
        f"warning: model.word_match is {recipe.model.word_match:g}, and {recipe.llm.checkpoint} was never trained "
        "with one: whatever it knows is likely lost as soon as it is shown a picture; model.word_match=0 takes it out"
    )


def assemble(recipe: Recipe, parts: Path | None) -> tuple[AstreaForConditionalGeneration, PreTrainedTokenizerBase]:
    """`put_together` without what the language model said."""
    return put_together(recipe, parts)[:2]


def put_together(recipe: Recipe, parts: Path | None) -> Assembled:
    """Build the model of a recipe; fill experts and language model from a parts folder (None: leave them fresh). A
    language model with a checkpoint comes from there instead, and one that is only described has random weights.

    Adapters start at the words of their expert's channels, after the language model's weights are in.
    """
    entries = {name: resolve(name, entry) for name, entry in recipe.experts.items()}
    declared = expert_specs(entries)
    torch.manual_seed(recipe.seed)
    language: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    said: Said | None = None
    if recipe.llm.checkpoint is not None:
        language, tokenizer, said = load_language(recipe.llm, warm=recipe.model.pretrained_llm)
    else:
        builtin = tiny_language()
        tokenizer = builtin.tokenizer(declared.values())
        if recipe.llm.tiny:
            language = builtin.model(recipe.llm)
            if parts is not None and recipe.model.pretrained_llm:
                load_part(language, parts, LANGUAGE)
            if len(tokenizer) > language.config.vocab_size:
                language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        else:
            language = language_from_architecture(recipe.llm, len(tokenizer))
    whole = not recipe.llm.tiny or recipe.llm.low_rank is not None
    image_token_id: Any = tokenizer.convert_tokens_to_ids("<image>")
    config = configure(recipe, entries, language.config, image_token_id)
    config.question_span = ChatFormat(tokenizer).question_span
    model = AstreaForConditionalGeneration(config, allow_import=True, language_model=language if whole else None)
    if not whole:
        model.language_model.load_state_dict(language.state_dict())
    load_experts(model.experts, recipe.experts, parts)
    model.experts.use_tokenizer(tokenizer)
    if recipe.model.word_start:
        for name in model.experts.names:
            labels = model.experts[name].labels
            if any(labels):
                words = LabelWords(labels, tokenizer).read(model.get_input_embeddings())
                model.alignment.adapters[name].start_at_words(words)  # type: ignore[operator]
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    if recipe.llm.checkpoint is not None:
        settle_generation(model, tokenizer, language)
    if recipe.llm.gradient_checkpointing:
        # transformers has renamed it.
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        # Only the older, re-entrant kind of checkpointing needs gradients of frozen word embeddings.
        model.disable_input_require_grads()
    return Assembled(model, tokenizer, said)
