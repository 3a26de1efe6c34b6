"""Agreement in the bundled model: who is not believed counts as absent, if the configuration says so, and only then."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from astrea import AstreaConfig
from astrea.common.errors import AstreaError
from astrea.confidence.agreement import read_agreement
from astrea.confidence.signals import reliable_experts
from astrea.experts.corruption import frozen
from astrea.experts.protocol import ExpertFeatures
from astrea.lab.probes.robustness import reliable_share
from astrea.model.loading import load_model
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.recipes.recipe import World
from astrea.world.dataset import features_of, scenes_of

STUCK = "segmentation"


@pytest.fixture(scope="module")
def model() -> AstreaForConditionalGeneration:
    """Agreement judges alone."""
    found = load_model("shipped")[0]
    found.fusion.trust = None
    return found


@pytest.fixture(scope="module")
def features(model: AstreaForConditionalGeneration) -> dict[str, ExpertFeatures]:
    """Of eight pictures; one expert says the same of all."""
    sound = features_of(model.experts, list(scenes_of("validation", 8, World())))
    return {**sound, STUCK: frozen(sound[STUCK])}


@pytest.fixture(autouse=True)
def off_again(model: AstreaForConditionalGeneration) -> Iterator[None]:
    yield
    model.config.agreement = False


@torch.no_grad()
def tokens(model, features, present=None, **more):
    """The visual tokens and which of them are read."""
    question = torch.zeros(8, 1, model.config.text_config.hidden_size)
    found = model.fuse(features, present, question, more.get("generator"))
    return found.tokens * found.valid.unsqueeze(-1), found.valid


def test_who_is_not_believed_counts_as_absent(model, features):
    everybody = torch.ones(8, 4, dtype=torch.bool)
    before, valid = tokens(model, features)
    assert reliable_experts(model, features, everybody).all()
    model.config.agreement = True
    believed = reliable_experts(model, features, everybody)
    at = model.experts.names.index(STUCK)
    assert not believed.all()
    assert believed[:, at].float().mean() < 0.5
    assert believed.any(1).all()
    after, read = tokens(model, features)
    vector = model.embed_image(features=features)
    assert int(read.sum()) < int(valid.sum())
    model.config.agreement = False
    wanted, same = tokens(model, features, believed)
    assert torch.equal(after, wanted)
    assert torch.equal(read, same)
    assert torch.equal(vector, model.embed_image(features=features, present=believed))
    assert not torch.equal(vector, model.embed_image(features=features))
    assert torch.equal(tokens(model, features)[0], before)


def test_whom_agreement_leaves_out_is_not_counted_as_believed(model, features):
    """Nobody judges; agreement does; the reliability head, which says nothing of those who are absent, does too."""
    asked = SimpleNamespace(questions=features, described={})
    assert reliable_share(model, asked, ["counting"]) is None
    model.config.agreement = True
    alone = reliable_share(model, asked, ["counting"])
    believed = model.model.believed(features, None)
    assert torch.equal(alone, believed.double().mean(0))
    assert float(alone[model.experts.names.index(STUCK)]) < 0.5
    both = load_model("shipped")[0]
    both.config.agreement = True
    assert (reliable_share(both, asked, ["counting"], batch=3) <= alone).all()


def test_training_does_not_leave_anybody_out(model, features):
    generator = torch.Generator()
    before, _ = tokens(model, features, generator=generator)
    model.config.agreement = True
    assert torch.equal(tokens(model, features, generator=generator)[0], before)


def test_experts_that_are_taken_away_stay_away(model, features):
    model.config.agreement = True
    present = torch.tensor([True, True, False, True]).expand(8, -1)
    believed = model.model.believed(features, present)
    assert not believed[:, 2].any()
    assert believed.any(1).all()


def test_a_model_that_knows_nothing_of_agreement_believes_everybody(model, features, monkeypatch):
    monkeypatch.setattr(model.model, "word_agreement", None)
    model.config.agreement = True
    assert model.model.believed(features, None) is None


def test_what_a_model_knows_of_agreement_is_saved_with_it(model, features, monkeypatch, tmp_path):
    model.save_pretrained(tmp_path)
    model.config.agreement = True
    labels = {name: model.experts[name].labels for name in model.experts.names}
    kept = read_agreement(tmp_path, labels)
    assert kept is not None
    assert torch.equal(kept.believed(features), model.model.believed(features, None))


def test_what_is_compiled_says_that_it_cannot(model, features, monkeypatch):
    model.config.agreement = True
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with pytest.raises(AstreaError, match="agreement is not judged in a compiled or exported model"):
        model.model.believed(features, None)


def test_the_configuration_says_it_only_where_it_is_on():
    assert "agreement" not in AstreaConfig().to_dict()
    assert AstreaConfig(agreement=True).to_dict()["agreement"] is True
    assert AstreaConfig.from_dict(AstreaConfig(agreement=True).to_dict()).agreement
