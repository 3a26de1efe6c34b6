"""Loading a model folder that somebody else may have made: checked before it is built, and never unpickled."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from astrea.common.devices import Device, choose_device
from astrea.common.errors import AstreaError
from astrea.common.foreign_files import (
    AGAIN,
    MAX_JSON_BYTES,
    WEIGHTS,
    check_folder,
    foreign,
    of_file,
    read_json,
)
from astrea.common.hub import fetch_folder, is_hub_id
from astrea.common.installation import PHOTO_MODEL, SHIPPED_NAME, SHIPPED_PHOTO_NAME
from astrea.common.lazy import load_object
from astrea.common.paths import exists, is_file, is_folder, refuse_url
from astrea.common.quiet import quiet
from astrea.confidence.agreement import read_agreement
from astrea.confidence.estimator import read_estimator
from astrea.model.configuration import AstreaConfig
from astrea.model.folders.expert_options import ExpertOptions, fit_processor, with_expert_options
from astrea.model.folders.generation import check_generation
from astrea.model.folders.processor import read_processor
from astrea.model.folders.skeleton import build_skeleton, check_description
from astrea.model.folders.weights import check_shapes, read_shapes
from astrea.model.layout import with_current_names
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor

LOAD_BUNDLED = "astrea.world.bundled:load_bundled"
"""What loads the model that comes with the package; it reads its files with the functions below."""

LEARNED = "learned.safetensors"
"""File in a folder that holds only what a run learned; what its model starts from is in packages."""
LOAD_LEARNED = "astrea.training.learned:load_learned"


def load_model(
    folder: str | Path,
    *,
    trust_remote_code: bool = False,
    device: Device = "cpu",
    revision: str | None = None,
    expert_options: ExpertOptions | None = None,
) -> tuple[AstreaForConditionalGeneration, AstreaProcessor]:
    """A saved model, in evaluation mode, and its processor. Only a name on the hub is fetched.

    Args:
        folder: what `astrea train`, `astrea pack` or ``save_pretrained`` of model and processor wrote; "shipped" is
            the model that comes with the package, and "shipped-photo" the one for photographs, unless there is a folder
            of that name; or ``owner/name`` of a model on the hub, which is fetched once. Wherever it comes from, no
            pickle is read.
        trust_remote_code: whether experts of kind "module:Class" may be imported. Only for folders you trust.
        device: where the model computes; auto = a GPU if there is one, otherwise the processor.
        revision: of a model on the hub: a commit, branch or tag; None = the newest.
        expert_options: by expert's name, options of its kind instead of those that it was trained with; such as do not
            change the shape of a weight. Not for models that come with the package or hold only what was learned.

    Raises:
        AstreaError: a file is missing, cut short, too large or not Astrea's; weights that do not fit the configuration;
            or an import that was not allowed: names the file. Or there is no such device, expert or option.
    """
    refuse_url(folder)
    name, folder = folder, Path(folder)
    if folder == Path(SHIPPED_NAME) and not is_folder(folder):
        refuse_options(folder, expert_options)
        model, processor = load_object(LOAD_BUNDLED)()
        if model.config.question_span is None:  # packed before that was written down
            model.config.question_span = processor.chat.question_span
        return placed(model, device), processor
    if folder == Path(SHIPPED_PHOTO_NAME) and not is_folder(folder):
        folder = PHOTO_MODEL
        if not is_folder(folder):
            raise AstreaError("this build of Astrea ships no model for photographs", "train one: make photo")
    if is_hub_id(str(name)):
        folder = fetch_folder(
            str(name), revision, f"{name} is no folder here, and as the name of a model on the hub it"
        )
    elif revision is not None:
        raise AstreaError(f"{folder} is no name on the hub and has no revision", "leave `revision` out")
    if not is_folder(folder):
        raise AstreaError(
            f"model folder {folder} {'is not a folder' if exists(folder) else 'does not exist'}",
            "give the folder that holds config.json and model.safetensors",
        )
    if not is_file(folder / "config.json") and is_file(folder / "model" / "config.json"):
        raise AstreaError(f"{folder} is the folder of a run, not of its model", f"give {folder / 'model'}")
    check_folder(folder)
    if is_file(folder / LEARNED):
        refuse_options(folder, expert_options)
        model, processor = load_object(LOAD_LEARNED)(folder)
    else:
        config = read_config(folder, allow_import=trust_remote_code, expert_options=expert_options)
        processor = read_processor(folder)
        model = _load_weights(folder, config, trust_remote_code)
    if expert_options:
        fit_processor(processor, model)
    check_pair(folder, model, processor)
    # The experts say which pictures they read, whatever was written beside the processor.
    processor.image_processor.originals = model.experts.wants_originals
    model.experts.use_tokenizer(processor.tokenizer)
    _try(folder, model)
    read_judgement(folder, model)
    return placed(model, device), processor


def refuse_options(folder: Path, options: ExpertOptions | None) -> None:
    """Refuse other options for the experts of a model whose experts lie elsewhere.

    Raises:
        AstreaError: there are some.
    """
    if options:
        raise AstreaError(
            f"the experts of {folder} cannot be given other options", "load the folder that `astrea train` wrote"
        )


def read_judgement(folder: Path, model: AstreaForConditionalGeneration) -> None:
    """Give a model what its folder keeps beside it: what is familiar and how sure to be, and how experts agree.

    Raises:
        AstreaError: a file is damaged, or belongs to another model; names it.
    """
    model.confidence_estimator = read_estimator(folder, widths_of(model))
    labels = {name: model.experts[name].labels for name in model.experts.names}
    model.model.word_agreement = read_agreement(folder, labels)


def widths_of(model: AstreaForConditionalGeneration) -> dict[str, int]:
    """The width of each expert's tokens, by name."""
    return {name: model.experts[name].width for name in model.experts.names}


def placed(model: AstreaForConditionalGeneration, device: Device) -> AstreaForConditionalGeneration:
    """The model, moved to where it is wanted.

    Raises:
        AstreaError: there is no such device.
    """
    model.to(choose_device(device))  # type: ignore[arg-type]  # transformers hides what `to` takes
    return model


def read_config(
    folder: Path, *, allow_import: bool = False, apart: str | None = None, expert_options: ExpertOptions | None = None
) -> AstreaConfig:
    """The configuration of a model folder, after comparing what it asks for with the heads of the weights' files.

    Args:
        allow_import: whether experts of kind "module:Class" may be imported.
        apart: the beginning of the names of tensors that lie elsewhere, and so must not be in the weights' files.
        expert_options: see `load_model`.

    Raises:
        AstreaError: a file is missing, damaged or not Astrea's, or the two do not fit; names the file and the tensor.
    """
    path = folder / "config.json"
    described = read_json(path, MAX_JSON_BYTES)
    if described.get("model_type") != AstreaConfig.model_type:
        raise AstreaError(
            f"{path} describes a {described.get('model_type')!r:.80} model",
            "give the folder of an Astrea model; other models load with transformers itself",
        )
    with foreign(f"{path} describes no model"):
        check_description(str(path), described)
        if expert_options:
            described = with_expert_options(described, expert_options)
    found = read_shapes(folder)
    values = sum(math.prod(shape) for shape in found.values())
    with of_file(path):
        with foreign("it describes no model"):
            config = AstreaConfig.from_dict(described)
        # Without memory: the weights, not the configuration, decide how much is allocated.
        skeleton = build_skeleton(
            str(path), lambda: AstreaForConditionalGeneration(config, allow_import=allow_import), len(found), values
        )
    wanted = {
        name: list(tensor.shape)
        for name, tensor in skeleton.state_dict().items()
        if apart is None or not name.startswith(apart)
    }
    found = with_current_names(found, config.text_config)
    check_shapes(folder / WEIGHTS, found, wanted, optional=set(getattr(skeleton, "all_tied_weights_keys", {})))
    check_generation(folder, len(skeleton.get_input_embeddings().get_parameter("weight")))
    return config


def _load_weights(folder: Path, config: AstreaConfig, allow_import: bool) -> AstreaForConditionalGeneration:
    """The model; anything that transformers would only warn of is an error."""
    with quiet(), foreign(f"{folder} cannot be loaded"):
        model, found = AstreaForConditionalGeneration.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=allow_import,
        )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if found.get(kind):
            raise AstreaError(
                f"{folder / WEIGHTS} has {kind.replace('_', ' ')}: {sorted(map(str, found[kind]))[:3]}", AGAIN
            )
    result: AstreaForConditionalGeneration = model.eval()
    return result


@torch.no_grad()
def _try(folder: Path, model: AstreaForConditionalGeneration) -> None:
    """Two words without a picture: configurations can be built that do not run."""
    with foreign(f"{folder / 'config.json'} describes a model that does not run"):
        one = torch.zeros(1, 1, dtype=torch.long)
        out = model(input_ids=one, use_cache=True)
        mask = torch.ones(1, 2, dtype=torch.long)
        model(input_ids=one, attention_mask=mask, past_key_values=out.past_key_values, use_cache=True)


def check_pair(folder: Path, model: AstreaForConditionalGeneration, processor: AstreaProcessor) -> None:
    """Whether processor and model agree on what they pass to each other.

    Raises:
        AstreaError: they do not; says on what.
    """
    words = len(model.get_input_embeddings().get_parameter("weight"))
    pairs = (
        ("visual tokens per picture", processor.num_visual_tokens, model.num_visual_tokens),
        ("id of <image>", processor.image_token_id, model.config.image_token_id),
        ("size of the picture", getattr(processor.image_processor, "image_size", None), model.config.image_size),
        ("number of words", max(len(processor.tokenizer), _last_id(processor) + 1, words), words),
    )
    for what, said, wanted in pairs:
        if said != wanted:
            raise AstreaError(
                f"the processor files of {folder} do not fit the model: {what} {said}, the model's {wanted}", AGAIN
            )


def _last_id(processor: AstreaProcessor) -> int:
    """The largest id that the tokenizer gives: ids may have gaps."""
    return max(processor.tokenizer.get_vocab().values(), default=0)
