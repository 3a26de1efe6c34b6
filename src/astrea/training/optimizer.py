"""AdamW for most parameters, orthogonalised momentum (Muon) for a language model's hidden matrices.

Letters: N matrices of one shape, R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from astrea.training.fsdp import full_tensor, is_sharded, local, shard_like

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration; as published with Muon (K. Jordan et al., 2024)."""

MOMENTUM = 0.95


class MuonAdamW(torch.optim.AdamW):
    """AdamW, except for groups marked ``muon``: those step along their momentum with all singular values made one.

    A rare direction of the gradient then moves the weights as far as a common one, which helps a small language model
    to discover look-ups that only few questions ask for (see the lab notes). The step is scaled to the size of an AdamW
    step, ``0.2 sqrt(max(R, C))`` (Moonlight, arXiv 2502.16982), so that one learning rate means the same for both.

    torch has a Muon too, one matrix at a time and in bfloat16, which many processors do slowly; here matrices of one
    shape go together, in their own type.

    Of sharded matrices each process keeps its part of the momentum; to orthogonalise they are gathered, and every
    process does all of them: the result is that of one process.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        everything = self.param_groups
        # AdamW's own step walks over self.param_groups: let it see only what is its own, and sharded parameters apart
        # from the others, for its many-at-once operations take no mixture.
        self.param_groups = [part for group in everything if not group.get("muon") for part in unmixed(group)]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = everything
        for group in everything:
            if group.get("muon"):
                self._muon(group)
        return loss

    def _muon(self, group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape.setdefault(parameter.shape, []).append((parameter, parameter.grad))
        for shape, found in by_shape.items():
            nesterov = []
            for parameter, gradient in found:
                state = self.state[parameter]
                if not state:
                    # AdamW's way of loading a state looks for the step everywhere.
                    state["step"] = torch.tensor(0.0)
                    state["momentum"] = torch.zeros_like(parameter)
                state["step"] += 1
                local(state["momentum"]).lerp_(local(gradient), 1 - MOMENTUM)
                nesterov.append(full_tensor(gradient).lerp(full_tensor(state["momentum"]), MOMENTUM))
            update_NRC = orthogonalise(torch.stack(nesterov))
            size = group["lr"] * 0.2 * max(shape) ** 0.5
            for (parameter, _), update in zip(found, update_NRC, strict=True):
                step = local(shard_like(update, parameter))
                local(parameter).mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-size)


def unmixed(group: dict[str, Any]) -> list[dict[str, Any]]:
    """A parameter group as it is, or as two: the whole parameters and the sharded ones."""
    parts = [[p for p in group["params"] if is_sharded(p) == kind] for kind in (False, True)]
    return [{**group, "params": part} for part in parts if part] if all(parts) else [group]


def is_hidden_matrix(language_model: PreTrainedModel, parameter: Tensor) -> bool:
    """Whether a parameter maps hidden states to hidden states: a matrix that is neither words nor output head."""
    ends = (language_model.get_input_embeddings(), language_model.get_output_embeddings())
    return parameter.ndim == 2 and all(end is None or parameter is not end.weight for end in ends)


def orthogonalise(matrices_NRC: Tensor, steps: int = 5) -> Tensor:
    """Nearly ``U V^T`` of every matrix ``U S V^T``: singular values end between about 0.7 and 1.2, zeros stay zero."""
    a, b, c = COEFFICIENTS
    tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x = matrices_NRC.transpose(1, 2) if tall else matrices_NRC
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    found: Tensor = x.transpose(1, 2) if tall else x
    return found
