"""A packer's caches never hold more than they may, and what has been dropped is computed again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from astrea.data import packing
from astrea.data.packing import Packer, Turn
from astrea.world.language.tiny import tiny_tokenizer

TEXTS = [f"a {colour} {thing}" for colour in ("red", "blue", "green") for thing in ("cat", "sun", "moon")]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Packer:
    monkeypatch.setattr(packing, "KEPT", 40)
    return Packer(tiny_tokenizer(), 4)


def test_a_packer_gives_the_same_rows_whatever_its_caches_have_dropped(small: Packer) -> None:
    rows = [[Turn("is there a cat?", "yes"), Turn("what colour is the sun?", "red")] for _ in range(2)]
    whole = Packer(tiny_tokenizer(), 4)
    whole.text_cache = packing.LRUCache(10**6, getsizeof=small.text_cache.getsizeof)
    for _ in range(2):
        assert [small.ids(text) for text in TEXTS] == [whole.ids(text) for text in TEXTS]
        assert small.pack(rows).input_ids.equal(whole.pack(rows).input_ids)
    assert 0 < small.text_cache.currsize <= 40 < whole.text_cache.currsize


def test_a_text_larger_than_the_cache_is_not_kept(small: Packer) -> None:
    small.ids("a red cat")
    kept = list(small.text_cache)
    assert len(small.ids("cat " * 40)) == 40
    assert list(small.text_cache) == kept


def test_threads_share_a_packer(small: Packer) -> None:
    wanted = [Packer(tiny_tokenizer(), 4).ids(text) for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: small.ids(TEXTS[number % 9]), range(900)))
    assert found == wanted * 100
    assert small.text_cache.currsize <= 40
