"""Vision-language models that look through several vision experts at once.

    load(name)                          a LoadedModel, a trained model with its processor: a folder, a name on the
                                        hub, or "shipped"; ``.ask(picture, question)``, ``.explain(picture, question)``
    load_model(name)                    the older name of load
    train(recipe, folder, **changes)    trains a recipe; gives the folder of the model
    evaluate(model, data)               scores on a data file, or on the embedded world
    explain(model, processor, picture, question)
                                        an Explanation: the answer, gate weights, readings, what masking an expert does
    example_picture()                   the path of a picture to ask about
    AstreaForConditionalGeneration      the model, a PreTrainedModel of transformers
    AstreaConfig, AstreaProcessor       its configuration and processor
    Expert, ExpertFeatures, Reading     what an expert of one's own derives from, and what it gives
    FusionStrategy                      what a fusion of one's own derives from
    AstreaError                         what goes wrong and how to correct it
    __version__                         this version

Importing this package makes the model known to transformers, so that ``pipeline("image-text-to-text", model=folder)``
and the auto classes find it. torch and transformers are imported when they are first needed. From a shell: ``astrea``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from astrea.common.errors import AstreaError
from astrea.common.installation import __version__
from astrea.common.lazy import lazy_names
from astrea.model.import_hook import register_when_imported

if TYPE_CHECKING:
    from astrea.evaluation.evaluate_model import evaluate
    from astrea.experts.protocol import Expert, ExpertFeatures, Reading
    from astrea.fusion.protocol import FusionStrategy
    from astrea.model.configuration import AstreaConfig
    from astrea.model.explanation import Explanation, explain
    from astrea.model.loaded import LoadedModel, load
    from astrea.model.loading import load_model
    from astrea.model.modeling import AstreaForConditionalGeneration
    from astrea.model.processing import AstreaProcessor
    from astrea.training.train import train
    from astrea.world.scenes.example import example_picture

__all__ = [
    "AstreaConfig",
    "AstreaError",
    "AstreaForConditionalGeneration",
    "AstreaProcessor",
    "Expert",
    "ExpertFeatures",
    "Explanation",
    "FusionStrategy",
    "LoadedModel",
    "Reading",
    "__version__",
    "evaluate",
    "example_picture",
    "explain",
    "load",
    "load_model",
    "train",
]

_WHERE = {
    "AstreaConfig": "astrea.model.configuration:AstreaConfig",
    "AstreaForConditionalGeneration": "astrea.model.modeling:AstreaForConditionalGeneration",
    "AstreaProcessor": "astrea.model.processing:AstreaProcessor",
    "Expert": "astrea.experts.protocol:Expert",
    "ExpertFeatures": "astrea.experts.protocol:ExpertFeatures",
    "Explanation": "astrea.model.explanation:Explanation",
    "FusionStrategy": "astrea.fusion.protocol:FusionStrategy",
    "LoadedModel": "astrea.model.loaded:LoadedModel",
    "Reading": "astrea.experts.protocol:Reading",
    "evaluate": "astrea.evaluation.evaluate_model:evaluate",
    "example_picture": "astrea.world.scenes.example:example_picture",
    "explain": "astrea.model.explanation:explain",
    "load": "astrea.model.loaded:load",
    "load_model": "astrea.model.loading:load_model",  # the earlier name of load: a pair on the processor
    "train": "astrea.training.train:train",
}

__getattr__ = lazy_names(__name__, _WHERE)

register_when_imported()
