"""Saving, loading and generating: what a user of transformers does with a model folder."""

from __future__ import annotations

import json
import pickle
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText, pipeline

from astrea import AstreaConfig, AstreaError, AstreaForConditionalGeneration
from astrea.common.foreign_files import MAX_JSON_BYTES
from astrea.model.loading import load_model
from astrea.model.registration import register

QUESTIONS = ["what color is the cup?", "is it red?", "how many things are to the left of the big blue ball?", "why?"]
# An untrained model would end or start over at once: no special tokens, and always eight words.
WORDS_ONLY = {
    "max_new_tokens": 8,
    "min_new_tokens": 8,
    "do_sample": False,
    "suppress_tokens": [0, 1, 2, 3, 4, 5, 6],
}


def prompt(question: str, pictures: int = 1) -> str:
    return f"<bos>{'<image>' * pictures}<user>{question}<assistant>"


def answer_ids(model, inputs, **options) -> torch.Tensor:
    """The generated tokens (B, 8)."""
    made = model.generate(**inputs, **(WORDS_ONLY | options))
    return made[:, inputs["input_ids"].shape[1] :]


@pytest.fixture(scope="module")
def mixed(tiny_processor, pictures):
    """Four rows with one, no, two and one picture, together and one by one."""
    counts = [1, 0, 2, 1]
    images = [pictures[:1], [], pictures[1:3], pictures[3:]]
    texts = [prompt(q, n) for q, n in zip(QUESTIONS, counts, strict=True)]
    single = [tiny_processor(images=[i] if i else None, text=[t]) for i, t in zip(images, texts, strict=True)]
    return tiny_processor(images=images, text=texts), single


# Saving and loading


def same_model(one: torch.nn.Module, two: torch.nn.Module) -> None:
    first, second = one.state_dict(), two.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    buffers = dict(two.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in one.named_buffers())


def test_a_loaded_model_is_the_saved_one_bit_for_bit(tiny_model, tiny_folder, mixed):
    loaded, _ = load_model(tiny_folder)
    same_model(tiny_model, loaded)
    assert not loaded.training
    assert loaded.dtype == torch.float32
    assert loaded.experts.names == tiny_model.experts.names != sorted(tiny_model.experts.names)
    assert loaded.language_model.config._attn_implementation == "eager"
    assert loaded.experts["detection"].threshold == tiny_model.experts["detection"].threshold
    embeddings = loaded.get_input_embeddings().weight
    assert embeddings is loaded.get_output_embeddings().weight
    with torch.no_grad():
        one, two = tiny_model(**mixed[0]), loaded(**mixed[0])
    assert torch.equal(one.logits, two.logits)
    assert torch.equal(one.shares, two.shares)


def test_the_auto_class_loads_the_same(tiny_model, tiny_folder, mixed):
    register()
    register()
    assert type(AutoConfig.from_pretrained(tiny_folder)) is AstreaConfig
    loaded = AutoModelForImageTextToText.from_pretrained(tiny_folder)
    assert type(loaded) is AstreaForConditionalGeneration
    same_model(tiny_model, loaded)
    with torch.no_grad():
        assert torch.equal(tiny_model(**mixed[0]).logits, loaded(**mixed[0]).logits)


def test_saving_again_changes_nothing(tiny_folder, tmp_path):
    model, processor = load_model(tiny_folder)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    one, two = (load_file(folder / "model.safetensors") for folder in (tiny_folder, tmp_path))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (tiny_folder, tmp_path))
    # transformers notes the type of the loaded weights in the inner configuration too.
    assert after["text_config"].pop("dtype", before["dtype"]) == before["dtype"]
    before["text_config"].pop("dtype", None)
    assert after == before


def test_every_weight_of_every_expert_is_in_the_file(tiny_model, tiny_folder):
    saved = load_file(tiny_folder / "model.safetensors")
    for name, tensor in tiny_model.experts.state_dict().items():
        assert torch.equal(saved[f"model.experts.{name}"], tensor)
    assert "lm_head.weight" not in saved


def test_generation_stops_at_the_end_mark(tiny_model, tiny_processor, tiny_folder):
    found = json.loads((tiny_folder / "generation_config.json").read_text())
    tokenizer = tiny_processor.tokenizer
    assert (found["eos_token_id"], found["pad_token_id"]) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    inputs = tiny_processor(text=prompt("is it red?", 0))
    first = int(answer_ids(tiny_model, inputs)[0, 2])
    made = answer_ids(tiny_model, inputs, eos_token_id=first, min_new_tokens=0)
    assert made[0, -1] == first
    assert made.shape[1] <= 3


def test_loading_does_not_touch_the_network(tiny_folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load_model(tiny_folder)


# Generating


def test_the_stock_pipeline_answers_as_the_processor_does(tiny_model, tiny_processor, tiny_folder, pictures):
    messages = [
        {"role": "user", "content": [{"type": "image", "image": p}, {"type": "text", "text": q}]}
        for p, q in zip(pictures, QUESTIONS, strict=True)
    ]
    pipe = pipeline("image-text-to-text", model=str(tiny_folder))
    said = [
        pipe(text=[m], return_full_text=False, generate_kwargs=dict(WORDS_ONLY))[0]["generated_text"] for m in messages
    ]
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True}
    inputs = tiny_processor.apply_chat_template([[m] for m in messages], **options)
    wanted = tiny_processor.post_process_image_text_to_text(answer_ids(tiny_model, inputs))
    assert said == wanted
    assert len(set(said)) > 1
    plain = pipe(images=pictures[0], text=prompt(QUESTIONS[0]), generate_kwargs=dict(WORDS_ONLY))
    assert plain[0]["generated_text"] == prompt(QUESTIONS[0]) + wanted[0]


def test_a_padded_batch_answers_as_its_rows_do_alone(tiny_model, mixed):
    batch, single = mixed
    together = answer_ids(tiny_model, batch)
    alone = torch.cat([answer_ids(tiny_model, row) for row in single])
    assert torch.equal(together, alone)
    assert len({tuple(row) for row in together.tolist()}) > 1
    with torch.no_grad():
        logits = tiny_model(**batch).logits[:, -1]
        one_by_one = torch.cat([tiny_model(**row).logits[:, -1] for row in single])
    torch.testing.assert_close(logits, one_by_one, atol=1e-5, rtol=1e-5)


def test_the_cache_changes_nothing(tiny_model, mixed):
    batch, _ = mixed
    options = {"output_logits": True, "return_dict_in_generate": True}
    with_cache, without = (tiny_model.generate(**batch, **WORDS_ONLY, **options, use_cache=c) for c in (True, False))
    assert torch.equal(with_cache.sequences, without.sequences)
    torch.testing.assert_close(torch.stack(with_cache.logits), torch.stack(without.logits), atol=1e-4, rtol=1e-4)
    whole = {name: value for name, value in batch.items() if name != "question_mask"}
    assert torch.equal(answer_ids(tiny_model, whole), answer_ids(tiny_model, whole, use_cache=False))


def test_decoding_is_the_forward_pass_over_the_whole_text(tiny_model, mixed):
    batch, _ = mixed
    made = tiny_model.generate(**batch, **WORDS_ONLY, output_logits=True, return_dict_in_generate=True)
    new = made.sequences[:, batch["input_ids"].shape[1] :]
    pad = torch.nn.functional.pad
    with torch.no_grad():
        whole = tiny_model(
            input_ids=made.sequences,
            attention_mask=pad(batch["attention_mask"], (0, new.shape[1]), value=1),
            question_mask=pad(batch["question_mask"], (0, new.shape[1])),
            pixel_values=batch["pixel_values"],
        ).logits
    start = batch["input_ids"].shape[1] - 1
    torch.testing.assert_close(whole[:, start:-1], torch.stack(made.logits, 1), atol=1e-4, rtol=1e-4)


def test_beams_keep_their_own_pictures(tiny_model, mixed):
    batch, single = mixed
    options = {"num_beams": 3, "num_return_sequences": 2}
    together = answer_ids(tiny_model, batch, **options)
    alone = torch.cat([answer_ids(tiny_model, row, **options) for row in single])
    assert together.shape == (8, 8)
    assert torch.equal(together, alone)
    features = tiny_model.encode_images(batch["pixel_values"])
    rest = {name: value for name, value in batch.items() if name != "pixel_values"}
    assert torch.equal(answer_ids(tiny_model, rest | {"features": features}, **options), together)


def test_the_picture_and_the_experts_matter(tiny_model, tiny_processor, pictures):
    one, two = (tiny_processor(images=p, text=prompt(QUESTIONS[0])) for p in pictures[:2])
    with torch.no_grad():
        first, second = (tiny_model(**inputs).logits[:, -1] for inputs in (one, two))
        fewer = tiny_model(**one, present=torch.tensor([[True, False, True, False]])).logits[:, -1]
    assert (first - second).abs().max() > 1e-3
    assert (first - fewer).abs().max() > 1e-3


def test_placeholders_that_do_not_fit_the_pictures(tiny_model, mixed):
    batch, _ = mixed
    with pytest.raises(AstreaError, match="do not fit"):
        tiny_model(**(dict(batch) | {"pixel_values": batch["pixel_values"][:2]}))


# Folders that cannot be loaded


def edit_json(name: str, **changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        value = json.loads((folder / name).read_text()) | changes
        (folder / name).write_text(json.dumps(value))

    return edit


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data)


def cut(name: str, share: float) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return edit


def pickle_instead(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": 1}))


NEAR = "model.fusion.mixer.near"
BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (remove("config.json"), r"config\.json is missing"),
    "no weights": (remove("model.safetensors"), r"model\.safetensors is missing"),
    "pickled weights": (pickle_instead, r"pytorch_model\.bin cannot be read instead: pickle"),
    "no processor": (remove("processor_config.json"), r"processor_config\.json is missing"),
    "no tokenizer": (remove("tokenizer.json"), r"tokenizer\.json is missing"),
    "no tokenizer config": (remove("tokenizer_config.json"), r"tokenizer_config\.json is missing"),
    "no chat template": (remove("chat_template.jinja"), r"chat_template\.jinja is missing"),
    "config cut short": (cut("config.json", 0.5), r"config\.json is not valid JSON"),
    "config no object": (write("config.json", b"[1, 2]"), r"config\.json holds a JSON list"),
    "config no text": (write("config.json", bytes(range(256))), r"config\.json is not valid JSON"),
    "config nested without end": (write("config.json", b"[" * 200_000), r"config\.json is not valid JSON"),
    "config huge": (write("config.json", b" " * (MAX_JSON_BYTES + 1)), r"config\.json has 4,194,305 bytes"),
    "generation cut short": (cut("generation_config.json", 0.5), r"generation_config\.json is not valid JSON"),
    "tokenizer cut short": (cut("tokenizer.json", 0.5), r"tokenizer\.json is not valid JSON"),
    "tokenizer foreign": (write("tokenizer.json", b'{"version": "9"}'), r"tokenizer\.json describes a tokenizer that"),
    "other processor": (edit_json("processor_config.json", processor_class="LlavaProcessor"), "AstreaProcessor"),
    "audio tokenizer": (edit_json("processor_config.json", audio_tokenizer={}), "AstreaProcessor"),
    "other model type": (edit_json("config.json", model_type="llama"), "describes a 'llama' model"),
    "no model type": (edit_json("config.json", model_type=None), "describes a None model"),
    "unknown strategy": (edit_json("config.json", strategy="magic"), "unknown fusion strategy 'magic'"),
    "unknown fusion option": (
        edit_json("config.json", fusion={"magic": 1}),
        r"config\.json.*option 'magic'",
    ),
    "unknown expert": (
        edit_json("config.json", experts={"x": {"kind": "magic"}}, expert_names=["x"]),
        "unknown expert",
    ),
    "experts of another kind": (edit_json("config.json", experts=["x"]), r"config\.json"),
    "expert not listed": (edit_json("config.json", expert_names=["captioning"]), "expert_names"),
    "other text model": (edit_json("config.json", text_config={"model_type": "magic"}), "magic"),
    "far too wide": (
        edit_json("config.json", text_config={"model_type": "llama", "hidden_size": 2**18}),
        "lacks tensor (lm_head|model.language)",
    ),
    "weights cut short": (cut("model.safetensors", 0.7), r"model\.safetensors is damaged, cut short"),
    "weights empty": (write("model.safetensors", b""), r"model\.safetensors is damaged, cut short"),
    "weights pickled": (
        write("model.safetensors", pickle.dumps({"a": 1})),
        r"model\.safetensors is damaged, cut short",
    ),
    "tensor missing": (edit_tensors(lambda t: t.pop(NEAR)), rf"lacks tensor {NEAR}"),
    "tensor unknown": (edit_tensors(lambda t: t.update(x=torch.ones(1))), "unknown tensor x"),
    "tensor too long": (edit_tensors(lambda t: t.update({NEAR: torch.ones(5)})), rf"{NEAR} is \[5\].*asks for \[4\]"),
    "other picture tokens": (edit_json("processor_config.json", num_visual_tokens=3), "visual tokens per picture 3"),
    "other picture size": (edit_json("config.json", image_size=32), "size of the picture 64"),
    "other image id": (edit_json("config.json", image_token_id=9), "id of <image> 4"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_an_error_that_names_the_file(case, tiny_folder, tmp_path):
    spoil, said = BAD[case]
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    spoil(folder)
    with pytest.raises(AstreaError, match=said) as caught:
        load_model(folder)
    assert str(folder) in caught.value.message
    assert caught.value.hint


def test_no_folder(tmp_path):
    with pytest.raises(AstreaError, match="does not exist"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(AstreaError, match="is not a folder"):
        load_model(str(tmp_path / "file"))


# Experts from other modules

FOREIGN = """
import torch
from astrea import Expert, ExpertFeatures

class Foreign(Expert):
    num_tokens, width, labels = 2, 3, (None, None, None)

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor([1.0, 2.0]), persistent=False)

    def forward(self, pixels):
        mean = pixels.mean((2, 3))
        return ExpertFeatures(mean.unsqueeze(1) * self.scale[:, None], pixels.new_ones(len(pixels), 2))

    def readings(self, pixels):
        return []
"""


@pytest.fixture
def foreign_folder(tiny_model, tiny_processor, tmp_path, monkeypatch):
    """A model with an expert of a module of its own; the module has not been imported."""
    (tmp_path / "foreign_expert.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    config = AstreaConfig(
        text_config=tiny_model.config.text_config.to_dict(),
        experts={"foreign": {"kind": "foreign_expert:Foreign"}, "captioning": {"kind": "captioning"}},
        image_token_id=tiny_model.config.image_token_id,
    )
    model = AstreaForConditionalGeneration(config, allow_import=True).eval()
    model.save_pretrained(tmp_path / "model")
    type(tiny_processor)(
        tiny_processor.image_processor, tiny_processor.tokenizer, model.num_visual_tokens
    ).save_pretrained(tmp_path / "model")
    sys.modules.pop("foreign_expert")
    yield tmp_path / "model", model
    sys.modules.pop("foreign_expert", None)


def test_nothing_is_imported_without_trust(foreign_folder):
    folder, _ = foreign_folder
    loaders = (load_model, AstreaForConditionalGeneration.from_pretrained, AutoModelForImageTextToText.from_pretrained)
    for load in loaders:
        with pytest.raises(AstreaError, match="asks to import the expert 'foreign_expert:Foreign'"):
            load(folder)
        assert "foreign_expert" not in sys.modules
    with pytest.raises(AstreaError, match="asks to import"):
        pipeline("image-text-to-text", model=str(folder))


def test_a_trusted_expert_comes_back_with_its_unsaved_buffers(foreign_folder, pictures):
    folder, model = foreign_folder
    loaded, processor = load_model(folder, trust_remote_code=True)
    auto = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
    assert loaded.experts["foreign"].scale.tolist() == auto.experts["foreign"].scale.tolist() == [1.0, 2.0]
    inputs = processor(images=pictures[0], text=prompt(QUESTIONS[0]))
    with torch.no_grad():
        wanted = model(**inputs).logits
        # Weights out of a file lie where no allocator would have put them, and vector code may round otherwise there.
        torch.testing.assert_close(loaded(**inputs).logits, wanted, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(auto(**inputs).logits, wanted, atol=1e-6, rtol=1e-5)
