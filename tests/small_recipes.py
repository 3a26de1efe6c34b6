"""A recipe of a few thousand parameters, where only what it costs counts."""

SMALL = [
    "experts={captioning: {kind: captioning}, detection: {kind: detection}}",
    "language.width=32",
    "language.layers=2",
    "language.heads=2",
    "language.feed_forward=64",
    "model.contrast_width=16",
    "model.adapter_hidden=24",
    "contrast.queue=32",
    "regular.contribution_every=2",
    "align.batch=8",
    "fuse.batch=4",
    "tune.batch=4",
]
