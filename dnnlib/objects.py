# SPDX-License-Identifier: Apache-2.0
"""Functions, classes and modules by their dotted names."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import types
from collections.abc import Callable
from typing import Any

_SHORTHANDS = {"np": "numpy", "tf": "tensorflow"}


def get_module_from_obj_name(obj_name: str) -> tuple[types.ModuleType, str]:
    """Module that holds the named object, and the object's name within it ("" if a module was named).

    The longest part of the name that can be imported wins.

    Raises:
        ImportError:    no part of the name is a module, or one of the modules fails to import something else.
        AttributeError: there is such a module, but nothing of that name in it.
    """
    first, *rest = obj_name.split(".")
    parts = [*_SHORTHANDS[first].split("."), *rest] if first in _SHORTHANDS and rest else [first, *rest]
    missing: AttributeError | None = None
    for length in range(len(parts), 0, -1):
        module_name, local_name = ".".join(parts[:length]), ".".join(parts[length:])
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if f"{module_name}.".startswith(f"{error.name}."):
                continue
            raise  # The module is there, something that it needs is not.
        try:
            get_obj_from_module(module, local_name)
        except AttributeError as error:
            missing = missing or error
        else:
            return module, local_name
    if missing is not None:
        raise missing
    raise ModuleNotFoundError(f"no part of {obj_name!r} is a module that can be imported", name=parts[0])


def get_obj_from_module(module: types.ModuleType, obj_name: str) -> Any:
    """Object of this (possibly dotted) name in the module; the module itself for ""."""
    obj: Any = module
    for part in obj_name.split(".") if obj_name else []:
        obj = getattr(obj, part)
    return obj


def get_obj_by_name(name: str) -> Any:
    """Object of this dotted name, imported on the way. Raises what get_module_from_obj_name() raises."""
    return get_obj_from_module(*get_module_from_obj_name(name))


def call_func_by_name(*args: Any, func_name: str | Callable[..., Any], **kwargs: Any) -> Any:
    """What the named function returns for these arguments. A function in place of its name works too."""
    func = func_name if callable(func_name) else get_obj_by_name(func_name)
    assert callable(func), f"{func_name} cannot be called"
    return func(*args, **kwargs)


def construct_class_by_name(*args: Any, class_name: str | Callable[..., Any], **kwargs: Any) -> Any:
    """Instance of the named class made with these arguments. A class in place of its name works too."""
    return call_func_by_name(*args, func_name=class_name, **kwargs)


def get_module_dir_by_obj_name(obj_name: str) -> str:
    """Folder of the module that holds the named object."""
    module, _ = get_module_from_obj_name(obj_name)
    return os.path.dirname(inspect.getfile(module))


def is_top_level_function(obj: Any) -> bool:
    """True if the object can be called and stands under its own name in its module."""
    if not callable(obj) or not hasattr(obj, "__name__"):
        return False
    module = sys.modules.get(getattr(obj, "__module__", None) or "")
    return module is not None and obj.__name__ in vars(module)


def get_top_level_function_name(obj: Any) -> str:
    """Dotted name by which get_obj_by_name() finds the function again; for one of the running script, the script's name."""
    assert is_top_level_function(obj), f"{obj!r} is not a top-level function"
    module = obj.__module__
    if module == "__main__":
        module = os.path.splitext(os.path.basename(str(sys.modules["__main__"].__file__)))[0]
    return f"{module}.{obj.__name__}"
