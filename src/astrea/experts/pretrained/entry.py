"""From a recipe's entry to what an Astrea model keeps of it: the class of the expert, and options without any file.

An entry's checkpoint says everything; without one, the entry's own ``architecture`` says what a config.json would, and
the rest is as usual for that architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers import AutoConfig, PreTrainedConfig

from astrea.common.architecture import describe
from astrea.common.config_only import check_agreement, read_architecture
from astrea.common.errors import AstreaError
from astrea.common.foreign_files import first_line
from astrea.experts.bank import expert_class
from astrea.experts.pretrained.base import CheckpointExpert
from astrea.experts.pretrained.captioning import CaptionCheckpoint
from astrea.experts.pretrained.classification import COMPARED, TagCheckpoint, ZeroShotCheckpoint
from astrea.experts.pretrained.detection import OPEN, DetectionCheckpoint
from astrea.experts.pretrained.grid import GridCheckpoint
from astrea.experts.pretrained.kinds import kind_of
from astrea.experts.pretrained.options import CaptionOptions, DetectionOptions, RecipeOptions, checked
from astrea.experts.pretrained.preprocess import read_preprocess
from astrea.experts.pretrained.segmentation import SegmentationCheckpoint
from astrea.experts.pretrained.source import checkpoint_folder, read_config_json, read_processor_json
from astrea.experts.pretrained.words import caption_settings, phrase_text

if TYPE_CHECKING:
    from astrea.recipes.recipe import ExpertEntry

Expert = type[CheckpointExpert]


class Known(NamedTuple):
    """An architecture that checkpoints may have.

    usual: its image processor, a key of `preprocess.USUAL`. expert: the class that holds it; None = by its head, see
    `classifier`. part: the part of the configuration that is kept. sized: whether the configuration's image_size is the
    size of the pictures that it is given, and not only of those it was trained on.
    """

    usual: str
    expert: Expert | None = None
    part: str = ""
    sized: bool = False


KNOWN: Mapping[str, Mapping[str, Known]] = {
    "detection": {
        "detr": Known("Detr", DetectionCheckpoint),
        "rt_detr": Known("RTDetr", DetectionCheckpoint),
        "rt_detr_v2": Known("RTDetr", DetectionCheckpoint),
        "d_fine": Known("RTDetr", DetectionCheckpoint),
        "yolos": Known("Yolos", DetectionCheckpoint),
        OPEN: Known("GroundingDino", DetectionCheckpoint),
    },
    "segmentation": {
        "segformer": Known("Segformer", SegmentationCheckpoint),
        "mask2former": Known("Mask2Former", SegmentationCheckpoint),
        "eomt": Known("Eomt", SegmentationCheckpoint, sized=True),
        "sam": Known("Sam", GridCheckpoint, "vision_config", sized=True),
    },
    "classification": {
        "vit": Known("ViT", sized=True),
        "dinov2": Known("Bit"),
        "dinov2_with_registers": Known("Bit"),
        "dinov3_vit": Known("DINOv3ViT", sized=True),
        "convnextv2": Known("ConvNext"),
        "clip": Known("CLIP", part="vision_config", sized=True),
        "siglip": Known("Siglip", part="vision_config", sized=True),
        "siglip2": Known("Siglip2", part="vision_config"),
    },
    "captioning": {
        "blip": Known("Blip", CaptionCheckpoint, sized=True),
        "git": Known("CLIP", CaptionCheckpoint, sized=True),
        "florence2": Known("CLIP", CaptionCheckpoint),
    },
}
"""Recipe kind -> ``model_type`` of a checkpoint -> what to know of it."""


def resolve(name: str, entry: ExpertEntry) -> dict[str, Any]:
    """What `AstreaConfig.experts` says of an expert: ``{"kind": ..., "options": ...}``, from which it can be built.

    Raises:
        AstreaError: the checkpoint is missing, unpinned, a pickle, of an architecture that the kind does not know, or
            the options do not fit; names the expert and says what would.
    """
    try:
        if entry.checkpoint is None and entry.architecture is None:
            expert = expert_class(entry.kind, allow_import=True)
            return {"kind": entry.kind, "options": expert.kept_options(entry.options)}
        if entry.checkpoint is None:
            return from_architecture(entry)
        return from_folder(entry, checkpoint_folder(entry.checkpoint, entry.revision))
    except AstreaError as error:
        raise AstreaError(f"expert {name!r}: {error.message}", error.hint) from error


def from_folder(entry: ExpertEntry, folder: Path) -> dict[str, Any]:
    """The same from the files of a checkpoint; its weights need not be there. Raises as `resolve` does, and where the
    entry's architecture is another one."""
    known_architectures(entry.kind)
    config = read_config(folder)
    if entry.architecture is not None:
        check_agreement(entry.architecture, config, "architecture", folder)
    known = _known(entry.kind, config)
    source = f"{entry.checkpoint}@{entry.revision}" if entry.revision else folder.resolve().name
    return _kept(entry, config, known, read_processor_json(folder), source, folder)


def from_architecture(entry: ExpertEntry) -> dict[str, Any]:
    """The same from the entry's architecture alone, whatever checkpoint it names. Raises as `resolve` does."""
    known_architectures(entry.kind)
    config = read_architecture(entry.architecture or {}, "architecture")
    known = _known(entry.kind, config)
    processor: dict[str, Any] = {}
    if known.sized:
        side = getattr(config, "vision_config", config).image_size
        processor = {"size": side, "crop_size": side}
    return _kept(entry, config, known, processor, "random weights", None)


def known_architectures(kind: str) -> Mapping[str, Known]:
    """What a kind of expert knows of checkpoints.

    Raises:
        AstreaError: nothing.
    """
    if kind not in KNOWN:
        raise AstreaError(f"{kind!r} takes no checkpoint", f"kinds that do: {', '.join(KNOWN)}")
    return KNOWN[kind]


def _known(kind: str, config: PreTrainedConfig) -> Known:
    known = known_architectures(kind).get(config.model_type)
    if known is None:
        raise AstreaError(f"{kind} knows no {config.model_type!r} checkpoints", _where(kind, config))
    return known


def _kept(
    entry: ExpertEntry,
    config: PreTrainedConfig,
    known: Known,
    processor: Mapping[str, Any],
    source: str,
    folder: Path | None,
) -> dict[str, Any]:
    both = {key: value for key, value in entry.options.items() if key in RecipeOptions.model_fields}
    chosen = {key: value for key, value in entry.options.items() if key not in both}
    common = checked(RecipeOptions, both)
    expert = known.expert or classifier(config, chosen)
    settings = settings_of(expert, folder, config, chosen)
    part: Any = getattr(config, known.part, config) if known.part else config
    if config.model_type == "clip" and part is not config:
        part.projection_dim = config.projection_dim  # the model goes by this one, not by its part's own
    prepared = read_preprocess(processor, known.usual, image_size=common.image_size)
    options = {
        "architecture": describe(part),
        "preprocess": prepared.model_dump(mode="json"),
        "source": source,
        **settings,
    }
    return {"kind": kind_of(expert), "options": options}


def read_config(folder: Path) -> PreTrainedConfig:
    """The configuration of a checkpoint.

    Raises:
        AstreaError: it is missing, damaged, or of an architecture that transformers does not have.
    """
    described = read_config_json(folder)
    try:
        found: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return found
    except Exception as error:  # foreign files make transformers raise nearly any type
        raise AstreaError(
            f"{folder / 'config.json'} ({described.get('model_type')!r}) cannot be used: {first_line(error)}",
            "use a checkpoint that transformers itself can load without code of its own",
        ) from error


def _where(kind: str, config: PreTrainedConfig) -> str:
    """Which kinds an architecture belongs to, and which architectures this kind knows."""
    homes = [other for other, known in KNOWN.items() if config.model_type in known]
    there = f"it belongs to kind {' or '.join(homes)}; " if homes else ""
    return f"{there}{kind} knows {', '.join(KNOWN[kind])}"


def classifier(config: PreTrainedConfig, chosen: Mapping[str, Any]) -> Expert:
    """The class that holds a backbone: by whether it has a head, and whether phrases are to be compared.

    Raises:
        AstreaError: phrases for a checkpoint that cannot compare.
    """
    if config.model_type in TagCheckpoint.networks and any(
        name.endswith("ForImageClassification") for name in config.architectures or ()
    ):
        return TagCheckpoint
    if not chosen.get("phrases"):
        return GridCheckpoint
    if f"{config.model_type}_vision_model" not in COMPARED:
        raise AstreaError(
            f"a {config.model_type} checkpoint without a head has no words to compare phrases with",
            "leave `phrases` out, or use a CLIP or SigLIP checkpoint",
        )
    return ZeroShotCheckpoint


def settings_of(
    expert: Expert, folder: Path | None, config: PreTrainedConfig, chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of the class: what the recipe says, checked, and what the checkpoint's own words add.

    Raises:
        AstreaError: an option is unknown, out of range, or not the recipe's to give, or needs words that are not there.
    """
    if foreign := expert.accepts.derived & chosen.keys():
        raise AstreaError(
            f"option {min(foreign)!r} is not for a recipe to give", "leave it out: the checkpoint says it"
        )
    known = {*expert.accepts.model_fields, *RecipeOptions.model_fields} - expert.accepts.derived
    if unknown := chosen.keys() - known:
        raise AstreaError(f"unknown option {min(unknown)!r}", f"options of this expert: {', '.join(sorted(known))}")
    settings = checked(expert.accepts, chosen)
    found: dict[str, Any] = {}
    if isinstance(settings, CaptionOptions):
        found = caption_settings(folder, config, settings.prompt)
    elif isinstance(settings, DetectionOptions) and config.model_type == OPEN:
        if folder is None:
            raise AstreaError(
                "phrases are read by a checkpoint's own tokenizer, and there is only an architecture",
                "name a folder that holds the checkpoint's config.json and tokenizer.json",
            )
        found = phrase_text(folder, config, settings.phrases)
    # Written out whole: a finished model must not change with the defaults of a later version.
    return checked(expert.accepts, settings.model_dump() | found).model_dump(mode="json")
