# SPDX-License-Identifier: Apache-2.0
"""Files of torch.save, both its zip and its older form -> tensors, numbers and text, without running anything in them.

Read here rather than by torch.load: see `torch_storage`; and since checkpoints hold the trainer's arguments as an `argparse.Namespace`, for which
`weights_only=True` asks to allow a class of Python's. Here it is a dictionary. Only the parts that are asked for are read into memory.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, BinaryIO

import torch

from stylegan_redact import pickle_tree, pickle_values, torch_storage
from stylegan_redact.pickle_file import DAMAGE
from stylegan_redact.pickle_stream import TRUSTED, Global, Object, Refused, Untrusted, decode
from stylegan_redact.pipes import check_no_pipe
from stylegan_redact.types import RedactError, UntrustedFile

_ZIP = b"PK\x03\x04"
_LEGACY = re.compile(rb"\x80[\x02-\x05](\x95.{8})?\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.", re.DOTALL)
_PERSISTENT_ID = Global("", "persistent_id")
_NAMESPACE = Global("argparse", "Namespace")
Fetch = Callable[[str, int], bytes]
"""(key, number of bytes) -> the bytes of a storage."""


def is_torch_file(path: Path) -> bool:
    """Whether the file can be read and begins as torch.save writes them.

    Raises:
        RedactError: it is a pipe.
    """
    check_no_pipe(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return False
    return head.startswith(_ZIP) or _LEGACY.match(head) is not None


def read_torch_file(path: Path, wanted: Collection[str]) -> dict[str, Any]:
    """The parts of the dictionary in the file that are named in `wanted` and there; None for all that is there besides.

    Args:
        path:   What torch.save wrote, from a CPU or a GPU.
        wanted: Keys. Their values come as dict, list, tuple, numbers, text and tensors of their own memory.

    Raises:
        RedactError: damaged, or no dictionary.
        UntrustedFile: it has imports that a checkpoint does not need, or wants more memory than it has bytes.
    """
    asked = f"{path} was to be read as a file of torch.save"
    try:
        with path.open("rb") as file:
            return _from_zip(file, wanted) if file.read(4) == _ZIP else _from_legacy(file, wanted)
    except Refused as error:
        kind = UntrustedFile if isinstance(error, Untrusted) else RedactError
        raise kind(f"{asked} - {error}") from None
    except OSError as error:
        raise RedactError(f"{asked} - the system says: {error.strerror or error} - check that you may read it") from error
    except (*DAMAGE, zipfile.BadZipFile, NotImplementedError) as error:
        detail = ascii(str(error))[1:-1][:120] or type(error).__name__
        raise RedactError(f"{asked} - it is damaged ({detail}) - get it again") from None


def _resolve(module: str, name: str) -> Global:
    found = Global(module, name)
    if found == _NAMESPACE or found in torch_storage._STORAGES:
        return found
    return pickle_values.resolve(module, name)


def _from_zip(file: BinaryIO, wanted: Collection[str]) -> dict[str, Any]:
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(roots) != 1 or any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise Refused("it is a zip, but not one of torch.save - give the .pt that training wrote")
        if f"{roots[0]}byteorder" in names and archive.read(f"{roots[0]}byteorder") != b"little":
            raise Refused("it was written on a machine of another byte order - write it anew on a usual one")

        def fetch(key: str, size: int) -> bytes:
            return archive.read(f"{roots[0]}data/{key}")

        with archive.open(f"{roots[0]}data.pkl") as member:
            root = decode(member, _resolve, persistent_ids=True)  # type: ignore[arg-type]
        return _wanted(root, wanted, fetch, sum(info.file_size for info in archive.infolist()))


def _from_legacy(file: BinaryIO, wanted: Collection[str]) -> dict[str, Any]:
    file.seek(0)
    magic, protocol, machine, root, keys = (decode(file, _resolve, persistent_ids=True) for _ in range(5))
    if not torch_storage.is_torch_file(magic) or protocol != 1001 or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Refused(f"it is damaged or of an unknown version - {TRUSTED}")
    sizes = {key: dtype.itemsize for key, dtype in _storages(root).items()}
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        numel = struct.unpack("<q", file.read(8))[0]
        if not isinstance(key, str) or key not in sizes or numel < 0:
            raise Refused(f"it has a tensor that nothing of it belongs to - {TRUSTED}")
        places[key] = (file.tell(), numel * sizes[key])
        file.seek(numel * sizes[key], 1)

    def fetch(key: str, size: int) -> bytes:
        start, length = places[key]
        file.seek(start)
        return file.read(length)

    return _wanted(root, wanted, fetch, file.seek(0, 2))


def _storages(root: Any) -> dict[str, torch.dtype]:
    """Key -> dtype of every storage in the graph."""
    found: dict[str, torch.dtype] = {}
    waiting, seen = [root], set()
    while waiting:
        part = waiting.pop()
        if not isinstance(part, (tuple, list, dict, Object)) or id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Object) and part.func == _PERSISTENT_ID:
            dtype, key, _ = _described(part)
            found[key] = dtype
        elif isinstance(part, Object):
            waiting += [part.args, part.state, part.items]
        else:
            waiting += part.values() if isinstance(part, dict) else part
    return found


def _described(node: Object) -> tuple[torch.dtype, str, int]:
    """Type, key and number of elements of a storage."""
    found = node.args[0]
    # The zip form has five parts; the older one has a sixth for views, which torch has not written for years.
    whole = isinstance(found, tuple) and (len(found) == 5 or (len(found) == 6 and found[5] is None)) and found[0] == "storage"
    if not whole or found[1] not in torch_storage._STORAGES or not isinstance(found[2], str) or type(found[4]) is not int or found[4] < 0:
        raise Refused(f"it has a tensor of an unknown form - {TRUSTED}")
    return torch_storage._STORAGES[found[1]], found[2], found[4]


class _TorchReader(pickle_values.Reader):
    """A reader whose storages lie outside the pickle, and to which a namespace is a dictionary."""

    def __init__(self, fetch: Fetch, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._fetch = fetch
        self._by_key: dict[str, torch.Tensor] = {}
        self._handlers |= {_PERSISTENT_ID: self._stored, _NAMESPACE: self._namespace}

    def _stored(self, node: Object, depth: int) -> Object:
        dtype, key, numel = _described(node)
        if key not in self._by_key:
            self._spend(numel * dtype.itemsize)
            raw = bytearray(self._fetch(key, numel * dtype.itemsize))
            if len(raw) != numel * dtype.itemsize or (dtype == torch.bool and raw.translate(None, b"\x00\x01")):
                raise Refused(f"it has a tensor with fewer or more numbers than it says - {TRUSTED}")
            self._by_key[key] = torch.frombuffer(raw, dtype=dtype) if numel else torch.empty(0, dtype=dtype)
        self._storages[id(node)] = self._by_key[key]
        return node

    def _namespace(self, node: Object, depth: int) -> Any:
        self._bare(node, new=True, state=True)
        if node.args != () or not isinstance(node.state, dict):
            raise Refused(f"it makes {node.func} in an unusual way - {TRUSTED}")
        return self.check(node.state, depth)


def _wanted(root: Any, wanted: Collection[str], fetch: Fetch, max_bytes: int) -> dict[str, Any]:
    items = pickle_tree.items_of(root)
    if items is None or not all(isinstance(key, str) for key, _ in items):
        raise Refused("it holds no dictionary of networks - give the checkpoint that training wrote")
    reader = _TorchReader(fetch, max_bytes)
    return {key: pickle_tree.plain(reader.check(value), reader) if key in wanted else None for key, value in items}
