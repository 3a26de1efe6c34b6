"""The command that measures a model on public data sets: benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.common.lazy import LazyModule
from astrea.common.options import AsJson, ModelFolder, OnDevice, TrustRemoteCode

if TYPE_CHECKING:
    from astrea.cli.actions import benchmark as actions
else:
    actions = LazyModule("astrea.cli.actions.benchmark")


def benchmark(
    model: ModelFolder,
    *,
    data: Annotated[Path, typer.Option(help="Folder of the official files.", metavar="DIR")],
    tasks: Annotated[str, typer.Option(help="Comma-separated benchmarks, or all whose files are there.")] = "all",
    mode: Annotated[str, typer.Option(help="official, or normalised as most harnesses do.")] = "official",
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first items of each file.")] = None,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Questions at a time.")] = 16,
    rerank: Annotated[
        int, typer.Option(min=0, metavar="K", help="Retrieval: rank the best K again by likelihood.")
    ] = 0,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; runs/public by default.", show_default=False)
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Score what an earlier --out kept; MODEL is not loaded.")
    ] = None,
    as_json: AsJson = False,
    device: OnDevice = "auto",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Evaluate a model on public benchmarks: VQAv2, GQA, COCO and others.

    [bold]astrea benchmark MODEL --data DIR --tasks gqa,pope[/bold]
    """
    actions.benchmark(
        model, data, tasks=tasks, mode=mode, limit=limit, batch=batch, rerank=rerank, out=folder,
        predictions=predictions, as_json=as_json, device=device, trust_remote_code=trust_remote_code,
    )  # fmt: skip
