"""Which files an expert's features depend on."""

from __future__ import annotations

from pathlib import Path

import pytest

from astrea.experts import source_hash as module
from astrea.experts.packaged.centernet import CenterNetExpert
from astrea.experts.packaged.efficientnet import EfficientNetExpert
from astrea.experts.packaged.segmenter import SegmenterExpert
from astrea.experts.source_hash import imported_files, source_hash

PACKAGED = Path(module.__file__).parent / "packaged"
EXPERTS = (CenterNetExpert, EfficientNetExpert, SegmenterExpert)


@pytest.mark.parametrize(
    ("changed", "experts"),
    [
        ("ocr.py", ()),
        ("centernet_network.py", (CenterNetExpert,)),
        ("segmenter.py", (SegmenterExpert,)),
        ("efficientnet_network.py", (EfficientNetExpert, SegmenterExpert)),
        ("convolution.py", EXPERTS),
    ],
)
def test_a_change_of_a_file_is_one_of_the_experts_whose_modules_import_it(changed, experts, monkeypatch):
    before = {cls: source_hash(cls) for cls in EXPERTS}
    real = module.sha256_file
    monkeypatch.setattr(module, "sha256_file", lambda path: "other" if path == PACKAGED / changed else real(path))
    assert [cls for cls in EXPERTS if source_hash(cls) != before[cls]] == list(experts)


def test_modules_that_are_imported_in_a_function_count(tmp_path, monkeypatch):
    (tmp_path / "far.py").write_text("")
    (tmp_path / "near.py").write_text("def late():\n    from far import nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "OWN", ("near", "far"))
    assert imported_files("near") == {str(tmp_path / "near.py"), str(tmp_path / "far.py")}
