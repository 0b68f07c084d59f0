# SPDX-License-Identifier: Apache-2.0
"""The objective of Kong and Chaudhuri: values worked by hand, the plain GAN as its limit, its optimum on a discrete example, slopes."""

import math

import pytest
import torch
from torch.nn.functional import softplus

from stylegan_redact.losses.redaction import RedactionLoss, smoothed
from stylegan_redact.types import RedactError

EXACT = 1e-12
KONG = RedactionLoss(alpha_plus=0.95, alpha_minus=0.05, generated=0.8)


def logits(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def log(D: float) -> float:
    return math.log(D)


def test_values_by_hand() -> None:
    """Logits 0, ln 3, ln 4 are D = 1/2, 3/4, 4/5.

    real, label .95, D = 3/4: -.95 ln .75 - .05 ln .25; generated, .05, D = 1/2: ln 2; negative, .05, D = 4/5: -.05 ln .8 - .95 ln .2.
    """
    found = KONG.discriminator(logits(log(3)), logits(0), logits(log(4)))
    real = -0.95 * log(0.75) - 0.05 * log(0.25)
    negative = -0.05 * log(0.8) - 0.95 * log(0.2)
    assert float(found) == pytest.approx(real + 0.8 * log(2) + 0.2 * negative, abs=EXACT)
    assert float(KONG.generator(logits(log(3)))) == pytest.approx(-log(0.75), abs=EXACT)


def test_the_guided_discriminator_by_hand() -> None:
    """f = 1/4 < tau and D = 3/4: D_f = .05 + .95 * 3/16 = .228125. f = 3/4: D_f = D."""
    forbidden, d = logits(-log(3)), logits(log(3))
    guided = 0.05 + 0.95 * 3 / 16
    assert float(KONG.generator(d, forbidden)) == pytest.approx(-log(guided), abs=EXACT)
    assert float(KONG.generator(d, -forbidden)) == pytest.approx(-log(0.75), abs=EXACT)
    plain = RedactionLoss(0.95, 0.05)
    found = plain.discriminator(logits(0), d, allowed=forbidden)
    assert float(found) == pytest.approx(log(2) - 0.05 * log(guided) - 0.95 * log(1 - guided), abs=EXACT)
    assert float(plain.discriminator(logits(0), d, allowed=-forbidden)) == float(plain.discriminator(logits(0), d))


def test_the_limit_is_the_plain_gan() -> None:
    real, fake = logits(-2, 0.3, 5), logits(1, -4, 0.2)
    assert torch.allclose(RedactionLoss().discriminator(real, fake), softplus(-real).mean() + softplus(fake).mean(), atol=EXACT)
    assert torch.allclose(RedactionLoss().generator(fake), softplus(-fake).mean(), atol=EXACT)


@pytest.mark.parametrize("generated", [0.25, 0.8, 1.0])
@pytest.mark.parametrize(("plus", "minus"), [(0.95, 0.05), (1.0, 0.0), (0.7, 0.2)])
def test_the_optimum_on_three_points(generated: float, plus: float, minus: float) -> None:
    """Clean data p, a generator g, and negatives n on three points, the third one in the redaction set; D* = (a+ p + a- p_fake) / (p + p_fake)."""
    p, g, n = logits(0.6, 0.4, 0.0), logits(0.3, 0.5, 0.2), logits(0.0, 0.0, 1.0)
    fakes = generated * g + (1 - generated) * n
    best = ((plus * p + minus * fakes) / (p + fakes)).clamp(1e-9, 1 - 1e-9)
    d = torch.logit(best).requires_grad_()

    def loss(at: torch.Tensor) -> torch.Tensor:
        return (p * smoothed(at, plus) + fakes * smoothed(at, minus)).sum()

    assert float(torch.autograd.grad(loss(d), d)[0].abs().max()) < 1e-8
    assert all(float(loss(d.detach() + step)) > float(loss(d.detach())) for step in (logits(0.1, 0, 0), logits(0, -0.1, 0), logits(0, 0, 0.1)))
    assert float(best[2]) == pytest.approx(minus, abs=1e-8)  # On the redaction set the verdict is "fake".
    # The module's means over samples are these expectations: ten of each kind, in these proportions.
    real, fake, negative = (d.detach().repeat_interleave((10 * share).round().long()) for share in (p, g, n))
    found = RedactionLoss(plus, minus, generated).discriminator(real, fake, None if generated == 1 else negative)
    assert float(found) == pytest.approx(float(loss(d.detach())), rel=1e-9)


@pytest.mark.parametrize("loss", [KONG, RedactionLoss(1.0, 0.0, 0.5), RedactionLoss(0.9, 0.1, 0.8, threshold=0.9)])
def test_slopes(loss: RedactionLoss) -> None:
    random = torch.Generator().manual_seed(3)
    inputs = [(2 * torch.randn(5, generator=random, dtype=torch.float64)).requires_grad_() for _ in range(4)]
    assert torch.autograd.gradcheck(loss.discriminator, inputs)
    assert torch.autograd.gradcheck(loss.generator, [inputs[1], inputs[3]])


@pytest.mark.parametrize("minus", [0.0, 0.05])
def test_far_logits_stay_finite(minus: float) -> None:
    loss = RedactionLoss(1 - minus, minus, 0.5)
    far = torch.tensor([-1e3, 1e3, -1e3, 1e3], requires_grad=True)
    allowed = torch.tensor([-1e3, -1e3, 1e3, 1e3], requires_grad=True)
    total = loss.discriminator(far, far, far, allowed) + loss.generator(far, allowed)
    assert bool(torch.isfinite(total))
    assert all(bool(torch.isfinite(slope).all()) for slope in torch.autograd.grad(total, [far, allowed]))


def test_the_forbidden_is_drawn_to_what_is_allowed() -> None:
    """The slope of f reaches the generator where a picture is forbidden, and only there."""
    allowed = logits(-1, 1).requires_grad_()
    (slope,) = torch.autograd.grad(KONG.generator(logits(0, 0), allowed), allowed)
    assert float(slope[0]) < -0.01 and float(slope[1]) == 0


@pytest.mark.parametrize("bad", [{"alpha_minus": 1.0}, {"alpha_plus": 1.2}, {"generated": 0.0}, {"threshold": 1.0}])
def test_settings_that_mean_nothing_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(RedactError, match="give such"):
        RedactionLoss(**bad)


def test_negatives_and_their_share_go_together() -> None:
    one = logits(0)
    with pytest.raises(RedactError, match="negatives"):
        KONG.discriminator(one, one)
    with pytest.raises(RedactError, match="negatives"):
        RedactionLoss().discriminator(one, one, one)
