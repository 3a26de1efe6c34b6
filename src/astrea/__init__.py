"""Vision-language models that look through several vision experts at once.

    load_model(folder)                  a trained model and its processor; "shipped" is the one in the package
    explain(model, processor, picture, question)
                                        an Explanation: the answer, shares, readings, what masking each expert changes
    example_picture()                   the path of a picture to ask about
    AstreaForConditionalGeneration      the model, a PreTrainedModel of transformers
    AstreaConfig, AstreaProcessor       its configuration and processor
    Expert, ExpertFeatures, Reading     what an expert of one's own derives from, and what it gives
    AstreaError                         what goes wrong and how to mend it
    __version__                         this version

Importing this package makes the model known to transformers, so that ``pipeline("image-text-to-text", model=folder)``
and the auto classes find it. torch and transformers are imported when they are first needed. From a shell: ``astrea``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from astrea.errors import AstreaError
from astrea.import_hook import register_when_imported
from astrea.installation import __version__

if TYPE_CHECKING:
    from astrea.configuration import AstreaConfig
    from astrea.experts.protocol import Expert, ExpertFeatures, Reading
    from astrea.explanation import Explanation, explain
    from astrea.loading import load_model
    from astrea.model import AstreaForConditionalGeneration
    from astrea.processor import AstreaProcessor
    from astrea.scenes.example import example_picture

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
    "AstreaConfig": "astrea.configuration",
    "AstreaForConditionalGeneration": "astrea.model",
    "AstreaProcessor": "astrea.processor",
    "Expert": "astrea.experts.protocol",
    "ExpertFeatures": "astrea.experts.protocol",
    "Explanation": "astrea.explanation",
    "Reading": "astrea.experts.protocol",
    "example_picture": "astrea.scenes.example",
    "explain": "astrea.explanation",
    "load_model": "astrea.loading",
}


def __getattr__(name: str) -> object:
    # Not kept among the globals: `help(astrea)` would then show thousands of lines of the base classes' methods.
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register_when_imported()
