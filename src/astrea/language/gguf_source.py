"""``llm.checkpoint: FILE.gguf`` and ``package:NAME``: a GGUF file as a run's language model.

The file is known by its sha256, which stands in ``llm.revision`` from a run's start on, and not by its place. Its
weights are dequantised once for every type and kept in the cache; from then on the file itself is not needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file
from astrea.common.installation import require_extra
from astrea.common.kept_folders import kept_folder
from astrea.common.paths import file_guard
from astrea.common.progress import SILENT, Reporter
from astrea.language.gguf import check_file, folder_from_gguf, gguf_file

if TYPE_CHECKING:
    from astrea.recipes.recipe import LanguageModel

FORMAT = 1
"""Version of what is kept: increase it when the same file becomes another folder."""


def check_source(language: LanguageModel) -> None:
    """Whether the GGUF file of a recipe can be read here, as far as can be seen without reading it.

    Raises:
        AstreaError: the file or its package is not there, it is no GGUF file, or the library gguf is not installed;
            says what to do.
    """
    if language.checkpoint is not None and language.gguf:
        require_extra("gguf", f"the language model {language.checkpoint}")
        check_file(gguf_file(language.checkpoint))


def pinned(language: LanguageModel, report: Reporter = SILENT) -> LanguageModel:
    """The same language model with its GGUF file's sha256 as its revision; any other kind as it is.

    Raises:
        AstreaError: as `check_source`.
    """
    if language.checkpoint is None or not language.gguf or language.revision is not None:
        return language
    check_source(language)
    file = gguf_file(language.checkpoint)
    with file_guard(file):
        sha256 = sha256_file(file)
    report.say(f"{language.checkpoint} has the sha256 {sha256[:16]}...")
    return language.model_copy(update={"revision": sha256})


def as_folder(language: LanguageModel, cache: Path, report: Reporter = SILENT) -> LanguageModel:
    """The same language model as a checkpoint folder, which is made in the cache if it is not there yet; any other kind
    as it is.

    Args:
        language: `pinned`.

    Raises:
        AstreaError: the file is not the one that the recipe names by its sha256, it cannot be read, or the cache cannot
            be written.
    """
    if language.checkpoint is None or not language.gguf:
        return language
    name, revision = language.checkpoint, language.revision

    def make(folder: Path) -> None:
        file = gguf_file(name)
        check_file(file)
        with file_guard(file):
            sha256 = sha256_file(file)
        if sha256 != revision:
            raise AstreaError(
                f"{file} has the sha256 {sha256}, and llm.revision is {revision}",
                "give the file that the recipe was made with, or leave llm.revision out of a new run's recipe",
            )
        folder_from_gguf(file, folder, dtype=language.dtype, report=report)

    folder = kept_folder(cache, entry_key(language), make, on_event=report.say)
    return language.model_copy(update={"checkpoint": str(folder), "revision": None})


def entry_key(language: LanguageModel) -> dict[str, Any]:
    """What the folder of a `pinned` GGUF file depends on."""
    return {"what": f"language model {language.dtype}", "gguf": language.revision, "format": FORMAT}
