"""The arithmetic of what alignment taught; the whole of it needs the photographs' package."""

from __future__ import annotations

import pytest
import torch

from astrea.world.photographs.scene import PhotoScene, PhotoSpec, Thing
from benchmark_scripts import benchmark_script


def test_the_area_is_how_often_one_is_larger():
    script = benchmark_script("aligned_names")
    assert script.area(torch.tensor([0.9, 0.5]), torch.tensor([0.1, 0.6])) == pytest.approx(0.75)
    assert script.area(torch.tensor([0.1]), torch.tensor([0.9])) == 0


def test_a_place_lies_in_a_box():
    script = benchmark_script("aligned_names")
    thing = Thing(0, "frog", "animal", None, False, (80, 160, 160, 320), 100, 0.0, (120.0, 240.0))
    scene = PhotoScene(PhotoSpec(0, 320, (), None, 0.0), (thing,), None)
    places = torch.tensor([[0.3, 0.7], [0.7, 0.3], [0.3, 0.4], [float("nan")] * 2])
    assert script.within(places, thing, scene).tolist() == [True, False, False, False]
