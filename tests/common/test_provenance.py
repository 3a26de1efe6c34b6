"""What a measurement says of the machine it was made on."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from astrea.common.provenance import machine

TOLD = "processor\t: 0\nvendor_id\t: Abacus\nmodel name\t: Abacus 9: fast\n\nprocessor\t: 1\nmodel name\t: Other\n"


@pytest.mark.parametrize(("told", "name"), [(TOLD, "Abacus 9: fast"), ("processor: 0\n", None), (None, None)])
def test_the_processor_has_its_model_name_where_the_system_tells_it(monkeypatch, told, name):
    def read_text(path, **_):
        if told is None:
            raise FileNotFoundError(path)
        return told

    monkeypatch.setattr(Path, "read_text", read_text)
    assert machine()["processor"] == (name or platform.processor() or platform.machine())


def test_it_can_be_written_as_json():
    here = machine()
    assert json.loads(json.dumps(here)) == here
    assert here["cores"] >= 1
