"""Slots on a grid: where a token goes, what is left out, and what the grid's shape is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from astrea.fusion.peers.grid import Grid, grid_shape


@pytest.mark.parametrize(
    ("tokens", "shape"), [(28, (4, 7)), (1, (1, 1)), (2, (1, 2)), (8, (2, 4)), (29, (4, 7)), (36, (6, 6)), (26, (5, 5))]
)
def test_the_grid_has_as_many_cells_as_tokens_allow(tokens, shape):
    assert grid_shape(tokens) == shape


def test_a_grid_is_never_larger_than_the_tokens_nor_a_strip():
    for tokens in range(1, 200):
        rows, columns = grid_shape(tokens)
        assert rows <= columns <= 2 * rows
        assert 0.6 * tokens <= rows * columns <= tokens


def test_centres_go_row_by_row(layout):
    centre = Grid(layout).centres()
    assert torch.allclose(centre[0], torch.tensor([0.125, 0.25]))
    assert torch.allclose(centre[3], torch.tensor([0.875, 0.25]))
    assert torch.allclose(centre[4], torch.tensor([0.125, 0.75]))


def test_it_equals_a_loop_over_cells(layout, make_matrix):
    grid, seen = Grid(layout, sigma=0.2, empty=0.3), make_matrix(absent=(1,))
    maps = grid(seen)
    assert maps.shape == (3, 3, 8, layout.width)
    for b in range(3):
        for e in range(3):
            for g in range(8):
                x, y = (g % 4 + 0.5) / 4, (g // 4 + 0.5) / 2
                total, mean = 0.3, torch.zeros(layout.width)
                for t in range(8):
                    if seen.expert[t] != e or not seen.valid[b, t]:
                        continue
                    weight, (px, py) = 1.0, seen.places[b, t].tolist()
                    if not math.isnan(px):
                        weight = math.exp(-((px - x) ** 2 + (py - y) ** 2) / (2 * 0.2**2))
                    total, mean = total + weight, mean + weight * seen.tokens[b, t]
                assert torch.allclose(maps[b, e, g], mean / total, atol=1e-5)


def test_a_token_lights_the_cell_where_it_looks_and_leaves_far_ones_dark(layout, make_matrix):
    grid, seen = Grid(layout), make_matrix()
    places = seen.places.clone()
    places[:, 6:] = torch.tensor([0.87, 0.74])  # the last cell
    size = grid(replace(seen, places=places))[:, 2].norm(dim=-1)
    assert (size.argmax(-1) == 7).all()
    assert (size[:, 0] < 0.01 * size[:, 7]).all()


def test_tokens_without_a_place_are_everywhere_alike(layout, make_matrix):
    maps = Grid(layout)(make_matrix())[:, 0]
    assert torch.allclose(maps, maps[:, :1].expand_as(maps))
    assert maps.abs().min() > 0


def test_what_is_not_valid_is_not_read_whatever_it_holds(layout, make_matrix):
    grid, seen = Grid(layout), make_matrix(absent=(2,))
    before = grid(seen)
    assert before[:, 2].eq(0).all()
    garbage = seen.tokens.masked_fill(~seen.valid.unsqueeze(-1), float("nan"))
    assert torch.equal(grid(replace(seen, tokens=garbage)), before)


def test_cells_are_readable_where_anything_was_said(layout, make_matrix):
    grid, seen = Grid(layout), make_matrix()
    present = torch.tensor([[True, False, False], [False, False, False], [True, True, True]])
    assert grid.valid(seen.with_presence(present)).tolist() == [[True] * 8, [False] * 8, [True] * 8]
