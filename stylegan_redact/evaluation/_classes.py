# SPDX-License-Identifier: Apache-2.0
"""What became of a conditional network's classes: of the others when a feature was redacted in one, and of all when a whole class was."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from stylegan_redact.estimates import mean_interval
from stylegan_redact.evaluation._ask import ask
from stylegan_redact.evaluation._paired import PairedImages, rate
from stylegan_redact.evaluation._table import format_estimate
from stylegan_redact.types import Estimate, RedactError

MOST_OF_OTHERS = 2_000
"""Seeds of other classes to look at: a mean of so many images is sharp enough, and the drawing is what takes time."""

Draw = Callable[[str, bool, Sequence[int]], PairedImages]
"""(way in, the class itself? or the others, seeds) -> pairs of images before and after."""


class NoClassifier:
    """A detector that knows nothing: a class needs none to be redacted, and images can be compared without a judge."""

    differentiable = False
    attributes: tuple[str, ...] = ()

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        """[n, 0]."""
        return img.new_zeros([len(img), 0])


def other_classes(pairs: PairedImages, feature: str, keep: tuple[str, ...] = ()) -> dict[str, Estimate]:
    """What a redaction in one class did to the images of the others: `other_classes_QUESTION/figure`.

    Args:
        pairs:   Of the other classes.
        feature: That was redacted in the one; the judge knows it.
        keep:    Attributes whose largest change is asked for.
    """
    answers = ask(pairs, feature, keep=keep, questions=["residual_rate", "collateral", "image_change"])
    return {f"other_classes_{key}": value for key, value in answers.items()} | {"other_classes_image_change/l1": _mean(pairs.l1)}


def whole_class(draw: Draw, feature: str, seeds: Sequence[int], accesses: tuple[str, ...]) -> dict[str, Estimate]:
    """How far the substituted class changed, through c and for those who kept latents, and that the other classes did not.

    Args:
        draw:     Gives the pairs. If its judge knows the feature, its rates are answered too.
        feature:  The class, as the judge calls it.
        seeds:    To measure on.
        accesses: Ways in; z, which is through c, and w are always measured.

    Returns:
        class_change/l1, /dissimilarity: of images of the class, the same seeds before and after.
        class_change/unchanged: how many of its images are what they were, to the last bit, percent.
        class_change/others_unchanged: the same of the other classes' images.
        residual_rate/...: by the judge, of images of the class; other_classes_residual_rate/... of those of the others.
        w_..., w_plus_...: of whoever kept latents of the class from before.
    """
    others = draw("z", False, seeds[:MOST_OF_OTHERS])
    answers: dict[str, Estimate] = {}
    for access in dict.fromkeys(("z", "w", *accesses)):
        pairs, prefix = draw(access, True, seeds), "" if access == "z" else f"{access}_"
        answers |= {
            f"{prefix}class_change/l1": _mean(pairs.l1),
            f"{prefix}class_change/dissimilarity": _mean(pairs.dissimilarity),
            f"{prefix}class_change/unchanged": rate(pairs.l1 == 0),
        }
        if access == "z":
            answers["class_change/others_unchanged"] = rate(others.l1 == 0)
        if feature in pairs.attributes:
            answers |= {f"{prefix}{key}": value for key, value in ask(pairs, feature, questions=["residual_rate"]).items()}
    if feature in others.attributes:
        answers |= {f"other_classes_{key}": value for key, value in ask(others, feature, questions=["residual_rate"]).items()}
    return answers


def leak(feature: str, estimates: dict[str, Estimate]) -> str:
    """One sentence: what those who kept latents of a substituted class still draw.

    Args:
        feature:   The class.
        estimates: As `whole_class` gives them.
    """
    if "w_class_change/unchanged" not in estimates:
        raise RedactError(f"what is left of {feature} was asked - it was not measured through w - measure it")
    same = estimates["w_class_change/unchanged"]
    told = f"{format_estimate(same)} of {same.n:,} images are what they were, to the last bit"
    if "w_residual_rate/rate_after" in estimates:
        told += f", and the judge sees {feature} in {format_estimate(estimates['w_residual_rate/rate_after'])}"
    still = f"still draws {feature}" if same.value == 100 else f"may still draw {feature}"
    return f"Whoever kept a w from before {still} (through w, {told}); so does whoever has the original file, and the discriminator still knows it."


def _mean(samples: torch.Tensor) -> Estimate:
    return mean_interval(samples) if len(samples) > 1 else Estimate(float(samples.mean()), -float("inf"), float("inf"), len(samples))
