"""Keys that another key leaves without effect, such as ``model.gate_tau`` without a gate.

Who writes both in one place is told so. Where a base recipe sets the key, and the recipe on top of it or the command
line turns off what would read it, the key is left behind. The options of other strategies are checked by each
strategy's own model of them (`astrea.fusion.registry.options_of`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from astrea.common.errors import AstreaError
from astrea.fusion.registry import ASTREA
from astrea.recipes.model import PHRASE_KEYS
from astrea.recipes.strategies import REGULARISATION_KEYS, STAGES, strategy_of
from astrea.recipes.trail import Trail, dotted
from astrea.recipes.tree import Tree


class Switch(NamedTuple):
    """A key that turns something off, and the keys that mean nothing then.

    usual: its value where nothing is written. off, on: a value that turns it off, and one that does not.
    also_off: keys that, set to 0 or false, say no more than that; they may stand.
    """

    key: Trail
    usual: Any
    off: Any
    on: str
    idle: tuple[Trail, ...]
    also_off: tuple[Trail, ...] = ()

    def value(self, data: Any) -> Any:
        """What plain data says, or leaves at its usual value."""
        usual = False if self.key in OFF_FOR_PHRASES and value_at(data, FINDINGS, "tokens") != "tokens" else self.usual
        return value_at(data, self.key, usual)

    def is_off(self, data: Any) -> bool:
        """Whether plain data turns it off."""
        value = self.value(data)
        return type(value) in (bool, int, float, str) and value == self.off

    def unread(self, data: Any) -> Iterator[Trail]:
        """Keys of plain data that have no effect."""
        if self.is_off(data):
            yield from (key for key in self.idle if value_at(data, key) is not None)
            yield from (key for key in self.also_off if value_at(data, key))


def _model(*names: str) -> tuple[Trail, ...]:
    return tuple(("model", name) for name in names)


def _losses(name: str) -> tuple[Trail, ...]:
    return tuple((stage, "losses", name) for stage in STAGES)


FINDINGS: Trail = ("model", "findings")

OFF_FOR_PHRASES = _model("mixer", "reliability")
"""Off where findings are phrases and nothing is said, see `astrea.recipes.model.Model`."""

_RATE, _EVERY, _SKIPPING = (("regularisation", key) for key in REGULARISATION_KEYS)

SWITCHES = (
    Switch(
        ("model", "gate"),
        *(True, False, "true"),
        idle=_model("gate_tau", "gate_question", "gate_confidence", "gate_targets"),
        also_off=(*_model("prune_share", "keep_threshold"), _RATE, _EVERY, _SKIPPING, *_losses("contribution")),
    ),
    Switch(
        ("model", "gate_targets"),
        *("templates", "items", "templates"),
        idle=_model("gate_tau", "gate_question", "gate_confidence"),
    ),
    Switch(_EVERY, 5, 0, "5", (), _losses("contribution")),
    Switch(("model", "mixer"), True, False, "true", (), _model("residual")),
    Switch(("model", "residual"), False, False, "true", _model("residual_start", "residual_end")),
    Switch(("model", "reliability"), True, False, "true", _model("reliability_kinds"), _losses("reliability")),
    Switch(FINDINGS, "tokens", "phrases", "tokens", (), _model("word_match")),
    Switch(FINDINGS, "tokens", "written", "tokens", (), _model("word_match")),
)

_OF_PHRASES = tuple(("regularisation", name) for name in PHRASE_KEYS)

OF_EVERY_STRATEGY = tuple(Switch(FINDINGS, "tokens", off, "phrases", _OF_PHRASES) for off in ("tokens", "written"))


class Idle(NamedTuple):
    """A key without effect, written where it says something: what is wrong, with both keys and places, and the hint."""

    said: str
    hint: str


def settle(recipe: Tree, before: Mapping[Trail, str]) -> list[Idle]:
    """Leave behind what has no effect, once a layer was laid over a recipe, and find what the layer itself writes so.

    Args:
        before: where everything was written below the layer; {} if there is nothing below.
    """
    own = SWITCHES if strategy_of(recipe) in (None, ASTREA) else ()
    found = []
    for switch in (*own, *OF_EVERY_STRATEGY):
        for key in list(switch.unread(recipe.data)):
            if recipe.origin(key) == before.get(key):
                recipe.forget(key)
                continue
            value = str(switch.value(recipe.data)).lower()
            where = f" ({recipe.origins[switch.key]})" if switch.key in recipe.origins else ""
            name, other = dotted(key), dotted(switch.key)
            said = f"{recipe.origin(key)}: {name!r} has no effect where {other!r} is {value}{where}"
            found.append(Idle(said, f"Remove {name}, or set {other}={switch.on}."))
    return found


def refuse_idle(found: list[Idle]) -> None:
    """Raises AstreaError if there are keys without effect."""
    if found:
        raise AstreaError("\n".join(one.said for one in found), " ".join(one.hint for one in found))


def without_unread(data: dict[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's plain data, every key written out, without keys that say nothing and would be refused when read.

    Args:
        usual: every key's default. Whatever differs from it stays, so that a recipe reads back as it is.
    """
    own = SWITCHES if value_at(data, ("model", "strategy")) == ASTREA else ()
    made = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    for switch in (*own, *OF_EVERY_STRATEGY):
        for key in switch.unread(data):
            if len(key) == 2 and value_at(data, key) == value_at(usual, key):
                made[str(key[0])].pop(key[1], None)
    return made


def value_at(data: Any, trail: Trail, missing: Any = None) -> Any:
    """What stands at a place of plain data, ``missing`` if nothing does."""
    for part in trail:
        if not isinstance(data, Mapping) or part not in data:
            return missing
        data = data[part]
    return data
