"""Training on one's own files: whether memory stays flat over a long stream, and how long steps wait for batches.

    python benchmarks/own_data.py --gigabytes 50 --parts 5

Memory. One tar shard of 1600 x 1200 pictures (PNG without compression, 5.8 MB each, beside a conversation) is linked
under as many names as make up ``--gigabytes``; the source is all of them. A small model trains until every byte of it
has been read and decoded: align first, then fuse and tune, which begin again at the stream's beginning and together
pass over it once. The page cache holds the one real shard, so no disk is measured. Resident memory is sampled all
along; the slope is that of a straight line through the samples of the later part, in megabytes per gigabyte read.

Waiting. The tiny recipe, each of its stages 1/``--parts`` as long, on 640 x 480 JPEGs in a folder beside a JSONL, and
on the same in tar shards. The share is what `seconds.json` calls waiting over what it calls align, fuse and tune. For
one stage alone, too: align reads four times as many pictures per step as the others, and computes least for each.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import shlex
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from astrea.common.files import write_json_atomic
from astrea.common.progress import Reporter
from astrea.common.provenance import commit, machine
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.trainer import train
from astrea.world.scenes.captions import captions
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.questions import Balancer

RESULTS = Path(__file__).resolve().parent / "results" / "own_data.json"
PHOTO, LARGE = (640, 480), (1600, 1200)
SMALL = ("llm={width: 32, layers: 2, heads: 2, feed_forward: 64}", "model.pretrained_llm=false")
"""Of the memory run: a language model so small that reading is most of the work."""

SETTLED = 0.25
"""Share of the run after which memory has to be flat: buffers are full, every stage but the last is over."""


def photo(number: int, size: tuple[int, int] = PHOTO) -> Image.Image:
    """A scene at the size of a photo, with the grain that photos have."""
    scene = split_scene("train", number, 0)
    large = np.asarray(Image.fromarray(scene.image).resize(size, Image.Resampling.BICUBIC), np.int16)
    grain = np.random.default_rng(number).integers(-8, 9, large.shape, np.int16)
    return Image.fromarray((large + grain).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, format: str) -> bytes:
    """An image file; PNG without compression."""
    buffer = io.BytesIO()
    image.save(buffer, format, **({"compress_level": 0} if format == "PNG" else {"quality": 90}))
    return buffer.getvalue()


def conversations(count: int) -> list[list[dict[str, str]]]:
    """Up to three questions and a caption about each scene."""
    balancer, rng, found = Balancer(), random.Random(0), []
    for number in range(count):
        scene = split_scene("train", number, 0)
        asked = balancer.choose(scene, rng)[:3]
        turns = [(q.text, q.answer) for q in asked] + [("describe the picture.", captions(scene, 1, number)[0])]
        said = []
        for place, (question, answer) in enumerate(turns):
            mark = "" if place else "<image>"
            said += [{"from": "human", "value": mark + question}, {"from": "gpt", "value": answer}]
        found.append(said)
    return found


def write_shard(path: Path, samples: Iterable[tuple[str, bytes, str, list[dict[str, str]]]]) -> int:
    """A tar shard of (key, picture, its ending, conversation); returns its size."""
    with tarfile.open(path, "w") as tar:
        for key, picture, ending, said in samples:
            row = json.dumps({"id": key, "image": f"{key}.{ending}", "conversations": said}).encode()
            for name, data in ((f"{key}.{ending}", picture), (f"{key}.json", row)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path.stat().st_size


def resident_mb() -> float:
    """Memory of this process that is in use now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line that fits best."""
    x, y = np.asarray(points, float).T
    return float(np.polyfit(x, y, 1)[0])


def memory(folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Train over the whole stream, sampling resident memory."""
    per, batch = chosen.shard, chosen.batch
    said = conversations(per)
    size = write_shard(
        folder / "real.tar", ((f"{n:06}", encoded(photo(n, LARGE), "PNG"), "png", said[n]) for n in range(per))
    )
    shards = max(2, round(chosen.gigabytes * 1e9 / size))
    (folder / "stream").mkdir()
    for number in range(shards):
        (folder / "stream" / f"{number:06}.tar").symlink_to(folder / "real.tar")
    steps = -(-shards * per // batch)
    early = max(5, steps // 20)
    recipe = load_recipe(
        Recipe,
        "tiny",
        [
            *SMALL,
            f"data.train={folder}/stream/*.tar",
            f"threads={chosen.threads}",
            *(f"{stage}.batch={batch}" for stage in ("align", "fuse", "tune")),
            f"align.steps={early}",
            f"fuse.steps={early}",
            f"tune.steps={steps - early}",
            *(f"{stage}.save_every=0" for stage in ("align", "fuse", "tune")),
        ],
    )
    points: list[dict[str, Any]] = []
    every, total = max(1, (steps + early) // chosen.samples), 0

    def observe(_: Any, stage: str, done: int, seconds: float) -> None:
        nonlocal total
        total += 1
        if total % every == 0:
            read = total * batch * size / per / 1e9
            points.append({"stage": stage, "gigabytes": round(read, 6), "resident_mb": round(resident_mb(), 1)})

    began = time.perf_counter()
    train(recipe, folder / "memory", observe=observe, report=Reporter())
    settled = [(p["gigabytes"], p["resident_mb"]) for p in points if p["gigabytes"] > SETTLED * points[-1]["gigabytes"]]
    half = len(settled) // 2
    return {
        "pictures": f"{LARGE[0]} x {LARGE[1]} PNG without compression",
        "shards": shards,
        "real_shards": 1,
        "shard_bytes": size,
        "stream_gigabytes": round(shards * size / 1e9, 2),
        "gigabytes_decoded": points[-1]["gigabytes"],
        "pictures_decoded": total * batch,
        "steps": total,
        "batch": batch,
        "seconds": round(time.perf_counter() - began, 1),
        "slope_mb_per_gigabyte": {
            "settled": round(slope(settled), 3),
            "first_half_of_it": round(slope(settled[:half]), 3),
            "second_half_of_it": round(slope(settled[half:]), 3),
        },
        "settled_mb": {"least": min(mb for _, mb in settled), "most": max(mb for _, mb in settled)},
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1),
        "samples": points,
    }


def sources(folder: Path, count: int) -> dict[str, str]:
    """JPEGs of a photo's size in a folder with a JSONL, and the same in four tar shards."""
    (folder / "photos").mkdir()
    pictures = [encoded(photo(number), "JPEG") for number in range(count)]
    said = conversations(count)
    rows = []
    for number, picture in enumerate(pictures):
        (folder / "photos" / f"{number:06}.jpg").write_bytes(picture)
        rows.append({"id": f"{number:06}", "image": f"photos/{number:06}.jpg", "conversations": said[number]})
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for shard in range(4):
        mine = range(shard, count, 4)
        write_shard(folder / f"photos-{shard}.tar", ((f"{n:06}", pictures[n], "jpg", said[n]) for n in mine))
    return {"jsonl": str(folder / "train.jsonl"), "shards": str(folder / "photos-*.tar")}


def waiting(folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """The share of waiting, for both kinds of files: of the whole recipe, and of each stage alone."""
    found: dict[str, Any] = {"pictures": f"{PHOTO[0]} x {PHOTO[1]} JPEG", "files": chosen.files}
    for kind, path in sources(folder, chosen.files).items():
        found[kind] = {}
        for part in ("whole", "align", "tune"):
            steps = {"align": 300, "fuse": 60, "tune": 400}
            steps = {s: n // chosen.parts if part in ("whole", s) else 0 for s, n in steps.items()}
            own = [f"{stage}.steps={count}" for stage, count in steps.items()]
            recipe = load_recipe(Recipe, "tiny", [f"data.train={path}", f"threads={chosen.threads}", *own])
            out = folder / f"{kind}-{part}"
            load = os.getloadavg()[0]
            train(recipe, out, report=Reporter())
            seconds = json.loads((out / "seconds.json").read_text())
            stages = sum(seconds.get(stage, 0.0) for stage in steps)
            found[kind][part] = {
                "steps": steps,
                "seconds": seconds,
                "waiting_share": round(seconds["waiting"] / stages, 4),
                "load_average_before": round(load, 2),
            }
    return found


def table(results: dict[str, Any]) -> str:
    """The figures for a person."""
    lines = []
    if kept := results.get("memory"):
        lines.append(
            f"memory: {kept['gigabytes_decoded']} GB decoded, peak {kept['peak_mb']} MB, settled between "
            f"{kept['settled_mb']['least']} and {kept['settled_mb']['most']} MB, "
            f"slope {kept['slope_mb_per_gigabyte']['settled']} MB per GB"
        )
    for kind in ("jsonl", "shards"):
        for part, figures in results.get("waiting", {}).get(kind, {}).items():
            lines.append(f"waiting: {kind}, {part}: {figures['waiting_share']:.1%}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write the results; returns what was written. What is not measured stays as it was."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description="Memory and waiting of training on one's own files.")
    parser.add_argument("--gigabytes", type=float, default=50, help="of the stream; 0 = do not measure memory")
    parser.add_argument("--parts", type=int, default=5, help="stages are 1/PARTS as long; 0 = do not measure waiting")
    parser.add_argument("--shard", type=int, default=32, help="pictures of the one real shard")
    parser.add_argument("--batch", type=int, default=32, help="of the memory run")
    parser.add_argument("--samples", type=int, default=200, help="of resident memory")
    parser.add_argument("--files", type=int, default=400, help="pictures of the waiting runs")
    parser.add_argument("--threads", type=int, default=2, help="that compute")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    chosen = parser.parse_args(words)
    if min(chosen.shard, chosen.batch, chosen.samples, chosen.files, chosen.threads) < 1:
        parser.error("numbers must be at least 1")
    results = json.loads(chosen.out.read_text()) if chosen.out.is_file() else {}
    about = {
        "command": shlex.join(["python", "benchmarks/own_data.py", *words]),
        "commit": commit(),
        "machine": machine(),
        "threads": chosen.threads,
        "load_average_before": [round(load, 2) for load in os.getloadavg()],
    }
    for name, measure, wanted in (("memory", memory, chosen.gigabytes), ("waiting", waiting, chosen.parts)):
        if wanted:
            with tempfile.TemporaryDirectory() as folder:
                results[name] = {**about, **measure(Path(folder), chosen)}
                results[name]["load_average_after"] = [round(load, 2) for load in os.getloadavg()]
            chosen.out.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomic(chosen.out, results)
    print(table(results))
    print(f"results: {chosen.out}")
    return json.loads(json.dumps(results))


if __name__ == "__main__":
    main()
