# SPDX-License-Identifier: Apache-2.0
"""The bytes of one tensor storage as torch.save wrote them before its zip format, which is what a plain pickle of a tensor contains.

Read and written here rather than by torch.load: its `weights_only=True` could be tricked into running code before torch 2.6
(CVE-2025-32434), and what torch writes contains a memory address, so it differs from run to run.
"""

from __future__ import annotations

import io
import re
import struct

import torch

from stylegan_redact.pickle_stream import TRUSTED, Global, Object, Refused, Untrusted, decode

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    Global("torch", f"{name}Storage"): dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
    }.items()
}
_MAX_INSTRUCTIONS = 64
"""Of each of the five pickles of a storage; torch writes at most 27."""
_NAMES = {dtype: found.name for found, dtype in _STORAGES.items()}
# Magic number, protocol, and sizes of C types, each its own pickle.
_HEAD = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00(X\x10\x00\x00\x00protocol_versionq\x01M\xe9\x03"
    b"X\r\x00\x00\x00little_endianq\x02\x88X\n\x00\x00\x00type_sizesq\x03}q\x04(X\x05\x00\x00\x00shortq\x05K\x02X\x03\x00\x00\x00intq\x06K\x04"
    b"X\x04\x00\x00\x00longq\x07K\x04uu."
)


def _resolve(module: str, name: str) -> Global:
    found = Global(module, name)
    if found in _STORAGES:
        return found
    raise Untrusted(f"a tensor in it imports {ascii(str(found))[1:-1][:200]}, which no tensor needs; nothing was run - {TRUSTED}")


def _refuse_unless(condition: object) -> None:
    if not condition:
        raise Refused(f"a tensor in it is damaged or not in the form that torch writes into a pickle - {TRUSTED}")


def is_torch_file(first_value: object) -> bool:
    """Whether a pickle with this value begins a file that torch.save wrote before its zip format."""
    return first_value == _MAGIC and type(first_value) is int


def decode_storage(data: bytes) -> tuple[torch.Tensor, bool]:
    """The values of the storage [n], in memory of their own, and whether they were tagged as living on the CPU.

    Raises:
        Refused: not a legacy torch.save of one storage, other imports than storage types, or fewer or more bytes than announced.
    """
    _refuse_unless(data[:1] == b"\x80")
    file = io.BytesIO(data)
    magic, protocol, machine, found, keys = (decode(file, _resolve, persistent_ids=True, max_instructions=_MAX_INSTRUCTIONS) for _ in range(5))
    _refuse_unless(is_torch_file(magic) and protocol == 1001 and isinstance(machine, dict) and machine.get("little_endian") is True)
    _refuse_unless(isinstance(found, Object) and found.func.name == "persistent_id" and isinstance(found.args[0], tuple) and len(found.args[0]) == 6)
    kind, storage_type, key, location, numel, view = found.args[0]
    _refuse_unless(kind == "storage" and view is None and isinstance(key, str) and keys == [key] and isinstance(storage_type, Global))
    _refuse_unless(isinstance(location, str) and re.fullmatch(r"cpu|cuda(:\d{1,3})?", location) and type(numel) is int and numel >= 0)
    dtype = _STORAGES[storage_type]
    start = file.tell() + 8
    if len(data) > start + numel * dtype.itemsize:
        raise Untrusted(f"a tensor in it hides bytes behind its end - {TRUSTED}")
    _refuse_unless(len(data) == start + numel * dtype.itemsize and struct.unpack("<q", data[start - 8 : start]) == (numel,))
    raw = bytearray(memoryview(data)[start:])
    _refuse_unless(dtype != torch.bool or not raw.translate(None, b"\x00\x01"))
    return torch.frombuffer(raw, dtype=dtype) if numel else torch.empty(0, dtype=dtype), location == "cpu"


def encode_storage(values: torch.Tensor) -> bytes:
    """What torch would write for a storage with these values, on the CPU, with `0` where torch has a memory address.

    Args:
        values: Of any shape; stored in C order.
    """
    values = values.detach().cpu().contiguous().reshape(-1)
    raw = values.view(torch.uint8).numpy().tobytes() if values.numel() else b""
    n = values.numel()
    count = b"K" + bytes([n]) if n < 1 << 8 else b"M" + struct.pack("<H", n) if n < 1 << 16 else b"J" + struct.pack("<i", n)
    name = _NAMES[values.dtype].encode()
    found = b"\x80\x02(X\x07\x00\x00\x00storageq\x00ctorch\n" + name
    found += b"\nq\x01X\x01\x00\x00\x000q\x02X\x03\x00\x00\x00cpuq\x03" + count + b"Ntq\x04Q."
    keys = b"\x80\x02]q\x00X\x01\x00\x00\x000q\x01a."
    return b"".join((_HEAD, found, keys, struct.pack("<q", n), raw))
