"""Astrea as a model of lmms-eval (0.7): ``lmms-eval --model astrea --model_args pretrained=FOLDER --tasks ...``.

lmms-eval finds it through the entry point ``lmms_eval.models``. Pictures stand before the text of a request; requests
with video or sound are refused.

Letters: B rows, L length, V words.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from astrea.common.errors import AstreaError
from astrea.common.installation import install_command
from astrea.language.tokenizer import IMAGE

try:
    from lmms_eval.api.model import lmms
    from lmms_eval.models.registry_v2 import ModelManifest
except ImportError as error:  # also of an lmms-eval that is too old to have these
    raise AstreaError("astrea.lmms needs lmms-eval 0.7 or newer", install_command("lmms")) from error

LONGEST = 256
"""The most tokens of an answer whose task sets no ``max_new_tokens``."""


def manifest() -> ModelManifest:
    """What the entry point hands to lmms-eval."""
    return ModelManifest(model_id="astrea", simple_class_path="astrea.lmms.AstreaLmms")


class AstreaLmms(lmms):  # type: ignore[misc]
    """A model folder at work for lmms-eval, on one process.

    Args:
        pretrained: model folder, or "shipped" for the one that comes with the package.
        batch_size: rows at a time. device: such as "cpu" or "cuda:0"; None = the processor.
        trust_remote_code: whether the model may import the expert classes that it names.
        max_batch_size: given by lmms-eval and not used.

    Raises:
        AstreaError: the model cannot be loaded, several processes, or a bad batch size.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = "shipped",
        batch_size: int | str | None = 1,
        device: str | None = None,
        trust_remote_code: bool = False,
        max_batch_size: int | None = None,
    ) -> None:
        from astrea.model.loading import load_model

        super().__init__()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise AstreaError("astrea runs in one process under lmms-eval", "start it without accelerate launch")
        size = 1 if batch_size is None else batch_size
        if not str(size).isdecimal() or int(size) < 1:
            raise AstreaError(f"batch_size is {batch_size!r}", "give a whole number of at least 1")
        self.pretrained, self.batch_size = str(pretrained), int(size)
        self._model: Any
        self._model, self.processor = load_model(pretrained, trust_remote_code=trust_remote_code)
        self._model.to(device or "cpu")

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        found: torch.device = self._model.device
        return found

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """One answer for each request ``(text, options, doc_to_visual, doc_id, task, split)``, in their order."""
        rows = []
        for request in requests:
            text, options, doc_to_visual, doc_id, task, split = request.args
            rows.append((text, dict(options), self._pictures(doc_to_visual(self.task_dict[task][split][doc_id]))))
        answers = [""] * len(rows)
        kinds: dict[str, list[int]] = {}
        for number, (_, options, _) in enumerate(rows):
            kinds.setdefault(json.dumps(options, sort_keys=True, default=str), []).append(number)
        for numbers in kinds.values():
            for start in range(0, len(numbers), self.batch_size):
                part = numbers[start : start + self.batch_size]
                made = self._generate([rows[n][0] for n in part], [rows[n][2] for n in part], rows[part[0]][1])
                for number, answer in zip(part, made, strict=True):
                    answers[number] = answer
                    self.cache_hook.add_partial("generate_until", (rows[number][0], rows[number][1]), answer)
        return answers

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[tuple[str, ...]]:
        """The answers of all rounds of each request
        ``(text, options, doc_to_visual, doc_to_text, doc_id, task, split)``.

        After every round ``doc_to_text`` is given the answers so far and says what to ask next, or that it is over.
        """
        results = []
        for request in requests:
            text, options, doc_to_visual, doc_to_text, doc_id, task, split = request.args
            document = self.task_dict[task][split][doc_id]
            visuals, info, answers = doc_to_visual(document), None, []
            over, number = False, 0
            while not over:
                answers += self._generate([text], [self._pictures(visuals)], dict(options))
                number += 1
                visuals, text, over, answers, info = doc_to_text(
                    document, previous_output=list(answers), round_idx=number, previous_round_info=info
                )
                answers = list(answers)
            results.append(tuple(answers))
            self.cache_hook.add_partial("generate_until_multi_round", (request.args[0], dict(options)), results[-1])
        return results

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(log p(continuation | pictures, text) in nats, whether greedy decoding would give it) of each request
        ``(text, continuation or doc_to_target, doc_to_visual, doc_id, task, split)``, or ``("", continuation)``."""
        return [self._likelihood(*self._wanted(request.args)) for request in requests]

    def _wanted(self, args: Sequence[Any]) -> tuple[str, str, list[Image.Image]]:
        if len(args) == 2:
            return args[0], args[1], []
        text, target, doc_to_visual, doc_id, task, split = args
        document = self.task_dict[task][split][doc_id]
        continuation = target(document) if callable(target) else target
        return text, str(continuation), self._pictures(doc_to_visual(document))

    @staticmethod
    def _pictures(visuals: Any) -> list[Image.Image]:
        """The pictures of a document.

        Raises:
            AstreaError: there is something else among them.
        """
        found = [] if visuals is None else list(visuals) if isinstance(visuals, (list, tuple)) else [visuals]
        for one in found:
            if not isinstance(one, Image.Image):
                raise AstreaError(f"a document shows a {type(one).__name__}", "choose tasks of still pictures")
        return found

    def _inputs(self, texts: Sequence[str], pictures: Sequence[list[Image.Image]]) -> dict[str, Any]:
        """Left-padded prompts with the pictures first."""
        rows = []
        for text, shown in zip(texts, pictures, strict=True):
            words = {"type": "text", "text": text.replace(IMAGE, " ").strip()}
            content = [*({"type": "image"} for _ in shown), words]
            message: dict[str, Any] = {"role": "user", "content": content}
            rows.append(self.processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False))
        images = [list(shown) for shown in pictures] if any(pictures) else None
        return dict(self.processor(images=images, text=rows).to(self.device))

    @torch.inference_mode()
    def _generate(
        self, texts: Sequence[str], pictures: Sequence[list[Image.Image]], options: Mapping[str, Any]
    ) -> list[str]:
        inputs = self._inputs(texts, pictures)
        made = self._model.generate(**inputs, **generation_options(options))
        until = options.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        answers = self.processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [_before(answer, stops).strip() for answer in answers]

    @torch.inference_mode()
    def _likelihood(self, text: str, continuation: str, pictures: list[Image.Image]) -> tuple[float, bool]:
        tokenizer = self.processor.tokenizer
        answer = torch.tensor([tokenizer(continuation, add_special_tokens=False).input_ids], dtype=torch.long)
        if not answer.numel():
            return 0.0, True
        answer_1L = answer.to(self.device)
        if text.strip() or pictures:
            inputs = self._inputs([text], [pictures])
        else:
            start = torch.tensor([[tokenizer.bos_token_id]], device=self.device)
            inputs = {"input_ids": start, "attention_mask": torch.ones_like(start)}
        length = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], answer_1L], 1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(answer_1L)], 1)
        if "question_mask" in inputs:
            asked = inputs["question_mask"]
            inputs["question_mask"] = torch.cat([asked, torch.zeros_like(answer_1L, dtype=asked.dtype)], 1)
        logits_1LV = self._model(**inputs, use_cache=False).logits[:, length - 1 : -1].float()
        each = logits_1LV.log_softmax(-1).gather(-1, answer_1L.unsqueeze(-1))
        return float(each.sum()), bool((logits_1LV.argmax(-1) == answer_1L).all())


def generation_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """lmms-eval's options as those of ``generate``: greedy unless a temperature above 0 is asked for."""
    warm = float(options.get("temperature") or 0.0)
    sample = bool(options.get("do_sample", warm > 0)) and warm > 0
    chosen: dict[str, Any] = {
        "max_new_tokens": int(options.get("max_new_tokens") or LONGEST),
        "num_beams": int(options.get("num_beams") or 1),
        "do_sample": sample,
    }
    if sample:
        chosen |= {"temperature": warm, "top_p": float(options.get("top_p") or 1.0)}
    return chosen


def _before(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of the stop strings."""
    return text[: min([text.find(stop) for stop in stops if stop and stop in text], default=len(text))]
