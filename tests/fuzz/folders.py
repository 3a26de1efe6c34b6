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
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from fuzz.folder_values import CONFIG, GENERATION, ODD, PAYLOAD, TEXT
from fuzz.harness import Case
from fuzz.templates import HOSTILE_TEMPLATES

Spoil = Callable[[Path], None]


class Payload:
    """A pickle that runs a command when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def edited(name: str, **changes: Any) -> Spoil:
    """Other values for keys of a JSON file."""

    def spoil(folder: Path) -> None:
        value = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps(value | changes))

    return spoil


def put(name: str, place: tuple[Any, ...], value: Any) -> Spoil:
    """Another value at a place in a JSON file."""

    def spoil(folder: Path) -> None:
        whole = json.loads((folder / name).read_text())
        inner = whole
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        (folder / name).write_text(json.dumps(whole))

    return spoil


def written(name: str, data: bytes | str) -> Spoil:
    """Other bytes in the place of a file."""

    def spoil(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    return spoil


def changed(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    """Other tensors."""

    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def several(*spoils: Spoil) -> Spoil:
    """One after the other."""

    def spoil(folder: Path) -> None:
        for one in spoils:
            one(folder)

    return spoil


def removed(name: str) -> Spoil:
    """Without a file."""
    return lambda folder: (folder / name).unlink()


def instead(name: str, make: Callable[[Path], object]) -> Spoil:
    """Something else in the place of a file."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return spoil


# Tokenizers


def pipeline(part: str, *steps: dict[str, Any]) -> Spoil:
    """Other steps in a part of tokenizer.json."""
    kind = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}[part]
    return put("tokenizer.json", (part,), {"type": "Sequence", kind: list(steps)})


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


GROWING = [replace({"String": "a"}, "aa")] * 40
TOKENIZERS: dict[str, Spoil] = {
    "normalizer that doubles": pipeline("normalizer", *GROWING),
    "decoder that doubles": pipeline("decoder", *GROWING),
    "normalizer between all characters": pipeline("normalizer", replace({"Regex": ""}, "x" * 10_000)),
    "normalizer of a megabyte": pipeline("normalizer", replace({"String": "e"}, "x" * (1 << 20))),
    "normalizer prepends a megabyte": pipeline("normalizer", {"type": "Prepend", "prepend": "x" * (1 << 20)}),
    "precompiled normalizer empty": pipeline("normalizer", {"type": "Precompiled", "precompiled_charsmap": ""}),
    "precompiled normalizer short": pipeline("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "precompiled normalizer wild": pipeline(
        "normalizer", {"type": "Precompiled", "precompiled_charsmap": "/////w" * 200}
    ),
    "precompiled normalizer cut": pipeline("normalizer", {"type": "Precompiled", "precompiled_charsmap": "BAAAAAEA"}),
    "pattern that backtracks": pipeline("pre_tokenizer", split("(a+)+$")),
    "pattern that chooses": pipeline("pre_tokenizer", split("(?:a|a)*b")),
    "pattern that looks behind": pipeline("pre_tokenizer", split(r"(\s*)*\s*\s*\s*\s*x")),
    "pattern of many stars": pipeline("pre_tokenizer", split("a*" * 12 + "b")),
    "pattern without end": pipeline("pre_tokenizer", split("((")),
    "pattern of a megabyte": pipeline("pre_tokenizer", split("a?" * 500_000)),
    "nested steps": put(
        "tokenizer.json",
        ("normalizer",),
        json.loads('{"type":"Sequence","normalizers":[' * 90 + '{"type":"NFC"}' + "]}" * 90),
    ),
    "unknown model": put("tokenizer.json", ("model",), {"type": "magic"}),
    "no model": put("tokenizer.json", ("model",), None),
    "no vocabulary": put("tokenizer.json", ("model", "vocab"), {}),
    "vocabulary a list": put("tokenizer.json", ("model", "vocab"), [1, 2]),
    "unknown token missing": put("tokenizer.json", ("model", "unk_token"), "<nowhere>"),
    "negative id": put("tokenizer.json", ("model", "vocab", "cup"), -1),
    "huge id": put("tokenizer.json", ("model", "vocab", "cup"), 2**31),
    "id beyond the table": put("tokenizer.json", ("model", "vocab", "cup"), 100_000),
    "id twice": put("tokenizer.json", ("model", "vocab", "cup"), 7),
    "BPE of wrong merges": put(
        "tokenizer.json", ("model",), {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"], ["x", "y"]]}
    ),
    "BPE of broken merges": put("tokenizer.json", ("model",), {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}),
    "BPE of bytes without bytes": put(
        "tokenizer.json",
        ("model",),
        {"type": "BPE", "vocab": {"a": 0}, "merges": [], "byte_fallback": True, "unk_token": "<unk>"},
    ),
    "unigram without unknown": put(
        "tokenizer.json", ("model",), {"type": "Unigram", "unk_id": 99, "vocab": [["a", 0.0], ["b", -1.0]]}
    ),
    "unigram with no number": put(
        "tokenizer.json", ("model",), {"type": "Unigram", "unk_id": 0, "vocab": [["a", -1e308], ["", 1e308]]}
    ),
    "unigram empty": put("tokenizer.json", ("model",), {"type": "Unigram", "unk_id": None, "vocab": []}),
    "word level without unknown": put(
        "tokenizer.json", ("model",), {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "<none>"}
    ),
    "token of a megabyte": put("tokenizer.json", ("model", "vocab", "x" * (1 << 20)), 8),
    "special token of a megabyte": put(
        "tokenizer.json",
        ("added_tokens", 0, "content"),
        "y" * (1 << 20),
    ),
    "special token empty": put("tokenizer.json", ("added_tokens", 0, "content"), ""),
    "special token of another id": put("tokenizer.json", ("added_tokens", 0, "id"), 10**9),
    "padding to a billion": put(
        "tokenizer.json",
        ("padding",),
        {
            "strategy": {"Fixed": 10**9},
            "direction": "Left",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<pad>",
        },
    ),
    "truncation to nothing": put(
        "tokenizer.json",
        ("truncation",),
        {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 5},
    ),
    "template that adds a million": put(
        "tokenizer.json",
        ("post_processor",),
        {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [1] * 1_000_000, "tokens": ["<bos>"] * 1_000_000}},
        },
    ),
    "template without its token": put(
        "tokenizer.json",
        ("post_processor",),
        {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<no>", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        },
    ),
    "no decoder": put("tokenizer.json", ("decoder",), None),
    "decoder strips": pipeline("decoder", {"type": "Strip", "content": "a", "start": 2**60, "stop": 2**60}),
    "decoder of bytes": pipeline("decoder", {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "CTC"}),
    "settings name a file": edited("tokenizer_config.json", vocab_file="/etc/passwd"),
    "settings name another tokenizer": edited("tokenizer_config.json", tokenizer_file="/etc/passwd"),
    "settings name code": several(
        written("evil.py", PAYLOAD + "class Evil: pass\n"),
        edited("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, tokenizer_class="Evil"),
    ),
    "settings of an unknown class": edited("tokenizer_config.json", tokenizer_class="MagicTokenizer"),
    "settings of a slow class": edited("tokenizer_config.json", tokenizer_class="CTRLTokenizer"),
    "settings of another class": edited("tokenizer_config.json", tokenizer_class="LlamaTokenizer"),
    "settings of a bytes class": edited("tokenizer_config.json", tokenizer_class="ByT5Tokenizer"),
    "settings of GPT-2": edited("tokenizer_config.json", tokenizer_class="GPT2Tokenizer"),
    "settings with a template": edited("tokenizer_config.json", chat_template=[{"name": "x", "template": "{{"}]),
    "settings with many words": edited(
        "tokenizer_config.json", extra_special_tokens=[f"<{i}>" for i in range(100_000)]
    ),
    "settings with odd words": edited("tokenizer_config.json", extra_special_tokens={"a": {"b": 1}}),
    "settings with a huge word": edited("tokenizer_config.json", bos_token="z" * (1 << 20)),
    "settings with an id": edited(
        "tokenizer_config.json", added_tokens_decoder={"99999999999": {"content": "<x>", "special": True}}
    ),
    "further words": written("added_tokens.json", json.dumps({"<x>": 10**9})),
    "further special words": written("special_tokens_map.json", json.dumps({"bos_token": ["x"] * 1000})),
    "without end token": edited("tokenizer_config.json", eos_token=None),
    "without padding token": edited("tokenizer_config.json", pad_token=None),
    "no image token": put("tokenizer.json", ("added_tokens",), []),
}


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


def _all_plus(tensors: dict[str, torch.Tensor], value: float) -> None:
    tensors.update({name: tensor + value for name, tensor in tensors.items() if tensor.is_floating_point()})


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
