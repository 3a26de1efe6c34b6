"""The script that made the detector's weights, on a graph written out of them again."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from astrea import AstreaError
from astrea.experts.packaged.centernet import WEIGHTS
from benchmark_scripts import benchmark_script

script = benchmark_script("centernet_weights")

INSIDE = {"expand": "expand/Relu", "depthwise": "depthwise/depthwise", "project": "project/BatchNorm/FusedBatchNorm"}
SQUEEZE = {"squeeze": "squeeze_excite/Conv/Relu", "excite": "squeeze_excite/Conv_1/BiasAdd"}
HEAD = {
    "squeeze": "conv1x1_se_a/Relu",
    "excite": "conv1x1_se_b/Conv2D",
    "heat": "centernet_cls_output",
    "sides": "centernet_wh_output",
}


def in_graph(layer: str) -> str:
    """What the graph calls a convolution."""
    parts = layer.split(".")
    if parts[0] == "blocks":
        block = "expanded_conv" if parts[1] == "0" else f"expanded_conv_{parts[1]}"
        return f"tower_0/MobilenetV3/{block}/{(INSIDE | SQUEEZE)[parts[2]]}"
    if parts[0] in ("stem", "last"):
        return {"stem": "tower_0/MobilenetV3/Conv", "last": "tower_0/extern1"}[parts[0]] + "/BatchNorm/FusedBatchNorm"
    inside = {"depthwise": "separable_conv2d/depthwise", "pointwise": "BatchNorm/FusedBatchNorm"}
    if parts[0].startswith("lateral"):
        end = "1x1/Relu" if parts[1] == "reduce" else f"3x3/{inside[parts[2]]}"
        return f"tower_0/CenternetHead/c{parts[0][-1]}_reverse/{end}"
    if parts[0].startswith("up"):
        branch = {"near": "x", "far": "y"}[parts[1]]
        return f"tower_0/CenternetHead/c{parts[0][-1]}_upsample/branch_{branch}_upsample_resize/{inside[parts[2]]}"
    end = HEAD[parts[0]]
    more = {"depthwise": "/separable_conv2d/depthwise", "pointwise": "/BiasAdd"}
    return f"tower_0/CenternetHead/{end}{more[parts[1]] if parts[1:] else ''}"


@pytest.fixture(scope="module")
def published() -> tuple[dict, bytes]:
    """The graph's convolutions and its numbers."""
    nodes, weights, numbers = [], [], []

    def constant(name: str, values: torch.Tensor) -> str:
        quantised = {"dtype": "float16", "original_dtype": "float32"}
        weights.append({"name": name, "shape": list(values.shape), "dtype": "float32", "quantization": quantised})
        numbers.append(values.contiguous().numpy().tobytes())
        return name

    state = load_file(WEIGHTS)
    for name in (name.removesuffix(".weight") for name in state if name.endswith(".weight")):
        weight, node = state[f"{name}.weight"], in_graph(name)
        depthwise = "depthwise" in name
        order = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
        inputs = ["whatever came before", constant(f"{node}/weights", weight.permute(order))]
        if f"{name}.bias" in state:
            inputs.append(constant(f"{node}/bias", state[f"{name}.bias"]))
        op = "FusedDepthwiseConv2dNative" if depthwise else "_FusedConv2D"
        nodes += [{"op": op, "name": node, "input": inputs}, {"op": "Relu", "name": f"{node}/Relu", "input": [node]}]
    weights.append({"name": "stride", "shape": [2], "dtype": "int32"})
    numbers.append(np.array([2, 2], np.int32).tobytes())
    return {"modelTopology": {"node": nodes}, "weightsManifest": [{"weights": weights}]}, b"".join(numbers)


def tarball(path: Path, graph: dict, numbers: bytes) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, data in zip(script.FILES, (json.dumps(graph).encode(), numbers), strict=True):
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_the_tarball_becomes_the_weights_that_ship(published, tmp_path):
    script.main(tarball(tmp_path / "human.tgz", *published), tmp_path / "made.safetensors")
    made, shipped = load_file(tmp_path / "made.safetensors"), load_file(WEIGHTS)
    assert made.keys() == shipped.keys()
    assert all(torch.equal(made[name], shipped[name]) for name in shipped)
    card = json.loads((tmp_path / "made.json").read_text())
    assert card["sha256"] == json.loads(WEIGHTS.with_suffix(".json").read_text())["sha256"]


def test_what_is_no_such_package_is_told(published, tmp_path):
    graph, numbers = published
    with pytest.raises(AstreaError, match="cut short"):
        script.convert(graph, numbers[:-100])
    with pytest.raises(AstreaError, match="its graph names"):
        script.convert(graph, numbers + b"more")
    fewer = {**graph, "modelTopology": {"node": graph["modelTopology"]["node"][2:]}}
    with pytest.raises(AstreaError, match="another network"):
        script.convert(fewer, numbers)
    with pytest.raises(AstreaError, match="no such graph"):
        script.main(tarball(tmp_path / "other.tgz", {"nodes": []}, b""), tmp_path / "made.safetensors")
    (tmp_path / "torn.tgz").write_bytes(b"\x1f\x8b torn")
    for name in ("torn.tgz", "gone.tgz", "."):
        with pytest.raises(AstreaError, match="cannot be read"):
            script.read_files(tmp_path / name)
    assert not (tmp_path / "made.safetensors").exists()
