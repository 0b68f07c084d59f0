# SPDX-License-Identifier: Apache-2.0
"""Every attack finds the feature in a network that has it, and not in one that cannot draw it; the spaces draw what they say."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import tiny_run
import torch

from stylegan_redact import asking, attacks, plugins
from stylegan_redact.attacks import Curve, Scene, Victim, _finetune
from stylegan_redact.attacks._curve import budgets_up_to
from stylegan_redact.attacks._space import SPACES, Space
from stylegan_redact.network import sample_w, synthesize
from stylegan_redact.networks.stylegan2 import Discriminator
from stylegan_redact.proof import attacking
from stylegan_redact.training.adversarial import Game
from stylegan_redact.types import Network, RedactError
from stylegan_redact.wspace.prior import Prior, prior_of, within

FEATURE = "glow"
SHARE = 0.2


class Bright:
    """How bright a corner is, above what four in five images have there."""

    differentiable = True
    attributes = (FEATURE,)

    def __init__(self, G: torch.nn.Module, size: int) -> None:
        self.size, self.limit = size, 0.0
        with torch.no_grad():
            self.limit = float(self._mean(synthesize(G, sample_w(G, range(1000, 1400)))).quantile(1 - SHARE))

    def _mean(self, img: torch.Tensor) -> torch.Tensor:
        return img[:, :, : self.size, : self.size].mean([1, 2, 3])

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        return 20 * (self._mean(img) - self.limit)[:, None]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def networks() -> tuple[Network, Network]:
    """One that shows the feature in a fifth of its images, and one whose images are all black."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        D = Discriminator(c_dim=0, img_resolution=16, img_channels=3, channel_base=128, channel_max=8)
    bright, dark = tiny_run.generator(), tiny_run.generator()
    for name, parameter in dark.synthesis.named_parameters():
        if ".torgb." in name and ".affine." not in name:
            parameter.data.fill_(-1.0 if name == "b16.torgb.bias" else 0.0)
    return Network(bright, D, bright), Network(dark, D, dark)


@pytest.fixture(scope="module")
def scene(networks: tuple[Network, Network]) -> Scene:
    G = networks[0].G_ema
    witnesses = (Bright(G, 9), Bright(G, 7))
    pictures = torch.ones([4, 3, 16, 16])
    empty = Scene(FEATURE, Bright(G, 8), witnesses, networks[0], None, (), range(50_000, 56_000), 32, pictures)
    starts = attacks.feature_free_in_all(empty, victims(networks), range(60_000, 61_000), 16)
    return Scene(FEATURE, Bright(G, 8), witnesses, networks[0], None, starts, range(50_000, 56_000), 32, pictures)


def victims(networks: tuple[Network, Network]) -> list[Victim]:
    return [Victim("before", networks[0]), Victim("after", networks[1])]


LATENT = {
    "random_search:draws=20:searches=10": 0.8,
    "cem:population=16:elite=4:generations=6:searches=6": 0.8,
    "gradient:space=z:steps=20": 0.5,
    "gradient:space=w:steps=20": 0.5,
    "gradient:space=w_plus:steps=20": 0.5,
    "gradient:space=s:steps=20": 0.5,
    "moon:radius=1.0:steps=10": 0.5,
}
"""Attack -> the share of searches that must succeed where the feature is common."""


@pytest.mark.parametrize("name", LATENT)
def test_a_search_finds_what_is_there_and_not_what_is_not(name: str, scene: Scene, networks: tuple[Network, Network]) -> None:
    (attack,) = attacking.parse([name]).values()
    before, after = (attack.attack(victim, scene, 0) for victim in victims(networks))
    costs = list(before.points)
    assert before.points[costs[-1]].value >= 100 * LATENT[name] and after.points[costs[-1]].value == 0
    values = [before.points[cost].value for cost in costs]
    assert costs == sorted(costs) and values == sorted(values) and before.points[costs[-1]].n == after.points[costs[-1]].n >= 6
    assert attack.attack(victims(networks)[0], scene, 0) == before


def test_starts_show_the_feature_in_no_victim(scene: Scene, networks: tuple[Network, Network]) -> None:
    assert len(set(scene.starts)) == 16
    for victim in victims(networks):
        assert not bool(scene.seen_rate(victim.G, scene.starts).any())
    with pytest.raises(RedactError, match="ask for fewer"):
        attacks.feature_free_in_all(scene, victims(networks), range(60_000, 60_010), 11)


def test_all_witnesses_have_to_see_it(scene: Scene) -> None:
    img = torch.full([2, 3, 16, 16], -1.0)
    img[1, :, :7, :7] = 1.0  # enough for the one who looks at 7 pixels
    img[1, :, 7:9] = img[1, :, :, 7:9] = -1.0
    alone = [witness.logits(img)[:, 0] > 0 for witness in scene.witnesses]
    assert bool(alone[1][1]) and scene.seen(img).tolist() == (alone[0] & alone[1]).tolist()


@pytest.mark.parametrize("name", SPACES)
def test_a_space_starts_at_the_seeds_images(name: str, networks: tuple[Network, Network]) -> None:
    G = networks[0].G_ema
    prior = prior_of(sample_w(G, range(400)))
    space = Space(name, G, prior, (3, 4), None)
    with torch.no_grad():
        images = synthesize(G, sample_w(G, [3, 4]))
        assert torch.allclose(space.draw(space.start), images, atol=2e-5)
    moved = [start + 1 for start in space.start]
    with torch.no_grad():
        assert float((space.draw(moved) - space.draw(space.start)).abs().max()) > 1e-3
        assert torch.equal(synthesize(G, sample_w(G, [3, 4])), images)  # style layers are themselves again


def test_the_shell_holds_what_is_outside_and_lets_be_what_is_inside(networks: tuple[Network, Network]) -> None:
    prior = prior_of(sample_w(networks[0].G_ema, range(400)))
    w = sample_w(networks[0].G_ema, range(1000, 2000))
    u = prior.to_u(w)
    assert torch.allclose(prior.to_w(u), w, atol=1e-4)
    assert 0.97 <= float((u.norm(dim=1) <= prior.radius).float().mean()) <= 1.0
    assert float(torch.cov(u.T).diagonal().mean()) == pytest.approx(1, abs=0.15)
    assert torch.equal(within(torch.tensor([[0.3, 0.4], [3.0, 4.0]]), torch.tensor(1.0)), torch.tensor([[0.3, 0.4], [0.6, 0.8]]))
    space = Space("w_plus", networks[0].G_ema, prior, (3,), None)
    far = [start * 100 for start in space.start]
    space.draw_back(far)
    limit = max(prior.radius, float(space.start[0].norm(dim=-1).max()))
    assert float(far[0].norm(dim=-1).max()) <= limit * 1.0001 and isinstance(prior, Prior)


def test_relearning_brings_the_feature_back_and_says_what_it_cost(scene: Scene, networks: tuple[Network, Network]) -> None:
    (attack,) = attacking.parse(["relearn:examples=20:steps=60:lr=0.05:images=100"]).values()
    curve = attack.attack(victims(networks)[1], scene, 0)
    assert curve.points[0].value == 0 and curve.points[60].value > 3 and set(curve.points) == {0, 1, 2, 5, 10, 20, 50, 60}
    before = {name: tensor.clone() for name, tensor in networks[1].G_ema.state_dict().items()}
    assert all(torch.equal(tensor, before[name]) for name, tensor in networks[1].G_ema.state_dict().items())
    (many,) = attacking.parse(["relearn:examples=5000"]).values()
    with pytest.raises(RedactError, match="ask for fewer"):
        many.attack(victims(networks)[1], scene, 0)


def test_benign_training_needs_a_discriminator_and_leaves_the_victim_alone(
    scene: Scene, networks: tuple[Network, Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    (attack,) = attacking.parse(["resurface:steps=2:images=64"]).values()
    games: list[Any] = []
    monkeypatch.setattr(_finetune, "Game", lambda *args: games.append(Game(*args)) or games[-1])
    nets = {"G": networks[1].G_ema, "D": networks[1].D}
    before = {key: {name: tensor.clone() for name, tensor in net.state_dict().items()} for key, net in nets.items()}
    curve = attack.attack(victims(networks)[1], scene, 0)
    assert set(curve.points) == {0, 1, 2}
    for key, net in nets.items():
        assert all(torch.equal(tensor, before[key][name]) for name, tensor in net.state_dict().items())
        trained = getattr(games[0], key).state_dict()
        assert not all(torch.equal(trained[name], tensor) for name, tensor in before[key].items()), key
    G = networks[1].G_ema
    with pytest.raises(RedactError, match="leave out this attack"):
        attack.attack(Victim("after", Network(G, None, G)), scene, 0)


def test_what_the_seeds_and_images_do_not_suffice_for_is_refused(scene: Scene, networks: tuple[Network, Network]) -> None:
    victim = victims(networks)[0]
    for name, there in (("random_search:draws=600:searches=11", "6,000 fresh seeds"), ("resurface:images=4001", "6,000 fresh seeds")):
        (attack,) = attacking.parse([name]).values()
        with pytest.raises(RedactError, match=there):
            attack.attack(victim, scene, 0)
    everywhere = Bright(networks[0].G_ema, 8)
    everywhere.limit = -9.0
    (attack,) = attacking.parse(["resurface:steps=1:images=10"]).values()
    with pytest.raises(RedactError, match="none of 2000 of the original is"):
        attack.attack(victim, dataclasses.replace(scene, attacker=everywhere), 0)


def test_an_inversion_comes_closer_and_tells_how_far_out_it_went(scene: Scene, networks: tuple[Network, Network]) -> None:
    (attack,) = attacking.parse(["inversion:steps=30:error=0.9"]).values()
    before, after = (attack.attack(victim, scene, 0) for victim in victims(networks))
    assert before.points[30].value == 100 and after.points[30].value == 0  # white pictures
    assert before.figures["error_at_the_end"].value < after.figures["error_at_the_end"].value
    distances = [curve.figures["distance_at_error_0.9_where_reached"] for curve in (before, after)]
    assert distances[0].value >= 0 and distances[0].n == 4 and math.isnan(distances[1].value)
    reached = [curve.figures["reached_error_0.9"] for curve in (before, after)]
    assert [each.value for each in reached] == [100, 0] and reached[1].high > 50 and reached[1].n == 4


def test_a_curve_counts_first_hits() -> None:
    curve = Curve.of_first_hits(torch.tensor([1.0, 3.0, math.inf, 10.0]), budgets_up_to(10), "steps")
    assert {cost: estimate.value for cost, estimate in curve.points.items()} == {1: 25, 2: 25, 5: 50, 10: 75}
    assert curve.points[10].low < 75 < curve.points[10].high and curve.points[10].n == 4
    assert budgets_up_to(30) == (1, 2, 5, 10, 20, 30)
    text = attacks.render({"gradient:space=z": {"after": curve, "before": curve}})
    assert text.splitlines()[0].startswith("gradient:space=z: starts where it came back, %, by steps") and text.count("n = 4") == 2


def test_presets_name_attacks_that_there_are() -> None:
    assert {type(each) for each in attacking.parse(["all"]).values()} == {
        plugins.load(asking.ATTACKS, name) for name in plugins.names(asking.ATTACKS)
    }
    with pytest.raises(RedactError, match="'w_minus'"):
        attacking.parse(["gradient:space=w_minus"])
