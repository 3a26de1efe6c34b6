"""Loading a model folder that somebody else may have made: checked before it is built, and never unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from astrea.configuration import AstreaConfig
from astrea.devices import Device, choose_device
from astrea.errors import AstreaError
from astrea.model import AstreaForConditionalGeneration
from astrea.paths import exists, is_file, is_folder, list_folder
from astrea.processor import AstreaProcessor
from astrea.quiet import quiet

MAX_JSON_BYTES = 4 << 20
MAX_TOKENIZER_BYTES = 128 << 20
WEIGHTS = "model.safetensors"
SHIPPED_NAME = "shipped"
"""Stands for the model that comes with the package wherever a model folder may be given."""

AGAIN = "copy or download the model folder again"


def load_model(
    folder: str | Path, *, trust_remote_code: bool = False, device: Device = "cpu"
) -> tuple[AstreaForConditionalGeneration, AstreaProcessor]:
    """A saved model, in evaluation mode, and its processor. Nothing is fetched from the network.

    Args:
        folder: what `astrea train` or ``save_pretrained`` of model and processor wrote; "shipped" is the model that
            comes with the package, unless there is a folder of that name.
        trust_remote_code: whether experts of kind "module:Class" may be imported. Only for folders you trust.
        device: where the model computes; auto = a GPU if there is one, otherwise the processor.

    Raises:
        AstreaError: a file is missing, cut short, too large or not Astrea's; weights that do not fit the configuration;
            or an import that was not allowed: names the file. Or there is no such device.
    """
    folder = Path(folder)
    if folder == Path(SHIPPED_NAME) and not is_folder(folder):
        from astrea import shipping  # which reads its files with the functions below

        model, processor = shipping.load_shipped()
        return placed(model, device), processor
    if not is_folder(folder):
        raise AstreaError(
            f"model folder {folder} {'is not a folder' if exists(folder) else 'does not exist'}",
            "give the folder that holds config.json and model.safetensors",
        )
    if not is_file(folder / "config.json") and is_file(folder / "model" / "config.json"):
        raise AstreaError(f"{folder} is the folder of a run, not of its model", f"give {folder / 'model'}")
    config = read_config(folder, allow_import=trust_remote_code)
    processor = read_processor(folder)
    model = _load_weights(folder, config, trust_remote_code)
    check_pair(folder, model, processor)
    return placed(model, device), processor


def placed(model: AstreaForConditionalGeneration, device: Device) -> AstreaForConditionalGeneration:
    """The model, moved to where it is wanted.

    Raises:
        AstreaError: there is no such device.
    """
    model.to(choose_device(device))  # type: ignore[arg-type]  # transformers hides what `to` takes
    return model


def read_json(path: Path, most: int) -> dict[str, Any]:
    """A JSON object of at most ``most`` bytes.

    Raises:
        AstreaError: the file is missing, unreadable, too large, or holds anything else. Names it.
    """
    try:
        size = path.stat().st_size
        # Opening a pipe or a device could wait for ever.
        if not path.is_file():
            raise AstreaError(f"{path} is not an ordinary file", AGAIN)
        if size > most:
            raise AstreaError(f"{path} has {size:,} bytes; at most {most:,} are read", AGAIN)
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise AstreaError(f"{path} is missing", AGAIN) from None
    except OSError as error:
        raise AstreaError(f"{path} cannot be read: {error}", "check the file and its permissions") from error
    except (ValueError, RecursionError) as error:
        raise AstreaError(f"{path} is not valid JSON: {_first_line(error)}", AGAIN) from error
    if not isinstance(value, dict):
        raise AstreaError(f"{path} holds a JSON {type(value).__name__} instead of an object", AGAIN)
    return value


def read_processor(folder: Path) -> AstreaProcessor:
    """The processor of a model folder, after a look at its files.

    Raises:
        AstreaError: a file is missing, unreadable or not Astrea's.
    """
    described = read_json(folder / "processor_config.json", MAX_JSON_BYTES)
    read_json(folder / "tokenizer_config.json", MAX_JSON_BYTES)
    read_json(folder / "tokenizer.json", MAX_TOKENIZER_BYTES)
    # An audio tokenizer would be loaded from wherever the file says.
    if described.get("processor_class") != AstreaProcessor.__name__ or "audio_tokenizer" in described:
        raise AstreaError(f"{folder / 'processor_config.json'} does not describe an AstreaProcessor", AGAIN)
    with quiet():
        try:
            processor = AstreaProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except AstreaError:
            raise
        except Exception as error:  # foreign files make transformers and tokenizers raise nearly any type
            raise AstreaError(f"the processor files of {folder} cannot be used: {_first_line(error)}", AGAIN) from error
    if processor.chat_template is None:
        raise AstreaError(f"{folder / 'chat_template.jinja'} is missing", AGAIN)
    return processor


def read_config(folder: Path, *, allow_import: bool = False, apart: str | None = None) -> AstreaConfig:
    """The configuration of a model folder, after comparing what it asks for with the header of the weights' file.

    Args:
        allow_import: whether experts of kind "module:Class" may be imported.
        apart: the beginning of the names of tensors that lie elsewhere, and so must not be in the weights' file.

    Raises:
        AstreaError: a file is missing, damaged or not Astrea's, or the two do not fit; names the file and the tensor.
    """
    path = folder / "config.json"
    described = read_json(path, MAX_JSON_BYTES)
    if described.get("model_type") != AstreaConfig.model_type:
        raise AstreaError(
            f"{path} describes a {described.get('model_type')!r} model",
            "give the folder of an Astrea model; other models load with transformers itself",
        )
    if exists(folder / "generation_config.json"):
        read_json(folder / "generation_config.json", MAX_JSON_BYTES)
    try:
        config = AstreaConfig.from_dict(described)
        # Without memory: the file, not the configuration, decides how much is allocated.
        with torch.device("meta"):
            skeleton = AstreaForConditionalGeneration(config, allow_import=allow_import)
    except AstreaError as error:
        raise AstreaError(f"{path}: {error.message}", error.mend) from error
    except Exception as error:  # values out of range make the parts raise nearly any type
        raise AstreaError(f"{path} describes no model that can be built: {_first_line(error)}", AGAIN) from error
    wanted = {
        name: list(tensor.shape)
        for name, tensor in skeleton.state_dict().items()
        if apart is None or not name.startswith(apart)
    }
    _check_header(folder / WEIGHTS, wanted, optional=set(getattr(skeleton, "all_tied_weights_keys", {})))
    return config


def _load_weights(folder: Path, config: AstreaConfig, allow_import: bool) -> AstreaForConditionalGeneration:
    """The model; anything that transformers would only warn of is an error."""
    with quiet():
        try:
            model, found = AstreaForConditionalGeneration.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                trust_remote_code=allow_import,
            )
        except AstreaError:
            raise
        except Exception as error:
            raise AstreaError(f"{folder} cannot be loaded: {_first_line(error)}", AGAIN) from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if found.get(kind):
            raise AstreaError(
                f"{folder / WEIGHTS} has {kind.replace('_', ' ')}: {sorted(map(str, found[kind]))[:3]}", AGAIN
            )
    return model.eval()


def _check_header(path: Path, wanted: dict[str, list[int]], optional: set[str]) -> None:
    """Compare the tensors of a safetensors file with the model's, reading names and shapes only."""
    if not is_file(path):
        pickles = sorted(p.name for p in list_folder(path.parent) if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        hint = f"{', '.join(pickles)} cannot be read instead: pickle files are never loaded; " if pickles else ""
        raise AstreaError(f"{path} is missing", hint + AGAIN)
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise AstreaError(
            f"{path} is damaged, cut short or no safetensors file: {_first_line(error)}", AGAIN
        ) from error
    missing = sorted(wanted.keys() - found.keys() - optional)
    if missing:
        raise AstreaError(f"{path} lacks {_some(missing)}", "it does not belong to this config.json; " + AGAIN)
    surplus = sorted(found.keys() - wanted.keys())
    if surplus:
        raise AstreaError(f"{path} has unknown {_some(surplus)}", "it does not belong to this config.json; " + AGAIN)
    for name, shape in found.items():
        if shape != wanted[name]:
            raise AstreaError(
                f"{path}: tensor {name} is {shape}, config.json asks for {wanted[name]}",
                "the two files do not belong together; " + AGAIN,
            )


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
        ("number of words", max(len(processor.tokenizer), words), words),
    )
    for what, said, wanted in pairs:
        if said != wanted:
            raise AstreaError(
                f"the processor files of {folder} do not fit the model: {what} {said}, the model's {wanted}", AGAIN
            )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"tensor {names[0]}{more}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
