"""The command that serves a model: serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.common.installation import SHIPPED_NAME, require_extra
from astrea.common.lazy import LazyModule
from astrea.common.options import OnDevice, TrustRemoteCode

if TYPE_CHECKING:
    from astrea.cli.actions import serve as actions
else:
    actions = LazyModule("astrea.cli.actions.serve")

ExpertsProcess = Annotated[
    bool | None,
    typer.Option(
        "--expert-process/--no-expert-process",
        help="Whether experts compute in a process of their own.",
        show_default="on a processor of several cores",
    ),
]
ModelsProcess = Annotated[
    bool | None,
    typer.Option(
        "--engine-process/--no-engine-process",
        help="Whether the model computes in a process of its own, apart from HTTP.",
        show_default="on a processor of several cores",
    ),
]


def serve(
    *,
    model: Annotated[
        Path, typer.Argument(help="Model folder. Left out: the model that comes with the package.", metavar="MODEL")
    ] = Path(SHIPPED_NAME),
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen at; 0: any.")] = 8000,
    name: Annotated[
        str | None, typer.Option("--name", help="What clients call the model.", show_default="its folder's name")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="File whose first line is the key that requests must bring.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="Name under which clients address the server, besides the --host."),
    ] = None,
    max_batch: Annotated[int, typer.Option("--max-batch", min=1, help="Answers that are decoded together.")] = 32,
    max_queue: Annotated[
        int, typer.Option("--max-queue", min=1, help="Requests that may wait; others are told to come again.")
    ] = 64,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="The longest answer.")] = 512,
    deadline: Annotated[
        float, typer.Option("--deadline", min=0.1, help="Seconds in which requests are answered.")
    ] = 120.0,
    skip_below: Annotated[
        list[str] | None,
        typer.Option(
            "--skip-below",
            help="Do not run experts whose gate weight is expected to be smaller (0 to 1); EXPERT=P: this one.",
            metavar="P",
        ),
    ] = None,
    skip_sure: Annotated[
        float, typer.Option("--skip-sure", min=0, max=1, help="Run them after all if the first token is less likely.")
    ] = 0.0,
    expert_process: ExpertsProcess = None,
    engine_process: ModelsProcess = None,
    index: Annotated[
        Path | None, typer.Option("--index", help="Index of pictures (astrea index) that clients may search and see.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", help="JSONL file: per request, which experts fired, and times."),
    ] = None,
    replicas: Annotated[
        str | None,
        typer.Option(
            "--replicas",
            help="So many servers under Ray Serve behind one address; 1:8: as many as are needed.",
            metavar="N",
        ),
    ] = None,
    device: OnDevice = "auto",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Serve a model to chat-completions clients over HTTP.

    Ends on Ctrl-C or SIGTERM once what it has accepted is answered. The log is JSON lines on standard error.

    [bold]astrea serve[/bold]  the model that comes with the package, for programs on this machine
    [bold]astrea serve MODEL --host 0.0.0.0 --api-key-file KEY[/bold]  for others too, who need the key
    """
    require_extra("serve", "a server")
    if replicas is not None:
        require_extra("ray", "a server of several replicas")
    actions.serve(
        model, host, port, name=name, key_file=api_key_file, allowed=allowed_host or [], trace=trace,
        skip_below=skip_below or [], skip_sure=skip_sure, expert_process=expert_process,
        engine_process=engine_process, index=index,
        caps={"running": max_batch, "waiting": max_queue, "tokens": max_tokens, "seconds": deadline},
        replicas=replicas, device=device, trust_remote_code=trust_remote_code,
    )  # fmt: skip
