"""What the stages share: the model, its training-only companions, the data, and the texts in token form."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.common.fingerprint import tensors_fingerprint
from astrea.common.progress import ProgressCallback
from astrea.common.seeds import generator_for
from astrea.data.feature_cache import FeatureCache
from astrea.data.packing import Packer
from astrea.data.protocol import Samples, TrainingData
from astrea.experts.bank import ExpertBank
from astrea.experts.phrases import said_beside
from astrea.experts.protocol import ExpertFeatures
from astrea.language.whole_words import WholeWords, table_mean, word_vectors
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.recipes.recipe import ExpertEntry, Recipe
from astrea.training.acceleration import accelerated, in_half
from astrea.training.borrowed_names import Lent, lent_labels
from astrea.training.distributed import SINGLE, Distributed
from astrea.training.losses.contrast import MomentumContrast
from astrea.training.losses.words import WordContrast
from astrea.training.own_words import TwoWays, two_ways
from astrea.training.plain_chat import PlainChat

STATES_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class CaptionBatch:
    """The text that is read of each of B samples.

    which: (B,) of its texts. tokens: its token ids. ids: (B, 2) sample id and text id, for the queue: the same sentence
    about two pictures is one text, and neither may be the other's negative. numbers: (B,) among every text of the
    data, or None.
    """

    which: Tensor
    tokens: list[list[int]]
    ids: Tensor
    numbers: Tensor | None


class TrainingContext:
    """One training run's moving parts.

    Attributes:
        contrast: momentum copy, queue, temperature.
        words: the word-level loss.
        contributions: what each expert was worth so far; kept in checkpoints with the rest.
        kept_states: see `keep_states`.
        chat: plain chat of the language model with itself, where the recipe wants some of it in batches.
        ranks: the processes that share the work. Samples are drawn on the processor, what is computed is on
            ``ranks.device``.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: AstreaForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        data: TrainingData,
        ranks: Distributed = SINGLE,
    ) -> None:
        self.recipe, self.model, self.tokenizer, self.data = recipe, model.to(ranks.device), tokenizer, data  # type: ignore[arg-type]
        self.ranks = ranks
        place_experts(model.experts, recipe.experts)
        self.packer = Packer(tokenizer, model.num_visual_tokens)
        self.contrast = MomentumContrast(
            model.alignment,
            width=model.config.contrast_width,
            momentum=recipe.contrast.momentum,
            queue=recipe.contrast.queue,
            temperature=recipe.contrast.temperature,
        ).to(ranks.device)
        scanned = (self.packer.ids(text) for text in data.scanned(recipe.seed))
        self.words = WordContrast(scanned, len(tokenizer)).to(ranks.device)
        self.kept_states: Tensor | None = None
        self.chat: PlainChat | None = None
        model.fusion.start_training(len(data.groups))

    @cached_property
    def whole_words(self) -> tuple[WholeWords, Tensor, Tensor]:
        """The whole words of the training data's texts; the mean of the language model's table (D,) and the words'
        centred vectors (V, D), where the model is. Words that phrases of features say in slots of their own, such as
        colours, are not among them: one token cannot point to a thing and to its colour."""
        texts = self.data.every_text()
        scanned = self.data.scanned(self.recipe.seed) if texts is None else (one for some in texts for one in some)
        experts = self.model.experts
        said = {word for name in experts.names for word in said_beside(name, experts[name])}
        words = WholeWords(scanned, self.data.names, said)
        embedding = self.model.get_input_embeddings()
        mean = table_mean(embedding, len(self.tokenizer), self.ranks.device)
        return words, mean, word_vectors(words.words, self.tokenizer, embedding, mean)

    @cached_property
    def two_ways(self) -> dict[str, TwoWays]:
        """The experts that know by features and by words of their own."""
        return two_ways(self.model.experts, dict(self.model.alignment.adapters.items()), self.whole_words[0])

    @cached_property
    def lent_labels(self) -> Lent:
        """The labels of those experts that things may be called by though training does not have them."""
        return lent_labels(self.model.experts, self.two_ways, self.data.withheld)

    def encode(self, samples: Samples) -> dict[str, ExpertFeatures]:
        """What the experts see in the samples' pictures, where the model is, as long as none of them has learned."""
        return self.to_device(samples.encode())

    def to_device(self, features: Mapping[str, ExpertFeatures]) -> dict[str, ExpertFeatures]:
        """The same, where the model is."""
        return {name: part.map(lambda value: value.to(self.ranks.device)) for name, part in features.items()}

    def encode_trainable(self, samples: Samples, *, learning: bool) -> dict[str, ExpertFeatures]:
        """What the experts see now: those that learn in this run (`Recipe.learning_experts`) look at the pictures once
        more; the others' features may have been kept.

        Args:
            learning: they learn in this very stage, so gradients are wanted.

        Raises:
            AstreaError: an expert is to learn, and what it says has no gradient.
        """
        bank, learners = self.model.experts, self.recipe.learning_experts
        if not learners or not samples.pictures:
            return self.encode(samples)
        found = self.to_device(samples.encode([name for name in bank.names if name not in learners]))
        learning = learning and torch.is_grad_enabled()
        with torch.set_grad_enabled(learning):
            found |= bank(samples.pixels().to(self.ranks.device), learners, samples.originals())
        deaf = [name for name in learners if learning and not found[name].tokens.requires_grad]
        if deaf:
            raise AstreaError(
                f"the expert {deaf[0]!r} cannot learn from answers: no gradient comes through what it says",
                f"set experts.{deaf[0]}.frozen=true",
            )
        return {name: found[name] for name in bank.names}

    def captions(self, samples: Samples, *purpose: object) -> CaptionBatch:
        """Which text of each sample is read in this step."""
        draw = torch.rand(len(samples.names), generator=generator_for(self.recipe.seed, "captions", *purpose))
        which = (draw * torch.tensor([len(texts) for texts in samples.texts])).long()
        tokens = [self.packer.ids(texts[c]) for texts, c in zip(samples.texts, which.tolist(), strict=True)]
        ids = torch.stack([samples.ids, torch.tensor([text_id(one) for one in tokens])], 1)
        return CaptionBatch(which, tokens, ids, None if samples.numbers is None else samples.numbers + which)

    def text_states(self, captions: CaptionBatch, own: slice, *, frozen: bool = False) -> Tensor:
        """The language model's mean hidden state of the ``own`` texts (B, D), without gradient: the target space.

        Args:
            frozen: the language model does not learn in this stage, so `kept_states` hold if there are any.
        """
        if frozen and self.kept_states is not None and captions.numbers is not None:
            return self.kept_states[captions.numbers[own]].to(self.ranks.device)
        return self.states_of(captions.tokens[own])

    def keep_states(self, cache: FeatureCache, progress: ProgressCallback, notify: Callable[[str], None]) -> None:
        """Every text's state in the language model as it is now, from the cache like the experts' features; nothing
        where no loss of align reads them (only ``itc`` does), or where there are more texts than align will look at:
        these are then read as they come.

        Computed text by text in a fixed order: which texts share a batch decides their last bits, and a resumed run
        must find the same ones.
        """
        texts = self.data.every_text()
        align = self.recipe.align
        if texts is None or not align.losses.itc:
            return
        if sum(map(len, texts)) > align.steps * align.accumulate * align.batch:
            return
        every = [self.packer.ids(text) for some in texts for text in some]

        def compute() -> dict[str, Tensor]:
            parts = []
            for start in range(0, len(every), STATES_AT_ONCE):
                parts.append(self.states_of(every[start : start + STATES_AT_ONCE]))
                progress("reading captions", min(start + STATES_AT_ONCE, len(every)), len(every))
            return {"states": torch.cat(parts)}

        key = {
            "states_of": hashlib.sha256(repr(every).encode()).hexdigest(),
            "pad": self.packer.pad,
            "weights": tensors_fingerprint(self.model.language_model.state_dict()),
            "config": self.model.config.text_config.to_dict(),
        }
        runtime, device = self.recipe.runtime, self.ranks.device
        if in_half(runtime, device):
            key["precision"] = "bf16"
        with accelerated(self.model.language_model, runtime, device):
            self.kept_states = cache.get_or_compute(key, compute, on_event=notify)["states"]

    def states_of(self, captions: list[list[int]]) -> Tensor:
        """Mean hidden states (B, D) of texts in token form."""
        length = max(map(len, captions))
        ids = torch.tensor([row + [self.packer.pad] * (length - len(row)) for row in captions])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in captions])
        found: Tensor = self.model.text_states(ids.to(self.ranks.device), mask.to(self.ranks.device))
        return found


def place_experts(bank: ExpertBank, entries: Mapping[str, ExpertEntry]) -> None:
    """Put the experts whose entries name a device there.

    Raises:
        AstreaError: an entry asks for a GPU, and there is none.
    """
    for name, entry in entries.items():
        if entry.device == "cuda" and not torch.cuda.is_available():
            raise AstreaError(f"experts.{name}.device is cuda, and there is no GPU here", "leave it out")
        if entry.device != "auto":
            bank[name].to(entry.device)


def text_id(tokens: list[int]) -> int:
    """A number that two texts share only if they are the same (63 bits of a hash)."""
    digest = hashlib.blake2b(repr(tokens).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
