"""Finding experts by kind, and refusing what does not keep its word."""

from __future__ import annotations

import importlib.metadata

import pytest
import torch

from astrea.common import registry
from astrea.common.errors import AstreaError
from astrea.experts.bank import ExpertBank, expert_class
from astrea.experts.protocol import Expert, ExpertFeatures, Reading
from astrea.world.experts.compact import COMPACT


class Brightness(Expert):
    """An expert of one token: how bright the picture is."""

    num_tokens = 1
    width = 2
    labels = ("dark", "bright")

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, pixels_B3HW: torch.Tensor) -> ExpertFeatures:
        light = pixels_B3HW.mean((1, 2, 3)) * self.scale
        return ExpertFeatures(torch.stack([1 - light, light], -1).unsqueeze(1), torch.ones(len(light), 1))

    def readings(self, pixels_B3HW: torch.Tensor) -> list[Reading]:
        return [Reading("brightness", labels=["bright"], scores=[float(p.mean())]) for p in pixels_B3HW]


class Liar(Brightness):
    num_tokens = 3


class Mismatched(Brightness):
    def forward(self, pixels_B3HW: torch.Tensor) -> ExpertFeatures:
        return ExpertFeatures(super().forward(pixels_B3HW).tokens, torch.ones(len(pixels_B3HW), 2))


class Stranger:
    """No expert at all."""


PIXELS = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def named(cls: type) -> str:
    return f"{__name__}:{cls.__name__}"


def bank_of(cls: type, **options) -> ExpertBank:
    return ExpertBank({"mine": {"kind": named(cls), "options": options}}, allow_import=True)


def test_compact_kinds_need_no_permission():
    for kind, cls in COMPACT.items():
        assert expert_class(kind, allow_import=False) is cls


def test_an_unknown_kind_lists_the_known_ones():
    with pytest.raises(AstreaError) as caught:
        expert_class("sonar", allow_import=True)
    assert "'sonar'" in caught.value.message
    for kind in COMPACT:
        assert kind in caught.value.hint
    assert "module:Class" in caught.value.hint


def test_code_is_imported_only_with_permission():
    with pytest.raises(AstreaError, match="trust_remote_code"):
        expert_class(named(Brightness), allow_import=False)
    with pytest.raises(AstreaError, match="trust_remote_code"):
        ExpertBank({"mine": {"kind": named(Brightness)}})
    assert expert_class(named(Brightness), allow_import=True).__name__ == "Brightness"


def test_refusing_an_import_does_not_run_it(tmp_path, monkeypatch):
    (tmp_path / "evil_expert.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AstreaError):
        expert_class("evil_expert:Expert", allow_import=False)


@pytest.mark.parametrize(
    "kind", ["no_such_module_here:Expert", f"{__name__}:Missing", ":Expert", ".relative:Expert", f"{__name__}:"]
)
def test_an_import_that_fails_is_named(kind):
    with pytest.raises(AstreaError) as caught:
        expert_class(kind, allow_import=True)
    assert repr(kind) in caught.value.message


def test_a_class_that_is_no_expert_is_refused():
    with pytest.raises(AstreaError, match="not a subclass"):
        expert_class(named(Stranger), allow_import=True)
    with pytest.raises(AstreaError, match="not a subclass"):
        expert_class(f"{__name__}:PIXELS", allow_import=True)


def test_registered_kinds_are_found_and_listed(monkeypatch):
    point = importlib.metadata.EntryPoint("brightness", named(Brightness), "astrea.experts")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "astrea.experts" else [])
    assert expert_class("brightness", allow_import=False).__name__ == "Brightness"
    with pytest.raises(AstreaError) as caught:
        expert_class("darkness", allow_import=False)
    assert "brightness" in caught.value.hint


def test_an_expert_of_ones_own():
    bank = ExpertBank(
        {"mine": {"kind": named(Brightness), "options": {"gain": 0.5}}, "detection": {"kind": "detection"}},
        allow_import=True,
    )
    assert bank.names == ["mine", "detection"]
    assert not any(p.requires_grad for p in bank.parameters())
    found = bank(torch.rand(2, 3, 64, 64))
    assert list(found) == bank.names
    pixels = torch.full((1, 3, 64, 64), 0.8)
    assert bank(pixels)["mine"].tokens[0, 0].tolist() == pytest.approx([0.6, 0.4])
    assert bank.readings(pixels)[0]["mine"].labels == ["bright"]


def test_options_that_do_not_fit_name_the_expert():
    with pytest.raises(AstreaError) as caught:
        bank_of(Brightness, colour="red")
    assert "'mine'" in caught.value.message
    assert "colour" in caught.value.message


def test_a_wrong_number_of_tokens_says_both():
    with pytest.raises(AstreaError) as caught:
        bank_of(Liar)(PIXELS)
    assert "declares 3 tokens of width 2" in caught.value.message
    assert "(2, 1, 2)" in caught.value.message
    assert "'mine'" in caught.value.message


def test_a_confidence_of_another_shape_is_refused():
    with pytest.raises(AstreaError, match="confidence"):
        bank_of(Mismatched)(PIXELS)


class Afar(Expert):
    """An expert whose weights are on a device of its own; it answers from the processor."""

    num_tokens, width, labels = 1, 1, ("near",)

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(1, device="meta"))
        self.met: list[torch.device] = []

    def forward(self, pixels_B3HW):
        self.met.append(pixels_B3HW.device)
        return ExpertFeatures(torch.ones(len(pixels_B3HW), 1, 1), torch.ones(len(pixels_B3HW), 1))

    def readings(self, pixels_B3HW):
        self.met.append(pixels_B3HW.device)
        return [Reading("afar") for _ in pixels_B3HW]


def test_pictures_go_to_where_an_expert_is_and_what_it_saw_comes_back():
    bank = ExpertBank({"detection": {"kind": "detection"}})
    bank.experts["afar"] = Afar()
    pixels = torch.rand(2, 3, 64, 64)
    seen = bank(pixels)
    assert {part.tokens.device.type for part in seen.values()} == {"cpu"}
    assert set(bank.readings(pixels)[0]) == {"detection", "afar"}
    assert [device.type for device in bank["afar"].met] == ["meta", "meta"]
