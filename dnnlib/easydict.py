# SPDX-License-Identifier: Apache-2.0
"""A dict whose items are attributes too."""

from __future__ import annotations

from typing import Any


class EasyDict(dict[str, Any]):
    """A dict whose items can be read, set and deleted as attributes. Nested dicts stay what they are."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            # pickle and copy probe for special methods and rely on this exception.
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None


# Every StyleGAN pickle names this class `dnnlib.util.EasyDict`; what is written here must read the same everywhere.
EasyDict.__module__ = "dnnlib.util"
