# SPDX-License-Identifier: Apache-2.0
"""Where a person lies in W+: distances worked by hand, shells, codes drawn around it, and who is drawn instead."""

import pytest
import torch

from stylegan_redact.types import RedactError
from stylegan_redact.wspace.place import Place, place_of, target_of
from stylegan_redact.wspace.prior import prior_of

ROWS, WIDTH = 3, 4


def typical(n: int = 500) -> torch.Tensor:
    return torch.randn([n, WIDTH], generator=torch.Generator().manual_seed(0))


def of(*points: tuple[float, ...]) -> torch.Tensor:
    """[n, 3, 4], the same in each row."""
    return torch.tensor(points)[:, None].expand(-1, ROWS, -1).clone()


def test_distances_by_hand() -> None:
    """Codes at (-2, 0) and (2, 0) in the first two coordinates, mean at 0: the person is the segment between them."""
    place = Place(of((-2.0, 0, 0, 0), (2.0, 0, 0, 0)), 1.0, 3.0)
    u = of((0.0, 0, 0, 0), (1.5, 2, 0, 0), (5.0, 4, 0, 0))
    assert place.distance(u).tolist() == pytest.approx([0, 2, 5])  # on it; beside it; past its end, 3-4-5
    assert place.share(u).tolist() == pytest.approx([1, 0.5, 0])
    one_row = of((0.0, 0, 0, 0))
    one_row[0, 1, 1] = 3.0
    assert place.distance(one_row).tolist() == pytest.approx([3 / ROWS**0.5])  # the root of the mean over rows
    assert Place(of((1.0, 0, 0, 0)), 1.0, 3.0).distance(of((4.0, 4, 0, 0))).tolist() == pytest.approx([5])  # one photograph


def test_codes_are_drawn_as_far_away_as_asked() -> None:
    place, others = Place(of((0.5, 0, 0, 0)), 1.0, 2.0), typical()
    drawn = place.around(40, 1.5, 1.5, others, torch.Generator().manual_seed(3))
    assert torch.allclose(place.distance(drawn), torch.full([40], 1.5), atol=1e-5)
    assert torch.equal(drawn, place.around(40, 1.5, 1.5, others, torch.Generator().manual_seed(3)))
    assert not torch.allclose(drawn, place.around(40, 1.5, 1.5, others, torch.Generator().manual_seed(4)))
    way = (drawn - place.centre)[:20]
    assert torch.allclose(way, way[:, :1].expand_as(way), atol=1e-5)  # towards people, whose rows agree
    assert not torch.allclose(drawn[20:], drawn[20:, :1].expand_as(drawn[20:]), atol=0.1)
    assert torch.allclose(place.around(5, 0.0, 0.0, others, torch.Generator().manual_seed(3)), place.u.expand(5, -1, -1))
    both = Place(of((-2.0, 0, 0, 0), (2.0, 0, 0, 0)), 1.0, 3.0)
    assert float(both.distance(both.around(50, 0.0, 1.0, others, torch.Generator().manual_seed(3))).max()) <= 1.0001


def test_shells_leave_the_share_of_people_inside_that_was_asked() -> None:
    people = typical()
    place = place_of(of((1.0, 1, 0, 0)), people, inner=0.25, others=0.1)
    inside = place.distance(people[:, None].expand(-1, ROWS, -1)) < place.outer
    assert float(inside.float().mean()) == pytest.approx(0.1, abs=0.005) and place.inner == 0.25 * place.outer
    with pytest.raises(RedactError, match="larger share"):
        place_of(people[:1, None].expand(-1, ROWS, -1), people, inner=0.5, others=0.0)


def test_targets() -> None:
    people = typical()
    prior = prior_of(people * torch.tensor([1.0, 2, 3, 4]) + 5)
    place = place_of(of((1.0, 1, 0, 0)), people, inner=0.3, others=0.05)
    away = place.distance(people[:, None].expand(-1, ROWS, -1))
    found = target_of(place, people, prior, kind="nearest", reach=0.0)
    rank = int((away < place.distance(found.expand(1, ROWS, -1))).sum())
    assert bool((people == found).all(dim=1).any()) and rank == int((away < place.outer).sum())  # the first one outside
    mirror = target_of(place, people, prior, kind="mirror", reach=0.0)
    assert float(mirror.norm()) == pytest.approx(float(people.norm(dim=1).median()), rel=1e-5)
    assert torch.allclose(mirror / mirror.norm(), -place.centre[0] / place.centre[0].norm())
    centre_w = prior.to_w(place.centre[0])
    for reach in (0.0, 30.0):  # GUIDE: w_t = w_avg - d (w_u - w_avg) / |w_u - w_avg|
        wanted = prior.mean - reach * (centre_w - prior.mean) / (centre_w - prior.mean).norm()
        assert torch.allclose(prior.to_w(target_of(place, people, prior, kind="extrapolate", reach=reach)), wanted, atol=1e-3)
    with pytest.raises(RedactError, match="nearest, mirror, extrapolate"):
        target_of(place, people, prior, kind="erase", reach=0.0)
