"""Chat templates of others, rendered within bounds.

A chat template is a program (in Jinja) that comes with a model, so anybody may have written it. Jinja's sandbox keeps
it from reaching anything outside; here it is also kept from taking for ever and from filling the memory. Whatever a
template does costs work: one for every step, and one for every character or element that it writes, copies or
compares. Work is counted *before* it is done, and a rendering that would need more than it may is an error. What has
no known cost (most filters, methods of foreign objects, blocks and includes) is not there.

Differences to what transformers renders: none, for templates that stay within this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from jinja2 import Template, nodes, pass_context
from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import first_line
from astrea.language import template_work as work
from astrea.language.template_filters import FILTERS, METHODS, TESTS

MAX_TEMPLATE = 1 << 16
"""Characters of a template. The longest in use have about 20,000."""

WORK, WORK_PER_CHARACTER = 1 << 21, 32
"""What one rendering may cost: this, and so much for every character of the conversation."""

REFUSED = (nodes.Block, nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport, nodes.ScopedEvalContextModifier)
HINT = "begin with the user (or one system turn), then let assistant and user take turns"

UNFINISHED = "zq-goes-on-here-qz"
"""Stands at the end of a message that is to be continued while a template is rendered."""

Span = tuple[int, int]


class Rendered(NamedTuple):
    """A conversation as text. said: which characters lie between ``{% generation %}`` and ``{% endgeneration %}``."""

    text: str
    said: list[Span]


_spans: ContextVar[tuple[list[str], list[Span]]] = ContextVar("spans")


def render_template(
    template: str, conversation: Iterable[Mapping[str, Any]], *, name: str, **variables: Any
) -> Rendered:
    """A conversation as text.

    Args:
        name: how error messages call the template.
        variables: what else the template may read, such as ``add_generation_prompt`` and ``eos_token``.

    Raises:
        AstreaError: the template is none, refuses the conversation, or does more than it may.
    """
    messages = plain(list(conversation))
    values = plain(variables)
    allowed = WORK + WORK_PER_CHARACTER * (_characters(messages) + _characters(values))
    parts: list[str] = []
    spans: list[Span] = []
    reset_token = _spans.set((parts, spans))
    try:
        with work.allowed(allowed):
            for part in _compiled(template).generate(messages=messages, **values):
                parts.append(part)
    except work.TooMuch as error:
        raise AstreaError(f"{name}: {error}", "use another chat template, or shorter conversations") from None
    except (RecursionError, MemoryError):
        raise AstreaError(f"{name} is nested too deeply", "use another chat template") from None
    except Exception as error:  # a program of somebody else's may raise any type
        raise AstreaError(f"{name} refuses a conversation: {first_line(error)}", HINT) from error
    finally:
        _spans.reset(reset_token)
    return Rendered("".join(parts), spans)


def render_unfinished(
    template: str, conversation: Iterable[Mapping[str, Any]], *, name: str, **variables: Any
) -> Rendered:
    """The same without what the template writes behind the last message, so that it can go on.

    Raises:
        AstreaError: as `render_template`; or there is no text to go on from, or the template leaves it out.
    """
    messages = plain(list(conversation))
    last = messages[-1] if messages else {}
    parts = last["content"] if isinstance(last.get("content"), list) else [last]
    ends = [(part, key) for part in parts for key in ("content", "text") if isinstance(part.get(key), str)]
    if not ends:
        raise AstreaError("the last message has no text to go on from", "end with a message that says something")
    part, key = ends[-1]
    part[key] += UNFINISHED
    text, said = render_template(template, messages, name=name, **variables)
    stop = text.rfind(UNFINISHED)
    if stop < 0:
        raise AstreaError(f"{name} leaves out what the last message says", "use another chat template")
    return Rendered(text[:stop], [(first, min(end, stop)) for first, end in said if first < stop])


def plain(value: Any) -> Any:
    """The same out of strings, numbers, lists and dicts alone, so that a template is handed no methods but theirs.
    Anything else (pictures, tensors) becomes the name of its type: templates ask only whether it is there."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else [plain(inner) for inner in value]
    return f"<{type(value).__name__}>"


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_characters(key) + _characters(inner) for key, inner in value.items())
    return sum(map(_characters, value)) if isinstance(value, list | tuple) else 1


@lru_cache(maxsize=32)
def _compiled(template: str) -> Template:
    if len(template) > MAX_TEMPLATE:
        raise work.TooMuch(f"it has {len(template):,} characters; at most {MAX_TEMPLATE:,} are read")
    return _environment().from_string(template)


@lru_cache(maxsize=1)
def _environment() -> BoundedEnvironment:
    return BoundedEnvironment(
        trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[Generation, loopcontrols], finalize=_written
    )


class _Direct(CodeGenerator):
    """Calls what `_Counting` puts in without asking whether a template may call it."""

    def visit_Call(self, node: nodes.Call, frame: Any, forward_caller: bool = False) -> None:
        if not isinstance(node.node, nodes.EnvironmentAttribute):
            super().visit_Call(node, frame, forward_caller=forward_caller)
            return
        self.visit(node.node, frame)
        self.write("(")
        for argument in node.args:
            self.visit(argument, frame)
            self.write(", ")
        self.write(")")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox in which everything costs work (see above)."""

    code_generator_class = _Direct
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.filters = dict(FILTERS)
        self.tests = dict(TESTS)
        self.globals = {
            "range": self.globals["range"],
            "dict": _dict,
            "namespace": _Names,
            "raise_exception": _refuse,
            "strftime_now": _now,
        }

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        for node in source.find_all(REFUSED):
            raise SecurityError(f"chat templates have no {type(node).__name__.lower()}")
        return super()._generate(_Counting(self).visit(source), *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        work.before_operator(operator, left, right)
        return work.number(super().call_binop(context, operator, left, right))

    def call(self, context: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
        """What a template may call: its macros, a few functions, and methods of texts, lists and dicts."""
        work.spend(4)
        owner, name = getattr(target, "__self__", None), getattr(target, "__name__", "")
        if (method := METHODS.get((type(owner), name))) is not None:
            return method(owner, *args, **_given(kwargs))
        if any(target is known for known in self.globals.values()):
            return target(*args, **_given(kwargs))
        loops = isinstance(owner, LoopContext) and name == "cycle"
        # Calling what is undefined says so.
        if loops or isinstance(target, Macro | LoopContext | Undefined) or isinstance(owner, Generation):
            return super().call(context, target, *args, **kwargs)
        raise SecurityError(f"chat templates may not call {name or type(target).__name__}()")

    def wrap_str_format(self, value: Any) -> None:
        """Nothing needs Jinja's own care: `call` knows ``format`` as every other method."""

    def getitem(self, obj: Any, argument: Any) -> Any:
        work.spend(1)
        return super().getitem(obj, work.key(argument))

    # What `_Counting` puts into a template.

    def _spend(self, amount: int) -> bool:
        work.spend(amount)
        return True

    def _compare(self, first: Any, *rest: Any) -> bool:
        """``first op value op value ...``"""
        for operator, value in zip(rest[::2], rest[1::2], strict=True):
            if not work.compare(operator, first, value):
                return False
            first = value
        return True

    def _concat(self, *values: Any) -> str:
        for value in values:
            work.spend_whole(value)
        return "".join(map(str, values))

    def _slice(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        work.spend_elements(value)
        return value[slice(start, stop, step)]

    def _key(self, value: Any) -> Any:
        return work.key(value)


class _Counting(NodeTransformer):
    """Puts the cost of things into a parsed template: Jinja itself asks nobody before it loops, compares or joins."""

    def __init__(self, environment: BoundedEnvironment) -> None:
        self.environment = environment

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        node = super().generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.For):
            node.body = [self._cost(node), *node.body]
            if node.test is not None:
                node.test = nodes.And(self._call("_spend", [nodes.Const(1)], node), node.test, lineno=node.lineno)
        elif isinstance(node, nodes.Macro | nodes.CallBlock):
            node.body = [self._cost(node), *node.body]
        elif isinstance(node, nodes.Concat):
            return self._call("_concat", node.nodes, node)
        elif isinstance(node, nodes.Compare):
            operands = [part for operand in node.ops for part in (nodes.Const(operand.op), operand.expr)]
            return self._call("_compare", [node.expr, *operands], node)
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            parts = [part or nodes.Const(None) for part in (node.arg.start, node.arg.stop, node.arg.step)]
            return self._call("_slice", [node.node, *parts], node)
        elif isinstance(node, nodes.Pair) and not isinstance(node.key, nodes.Const):
            node.key = self._call("_key", [node.key], node)
        return node

    def _cost(self, node: Any) -> nodes.Node:
        """What one run through a body costs beside what its expressions do: its own text."""
        text = sum(len(data.data) for part in node.body for data in _of_type(part, nodes.TemplateData))
        spent = self._call("_spend", [nodes.Const(1 + text)], node)
        return nodes.ExprStmt(spent, lineno=node.lineno, environment=self.environment)

    def _call(self, name: str, arguments: list[Any], node: Any) -> nodes.Call:
        place = {"lineno": node.lineno, "environment": self.environment}
        return nodes.Call(nodes.EnvironmentAttribute(name, **place), arguments, [], None, None, **place)


def _of_type(node: nodes.Node, kind: type[nodes.Node]) -> Iterator[Any]:
    if isinstance(node, kind):
        yield node
    yield from node.find_all(kind)


def _given(named: dict[str, Any]) -> dict[str, Any]:
    """Without what Jinja adds to every call inside a loop."""
    return {key: value for key, value in named.items() if key not in ("_loop_vars", "_block_vars")}


class Generation(Extension):
    """``{% generation %}``: marks what the assistant said, as transformers has it."""

    tags = {"generation"}

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Macro) -> str:
        parts, spans = _spans.get()
        text = str(caller())
        start = sum(map(len, parts))
        work.spend(len(parts))
        spans.append((start, start + len(text)))
        return text


class _Names(Namespace):
    """``namespace(...)``; names with an underscore in front are Python's own."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        given = _dict(*rest, **kwargs)
        for name in given:
            _Names._check(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _Names._check(name)
        super().__setitem__(name, value)

    @staticmethod
    def _check(name: Any) -> None:
        if not isinstance(name, str) or name.startswith("_"):
            raise SecurityError(f"chat templates cannot store {name!r:.80} in a namespace")


@pass_context
def _written(context: Any, value: Any) -> Any:
    """What ``{{ value }}`` costs."""
    work.spend_whole(value)
    return value


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    if any(not isinstance(given, Mapping) for given in args):
        raise TypeError("dict() takes a dict here, or named values")
    work.spend(sum(map(len, args)) + len(kwargs))
    return dict(*args, **kwargs)


def _refuse(message: Any) -> None:
    work.spend_whole(message)
    raise TemplateError(str(message))


def _now(format: str) -> str:
    # A width, as in %9999d, would pad as far as it says.
    if len(format) > 64 or not re.fullmatch(r"([^%]|%[-a-zA-Z%])*", format):
        raise SecurityError(f"chat templates may not format the time as {format!r:.80}")
    return datetime.now().strftime(format)
