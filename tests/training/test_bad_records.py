"""Bad records in training data of one's own: each is told once, and a good one takes its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from astrea.common.errors import AstreaError
from astrea.recipes.recipe import Recipe
from astrea.training.context import TrainingContext
from astrea.training.distributed import Distributed
from listening import Said
from own_contexts import SEEING, data_of, fresh, fusing, learned
from own_files import Row, drawn, llava_row, save_pictures, write_jsonl

SCENES = 12
CAPTIONS = [{"id": f"c-{n}", "image": f"p/{n:05}.png", "caption": ["a red sun.", "a cat."]} for n in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures."""
    folder = tmp_path_factory.mktemp("own")
    save_pictures(drawn(SCENES), folder)
    return folder


@pytest.fixture(scope="module")
def built(make_run: Callable[..., Recipe]) -> Callable[..., Any]:
    """A recipe with changes, its fresh model and tokenizer."""

    def build(**changes: Any):
        run = make_run(**{"regularisation": {"contribution_every": 1}, "experts": SEEING, **changes})
        return run, *fresh(run)

    return build


def bad_rows(scenes: int) -> tuple[list[Any], int]:
    """Good rows with bad ones among them, and how many are bad."""
    good = [llava_row(f"good-{n}", [f"p/{n:05}.png"], [("is there a cat?", "no")]) for n in range(scenes)]
    bad: list[Any] = [
        llava_row("missing", ["p/none.png"], [("is there a cat?", "no")]),
        llava_row("outside", ["../secret.png"], [("is there a cat?", "no")]),
        llava_row("mute", ["p/00001.png"], [("is there a cat?", "  ")]),
        {"id": "marks", "image": "p/00001.png", "conversations": [{"from": "human", "value": "hm?"},
                                                                  {"from": "gpt", "value": "no"}]},
        llava_row("long", ["p/00001.png"], [("cat " * 600, "no")]),
        llava_row("shows", ["p/00001.png"], [("is there a cat?", "no <image>")]),
        "{broken",
        {"id": "alone", "conversations": [{"from": "gpt", "value": "yes"}]},
    ]  # fmt: skip
    return [row for pair in zip(good, [*bad, *[None] * scenes], strict=False) for row in pair if row], len(bad)


def test_bad_records_are_told_once_and_good_ones_take_their_places(folder, built):
    rows, bad = bad_rows(SCENES)
    path = write_jsonl(folder / "bad.jsonl", rows)
    said = Said()
    _, model, tokenizer = built()
    data = data_of([path], model, tokenizer, report=said)
    seen = [sample.record for epoch in range(3) for sample in data.draw(epoch * len(rows), len(rows), 0).content]
    data.draw(0, 2 * len(rows), 1, pairs=True)
    assert len(seen) == 3 * len(rows)
    assert {record.id for record in seen} == {f"good-{n}" for n in range(SCENES)}
    told = [line for line in said.lines if line.startswith("left out: ")]
    assert len(told) == len(said.lines) == bad
    words_of = {
        "missing": "does not exist",
        "outside": "'..' in its path",
        "mute": "empty",
        "marks": "0 <image> marks",
        "long": "tokens the limit of 512",
        "shows": "turn 2, the assistant's, shows a picture",
        "alone": "should be",
    }
    for line, words in words_of.items():
        number = next(n for n, row in enumerate(rows, 1) if isinstance(row, dict) and row["id"] == line)
        (found,) = [one for one in told if f"{path}:{number} {line}: " in one]
        assert words in found
    assert any(f"{path}:{rows.index('{broken') + 1} -: " in one for one in told)


def test_only_the_leader_tells(folder, built):
    rows, bad = bad_rows(SCENES)
    path = write_jsonl(folder / "bad.jsonl", rows)
    _, model, tokenizer = built()
    said = [Said(), Said()]
    drawn_names = []
    for rank in (0, 1):
        data = data_of([path], model, tokenizer, report=said[rank], ranks=Distributed(rank, 2))
        drawn_names.append(list(data.draw(0, len(rows), 0).names))
    assert [len(one.lines) for one in said] == [bad, 0]
    assert drawn_names[0] == drawn_names[1]


def test_a_captions_record_is_left_out_if_any_caption_is_too_long(folder, built):
    rows: list[Row] = [{**CAPTIONS[0], "caption": ["a cat.", "a cat and " * 300]}, *CAPTIONS[1:4]]
    path = write_jsonl(folder / "long.jsonl", rows)
    said = Said()
    _, model, tokenizer = built()
    data = data_of([path], model, tokenizer, report=said)
    assert all(sample.record.id != "c-0" for sample in data.draw(0, 8, 0).content)
    assert len(said.lines) == 1
    assert f"left out: {path}:1 c-0: of " in said.text
    assert "tokens the limit of 512 would cut an answer" in said.text


def test_broken_pixels_behind_a_good_header_end_the_run_with_the_place(folder, built):
    whole = (folder / "p/00003.png").read_bytes()
    (folder / "p/half.png").write_bytes(whole[: len(whole) // 2])
    rows = [llava_row(f"row-{n}", ["p/half.png" if n == 2 else f"p/{n:05}.png"], [("a cat?", "no")]) for n in range(4)]
    path = write_jsonl(folder / "pixels.jsonl", rows)
    run, model, tokenizer = built()
    data = data_of([path], model, tokenizer)
    ctx = TrainingContext(run, model, tokenizer, data)
    with pytest.raises(AstreaError, match=rf"{path}:3 row-2: picture 'p/half.png' is damaged"):
        learned(ctx, fusing(ctx), batch=4)


def test_no_good_record_at_all_is_an_error(folder, built):
    path = write_jsonl(folder / "none.jsonl", [llava_row(f"m-{n}", ["p/no.png"], [("a?", "b")]) for n in range(3)])
    _, model, tokenizer = built()
    data = data_of([path], model, tokenizer)
    with pytest.raises(AstreaError, match="holds no good record") as caught:
        data.draw(0, 2, 0)
    assert "astrea validate" in caught.value.hint


REFUSING = (
    "{% for message in messages %}{% if 'forbidden' in message['content']|string %}"
    "{{ raise_exception('not that word') }}{% endif %}{% endfor %}"
)


@pytest.fixture
def altered(built, monkeypatch) -> Callable[[Callable[[str], str]], Any]:
    """A model, and a tokenizer whose chat template is another one."""

    def alter(change: Callable[[str], str]):
        _, model, tokenizer = built()
        monkeypatch.setattr(tokenizer, "chat_template", change(tokenizer.chat_template))
        return model, tokenizer

    return alter


def test_what_the_template_refuses_is_left_out(folder, altered):
    rows = [llava_row(f"r-{n}", ["p/00000.png"], [("is there a cat?", "no")]) for n in range(3)]
    rows[1]["conversations"][0]["value"] += " forbidden"
    said = Said()
    model, tokenizer = altered(lambda template: REFUSING + template)
    data = data_of([write_jsonl(folder / "refused.jsonl", rows)], model, tokenizer, report=said)
    assert {sample.record.id for sample in data.draw(0, 9, 0).content} == {"r-0", "r-2"}
    assert len(said.lines) == 1
    assert "refused.jsonl:2 r-1: " in said.text
    assert "not that word" in said.text


def test_a_picture_that_the_template_does_not_show_is_a_fault(folder, altered):
    rows = [llava_row(f"r-{n}", ["p/00000.png"], [("is there a cat?", "no")]) for n in range(3)]
    rows[1]["conversations"][0]["value"] = "is there a cat?"
    rows[1]["conversations"].insert(0, {"from": "system", "value": "<image>one word."})
    said = Said()
    shows = "{% if part['type'] in ('image', 'image_url')"
    model, tokenizer = altered(lambda template: template.replace(shows, shows + " and message['role'] != 'system'"))
    data = data_of([write_jsonl(folder / "unseen.jsonl", rows)], model, tokenizer, report=said)
    assert {sample.record.id for sample in data.draw(0, 9, 0).content} == {"r-0", "r-2"}
    assert "unseen.jsonl:2 r-1: the chat template shows 0 of 1 pictures" in said.text
