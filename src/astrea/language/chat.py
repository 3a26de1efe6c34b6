"""Chat templates: any tokenizer's own one, read so that training, packing and asking write the same tokens.

Most text models' templates know nothing of pictures, some no system turn, some think aloud unless told not to. A
preface in front of the template settles that: it turns lists of parts into strings, with ``<image>`` where a picture is
shown, folds a system turn into the first user turn, and switches thinking off. What comes out is a template like any
other, which is saved with the processor. A template that needs no preface stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import get_json_schema

from astrea.common.errors import AstreaError
from astrea.language.template import Rendered, render_template, render_unfinished
from astrea.language.tokenizer import IMAGE

Message = Mapping[str, Any]
"""``{"role": ..., "content": ...}``; the content is a string with ``<image>`` marks, or a list of parts."""

PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\nAssistant:' }}"
    "{% else %}{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}{{ '\n' }}{% endif %}"
    "{% endfor %}"
)
"""For a tokenizer without a template: ``User: question``, a new line, ``Assistant: answer`` and the end token."""

NAME = "{#- What Astrea settles before the template itself. -#}"
NO_THINKING = "{%- set enable_thinking = enable_thinking if enable_thinking is defined else false -%}"
FLATTEN = (
    "{%- set astrea = namespace(messages=[], text='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['content'] is string -%}{%- set astrea.messages = astrea.messages + [message] -%}"
    "{%- else -%}{%- set astrea.text = '' -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] in ('image', 'image_url') -%}{%- set astrea.text = astrea.text + '<image>' -%}"
    "{%- elif part['type'] == 'text' -%}{%- set astrea.text = astrea.text + part['text'] -%}{%- endif -%}"
    "{%- endfor -%}"
    "{%- set astrea.messages = astrea.messages + [dict(message, content=astrea.text)] -%}{%- endif -%}"
    "{%- endfor -%}"
    "{%- set messages = astrea.messages -%}"
)
FOLD = (
    "{%- if messages and messages[0]['role'] == 'system' -%}"
    "{%- if messages[1:] and messages[1]['role'] == 'user' -%}"
    "{%- set messages = [dict(messages[1], content=messages[0]['content'] + '\n\n' + messages[1]['content'])]"
    " + messages[2:] -%}"
    "{%- else -%}{%- set messages = [dict(messages[0], role='user')] + messages[1:] -%}{%- endif -%}"
    "{%- endif -%}"
)
QUESTION, ANSWER, SYSTEM, AGAIN = "questionalpha", "answerbeta", "systemgamma", "questiondelta"
"""What templates are tried out with."""


def name_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """How error messages call a tokenizer's template."""
    return f"the chat template of {getattr(tokenizer, 'name_or_path', '') or type(tokenizer).__name__}"


def user(text: str, pictures: int = 1) -> dict[str, Any]:
    """A user's turn that shows pictures first."""
    return {"role": "user", "content": [*[{"type": "image"}] * pictures, {"type": "text", "text": text}]}


def assistant(text: str) -> dict[str, Any]:
    """An assistant's turn."""
    return {"role": "assistant", "content": text}


def with_parts(message: Message) -> dict[str, Any]:
    """The same message with its marks as parts, which templates may put elsewhere than the text."""
    content = message["content"]
    if not isinstance(content, str) or IMAGE not in content:
        return dict(message)
    parts: list[dict[str, str]] = []
    for number, piece in enumerate(content.split(IMAGE)):
        parts += [{"type": "image"}] if number else []
        parts += [{"type": "text", "text": piece}] if piece else []
    return {**message, "content": parts}


def render(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    messages: Sequence[Message],
    *,
    prompt: bool = False,
    **options: Any,
) -> str:
    """A conversation as text; ``prompt``: with the beginning of the answer that is to come; ``options``: as
    ``apply_chat_template`` of transformers has them, and further variables of the template.

    Raises:
        AstreaError: the template refuses the conversation, or does more than it may (see `astrea.language.template`).
    """
    return rendered(tokenizer, template, messages, prompt=prompt, **options).text


def rendered(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    messages: Sequence[Message],
    *,
    prompt: bool = False,
    **options: Any,
) -> Rendered:
    """`render`, and where the template marks what the assistant says. Raises as it does."""
    unfinished = options.pop("continue_final_message", False)
    tools = [tool if isinstance(tool, dict) else get_json_schema(tool) for tool in options.pop("tools", None) or ()]
    usual = {"tools": tools or None, "documents": None, "add_generation_prompt": prompt}
    write = render_unfinished if unfinished else render_template
    variables = {**usual, **tokenizer.special_tokens_map, **options}
    return write(template, messages, name=name_of(tokenizer), **variables)


def settled_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's template, with whatever preface it needs.

    Raises:
        AstreaError: no preface makes it usable.
    """
    template = plain_template(tokenizer) if tokenizer.chat_template is None else tokenizer.get_chat_template()
    preface = ""
    if "enable_thinking" in template and not template.startswith(NAME):
        preface += NO_THINKING
    if not _takes_parts(tokenizer, preface + template):
        preface += FLATTEN
        if not _takes_parts(tokenizer, preface + template):
            render(tokenizer, preface + template, [user(QUESTION), assistant(ANSWER)])  # says what it refuses
            raise AstreaError(
                f"{name_of(tokenizer)} does not write out what user and assistant say, in their order",
                "give the tokenizer a chat template that does, in tokenizer.chat_template",
            )
    if not _takes_system(tokenizer, preface + template):
        preface += FOLD if FLATTEN in preface else FLATTEN + FOLD
    return NAME + preface + template if preface else template


def plain_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """`PLAIN`, behind the beginning-of-text token where the tokenizer itself puts one.

    Raises:
        AstreaError: the tokenizer has no end token, so that an answer could not end.
    """
    if tokenizer.eos_token is None:
        raise AstreaError(
            f"the tokenizer {getattr(tokenizer, 'name_or_path', '')!r} has neither a chat template nor an end token",
            "set its eos_token",
        )
    first = tokenizer("a").input_ids[:1]
    begins = tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]
    return ("{{ bos_token }}" if begins else "") + PLAIN


def _takes_parts(tokenizer: PreTrainedTokenizerBase, template: str) -> bool:
    """Whether the template writes a picture as one mark, before the question, and the answer behind both."""
    try:
        text = render(tokenizer, template, [user(QUESTION), assistant(ANSWER)])
    except AstreaError:
        return False
    found = [text.find(piece) for piece in (IMAGE, QUESTION, ANSWER)]
    return min(found) >= 0 and found == sorted(found) and text.count(IMAGE) == 1


def _takes_system(tokenizer: PreTrainedTokenizerBase, template: str) -> bool:
    """Whether the template has a place for a system turn."""
    talk = [{"role": "system", "content": SYSTEM}, user(QUESTION), assistant(ANSWER)]
    try:
        text = render(tokenizer, template, talk)
    except AstreaError:
        return False
    return 0 <= text.find(SYSTEM) < text.find(QUESTION)
