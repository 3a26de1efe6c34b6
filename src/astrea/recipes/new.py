"""A small recipe for data of one's own, with a word on each key that is likely to be changed."""

from __future__ import annotations

from astrea.recipes.yaml import write

TEMPLATE = """\
# What is not said here is as in the recipe below; `astrea recipe show {path}` prints every key with its value,
# `astrea recipe check {path}` looks this file over, `astrea train {path}` trains.
base: {base}
name: {name}                 # the run's folder is runs/NAME unless --out says otherwise
seed: 0

data:
  train: {train}             # or a list of files, or a pattern such as "shards/*.tar"; try it: astrea validate FILE
  {images}                   # where the pictures' paths start; left out: each data file's own folder
  {validation}               # never trained on (0.1: a tenth of train): loss meanwhile, scores and a report at the end

# Stages: what learns is as in the base; how long and how fast is likely to depend on the data.
align: {{steps: {align}}}         # the experts' adapters learn the language model's words
fuse: {{steps: {fuse}}}           # the fusion learns to mix them
tune: {{steps: {tune}, batch: {batch}}}  # everything but the experts learns to answer
#   lr: {lr}                 # in any stage

# Experts of one's own replace the base's entry of their name, `NAME: null` takes one out:
# experts:
#   segmentation: {{kind: segmentation, checkpoint: path/to/folder}}
#   photo: {{kind: "photo_expert:PhotoExpert"}}
"""


def new_recipe(
    path: str, base: str, name: str, *, train: str, images: str | None, validation: str | None, recipe: object
) -> str:
    """The text of a recipe. ``recipe``: the base, whose steps and rates are written down."""
    stages = {stage: getattr(recipe, stage) for stage in ("align", "fuse", "tune")}
    said = {
        "images": f"images: {scalar(images)}" if images else "# images: photos",
        "validation": f"validation: {share_or_path(validation)}" if validation else "# validation: held-out.jsonl",
    }
    return TEMPLATE.format(
        path=path,
        base=scalar(base),
        name=scalar(name),
        train=scalar(train),
        **said,
        **{stage: one.steps for stage, one in stages.items()},
        batch=stages["tune"].batch,
        lr=stages["tune"].lr,
    )


def share_or_path(text: str) -> str:
    """Held-out data as YAML writes it: a share of the training data (0.1) as a number, a file's path as a text."""
    try:
        return f"{float(text):g}" if 0 < float(text) < 1 else scalar(text)
    except ValueError:
        return scalar(text)


def scalar(text: str) -> str:
    """A text as YAML writes it in one line."""
    return write(text).split("\n...")[0].strip()
