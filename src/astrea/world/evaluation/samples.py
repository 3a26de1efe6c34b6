"""Pictures of the test split for the report: what the experts read in them, and what the model answered."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from astrea.common.files import write_json_atomic
from astrea.data.packing import CAPTION_PROMPT
from astrea.experts.drawing import draw_readings
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.world.evaluation.runner import EncodedTestSets, Outcome
from astrea.world.evaluation.tasks import CAPTION_TASKS
from astrea.world.scenes.questions import VQA_TASKS

SAMPLES = 24


def write_samples(
    model: AstreaForConditionalGeneration, encoded: EncodedTestSets, outcome: Outcome, folder: Path
) -> None:
    """Test pictures with drawn readings, question, answer, truth and shares: ``samples.json`` and its pictures."""
    picked: list[tuple[str, int]] = []
    tasks = [*VQA_TASKS, *CAPTION_TASKS]
    for number in range(SAMPLES):
        task = tasks[number % len(tasks)]
        if task in outcome.answers:
            count = len(outcome.answers[task])
            picked.append((task, (number * 37) % count))
    names = model.experts.names
    for name in ("samples", "readings"):  # apart, so that samples/ is an album of pictures and nothing else
        (folder / name).mkdir(exist_ok=True)
    written = []
    for number, (task, item) in enumerate(picked):
        answer = outcome.answers[task][item]
        if task in CAPTION_TASKS:
            scene = encoded.sets.described[task][item]
            question, truth = CAPTION_PROMPT, encoded.suite.references(scene, 0)[0]
        else:
            asked = [each for each in encoded.sets.questions if each.question.task == task][item]
            scene = encoded.sets.scenes[asked.scene]
            question, truth = asked.question.text, asked.question.answer
        pixels = encoded.suite.pixels([scene])
        picture = Image.fromarray((255 * pixels[0]).round().byte().permute(1, 2, 0).numpy())
        readings = model.experts.readings(pixels)[0]
        image, panel = f"samples/{number:02d}.png", f"readings/{number:02d}.png"
        picture.save(folder / image)
        draw_readings(picture, readings).save(folder / panel)
        written.append(
            {
                "image": image,
                "panel": panel,
                "task": task,
                "question": question,
                "answer": answer,
                "truth": truth,
                "right": bool(outcome.per_item[task][item] >= 0.999),
                "condition": encoded.suite.condition(scene),
                "shares": dict(zip(names, outcome.shares[task][item].tolist(), strict=True)),
            }
        )
    write_json_atomic(folder / "samples.json", written)
