# SPDX-License-Identifier: Apache-2.0
"""Questions about plain values: products, number types, whether something can be pickled."""

from __future__ import annotations

import ctypes
import math
import pickle
from collections.abc import Iterable
from typing import Any

import numpy as np

_CTYPES: dict[str, Any] = {
    "uint8": ctypes.c_uint8,
    "uint16": ctypes.c_uint16,
    "uint32": ctypes.c_uint32,
    "uint64": ctypes.c_uint64,
    "int8": ctypes.c_int8,
    "int16": ctypes.c_int16,
    "int32": ctypes.c_int32,
    "int64": ctypes.c_int64,
    "float32": ctypes.c_float,
    "float64": ctypes.c_double,
}


class _Nowhere:
    """A file that forgets."""

    def write(self, data: Any) -> int:
        return len(data)


def tuple_product(t: Iterable[Any]) -> Any:
    """Product of the items; 1 if there are none."""
    return math.prod(t)


def get_dtype_and_ctype(type_obj: Any) -> tuple[np.dtype[Any], Any]:
    """NumPy dtype and ctypes type for a name ("float32"), a NumPy type or anything with a `__name__` or `name`."""
    name = next((x for x in (type_obj, getattr(type_obj, "__name__", None), getattr(type_obj, "name", None)) if isinstance(x, str)), None)
    if name is None:
        raise RuntimeError(f"cannot infer a type name from {type_obj!r}")
    assert name in _CTYPES, f"{name} is none of {', '.join(_CTYPES)}"
    return np.dtype(name), _CTYPES[name]


def is_pickleable(obj: Any) -> bool:
    """True if pickle takes the object."""
    try:
        pickle.dump(obj, _Nowhere())
    except Exception:  # pickle runs code of the object, which may raise anything.
        return False
    return True
