"""Tokenise captions as the COCO caption scorers do: Penn-Treebank tokens, lower-cased, punctuation removed.

The published CIDEr-D, BLEU and ROUGE-L figures are counted on the tokens of one particular Java program. This is an
independent tokeniser that was written by watching what that program puts out for given captions; none of its source
was read. What it was held to is in ``tests/fixtures/metrics``.

At each position every rule below is tried and the longest match wins (the earlier rule on a tie). A rule may give
several tokens: ``don't`` gives ``do n't``, ``cannot`` gives ``can not``.

Three habits of the reference are kept on purpose, because they change counts:

* brackets come out as ``-lrb-`` ``-rrb-`` and *stay*: the list of removed punctuation spells them in capitals, and
  lower-casing comes first;
* only the tokens on that list go: ``!`` goes but ``!!!`` stays, as do ``&``, ``$``, ``%`` and ``/``;
* some tokens hold a no-break space (``1 1/2``, ``<a b>``, phone numbers). The scorers split on white space and so see
  several words there, all but ROUGE-L, which splits on the plain space.

One habit is not kept: the reference reads all captions as one stream, so that a caption ending in a one-letter
abbreviation is cut differently when the next caption starts with ``The``. Here each caption stands alone.

Known to differ, because no caption was seen to need it: numeric and accented HTML entities (``&#39;``), a few glued
forms without any space (``24/7-747``, ``www.a.com+www.b.com``), some file names and code. Against the reference,
none of 40,000 captions put together from the fixtures' phrases differed; of lines of software documentation, which
also served to find rules, 1 in 300 to 1 in 2,000; of words glued at random to any punctuation, 1 in 60.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

REMOVED = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
"""Tokens dropped after lower-casing: the published list, capitals included (which therefore never match)."""

# Words that keep their full stop wherever they stand ("st. x"), in any capitalisation.
_ABBREVIATIONS = """
    adj adm adv al ala alex apr ariz assn assoc asst atty aug ave bancorp bhd bldg blvd brig bros calif capt cf cie
    cmdr co col colo comdr conn corp cos cpl ct dak dec dept det dr drs elec ens esq est etc ext feb fla fri ft ga gen
    gov govs hon inc ind insp intl jan jos jr jul jun kan kans ky lieut lt ltd maj mar md messrs mfg mich minn mlle mme
    mo mon mont mr mrs ms msgr mt mtg natl neb nev nov oct okla penn pfc ph plc pres prof profs pte pty pvt rd rep reps
    rev rt sen sens sep sept seq sfc sgt spc sq sr st ste supt sys tel tenn thu thurs tue tues univ va vs vt wed wis
    wisc wm wyo
"""
# These are words as well, so they need a capital ("Miss." but "to miss .").
_CAPITAL_ABBREVIATIONS = "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash"
# These only before a number: "no. 5" but "she says no .".
_NUMBER_ABBREVIATIONS = "art|ca|figs?|nos?|op|pp|prop"
# "plan B. The cat": before one of these, spelt with a capital, a single letter's full stop ends the sentence.
_SENTENCE_STARTERS = (
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Now Once "
    "One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You"
)


def _letter_class() -> str:
    """The inside of a regex class with every letter and combining mark of the basic plane, and the soft hyphen."""
    ranges: list[list[int]] = []
    for code in range(0x41, 0x10000):
        category = unicodedata.category(chr(code))
        if category[0] == "L" or (category in ("Mn", "Mc") and code < 0x1900) or code == 0xAD:
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\u{low:04x}-\\u{high:04x}" for low, high in ranges)


_L = f"[{_letter_class()}]"
_LD = _L[:-1] + r"\d]"
_WORD = rf"{_LD}+(?:_{_LD}+)*"
_APOSTROPHE = "['’]"
_ELISION = rf"(?:[dDlLnNoO]{_APOSTROPHE}(?={_L}{{2}}))"  # d'angelo, l'oreal, o'clock
_HYPHEN = "[-\u058a\u2010\u2011]"
_SLASH_PART = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_STARTERS = "|".join(rf"{w}(?:\s|$)|{w.upper()}(?:\s|$)" for w in _SENTENCE_STARTERS.split()) + r"|M(?:r|s|R|S)\."

# What the tokeniser gives for single characters that it does not pass on as they are.
_CHARACTERS: dict[str, str] = {
    **dict(zip("()[]{}", ("-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-"), strict=True)),
    **dict(zip("\u00bc\u00bd\u00be\u2153\u2154", ("1/4", "1/2", "3/4", "1/3", "2/3"), strict=True)),
    **dict.fromkeys("\u20ac\u0080\u00a4\u20a0", "$"),
    **dict(zip("\u00a3\u00a2", ("#", "cents"), strict=True)),
    **dict.fromkeys("\u201c\u00ab\u0093", "``"),
    **dict.fromkeys('"\u201d\u00bb\u0094', "''"),
    **dict.fromkeys("\u2018\u201b\u2039\u0091", "`"),
    **dict.fromkeys("\u2019\u203a\u0092", "'"),
    **dict.fromkeys("\u2013\u2014\u2015\u0096\u0097", "--"),
    "\u2026": "...",
}
_ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "quot": "''", "apos": "'", "nbsp": "", "mdash": "--"}

# Symbols that are tokens of their own. Those outside (emoji above the basic plane, for one) vanish.
_SYMBOLS = re.compile(
    "[\u0021-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u007e\u00a1-\u03f6\u055a-\u0589\u05be-\u060c\u061b\u061e-\u066a"
    "\u066d-\u07fa\u0964-\u096f\u0e3f-\u0e59\u1fbd\u2013-\u2023\u2026\u2030-\u203b\u203e-\u2042\u2044\u2070-\u20a0"
    "\u20a4\u20ac\u2100-\u214f\u2153-\u215e\u2190-\u2bff\u3001\u3002\u3012\u30fb\ua620-\ua629\uff01-\uffe1\uffe5\uffe6"
    "\u0080\u0091-\u0094\u0096\u0097]"
)


def _whole(match: re.Match[str]) -> list[str]:
    """One token: the matched text with its apostrophes and brackets as the tokeniser writes them."""
    text = match.group().replace("\u00ad", "")
    return ["".join(_CHARACTERS[c] if c in "()" and len(text) > 1 else c for c in text)]


def _parts(match: re.Match[str]) -> list[str]:
    """One token for each group."""
    return [group.replace("\u00ad", "").replace("’", "'") for group in match.groups() if group]


def _spaced(match: re.Match[str]) -> list[str]:
    """One token that keeps its inner spaces, as no-break spaces."""
    return [re.sub(r"\s", "\u00a0", _whole(match)[0])]


def _character(match: re.Match[str]) -> list[str]:
    return [_CHARACTERS.get(match.group(), match.group())]


_Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], list[str]]]


def _rules() -> tuple[_Rule, ...]:
    def rule(pattern: str, emit: Callable[[re.Match[str]], list[str]], flags: int = re.IGNORECASE) -> _Rule:
        return re.compile(pattern, flags), emit

    end = rf"(?!{_LD})"
    capital = "|".join(f"{w}|{w.upper()}" for w in _CAPITAL_ABBREVIATIONS.split())
    dot = r"(?:\.(?=[,;:]))?"  # "lbs.," keeps its full stop: what follows cannot be a new sentence
    email = r"[^\s<>\"|()@]+@[a-z0-9\-]+(?:\.[a-z0-9\-]+)*"
    attribute = r"""[A-Za-z][A-Za-z0-9.:\-]*(?:\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|\w+))?"""
    sep = "[ \\-\u00a0]"
    return (
        # Mark-up, addresses and names.
        rule(r"<[!?][A-Za-z\-][^<>\n]*>|</[A-Za-z][A-Za-z0-9.:\-]*\s?>", _spaced),
        rule(rf"<[A-Za-z][A-Za-z0-9_.:\-]*(?:\s+{attribute})*\s*/?>", _spaced),
        rule(r"&(?:amp|lt|gt|quot|apos|nbsp|mdash);", lambda m: [_ENTITIES[m.group()[1:-1].lower()]]),
        rule(r"https?://[^\s<>\"|()]+\.[^\s<>\"|()]*[^\s<>\"|().,;:!?'\-]", _whole),
        rule(r"www\.(?:[a-z0-9\-]+\.)*[a-z0-9]+(?:/[^\s<>\"|()]*[^\s<>\"|().,;:!?'\-])?", _whole),
        rule(r"[a-z0-9\-]+(?:\.[a-z0-9\-]+)*\.(?:com|net|org|edu|gov)(?:/[^\s<>\"|()]*[^\s<>\"|().,;:!?'\-])", _whole),
        rule(rf"{email}|<{email}>", _whole),
        rule(rf"#{_L}+", _whole),
        rule(r"@[A-Za-z]\w*", _whole),
        # Words that come apart, before the rules that would swallow them whole.
        rule(rf"(can)(not){end}|(gon|wan)(na){end}|(got)(ta){end}|(lem|gim)(me){end}", _parts),
        rule(rf"({_L}+?)?(n['’`]t){end}", _parts),
        rule(r"('t)(?=is|was)", _parts),
        # Words with an apostrophe inside, at the front or at the end.
        rule(rf"('(?:s|m|d|re|ve|ll|n))(?!{_L})|(’(?:s|m|d|re|ve|ll))", _parts),  # after ’ even "’stop" -> "'s top"
        rule(r"’n", _whole),
        rule(rf"{_APOSTROPHE}n{_APOSTROPHE}", _whole),
        rule(rf"{_APOSTROPHE}(?:em|till?|cause)", _whole),
        rule(rf"{_APOSTROPHE}(?:\d0s{end}|\d\d(?=\s|$))", _whole),
        rule(rf"{_ELISION}{_WORD}{dot}", _whole),
        rule(rf"[djl]{_APOSTROPHE}(?!(?:s|m|d|re|ve|ll|n){end})|y{_APOSTROPHE}(?={_L})", _whole),
        rule(rf"{_L}+[aeiouy]['’‘][aeiou]{_L}*|[eo]{_APOSTROPHE}er{end}", _whole),
        rule(
            rf"(?:c{_APOSTROPHE}(?:est|mon)|s{_APOSTROPHE}mores|cap{_APOSTROPHE}n|ev{_APOSTROPHE}ry|"
            rf"nat{_APOSTROPHE}l|nor{_APOSTROPHE}easter|t{_APOSTROPHE}other|li'l|d{_APOSTROPHE}ye){end}",
            _whole,
        ),
        rule(rf"(?:ol|dunkin|somethin){_APOSTROPHE}{end}", _whole),
        # Abbreviations.
        rule(rf"(?!(?-i:MFG|MTG|PTE|PTY))(?:{'|'.join(_ABBREVIATIONS.split())})\.", _whole),
        rule(rf"(?:{capital})\.", _whole, 0),
        rule(rf"[A-Za-z]\.(?!\s+(?-i:{_STARTERS}))", _whole),
        rule(rf"(?:{_NUMBER_ABBREVIATIONS})\.(?=\s?\d)", _whole),
        rule(r"[A-Za-z](?:\.[A-Za-z])+\.?(?![A-Za-z])|(?:ph|ed)\.d\.", _whole),
        rule(r"[A-Z]+(?:&[A-Z]+)+", _whole, 0),
        rule(r"[A-Z]+\$", _whole, 0),
        rule(r"[cf]#|c\+\+", _whole),
        # Compounds: file.txt, black-and-white, and/or. "no!yes" counts as one word.
        rule(rf"{_L}{_LD}*(?:[.!?]{_L}{_LD}*)+{dot}", _whole),
        rule(
            rf"(?:{_ELISION}?{_WORD}|[A-Za-z0-9][A-Za-z0-9.,]*)(?:{_HYPHEN}{_ELISION}?{_WORD})*"
            rf"(?:{_HYPHEN}[A-Za-z](?:\.[A-Za-z])+\.|{_HYPHEN}{_ELISION}?{_WORD}){dot}",
            _whole,
        ),
        rule(rf"{_SLASH_PART}(?:/{_SLASH_PART}){{1,2}}", _whole),
        rule(rf"{_L}?\d+(?:\.\d+)*\.[chx]{end}", _whole),
        rule(r"[A-Z]+\+[A-Z]", _whole, 0),
        rule(rf"{_WORD}{dot}", _whole),
        # Numbers.
        rule(r"[-+]?(?:\d+(?:[.,:]\d+)*|(?:[.,:]\d+)+)", _whole),
        rule(r"\d{1,4}[-\s]?\d{1,4}[/⁄]\d{1,4}", _spaced),
        rule(
            rf"(?:\(\d{{2,3}}\){sep}?|\+?\d{{2,4}}{sep}(?:\d{{2,4}}{sep})?)\d{{3,4}}{sep}\d{{3,5}}",
            _spaced,
        ),
        # Punctuation and symbols.
        rule(r"[<>]?[:;=][o'\-]?[()\[\]{DPpO@|d\\]" + end, _whole, 0),
        rule(r"\^_\^|\(\^_\^\)|-_-|-[lr][rcs]b-", _whole),
        rule(r"[!?]+|\*+|[#@]+|_+|<<|>>|-{5,}", _whole),
        rule(r"-{2,4}|'{2}|`{2}", lambda m: [m.group()[:2]]),
        rule(r"\.{3}|\. \. \.", lambda m: ["..."]),
        rule(_SYMBOLS.pattern, _character),
    )


@lru_cache(maxsize=1)
def _compiled() -> tuple[_Rule, ...]:
    return _rules()


_PLAIN_WORD = re.compile(r"[A-Za-z]+(?=\s|$)")
_NOT_PLAIN = frozenset(["cannot", "gonna", "gotta", "lemme", "gimme", "wanna"])


def tokenize(caption: str) -> list[str]:
    """Split one caption into the tokens that the COCO caption scorers count.

    Args:
        caption: any text; line breaks count as spaces. An empty caption gives no tokens.

    Returns:
        Lower-case tokens without the punctuation in :data:`REMOVED`. A token may hold a no-break space (see above).

    Source: the tokens published COCO caption figures rest on (Chen et al. 2015, arXiv:1504.00325, section 4),
    reproduced by observation.
    """
    tokens: list[str] = []
    position = 0
    while position < len(caption):
        plain = _PLAIN_WORD.match(caption, position)
        if plain and plain.group().lower() not in _NOT_PLAIN:  # most words of most captions: no rule needed
            tokens.append(plain.group())
            position = plain.end()
            continue
        best: tuple[re.Match[str], Callable[[re.Match[str]], list[str]]] | None = None
        for pattern, emit in () if caption[position].isspace() else _compiled():
            match = pattern.match(caption, position)
            if match and match.end() > (best[0].end() if best else position):
                best = (match, emit)
        if best is None:  # white space, or a character that is no token at all
            position += 1
            continue
        tokens.extend(best[1](best[0]))
        position = best[0].end()
    return [token for token in (token.lower() for token in tokens) if token and token not in REMOVED]
