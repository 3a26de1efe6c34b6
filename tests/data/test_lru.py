"""A dictionary that forgets: it never costs more than it may, and what is kept is right."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrea.data import packing
from astrea.data.lru import Remembered
from astrea.data.packing import Packer, Turn
from astrea.world.language.tiny import tiny_tokenizer


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12))))
def test_the_latest_values_that_fit_are_kept(most: int, puts: list[tuple[int, int]]) -> None:
    kept: Remembered[int, int] = Remembered(most)
    for number, (key, cost) in enumerate(puts):
        kept.put(key, number, cost)
        assert kept.cost <= most
        assert kept.get(key) == (number if cost <= most else None)
    latest = {key: (number, cost) for number, (key, cost) in enumerate(puts)}
    assert kept.cost == sum(latest[key][1] for key in kept)
    assert all(kept.get(key) == latest[key][0] for key in kept)


def test_the_first_is_forgotten_first() -> None:
    kept: Remembered[str, int] = Remembered(3)
    for number, key in enumerate("abca"):
        kept.put(key, number, 1)
    kept.put("d", 9, 1)
    assert list(kept) == ["c", "a", "d"]
    kept.clear()
    assert (len(kept), kept.cost, kept.get("a")) == (0, 0, None)


def test_threads_share_one() -> None:
    kept: Remembered[int, int] = Remembered(50)

    def use(start: int) -> bool:
        for key in range(start, start + 3000):
            kept.put(key % 97, key % 97, key % 5)
            if kept.get(key % 97) not in (None, key % 97):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(use, range(0, 40, 10)))
    assert 0 <= kept.cost <= 50


def test_a_packer_gives_the_same_rows_whatever_it_has_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[Turn("is there a cat?", "yes"), Turn("what colour is the sun?", "red")] for _ in range(2)]
    texts = [f"a {colour} {thing}" for colour in ("red", "blue", "green") for thing in ("cat", "sun", "moon")]
    tokenizer = tiny_tokenizer()
    whole = Packer(tokenizer, 4)
    monkeypatch.setattr(packing, "KEPT", 40)
    small = Packer(tokenizer, 4)
    for _ in range(2):
        assert [small.ids(text) for text in texts] == [whole.ids(text) for text in texts]
        assert small.pack(rows).input_ids.equal(whole.pack(rows).input_ids)
    assert small.seen.cost <= 40 < whole.seen.cost
