# SPDX-License-Identifier: Apache-2.0
"""The adversarial step: its penalties against slow formulas, what is trained and what stays, portions, labels, and views for all streams alike."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import tiny
import tiny_conditional
import torch
from tiny_run import RESOLUTION, generator

from stylegan_redact.losses.redaction import RedactionLoss
from stylegan_redact.network import copy_network
from stylegan_redact.networks.stylegan2 import Discriminator
from stylegan_redact.training import adversarial
from stylegan_redact.training.adversarial import Game, Rules, Streams, average, fine_tune, portion_size, viewed
from stylegan_redact.training.schedule import Schedule
from stylegan_redact.training.streams import Images, stored
from stylegan_redact.types import RedactError

PLAIN = Rules(r1=0.0, paths=0.0)
EXACT = 1e-5
"""float32 of small networks."""


def pictures(n: int, seed: int = 5) -> torch.Tensor:
    return torch.rand([n, 3, RESOLUTION, RESOLUTION], generator=torch.Generator().manual_seed(seed)) * 2 - 1


def game(streams: Streams | None = None, rules: Rules = PLAIN, **more: Any) -> Game:
    net = more.pop("net", None) or tiny.network()
    values = dict(steps=1, batch=8, lr=0.002, seed=0) | more
    return Game(
        copy.deepcopy(net.G), copy.deepcopy(net.D), streams or Streams(stored(pictures(8))), RedactionLoss(), rules, Schedule(**values),
        torch.Generator().manual_seed(1),
    )  # fmt: skip


class Linear(torch.nn.Module):
    """D(x) = a . x: R1 is |a|^2 / 2 times gamma."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(pictures(1)[0])

    def forward(self, img: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
        return (img * self.a).sum([1, 2, 3])[:, None]


def test_the_slope_penalty_of_a_linear_discriminator() -> None:
    found = game(rules=Rules(r1=3.0, r1_interval=7))
    found.D = Linear()
    penalty = found._slope_penalty(Images(pictures(4)))
    assert float(penalty.detach()) == pytest.approx(7 * 3 / 2 * float(found.D.a.detach().square().sum()), rel=EXACT)
    penalty.backward()
    assert torch.allclose(found.D.a.grad, 7 * 3 * found.D.a.detach(), rtol=1e-4)


class Matrix(torch.nn.Module):
    """A synthesis network that is linear in ws [n, 2, 8]."""

    block_resolutions = (4,)

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn([16, 3 * 4 * 4], generator=torch.Generator().manual_seed(2)))

    def forward(self, ws: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return (ws.flatten(1) @ self.weight).view(-1, 3, 4, 4)


def test_the_path_penalty_of_a_linear_generator() -> None:
    """|J' y| of each row of ws, rows' mean square, against the matrix itself; the first mean is the first lengths' own."""
    found = game(rules=Rules(paths=2.0, path_interval=4))
    found.G.synthesis = Matrix()
    ws = torch.randn([8, 2, 8], generator=torch.Generator().manual_seed(3)).requires_grad_(True)
    state = found.generator.get_state()
    penalty = found._path_penalty(ws)
    found.generator.set_state(state)
    y = torch.randn([4, 3, 4, 4], generator=found.generator).flatten(1) / 4
    lengths = (y @ found.G.synthesis.weight.detach().T).view(4, 2, 8).square().sum(2).mean(1).sqrt()
    assert float(penalty.detach()) == pytest.approx(4 * 2 * float((lengths - lengths.mean()).square().mean()), rel=1e-4)
    assert float(found.mean_length) == pytest.approx(float(lengths.mean()), rel=EXACT)
    penalty.backward()
    assert float(found.G.synthesis.weight.grad.abs().sum()) > 0


def test_lazy_penalties_come_at_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    found = game(rules=Rules(r1_interval=3, path_interval=2))
    steps: dict[str, list[int]] = {"_slope_penalty": [], "_path_penalty": []}
    for name, seen in steps.items():
        monkeypatch.setattr(found, name, lambda *args, seen=seen: seen.append(found.done) or torch.zeros([], requires_grad=True))
    for _ in range(5):
        found.step()
    assert steps == {"_slope_penalty": [0, 3], "_path_penalty": [0, 2, 4]}


def test_a_step_says_what_the_loss_says() -> None:
    """Figures of the first step, whose G and D are those of the file, against the formula."""
    real, net = pictures(8), tiny.network()
    found = game(Streams(lambda n, generator, portion: Images(real[:n]), lambda n, generator, portion: Images(-real[:n])))
    found.loss = RedactionLoss(0.9, 0.1, 0.7)
    z = torch.randn([8, net.G.z_dim], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        fake = net.G.synthesis(net.G.mapping(z, None), noise_mode="const", force_fp32=True)
        d = [net.D(img, None, force_fp32=True).flatten() for img in (real, fake, -real)]
    figures = found.step()
    assert figures["generator"] == pytest.approx(float(torch.nn.functional.softplus(-d[1]).mean()), rel=EXACT)
    assert figures["discriminator"] == pytest.approx(float(found.loss.discriminator(*d)), rel=EXACT)


def test_portions_add_up() -> None:
    """Without statistics over a batch, portions give the step that the whole batch gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        D = Discriminator(0, RESOLUTION, 3, channel_base=128, channel_max=8, epilogue_kwargs={"mbstd_num_channels": 0})
    net, states = dataclasses.replace(tiny.network(), D=D), []
    for most in (None, 3):
        found = game(net=net, micro_batch=most, batch=7)
        found.step(share=1e-6)  # Slopes are compared, not Adam's step, which is of one size whatever they are.
        states.append(torch.cat([p.grad.flatten() for p in [*found.critic_parameters, *found.parameters] if p.grad is not None]))
    assert found.portion == 3
    assert torch.allclose(states[0], states[1], rtol=1e-3, atol=1e-6)


def test_streams_are_asked_for_portions_and_the_centre_moves_once_a_step() -> None:
    """By the mean over all portions, a share that the game says; in a short training far more than StyleGAN's share."""
    asked: list[int | None] = []
    found = game(Streams(lambda n, generator, portion: asked.append(portion) or Images(pictures(n))), micro_batch=4)
    assert found.centre_keep == 0.998
    found.centre_keep = 0.75
    z = torch.randn([8, found.G.z_dim], generator=torch.Generator().manual_seed(1))
    was, mean = found.G.mapping.w_avg.clone(), found.G.mapping(z, None)[:, 0].mean(dim=0)
    found.step()
    assert asked == [4] and torch.allclose(found.G.mapping.w_avg, 0.75 * was + 0.25 * mean, atol=1e-6)
    net = tiny.network()
    net.G.mapping.w_avg += 100
    after = copy_network(net)
    fine_tune(net, after, Streams(stored(pictures(8))), RedactionLoss(), PLAIN, Schedule(10, 4, 0.001, 0))
    assert float(after.G.mapping.w_avg.abs().max()) < 5 and torch.equal(after.G_ema.mapping.w_avg, after.G.mapping.w_avg)


def test_figures_have_what_penalties_add() -> None:
    """So that one that is not finite is seen before the step that it spoils is taken for a good one."""
    found = game(rules=Rules(r1=1.0, paths=2.0))
    weight = found.G.mapping.fc0.weight
    figures = [found.step(), found.step()]
    assert figures[0]["penalties"] > 0 == figures[1]["penalties"]
    found.streams = dataclasses.replace(found.streams, penalty=lambda: 3 * weight.sum())
    expected = 3 * float(weight.detach().sum())
    assert found.step()["penalties"] == pytest.approx(expected, rel=EXACT)


def test_portions_fill_groups() -> None:
    D = tiny.network().D  # Groups of four.
    assert [portion_size(D, 16, most) for most in (None, 100, 9, 2)] == [16, 16, 8, 4]
    assert portion_size(D, 3, None) == 3
    with pytest.raises(RedactError, match="multiple"):
        portion_size(D, 6, None)


def test_all_streams_are_seen_through_views_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, float]] = []
    monkeypatch.setattr(adversarial, "viewed", lambda img, share, generator: seen.append((len(img), share)) or img)
    stream = stored(pictures(8))
    found = game(Streams(stream, stream), Rules(r1=1.0, paths=0.0, augment=0.3))
    found.loss = RedactionLoss(0.9, 0.1, 0.5)
    found.step()
    assert seen == [(8, 0.3)] * 5  # Generated for G, generated, negative and real for D, real for R1.


def test_a_share_of_pictures_is_seen_through_a_view() -> None:
    img, random = pictures(200), torch.Generator().manual_seed(4)
    assert viewed(img, 0.0, random) is img
    changed = (viewed(img, 0.3, random) != img).flatten(1).any(1)
    assert 30 <= int(changed.sum()) <= 90
    assert bool((viewed(img, 1.0, random) != img).flatten(1).any(1).all())


def test_generated_pictures_have_the_labels_of_real_ones() -> None:
    net = tiny_conditional.network()
    c = torch.eye(3)[[2] * 8]
    found = game(Streams(stored(pictures(8), c)), net=net)
    labels: list[torch.Tensor] = []
    found.G.mapping.register_forward_pre_hook(lambda module, args: labels.append(args[1]))
    found.D.register_forward_pre_hook(lambda module, args: labels.append(args[1]))
    found.step()
    assert len(labels) == 4 and all(torch.equal(each, c) for each in labels)


@pytest.mark.parametrize("architecture", ["stylegan2", "stylegan3"])
def test_what_is_trained_and_what_stays(architecture: str) -> None:
    net = tiny_conditional.network(architecture)
    c = torch.eye(3)[[0, 1, 2, 0]]
    after = copy_network(net)
    schedule = Schedule(2, 4, 0.01, 0)
    fine_tune(net, after, Streams(stored(pictures(4), c)), RedactionLoss(), Rules(augment=0.5, half_life=1.0), schedule)
    was, now, mean = (each.state_dict() for each in (net.G, after.G, after.G_ema))
    stays = [name for name in was if torch.equal(was[name], now[name])]
    assert "mapping.w_avg" not in stays and "mapping.embed.weight" not in stays
    fixed = ("noise_strength", "noise_const", "resample_filter", "magnitude_ema", "input.affine", "up_filter", "down_filter")
    fixed += ("input.transform", "input.freqs", "input.phases")
    assert all(any(part in name for part in fixed) for name in stays)
    assert all(name in stays for name in was if any(part in name for part in fixed))
    assert not torch.equal(mean["mapping.fc0.weight"], now["mapping.fc0.weight"])
    assert torch.equal(mean["mapping.w_avg"], now["mapping.w_avg"])
    assert all(torch.equal(a, b) for a, b in zip(net.D.parameters(), tiny_conditional.network(architecture).D.parameters(), strict=True))


def test_the_average_by_hand() -> None:
    G, G_ema = generator(1), generator(2)
    was, aim = G_ema.synthesis.b4.const.clone(), G.synthesis.b4.const
    average(G_ema, G, 0.75)
    assert torch.allclose(G_ema.synthesis.b4.const, 0.75 * was + 0.25 * aim, atol=1e-6)


@pytest.mark.parametrize(("architecture", "name"), [("stylegan2", "b16.conv1.noise_strength"), ("stylegan3", "input.affine.bias")])
def test_the_average_stays_where_nothing_is_trained(architecture: str, name: str) -> None:
    net = tiny_conditional.network(architecture)
    mine, theirs = (each.synthesis.get_parameter(name) for each in (net.G_ema, net.G))
    theirs.data += 1
    was = mine.clone()
    average(net.G_ema, net.G, 0.5)
    assert torch.equal(mine, was)


def test_a_penalty_reaches_the_weights() -> None:
    streams = Streams(stored(pictures(8)))
    free = game(streams)
    free.step()
    found = game(streams)
    weight = found.G.mapping.fc0.weight
    found.streams = Streams(streams.real, penalty=lambda: 1e6 * weight.sum())
    before = weight.detach().clone()
    found.step()
    assert bool((weight < before).all()) and not bool((free.G.mapping.fc0.weight < before).all())


def test_a_discriminator_that_is_not_known_is_refused() -> None:
    with pytest.raises(RedactError, match="discriminator"):
        adversarial.trainable_copy(None)
