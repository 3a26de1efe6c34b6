"""Chat templates are rendered as transformers renders them, and never beyond their bounds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.utils.chat_template_utils import render_jinja_template

import language_builders
from astrea import AstreaError
from astrea.language.chat import FLATTEN, FOLD, NO_THINKING, PLAIN
from astrea.language.template import MAX_TEMPLATE, Rendered, render_template, render_unfinished
from astrea.language.tokenizer import CHAT_TEMPLATE
from fuzz.templates import HOSTILE_TEMPLATES

TALK = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "  what is it? "}]},
    {"role": "assistant", "content": "a cup"},
    {"role": "user", "content": "and now?"},
]
FLAT = [m if isinstance(m["content"], str) else {**m, "content": "<image> what is it?"} for m in TALK]
TEMPLATES = {
    "own": CHAT_TEMPLATE,
    "plain": PLAIN,
    **{name: value for name, value in vars(language_builders).items() if isinstance(value, str) and "{%" in value},
    "everything": (
        "{%- macro say(m, times=1) -%}{{ m.role|upper }}: {{ m['content']|string|trim|replace('a', 'A') * times }}"
        "{%- endmacro -%}\n"
        "{% set ns = namespace(last=none, seen=[]) %}\n"
        "{% for m in messages if m.role != 'system' %}\n"
        "  {% if loop.first %}{{ bos_token }}{% elif loop.last and not add_generation_prompt %}END{% endif %}\n"
        "{% set ns.seen = ns.seen + [m.role ~ loop.index0] %}{% set ns.last = m %}{{ say(m) }}|"
        "{% if m.content is string and 'now' in m.content %}{{ m.content.split('now')[0].rstrip()[1:] }}"
        "{% else %}{% continue %}{% endif %}{% endfor %}"
        "{{ ns.seen|join(', ') }}{{ {'b': [1, 2.5, none, true], 'a': 'ü'}|tojson(indent=2) }}"
        "{{ messages|map(attribute='role')|unique|list|tojson }}"
        "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}"
        "{{ ns.last.get('nothing', 'default') }}{{ '{} of {}'.format(1, 'x') }}{{ 1 < 2 <= 2 }}{{ (7 % 4) ** 2 // 2 }}"
        "{{ missing is defined }}{{ missing }}{{ 'x'.join(['a', 'b']) }}"
        "{% for k, v in ns.last|items %}{{ k }}{% endfor %}"
        "{{ 'two\nlines'|indent(4) }}{{ ['b', 'a']|sort|first }}{{ messages[::-1][0].role }}"
        "{{ 'A' if messages else 'B' }}"
        "{% filter upper %}shout{% endfilter %}{{ tools is none }}"
    ),
}


def stock(template: str, talk: list[dict], prompt: bool) -> str | None:
    """What transformers writes; None if that is an error."""
    try:
        return render_jinja_template(
            [talk], chat_template=template, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>"
        )[0][0]
    except Exception:
        return None


def ours(template: str, talk: list[dict], prompt: bool = False) -> Rendered:
    more = {"tools": None, "documents": None, "bos_token": "<s>", "eos_token": "</s>"}
    return render_template(template, talk, name="chat_template.jinja", add_generation_prompt=prompt, **more)


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_written_is_what_transformers_writes(name):
    written = 0
    for preface in ("", NO_THINKING, FLATTEN, FLATTEN + FOLD):
        for talk in (TALK, FLAT, TALK[1:], FLAT[1:3], []):
            for prompt in (False, True):
                template = preface + TEMPLATES[name]
                wanted = stock(template, talk, prompt)
                if wanted is None:
                    with pytest.raises(AstreaError, match=r"chat_template\.jinja refuses a conversation"):
                        ours(template, talk, prompt)
                else:
                    written += 1
                    assert ours(template, talk, prompt).text == wanted
    assert written >= 10


@settings(max_examples=25, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=40)), min_size=1, max_size=5))
def test_whatever_is_said_is_written_as_transformers_writes_it(said):
    talk = [{"role": role, "content": text} for role, text in said]
    assert ours(CHAT_TEMPLATE, talk).text == stock(CHAT_TEMPLATE, talk, False)


@pytest.mark.parametrize("name", HOSTILE_TEMPLATES)
def test_a_hostile_template_is_an_error_that_names_the_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = {"type": "image", "image": Image.new("RGB", (2, 2))}
    with pytest.raises(AstreaError, match=r"^chat_template\.jinja") as caught:
        ours(HOSTILE_TEMPLATES[name], [{"role": "user", "content": [picture]}])
    assert caught.value.hint
    assert len(caught.value.message) < 400
    assert not list(tmp_path.iterdir())


def test_a_long_conversation_is_no_offence():
    talk = [{"role": ("user", "assistant")[i % 2], "content": "word " * 200} for i in range(200)]
    for template in (CHAT_TEMPLATE, FLATTEN + FOLD + language_builders.CHATML):
        assert ours(template, talk).text == stock(template, talk, False)


def test_a_template_may_be_as_long_as_it_may():
    assert ours("x" * MAX_TEMPLATE, TALK).text == "x" * MAX_TEMPLATE
    with pytest.raises(AstreaError, match="65,537 characters"):
        ours("x" * (MAX_TEMPLATE + 1), TALK)


def test_pictures_are_there_but_have_no_methods():
    template = "{% for part in messages[0].content %}{{ 'image' in part }}{{ part.image }}{% endfor %}"
    assert ours(template, [{"content": [{"image": Image.new("RGB", (2, 2))}]}]).text == "True<Image>"


def test_what_the_assistant_says_is_told():
    template = (
        "{% for m in messages %}[{% if m.role == 'assistant' %}{% generation %}{{ m.content }}.{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}]{% endfor %}"
    )
    talk = [{"role": role, "content": role} for role in ("user", "assistant", "user", "assistant")]
    text, said = ours(template, talk)
    assert [text[first:stop] for first, stop in said] == ["assistant.", "assistant."]


def test_a_message_that_goes_on_ends_where_it_ends():
    options = {"name": "t", "bos_token": "", "eos_token": "</s>", "tools": None, "add_generation_prompt": False}
    for content in ("a red", [{"type": "text", "text": "a red"}]):
        talk = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": content}]
        assert render_unfinished(CHAT_TEMPLATE, talk, **options).text == "<bos><user>what?<assistant>a red"
        assert talk[1]["content"] == content
    with pytest.raises(AstreaError, match="no text to go on from"):
        render_unfinished(CHAT_TEMPLATE, [{"role": "user", "content": [{"type": "image"}]}], **options)
    with pytest.raises(AstreaError, match="leaves out what the last message says"):
        render_unfinished("nothing", [{"role": "user", "content": "x"}], **options)
