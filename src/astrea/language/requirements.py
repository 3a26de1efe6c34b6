"""Whether a language model does what Astrea asks of it, found out by asking it: five tokens, three passes.

It must take word embeddings instead of ids, positions that repeat, and an attention mask with a value for every head,
query and key; and it must read nothing else. A model of another make (recurrent, with distances of its own counting,
without positions) would read the pictures wrongly without ever failing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import first_line
from astrea.language.attention import attention_mask, picture_blocks, position_ids
from astrea.language.windows import masks_for, windows_of

CHOOSE = "choose a decoder with ordinary attention, such as a Llama, Qwen3, Gemma, Mistral, Phi-3 or GPT-2"
NOISE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Share of the largest logit that rounding may move, by type; more for half precision."""


@torch.no_grad()
def check_language_model(model: PreTrainedModel, name: str) -> None:
    """Ask a language model to read a picture of two tokens and three words.

    Raises:
        AstreaError: it does not take what Astrea gives it, or reads tokens that it was told not to, or minds the order
            of a picture's tokens.
    """
    was_training = model.training
    model.eval()
    embeds_1LD = model.get_input_embeddings()(torch.arange(2, 7).unsqueeze(0))
    other_1LD = embeds_1LD[:, [1, 0, 2, 3, 4]]
    try:
        read = _read(model, embeds_1LD, hide_first=False)
        swapped = _read(model, other_1LD, hide_first=False)
        hidden = _read(model, embeds_1LD, hide_first=True)
        still = _read(model, torch.cat([embeds_1LD[:, 2:3], embeds_1LD[:, 1:]], 1), hide_first=True)
    except AstreaError:
        raise
    except Exception as error:  # a model of another make may fail in any way
        raise AstreaError(f"{name} cannot be a language model here: {first_line(error)}", CHOOSE) from error
    finally:
        model.train(was_training)
    if not bool(torch.isfinite(read).all()):
        raise AstreaError(f"{name} says NaN or infinity", "load it with dtype float32 or bfloat16")
    allowed = NOISE.get(embeds_1LD.dtype, 5e-2) * float(read.abs().max())
    if float((hidden - still).abs().max()) > allowed:
        raise AstreaError(f"{name} reads tokens that the attention mask hides", CHOOSE)
    if float((read - swapped).abs().max()) > allowed:
        raise AstreaError(f"{name} does not keep to the positions that it is given", CHOOSE)


def _read(model: PreTrainedModel, embeds_1LD: Tensor, *, hide_first: bool) -> Tensor:
    """Logits (V,) behind the last word; the first two tokens are one picture."""
    length = embeds_1LD.shape[1]
    is_image = torch.tensor([[True, True, False, False, False]])
    real = torch.ones(1, length, dtype=torch.bool)
    real[0, 0] = not hide_first
    positions = position_ids(is_image, real, None)
    heads = model.config.num_attention_heads
    match = torch.zeros(1, heads, length, length)
    mask = attention_mask(real, picture_blocks(is_image), None, None, match, queries=length, dtype=embeds_1LD.dtype)
    out = model(
        inputs_embeds=embeds_1LD,
        attention_mask=masks_for(mask, positions, windows_of(model.config)),
        position_ids=positions,
        use_cache=False,
    )
    found: Tensor = out.logits[0, -1].float()
    return found
