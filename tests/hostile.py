# SPDX-License-Identifier: Apache-2.0
"""Snapshots made by hand: good ones in NVIDIA's layout, and hostile ones whose payload would create a file if anything ran it."""

from __future__ import annotations

import collections
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dnnlib
from torch_utils import persistence

SOURCE = "# a source that no test runs\nraise RuntimeError('the embedded source was run')\n"


class Call:
    """Pickles as a call: `func(*args)`, then `state` set on the result."""

    def __init__(self, func: Any, *args: Any, state: Any = None) -> None:
        self.reduced = (func, args) if state is None else (func, args, state)

    def __reduce__(self) -> Any:
        return self.reduced


def module(class_name: str, *, parameters: Any = (), buffers: Any = (), modules: Any = (), source: str = SOURCE, **attributes: Any) -> Call:
    """A persistent module as NVIDIA's code pickles it; the class need not exist."""
    hooks = ("_backward_hooks", "_forward_hooks", "_forward_pre_hooks", "_state_dict_hooks", "_load_state_dict_pre_hooks")
    state = {
        "training": False,
        "_parameters": collections.OrderedDict(parameters),
        "_buffers": collections.OrderedDict(buffers),
        "_non_persistent_buffers_set": set(),
        **{hook: collections.OrderedDict() for hook in hooks},
        "_modules": collections.OrderedDict(modules),
        **attributes,
    }
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": class_name, "state": state}
    return Call(persistence._reconstruct_persistent_obj, meta)


def generator(seed: int = 0, **attributes: Any) -> Call:
    """Has a parameter and buffers at two levels, a torch.nn layer, NumPy numbers and an array."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.nn.Parameter(torch.randn(3, 2, generator=random), requires_grad=False)
    bias = torch.nn.Parameter(torch.randn(3, generator=random), requires_grad=False)
    inner = module("Layer", parameters=[("weight", weight), ("bias", bias)], buffers=[("noise", torch.tensor(0.5))], gain=np.float64(1.5))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(2, 2).half().requires_grad_(False)
    return module(
        "Generator",
        buffers=[("w_avg", torch.arange(4.0)), ("nothing", None)],
        modules=[("layer", inner), ("mixed", layer)],
        size=np.array([16, 8]),
        count=np.int64(7),
        _init_args=(),
        _init_kwargs={"z_dim": 2, "mapping_kwargs": dnnlib.EasyDict(num_layers=2), "cutoff": np.float64(2.25), "sizes": np.arange(4).reshape(2, 2)},
        **attributes,
    )


def snapshot(**replaced: Any) -> dict[str, Any]:
    """The top level of a good snapshot; keywords replace or add keys."""
    kwargs = {"class_name": "training.dataset.ImageFolderDataset", "path": "/home/someone/faces.zip", "max_size": 7, "extra": {"cache": "~/faces"}}
    good = {"G": generator(0), "D": module("Discriminator"), "G_ema": generator(1), "augment_pipe": None, "training_set_kwargs": kwargs}
    return good | replaced


def dumps(value: Any, protocol: int = 4) -> bytes:
    return pickle.dumps(value, protocol=protocol)


def string(text: str) -> bytes:
    data = text.encode()
    return b"\x8c" + bytes([len(data)]) + data


def called(module_name: str, name: str, *args: str) -> bytes:
    """Instructions for `module_name.name(*args)`, by STACK_GLOBAL."""
    return string(module_name) + string(name) + b"\x93(" + b"".join(map(string, args)) + b"tR"


def storage(
    raw: bytes = struct.pack("<2f", 1, 2), *, numel: int = 2, location: str = "cpu", kind: bytes = b"ctorch\nFloatStorage\n", tail: bytes = b""
) -> bytes:
    """One storage as legacy torch.save writes it, with lies where asked for."""
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps(machine, 2)
    unicode = b"".join(b"X" + struct.pack("<I", len(text)) + text.encode() for text in ("0", location))
    found = b"\x80\x02(X\x07\x00\x00\x00storage" + kind + unicode + b"K" + bytes([numel]) + b"NtQ."
    return head + found + pickle.dumps(["0"], 2) + struct.pack("<q", numel) + raw + tail


def tensor(blob: bytes | Call, *, offset: Any = 0, size: Any = (2,), stride: Any = (1,)) -> Call:
    """Of a storage's bytes, or of a storage that others share."""
    values = Call(torch.storage._load_from_bytes, blob) if isinstance(blob, bytes) else blob
    return Call(torch._utils._rebuild_tensor_v2, values, offset, size, stride, False, collections.OrderedDict())


def hostile_streams(marker: Path) -> dict[str, bytes]:
    """Pickles that create `marker` when Python's pickle reads them, or that bend the instructions to get there."""
    code = f"open({str(marker)!r}, 'w').close()"
    command = f"touch {marker}"
    start, end = b"\x80\x04", b"."
    nested = dumps(Call(exec, code), 2)
    in_tensor = storage(kind=b"c__builtin__\nexec\n(X" + struct.pack("<I", len(code)) + code.encode() + b"tR0ctorch\nFloatStorage\n")
    streams = {
        "os.system": start + called("os", "system", command) + end,
        "posix.system by GLOBAL": start + b"cposix\nsystem\n(" + string(command) + b"tR" + end,
        "eval": start + called("builtins", "eval", code) + end,
        "exec": start + called("builtins", "exec", code) + end,
        "python 2 name": b"\x80\x02c__builtin__\nexec\n(" + string(code) + b"tR" + end,
        "getattr": dumps(Call(getattr, Call(__import__, "os"), "system")),
        "dotted name": start + called("torch_utils.persistence", "sys.modules", command) + end,
        "dotted name in torch.nn": start + called("torch.nn.modules.module", "functools.sys", command) + end,
        "function in torch.nn": start + called("torch.nn.modules.module", "warnings", command) + end,
        "function of torch.nn.utils": start + called("torch.nn.utils.rnn", "exec", command) + end,
        "torch.load": start + called("torch", "load", command) + end,
        "torch.hub": start + called("torch.hub", "load", command) + end,
        "copyreg": start + called("copyreg", "_reconstructor", command) + end,
        "extension": start + b"\x82\x01" + end,
        "INST": start + b"(" + string(code) + b"ibuiltins\nexec\n" + end,
        "OBJ": start + b"(" + b"cbuiltins\nexec\n" + string(code) + b"o" + end,
        "persistent id": start + string(code) + b"Q" + end,
        "nested in a storage": dumps(snapshot(progress=tensor(nested))),
        "nested import in a storage": dumps(snapshot(progress=tensor(in_tensor))),
        "behind a storage": dumps(snapshot(progress=tensor(storage(tail=nested)))),
        "state of a function": start + string("torch.storage") + string("_load_from_bytes") + b"\x93}" + string("__code__") + b"Nsb" + end,
        "call of a text": start + string("exec") + b"(" + string(code) + b"tR" + end,
        "call of a result": start + called("collections", "OrderedDict") + b"(" + string(code) + b"tR" + end,
        "behind the end": dumps(snapshot()) + nested,
        "object array": dumps(snapshot(progress=np.array([Call(exec, code)], dtype=object))),
        "object number": dumps(snapshot(progress=Call(np.dtype("O").type, None, state=None))),
        "hooks": dumps(snapshot(progress=Call(torch._utils._rebuild_parameter, torch.zeros(1), False, collections.OrderedDict(a=Call(exec, code))))),
        "in a network": dumps(snapshot(G=generator(extra=Call(exec, code)))),
        "as a key": dumps(snapshot(progress={Call(exec, code): 1})),
    }
    return streams | {"set from a call": start + b"cbuiltins\nset\n(" + called("builtins", "exec", code) + b"tR" + end}


def instructions(data: bytes) -> set[str]:
    return {opcode.name for opcode, _, _ in pickletools.genops(data)}
