# SPDX-License-Identifier: Apache-2.0
"""Classifiers as detectors: the bundled ones, and any TorchScript file that maps images to one logit each, or to several with their names in it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from stylegan_redact import names
from stylegan_redact.portraits import classifiers
from stylegan_redact.types import Detector, RedactError

PORTRAITS = Path(__file__).parent / "portraits"
BUNDLED_ROLES = ("detector", "judge", "second_judge")
NAMES_FILE = "attributes.json"
"""Of a TorchScript file's extra files the one that names its logits: a JSON list of strings."""

SUM_TO_ONE = 1e-4
"""How near to one the sum of what should be logits must be to be taken for that of probabilities."""
REPEATED = 0.01
"""How far two answers to the same image may be apart, of the largest logit and one: half precision, in another order."""
_DESCRIBE = "say in a JSON file beside it what it takes and which output is meant, docs/classifiers.md"


@dataclass(frozen=True)
class Classifier:
    """A detector made of a network that maps img [n, C, H, W] in [-1, 1] to logits [n, len(attributes)]."""

    net: torch.nn.Module
    attributes: tuple[str, ...]
    differentiable: bool = True

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        at = next(self.net.parameters(), img).device
        if at.type != img.device.type:
            raise RedactError(
                f"images on {img.device} were shown to the classifier of {', '.join(self.attributes)} - it is on {at} - load it with "
                f"device='{img.device.type}', or the network on {at.type}"
            )
        out = self.net(img).reshape(len(img), -1).float()
        if torch.is_grad_enabled():
            return out
        broken = ~torch.isfinite(out).all(dim=1)
        if bool(broken.any()) and bool(torch.isfinite(img[broken]).all()):  # nan > 0 is False: what cannot be told would count as not there.
            raise RedactError(
                f"{len(img)} images were shown to the classifier of {', '.join(self.attributes)} - of {int(broken.sum())} its logits are infinite "
                "or nan, though their pixels are finite - use one that gives a finite logit for every image"
            )
        return out.detach()  # TorchScript may say that gradients are wanted where none are.


def load_bundled(role: str, device: torch.device | str = "cpu") -> Classifier:
    """A classifier of the bundled portrait network: the "detector" that steers, the "judge" that measures, or the "second_judge"."""
    if role not in BUNDLED_ROLES:
        raise RedactError(f"a bundled classifier in the role {role!r} was asked - there are {', '.join(BUNDLED_ROLES)} - choose one")
    net, attributes = classifiers.load_classifier(PORTRAITS / f"{role}.safetensors")
    return Classifier(net.to(device), attributes)


def save_torchscript(net: torch.nn.Module, path: str | os.PathLike[str], attributes: Sequence[str]) -> None:
    """Writes a network as a TorchScript file that `load_torchscript` takes, the names of its logits inside: the file's hash covers them.

    Args:
        net:        Scriptable: img [n, C, H, W] in [-1, 1] -> logits [n, len(attributes)], > 0: shows.
        path:       Where to.
        attributes: Of the columns, each once.
    """
    with _deprecation_ignored():
        torch.jit.save(torch.jit.script(net.eval()), os.fspath(path), _extra_files={NAMES_FILE: json.dumps(list(attributes))})


def load_torchscript(path: str | os.PathLike[str], feature: str, img_shape: tuple[int, int, int], device: torch.device | str = "cpu") -> Classifier:
    """A TorchScript file as a detector of one feature, or of all attributes that it names.

    Args:
        path:      What `torch.jit.save` wrote: img [n, C, H, W] float32 in [-1, 1] -> [n] or [n, 1] logits, > 0: the feature shows. With the names of
                   a attributes among its extra files, as `save_torchscript` puts them, [n, a].
        feature:   What its logit says. Among several it is the one of this name; grey-hair and grey_hair are the same, and it gets the name asked.
        img_shape: (C, H, W) of the network's images; the file is tried on two of them.
        device:    Where it goes.

    Raises:
        RedactError: no such file, not TorchScript, does not take such images, gives something else than finite logits, as many as it has names, or
            does not know the feature.
    """
    net, text = open_torchscript(path, device)
    asked = f"a TorchScript classifier was expected in {os.fspath(path)}"
    return as_asked(tried(net, attributes_of(text, feature, asked), img_shape, device, asked), feature)


def open_torchscript(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> tuple[torch.nn.Module, str]:
    """The network in a TorchScript file, and the names of its logits as JSON, empty if it names none.

    Raises:
        RedactError: no such file, or not TorchScript.
    """
    asked = f"a TorchScript classifier was expected in {os.fspath(path)}"
    if not os.path.isfile(path):
        raise RedactError(f"{asked} - there is no such file - give the path of a file that torch.jit.save wrote")
    inside = {NAMES_FILE: ""}
    try:
        with _deprecation_ignored():
            net = torch.jit.load(path, map_location=device, _extra_files=inside).eval()
    except (RuntimeError, ValueError, OSError, EOFError):
        raise RedactError(f"{asked} - the file is of another kind - write it with torch.jit.save(torch.jit.script(model), path)") from None
    text: str | bytes = inside[NAMES_FILE]
    return net, text.decode("utf-8", "replace") if isinstance(text, bytes) else text


def tried(net: torch.nn.Module, attributes: tuple[str, ...], img_shape: tuple[int, int, int], device: torch.device | str, asked: str) -> Classifier:
    """The network as a detector of these attributes, after it was tried on two images.

    Raises:
        RedactError: it does not take such images, gives something else than finite logits, one for each attribute, or what it gives for an image
            depends on more than the image, or it writes into what it is given.
    """
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    return Classifier(net, attributes, differentiable=_try(net, len(attributes), img_shape, device, asked))


class _Absence(torch.nn.Module):
    """The logits of a network, with that of one column turned round: it says that something is absent."""

    def __init__(self, net: torch.nn.Module, column: int, columns: int) -> None:
        super().__init__()
        self.net, self.columns = net, columns
        sign = torch.ones(columns)
        sign[column] = -1
        self.register_buffer("sign", sign)

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(img).reshape(len(img), self.columns)
        return logits * self.sign.to(logits)  # type: ignore[operator]


def as_asked(classifier: Classifier, feature: str) -> Classifier:
    """The classifier with the attribute that the word means under that word: Eyeglasses as glasses, No_Beard, turned round, as beard.

    Raises:
        RedactError: it knows no such attribute; with what it knows.
    """
    match = names.find(feature, classifier.attributes)
    if match is None:
        known = classifier.attributes
        raise RedactError(f"feature {feature!r} was asked - the classifier knows: {', '.join(known)} - {names.advice(feature, known)}")
    column = classifier.attributes.index(match.attribute)
    attributes = tuple(feature if index == column else name for index, name in enumerate(classifier.attributes))
    return replace(classifier, attributes=attributes, net=classifier.net if match.present else _Absence(classifier.net, column, len(attributes)))


def attributes_of(text: str, feature: str, asked: str) -> tuple[str, ...]:
    """What a JSON list in a file says that its logits are; the feature alone if there is none.

    Raises:
        RedactError: the text is no such list, or names nothing that the feature could be.
    """
    if not text:
        return (feature,)
    try:
        there = json.loads(text)
    except ValueError:
        there = None
    if not isinstance(there, list) or not there or not all(isinstance(name, str) for name in there) or len({*map(names.spelt, there)}) < len(there):
        raise RedactError(f"{asked} - its {NAMES_FILE} is no list of different names - write it with stylegan_redact.detectors.save_torchscript")
    if names.find(feature, there) is None:
        file = asked.rpartition(" in ")[2]
        raise RedactError(f"feature {feature!r} was asked - the classifier {file} knows: {', '.join(there)} - {names.advice(feature, there)}")
    return tuple(there)


def _try(net: torch.nn.Module, num_logits: int, img_shape: tuple[int, int, int], device: torch.device | str, asked: str) -> bool:
    """Whether two images' logits have a gradient, after a look whether they are logits at all."""
    probe = torch.linspace(-1, 1, 2 * img_shape[0] * img_shape[1] * img_shape[2], device=device).reshape(2, *img_shape).requires_grad_(True)
    shown, held = probe.clone(), _buffers(net)  # No leaf: what writes into it is found out, and told as what it is.
    try:
        logit = net(shown)
    except Exception as error:  # noqa: BLE001 - TorchScript raises whatever the user's code raises
        reason = str(error).strip().splitlines()[-1][:200]
        raise RedactError(
            f"{asked} - it does not take images of shape [n, {', '.join(map(str, img_shape))}]: {reason} - train it on such images, or {_DESCRIBE}"
        ) from None
    wanted = "one finite logit for each image, [n] or [n, 1]" if num_logits == 1 else f"finite logits [n, {num_logits}], as it names so many"
    if not isinstance(logit, torch.Tensor) or logit.is_complex() or logit.numel() != 2 * num_logits or len(logit) != 2:
        got = (
            f"{'complex numbers, ' if logit.is_complex() else ''}shape {list(logit.shape)}"
            if isinstance(logit, torch.Tensor)
            else type(logit).__name__
        )
        raise RedactError(f"{asked} - two images gave {got} - it must give {wanted}; or {_DESCRIBE}")
    if not bool(torch.isfinite(logit).all()):
        raise RedactError(f"{asked} - of two images' logits {int((~torch.isfinite(logit)).sum())} are infinite or nan - it must give {wanted}")
    _check_repeatable(net, probe.detach(), shown.detach(), logit.detach().float(), held, asked)
    if num_logits > 1 and (what := _shares(logit.detach().reshape(2, num_logits).double())):
        raise RedactError(
            f"{asked} - two images gave {what} that add up to one, and a logit above 0 has to say that the attribute shows - "
            "give log(p / (1 - p)) of each, or probabilities and a JSON file that says so (docs/classifiers.md)"
        )
    return logit.requires_grad


def _buffers(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in net.named_buffers()}


def _check_repeatable(
    net: torch.nn.Module, probe: torch.Tensor, shown: torch.Tensor, logit: torch.Tensor, held: Mapping[str, torch.Tensor], asked: str
) -> None:
    """Raises RedactError unless the logit of an image is of that image alone: figures are of images, and the same command gives the same ones.

    Args:
        probe: img [2, C, H, W], as they were.
        shown: The same after the network saw them.
        logit: What it gave.
        held:  Its buffers before that.
    """
    if not torch.equal(probe, shown):
        raise RedactError(
            f"{asked} - it writes into the images that it is given, which others still need - write img = img * 0.5 instead of img.mul_(0.5)"
        )
    with torch.no_grad():
        again, beside_itself = (net(img).detach().float() for img in (probe.clone(), probe[:1].repeat(2, 1, 1, 1)))
    changed = [name for name, buffer in net.named_buffers() if name in held and not torch.equal(buffer, held[name])]
    what = f"it changes {', '.join(changed[:3])} while it answers" if changed else ""
    within = REPEATED * (1 + float(logit.abs().max()))
    for answer, first, why in ((again, logit, "the second time"), (beside_itself[:1], logit[:1], "with another one beside it")):
        if not what and not float((answer.reshape(first.shape) - first).abs().max()) <= within:
            what = f"it gives the same image another logit {why} ({float(first.flatten()[0]):.4g}, then {float(answer.flatten()[0]):.4g})"
    if what:
        raise RedactError(f"{asked} - {what} - export it in eval mode, without dropout, random numbers or statistics of the batch")


def _shares(answers: torch.Tensor) -> str:
    """What answers [n, a] are, if they are no logits but what softmax gives: none would be above 0, or all of them."""
    for what, p in (("probabilities", answers), ("log-probabilities", answers.exp())):
        if bool((p >= 0).all()) and bool(((p.sum(dim=1) - 1).abs() < SUM_TO_ONE).all()):
            return what
    return ""


@contextmanager
def _deprecation_ignored() -> Iterator[None]:
    """torch 2.13 deprecates TorchScript, which is what users have."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=FutureWarning)
        yield


def column(detector: Detector, feature: str) -> int:
    """Index of the feature among the detector's logits; RedactError lists what there is."""
    if feature not in detector.attributes:
        raise RedactError(f"feature {feature!r} was asked - the detector knows {', '.join(detector.attributes)} - choose one of these")
    return detector.attributes.index(feature)
