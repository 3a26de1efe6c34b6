"""The lmms-eval plug-in, against a minimal stand-in for lmms-eval.

lmms-eval itself (which brings some hundred packages) is not installed for the tests. The fixture `lmms_eval` puts
modules of the same names into ``sys.modules`` that hold what the plug-in touches of version 0.7: the base class with
its three abstract methods, ``task_dict`` and ``cache_hook``, and ``ModelManifest``. Requests are tuples of arguments in
the order in which lmms-eval's tasks build them.
"""

from __future__ import annotations

import abc
import importlib
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from astrea.common.errors import AstreaError
from original_readers import reading_originals
from repository import ROOT


class CacheHook:
    def __init__(self) -> None:
        self.kept: list[tuple[str, Any, Any]] = []

    def add_partial(self, kind: str, request: Any, result: Any) -> None:
        self.kept.append((kind, request, result))


class Lmms(abc.ABC):
    is_simple = True

    def __init__(self) -> None:
        self.cache_hook = CacheHook()
        self.task_dict: dict[str, Any] = {}

    @abc.abstractmethod
    def loglikelihood(self, requests: Any) -> Any: ...

    @abc.abstractmethod
    def generate_until(self, requests: Any) -> Any: ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests: Any) -> Any: ...


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None


def request(*args: Any) -> Any:
    return types.SimpleNamespace(args=args)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`astrea.lmms`, imported with the stand-in in place."""
    modules = {
        name: types.ModuleType(name)
        for name in (
            "lmms_eval",
            "lmms_eval.api",
            "lmms_eval.api.model",
            "lmms_eval.models",
            "lmms_eval.models.registry_v2",
        )
    }
    modules["lmms_eval.api.model"].lmms = Lmms  # type: ignore[attr-defined]
    modules["lmms_eval.models.registry_v2"].ModelManifest = ModelManifest  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "astrea.lmms", raising=False)
    yield importlib.import_module("astrea.lmms")
    sys.modules.pop("astrea.lmms", None)


@pytest.fixture
def model(plugin: Any, tiny_folder: Path, pictures: list[Image.Image]) -> Any:
    made = plugin.AstreaLmms(pretrained=str(tiny_folder), batch_size="2", device=None, max_batch_size=None)
    documents = [
        {"pictures": pictures[:1], "answer": "yes"},
        {"pictures": pictures[1:2], "answer": " no"},
        {"pictures": None, "answer": "red"},
        {"pictures": pictures[2:4], "answer": ""},
    ]
    made.task_dict = {"toy": {"test": documents}}
    return made


def shown(document: dict[str, Any]) -> Any:
    return document["pictures"]


def generate(model: Any, *rows: tuple[str, dict[str, Any], int]) -> list[str]:
    return model.generate_until([request(text, options, shown, n, "toy", "test") for text, options, n in rows])


def test_the_entry_point_names_the_class(plugin: Any) -> None:
    manifest = plugin.manifest()
    module, name = manifest.simple_class_path.rsplit(".", 1)
    found = getattr(importlib.import_module(module), name)
    assert manifest.model_id == "astrea"
    assert found is plugin.AstreaLmms
    assert found.is_simple
    assert issubclass(found, Lmms)


def test_the_entry_point_is_declared() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["lmms_eval.models"] == {"astrea": "astrea.lmms:manifest"}
    assert any(need.startswith("lmms-eval") for need in project["optional-dependencies"]["lmms"])


def test_without_lmms_eval_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmms_eval.api.model", None)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "astrea.lmms", raising=False)
    with pytest.raises(AstreaError, match=r"\[lmms\]"):
        importlib.import_module("astrea.lmms")


def test_answers_do_not_depend_on_what_shares_the_batch(model: Any) -> None:
    options = {"max_new_tokens": 5, "temperature": 0, "until": ["\n\n"]}
    rows = [("is there a cat?", options, 0), ("what colour is the sun?", options, 1), ("how many?", options, 3)]
    together = generate(model, *rows)
    assert together == [generate(model, row)[0] for row in rows]
    assert any(together)
    assert [kept[0] for kept in model.cache_hook.kept[:3]] == ["generate_until"] * 3


def test_different_options_are_not_mixed_in_a_batch(model: Any) -> None:
    short, long = generate(
        model, ("is there a cat?", {"max_new_tokens": 1}, 0), ("is there a cat?", {"max_new_tokens": 6}, 0)
    )
    assert len(short) < len(long)
    assert long.startswith(short)


def test_answers_end_before_a_stop_string(model: Any) -> None:
    options = {"max_new_tokens": 8}
    whole = generate(model, ("is there a cat?", options, 0))[0]
    stop = whole.split()[1]
    assert generate(model, ("is there a cat?", options | {"until": stop}, 0))[0] == whole[: whole.index(stop)].strip()


def test_a_document_without_a_picture_is_answered(model: Any) -> None:
    assert isinstance(generate(model, ("is there a cat?", {"max_new_tokens": 2}, 2))[0], str)


def test_a_mark_in_the_text_is_no_second_picture(model: Any) -> None:
    plain, marked = generate(
        model, ("is there a cat?", {"max_new_tokens": 4}, 0), ("<image>\nis there a cat?", {"max_new_tokens": 4}, 0)
    )
    assert plain == marked


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ({"temperature": 0, "top_p": None}, {"do_sample": False}),
        ({"temperature": 0.7}, {"do_sample": True, "temperature": 0.7, "top_p": 1.0}),
        ({"temperature": 0.7, "do_sample": False}, {"do_sample": False}),
        ({"do_sample": True}, {"do_sample": False}),  # at temperature 0 there is nothing to sample
    ],
)
def test_decoding_is_greedy_unless_a_temperature_is_asked_for(plugin: Any, asked: Any, given: Any) -> None:
    options = plugin.generation_options(asked)
    assert options == {"max_new_tokens": plugin.LONGEST, "num_beams": 1} | given


def test_likelihood_is_the_sum_over_the_continuation(model: Any, pictures: list[Image.Image]) -> None:
    (found, greedy), (again, _), (nothing, sure) = model.loglikelihood(
        [
            request("is there a cat?", "yes no", shown, 0, "toy", "test"),
            request("is there a cat?", lambda document: document["answer"] + " no", shown, 0, "toy", "test"),
            request("is there a cat?", "", shown, 0, "toy", "test"),
        ]
    )
    text = model.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "is there a cat?"}]}],
        add_generation_prompt=True,
        tokenize=False,
    )
    inputs = dict(model.processor(images=[pictures[:1]], text=[text]))
    total, best = 0.0, True
    for token in model.processor.tokenizer("yes no", add_special_tokens=False).input_ids:
        with torch.inference_mode():
            step = model._model(**inputs, use_cache=False).logits[0, -1].log_softmax(-1)
        total += float(step[token])
        best &= int(step.argmax()) == token
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[token]])], 1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones(1, 1, dtype=torch.long)], 1)
        inputs["question_mask"] = torch.cat([inputs["question_mask"], torch.zeros(1, 1, dtype=torch.bool)], 1)
    assert found == pytest.approx(total, abs=1e-4)
    assert greedy == best
    assert again == pytest.approx(found, abs=1e-5)
    assert (nothing, sure) == (0.0, True)


def test_what_greedy_decoding_gives_is_told_to_be_greedy(model: Any) -> None:
    answer = generate(model, ("is there a cat?", {"max_new_tokens": 3}, 0))[0]
    told = model.loglikelihood(
        [request("is there a cat?", word, shown, 0, "toy", "test") for word in (answer, "umbrella umbrella")]
    )
    assert [greedy for _, greedy in told] == [True, False]
    assert told[0][0] > told[1][0]


def test_likelihood_without_any_context(model: Any) -> None:
    ((alone, _),) = model.loglikelihood([request("", "yes")])
    assert np.isfinite(alone)
    assert alone < 0


def test_rounds_go_on_until_the_task_says_so(model: Any) -> None:
    seen = []

    def next_round(document: Any, previous_output: list[str], round_idx: int, previous_round_info: Any) -> Any:
        seen.append((list(previous_output), round_idx, previous_round_info))
        return (
            document["pictures"],
            f"is there a cat? {previous_output[-1]}",
            round_idx == 3,
            previous_output,
            round_idx,
        )

    (told,) = model.generate_until_multi_round(
        [request("is there a cat?", {"max_new_tokens": 2}, shown, next_round, 0, "toy", "test")]
    )
    assert len(told) == 3
    assert [step[1:] for step in seen] == [(1, None), (2, 1), (3, 2)]
    assert seen[-1][0] == list(told)
    assert told[0] == generate(model, ("is there a cat?", {"max_new_tokens": 2}, 0))[0]


def test_video_is_refused(model: Any) -> None:
    with pytest.raises(AstreaError, match="a document shows a str"):
        model.generate_until([request("what?", {}, lambda document: ["film.mp4"], 0, "toy", "test")])


def test_bad_settings_are_refused(plugin: Any, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AstreaError, match="batch_size is 'auto'"):
        plugin.AstreaLmms(pretrained=tiny_folder, batch_size="auto")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(AstreaError, match="one process"):
        plugin.AstreaLmms(pretrained=tiny_folder)


def test_an_expert_that_reads_pictures_as_they_are_gets_them(
    model: Any, tiny_processor: Any, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    with reading_originals(model._model, tiny_processor) as (whole, given):
        monkeypatch.setattr(model, "processor", whole.processor)
        (answer,) = generate(model, ("is there a cat?", {"max_new_tokens": 3}, 1))
        model.loglikelihood([request("is there a cat?", "yes", shown, 1, "toy", "test")])
        assert given == [[(3, 64, 48)]] * 2
        assert answer == whole.ask(pictures[1], "is there a cat?", max_new_tokens=3).answer
