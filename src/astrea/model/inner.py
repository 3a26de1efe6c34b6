"""What the model under the head is asked for through the whole model."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from astrea.alignment.alignment import Alignment
from astrea.alignment.matrix import ExpertMatrix
from astrea.experts.bank import ExpertBank, Originals
from astrea.experts.protocol import ExpertFeatures
from astrea.fusion.protocol import FusionStrategy, VisualTokens
from astrea.language.windows import Windows
from astrea.model.backbone import AstreaModel
from astrea.model.inputs import Features


class Inner:
    """Implements `AstreaModel` by handing everything on to ``model``, where each method is described.

    Attributes:
        experts: every expert, by name.
        alignment: adapters and heads.
        fusion: the strategy.
        windows: sliding windows of the language model's layers.
        num_visual_tokens: how many tokens a picture takes.
    """

    model: AstreaModel

    @property
    def experts(self) -> ExpertBank:
        found: ExpertBank = self.model.experts
        return found

    @experts.setter
    def experts(self, value: ExpertBank) -> None:
        self.model.experts = value

    @property
    def alignment(self) -> Alignment:
        found: Alignment = self.model.alignment
        return found

    @alignment.setter
    def alignment(self, value: Alignment) -> None:
        self.model.alignment = value

    @property
    def fusion(self) -> FusionStrategy:
        found: FusionStrategy = self.model.fusion
        return found

    @fusion.setter
    def fusion(self, value: FusionStrategy) -> None:
        self.model.fusion = value

    @property
    def windows(self) -> Windows:
        found: Windows = self.model.windows
        return found

    @property
    def num_visual_tokens(self) -> int:
        return self.model.num_visual_tokens

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_decoder(self) -> PreTrainedModel:
        found: PreTrainedModel = self.model.language_model
        return found

    def encode_images(
        self, pixel_values: Tensor | None, original_images: Originals | None = None
    ) -> dict[str, ExpertFeatures]:
        return self.model.encode_images(pixel_values, original_images)

    def with_words(self, matrix: ExpertMatrix) -> ExpertMatrix:
        return self.model.with_words(matrix)

    def fuse(self, *args: Any, **kwargs: Any) -> VisualTokens:
        return self.model.fuse(*args, **kwargs)

    def get_image_features(
        self,
        pixel_values: Tensor | None = None,
        features: Features | None = None,
        present: Tensor | None = None,
        original_images: Originals | None = None,
    ) -> BaseModelOutputWithPooling:
        return self.model.get_image_features(pixel_values, features, present, original_images)

    def shares(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.model.shares(*args, **kwargs)

    def embed_image(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.model.embed_image(*args, **kwargs)

    def picture_vectors(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.model.picture_vectors(*args, **kwargs)

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model.embed_text(input_ids, attention_mask)

    def text_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model.text_states(input_ids, attention_mask)
