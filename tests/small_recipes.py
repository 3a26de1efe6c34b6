"""Sizes of a few thousand parameters, and a recipe of them where only what it costs counts."""

SIZES = (
    "llm.width=32",
    "llm.layers=2",
    "llm.heads=2",
    "llm.feed_forward=64",
    "model.contrast_width=16",
    "model.adapter_hidden=24",
    "contrast.queue=32",
    "regularisation.contribution_every=2",
)

STAGES = [
    *("align/captioning", "align/classification", "align/segmentation", "align/detection", "align/joint"),
    "fuse",
    "tune",
]
"""Of a run with the four compact experts."""

SMALL = [
    *SIZES,
    "experts={captioning: {kind: captioning}, detection: {kind: detection}}",
    "align.batch=8",
    "fuse.batch=4",
    "tune.batch=4",
]
