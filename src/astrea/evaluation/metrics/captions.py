"""CIDEr-D, BLEU and ROUGE-L of captions, with the figures of the COCO caption scorers.

Candidates and references are raw captions; they are cut by :func:`astrea.evaluation.metrics.ptb.tokenize`. Either lists
in image order (``candidates[i]`` is judged against ``references[i]``) or mappings with the same image ids. Any other
shape raises ``ValueError``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from astrea.evaluation.metrics.ptb import tokenize

Candidates = Sequence[str] | Mapping[Hashable, str]
"""One caption for each image."""
References = Sequence[Sequence[str]] | Mapping[Hashable, Sequence[str]]
"""The human captions of each image, at least one."""


@dataclass(frozen=True)
class CaptionScore:
    """One metric over a set of images.

    Attributes:
        corpus: the figure for the whole set.
        per_image: float64 [images], in the order of ``candidates``.
    """

    corpus: float
    per_image: np.ndarray


def cider_d(candidates: Candidates, references: References) -> CaptionScore:
    """CIDEr-D: what papers call "CIDEr".

    The mean over 1- to 4-grams of a clipped tf-idf cosine to each reference, damped by a Gaussian (sigma 6) of the
    length difference, times 10. The document frequencies come from the references of the very images evaluated, so
    scores of a subset do not compare with scores of the whole, and a single image scores 0.

    Returns:
        Raw figures, 0..10. Papers print them times 100: a ``corpus`` of 1.2 is a published CIDEr of 120.

    Source: Vedantam et al. 2015 (arXiv:1411.5726), section 5.3, without stemming.
    """
    pairs = _tokenised(candidates, references)
    images = [(_ngrams(_words(c)), [_ngrams(_words(r)) for r in refs]) for c, refs in pairs]
    document_frequency: Counter[tuple[str, ...]] = Counter()
    for _, refs in images:
        document_frequency.update({gram for ref in refs for grams in ref for gram in grams})
    log_images = math.log(len(images))

    def weigh(counts: list[Counter[tuple[str, ...]]]) -> tuple[list[dict[tuple[str, ...], float]], list[float]]:
        vectors = [
            {gram: n * (log_images - math.log(max(1, document_frequency[gram]))) for gram, n in grams.items()}
            for grams in counts
        ]
        return vectors, [math.sqrt(sum(v * v for v in vector.values())) for vector in vectors]

    scores = np.zeros(len(images))
    for i, (candidate, refs) in enumerate(images):
        vectors, norms = weigh(candidate)
        total = 0.0
        for ref in refs:
            ref_vectors, ref_norms = weigh(ref)
            # The reference scorer measures length in bigrams: 0- and 1-word captions are equally long.
            delta = candidate[1].total() - ref[1].total()
            damping = math.exp(-(delta**2) / (2 * 6.0**2))
            for vector, norm, ref_vector, ref_norm in zip(vectors, norms, ref_vectors, ref_norms, strict=True):
                if norm and ref_norm:
                    dot = sum(min(v, ref_vector[g]) * ref_vector[g] for g, v in vector.items() if g in ref_vector)
                    total += damping * dot / (norm * ref_norm)
        scores[i] = 10.0 * total / (len(vectors) * len(refs))
    return CaptionScore(float(scores.mean()), scores)


def bleu(candidates: Candidates, references: References, max_n: int = 4) -> tuple[CaptionScore, ...]:
    """BLEU-1 to BLEU-``max_n``, each 0..1 (papers print them times 100).

    The corpus figure pools the n-gram counts of all images and is not the mean of the per-image figures. The brevity
    penalty uses the reference length closest to the candidate's (the shorter of two equally close ones).

    Returns:
        One score for each n, BLEU-1 first.

    Source: Papineni et al. 2002, with the two tiny constants of the COCO scorer in place of smoothing: a per-image
    BLEU without any matching n-gram is about 1e-4 or less, and not 0.
    """
    if max_n < 1:
        raise ValueError(f"max_n is {max_n}; it must be at least 1")
    pairs = _tokenised(candidates, references)
    matches = np.zeros((len(pairs), max_n))
    guesses = np.zeros((len(pairs), max_n))
    lengths = np.zeros((len(pairs), 2))  # candidate, closest reference
    for i, (candidate, refs) in enumerate(pairs):
        words, refs_words = _words(candidate), [_words(r) for r in refs]
        ref_grams = [_ngrams(r, max_n) for r in refs_words]
        for n, grams in enumerate(_ngrams(words, max_n)):
            allowed = {g: max(ref[n][g] for ref in ref_grams) for g in grams}
            matches[i, n] = sum(min(count, allowed[g]) for g, count in grams.items())
            guesses[i, n] = max(0, len(words) - n)
        lengths[i] = len(words), min((abs(len(r) - len(words)), len(r)) for r in refs_words)[1]
    per_image = np.array([_bleu(*row) for row in zip(matches, guesses, lengths, strict=True)])
    corpus = _bleu(matches.sum(0), guesses.sum(0), lengths.sum(0))
    return tuple(CaptionScore(float(corpus[n]), per_image[:, n].copy()) for n in range(max_n))


def rouge_l(candidates: Candidates, references: References) -> CaptionScore:
    """ROUGE-L, 0..1 (papers print it times 100): the F-measure (beta 1.2) of the longest common subsequence.

    Precision and recall are each the best over the references, which need not be the same one. The corpus figure is
    the mean over images.

    Source: Lin 2004, as the COCO scorer computes it. Two captions without any word count as equal there: 1.0.
    """
    beta2 = 1.2**2
    scores = []
    for candidate, refs in _tokenised(candidates, references):
        # The reference splits the joined tokens on the plain space, so that no words are one empty word.
        words = candidate or [""]
        common = [(_common_subsequence(words, ref or [""]), len(ref or [""])) for ref in refs]
        precision = max(length for length, _ in common) / len(words)
        recall = max(length / size for length, size in common)
        both = precision and recall
        scores.append((1 + beta2) * precision * recall / (recall + beta2 * precision) if both else 0.0)
    return CaptionScore(float(np.mean(scores)), np.array(scores))


def _tokenised(candidates: Candidates, references: References) -> list[tuple[list[str], list[list[str]]]]:
    """(candidate tokens, tokens of each reference) of each image, after checking the shapes."""
    if isinstance(candidates, str) or isinstance(references, str):
        raise ValueError("candidates and references must be lists or mappings, not a single string")
    mixed = ValueError("candidates and references must both be lists or both be mappings")
    images: list[tuple[Hashable, str, Sequence[str]]]
    if isinstance(candidates, Mapping):
        if not isinstance(references, Mapping):
            raise mixed
        if candidates.keys() != references.keys():
            differing = sorted(map(str, candidates.keys() ^ references.keys()))[:5]
            raise ValueError(f"candidates and references name different images, among them {', '.join(differing)}")
        images = [(key, candidates[key], references[key]) for key in candidates]
    else:
        if isinstance(references, Mapping):
            raise mixed
        if len(candidates) != len(references):
            raise ValueError(f"{len(candidates)} candidates but references for {len(references)} images")
        images = list(zip(range(len(candidates)), candidates, references, strict=True))
    if not images:
        raise ValueError("there are no images to score")
    pairs = []
    for key, candidate, refs in images:
        if isinstance(refs, str) or not refs:
            raise ValueError(f"image {key!r}: references must be a list of at least one caption, got {refs!r}")
        if not isinstance(candidate, str):
            raise ValueError(f"image {key!r}: the candidate must be one caption (str), got {candidate!r}")
        pairs.append((list(_tokens(candidate)), [list(_tokens(ref)) for ref in refs]))
    return pairs


@lru_cache(maxsize=1 << 16)
def _tokens(caption: str) -> tuple[str, ...]:
    """The tokens of a caption. Several metrics over the same captions would cut each of them several times."""
    return tuple(tokenize(caption))


def _words(tokens: list[str]) -> list[str]:
    """The words the n-gram scorers see: a token with a no-break space ("1 1/2") is two of them."""
    return " ".join(tokens).split()


def _ngrams(words: list[str], max_n: int = 4) -> list[Counter[tuple[str, ...]]]:
    """How often each n-gram occurs, for n = 1..max_n."""
    return [Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for n in range(1, max_n + 1)]


def _bleu(matches: np.ndarray, guesses: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """BLEU-1.. from n-gram counts [n] and (candidate, reference) lengths; the constants are those of the scorer."""
    precisions = (matches + 1e-15) / (guesses + 1e-9)
    scores = np.cumprod(precisions) ** (1.0 / np.arange(1, len(matches) + 1))
    ratio = (lengths[0] + 1e-15) / (lengths[1] + 1e-9)
    # exp underflows to 0 for an empty candidate, as it should.
    return scores * math.exp(1 - 1 / ratio) if ratio < 1 else scores


def _common_subsequence(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        previous = 0  # the value diagonally above
        for j, y in enumerate(b, start=1):
            above = row[j]
            row[j] = previous + 1 if x == y else max(above, row[j - 1])
            previous = above
    return row[-1]
