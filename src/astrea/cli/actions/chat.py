"""What chat does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.text import Text

from astrea.common.devices import Device
from astrea.common.errors import AstreaError
from astrea.common.output import out
from astrea.common.paths import exists
from astrea.common.terminal import printable
from astrea.data.image_sources import read_image
from astrea.model.loaded import load
from astrea.serving.errors import ApiError
from astrea.serving.features import Picture
from astrea.serving.local import Asker
from astrea.world.scenes.example import EXAMPLE_NAME, example_picture

BAR = 12
HELP = "Ask about the picture. /without EXPERT: switch one off or on; /new: forget all said; /quit or an empty line."


def chat(folder: Path, image: str, *, longest: int, device: Device, trust_remote_code: bool) -> None:
    """Talk about a picture until there are no more questions."""
    picture = read_image(example_picture() if image == EXAMPLE_NAME and not exists(image) else image)
    with Asker(load(folder, device=device, trust_remote_code=trust_remote_code)) as asker:
        out.print(HELP, highlight=False)
        Talk(asker, asker.picture(picture), longest).run()


class Talk:
    """A conversation about one picture."""

    def __init__(self, asker: Asker, picture: Picture, longest: int) -> None:
        self.asker, self.picture, self.longest = asker, picture, longest
        self.turns: list[dict[str, Any]] = []
        self.without: frozenset[str] = frozenset()

    def run(self) -> None:
        """Until an empty line, /quit or the end of the input."""
        while True:
            try:
                said = input("> ").strip()
            except EOFError:
                return
            if said in ("", "/quit"):
                return
            if said == "/new":
                self.turns = []
            elif said.startswith("/without"):
                self._switch(said.removeprefix("/without").strip())
            else:
                self._ask(said)

    def _switch(self, name: str) -> None:
        names = self.asker.engine.model.experts.names
        without = self.without ^ {name}
        if name not in names or len(without) == len(names):
            out.print(f"experts that can be switched off, though not all: {', '.join(names)}", highlight=False)
            return
        self.without = without
        out.print(f"without: {', '.join(sorted(without)) or 'none'}", highlight=False)

    def _ask(self, question: str) -> None:
        text = {"type": "text", "text": question}
        content = [text] if self.turns else [{"type": "image"}, text]
        turns = [*self.turns, {"role": "user", "content": content}]
        answer = ""
        try:
            pending = self.asker.submit(turns, [self.picture], most=self.longest, without=self.without)
            for piece in pending:
                answer += piece
                out.print(Text(printable(piece)), end="")
        except (AstreaError, ApiError) as error:
            out.print(Text(error.message))
            return
        out.print()
        for line in bars(pending.job.shares[0]):
            out.print(line)
        self.turns = [*turns, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


def bars(shares: dict[str, float]) -> list[Text]:
    """Gate weights, largest first, a line each."""
    width = max(map(len, shares))
    return [
        Text(f"  {printable(name):<{width}}  {'#' * round(BAR * share):<{BAR}} {share:4.0%}", style="dim")
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
    ]
