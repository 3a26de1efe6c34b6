"""Vision-language models that look through several vision experts at once.

    load_model(folder)                  a trained model and its processor; "shipped" is the one in the package
    explain(model, processor, picture, question)
                                        an Explanation: the answer, shares, readings, what masking each expert changes
    example_picture()                   the path of a picture to ask about
    AstreaForConditionalGeneration      the model, a PreTrainedModel of transformers
    AstreaConfig, AstreaProcessor       its configuration and processor
    Expert, ExpertFeatures, Reading     what an expert of one's own derives from, and what it gives
    AstreaError                         what goes wrong and how to correct it
    __version__                         this version

Importing this package makes the model known to transformers, so that ``pipeline("image-text-to-text", model=folder)``
and the auto classes find it. torch and transformers are imported when they are first needed. From a shell: ``astrea``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from astrea.common.errors import AstreaError
from astrea.common.installation import __version__
from astrea.model.import_hook import register_when_imported

if TYPE_CHECKING:
    from astrea.experts.protocol import Expert, ExpertFeatures, Reading
    from astrea.model.configuration import AstreaConfig
    from astrea.model.explanation import Explanation, explain
    from astrea.model.loading import load_model
    from astrea.model.modeling import AstreaForConditionalGeneration
    from astrea.model.processing import AstreaProcessor
    from astrea.world.scenes.example import example_picture

__all__ = [
    "AstreaConfig",
    "AstreaError",
    "AstreaForConditionalGeneration",
    "AstreaProcessor",
    "Expert",
    "ExpertFeatures",
    "Explanation",
    "Reading",
    "__version__",
    "example_picture",
    "explain",
    "load_model",
]

_WHERE = {
    "AstreaConfig": "astrea.model.configuration",
    "AstreaForConditionalGeneration": "astrea.model.modeling",
    "AstreaProcessor": "astrea.model.processing",
    "Expert": "astrea.experts.protocol",
    "ExpertFeatures": "astrea.experts.protocol",
    "Explanation": "astrea.model.explanation",
    "Reading": "astrea.experts.protocol",
    "example_picture": "astrea.world.scenes.example",
    "explain": "astrea.model.explanation",
    "load_model": "astrea.model.loading",
}


def __getattr__(name: str) -> object:
    # Not kept among the globals: `help(astrea)` would then show thousands of lines of the base classes' methods.
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register_when_imported()
