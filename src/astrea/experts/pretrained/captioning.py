"""Captioning from checkpoints: the sentence of BLIP, GIT or Florence-2, one token per piece of a word.

The words' file (a ``tokenizer.json``) lies with the weights as a buffer of bytes: it belongs to them, can be megabytes
long, and so is checked and saved like any other tensor.

Letters: B batch, T pieces, V vocabulary, L length of the prompt, N picture tokens, H hidden width, S side of the
picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin

from astrea.common.architecture import Network
from astrea.common.errors import AstreaError
from astrea.experts.pretrained.base import CheckpointExpert
from astrea.experts.pretrained.options import CaptionOptions
from astrea.experts.pretrained.slots import even, rank_labels, word_scores
from astrea.experts.protocol import ExpertFeatures, Reading, in_order, ranks


@dataclass(frozen=True, slots=True)
class Family:
    """How an architecture is asked for a sentence, and where its decoder's width is written.

    generate: network, pictures, prompt (B, L) and generation settings -> what ``generate`` of transformers returns.
    """

    generate: Callable[[Any, Tensor, Tensor, GenerationConfig], Any]
    hidden: Callable[[Any], int]


def blip(model: Any, pixels: Tensor, prompt_BL: Tensor, settings: GenerationConfig) -> Any:
    """What BLIP's decoder writes on from the prompt."""
    # What its own `generate` does, which would set the end marks beside ``settings``.
    picture_BNH = model.vision_model(pixel_values=pixels).last_hidden_state
    return model.text_decoder.generate(
        input_ids=prompt_BL,
        attention_mask=torch.ones_like(prompt_BL),
        encoder_hidden_states=picture_BNH,
        encoder_attention_mask=prompt_BL.new_ones(picture_BNH.shape[:2]),
        generation_config=settings,
    )


def git(model: Any, pixels: Tensor, prompt_BL: Tensor, settings: GenerationConfig) -> Any:
    """What GIT writes on from the prompt."""
    return model.generate(
        pixel_values=pixels,
        input_ids=prompt_BL,
        attention_mask=torch.ones_like(prompt_BL),
        generation_config=settings,
    )


def florence2(model: Any, pixels: Tensor, prompt_BL: Tensor, settings: GenerationConfig) -> Any:
    """What Florence-2 answers to the prompt."""
    # The picture's tokens and the question are one text to the encoder; its own `generate` wants them as ids.
    picture_BNH = model.get_image_features(pixels).pooler_output
    asked_BLH = torch.cat([picture_BNH, model.get_input_embeddings()(prompt_BL)], 1)
    mask_BL = prompt_BL.new_ones(asked_BLH.shape[:2])
    read = model.get_encoder()(inputs_embeds=asked_BLH, attention_mask=mask_BL)
    return model.generate(encoder_outputs=read, attention_mask=mask_BL, generation_config=settings)


FAMILIES: Mapping[str, Family] = {
    "blip": Family(blip, lambda config: config.text_config.hidden_size),
    "git": Family(git, lambda config: config.hidden_size),
    "florence2": Family(florence2, lambda config: config.text_config.hidden_size),
}


class CaptionCheckpoint(CheckpointExpert):
    """Up to ``tokens`` pieces of the likeliest sentence, greedily: rank, probability, decoder state."""

    kind = "captioning"
    accepts = CaptionOptions
    settings: CaptionOptions
    networks: ClassVar[Mapping[str, Network]] = {
        "blip": Network("BlipForConditionalGeneration", fixed=True),
        "git": Network("GitForCausalLM", fixed=True),
        "florence2": Network("Florence2ForConditionalGeneration", step=32),
    }

    vocabulary: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        config: Any = self.model.config
        self.family = FAMILIES[config.model_type]
        for part in self.model.modules():
            if isinstance(part, GenerationMixin):
                part.generation_config = GenerationConfig()  # what is left out of ours must not come from elsewhere
        if not self.settings.prompt_ids:
            raise AstreaError("the captioner has no prompt", "let the recipe name the checkpoint")
        tokens, hidden = self.settings.tokens, self.family.hidden(config)
        self.register_buffer("vocabulary", torch.zeros(self.settings.vocabulary_bytes, dtype=torch.uint8))
        labels = (*rank_labels(tokens), "sure", self.kind, *([None] * hidden))
        # Pieces of its own vocabulary, which are no words of the language model's: their states are read.
        self.describe_tokens(tokens, labels, {"feature": (len(labels) - hidden, len(labels))}, ("{feature}",))

    def generation(self) -> GenerationConfig:
        """Greedy, with everything spelled out that the checkpoint's own settings might say otherwise."""
        chosen = self.settings
        # The forced token is no word: it takes a step of its own.
        steps = chosen.tokens + (chosen.forced_id is not None)
        return GenerationConfig(
            max_new_tokens=steps,
            min_new_tokens=0,
            do_sample=False,
            num_beams=1,
            no_repeat_ngram_size=chosen.no_repeat,
            repetition_penalty=1.0,
            decoder_start_token_id=chosen.start_id,
            forced_bos_token_id=chosen.forced_id,
            forced_eos_token_id=None,
            eos_token_id=list(chosen.end_ids) or None,
            pad_token_id=chosen.end_ids[0] if chosen.end_ids else 0,
            return_dict_in_generate=True,
            output_scores=True,
            output_hidden_states=True,
        )

    def generate(self, pixels_B3SS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pieces (B, T), their probabilities (B, T; 0 after the sentence) and decoder states (B, T, H)."""
        pixels = self.inputs(pixels_B3SS)
        prompt_L = torch.tensor(self.settings.prompt_ids, device=pixels.device)
        out = self.family.generate(self.model, pixels, prompt_L.repeat(len(pixels), 1), self.generation())
        states = out.get("decoder_hidden_states") or out.hidden_states
        state_BTH = torch.stack([step[-1][:, -1] for step in states], 1).float()
        piece_BT = out.sequences[:, -len(out.scores) :]
        chance_BT = torch.stack(
            [
                score_BV.float().softmax(-1).gather(1, piece_B1).squeeze(1)
                for score_BV, piece_B1 in zip(out.scores, piece_BT.split(1, 1), strict=True)
            ],
            1,
        )
        ended_BT = torch.isin(piece_BT, piece_BT.new_tensor(self.settings.end_ids)).long().cumsum(1) > 0
        forced_BT = torch.zeros_like(ended_BT)
        if self.settings.forced_id is not None:
            forced_BT[:, 0] = True
        sure_BT = chance_BT.masked_fill(ended_BT | forced_BT, 0)
        order_BT = (sure_BT == 0).long().argsort(dim=1, stable=True)
        short = max(0, self.num_tokens - piece_BT.shape[1])
        piece_BT, sure_BT, state_BTH = (in_order(v, order_BT) for v in (piece_BT, sure_BT, state_BTH))
        return (
            F.pad(piece_BT, (0, short))[:, : self.num_tokens],
            F.pad(sure_BT, (0, short))[:, : self.num_tokens],
            F.pad(state_BTH, (0, 0, 0, short))[:, : self.num_tokens],
        )

    def forward(self, pixels_B3HW: Tensor) -> ExpertFeatures:
        _, sure_BT, state_BTH = self.generate(pixels_B3HW)
        filled_BT1 = (sure_BT > 0).float().unsqueeze(-1)
        named = torch.cat([ranks(sure_BT), sure_BT.unsqueeze(-1), filled_BT1], -1)
        return ExpertFeatures(torch.cat([named, even(state_BTH) * filled_BT1], -1), sure_BT)

    def words(self) -> Tokenizer:
        """The checkpoint's own tokenizer, for reading what it wrote.

        Raises:
            AstreaError: the bytes kept with the weights are no tokenizer.
        """
        try:
            return Tokenizer.from_str(bytes(self.vocabulary.tolist()).decode("utf-8"))
        except Exception as error:  # tokenizers raises plain exceptions
            raise AstreaError(
                f"the captioner's words cannot be read: {error}", "copy or download the model folder again"
            ) from error

    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        piece_BT, sure_BT, _ = self.generate(pixels_B3HW)
        words = self.words()
        found = []
        for pieces, sure in zip(piece_BT.tolist(), sure_BT.tolist(), strict=True):
            count = sum(score > 0 for score in sure)
            prefixes = [words.decode(pieces[: end + 1], skip_special_tokens=True) for end in range(count)]
            caption = " ".join(prefixes[-1].split()) if prefixes else ""
            labels, scores = caption.split(), word_scores(prefixes, sure[:count])
            found.append(
                Reading(self.kind, labels=labels, scores=scores if len(scores) == len(labels) else [], caption=caption)
            )
        return found
