"""Sizes of a few thousand parameters, and a recipe of them where only what it costs counts."""

SIZES = (
    "language.width=32",
    "language.layers=2",
    "language.heads=2",
    "language.feed_forward=64",
    "model.contrast_width=16",
    "model.adapter_hidden=24",
    "contrast.queue=32",
    "regular.contribution_every=2",
)

SMALL = [
    *SIZES,
    "experts={captioning: {kind: captioning}, detection: {kind: detection}}",
    "align.batch=8",
    "fuse.batch=4",
    "tune.batch=4",
]
