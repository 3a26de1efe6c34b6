"""Experts whose networks are ONNX graphs, computed by onnxruntime (the extra ``onnx``).

A graph's bytes are a buffer of the expert, so they are saved, loaded, moved and copied like any weight: as numbers in
safetensors, never as a pickle, and a model folder needs no other file. A session, which is what onnxruntime makes of
them, is no tensor: it is made when it is first needed, again when the bytes have changed, and never copied or saved.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import first_line
from astrea.common.installation import import_extra, require_extra
from astrea.experts.packaged.onnx_file import MOST_BYTES, check_graph
from astrea.experts.protocol import Expert

MOST_GRAPHS = 8


class OnnxExpert(Expert):
    """Subclass it, write `read_graphs` beside `forward` and `readings`, and call `compute`.

    Args:
        graph_bytes: how large each graph is, by name: what a model's configuration says, so that the expert can be
            built where the graphs themselves come from the model folder. A recipe leaves it out.

    Raises:
        AstreaError: no graph can be read, or they are of other sizes than ``graph_bytes`` says.
    """

    def __init__(self, *, graph_bytes: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self._sessions: dict[str, tuple[Tensor, int, Any]] = {}
        # On the meta device there is nothing to fill yet: the graphs will come from the model folder.
        empty = torch.empty(0).is_meta
        graphs = {} if empty and graph_bytes is not None else self.read_graphs()
        sizes = check_sizes(graph_bytes) if graph_bytes is not None else {n: len(data) for n, data in graphs.items()}
        if graphs and {name: len(data) for name, data in graphs.items()} != sizes:
            raise AstreaError(
                f"the installed graphs have other sizes than graph_bytes says: {dict(sizes)}",
                "leave graph_bytes out of the recipe, or install the version that the model was made with",
            )
        self.graph_names = tuple(sizes)
        for name, size in sizes.items():
            data = torch.empty(size, dtype=torch.uint8)
            if not empty:
                data.copy_(torch.frombuffer(bytearray(graphs[name]), dtype=torch.uint8))
            self.register_buffer(f"onnx_{name}", data)

    @classmethod
    @abstractmethod
    def read_graphs(cls) -> Mapping[str, bytes]:
        """The ONNX files by name, from wherever they are installed.

        Raises:
            AstreaError: they are not; tells how to install them.
        """

    @classmethod
    def kept_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        require_extra("onnx", "an ONNX expert")
        return {**options, "graph_bytes": {name: len(data) for name, data in cls.read_graphs().items()}}

    def compute(self, graph: str, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of a graph, in its order.

        Raises:
            AstreaError: onnxruntime is missing, the graph is refused or damaged, or does not take the inputs.
        """
        session = self.session(graph)
        try:
            found: list[np.ndarray] = session.run(None, dict(inputs))
        except Exception as error:  # onnxruntime raises types of its own for what a graph does
            raise AstreaError(
                f"the ONNX graph {graph!r} failed: {first_line(error)}", "use the model's own graph"
            ) from error
        return found

    def session(self, graph: str) -> Any:
        """onnxruntime's session of a graph, on the device where its bytes are, with as many threads as torch has."""
        data = self.get_buffer(f"onnx_{graph}")
        kept = self._sessions.get(graph)
        if kept is not None and kept[0] is data and kept[1] == data._version:
            return kept[2]
        ort = import_extra("onnxruntime", "onnx", "an ONNX expert")
        raw = data.detach().cpu().numpy().tobytes()
        check_graph(raw, f"the ONNX graph {graph!r}")
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3
        # Threads that wait for work must not keep a processor busy that others need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(raw, options, providers=providers(data.device, ort))
        except Exception as error:  # onnxruntime raises types of its own for damaged files
            raise AstreaError(
                f"the ONNX graph {graph!r} cannot be used: {first_line(error)}", "install it again"
            ) from error
        self._sessions[graph] = (data, data._version, session)
        return session

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sessions": {}}


def providers(device: torch.device, ort: Any) -> list[Any]:
    """What onnxruntime computes with: the GPU that the bytes are on, if it can, otherwise the processor."""
    if device.type == "cuda" and "CUDAExecutionProvider" in ort.get_available_providers():
        return [("CUDAExecutionProvider", {"device_id": device.index or 0}), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


def check_sizes(graph_bytes: Any) -> dict[str, int]:
    """The sizes that a configuration gives, which anybody may have written.

    Raises:
        AstreaError: they are no sizes of a few named graphs.
    """
    good = isinstance(graph_bytes, Mapping) and 0 < len(graph_bytes) <= MOST_GRAPHS
    if not good or not all(
        str(name).isidentifier() and type(size) is int and 0 < size <= MOST_BYTES for name, size in graph_bytes.items()
    ):
        raise AstreaError(f"graph_bytes={str(graph_bytes)[:80]}", f"name -> bytes, at most {MOST_BYTES:,} each")
    return dict(graph_bytes)
