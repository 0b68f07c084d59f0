# SPDX-License-Identifier: Apache-2.0
"""Inversion finds pictures that the network can draw, stays near the prior when charged for leaving it, and touches nothing."""

import pytest
import tiny
import tiny_person
import torch

from stylegan_redact.extractors import describe_by
from stylegan_redact.inversion import Search, invert, walk
from stylegan_redact.network import sample_w, synthesize
from stylegan_redact.wspace.prior import prior_of

PEOPLE = range(200)


def test_a_picture_of_a_hidden_code_is_found() -> None:
    net = tiny.network()
    G, before = net.G_ema, {name: tensor.clone() for name, tensor in net.G_ema.state_dict().items()}
    w = sample_w(G, PEOPLE)
    photos = torch.cat([tiny_person.photo(G), tiny.images(G, range(880_000, 880_001))])
    random = torch.random.get_rng_state()
    told: list[float] = []
    search = Search(steps=25)
    ws = invert(G, prior_of(w), photos, search, starts=w, describe=describe_by(net.D), batch=2, progress=lambda *event: told.append(event[1]))
    apart = (synthesize(G, ws) - photos).abs().mean((1, 2, 3))
    nearest = torch.stack([(tiny.images(G, PEOPLE) - photo).abs().mean((1, 2, 3)).amin() for photo in photos])
    assert ws.shape == (2, G.num_ws, G.w_dim) and bool((apart < 0.5 * nearest).all())
    assert told == sorted(told) and told[-1] == 1 and torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in G.state_dict().items())
    assert not any(parameter.grad is not None for net in (G, net.D) for parameter in net.parameters())
    one = invert(G, prior_of(w), photos, search, starts=w, describe=describe_by(net.D), batch=1)
    assert torch.allclose(one, ws, atol=0.05)  # Adam takes small differences of a sum's order for steps.


@pytest.mark.parametrize("charge", ["near", "together"])
def test_what_leaves_the_prior_is_charged_for(charge: str) -> None:
    G = tiny.network().G_ema
    prior = prior_of(sample_w(G, PEOPLE))

    def cost(u: torch.Tensor) -> float:
        return float((u if charge == "near" else u - u.mean(dim=1, keepdim=True)).square().mean())

    found = []
    for weight in (0.0, 3.0):
        *_, last = walk(G, prior, tiny_person.photo(G), Search(steps=12, structure=0.0, **{"near": 0.0, "together": 0.0, charge: weight}))
        found.append(cost(last.u))
    assert found[1] < 0.5 * found[0]


def test_the_search_starts_at_the_latent_whose_picture_is_nearest() -> None:
    G = tiny.network().G_ema
    w = sample_w(G, PEOPLE)
    ws = invert(G, prior_of(w), tiny.images(G, range(17, 18)), Search(steps=0), starts=w)
    assert torch.allclose(ws, w[17].expand_as(ws), atol=1e-4)
