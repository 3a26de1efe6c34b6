"""Language models that are built here and need no checkpoint, by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from astrea.common.registry import Registry

if TYPE_CHECKING:
    from astrea.experts.protocol import Expert
    from astrea.recipes.recipe import LanguageModel

LANGUAGE_MODELS = Registry("language model", {"tiny": "astrea.world.language.tiny:TinyLanguage"})


class BuiltInLanguage(Protocol):
    """A language model and its tokenizer, made from nothing."""

    def tokenizer(self, experts: Iterable[type[Expert] | Expert]) -> PreTrainedTokenizerBase:
        """A tokenizer that knows the names of these experts' channels beside the built-in experts'.

        The words of experts that are not built in have the last ids: a pretrained language model grows by them.
        """

    def model(self, size: LanguageModel) -> PreTrainedModel:
        """A fresh model of this size, for the tokenizer without further experts."""


def tiny_language() -> BuiltInLanguage:
    """The one that recipes without a checkpoint use."""
    return LANGUAGE_MODELS.find("tiny", allow_import=False)()  # type: ignore[no-any-return]
