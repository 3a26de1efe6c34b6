"""Hostile model folders in a short form; `benchmarks/fuzz.py` tries all of them, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from astrea import AstreaError
from astrea.model.folders import tokenizer
from astrea.model.loading import load_model
from fuzz.folders import hostile_folders, make
from fuzz.harness import Outcome, summary

FOLDERS = hostile_folders()
FALLEN = {
    "template: nested loops": "chat_template.jinja",
    "template: no syntax": "chat_template.jinja",
    "template: a method of a picture": "chat_template.jinja",
    "chat_template.jinja a link to a secret": "chat_template.jinja is a link that leads out",
    "config.json a pipe": "config.json is not an ordinary file",
    "tokenizer: normalizer that doubles": "tokenizer.json makes texts up to",
    "tokenizer: pattern that backtracks": "some texts take for ever",
    "tokenizer: precompiled normalizer wild": "tokenizer.json describes a tokenizer that cannot be used",
    "tokenizer: unknown token missing": "tokenizer",
    "tokenizer: huge id": "ids that no table of words has",
    "tokenizer: settings name a file": "tokenizer_config.json names a file of its own",
    "tokenizer: settings with many words": "extra_special_tokens has 100,000 entries",
    "tokenizer: id beyond the table": "number of words",
    "generation: contrastive": "generation_config.json asks for 'penalty_alpha'",
    "generation: stop strings": "asks for 'stop_strings'",
    "generation: static cache": "asks for 'cache_implementation'",
    "generation: a dictionary returned": "asks for 'return_dict_in_generate'",
    "generation: a million beams": "num_beams is 1000000, which is out of range",
    "generation: token ids beyond the table": "eos_token_id is 1000000, which is out of range",
    "config: a hundred thousand experts": "90,000 experts; at most 64",
    "config: image_size 63": "image_size is 63",
    "config: labels many": "num_labels is 100000000",
    "config: use_return_dict": "return_dict is false",
    "config: a quantised model": "describes a quantised model",
    "config: features of huge size": "config.json",
    "text model: num_hidden_layers 10000000": "many more parts than the weights",
    "text model: max_position_embeddings 1000000000000": "a number of 13 digits",
    "text model: sliding_window 0": "sliding_window is 0",
    "processor: max_length 'x'": "max_length",
    "adapters beside": "adapter_config.json makes this a folder of peft adapters",
    "index outside": "no safetensors file beside it",
    "index of a pickle": "no safetensors file beside it",
}
"""What once ended in a traceback, or not at all -> what is said of it."""


@pytest.mark.parametrize("name", FALLEN)
def test_a_hostile_folder_is_an_error_that_names_what_is_wrong(name, tiny_folder, tmp_path):
    folder = make(tiny_folder, FOLDERS[name], tmp_path / "model")
    with pytest.raises(AstreaError) as caught:
        load_model(folder)
    assert FALLEN[name] in caught.value.message
    assert str(folder) in caught.value.message
    assert caught.value.hint
    assert "executed" not in os.listdir()


def test_there_are_five_hundred():
    assert len(FOLDERS) >= 480


def test_a_good_folder_is_tried_once_and_loads(tiny_folder, tmp_path, monkeypatch):
    started = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: started.append(args[0]) or run(*args, **kwargs))
    monkeypatch.setattr(tokenizer, "SHIPPED_TOKENIZER", tmp_path / "none")
    monkeypatch.setattr(tokenizer, "_known", {})
    load_model(tiny_folder)
    load_model(tiny_folder)
    assert len(started) == 1
    assert started[0][:2] == [sys.executable, "-I"]


def test_the_tokenizer_that_ships_needs_no_trial(monkeypatch):
    monkeypatch.setattr(tokenizer, "_try", lambda data: pytest.fail("tried"))
    monkeypatch.setattr(tokenizer, "_known", {})
    load_model("shipped")


def test_a_folder_in_the_hub_s_cache_is_links(tiny_folder, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(tiny_folder.iterdir())):
        (blobs / str(number)).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    load_model(snapshot)


def test_offences_are_counted_by_kind():
    offences = [
        "traceback KeyError: x at a.py:1",
        "hang",
        "took 12.0 s",
        "took 2,000 MB",
        "read /etc/passwd",
        "os.system ()",
    ]
    told = summary([Outcome(str(i), 1.0, 2.0, "", [one]) for i, one in enumerate(offences)])
    counts = [told[kind] for kind in ("tracebacks", "hangs", "killed", "memory", "reads_outside", "executed")]
    assert counts == [1, 2, 0, 1, 1, 1]
