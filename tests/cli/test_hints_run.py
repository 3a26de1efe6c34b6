"""Whatever command line a message, a help text or a recipe names does what it promises: each is run.

Capitals stand for what the reader puts there. Commands that compute for long are stopped where they would begin, when
recipe, data and options have been read.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_hints import PROSE, files, named

from astrea.common.progress import Reporter
from astrea.estimate import table as estimate_table
from astrea.lab.arena import arena as arena_run
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training import add_expert as add_expert_module
from astrea.training import trainer as trainer_module
from astrea.training.trainer import train
from astrea.world.scenes.draw import split_scene
from command_line import QUESTION, Astrea, refused
from repository import ROOT

EXAMPLES = ROOT / "docs" / "examples"
ASKED = [QUESTION]

DONE: dict[str, list[str]] = {
    "ask FOLDER picture.png": ["ask", "runs/mine/model", "photos/p/00000.png", *ASKED],
    "ask MODEL PICTURE": ["ask", "runs/mine/model", "photos/p/00001.png", *ASKED],
    "ask PICTURE": ["ask", "photos/p/00000.png", *ASKED],
    "ask example": ["ask", "example", *ASKED],
    "cache prune --max-gb 5": ["cache", "prune", "runs/cache", "--max-gb", "5"],
    "evaluate FOLDER": ["evaluate", "runs/mine/model", "--tasks", "counting,spatial"],
    "evaluate PLACE": ["evaluate", "runs/mine"],
    "evaluate PLACE/model --data FILE": ["evaluate", "runs/mine/model", "--data", "photos/held-out.jsonl"],
    "evaluate RUN": ["evaluate", "runs/mine"],
    "evaluate runs/mine": ["evaluate", "runs/mine"],
    "evaluate runs/mine/model --data held-out.jsonl": [
        *("evaluate", "runs/mine/model", "--data", "photos/held-out.jsonl")
    ],
    "evaluate runs/quickstart/model --tasks counting,spatial": [
        *("evaluate", "runs/mine/model", "--tasks", "counting,spatial")
    ],
    "index MODEL PICTURES --out INDEX": ["index", "runs/mine/model", "photos/p", "--out", "index"],
    "index PICTURES": ["index", "album"],
    "index PLACE": ["index", "album"],
    "index with --rebuild": ["index", "album", "--rebuild"],
    "recipe check": ["recipe", "check", "mine.yaml"],
    "recipe new mine.yaml --data train.jsonl --validation held-out.jsonl": [
        *("recipe", "new", "new.yaml", "--data", "photos/train.jsonl", "--validation", "photos/held-out.jsonl")
    ],
    "recipe show runs/mine tune.steps=800": ["recipe", "show", "runs/mine", "tune.steps=800"],
    "recipe show tiny": ["recipe", "show", "tiny"],
    "recipe show PLACE": ["recipe", "show", "runs/mine/model"],
    "recipe show {path}": ["recipe", "show", "mine.yaml"],
    "report PLACE": ["report", "runs/mine"],
    "retrieve FOLDER": ["retrieve", "album", "a red cat"],
    "retrieve MODEL FOLDER": ["retrieve", "runs/mine/model", "photos/p", "a red cat"],
    "retrieve MODEL INDEX --image PICTURE": [
        *("retrieve", "runs/mine/model", "index", "--image", "photos/p/00000.png")
    ],
    "scenes --out pictures --split test": ["scenes", "--out", "pictures", "--split", "test"],
    "scenes --show scenes.png": ["scenes", "--show", "scenes.png"],
    "validate --model": ["validate", "photos/train.jsonl", "--model", "runs/mine/model"],
    "validate DATA": ["validate", "photos/train.jsonl"],
    "validate FILE": ["validate", "photos/train.jsonl"],
    "validate train.jsonl --fixed clean.jsonl": ["validate", "photos/train.jsonl", "--fixed", "photos/clean.jsonl"],
    "validate train.jsonl --images photos --decode": [
        "validate",
        "photos/train.jsonl",
        "--images",
        "photos",
        "--decode",
    ],
}
"""What is named, and what is typed in a folder with photos/, album/, mine.yaml and the run runs/mine."""

BEGUN: dict[str, list[str]] = {
    "arena --quick": ["arena", "--quick"],
    "arena --strategies astrea,sequence_concat,ablations --seeds 3 tune.steps=200": [
        *("arena", "--strategies", "astrea,sequence_concat,ablations", "--seeds", "3", "tune.steps=200")
    ],
    "arena --on validation": ["arena", "--on", "validation"],
    "arena --setting NAME": ["arena", "--setting", "e2"],
    **{f"estimate {name}": ["estimate", name] for name in ("base", "large", "small")},
    "estimate tiny tune.batch=64": ["estimate", "tiny", "tune.batch=64"],
    "add-expert MODEL --expert palette=palette_expert:PaletteExpert --out runs/five": [
        *("add-expert", "shipped", "--expert", "palette=palette_expert:PaletteExpert", "--out", "runs/five")
    ],
    "add-expert shipped --expert photo=photo_expert:PhotoExpert --out runs/photo": [
        *("add-expert", "shipped", "--expert", "photo=photo_expert:PhotoExpert", "--out", "runs/photo")
    ],
    "train --resume": ["train", "--resume", "runs/mine"],
    "train PLACE": ["train", "mine.yaml", "--out", "runs/new"],
    "train {path}": ["train", "mine.yaml", "--out", "runs/new"],
    "train tiny seed=1 tune.steps=800 --out runs/longer": [
        *("train", "tiny", "seed=1", "tune.steps=800", "--out", "runs/longer")
    ],
    "train tiny pretrain=scratch": ["train", "tiny", "pretrain=scratch", "--out", "runs/new"],
    "train tiny": ["train", "tiny", "--out", "runs/new"],
    **{
        f"train {name} data.train=PATH": ["train", name, "data.train=photos/train.jsonl", "--out", "runs/new"]
        for name in ("base", "large", "small")
    },
    "train large data.train=PATH llm.dtype=bfloat16 llm.low_rank.rank=64 runtime.llm=replicated": [
        *("train", "large", "data.train=photos/train.jsonl", "llm.dtype=bfloat16", "llm.low_rank.rank=64"),
        *("runtime.llm=replicated", "--out", "runs/new"),
    ],
    "train small experts.detection.checkpoint=FOLDER experts.detection.revision=null": [
        *("train", "small", "experts.detection.checkpoint=photos", "experts.detection.revision=null"),
        *("--out", "runs/new"),
    ],
}
"""The same of commands that compute for long."""

ELSEWHERE = {
    "benchmark MODEL --data DIR": "tests/evaluation/benchmarks/test_public_run.py",
    "pack RUN --out FOLDER": "tests/world/test_bundled.py",
    "ask --batch questions.jsonl --out answers.jsonl": "tests/serving/test_asker.py",
    "chat example": "tests/serving/test_asker.py",
    "chat MODEL PICTURE": "tests/serving/test_asker.py",
    "pretrain PLACE": "tests/world/photographs/test_segmenter_training.py",
    "scenes --world photographs": "tests/cli/test_cli_tools.py",
    "serve MODEL --host 0.0.0.0 --api-key-file KEY": "tests/serving/test_serve_command.py",
    "train photo": "tests/benchmarks/test_benchmark_photo.py",
}
"""Run by other tests, with files that are long to write or packages that not everybody has."""

SENTENCES = ("index again", "index brings it", "index command finish", "retrieve searches")
"""Where the words after a command go on with the sentence."""


def named_in_sources() -> list[tuple[str, str]]:
    """(where, command line) of all that are more than a command's name, without marks."""
    found = []
    for path in files("src/**/*.py", "src/**/*.yaml", "src/**/*.j2"):
        for where, command, words in named(path):
            line = " ".join([command, *words]).split("[/bold]")[0]
            if command not in PROSE and words and not line.startswith(SENTENCES):
                found.append((where, line))
    return found


def test_every_named_command_line_is_run():
    lines = named_in_sources()
    known = (*DONE, *BEGUN, *ELSEWHERE)
    assert [(where, line) for where, line in lines if not line.startswith(known)] == []
    assert len(lines) > 40
    # And none of them is kept that nobody names any more.
    assert [key for key in known if not any(line.startswith(key) for _, line in lines)] == []


@pytest.fixture(scope="module")
def folder(small_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/ with pictures, train.jsonl and held-out.jsonl; album/ with the pictures alone; mine.yaml; runs/mine, a
    finished run."""
    folder = tmp_path_factory.mktemp("hints")
    photos = folder / "photos"
    (photos / "p").mkdir(parents=True)
    rows = []
    for number in range(8):
        Image.fromarray(split_scene("train", number, 0).image).save(photos / "p" / f"{number:05}.png")
        talk = [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": "two"}]
        rows.append(json.dumps({"id": f"r{number}", "image": f"p/{number:05}.png", "conversations": talk}) + "\n")
    shutil.copytree(photos / "p", folder / "album")
    (photos / "train.jsonl").write_text("".join(rows[:6]))
    (photos / "held-out.jsonl").write_text("".join(rows[6:]))
    own = [f"data.train={photos / 'train.jsonl'}", f"data.validation={photos / 'held-out.jsonl'}"]
    run = load_recipe(Recipe, str(small_recipe), [*own, "align.steps=2", "fuse.steps=2", "tune.steps=2"])
    train(run, folder / "runs" / "mine", report=Reporter())
    shutil.copy(folder / "runs" / "mine" / "recipe.yaml", folder / "mine.yaml")
    return folder


@pytest.fixture
def there(folder: Path, monkeypatch: pytest.MonkeyPatch, few_scenes: None) -> Path:
    """In that folder, with the examples importable, and everything long stopped at its beginning."""

    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    for module, name in (
        (arena_run, "run_arena"),
        (estimate_table, "estimate"),
        (add_expert_module, "add_expert"),
        (trainer_module, "train"),
    ):
        monkeypatch.setattr(module, name, stop)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return folder


def test_what_is_named_is_done(astrea: Astrea, there: Path):
    """In the order in which the table has them: a report is written of what has been evaluated before."""
    runs = {" ".join(typed): typed for typed in DONE.values()}
    for typed in runs.values():
        result = astrea(*typed)
        assert result.code == 0, (typed, result.err)
        assert result.out, typed


def test_what_takes_long_is_begun(astrea: Astrea, there: Path):
    runs = {" ".join(typed): typed for typed in BEGUN.values()}
    for typed in runs.values():
        result = astrea(*typed)
        assert result.code == 130, (typed, result.err)


def hinted(text: str) -> list[str]:
    """The command line that a message names, without the command's own name."""
    found = re.search(r"astrea ((?:[^\s;,)]+ ?)+)", text)
    assert found is not None, text
    return found[1].split()


def test_the_way_to_a_score_of_a_run_with_nothing_held_out(astrea: Astrea, there: Path, small_recipe: Path):
    run = there / "runs" / "alone"
    shutil.copytree(there / "runs" / "mine" / "model", run / "model")
    data = [f"data.train={there / 'photos' / 'train.jsonl'}", "data.validation=null"]
    shown = astrea("recipe", "show", small_recipe, *data)
    (run / "recipe.yaml").write_text(shown.out)
    result = astrea("report", run)
    refused(result, "Evaluate the run first")
    result = astrea(*hinted(result.err.split("Evaluate the run first: ")[1]))
    refused(result, "names no held-out data (data.validation)")
    typed = [there / "photos" / "held-out.jsonl" if word == "FILE" else word for word in hinted(result.err)]
    result = astrea(*typed, "--out", run)
    assert result.code == 0, result.err
    assert astrea("report", run).code == 0
