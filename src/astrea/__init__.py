"""Astrea: vision-language models that look through several vision experts at once.

Importing it registers the model with transformers, so that ``pipeline("image-text-to-text", model=folder)`` and the
auto classes know it.
"""

from importlib.metadata import version as _version

from astrea.configuration import AstreaConfig
from astrea.errors import AstreaError
from astrea.experts.protocol import Expert, ExpertFeatures, Reading
from astrea.model import AstreaForConditionalGeneration
from astrea.processor import AstreaProcessor
from astrea.registration import register as _register

__version__ = _version("astrea")
__all__ = [
    "AstreaConfig",
    "AstreaError",
    "AstreaForConditionalGeneration",
    "AstreaProcessor",
    "Expert",
    "ExpertFeatures",
    "Reading",
    "__version__",
]

_register()
