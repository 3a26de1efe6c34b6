"""What stands in a model folder once it is saved: modes, shards, a model card; and folders from the hub."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import torch
import yaml

from astrea import AstreaConfig, AstreaError
from astrea.common import hub
from astrea.model.folders.card import MARK, escaped, licence, model_card, utilisation
from astrea.model.folders.saved import write_card
from astrea.model.loading import load_model
from astrea.report.results import parse_results

RESULTS = {
    "schema": 1,
    "average": 80.0,
    "blind_average": 30.0,
    "strategy": "astrea",
    "recipe": "tiny | <b>",
    "seed": 3,
    "tasks": {"counting": {"metric": "accuracy", "score": 81.25, "blind": 40.0, "n": 16}},
    "load": {"mean": {"captioning": 0.4, "detection": 0.6}},
    "masking": {"captioning": -8.0, "detection": -20.0},
}


@pytest.fixture(scope="module")
def sharded(tiny_model, tiny_processor, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    tiny_model.save_pretrained(folder, max_shard_size="1MB")
    tiny_processor.save_pretrained(folder)
    return folder


def test_a_sharded_folder_loads_bit_for_bit(sharded, tiny_model):
    assert len(list(sharded.glob("*.safetensors"))) > 1
    loaded, _ = load_model(sharded)
    own, wanted = loaded.state_dict(), tiny_model.state_dict()
    assert own.keys() == wanted.keys()
    assert all(torch.equal(own[name], wanted[name]) for name in own)


def test_a_shard_that_is_missing_or_moved_is_named(sharded, tmp_path):
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    first, second = sorted(set(index["weight_map"].values()))[:2]
    for path in sharded.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    moved = next(name for name, place in index["weight_map"].items() if place == first)
    wrong = {"weight_map": index["weight_map"] | {moved: second}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(wrong))
    with pytest.raises(AstreaError, match=f"differ in tensor {moved}"):
        load_model(tmp_path)
    (tmp_path / first).unlink()
    with pytest.raises(AstreaError, match=f"{first} is missing"):
        load_model(tmp_path)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_weights_have_the_mode_of_any_other_file(mask, tiny_model, tmp_path):
    before = os.umask(mask)
    try:
        tiny_model.save_pretrained(tmp_path / "m")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "m").iterdir()}
    assert set(modes.values()) == {0o666 & ~mask}
    assert "model.safetensors" in modes


def test_weights_that_may_not_be_read_say_so(tiny_model, tiny_processor, tmp_path, monkeypatch):
    folder = tmp_path / "m"
    tiny_model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)

    def refuse(path, *args, **kwargs):
        if str(path).endswith("model.safetensors"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    opened = open
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(AstreaError, match=r"model\.safetensors may not be read by you") as caught:
        load_model(folder)
    assert "chmod a+r model.safetensors" in caught.value.hint


def metadata(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_a_saved_folder_has_a_card(tiny_folder):
    card = (tiny_folder / "README.md").read_text()
    told = metadata(card)
    assert told["library_name"] == "transformers"
    assert told["pipeline_tag"] == "image-text-to-text"
    assert told["license"] == "apache-2.0"
    assert "astrea" in told["tags"]
    assert "astrea evaluate" in card
    for name in ("captioning", "detection"):
        assert f"| {name} | {name} |" in card


def test_the_card_of_an_evaluated_model_has_scores_and_what_experts_are_worth(tiny_model):
    results = parse_results(RESULTS, "results.json")
    card = model_card(tiny_model.config, results)
    assert "| average |  | 80.0 | 30.0 |" in card
    assert "| counting | accuracy | 81.2 | 40.0 | 16 |" in card
    assert utilisation(results) == {"captioning": 0.1, "detection": 0.25}
    assert "| detection | 0.600 | 0.250 |" in card
    assert "is 0.150" in card
    assert r"tiny \| &lt;b&gt;" in card


def test_a_card_that_somebody_wrote_stays(tiny_model, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    write_card(tmp_path, tiny_model.config)
    assert (tmp_path / "README.md").read_text() == "mine"
    (tmp_path / "README.md").write_text(f"{MARK} old")
    write_card(tmp_path, tiny_model.config)
    assert "old" not in (tmp_path / "README.md").read_text()


def test_names_cannot_leave_their_place():
    evil = "a\n---\n# x | y <script>alert(1)</script> [l](http://e) ![i](x)"
    config = AstreaConfig(experts={evil: {"kind": "captioning", "options": {"source": evil}}})
    card = model_card(config)
    assert set(metadata(card)) == {"library_name", "pipeline_tag", "license", "tags"}
    assert "<script" not in card
    assert "[l](" not in card
    assert len([line for line in card.splitlines() if line.startswith("| a")]) == 1
    assert "\n" not in escaped(evil)


def test_parts_of_others_have_licences_of_their_own():
    entry = {"kind": "tag_checkpoint", "options": {"source": "owner/name@abc"}}
    assert licence(AstreaConfig(experts={"a": entry})) == "other"
    assert "licences hold for them" in model_card(AstreaConfig(experts={"a": entry}))


def test_a_pushed_model_has_its_card(tiny_model, tmp_path, monkeypatch):
    from transformers import PreTrainedModel

    (tmp_path / "README.md").write_text("This model card has been automatically generated.")
    monkeypatch.setattr(PreTrainedModel, "_upload_modified_files", lambda self, folder, *a, **k: Path(folder))
    folder = tiny_model._upload_modified_files(tmp_path, "owner/name")
    assert MARK in (folder / "README.md").read_text()


# From the hub


def test_a_name_on_the_hub_is_fetched_without_programs_and_pickles(tiny_folder, monkeypatch):
    asked = []

    def snapshot_download(name, **options):
        asked.append((name, options))
        return str(tiny_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    load_model("some-owner/some-name", revision="v1")
    name, options = asked[0]
    assert (name, options["revision"]) == ("some-owner/some-name", "v1")
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in options["allow_patterns"])


def test_without_a_network_it_says_so(monkeypatch):
    def snapshot_download(name, **options):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(AstreaError, match=r"some-owner/some-name is no folder here.*no route to host") as caught:
        load_model("some-owner/some-name")
    assert "network" in caught.value.hint


def test_what_is_a_path_here_is_no_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert hub.is_hub_id("owner/name")
    for name in ("runs/mini", "../x", "/a/b", "a", "a/b/c", "a/..", "./b", "~/b", "shipped"):
        assert not hub.is_hub_id(name)
    with pytest.raises(AstreaError, match="runs/mini does not exist"):
        load_model("runs/mini")
    with pytest.raises(AstreaError, match="has no revision"):
        load_model("runs/mini", revision="v1")
