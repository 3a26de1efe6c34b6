"""Every command: its name, one line of help, and where its function lies, as a string, so that listing the commands
imports none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union


@dataclass(frozen=True, slots=True)
class Command:
    """A command or a group of commands.

    help: the first line of the function's docstring. target: "module:function", or the commands of a group.
    renamed: what a command of earlier versions is called now; `astrea --help` leaves it out.
    """

    name: str
    help: str
    target: Union[str, tuple[Command, ...]]  # noqa: UP007 - evaluated, and a string in it
    renamed: str | None = None


RECIPE = (
    Command("show", "Print a whole recipe: every key with its value.", "astrea.cli.commands.recipe:show"),
    Command("check", "Say what is wrong with a recipe, with file and line.", "astrea.cli.commands.recipe:check"),
    Command("new", "Write a small recipe for data of one's own, with comments.", "astrea.cli.commands.recipe:new"),
)
CACHE = (
    Command(
        "list",
        "List cached expert features and dequantised language models: size and last use.",
        "astrea.cli.commands.cache:list_entries",
    ),
    Command(
        "prune",
        "Remove cached features and language models, those used longest ago first.",
        "astrea.cli.commands.cache:prune",
    ),
)
COMMANDS = (
    Command(
        "quickstart",
        "Train the tiny recipe, evaluate it, write a report: minutes on two cores.",
        "astrea.cli.commands.train:quickstart",
    ),
    Command("train", "Train a recipe: align, fuse, tune.", "astrea.cli.commands.train:train"),
    Command(
        "pretrain", "Train the compact experts and the language model of a recipe.", "astrea.world.commands:pretrain"
    ),
    Command("recipe", "Show, check and write recipes: what a run is made of.", RECIPE),
    Command(
        "add-expert",
        "Add an expert to a trained model: only its adapter learns.",
        "astrea.cli.commands.add_expert:add_expert",
    ),
    Command(
        "join",
        "Add an expert to a trained model: only its adapter learns.",
        "astrea.cli.commands.add_expert:add_expert",
        renamed="add-expert",
    ),
    Command("cache", "List or remove cached expert features and language models.", CACHE),
    Command("estimate", "Say what a recipe costs: memory, GPU, time.", "astrea.cli.commands.estimate:estimate"),
    Command("ask", "Ask a question about a picture, and why this is the answer.", "astrea.cli.commands.ask:ask"),
    Command(
        "chat",
        "Talk about a picture: answers as they come, with each expert's weight.",
        "astrea.cli.commands.chat:chat",
    ),
    Command("serve", "Serve a model to chat-completions clients over HTTP.", "astrea.cli.commands.serve:serve"),
    Command("index", "Index a folder of pictures, for `astrea retrieve`.", "astrea.cli.commands.retrieve:index"),
    Command("retrieve", "Find the pictures that fit a text best.", "astrea.cli.commands.retrieve:retrieve"),
    Command(
        "evaluate", "Evaluate a model on its recipe's tasks or on a data file.", "astrea.cli.commands.evaluate:evaluate"
    ),
    Command(
        "benchmark",
        "Evaluate a model on public benchmarks: VQAv2, GQA, COCO and others.",
        "astrea.cli.commands.benchmark:benchmark",
    ),
    Command("arena", "Compare Astrea with the other fusion strategies.", "astrea.lab.commands:arena"),
    Command("report", "Write a run's report.html again from its results.", "astrea.cli.commands.evaluate:report"),
    Command("scenes", "Show scenes of an embedded world.", "astrea.world.commands:scenes"),
    Command("pack", "Write a run's model without what packages have.", "astrea.world.commands:pack"),
    Command("validate", "Check data before it is trained on.", "astrea.cli.commands.validate:validate"),
    Command("merge", "Merge low-rank adapters into the language model.", "astrea.cli.commands.merge:merge"),
)
"""In the order of `astrea --help`."""
