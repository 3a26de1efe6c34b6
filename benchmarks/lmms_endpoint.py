"""lmms-eval asks a served model and the same model in its own process: the answers and the score must be the same.

    pip install "astrea-vlm[serve,lmms]"
    python benchmarks/lmms_endpoint.py

A small task, of pictures of the drawn world with a question about each, is run twice: by the plug-in (``--model
astrea``) and by lmms-eval's own back end for chat completions (``--model openai``), which asks `astrea serve` in a
process of its own. lmms-eval is used as it is; nothing but this machine is asked.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from astrea.common.files import write_json_atomic
from astrea.common.provenance import commit, machine
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.questions import candidates

RESULTS = Path(__file__).resolve().parent / "results" / "lmms_endpoint.json"
TASK = "drawn_scenes"
FUNCTIONS = """from PIL import Image


def pictures(doc):
    with Image.open(doc["image"]) as picture:
        return [picture.convert("RGB")]
"""
"""What the task calls for a document's pictures."""


def write_task(folder: Path, scenes: int) -> None:
    """A task of lmms-eval in a folder: pictures, their questions, and how to ask them."""
    rows = []
    for number in range(scenes):
        scene = split_scene("test", 0, number)
        path = folder / f"{number}.png"
        Image.fromarray(scene.image).save(path)
        chance = random.Random(number)
        question = chance.choice(candidates(scene, chance))
        rows.append({"image": str(path), "question": question.text, "answer": question.answer})
    (folder / "scenes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "drawn_functions.py").write_text(FUNCTIONS)
    # The function's tag is no JSON, but the rest of the file is YAML as it is.
    settings = {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "scenes.jsonl")}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "question",
        "doc_to_target": "answer",
        "generation_kwargs": {"max_new_tokens": 16, "temperature": 0, "until": ["\n\n"]},
        "metric_list": [
            {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True}
        ],
    }
    lines = [f"{name}: {json.dumps(value)}" for name, value in settings.items()]
    lines.append("doc_to_visual: !function drawn_functions.pictures")
    (folder / f"{TASK}.yaml").write_text("\n".join(lines) + "\n")


def evaluated(model: str, arguments: str, folder: Path) -> tuple[float, list[str]]:
    """The score of a model as lmms-eval knows it, and its answers in the order of the documents."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False, model_name=model)
    found: Any = simple_evaluate(
        model, arguments, tasks=[TASK], batch_size=4, task_manager=manager, bootstrap_iters=0, log_samples=True
    )
    samples = sorted(found["samples"][TASK], key=lambda sample: int(sample["doc_id"]))
    score = next(value for name, value in found["results"][TASK].items() if name.startswith("exact_match,"))
    return float(score), [str(sample["filtered_resps"][0]) for sample in samples]


@contextlib.contextmanager
def served(model: str) -> Iterator[int]:
    """`astrea serve` of a model, as its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "astrea", "serve", model, "--name", "served", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while True:
            if process.poll() is not None:
                raise SystemExit(f"{shlex.join(command)} ended with status {process.returncode}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="shipped", help="model folder")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--timeout", type=int, default=600, help="seconds that an answer of the server may take")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(given)
    command = shlex.join(["python", "benchmarks/lmms_endpoint.py", *(sys.argv[1:] if given is None else given)])
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_task(folder, options.scenes)
        own, own_answers = evaluated("astrea", f"pretrained={options.model}", folder)
        with served(options.model) as port:
            address = f"base_url=http://127.0.0.1:{port}/v1,api_key=none,model_version=served"
            theirs, their_answers = evaluated("openai", f"{address},timeout={options.timeout}", folder)
    found = {
        "scenes": options.scenes,
        "score_in_process": own,
        "score_through_the_server": theirs,
        "answers_that_differ": sum(mine != other for mine, other in zip(own_answers, their_answers, strict=True)),
        "answers": own_answers,
    }
    print(f"in process {own:.3f}, through the server {theirs:.3f}; {found['answers_that_differ']} answers differ")
    write_json_atomic(options.out, {"command": command, "commit": commit(), "machine": machine(), **found})
    return found


if __name__ == "__main__":
    main()
