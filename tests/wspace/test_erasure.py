# SPDX-License-Identifier: Apache-2.0
"""LEACE's theorem: equal means, no linear reader left, the least change that does it; and what a keep-list costs."""

from __future__ import annotations

import planted_latents
import pytest
import torch

from stylegan_redact.types import RedactError
from stylegan_redact.wspace.affine import AffineEdit
from stylegan_redact.wspace.erasure import erase
from stylegan_redact.wspace.subspace import discriminant


def said(w: torch.Tensor) -> torch.Tensor:
    return planted_latents.logits(w) > 0


def gap(edit: AffineEdit, w: torch.Tensor, shows: torch.Tensor) -> torch.Tensor:
    """Distance of the means with and without the label, after the edit."""
    return (edit(w)[shows].mean(dim=0) - edit(w)[~shows].mean(dim=0)).abs().max()


def change(edit: AffineEdit, w: torch.Tensor, metric: torch.Tensor) -> float:
    moved = edit(w) - w
    return float(torch.einsum("ni,ij,nj->n", moved, metric, moved).mean())


def test_one_dimension_by_hand() -> None:
    """w = (-1, 0), (1, 0), (0, -1), (0, 1) with labels 0, 1, 0, 1: uncorrelated, equal spread; the means differ along (1, 1), which goes."""
    w = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]], dtype=torch.float64)
    edit = erase(w, torch.tensor([0, 1, 0, 1]))
    torch.testing.assert_close(edit.matrix, torch.tensor([[0.5, -0.5], [-0.5, 0.5]], dtype=torch.float64))
    torch.testing.assert_close(edit.offset, torch.zeros(2, dtype=torch.float64))


def test_means_with_and_without_are_equal_and_twice_is_once() -> None:
    w = planted_latents.latents()
    shows = said(w)[:, 1]
    edit = erase(w, shows)
    assert float(gap(edit, w, shows)) < 1e-10 < 0.1 < float(gap(AffineEdit(torch.eye(12).double(), torch.zeros(12).double()), w, shows))
    torch.testing.assert_close(edit.matrix @ edit.matrix, edit.matrix, atol=1e-10, rtol=0)
    torch.testing.assert_close(edit(edit(w)), edit(w), atol=1e-10, rtol=0)
    torch.testing.assert_close(edit(w).mean(dim=0), w.mean(dim=0), atol=1e-10, rtol=0)


def test_no_linear_reader_beats_chance_on_latents_of_its_own() -> None:
    """Fitted to fresh edited latents, tested on others: balanced accuracy of a discriminant; before the edit it is far better."""
    w, train, test = planted_latents.latents(20_000), planted_latents.latents(4000, seed=2), planted_latents.latents(4000, seed=3)
    edit = erase(w, said(w)[:, 1])

    def accuracy(fit: torch.Tensor, held_out: torch.Tensor) -> float:
        direction, shows = discriminant(fit, said(train)[:, 1]), said(test)[:, 1]
        means = [(fit @ direction)[said(train)[:, 1] == label].mean() for label in (True, False)]
        past = held_out @ direction > (means[0] + means[1]) / 2
        return float(past[shows].double().mean() + (~past)[~shows].double().mean()) / 2

    assert accuracy(train, test) > 0.85
    assert abs(accuracy(edit(train), edit(test)) - 0.5) < 0.05


def test_no_other_projection_that_does_it_changes_less() -> None:
    """In the plain metric and in the whitened one. The orthogonal projection off the difference of the means does it too, and is dearer."""
    w = planted_latents.latents(20_000)
    shows = said(w)[:, 1]
    edit = erase(w, shows)
    mean, way = w.mean(dim=0), w[shows].mean(dim=0) - w[~shows].mean(dim=0)
    identity = torch.eye(len(mean), dtype=torch.float64)
    metrics = (identity, torch.linalg.inv(torch.cov(w.T)))
    generator = torch.Generator().manual_seed(0)
    normal = torch.linalg.solve(torch.cov(w.T), way)
    others = [way, *(normal + 0.3 * normal.norm() * torch.randn(len(way), generator=generator, dtype=torch.float64) for _ in range(20))]
    for reads in others:
        removed = torch.outer(way, reads / (reads @ way))
        rival = AffineEdit(identity - removed, removed @ mean)
        assert float(gap(rival, w, shows)) < 1e-9
        assert all(change(edit, w, metric) < change(rival, w, metric) for metric in metrics)


def test_several_labels_at_once_and_one_that_says_what_others_say() -> None:
    w = planted_latents.latents()
    shows = said(w)
    edit = erase(w, shows)
    assert all(float(gap(edit, w, column)) < 1e-10 for column in shows.T)
    torch.testing.assert_close(erase(w, shows.flip(1)).matrix, edit.matrix, atol=1e-10, rtol=0)
    again = erase(w, torch.cat([shows, ~shows[:, :1]], dim=1))
    torch.testing.assert_close(again.matrix, edit.matrix, atol=1e-8, rtol=0)
    assert int(torch.linalg.matrix_rank(again.matrix - torch.eye(12, dtype=torch.float64), atol=1e-6)) == 3


def test_kept_directions_are_read_as_before() -> None:
    w = planted_latents.latents()
    shows = said(w)
    kept = discriminant(w, shows[:, 0])[None]
    with_keep, without = erase(w, shows[:, 1], kept), erase(w, shows[:, 1])
    torch.testing.assert_close(with_keep(w) @ kept.T, w @ kept.T, atol=1e-9, rtol=0)
    assert float((without(w) @ kept.T - w @ kept.T).abs().max()) > 0.1
    precision = torch.linalg.inv(torch.cov(w.T))
    lengths = []
    for moved in (without(w), with_keep(w), w):
        apart = moved[shows[:, 1]].mean(dim=0) - moved[~shows[:, 1]].mean(dim=0)
        lengths.append(float(apart @ precision @ apart))
    assert lengths[0] < 1e-12 < 0.1 < lengths[1] < 0.95 * lengths[2]  # What beard and bald share stays: that is the price.


def test_what_cannot_be_erased_is_refused() -> None:
    w = planted_latents.latents(200)
    with pytest.raises(RedactError, match="all 200 latents share"):
        erase(w, torch.ones(200))
    with pytest.raises(RedactError, match="keep less"):
        erase(w, said(w)[:, 1], torch.eye(12))
    with pytest.raises(RedactError, match=r"labels \[199\]"):
        erase(w, torch.ones(199))
