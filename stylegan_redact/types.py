# SPDX-License-Identifier: Apache-2.0
"""The values that flow from step to step. All frozen; this module imports nothing, not even torch: command lines need its errors first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, float, dict[str, float]], None]
"""How a step tells how far it is: name of the stage, share done in [0, 1], figures."""

ACCESSES = ("z", "w", "w_plus")
"""Where a user enters a network: a seed, a latent kept from the network before, or one mixed from two such latents."""


class RedactError(ValueError):
    """A request that cannot be met. The text says what was asked, what there is, and what to do."""


class UntrustedFile(RedactError):
    """A file that wants what no honest file of its kind needs: to run something, or to fill the memory. It was not obeyed."""


@dataclass(frozen=True)
class Network:
    """What a StyleGAN pickle holds, as modules of ours."""

    G: Any
    """Generator as trained; a torch.nn.Module, here and below."""
    D: Any
    """Discriminator."""
    G_ema: Any
    """Moving average of G: the one that tools sample from."""
    augment_pipe: Any = None
    """Whatever the file holds under this key, opaque."""
    training_set_kwargs: Mapping[str, Any] | None = None
    """Description of the training set as stored; may name a private path."""
    sha256: str = ""
    """Of the file that the network was read from, 64 hexadecimal digits; empty for a network that was made in memory."""


@dataclass(frozen=True)
class LabelledLatents:
    """Latents of generated images with what a detector (or a person) says of them."""

    w: torch.Tensor
    """[n, w_dim] as the mapping network gives them, without truncation."""
    score: torch.Tensor
    """[n], > 0: the feature shows. A logit where a detector gave it."""
    seeds: torch.Tensor | None = None
    """[n] int64, NVIDIA's seeds that z was drawn with, or None."""
    logits: torch.Tensor | None = None
    """[n, a] of all that the detector knows, or None; the feature's are among them."""
    c: torch.Tensor | None = None
    """[n, c_dim] labels that w was drawn with; None: of an unconditional network."""


@dataclass(frozen=True)
class Bystanders:
    """Latents that a redaction is to leave as they are, whatever they show: those of other classes."""

    w: torch.Tensor
    """[n, w_dim]."""
    c: torch.Tensor
    """[n, c_dim] labels that w was drawn with."""


@dataclass(frozen=True)
class Subspace:
    """Where a feature lives in W."""

    basis: torch.Tensor
    """[k, w_dim], orthonormal rows, pointing to where the feature shows."""
    threshold: torch.Tensor
    """[k], in units of w: past it the feature shows."""
    accuracy: float
    """Balanced accuracy on held-out latents, in [0, 1]."""


@runtime_checkable
class Detector(Protocol):
    """Says of images whether they show a feature."""

    @property
    def differentiable(self) -> bool:
        """True if gradients of the logits with respect to the images mean something."""
        ...

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes it knows, in the order of its logits' columns."""
        ...

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        """[n, C, H, W] in [-1, 1] -> [n, len(attributes)]; > 0: shows."""
        ...


@dataclass(frozen=True)
class Feature:
    """All that is known about the feature. Anything but the name may be None."""

    name: str
    latents: LabelledLatents | None = None
    subspace: Subspace | None = None
    detector: Detector | None = None
    """Knows `name` among its attributes."""
    examples: torch.Tensor | None = None
    """[n, C, H, W] images that show the feature."""
    label: int | None = None
    """The class of a conditional network that the feature is, where it is a whole class."""
    bystanders: Bystanders | None = None
    """Of the classes that are not to be redacted, where one class is."""
    parts: tuple[Feature, ...] = ()
    """Of several features at once (`several.together`): each alone, by name; `latents.score` is then above 0 where any shows. Empty: it is one."""

    @property
    def each(self) -> tuple[Feature, ...]:
        """The features that are to go, one by one: the parts, or itself."""
        return self.parts or (self,)

    codes: torch.Tensor | None = None
    """[n, num_ws, w_dim]: where the network draws what is nearest to the `examples`, found by inversion."""
    figures: Mapping[str, Estimate] = field(default_factory=dict)
    """What the source can say of its labels: how well it tells the feature, how many pictures it left out."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; there is no number without."""

    value: float
    low: float
    high: float
    n: int
    unit: str = ""
    confidence: float = 0.95
