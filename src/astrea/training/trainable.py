"""What learns in a stage and what is frozen, counted in parameters and buffers."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from astrea.model.modeling import AstreaForConditionalGeneration


def parts_of(model: AstreaForConditionalGeneration) -> dict[str, nn.Module]:
    """A model's parts by the names that messages give them."""
    alignment = model.alignment
    return {
        "experts": model.experts,
        **{f"adapter of {name}": alignment.adapters[name] for name in model.experts.names},
        "heads": nn.ModuleList([alignment.picture_head, alignment.text_head]),
        "fusion": model.fusion,
        "language model": model.language_model,
    }


def size(part: nn.Module, *, learning: bool = False) -> int:
    """How many parameters and buffers a part has, or (``learning``) how many parameters of it learn."""
    learns = sum(parameter.numel() for parameter in part.parameters() if parameter.requires_grad)
    if learning:
        return learns
    return sum(tensor.numel() for tensor in (*part.parameters(), *part.buffers()))


def describe_model(model: AstreaForConditionalGeneration) -> str:
    """How large a model and its parts are, in a line."""
    sizes = {name: size(part) for name, part in parts_of(model).items()}
    adapters = sum(count for name, count in sizes.items() if name.startswith("adapter of "))
    shown = {name: count for name, count in sizes.items() if not name.startswith("adapter of ")}
    shown = {"experts": shown.pop("experts"), "adapters": adapters, **shown}
    listed = ", ".join(f"{name} {short(count)}" for name, count in shown.items())
    return f"the model has {short(sum(sizes.values()))} parameters and buffers: {listed}"


def describe_trainable(model: AstreaForConditionalGeneration) -> str:
    """What of a model learns now, in a line; of a part that learns in part, how much of it."""
    parts = parts_of(model)
    learns: list[str] = []
    adapters = [part for name, part in parts.items() if name.startswith("adapter of ") and size(part, learning=True)]
    every = len(adapters) == len(model.experts.names) > 1
    if every:
        learns.append(f"all adapters {short(sum(size(part, learning=True) for part in adapters))}")
    for name, part in parts.items():
        own, whole = size(part, learning=True), size(part)
        if own and not (every and name.startswith("adapter of ")):
            learns.append(f"{name} {short(own)}" + (f" of {short(whole)}" if own < 0.99 * whole else ""))
    learning = sum(size(part, learning=True) for part in parts.values())
    rest = sum(size(part) for part in parts.values()) - learning
    return f"learns: {', '.join(learns) or 'nothing'}; frozen: the other {short(rest)}"


def short(count: int) -> str:
    """A count, such as 940, 12k, 4.1M or 1.5B."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.0f}{name}" if count >= 10 * unit else f"{count / unit:.1f}{name}"
    return str(count)


def train_only(parameters: Iterable[nn.Parameter], modules: Iterable[nn.Module]) -> None:
    """Of all parameters of some modules, let these and no others have gradients."""
    learns = {id(parameter) for parameter in parameters}
    for module in modules:
        for parameter in module.parameters():
            parameter.requires_grad_(id(parameter) in learns)
