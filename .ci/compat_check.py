"""What must work in a fresh environment with this package's wheel: run by ``compat.py`` there, in an empty folder.

Prints one line of JSON per step: its name, whether it went well, and what was seen.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("torch", "transformers", "tokenizers", "pydantic", "pillow", "numpy", "typer")
STEPS_OF_TRAINING = ["align.steps=1", "align.progressive=false", "fuse.steps=1", "tune.steps=1", "data.train_scenes=40"]
QUESTION, ANSWER = "what colour is the cat?", "green"


def command(*words: str) -> str:
    done = subprocess.run([str(Path(sys.executable).parent / "astrea"), *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"astrea {words[0]}: status {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stdout


def imported() -> str:
    import astrea

    assert "site-packages" in astrea.__file__, f"{astrea.__file__} is not the wheel's"
    return f"astrea-vlm {version('astrea-vlm')}"


def asked() -> str:
    told = json.loads(command("ask", "example", QUESTION, "--json"))
    assert told["answer"] == ANSWER, told["answer"]
    return f"{QUESTION} {told['answer']}"


def trained() -> str:
    command("train", "tiny", *STEPS_OF_TRAINING, "--out", "run", "--no-evaluate")
    lines = [json.loads(line) for line in Path("run/train.jsonl").read_text().splitlines()]
    losses = [f"{line['loss']:.2f}" for line in lines]
    assert len(losses) == 3, losses
    return f"losses {', '.join(losses)}"


def saved() -> str:
    import astrea

    model, processor = astrea.load_model("run/model")
    model.save_pretrained("saved")
    processor.save_pretrained("saved")
    return f"{sum(path.stat().st_size for path in Path('saved').iterdir()) / 1e6:.1f} MB"


def loaded() -> str:
    import torch

    import astrea

    first, second = (astrea.load_model(folder)[0].state_dict() for folder in ("run/model", "saved"))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    return f"{len(first)} tensors, the same"


def piped() -> str:
    from transformers import pipeline

    import astrea

    model, processor = astrea.load_model("shipped")
    model.save_pretrained("shipped_copy")
    processor.save_pretrained("shipped_copy")
    ask = pipeline("image-text-to-text", model="shipped_copy")
    content = [{"type": "image", "url": str(astrea.example_picture())}, {"type": "text", "text": QUESTION}]
    told = ask(text=[{"role": "user", "content": content}], return_full_text=False)[0]["generated_text"]
    assert told.strip() == ANSWER, told
    return f"{QUESTION} {told.strip()}"


STEPS: dict[str, Callable[[], str]] = {
    "import": imported,
    "ask": asked,
    "train": trained,
    "save": saved,
    "load": loaded,
    "pipeline": piped,
}


def main() -> None:
    for folder in ("run", "cache", "saved", "shipped_copy"):
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"libraries": {name: version(name) for name in LIBRARIES}}), flush=True)
    for name, step in STEPS.items():
        try:
            row = {"step": name, "well": True, "seen": step()}
        except Exception as error:  # whatever goes wrong is what this is here to tell
            row = {"step": name, "well": False, "seen": f"{type(error).__name__}: {error}"[:800]}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
