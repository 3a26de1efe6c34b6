"""Writing what a finished run learned as a small model folder, for `astrea.training.learned`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.common.files import atomic_path, sha256_file, write_json_atomic
from astrea.common.foreign_files import MAX_JSON_BYTES, WEIGHTS, read_json
from astrea.common.paths import check_empty, file_guard, is_file, size_of
from astrea.common.progress import SILENT, Reporter
from astrea.common.provenance import commit
from astrea.common.quiet import quiet
from astrea.common.user_cache import user_cache
from astrea.confidence.agreement import FILE as AGREEMENT
from astrea.confidence.estimator import FILE as DOUBT
from astrea.model.folders.saved import write_card
from astrea.model.loading import LEARNED
from astrea.recipes.recipe import Recipe
from astrea.recipes.saved import read_recipe
from astrea.report.results import Results, parse_results
from astrea.training.checkpoint import load_checkpoint
from astrea.training.learned import (
    ABOUT,
    FORMAT,
    fingerprints,
    is_needed,
    load_learned,
    package_versions,
    packaged,
    start_of,
)

EXPERTS = "model.experts."


def write_learned(
    run: Path, folder: Path, *, cache: Path | None = None, report: Reporter = SILENT
) -> tuple[int, dict[str, int]]:
    """Write what a finished run learned into a new folder, and load it once; returns the bytes of its weights' file,
    and how many values of each part that holds.

    Args:
        cache: where the language model is kept, no longer quantised; the user's by default.

    Raises:
        AstreaError: no finished run, or its model is made of more than packages and what it learned; ``folder`` holds
            something, or cannot be written.
    """
    recipe = packaged(read_recipe(run), str(run))
    model_folder = run / "model"
    if not is_file(model_folder / "config.json"):
        raise AstreaError(f"{run} is not finished: it has no model", f"go on with: astrea train --resume {run}")
    check_empty(folder)
    start, _ = start_of(recipe, cache or user_cache(), report)
    known = fingerprints(start)
    learned = learned_tensors(start.state_dict(), finished_weights(run, recipe, report), model_folder / WEIGHTS)
    config = start.config
    config.phrase_ids = read_json(model_folder / "config.json", MAX_JSON_BYTES).get("phrase_ids")
    config.text_config.name_or_path = ""  # a place on this machine
    results = results_of(run)
    with file_guard(folder), quiet():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / LEARNED) as partial:
            save_file(learned, partial)
        config.save_pretrained(folder)
        (folder / "recipe.json").write_text(json.dumps(read_recipe(run).model_dump(mode="json"), indent=2))
        for name in (DOUBT, AGREEMENT):
            if is_file(model_folder / name):
                (folder / name).write_bytes((model_folder / name).read_bytes())
        write_json_atomic(
            folder / ABOUT,
            {
                "format": FORMAT,
                "sha256": sha256_file(folder / LEARNED),
                "experts": known,
                "versions": package_versions(config),
                "commit": commit(),
                "torch": torch.__version__,
                "average": None if results is None else results.average,
                "blind_average": None if results is None else results.blind_average,
            },
        )
    write_card(folder, config, results)
    del start
    load_learned(folder, cache=cache, report=report)
    return size_of(folder / LEARNED), values_by_part(learned)


def results_of(run: Path) -> Results | None:
    """What the run scored, if it has been evaluated."""
    path = run / "results.json"
    return parse_results(read_json(path, MAX_JSON_BYTES), str(path)) if is_file(path) else None


def finished_weights(run: Path, recipe: Recipe, report: Reporter) -> dict[str, Tensor]:
    """The tensors of a run's last step, or of its best one where the recipe keeps that; low-rank adapters are not
    merged there yet, as they are in its model.

    Raises:
        AstreaError: there is no checkpoint of it any more.
    """
    places = [run / "best"] if recipe.data.keep_best else []
    for place in (*places, run / "checkpoints"):
        found = load_checkpoint(place, on_warning=report.say)
        if found is not None:
            return found.tensors["model"]
    raise AstreaError(f"{run} has no checkpoint left", f"train it again: astrea train --resume {run}")


def learned_tensors(start: Mapping[str, Tensor], found: Mapping[str, Tensor], weights: Path) -> dict[str, Tensor]:
    """What of a run's tensors is not what it started from, in fp16 where they are numbers; and what a file of them has
    to hold in any case.

    Args:
        start: what packages give. found: what the run's checkpoint holds: all but the experts that stayed.
        weights: of the run's whole model, which has these.

    Raises:
        AstreaError: the run is of another model.
    """
    kept = {name: tensor for name, tensor in found.items() if is_needed(name) or differs(name, tensor, start)}
    with safe_open(weights, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            if name.startswith(EXPERTS) and name not in found and differs(name, tensor := file.get_tensor(name), start):
                kept[name] = tensor
    return {name: in_half(tensor) for name, tensor in kept.items()}


def differs(name: str, tensor: Tensor, start: Mapping[str, Tensor]) -> bool:
    """Whether a tensor is not what packages give.

    Raises:
        AstreaError: they give none of its name and shape.
    """
    if name not in start or start[name].shape != tensor.shape:
        raise AstreaError(
            f"the run's tensor {name} is not in what its recipe starts from",
            "write it with the version of this package that trained it",
        )
    return not torch.equal(start[name], tensor)


def in_half(tensor: Tensor) -> Tensor:
    """The tensor in fp16, unless it is of whole numbers or has values beyond those."""
    if not tensor.is_floating_point():
        return tensor.contiguous()
    half = tensor.half()
    return (half if bool(half.isfinite().all()) else tensor.float()).contiguous()


def values_by_part(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """How many values each part of a model has among some tensors, the most first."""
    found: dict[str, int] = {}
    for name, tensor in tensors.items():
        part = ".".join(name.removeprefix("model.").split(".")[:2])
        part = "language_model" if part.startswith("language_model") else part
        found[part] = found.get(part, 0) + tensor.numel()
    return dict(sorted(found.items(), key=lambda item: -item[1]))
