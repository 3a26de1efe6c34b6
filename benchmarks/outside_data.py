"""One's own data, all the way, with pictures that nobody here drew: `astrea validate`, `train photo data.train=...`,
`evaluate --data`, and beside it what a linear probe on the same experts' features reaches.

    apt-get install fonts-noto-color-emoji unicode-data
    python benchmarks/outside_data.py runs/outside [KEY=VALUE ...]

The pictures are Noto Color Emoji (SIL Open Font License 1.1), which Unicode's emoji-test.txt sorts by what they show:
each on a shaded ground, at another size and place. Of each are asked "what kind of thing is it?" and whether it is of
a kind, in LLaVA's form. Training, validation and test have other emoji of the same kinds. RUN keeps pictures, files
and the run; killed, the same command goes on. Kept in benchmarks/results/outside_data.json: the share of kinds named
rightly by the model, by the same model without the picture, and by the probe.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from astrea.common.provenance import commit, machine
from astrea.model.loading import load_model
from result_files import write_results

RESULTS = Path(__file__).resolve().parent / "results" / "outside_data.json"
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
NAMES = Path("/usr/share/unicode/emoji/emoji-test.txt")
KINDS = {
    "mammal": ("animal-mammal",), "bird": ("animal-bird",), "bug": ("animal-bug",),
    "plant": ("plant-flower", "plant-other"),
    "food": ("food-fruit", "food-vegetable", "food-prepared", "food-asian", "food-sweet"), "drink": ("drink",),
    "vehicle": ("transport-ground", "transport-air", "transport-water"),
    "building": ("place-building", "place-religious"), "garment": ("clothing",), "tool": ("tool",),
    "face": ("face-smiling", "face-neutral-skeptical", "face-concerned", "face-unwell", "face-affection"),
    "flag": ("country-flag",), "clock": ("time",),
}  # fmt: skip
"""What is asked for, and the subgroups of Unicode's list that are meant."""
MOST, VIEWS = 60, 2
"""Emoji of a kind, and pictures of each."""
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
SIDE, GLYPH = 320, 109
QUESTION = "what kind of thing is it?"
DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)
PROBE_STEPS = 300


def emoji_of_kinds() -> dict[str, list[str]]:
    """The emoji of each kind that are one character, without those that differ in the colour of skin."""
    group_of = {group: kind for kind, groups in KINDS.items() for group in groups}
    found: dict[str, list[str]] = defaultdict(list)
    group = ""
    for line in NAMES.read_text(encoding="utf-8").splitlines():
        if line.startswith("# subgroup:"):
            group = line.partition(":")[2].strip()
        elif "; fully-qualified" in line and group in group_of:
            points = [point for point in line.partition(";")[0].split() if point != "FE0F"]
            # Flags are two letters; everything else of more than one character is a variant.
            if len(points) == 1 or (group == "country-flag" and len(points) == 2):
                found[group_of[group]].append("".join(chr(int(point, 16)) for point in points))
    return found


def picture(emoji: str, rng: random.Random) -> Image.Image:
    """An emoji on a ground of two colours that run into each other."""
    one, two = (np.array([rng.randrange(120, 256) for _ in range(3)], dtype=np.float32) for _ in range(2))
    ramp = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None, None]
    ground = one * (1 - ramp) + two * ramp * np.ones((1, SIDE, 1), np.float32)
    canvas = Image.fromarray(ground.round().astype(np.uint8))
    drawn = Image.new("RGBA", (136, 128))
    ImageDraw.Draw(drawn).text((0, 0), emoji, font=ImageFont.truetype(str(FONT), GLYPH), embedded_color=True)
    width = rng.randrange(110, 260)
    drawn = drawn.resize((width, width * 128 // 136), Image.Resampling.LANCZOS)
    canvas.paste(drawn, (rng.randrange(SIDE - width), rng.randrange(SIDE - drawn.height)), drawn)
    return canvas


def rows(kind: str, emoji: Sequence[str], split: str, folder: Path, rng: random.Random) -> Iterator[dict[str, Any]]:
    """The pictures of one kind in one split, written to the folder, with their questions."""
    for number, each in enumerate(emoji):
        for view in range(VIEWS):
            name = f"pictures/{split}-{kind}-{number}-{view}.png"
            picture(each, rng).save(folder / name)
            asked = kind if rng.random() < 0.5 else rng.choice([other for other in KINDS if other != kind])
            # Records of their own: whoever has been told the kind needs no picture for the other question.
            for question, answer in ((QUESTION, kind), (f"is it a {asked}?", "yes" if asked == kind else "no")):
                human = {"from": "human", "value": f"<image>\n{question}"}
                yield {"image": name, "conversations": [human, {"from": "gpt", "value": answer}]}


def write_data(folder: Path) -> dict[str, int]:
    """The three files and their pictures; how many records each has."""
    rng = random.Random(0)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    made: dict[str, list[dict[str, Any]]] = {split: [] for split in SHARES}
    for kind, emoji in emoji_of_kinds().items():
        some = rng.sample(emoji, min(MOST, len(emoji)))
        first, last = (round(len(some) * share) for share in (SHARES["train"], 1 - SHARES["test"]))
        parts = {"train": some[:first], "validation": some[first:last], "test": some[last:]}
        for split, part in parts.items():
            made[split] += rows(kind, part, split, folder, rng)
    for split, lines in made.items():
        rng.shuffle(lines)
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return {split: len(lines) for split, lines in made.items()}


def astrea(*arguments: str | Path) -> None:
    """Run a command as a user would."""
    subprocess.run([sys.executable, "-m", "astrea", *map(str, arguments)], check=True)


def named(folder: Path) -> dict[str, float]:
    """The share of kinds that the model names rightly, with and without the picture, and of yes and no, in per cent."""
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {}
    for what, wanted in (("kinds", True), ("yes_no", False)):
        mine = [line for line in lines if (QUESTION in line["question"]) == wanted]
        for way in ("answer", "blind"):
            right = [line[way].strip().lower().rstrip(".") in line["truths"] for line in mine]
            found[what if way == "answer" else f"{what}_blind"] = 100 * sum(right) / len(right)
    return found


@torch.no_grad()
def features(model: Any, processor: Any, folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """What the experts' features say of each picture, (N, C), the mean over an expert's findings; and its kind (N,)."""
    parts, kinds = [], []
    for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if QUESTION not in row["conversations"][0]["value"]:
            continue
        seen = processor.image_processor([Image.open(folder / row["image"]).convert("RGB")], return_tensors="pt")
        told = []
        for name, part in model.experts(seen["pixel_values"]).items():
            if "feature" in model.experts[name].slots:
                there = (part.confidence > 0).unsqueeze(-1)
                mine = part.tokens[..., slice(*model.experts[name].slots["feature"])] * there
                told.append(mine.sum(1) / there.sum(1).clamp_min(1))
        parts.append(torch.cat(told, 1))
        kinds.append(list(KINDS).index(row["conversations"][1]["value"]))
    return torch.cat(parts), torch.tensor(kinds)


def probe(model: Any, processor: Any, folder: Path) -> dict[str, float]:
    """The share of kinds that a linear classifier names rightly, in per cent; its decay is chosen on validation."""
    sets = {split: features(model, processor, folder, split) for split in SHARES}
    mean, spread = sets["train"][0].mean(0), sets["train"][0].std(0).clamp_min(1e-3)
    scaled = {split: ((x - mean) / spread, y) for split, (x, y) in sets.items()}
    tried = []
    for decay in DECAYS:
        layer = torch.nn.Linear(len(mean), len(KINDS))
        torch.nn.init.zeros_(layer.weight)
        chooser = torch.optim.AdamW(layer.parameters(), lr=3e-3, weight_decay=decay / 3e-3)
        for _ in range(PROBE_STEPS):
            chooser.zero_grad()
            F.cross_entropy(layer(scaled["train"][0]), scaled["train"][1]).backward()
            chooser.step()
        right = {split: 100 * float((layer(x).argmax(1) == y).float().mean()) for split, (x, y) in scaled.items()}
        tried.append((right["validation"], decay, right["test"]))
    validation, decay, test = max(tried)
    return {"kinds": test, "validation": validation, "decay": decay}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="of the recipe photo")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_intermixed_args()
    for needed, package in ((FONT, "fonts-noto-color-emoji"), (NAMES, "unicode-data")):
        if not needed.is_file():
            sys.exit(f"error: {needed} is not there\n  -> apt-get install {package}")
    folder, run = given.run / "data", given.run / "run"
    records = write_data(folder)
    files = {split: folder / f"{split}.jsonl" for split in SHARES}
    astrea("validate", *files.values(), "--decode")
    if run.exists() and not (run / "model").exists():
        astrea("train", "--resume", run)
    elif not run.exists():
        astrea(
            "train", "photo", f"data.train={files['train']}", f"data.validation={files['validation']}",
            "--out", run, *given.changes,
        )  # fmt: skip
    if not (given.run / "scores").exists():
        astrea("evaluate", run / "model", "--data", files["test"], "--out", given.run / "scores")
    model, processor = load_model(run / "model")
    found = {"model": named(given.run / "scores"), "probe": probe(model, processor, folder)}
    share = 100 * found["model"]["kinds"] / found["probe"]["kinds"]
    write_results(
        given.out,
        {
            **found,
            "share_of_probe": share,
            "records": records,
            "kinds": list(KINDS),
            "changes": given.changes,
            "commit": commit(),
            "machine": machine(),
        },
    )
    print(json.dumps({**found, "share_of_probe": share}, indent=1))


if __name__ == "__main__":
    main()
