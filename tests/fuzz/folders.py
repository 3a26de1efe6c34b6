"""Model folders that somebody might send who means no good: a good one, spoilt in some five hundred ways.

``hostile_folders`` lists them by name; each spoils a copy. Those written by hand are about one idea each; the others
put every odd value in the place of every value of every JSON file.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fuzz.folder_values import CONFIG, GENERATION, ODD, PAYLOAD, TEXT
from fuzz.harness import Case
from fuzz.spoils import Spoil, changed, edited, instead, put, removed, several, written
from fuzz.templates import HOSTILE_TEMPLATES
from fuzz.tokenizers import TOKENIZERS


class Payload:
    """A pickle that runs a command when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def _files() -> Iterator[tuple[str, Spoil]]:
    names = (
        "config.json",
        "generation_config.json",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    )
    for name in (*names, "chat_template.jinja", "model.safetensors"):
        yield f"{name} missing", removed(name)
        yield f"{name} empty", written(name, b"")
        yield f"{name} a folder", instead(name, Path.mkdir)
        yield f"{name} a pipe", instead(name, os.mkfifo)
        yield f"{name} a device", instead(name, lambda path: path.symlink_to("/dev/zero"))
        yield f"{name} a link to itself", instead(name, lambda path: path.symlink_to(path))
        yield f"{name} a link to a secret", instead(name, lambda path: path.symlink_to("/etc/passwd"))
        yield f"{name} no text", written(name, bytes(range(256)) * 10)
    for name in names:
        yield f"{name} nested", written(name, "[" * 100_000)
        yield f"{name} nested objects", written(name, '{"a":' * 50_000 + "1" + "}" * 50_000)
        yield f"{name} nested a little", written(name, '{"experts":' * 900 + "1" + "}" * 900)
        yield f"{name} long numbers", written(name, '{"a": ' + "9" * 100_000 + "}")
        yield f"{name} a list", written(name, "[1]")
        yield f"{name} large", written(name, b" " * (5 << 20))
        yield f"{name} halves", written(name, '{"model_type": "\\ud800", "x": "\\udfff"}')


def _weights() -> Iterator[tuple[str, Spoil]]:
    near = "model.fusion.mixer.near"
    long_head = (1 << 62).to_bytes(8, "little")
    yield "weights cut", lambda folder: os.truncate(folder / "model.safetensors", 5000)
    yield "weights with a long head", written("model.safetensors", long_head + b"{}")
    yield "weights with a nested head", written("model.safetensors", (10**6).to_bytes(8, "little") + b"[" * 10**6)
    head = json.dumps({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}).encode()
    yield "weights of overflowing shape", written("model.safetensors", len(head).to_bytes(8, "little") + head + b"1234")
    yield "weights pickled", written("model.safetensors", pickle.dumps(Payload()))
    yield "pickle instead", several(removed("model.safetensors"), written("pytorch_model.bin", pickle.dumps(Payload())))
    yield "pickle beside", written("pytorch_model.bin", pickle.dumps(Payload()))
    yield "training state beside", written("training_args.bin", pickle.dumps(Payload()))
    yield "tensor missing", changed(lambda tensors: tensors.pop(near))
    yield "tensor unknown", changed(lambda tensors: tensors.update(x=torch.ones(1)))
    yield "tensor of integers", changed(lambda tensors: tensors.update({near: torch.ones(4, dtype=torch.int64)}))
    yield "tensor of halves", changed(lambda tensors: tensors.update({near: torch.ones(4, dtype=torch.bfloat16)}))
    yield "tensor too long", changed(lambda tensors: tensors.update({near: torch.ones(5)}))
    yield (
        "tensors of no number",
        changed(lambda t: t.update({k: v * float("nan") for k, v in t.items() if v.is_floating_point()})),
    )
    yield (
        "tensors infinite",
        changed(lambda t: t.update({k: v + float("inf") for k, v in t.items() if v.is_floating_point()})),
    )
    yield (
        "adapters beside",
        written("adapter_config.json", json.dumps({"peft_type": "LORA", "base_model_name_or_path": "/etc"})),
    )
    yield "code beside", several(written("evil.py", PAYLOAD), written("custom_generate/generate.py", PAYLOAD))
    for name, index in {
        "index outside": {"weight_map": {near: "../../etc/passwd"}},
        "index absolute": {"weight_map": {near: "/etc/passwd"}},
        "index of a pickle": {"weight_map": {near: "pytorch_model.bin"}},
        "index of nothing": {"weight_map": {near: "missing.safetensors"}},
        "index of numbers": {"weight_map": {near: 7}},
        "index empty": {"weight_map": {}},
        "index a list": {"weight_map": [1]},
        "index without map": {},
        "index to many": {"weight_map": {str(i): f"a{i}.safetensors" for i in range(5000)}},
    }.items():
        yield name, several(removed("model.safetensors"), written("model.safetensors.index.json", json.dumps(index)))


def hostile_folders() -> dict[str, Spoil]:
    """All that are written by hand, by name."""
    found: dict[str, Spoil] = dict(_files())
    found |= dict(_weights())
    found |= {f"tokenizer: {name}": spoil for name, spoil in TOKENIZERS.items()}
    found |= {f"template: {name}": written("chat_template.jinja", text) for name, text in HOSTILE_TEMPLATES.items()}
    found |= {f"generation: {name}": edited("generation_config.json", **more) for name, more in GENERATION.items()}
    found |= {f"config: {name}": edited("config.json", **more) for name, more in CONFIG.items()}
    for key, values in TEXT.items():
        for value in values:
            found[f"text model: {key} {value!r:.40}"] = put("config.json", ("text_config", key), value)
    fields = ("num_visual_tokens", "max_length", "processor_class", "image_processor")
    for key in fields:
        for value in ODD:
            found[f"processor: {key} {value!r:.20}"] = edited("processor_config.json", **{key: value})
    found |= {
        f"picture size {value!r:.20}": put("processor_config.json", ("image_processor", "image_size"), value)
        for value in (*ODD, 63, 0, 10**6, 4096)
    }
    for size in (16, 48, 504, 512, 520, 4096):
        both = put("processor_config.json", ("image_processor", "image_size"), size)
        found[f"pictures of {size}"] = several(edited("config.json", image_size=size), both)
    found["audio"] = edited("processor_config.json", audio_tokenizer={"audio_tokenizer_class": "x"})
    found["another picture class"] = put(
        "processor_config.json", ("image_processor", "image_processor_type"), "CLIPImageProcessor"
    )
    return found


def random_folders(count: int, seed: int, base: Path) -> Iterator[tuple[str, Spoil]]:
    """Odd values in the place of values anywhere in the JSON files."""
    chance = random.Random(seed)
    places = [
        (name, place)
        for name in ("config.json", "generation_config.json", "processor_config.json", "tokenizer_config.json")
        for place in _places(json.loads((base / name).read_text()))
    ]
    for number in range(count):
        name, place = chance.choice(places)
        value = chance.choice(ODD)
        yield f"random {number}: {name} {'.'.join(map(str, place))} {value!r:.20}", put(name, place, value)


def _places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*before, key)
        yield from _places(inner, (*before, key))


def make(base: Path, spoil: Spoil, folder: Path) -> Path:
    """A spoilt copy of a good folder; the weights are linked, and written anew only by who spoils them."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    spoil(folder)
    return folder


def use(folder: Path, picture: Any) -> object:
    """What a person does with a model folder: load it and ask."""
    from astrea.model.explanation import explain
    from astrea.model.loading import load_model

    model, processor = load_model(folder)
    return explain(model, processor, picture, "what color is the cup?")


def cases(count: int, seed: int, folder: Path) -> Iterator[Case]:
    """The folders written by hand, spread over their kinds if fewer are wanted, and odd values for the rest."""
    from PIL import Image

    from astrea.model.loading import load_model

    base = folder / "good"
    model, processor = load_model("shipped")
    model.save_pretrained(base)
    processor.save_pretrained(base)
    picture = Image.new("RGB", (64, 64), "red")
    use(base, picture)  # what every case needs is imported and warm before the first is forked
    known = list(hostile_folders().items())
    chosen = known if count >= len(known) else random.Random(seed).sample(known, count)
    for number, (name, spoil) in enumerate([*chosen, *random_folders(count - len(chosen), seed, base)]):
        place = make(base, spoil, folder / f"{number}")
        yield Case(name, partial(use, place, picture), place)
        shutil.rmtree(place, ignore_errors=True)
