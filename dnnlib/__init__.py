# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's `dnnlib` interface, written anew from its documented behaviour."""

from dnnlib import util
from dnnlib.util import EasyDict, make_cache_dir_path

# NVIDIA's checkouts and every fork bring a package of this very name. Whichever stands first on sys.path wins, so the
# stylegan_redact package asks for this marker before it relies on anything that only this one does.
stylegan_redact = True

__all__ = ["EasyDict", "make_cache_dir_path", "util"]
