"""Inside the block the language model computes otherwise, and says the same; outside nothing is left of it."""

from __future__ import annotations

import functools

import torch

from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe, Runtime
from astrea.training.acceleration import accelerated, repeated, with_compiler
from listening import Said


def test_only_the_language_model_computes_in_bfloat16(make_context):
    ctx = make_context()
    language, cpu = ctx.model.language_model, torch.device("cpu")
    ids = torch.tensor([[5, 6, 7]])
    before = language(ids).logits
    with accelerated(language, Runtime(), cpu):
        assert torch.equal(language(ids).logits, before)
    with accelerated(language, Runtime(precision="bf16"), cpu):
        low = language(ids).logits
        assert language.base_model.layers[0].mlp(before.new_ones(1, 32)).dtype == torch.float32
    assert 0 < (low.float() - before).abs().max() < 0.05 * before.abs().max()
    assert torch.equal(language(ids).logits, before)
    assert "forward" not in vars(language)


def test_compiled_blocks_say_the_same(make_context, monkeypatch):
    """Through both ways in, whatever the length; gradients too."""
    # Traced as ever, but not made into machine code, which takes a compiler and half a minute.
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    language = make_context().model.language_model.train()

    def said(length: int) -> list[torch.Tensor]:
        ids = torch.arange(3, 3 + 2 * length).view(2, length)
        language.zero_grad()
        answer = language(ids, use_cache=False).logits
        answer.square().mean().backward()
        with torch.no_grad():
            caption = language.base_model(ids, use_cache=False).last_hidden_state
        return [answer, caption, *(p.grad.clone() for p in language.parameters() if p.grad is not None)]

    lengths = (7, 9, 12)
    before = [said(length) for length in lengths]
    assert len(repeated(language)) == 2
    with accelerated(language, Runtime(compile=True), torch.device("cpu")):
        for length, expected in zip(lengths, before, strict=True):
            torch.testing.assert_close(said(length), expected)
        assert len(graphs) == 2  # with gradient and without; neither for each length nor for each block
    graphs.clear()
    torch.testing.assert_close(said(10), said(10))
    assert not graphs


def test_a_model_that_names_no_blocks_is_compiled_whole(make_context, monkeypatch):
    language = make_context().model.language_model
    monkeypatch.setattr(language, "_no_split_modules", None)
    with accelerated(language, Runtime(compile=True), torch.device("cpu")):
        assert language._compiled_call_impl is not None
        assert all(module._compiled_call_impl is None for module in language.modules() if module is not language)
    assert language._compiled_call_impl is None


def test_auto_compiles_where_a_compiler_works(monkeypatch):
    recipe, report = load_recipe(Recipe, "tiny", ["runtime.compile=auto"]), Said()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    assert with_compiler(recipe, torch.device("cpu"), report).runtime.compile is True
    assert not report.lines

    def broken(graph: torch.fx.GraphModule, _: object) -> object:
        raise RuntimeError("no C++ compiler\nand a long story")

    monkeypatch.undo()
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    assert with_compiler(recipe, torch.device("cpu"), report).runtime.compile is False
    (said,) = report.lines
    assert "nothing is compiled" in said
    chosen = load_recipe(Recipe, "tiny", ["runtime.compile=true"])
    assert with_compiler(chosen, torch.device("cpu"), report) is chosen
