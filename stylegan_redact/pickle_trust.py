# SPDX-License-Identifier: Apache-2.0
"""Which imports of a pickle may pass although nobody here knows what they are: classes of StyleGAN's forks, carried along and never made.

Reading constructs nothing of them. But what was read is written back, and whoever loads that with the fork's own code makes what it names. So
the list stays closed: only names that look like classes, only in packages of the forks and the few that their networks are built from, and only
in the one form in which pickle makes nothing but an empty object with attributes (`pickle_values`). A function's name, a call with arguments (a
constructor may open files), and every other package is refused as before. Snapshots say which of these classes they carry, and so do the verbs.
"""

from __future__ import annotations

import re

from stylegan_redact.pickle_stream import Global

FORK_PACKAGES = ("training", "torch_utils", "dnnlib", "networks", "pg_modules", "feature_networks", "R3GAN", "BaselineGAN")
"""Where NVIDIA's code and its forks (EG3D, Projected GAN, StyleGAN-XL, StyleGAN-T, R3GAN) keep their classes."""
BUILDING_BLOCKS = ("timm.models", "timm.layers", "torchvision.models", "torch.nn.utils.spectral_norm", "torch.nn.utils.weight_norm")
"""What their discriminators contain of other people's."""

WRAPPED_HOOK = Global("torch.nn.modules.module", "_WrappedHook")
"""What torch puts around such hooks."""

_PACKAGE = re.compile("(" + "|".join(map(re.escape, (*FORK_PACKAGES, *BUILDING_BLOCKS))) + r")(\.[A-Za-z_][A-Za-z0-9_]*)*")
_CLASS = re.compile(r"_?[A-Z][A-Za-z0-9_]*")


def is_torch_layer(found: Global) -> bool:
    """Whether the name is that of a layer of torch.nn."""
    return re.fullmatch(r"torch\.nn\.modules\.[a-z_]+", found.module) is not None and re.fullmatch(r"[A-Z][A-Za-z0-9]*", found.name) is not None


def is_opaque(found: Global) -> bool:
    """Whether the name is that of a class that may be carried along unread."""
    return found == WRAPPED_HOOK or (_PACKAGE.fullmatch(found.module) is not None and _CLASS.fullmatch(found.name) is not None)
