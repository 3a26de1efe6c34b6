"""Making Astrea's classes known to the auto classes of transformers."""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from astrea.model.backbone import AstreaModel
from astrea.model.configuration import AstreaConfig
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaImageProcessor, AstreaProcessor


def register() -> None:
    """Register configuration, model and processors; calling it again changes nothing."""
    AutoConfig.register(AstreaConfig.model_type, AstreaConfig, exist_ok=True)
    # By this name rather than image_processor_classes, which older releases do not have.
    AutoImageProcessor.register(AstreaConfig, slow_image_processor_class=AstreaImageProcessor, exist_ok=True)
    AutoProcessor.register(AstreaConfig, AstreaProcessor, exist_ok=True)
    AutoModel.register(AstreaConfig, AstreaModel, exist_ok=True)
    AutoModelForImageTextToText.register(AstreaConfig, AstreaForConditionalGeneration, exist_ok=True)
    # TRL takes this one for every path to a model whose class is not transformers' own.
    AutoModelForCausalLM.register(AstreaConfig, AstreaForConditionalGeneration, exist_ok=True)
    # The pipeline looks its models up in this table, and logs an error for those that are registered only.
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.setdefault(
        AstreaConfig.model_type, AstreaForConditionalGeneration.__name__
    )
