"""Chat templates that somebody might send who means no good: each would loop, write, reckon or reach too far."""

from __future__ import annotations

NESTED = "{% set n = namespace(x=(1,), y=(1,)) %}{% for i in range(60) %}{% set n.x = (n.x, n.x) %}{% endfor %}"
"""A value whose text has 2 ** 60 numbers, and which takes no memory."""

LISTS = (
    "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}"
)
SIXTY = "{% for i in range(60) %}"
MANY = "{% for i in range(100000) %}"
END = "{% endfor %}"

HOSTILE_TEMPLATES: dict[str, str] = {
    "nested loops": MANY * 3 + END * 3,
    "loops that leave everything out": MANY + "{% for j in range(100000) if false %}" + END * 2,
    "a long text in a loop": MANY + "x" * 50_000 + END,
    "a macro twice in itself": "{% macro m(n) %}xxxxxxxx{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}"
    "{{ m(60) }}",
    "a macro in itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "calls in calls": "{% macro m() %}{{ caller() }}{% endmacro %}{% macro r(n) %}{% call m() %}"
    "{{ r(n-1) }}{{ r(n-1) }}{% endcall %}{% endmacro %}{{ r(50) }}",
    "a recursive loop": "{% for i in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "loops into a variable": "{% set x %}" + MANY + MANY + "aaaa" + END * 2 + "{% endset %}",
    "slice": "{{ [1]|slice(10**9)|list }}",
    "batch": "{{ [1]|batch(10**9, 0)|list }}",
    "indent by a billion": "{{ 'a\nb'|indent(10**9) }}",
    "indent again and again": "{{ ('a\n' * 10000)" + "|indent(60)" * 8 + " }}",
    "json indented by a billion": "{{ {'a': 1}|tojson(indent=10**9) }}",
    "json of long commas": "{{ ([1] * 10000)|tojson(separators=['a' * 10000, 'b' * 10000]) }}",
    "json of a nest": LISTS + END + "{{ n.x|tojson }}",
    "a text times a billion": "{{ 'a' * 10**9 }}",
    "a list times a billion": "{{ ([1] * 10**9)|length }}",
    "a text doubled": "{% set n = namespace(x='a') %}" + SIXTY + "{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
    "a text joined to itself": "{% set n = namespace(x='a') %}" + SIXTY + "{% set n.x = n.x ~ n.x %}{% endfor %}",
    "a power": "{{ 10 ** 10 ** 10 }}",
    "a number squared": "{% set n = namespace(x=10) %}" + SIXTY + "{% set n.x = n.x * n.x %}{% endfor %}{{ n.x }}",
    "a nest written": NESTED + "{{ n.x }}",
    "a nest compared": LISTS + END + "{{ n.x == n.y }}",
    "a nest as a key": NESTED + "{{ {n.x: 1} }}",
    "a nest looked up": NESTED + "{{ {}[n.x] }}{{ {}.get(n.x) }}",
    "a nest among unique ones": NESTED + "{{ [n.x]|map('default')|unique|list }}",
    "a nest sorted": NESTED + "{{ [n.x, n.x]|sort }}",
    "a nest as text": NESTED + "{{ (n.x|string)|length }}{{ n.x|title }}",
    "a nest behind a text": NESTED + "{{ (n.x ~ '')|length }}",
    "a nest formatted": NESTED + "{{ '{}'.format(n.x) }}",
    "a nest raised": NESTED + "{{ raise_exception(n.x) }}",
    "a nest not found": NESTED + "{{ [1].index(n.x) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "center": "{{ 'a'|center(10**10) }}",
    "replace": "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}",
    "replace nothing": "{{ ('a' * 100000).replace('', 'b' * 100000) }}",
    "join": "{{ ('b' * 100000).join('a' * 100000) }}",
    "lipsum": "{{ lipsum(n=10**9) }}",
    "a wide format": "{{ '%1000000000d' % 1 }}{{ '{:1000000000}'.format(1) }}",
    "a wide year": "{{ strftime_now('%999999999Y') }}",
    "expandtabs": "{{ '\t'.expandtabs(10**10) }}",
    "the length of a loop": (MANY + "{{ range(100000)|map('upper')|list|length }}" + END),
    "round to a billion": "{{ 1.5|round(10**9, 'ceil') }}",
    "brackets": "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "ifs": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "fors": "{% for i in [1] %}" * 30 + END * 30,
    "a template of a megabyte": "x" * (1 << 20),
    "a number of 5000 digits": "{{ " + "9" * 5000 + " }}",
    "long texts that begin alike": "{% set l = ['a' * 400000 ~ 'b'] * 100000 %}"
    + MANY
    + "{{ 'a' * 400001 in l }}"
    + END,
    "a needle": "{% set a = 'a' * 300000 %}" + MANY + "{% if 'b' in a %}{% endif %}" + END,
    "slices": "{% set a = 'a' * 300000 %}" + MANY + "{% set b = a[1:] %}" + END,
    "a range searched": MANY + "{{ 5.5 in range(100000) }}" + END,
    "the first of many": MANY + "{{ range(100000)|select('string')|first }}" + END,
    "the largest of many": MANY + "{{ range(100000)|max }}" + END,
    "a block in itself": "{% block a %}{{ self.a() }}{% endblock %}",
    "another file": "{% include '/etc/passwd' %}",
    "another file's macros": "{% import '/etc/passwd' as x %}",
    "Python's classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "Python's globals": "{{ range.__globals__ }}{{ raise_exception.__globals__['__builtins__'] }}",
    "the environment": "{{ self._TemplateReference__context.environment }}",
    "a namespace's inside": "{{ namespace(__init__=1) }}",
    "undefined": "{{ a.b.c }}",
    "no syntax": "{% for %}",
    "an unknown tag": "{% do messages.append(1) %}",
    "a message changed": "{{ messages.append(1) }}",
    "nothing but an exception": "{{ raise_exception('no') }}",
    "a division by nothing": "{{ 1 // 0 }}",
    "a method of a picture": "{{ messages[0].content[0].image.save('stolen.png') }}",
}
