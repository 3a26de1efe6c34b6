"""Recipe entries: what they resolve to, and what is refused with a hint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.experts.bank import BUILT_IN, ExpertBank
from astrea.experts.pretrained.entry import resolve
from astrea.experts.pretrained.fresh import start_fresh
from astrea.experts.pretrained.weights import load_checkpoint
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import ExpertEntry, Recipe
from expert_builders import MODELS, kind_of, loaded

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_without_a_checkpoint_nothing_changes():
    entry = ExpertEntry(kind="detection", options={"threshold": 0.3})
    assert resolve("detection", entry) == {"kind": "detection", "options": {"threshold": 0.3}}


def test_what_is_kept_is_plain_json_without_any_path(entry, checkpoint):
    resolved = resolve("it", entry("grounding_dino"))
    text = json.dumps(resolved, allow_nan=False)
    assert str(checkpoint("grounding_dino").parent) not in text
    assert resolved["options"]["source"] == checkpoint("grounding_dino").name
    assert resolved["kind"] in BUILT_IN
    again = json.loads(text)
    assert again == resolved
    assert ExpertBank({"it": again})["it"].labels == ExpertBank({"it": resolved})["it"].labels


def test_a_recipe_names_it(checkpoint):
    folder = checkpoint("yolos")
    recipe = load_recipe(
        Recipe, "tiny", [f"experts.eye={{kind: detection, checkpoint: {folder}, options: {{tokens: 3}}}}"]
    )
    assert recipe.experts["eye"] == ExpertEntry(kind="detection", checkpoint=str(folder), options={"tokens": 3})
    assert recipe.experts["detection"].checkpoint is None


def test_the_side_and_the_type_can_be_chosen(entry, pixels):
    it = loaded(entry("detr", image_size=96, dtype="bfloat16"))["it"]
    assert it.preprocess.side == (96, 96)
    assert {parameter.dtype for parameter in it.parameters()} == {torch.bfloat16}
    seen = it(pixels)
    assert seen.tokens.dtype == seen.confidence.dtype == torch.float32
    assert loaded(entry("vit_plain", image_size=64))["it"](pixels).tokens.shape == (2, 4, 16)


# The hub


def test_a_hub_id_is_fetched_at_its_commit_and_never_as_a_pickle(checkpoint, monkeypatch, tmp_path):
    asked = {}

    def snapshot(name, **how):
        asked[name] = how
        return str(checkpoint("vit_plain"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    entry = ExpertEntry(kind="classification", checkpoint="google/vit", revision=COMMIT, options={"tokens": 4})
    assert resolve("it", entry)["options"]["source"] == f"google/vit@{COMMIT}"
    assert asked["google/vit"]["revision"] == COMMIT
    patterns = asked["google/vit"]["allow_patterns"]
    assert not any(pattern.endswith((".bin", ".pt", ".pth", ".pkl", ".py", "*")) for pattern in patterns)


@pytest.mark.parametrize(("revision", "said"), [(None, "no revision"), ("main", "'main'"), ("0123abc", "'0123abc'")])
def test_a_hub_id_must_be_pinned(revision, said, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(AstreaError, match=said) as caught:
        resolve("eye", ExpertEntry(kind="detection", checkpoint="owner/name", revision=revision))
    assert "'eye'" in caught.value.message
    assert "revision:" in caught.value.hint


def test_what_cannot_be_fetched_is_named(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise ConnectionError("no network\nat all")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(AstreaError, match="cannot be fetched: no network") as caught:
        resolve("eye", ExpertEntry(kind="detection", checkpoint="owner/name", revision=COMMIT))
    assert "at all" not in caught.value.message


def test_a_revision_needs_something_to_be_of():
    with pytest.raises(ValueError, match="without a checkpoint"):
        ExpertEntry(kind="detection", revision=COMMIT)


# What is refused


def spoilt(checkpoint, architecture: str, folder: Path) -> Path:
    return Path(shutil.copytree(checkpoint(architecture), folder / "spoilt"))


def refused(kind: str, folder: Path, said: str, hint: str = "", **options) -> AstreaError:
    """The error of resolving and loading, which must say ``said`` and offer ``hint``."""
    entry = ExpertEntry(kind=kind, checkpoint=str(folder), options=options)
    with pytest.raises(AstreaError, match=said) as caught:
        load_checkpoint("eye", ExpertBank({"eye": resolve("eye", entry)})["eye"], entry)
    assert "expert 'eye'" in caught.value.message
    assert caught.value.hint
    assert hint in caught.value.hint
    return caught.value


def test_a_missing_folder(tmp_path):
    refused("detection", tmp_path / "nowhere", "does not exist", "hub id")
    (tmp_path / "file").write_text("")
    refused("detection", tmp_path / "file", "is not a folder")


def test_a_folder_has_no_revision(checkpoint):
    entry = ExpertEntry(kind="detection", checkpoint=str(checkpoint("detr")), revision=COMMIT)
    with pytest.raises(AstreaError, match="has no revision"):
        resolve("eye", entry)


def test_a_pickle_is_not_read(checkpoint, tmp_path):
    folder = spoilt(checkpoint, "detr", tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused("detection", folder, r"pytorch_model\.bin cannot be read instead: pickles", "save_pretrained")


@pytest.mark.parametrize(
    ("kind", "architecture"), [("segmentation", "detr"), ("detection", "sam"), ("captioning", "vit")]
)
def test_an_architecture_of_another_kind_is_sent_there(kind, architecture, checkpoint):
    error = refused(kind, checkpoint(architecture), f"{kind} knows no '{architecture}'", f"{kind} knows ")
    home = {"detr": "detection", "sam": "segmentation", "vit": "classification"}[architecture]
    assert f"it belongs to kind {home}" in error.hint


def test_an_architecture_of_no_kind(checkpoint, tmp_path):
    folder = spoilt(checkpoint, "vit", tmp_path)
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    refused("detection", folder, "knows no 'resnet'", "rt_detr_v2")
    (folder / "config.json").write_text(json.dumps({"model_type": "sonar"}))
    refused("detection", folder, "'sonar'")


def test_a_kind_that_takes_no_checkpoint(checkpoint):
    refused("student", checkpoint("vit"), "'student' takes no checkpoint", "detection, segmentation")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_is_named(name, checkpoint, tmp_path):
    folder = spoilt(checkpoint, "vit", tmp_path)
    (folder / name).unlink()
    refused("classification", folder, name)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_damaged_file_is_refused(name, checkpoint, tmp_path):
    folder = spoilt(checkpoint, "vit", tmp_path)
    (folder / name).write_bytes((folder / name).read_bytes()[:-40])
    refused("classification", folder, "spoilt")


def test_a_large_config_is_not_read(checkpoint, tmp_path):
    folder = spoilt(checkpoint, "vit", tmp_path)
    (folder / "config.json").write_text(" " * (5 << 20) + "{}")
    refused("classification", folder, "at most")


def test_weights_of_another_size_are_refused(checkpoint, tmp_path):
    folder = spoilt(checkpoint, "vit", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 24}))
    refused("classification", folder, "spoilt")


def test_weights_that_lack_something_are_refused(checkpoint, tmp_path):
    folder = spoilt(checkpoint, "vit", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    refused("classification", folder, "missing keys")


def test_a_joint_processors_file_is_read_too(checkpoint, tmp_path, entry):
    folder = spoilt(checkpoint, "clip", tmp_path)
    described = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": described}))
    moved = entry("clip").model_copy(update={"checkpoint": str(folder)})
    assert resolve("it", moved)["options"]["preprocess"] == resolve("it", entry("clip"))["options"]["preprocess"]


# Options

OPTIONS = {
    "an unknown one": ("detr", {"colour": "red"}, "unknown option 'colour'", "threshold"),
    "one of another kind": ("detr", {"layer": 2}, "unknown option 'layer'", "threshold"),
    "out of range": ("detr", {"threshold": 2}, "'threshold'", "threshold"),
    "too many tokens": ("detr", {"tokens": 13}, "12 queries", "fewer"),
    "too many regions": ("eomt", {"tokens": 13}, "12 queries", "fewer"),
    "a type of number": ("detr", {"dtype": "int8"}, "'dtype'", "dtype"),
    "what the checkpoint says": ("grounding_dino", {"phrases": ["cat"], "spans": []}, "'spans'", "leave it out"),
    "phrases in one text": ("grounding_dino", {"phrases": "cat. dog."}, "'phrases'", "phrases"),
    "phrases that are none": ("clip", {"phrases": ["cat", ""]}, "'phrases.1'", "phrases"),
    "a prompt that is none": ("blip", {"prompt": 7}, "'prompt'", "prompt"),
    "a prompt nobody reads": ("detr", {"prompt": "a"}, "unknown option 'prompt'", "threshold"),
    "phrases missing": ("grounding_dino", {}, "needs phrases", "phrases"),
    "phrases unused": ("detr", {"phrases": ["cat"]}, "takes no phrases", "open vocabularies"),
    "phrases beside a head": ("vit", {"phrases": ["cat"]}, "takes no phrases", "CLIP"),
    "phrases without words": ("dinov2", {"phrases": ["cat"]}, "no words to compare", "CLIP"),
    "phrases too long": ("grounding_dino", {"phrases": ["cat red ball"] * 9}, "tokens long", "fewer"),
    "phrases unheard of": ("grounding_dino", {"phrases": ["zzz"]}, "no words for the phrase 'zzz'", "otherwise"),
    "no square": ("dinov2", {"tokens": 12}, "no square number", "16"),
    "no square beside the tags": ("vit", {"tokens": 16}, "no square number and 1", "17"),
    "no such layer": ("dinov2", {"tokens": 4, "layer": 9}, "4 hidden states", "-4 to 3"),
    "a side that does not fit": ("sam", {"tokens": 4, "image_size": 128}, r"\(64, 64\) pixels only", "64"),
    "a side of no step": ("rt_detr_v2", {"tokens": 4, "image_size": 80}, r"cannot take pictures of \(80, 80\)", "32"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_are_checked(case, checkpoint):
    architecture, options, said, hint = OPTIONS[case]
    refused(kind_of(architecture), checkpoint(architecture), said, hint, **options)


def test_a_grid_finer_than_the_map_is_refused(entry, pixels):
    it = loaded(entry("dinov2", tokens=25))["it"]
    with pytest.raises(AstreaError, match="finer than the map"):
        it(pixels)


def test_defaults_are_written_out(entry):
    options = resolve("it", entry("detr"))["options"]
    assert options["dtype"] == "float32"
    assert options["threshold"] == 0.2
    assert resolve("it", entry("git"))["options"]["tokens"] == 4


# Model folders of anybody


def built(entry, **changes):
    resolved = resolve("it", entry)
    options = resolved["options"]
    for key, value in changes.items():
        part, _, inner = key.partition("__")
        options[part] = {**options[part], inner: value} if inner else value
    return ExpertBank({"it": resolved})


HOSTILE = {
    "code": ({"architecture__auto_map": {"AutoModel": "evil--evil.Evil"}}, "auto_map"),
    "a kernel from a hub": ({"architecture__attn_implementation": "someone/kernels"}, "attn_implementation"),
    "a backbone from a hub": ({"architecture__backbone": "someone/backbone"}, "fetches its backbone"),
    "a pretrained backbone": ({"architecture__use_pretrained_backbone": True}, "pretrained backbone"),
    "a network it does not know": ({"architecture__model_type": "vit"}, "knows no 'vit'"),
    "a network nobody knows": ({"architecture__model_type": "sonar"}, "unknown to transformers"),
    "no network": ({"architecture__model_type": ["detr"]}, "unknown to transformers"),
    "endless tokens": ({"tokens": 10**9}, "'tokens'"),
    "a huge picture": ({"preprocess__resize": [10**6, 10**6]}, "resize"),
    "an option of nobody": ({"evil": 1}, "'evil'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_model_folders_are_refused(case, entry):
    changes, said = HOSTILE[case]
    with pytest.raises(AstreaError, match=said):
        built(entry("detr"), **changes)


def test_spans_beyond_the_text_are_refused(entry):
    with pytest.raises(AstreaError, match="spans"):
        built(entry("grounding_dino"), spans=[[1, 2], [3, 99]])


def test_words_that_are_none_are_an_error_not_a_crash(entry, pixels):
    bank = loaded(entry("git"))
    bank["it"].vocabulary.fill_(255)
    with pytest.raises(AstreaError, match="words cannot be read"):
        bank.readings(pixels)


def test_a_package_that_is_missing_is_named(entry, monkeypatch):
    import transformers

    def needs(*_, **__):
        raise ImportError("\nThis network requires scipy: `pip install scipy`.")

    monkeypatch.setattr(transformers.Mask2FormerForUniversalSegmentation, "_from_config", needs)
    with pytest.raises(AstreaError, match="scipy") as caught:
        ExpertBank({"it": resolve("it", entry("mask2former"))})
    assert caught.value.hint == "`pip install scipy`"


# Architectures in the recipe


def stated(checkpoint, architecture: str) -> dict:
    return json.loads((checkpoint(architecture) / "config.json").read_text())


DESCRIBED = [name for name in MODELS if name != "grounding_dino"]


@pytest.mark.parametrize("architecture", DESCRIBED)
def test_a_checkpoints_config_describes_it_without_its_files(architecture, checkpoint, entry, pixels):
    whole = entry(architecture)
    options = whole.options if "prompt" not in whole.options else {**whole.options, "prompt": ""}
    read = resolve("it", whole.model_copy(update={"options": options}))
    if "image_size" not in options:  # the tests' checkpoints are smaller than is usual
        side = read["options"]["preprocess"]["crop"] or read["options"]["preprocess"]["resize"]
        options = {**options, "image_size": side[0]}
    alone = ExpertEntry(kind=whole.kind, architecture=stated(checkpoint, architecture), options=options)
    found = resolve("it", alone)
    assert found["kind"] == read["kind"]
    assert found["options"]["architecture"] == read["options"]["architecture"]
    assert found["options"]["source"] == "random weights"
    bank = ExpertBank({"it": found})
    start_fresh("it", bank["it"])
    assert bank["it"].labels == ExpertBank({"it": read})["it"].labels
    assert bank(pixels)["it"].tokens.isfinite().all()
    assert len(bank.readings(pixels)) == len(pixels)


def test_a_picture_is_as_large_as_the_architecture_says(checkpoint):
    for architecture, side in (("siglip", 32), ("blip", 32), ("clip", 32), ("detr", 800), ("dinov2", 224)):
        kind = kind_of(architecture)
        found = resolve("it", ExpertEntry(kind=kind, architecture=stated(checkpoint, architecture)))["options"]
        assert (found["preprocess"]["crop"] or found["preprocess"]["resize"]) == [side, side], architecture
    chosen = ExpertEntry(kind="detection", architecture=stated(checkpoint, "detr"), options={"image_size": 96})
    assert resolve("it", chosen)["options"]["preprocess"]["resize"] == [96, 96]


def test_a_checkpoint_that_is_something_else_is_refused(entry, checkpoint):
    whole = entry("detr")
    agreeing = whole.model_copy(update={"architecture": stated(checkpoint, "detr")})
    assert resolve("it", agreeing) == resolve("it", whole)
    other = whole.model_copy(update={"architecture": {"model_type": "detr", "decoder_layers": 6}})
    with pytest.raises(AstreaError, match=r"expert 'it': architecture\.decoder_layers is 6.*config\.json says 2"):
        resolve("it", other)


@pytest.mark.parametrize(
    ("entry_of", "said"),
    [
        ({"kind": "detection", "architecture": {"model_type": "sam"}}, "belongs to kind segmentation"),
        ({"kind": "student", "architecture": {"model_type": "detr"}}, "takes no checkpoint"),
        ({"kind": "detection", "architecture": {"hidden_size": 8}}, "describes no model"),
        ({"kind": "detection", "architecture": {"model_type": "detr"}, "options": {"colour": 1}}, "unknown option"),
        (
            {"kind": "detection", "architecture": {"model_type": "grounding-dino"}, "options": {"phrases": ["cat"]}},
            "own tokenizer",
        ),
    ],
)
def test_architectures_that_cannot_be_used_are_refused(entry_of, said):
    with pytest.raises(AstreaError) as caught:
        resolve("eye", ExpertEntry(**entry_of))
    assert "expert 'eye'" in caught.value.message
    assert said in str(caught.value)
    assert caught.value.hint


def test_an_expert_that_is_no_checkpoints_is_not_started_fresh():
    with pytest.raises(AstreaError, match="'eye' takes no architecture"):
        start_fresh("eye", ExpertBank({"eye": {"kind": "detection", "options": {}}})["eye"])
