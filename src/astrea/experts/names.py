"""What an expert may be called."""

from __future__ import annotations

import re

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
# As `dir(nn.ModuleDict())` has them with what transformers adds, written out so that reading a recipe imports no torch.
TAKEN = frozenset({
    "T_destination", "add_module", "apply", "bfloat16", "buffers", "call_super_init", "children", "clear", "compile",
    "cpu", "cuda", "double", "dump_patches", "eval", "extra_repr", "float", "forward", "get_buffer", "get_extra_state",
    "get_parameter", "get_submodule", "half", "ipu", "items", "keys", "load_state_dict", "modules", "mtia",
    "named_buffers", "named_children", "named_modules", "named_parameters", "parameters", "pop",
    "register_backward_hook", "register_buffer", "register_forward_hook", "register_forward_pre_hook",
    "register_full_backward_hook", "register_full_backward_pre_hook", "register_load_state_dict_post_hook",
    "register_load_state_dict_pre_hook", "register_module", "register_parameter", "register_state_dict_post_hook",
    "register_state_dict_pre_hook", "requires_grad_", "set_extra_state", "set_submodule", "share_memory", "smart_apply",
    "state_dict", "to", "to_empty", "train", "training", "type", "update", "values", "xpu", "zero_grad", "joint",
})  # fmt: skip
"""Names that torch's modules use for themselves, and the phase of alignment in which all experts learn together."""


def wrong_with(name: str) -> str | None:
    """Why no expert can have this name, in words; None if one can. It becomes part of the names of tensors and of
    recipes' keys, both of which put dots between their parts."""
    if not NAME.fullmatch(name):
        return f"{name[:80]!r} is no name for an expert: use a letter first, then letters, digits, _ or -, 64 at most"
    if name in TAKEN:
        return (
            f"{name!r} is no name for an expert, as torch or a stage is called so: use another, such as {name}_expert"
        )
    return None
