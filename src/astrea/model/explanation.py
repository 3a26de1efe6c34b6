"""Why an answer: the answer, how sure it is and what speaks against it, each expert's share and reading, and what
masking each expert does to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from astrea.confidence.estimator import ConfidenceEstimator, Verdict
from astrea.confidence.signals import Signs, refuses, reliable_experts, strangeness, unknown_share, unknown_words
from astrea.data.image_sources import read_image
from astrea.experts.protocol import ExpertFeatures, Reading

if TYPE_CHECKING:
    from astrea.model.modeling import AstreaForConditionalGeneration
    from astrea.model.processing import AstreaProcessor


@dataclass(frozen=True, slots=True)
class MaskingEffect:
    """What changes when one expert is taken away: the answer then given, and by how many nats the original answer
    becomes less likely (positive = the expert helped)."""

    answer: str
    nats_lost: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """An answer with its reasons.

    answer: what the model says; the best guess, where it is not ``answerable``.
    confidence: 0..1, how likely the answer is right, if ``calibrated``; otherwise its ``probability``.
    probability: of the answer's words under the model, 0..1. It says little about being right.
    calibrated: whether the model folder says what confidence was worth on validation data.
    answerable: False where "can't tell" is the better answer.
    doubts: what speaks against the answer, the weightiest first: words that the model does not know, a picture unlike
        those of training, experts that contradict the others.
    """

    answer: str
    confidence: float
    shares: dict[str, float]
    readings: dict[str, Reading]
    masking: dict[str, MaskingEffect]
    probability: float = float("nan")
    calibrated: bool = False
    answerable: bool = True
    doubts: tuple[str, ...] = ()


@torch.inference_mode()
def explain(
    model: AstreaForConditionalGeneration,
    processor: AstreaProcessor,
    image: Image.Image | str | Path | bytes,
    question: str,
    *,
    longest: int = 56,
    masking: bool = True,
) -> Explanation:
    """Answer a question about a picture and say why.

    Args:
        longest: most tokens of the answer. masking: also answer once without each expert (one batch).

    Raises:
        AstreaError: an unreadable picture, an empty or overlong question.
    """
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    picture = read_image(image)
    inputs = processor(images=[picture], text=[text]).to(model.device)
    names = model.experts.names
    rows = 1 + (len(names) if masking else 0)
    originals = inputs.get("original_images")
    one = model.encode_images(inputs["pixel_values"], originals)
    features = {name: part.rows(torch.zeros(rows, dtype=torch.long)) for name, part in one.items()}
    present = torch.cat([torch.ones(1, len(names)), 1 - torch.eye(len(names))])[:rows].bool().to(model.device)
    prompt = {key: inputs[key].expand(rows, -1) for key in ("input_ids", "attention_mask", "question_mask")}
    shares = model.shares(**prompt, features=features, present=present)[0]
    made = model.generate(  # type: ignore[misc]
        **prompt, features=features, present=present, max_new_tokens=longest, do_sample=False
    )
    answer_ids = made[:, prompt["input_ids"].shape[1] :]
    answers = [a.strip() for a in processor.batch_decode(answer_ids, skip_special_tokens=True)]
    likelihood = answer_likelihood(model, prompt, features, present, up_to_end(answer_ids[0], model))
    effects = {
        name: MaskingEffect(answers[1 + i], float(likelihood[0] - likelihood[1 + i]))
        for i, name in enumerate(names if masking else [])
    }
    readings = model.experts.readings(inputs["pixel_values"], originals, [picture.size])[0]
    verdict = verdict_on(model, processor, question, answers[0], likelihood[:1], one)
    probability = float(likelihood[0].exp())
    return Explanation(
        answers[0],
        probability if verdict.confidence is None else verdict.confidence,
        dict(zip(names, shares.tolist(), strict=True)),
        readings,
        effects,
        probability,
        verdict.confidence is not None,
        verdict.answerable,
        verdict.doubts,
    )


def verdict_on(
    model: AstreaForConditionalGeneration,
    processor: AstreaProcessor,
    question: str,
    answer: str,
    likelihood_1: Tensor,
    features: dict[str, ExpertFeatures],
) -> Verdict:
    """How far one answer is to be believed, by what the model folder says about doubt; without it, by unknown words and
    refusals alone.

    Args:
        features: of the one picture.
    """
    estimator = model.confidence_estimator or ConfidenceEstimator({})
    present = torch.ones(1, len(model.experts.names), dtype=torch.bool, device=model.device)
    signs = Signs(
        torch.tensor([refuses(answer)]),
        likelihood_1.cpu(),
        strangeness(estimator.familiar, features),
        reliable_experts(model, features, present).cpu(),
        torch.tensor([unknown_share(question, processor.tokenizer)]),
    )
    return estimator.judge(signs, [unknown_words(question, processor.tokenizer)], model.experts.names)[0]


def up_to_end(answer_L: Tensor, model: AstreaForConditionalGeneration) -> list[int]:
    """The tokens of an answer and the one that ended it, without the padding behind a row that was done early.

    What ends an answer is the model's to say: a chat template often has a mark of its own beside the end of a text.
    """
    ends = model.generation_config.eos_token_id
    known = {ends} if isinstance(ends, int) else set(ends or ())
    ids = answer_L.tolist()
    return ids[: next((place + 1 for place, token in enumerate(ids) if token in known), len(ids))]


def answer_likelihood(
    model: AstreaForConditionalGeneration,
    prompt: dict[str, Tensor],
    features: dict[str, ExpertFeatures],
    present: Tensor,
    answer: list[int],
) -> Tensor:
    """log p(answer | picture, question) in nats, for every row of the prompt."""
    rows, length = prompt["input_ids"].shape
    answer_ids = torch.tensor(answer, device=model.device).expand(rows, -1)
    logits = model(
        input_ids=torch.cat([prompt["input_ids"], answer_ids], 1),
        attention_mask=torch.cat([prompt["attention_mask"], torch.ones_like(answer_ids)], 1),
        question_mask=torch.cat([prompt["question_mask"], torch.zeros_like(answer_ids, dtype=torch.bool)], 1),
        features=features,
        present=present,
        use_cache=False,
    ).logits[:, length - 1 : -1]
    # In half precision a sum of nats would be as coarse as a nat.
    return -F.cross_entropy(logits.float().transpose(1, 2), answer_ids, reduction="none").sum(1)
