# SPDX-License-Identifier: Apache-2.0
"""From what a pickle says of a module (class name, constructor arguments, tensors) to a module of ours. Executes nothing of the pickle.

An architecture is a file of this folder with the classes and `RECOGNISED_BY`: class name -> a tensor that only it has.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import torch

from stylegan_redact import networks
from stylegan_redact.networks import fit
from stylegan_redact.types import RedactError

ADA_SYNTHESIS: Mapping[str, Any] = dict(num_fp16_res=0, conv_clamp=None)
"""Defaults of stylegan2-ada-pytorch where they differ from the stylegan3 repository's, which are ours (stylegan-compat.md 5.1)."""
ADA_MAPPING: Mapping[str, Any] = dict(w_avg_beta=0.995)


def architectures() -> dict[str, ModuleType]:
    """Every file of this folder that declares what it recognises, without those that are `lacking` something."""
    return {name: found for name, found in _files().items() if isinstance(found, ModuleType) and hasattr(found, "RECOGNISED_BY")}


def lacking() -> dict[str, str]:
    """Architectures that need more than the `torch_utils` at hand offers -> what it lacks; stylegan2-ada-pytorch's knows no StyleGAN3."""
    return {name: found for name, found in _files().items() if isinstance(found, str)}


def _files() -> dict[str, ModuleType | str]:
    """Name -> module, or why torch_utils does not suffice for it. Whatever else fails to import is an error."""
    files: dict[str, ModuleType | str] = {}
    for name in sorted(info.name for info in pkgutil.iter_modules(networks.__path__)):
        if name in ("build", "export"):
            continue
        try:
            files[name] = importlib.import_module(f"{networks.__name__}.{name}")
        except ImportError as error:
            if (error.name or "").partition(".")[0] != "torch_utils":
                raise
            files[name] = str(error).partition(" (")[0]  # Without the path of this machine.
    return files


def of_ada_layout(class_name: str, init_kwargs: Mapping[str, Any]) -> bool:
    """True for a generator that stylegan2-ada-pytorch made: it hands the synthesis arguments in a dict of their own."""
    return class_name == "Generator" and "synthesis_kwargs" in init_kwargs


def with_ada_defaults(class_name: str, init_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments with the older code's defaults spelt out."""
    kwargs = dict(init_kwargs)
    if class_name == "Generator":
        kwargs["synthesis_kwargs"] = {**ADA_SYNTHESIS, **(kwargs.get("synthesis_kwargs") or {})}
        kwargs["mapping_kwargs"] = {**ADA_MAPPING, **(kwargs.get("mapping_kwargs") or {})}
    elif class_name == "Discriminator":
        kwargs = {**ADA_SYNTHESIS, **kwargs}
    return kwargs


def build_module(
    class_name: str, init_args: tuple[Any, ...], init_kwargs: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], *, ada: bool
) -> torch.nn.Module:
    """A module of ours with the given tensors, in eval mode, without gradients, on the CPU.

    Args:
        class_name:  As the pickle has it, for example "Generator".
        init_args:   Positional constructor arguments.
        init_kwargs: Keyword constructor arguments, plain values.
        tensors:     Every parameter and buffer by its dotted name.
        ada:         The file comes from stylegan2-ada-pytorch, whose defaults differ.

    Raises:
        UntrustedFile: its constructor arguments ask for much more than its tensors are.
        RedactError:   the architecture is unknown, or its tensors do not fit ours.
    """
    for module in architectures().values():
        if module.RECOGNISED_BY.get(class_name) in tensors:
            break
    else:
        known = ", ".join(
            [*architectures(), *(f"not {name}, since this checkout's torch_utils lacks something: {why}" for name, why in lacking().items())]
        )
        raise RedactError(
            f"a network of class {class_name[:60]!r} with tensors such as {names_text(list(tensors)) or 'none'} is of no architecture known here "
            f"- known: {known} - use a pickle of one of these{', or run stylegan-redact outside this checkout' if lacking() else ''}"
        )
    kwargs = with_ada_defaults(class_name, init_kwargs) if ada else dict(init_kwargs)
    fit.check_arguments(class_name, init_args, kwargs)
    construct = partial(getattr(module, class_name), *init_args, **kwargs)
    try:
        with torch.random.fork_rng(devices=[]):
            shapes = fit.without_memory(construct)
            fit.check_size(class_name, shapes, tensors)
            check_tensors(class_name, shapes.state_dict(), tensors)
            net = construct()
    except RedactError:
        raise
    except fit.MISFITS as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise RedactError(
            f"the {class_name} of this pickle cannot be rebuilt - its constructor arguments do not fit ours ({reason}) - is it a fork?"
        ) from None
    net.load_state_dict(dict(tensors))
    return net.eval().requires_grad_(False)


def check_tensors(class_name: str, ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
    """Every tensor of the file must have its place, name and shape alike."""
    missing, unknown = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    misshapen = sorted(name for name in set(ours) & set(theirs) if ours[name].shape != theirs[name].shape)
    for what, names in (("lacks", missing), ("has unknown", unknown), ("has misshapen", misshapen)):
        if names:
            raise RedactError(
                f"the {class_name} of this pickle {what} tensors ({names_text(names)}{', ...' if len(names) > 3 else ''}; {len(names)} in all) "
                f"- ours has {len(ours)}, the file {len(theirs)} - it is a variant that is not supported yet"
            )


def names_text(names: Sequence[str]) -> str:
    """The first three, none of them endless."""
    return ", ".join(name[:60] for name in names[:3])
