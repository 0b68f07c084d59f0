# SPDX-License-Identifier: Apache-2.0
"""Classes that are pickled together with the source text of their module, so that old files outlive changes of the code.

The stream is NVIDIA's version 6: every persistent object is a call of `torch_utils.persistence._reconstruct_persistent_obj`
on a dict of type, version, module_src, class_name and state. **Reading such a pickle runs the source in it**: only do that
with files whose maker you trust.
"""

from __future__ import annotations

import copy
import inspect
import io
import linecache
import pickle
import sys
import types
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import torch

import dnnlib

_version = 6
_import_hooks: list[Callable[[dnnlib.EasyDict], dnnlib.EasyDict]] = []
_module_to_src_dict: dict[types.ModuleType, str] = {}
_src_to_module_dict: dict[str, types.ModuleType] = {}

# Imports that embedded sources make and plain Python lacks => who has them.
_PROVIDERS = {
    "pg_modules": "the repository of Projected GAN or StyleGAN-XL",
    "training.volumetric_rendering": "the repository of EG3D",
    "training": "the repository of the fork that wrote this file",
    "torch_utils": "the repository of the fork that wrote this file",
    "legacy": "the repository of StyleGAN-XL",
    "scipy": "`pip install scipy`",
}

T = TypeVar("T")
Hook = TypeVar("Hook", bound=Callable[[dnnlib.EasyDict], dnnlib.EasyDict])


def persistent_class(orig_class: type[T]) -> type[T]:
    """Subclass of the same name whose instances pickle with the source of their module and remember how they were made.

    Adds the properties `init_args` and `init_kwargs` (copies of the constructor's arguments). A constructor that sets
    `self._record_init_args = False` is not recorded; both are then None. An undecorated subclass pickles as its decorated base.

    Args:
        orig_class: Any class whose module is in sys.modules and has a source. A persistent class comes back unchanged.

    Raises:
        OSError:             the module has no source to embed (typed into a console, for instance).
        pickle.PickleError, TypeError, AttributeError: from the constructor, when an argument or attribute cannot be pickled.
    """
    assert isinstance(orig_class, type), f"expected a class, got {orig_class!r}"
    if is_persistent(orig_class):
        return orig_class
    assert orig_class.__module__ in sys.modules, f"module {orig_class.__module__!r} of {orig_class.__name__} is not loaded"

    class Decorator(orig_class):  # type: ignore[misc,valid-type]
        _orig_module_src = _module_to_src(sys.modules[orig_class.__module__])
        _orig_class_name = orig_class.__name__

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            record = getattr(self, "_record_init_args", True)
            self._init_args = copy.deepcopy(args) if record else None
            self._init_kwargs = copy.deepcopy(kwargs) if record else None
            _check_pickleable(self.__reduce__())

        @property
        def init_args(self) -> tuple[Any, ...] | None:
            return copy.deepcopy(self._init_args)

        @property
        def init_kwargs(self) -> dnnlib.EasyDict | None:
            return None if self._init_kwargs is None else dnnlib.EasyDict(copy.deepcopy(self._init_kwargs))

        def __reduce__(self) -> Any:
            reduced = super().__reduce__()
            if reduced[0] is _reconstruct_persistent_obj:  # The base class is persistent as well.
                return reduced
            meta = {
                "type": "class",
                "version": _version,
                "module_src": self._orig_module_src,
                "class_name": self._orig_class_name,
                "state": reduced[2] if len(reduced) > 2 else None,
            }
            return _reconstruct_persistent_obj, (meta,), None

    for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Decorator, attribute, getattr(orig_class, attribute))
    return Decorator


def is_persistent(obj: Any) -> bool:
    """True for a persistent class and for an instance of one; a subclass that is not decorated itself does not count."""
    return any(isinstance(cls, type) and "_orig_module_src" in vars(cls) for cls in (obj, type(obj)))


def import_hook(hook: Hook) -> Hook:
    """Registers `hook(meta) -> meta`, called on every persistent object that is read or copied, before it is rebuilt.

    Hooks run in the order of their registration. `meta` has type, version, module_src, class_name and state; a hook may
    change or replace it and must return it. The hook comes back, so that this works as a decorator.
    """
    assert callable(hook), f"expected a function, got {hook!r}"
    _import_hooks.append(hook)
    return hook


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> Any:
    """The object that `meta` describes. Unpickling calls this by name, which is part of the file format."""
    meta = dnnlib.EasyDict(meta)
    if isinstance(meta.state, dict):
        meta.state = dnnlib.EasyDict(meta.state)
    for hook in _import_hooks:
        meta = hook(meta)
        assert meta is not None, f"import hook {hook!r} returned None instead of the meta data"

    assert meta.version == _version, f"persistent object of format version {meta.version}, this code reads version {_version}"
    module = _src_to_module(meta.module_src, meta.class_name)
    assert meta.type == "class", f"persistent object of unknown type {meta.type!r}"
    if meta.class_name not in vars(module):
        raise KeyError(f"the embedded source defines no class {meta.class_name!r}")
    cls: Any = persistent_class(vars(module)[meta.class_name])

    obj = cls.__new__(cls)
    if callable(getattr(obj, "__setstate__", None)):
        obj.__setstate__(meta.state)
    elif meta.state is not None:
        obj.__dict__.update(meta.state)
    return obj


def _module_to_src(module: types.ModuleType) -> str:
    """Source text of a module; both are remembered, so that a pickle with this very text finds the module."""
    src = _module_to_src_dict.get(module)
    if src is None:
        src = inspect.getsource(module)
        _module_to_src_dict[module] = src
        _src_to_module_dict[src] = module
    return src


def _src_to_module(src: str, class_name: str = "") -> types.ModuleType:
    """Module with exactly this source text; runs the text if no such module is known.

    Raises:
        ImportError: the source could not be run. Nothing of the attempt stays behind, so it can be repeated.
    """
    module = _src_to_module_dict.get(src)
    if module is not None:
        return module
    name = f"_imported_module_{uuid.uuid4().hex}"
    filename = f"<{name}>"
    module = types.ModuleType(name)
    # Known before it runs: the decorators in the source look for their module and its text.
    sys.modules[name] = module
    _module_to_src_dict[module] = src
    _src_to_module_dict[src] = module
    linecache.cache[filename] = (len(src), None, src.splitlines(keepends=True), filename)  # Lines in tracebacks.
    try:
        # dont_inherit: the `from __future__` of this file must not change what the embedded source means.
        exec(compile(src, filename, "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        sys.modules.pop(name, None)
        del _module_to_src_dict[module], _src_to_module_dict[src]
        linecache.cache.pop(filename, None)
        if isinstance(error, Exception):
            raise _import_error(error, class_name) from error
        raise
    return module


def _import_error(error: Exception, class_name: str) -> ImportError:
    """The error to raise when embedded source cannot be run: one sentence that names what is missing."""
    what = f"the source embedded in this pickle for {class_name or 'an object'}"
    if not isinstance(error, ImportError):
        return ImportError(f"{what} failed to run: {type(error).__name__}: {error}")
    name = error.name or ""
    provider = next((text for prefix, text in _PROVIDERS.items() if f"{name}.".startswith(f"{prefix}.")), "its provider")
    kind = ModuleNotFoundError if isinstance(error, ModuleNotFoundError) else ImportError
    return kind(f"{what} needs an import that fails: {error} - put {provider} on the Python path", name=error.name, path=error.path)


class _CheckingPickler(pickle.Pickler):
    """Goes through an object as pickle does, past the bulk data."""

    def persistent_id(self, obj: Any) -> str | None:
        # Tensors always pickle; persistent objects have been through this check when they were made.
        return "skip" if isinstance(obj, torch.Tensor) or is_persistent(obj) and not isinstance(obj, type) else None


def _check_pickleable(obj: Any) -> None:
    """Raises what pickle raises if `obj` cannot be pickled."""
    _CheckingPickler(io.BytesIO(), protocol=4).dump(obj)
