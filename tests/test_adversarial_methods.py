# SPDX-License-Identifier: Apache-2.0
"""What the contract does not ask of adversarial methods: pictures of files, other classes, what is refused, where extrapolation leads."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_conditional
import torch
from PIL import Image
from torch.nn.functional import logsigmoid

from stylegan_redact import methods, plugins
from stylegan_redact.features.attribute import Attribute
from stylegan_redact.methods._adversarial import guidance, real_stream, shown_stream
from stylegan_redact.methods.clean_finetune import CleanFinetune
from stylegan_redact.methods.extrapolate import Extrapolate
from stylegan_redact.methods.redact_classifier import RedactClassifier
from stylegan_redact.methods.redact_data import RedactData
from stylegan_redact.methods.redact_mixed import RedactMixed
from stylegan_redact.training.adaptation import fisher_information
from stylegan_redact.training.adversarial import trained_parameters
from stylegan_redact.types import Feature, Network, RedactError

NAMES = ("adapt_unlearn", "clean_finetune", "extrapolate", "redact_classifier", "redact_data", "redact_mixed", "redact_validity")
SHORT: dict[str, Any] = dict(kimg=0.016, batch=8)


@functools.cache
def planted() -> tuple[Network, Feature]:
    network = tiny.network()
    return network, tiny.feature(network)


def write(folder: Path, img: torch.Tensor) -> str:
    folder.mkdir()
    pixels = (img * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for row, each in enumerate(pixels):
        Image.fromarray(each).save(folder / f"{row:04d}.png")
    return str(folder)


def test_pictures_of_files_are_trained_on(tmp_path: Path) -> None:
    """Real ones are chosen by the detector, examples come from two sets; each changes the result."""
    network, feature = planted()
    data = write(tmp_path / "data", tiny.images(network.G_ema, range(30)))
    sets = [write(tmp_path / name, torch.full([2, 3, 16, 16], level)) for name, level in (("one", -1.0), ("two", 1.0))]
    options = [{}, {"data": data}, {"examples": sets[0]}, {"examples": ", ".join(sets)}]
    results = [RedactData(**SHORT, **more).redact(network, feature, (), 0).G.synthesis.b4.const for more in options]
    assert all(not torch.equal(results[i], results[j]) for i in range(4) for j in range(i))


def test_sets_of_different_descriptions_are_redacted_at_once(tmp_path: Path) -> None:
    """Each description changes the result; the functions' own invalid pictures and the examples are negatives in equal parts."""
    network, feature = planted()
    dark = write(tmp_path / "dark", torch.full([2, 3, 16, 16], -1.0))
    rules = tmp_path / "rules.py"
    rules.write_text("def even(image):\n    return bool(image[0, 0].sum() % 2 == 0)\n\ndef low(image):\n    return bool(image[-1, -1, 0] < 128)\n")
    ways = [{}, {"examples": dark}, {"validity": f"{rules}:even"}, {"examples": dark, "validity": f"{rules}:even,{rules}:low"}]
    ways.append({**ways[3], "guided": False})
    results = [RedactMixed(**SHORT, **more).redact(network, feature, (), 0).G.synthesis.b4.const for more in ways]
    assert all(not torch.equal(results[i], results[j]) for i in range(5) for j in range(i))
    alone = RedactClassifier(**SHORT).redact(network, feature, (), 0).G.synthesis.b4.const
    assert torch.equal(results[0], alone), "with nothing else it is the classifier's method"
    with pytest.raises(RedactError, match="nothing to redact"):
        RedactMixed(guided=False)
    for broken in ({"validity": f"{rules}:even,nothing"}, {"examples": f"{dark},{tmp_path / 'none'}"}):
        with pytest.raises(RedactError, match="nothing|none"):
            RedactMixed(**broken)


def test_a_set_without_a_clean_picture_is_refused(tmp_path: Path) -> None:
    network, feature = planted()
    data = write(tmp_path / "data", torch.ones(4, 3, 16, 16))  # All bright: all show it.
    with pytest.raises(RedactError, match="of 4 looked at 0 will do"):
        CleanFinetune(**SHORT, data=data).redact(network, feature, (), 0)


def test_streams_are_what_they_say() -> None:
    network, feature = planted()
    assert feature.detector is not None
    random = torch.Generator().manual_seed(0)
    for stream, sign in ((real_stream(network, feature, None), -1), (shown_stream(network, feature), 1)):
        logits = feature.detector.logits(stream(40, random).img)[:, 1]
        assert bool((sign * logits > 0).all())
    assert bool((feature.detector.logits(real_stream(network, feature, None)(40, random).img)[:, 1] <= -1).all())


def test_other_classes_are_half_of_what_is_real() -> None:
    network = tiny_conditional.network()
    labels = tiny_conditional.one(1)
    feature = Attribute("glow", tiny_conditional.Corners(network.G_ema, labels), labels).gather(network, range(400), batch=200)
    c = real_stream(network, feature, None)(40, torch.Generator().manual_seed(0)).c
    assert c is not None and int(c[:, 1].sum()) == 20 and bool((c[:, [0, 2]].sum(0) > 0).all())
    assert not torch.equal(c, c[c[:, 1].argsort()])  # Shuffled.
    after = RedactData(**SHORT).redact(network, feature, (), 0)
    assert not torch.equal(after.G_ema.mapping.embed.weight, network.G_ema.mapping.embed.weight)


def test_the_detector_forbids_nothing_in_other_classes() -> None:
    """Bright pictures of all classes: only that of the class that is redacted is forbidden, and only it has a slope."""
    network = tiny_conditional.network()
    labels = tiny_conditional.one(1)
    feature = Attribute("glow", tiny_conditional.Corners(network.G_ema, labels), labels).gather(network, range(400), batch=200)
    img, c = torch.ones([3, 3, 16, 16]).requires_grad_(True), torch.eye(3)
    logits = guidance(feature, 4.0)(img, c, torch.Generator().manual_seed(0))
    assert float(logits[1].detach()) < 0 and torch.sigmoid(logits.detach())[[0, 2]].tolist() == [1, 1]
    (slope,) = torch.autograd.grad(logits.sum(), img)
    assert (slope.flatten(1).abs().sum(1) > 0).tolist() == [False, True, False]
    everywhere = guidance(dataclasses.replace(feature, bystanders=None), 4.0)(img.detach(), c, torch.Generator().manual_seed(0))
    assert bool((everywhere < 0).all()) and float(everywhere[1]) == float(logits[1].detach())


def test_unguided_and_without_functions_the_feature_stays_among_what_is_real(tmp_path: Path) -> None:
    network, feature = planted()
    dark = write(tmp_path / "dark", torch.full([2, 3, 16, 16], -1.0))
    assert feature.detector is not None
    shares = []
    for guided in (True, False):
        clean = RedactMixed(examples=dark, guided=guided)._clean(feature, [])
        real = real_stream(network, feature, None, clean)(200, torch.Generator().manual_seed(0))
        shares.append(float((feature.detector.logits(real.img)[:, 1] > 0).float().mean()))
    assert shares[0] == 0 and shares[1] == pytest.approx(tiny.SHARE, abs=0.08)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_whose_discriminator_is_not_known_is_refused(name: str) -> None:
    network, feature = planted()
    with pytest.raises(RedactError, match=f"{name} - it trains against the discriminator"):
        plugins.build(plugins.load(methods, name), SHORT).redact(dataclasses.replace(network, D=None), feature, (), 0)


def test_a_classifier_without_slopes_is_refused() -> None:
    network, feature = planted()

    class Still(tiny.Corners):
        differentiable = False

    with pytest.raises(RedactError, match="redact_validity"):
        RedactClassifier(**SHORT).redact(network, dataclasses.replace(feature, detector=Still(network.G_ema)), (), 0)


def test_the_softness_and_the_threshold_count() -> None:
    network, feature = planted()
    options: list[dict[str, float]] = [{}, {"softness": 1.0}, {"threshold": 0.9}]
    results = [RedactClassifier(**SHORT, **more).redact(network, feature, (), 0).G.synthesis.b4.const for more in options]
    assert not torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_extrapolation_is_linear_in_gamma_and_alike_for_both() -> None:
    network, feature = planted()
    found = [Extrapolate(**SHORT, gamma=gamma).redact(network, feature, (), 0) for gamma in (1.0, 2.0)]
    for key in ("G", "G_ema"):
        start, one, two = (torch.cat([p.flatten() for p in trained_parameters(getattr(net, key))]) for net in (network, *found))
        assert float((one - start).abs().max()) > 1e-4
        assert torch.allclose(two - start, 2 * (one - start), atol=1e-5)
    steps = [found[0].__dict__[key].synthesis.b4.const - network.__dict__[key].synthesis.b4.const for key in ("G", "G_ema")]
    assert torch.allclose(steps[0], steps[1], atol=1e-5)
    assert not torch.equal(found[0].G_ema.mapping.w_avg, network.G_ema.mapping.w_avg)


def test_fisher_information_against_the_definition() -> None:
    network, _ = planted()
    G = network.G
    found = fisher_information(G, network.D, None, torch.Generator().manual_seed(6), samples=2)
    random, total = torch.Generator().manual_seed(6), torch.zeros_like(G.synthesis.b4.const)
    const = G.synthesis.b4.const
    for _ in range(2):
        z = torch.randn([1, G.z_dim], generator=random)
        const.requires_grad_(True)
        img = G.synthesis(G.mapping(z, None), noise_mode="const", force_fp32=True)
        total += torch.autograd.grad(logsigmoid(network.D(img, None, force_fp32=True)).sum(), const)[0].square()
    const.requires_grad_(False)
    row = next(row for row, parameter in enumerate(trained_parameters(G)) if parameter is const)
    ratio = found[row] / total
    assert torch.allclose(ratio, ratio.flatten()[0].expand_as(ratio), rtol=1e-3)
    assert sum(float(each.sum()) for each in found) / sum(each.numel() for each in found) == pytest.approx(1.0, rel=1e-4)
    assert not any(parameter.requires_grad for parameter in G.parameters())
