"""The whole words of many texts, and their vectors in a language model's space of words.

Vocabularies of subwords cut words into pieces, and have several entries for one word (" cat", "Cat", " cats"). What is
compared with a picture here is a *word*: a group of letters, in lower case, its plural taken for it where both occur;
or a name of several words, where the data says that it is one. Its vector is the mean of the pieces that it has inside
a sentence, centred by the mean of the whole table: embeddings share a large common part, beside which two words hardly
differ.

Letters: V words, D language-model width.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from astrea.language.labels import inside_a_sentence

GROUP = re.compile(r"[^\W\d_]+")
"""Letters of any script, side by side."""

MOST = 8192
"""How many words are told apart, the most frequent ones: each is compared with each token of a batch."""

COMMON = 0.5
"""Share of texts from which on a word tells nothing."""

_FUNCTION = """
a about above across after again against all along also am among an and another any are around as at away back be
because been before behind being below beneath beside between both but by can could did do does doing down during each
either else every few for from further had has have having he her here hers him his how i if in inside into is it its
itself just like many may me might mine more most much must my near neither next no nor not of off on once one only
onto or other our out outside over own per same shall she should since so some such than that the their them then
there these they this those through till to too toward towards under until up upon us very was we were what when where
whether which while who whom whose why will with within without would you your left right top bottom upper lower
middle center centre corner side picture photo photograph image show shows shown say says see seen
"""
FUNCTION_WORDS = frozenset(_FUNCTION.split())
"""English words that name nothing to be seen, or where it is, which phrases say in slots of their own. Words of other
languages are caught by being in most texts."""

ROWS = 4096


class WholeWords:
    """The telling words of texts.

    Args:
        texts: of the training data. names: what the data calls its things, of one or several words each, which count
            as one; where there are any, nothing else tells. said: words that are told in another way, which tell
            nothing here.

    Attributes:
        words: V words and names, the most frequent first.
    """

    def __init__(self, texts: Iterable[str], names: Iterable[str] = (), said: Iterable[str] = ()) -> None:
        groups = [letter_groups(text) for text in texts]
        self.folded = plurals({word for some in groups for word in some})
        self.names: dict[str, list[tuple[str, ...]]] = {}
        every = dict.fromkeys(tuple(self._fold(letter_groups(name))) for name in names)
        for name in every:
            if len(name) > 1:
                self.names.setdefault(name[0], []).append(name)
        for known in self.names.values():
            known.sort(key=len, reverse=True)
        found: Counter[str] = Counter()
        for some in groups:
            # In the order of the text: which of two equally frequent words is first is no matter of chance.
            found.update(list(dict.fromkeys(self._named(some))))
        most = COMMON * len(groups)
        silent, called = FUNCTION_WORDS.union(said), {" ".join(name) for name in every}
        telling = [
            word
            for word, count in found.most_common()
            if (word in called if called else count <= most and word not in silent)
        ]
        self.words = telling[:MOST]
        self.index = {word: number for number, word in enumerate(self.words)}

    def of(self, texts: Iterable[str]) -> list[int]:
        """Which words some texts hold, each once."""
        said = [word for text in texts for word in self._named(letter_groups(text))]
        return [self.index[word] for word in dict.fromkeys(said) if word in self.index]

    def _fold(self, groups: Sequence[str]) -> list[str]:
        return [self.folded.get(word, word) for word in groups]

    def _named(self, groups: Sequence[str]) -> list[str]:
        """A text's words in their order, names of several words as one."""
        words, found, at = self._fold(groups), [], 0
        while at < len(words):
            name = next((n for n in self.names.get(words[at], ()) if tuple(words[at : at + len(n)]) == n), (words[at],))
            found.append(" ".join(name))
            at += len(name)
        return found


def letter_groups(text: str) -> list[str]:
    """The words of a text in lower case."""
    return GROUP.findall(text.lower())


def plurals(words: set[str]) -> Mapping[str, str]:
    """Which of some words are the plural of another one of them: plural -> singular."""
    found = {}
    for word in words:
        ways = (("ies", "y"), ("es", ""), ("s", ""))
        stems = (word.removesuffix(ending) + instead for ending, instead in ways if word.endswith(ending))
        singular = next((stem for stem in stems if len(stem) > 1 and stem in words), None)
        if singular is not None:
            found[word] = singular
    return found


@torch.no_grad()
def table_mean(embedding: nn.Module, words: int, device: torch.device) -> Tensor:
    """The mean embedding (D,) of a language model's first ``words`` words, in float32."""
    rows = torch.arange(words, device=device).split(ROWS)
    total: Tensor = torch.stack([embedding(ids).float().sum(0) for ids in rows]).sum(0)
    return total / words


def word_vectors(
    words: Sequence[str], tokenizer: PreTrainedTokenizerBase, embedding: nn.Module, mean_D: Tensor
) -> Tensor:
    """Unit vectors (V, D) of whole words, on the device of the mean; see the top of this file."""
    return vectors_of([inside_a_sentence(word, tokenizer) for word in words], embedding, mean_D)


@torch.no_grad()
def vectors_of(pieces: Sequence[Sequence[int]], embedding: nn.Module, mean_D: Tensor) -> Tensor:
    """The same of words that are given by their pieces."""
    flat = torch.tensor([piece for some in pieces for piece in some], dtype=torch.long, device=mean_D.device)
    owner = torch.tensor([number for number, some in enumerate(pieces) for _ in some], device=mean_D.device)
    total_VD = mean_D.new_zeros(len(pieces), len(mean_D))
    for at in range(0, len(flat), ROWS):
        total_VD.index_add_(0, owner[at : at + ROWS], embedding(flat[at : at + ROWS]).float())
    count_V1 = torch.tensor([max(1, len(some)) for some in pieces], device=mean_D.device).view(-1, 1)
    return F.normalize(total_VD / count_V1 - mean_D, dim=-1)
