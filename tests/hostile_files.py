# SPDX-License-Identifier: Apache-2.0
"""The table of hostile and broken files: how each is made, and the exit code that `inspect` and `convert` must give for it.

0: harmless to read; 2: broken or unsuitable; 3: not to be trusted. Payloads would create a marker file if anything ran them.
"""

from __future__ import annotations

import json
import pickletools
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import safetensors.torch
import tensorflow_pickles
import tiny_run
import torch

from stylegan_redact.networks import fit
from stylegan_redact.networks.stylegan2 import Discriminator, Generator
from stylegan_redact.torch_storage import encode_storage

START, END = b"\x80\x04", b"."
HASH = (1 << 61) - 1
"""Multiples of it all have the hash 0."""


@dataclass(frozen=True)
class HostileFile:
    """A file and what must come of it."""

    make: Callable[[Path], bytes]
    """Takes the marker's path."""
    inspect: int
    convert: int
    ending: str = ".pkl"


def tiny_bytes(folder: Path) -> bytes:
    """A legitimate snapshot."""
    tiny_run.write_network(folder / "legitimate.pkl")
    return (folder / "legitimate.pkl").read_bytes()


def fixed(data: bytes) -> Callable[[Path], bytes]:
    return lambda marker: data


def progress(value: Any) -> Callable[[Path], bytes]:
    """A snapshot that is good but for one more key."""
    return lambda marker: hostile.dumps(hostile.snapshot(progress=value))


def stream(*parts: bytes) -> Callable[[Path], bytes]:
    """A pickle of these instructions."""
    return fixed(START + b"".join(parts) + END)


def network(tensors: dict[str, Any], *args: Any, class_name: str = "Generator", source: str = hostile.SOURCE, **kwargs: Any) -> hostile.Call:
    """A persistent network whose tensors have these dotted names."""
    tree: dict[str, Any] = {}
    for name, value in tensors.items():
        *path, leaf = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value

    def build(node: dict[str, Any], name: str, **attributes: Any) -> hostile.Call:
        modules = [(key, build(value, "Part")) for key, value in node.items() if isinstance(value, dict)]
        buffers = [(key, value) for key, value in node.items() if not isinstance(value, dict)]
        return hostile.module(name, modules=modules, buffers=buffers, source=source, **attributes)

    return build(tree, class_name, _init_args=args, _init_kwargs=kwargs)


def built_with(**kwargs: Any) -> Callable[[Path], bytes]:
    """A snapshot whose generators are StyleGAN2's by their tensors, and were built with these arguments."""
    G = {"synthesis.b4.const": torch.zeros(4, 4, 4), "mapping.w_avg": torch.zeros(8)}
    shape = dict(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=3)
    return lambda marker: hostile.dumps(hostile.snapshot(G=network(G, **{**shape, **kwargs}), G_ema=network(G, **{**shape, **kwargs})))


def built_with_3(**kwargs: Any) -> Callable[[Path], bytes]:
    """The same of StyleGAN3."""
    G = {"synthesis.input.freqs": torch.zeros(4, 2), "mapping.w_avg": torch.zeros(8)}
    shape = dict(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=3, channel_max=4)
    return lambda marker: hostile.dumps(hostile.snapshot(G=network(G, **{**shape, **kwargs}), G_ema=network(G, **{**shape, **kwargs})))


def spread(marker: Path) -> bytes:
    """A whole StyleGAN2 for 1024 pixels out of storages of one number, by strides of zero."""
    kwargs: dict[str, Any] = dict(channel_base=8192, channel_max=256)
    one = hostile.Call(torch.storage._load_from_bytes, hostile.storage(raw=b"\0" * 4, numel=1))

    def tensors(net: torch.nn.Module) -> dict[str, Any]:
        return {name: hostile.tensor(one, size=tuple(t.shape), stride=(0,) * t.ndim) for name, t in net.state_dict().items()}

    G = fit.without_memory(lambda: Generator(64, 0, 64, 1024, 3, **kwargs))
    D = fit.without_memory(lambda: Discriminator(0, 1024, 3, **kwargs))
    generator = network(tensors(G), 64, 0, 64, 1024, 3, **kwargs)
    discriminator = network(tensors(D), 0, 1024, 3, class_name="Discriminator", **kwargs)
    return hostile.dumps(hostile.snapshot(G=generator, D=discriminator, G_ema=generator))


def runs_when_loaded(marker: Path) -> bytes:
    """A working network whose embedded source is hostile: reading it is safe, other tools would run it."""
    source = f"open({str(marker)!r}, 'w').close()\n"
    kwargs: dict[str, Any] = dict(channel_base=128, channel_max=8)
    G, D = Generator(8, 0, 8, 16, 3, mapping_kwargs={"num_layers": 2}, **kwargs), Discriminator(0, 16, 3, **kwargs)
    state = {name: tensor.detach() for name, tensor in G.state_dict().items()}
    generator = network(state, 8, 0, 8, 16, 3, source=source, mapping_kwargs={"num_layers": 2}, **kwargs)
    discriminator = network({name: t.detach() for name, t in D.state_dict().items()}, 0, 16, 3, class_name="Discriminator", source=source, **kwargs)
    return hostile.dumps(hostile.snapshot(G=generator, D=discriminator, G_ema=generator))


def laughs(bottom: Any = 0, levels: int = 60) -> Any:
    """2^60 values in 60 tuples."""
    for _ in range(levels):
        bottom = (bottom, bottom)
    return bottom


def layers(leaf: Any, wide: int, deep: int) -> Any:
    """wide^deep layers in `deep` objects."""
    for _ in range(deep):
        leaf = hostile.module("Layer", modules={f"m{index}": leaf for index in range(wide)})
    return leaf


def deep_list(marker: Path) -> bytes:
    return START + b"]" * 100_000 + b"a" * 99_999 + END


def tensorflow(**changed: Any) -> Callable[[Path], bytes]:
    """Three networks of TensorFlow with these arguments."""

    def make(marker: Path) -> bytes:
        kwargs = {"resolution": 16, "fmap_base": 64, "fmap_max": 4, **changed}
        nets = [tensorflow_pickles.Network(name, {"Output/bias": np.zeros(4, np.float32)}, version=4, kwargs=kwargs) for name in ("G", "D", "Gs")]
        return tensorflow_pickles.dumps(tuple(nets))

    return make


def tensorflow_components(marker: Path) -> bytes:
    """10^12 components without variables."""
    net = tensorflow_pickles.Network("leaf", {}, version=4, kwargs={})
    for _ in range(4):
        net = tensorflow_pickles.Network("G", {}, version=4, kwargs={}, **{f"c{index}": net for index in range(1000)})
    return tensorflow_pickles.dumps((net, net, net))


def tensorflow_objects(marker: Path) -> bytes:
    net = tensorflow_pickles.Network("G", {}, version=4, kwargs={})
    net.state["variables"] = [("x", np.array([hostile.Call(exec, f"open({str(marker)!r}, 'w')")], dtype=object))]
    return tensorflow_pickles.dumps((net, net, net))


def described(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], bytes]:
    """A safetensors file as `convert` writes it, with another description of its networks."""
    nets = {"G": ["Generator", [8, 0, 8, 16, 3], {}], "D": ["Discriminator", [0, 16, 3], {}], "G_ema": ["Generator", [8, 0, 8, 16, 3], {}]}
    description = {"networks": nets, "ada": False, "training_set_kwargs": None, "redaction": None}
    names = {"G": "synthesis.b4.const", "G_ema": "synthesis.b4.const", "D": "b4.out.weight"}
    tensors = {f"{key}.{name}": torch.zeros(4) for key, name in names.items()}

    def make(marker: Path) -> bytes:
        told = change(description)
        return safetensors.torch.save(tensors, metadata={"stylegan-redact": told if isinstance(told, str) else json.dumps(told)})

    return make


def _with_layers(description: dict[str, Any]) -> dict[str, Any]:
    return description | {"networks": description["networks"] | {"G": ["Generator", [8, 0, 8, 16, 3], {"mapping_kwargs": {"num_layers": 10**9}}]}}


def torchscript(marker: Path) -> bytes:
    tiny_run.save_torchscript(tiny_run.BrightRegion(2, 0.5), marker.with_name("script.pt"))
    return marker.with_name("script.pt").read_bytes()


def _int(value: int) -> bytes:
    return b"\x8a" + bytes([9]) + value.to_bytes(9, "little", signed=True)


_ESCAPE = "\x1b]0;owned\x07\x1b[2J\u202e\nG_ema: all is well"
_SETS = {
    "calls in the memo": (stream(b"\x8c\x0bcollectionsq\x00\x8c\x02osq\x00\x8c\x06systemq\x01000h\x00h\x01\x93)R"), 3, 3),
    "memo of nothing": (stream(b"h\x07"), 2, 2),
    "memo of a mark": (stream(b"(q\x00"), 2, 2),
    "memo far away": (stream(b"Nr\xff\xff\xff\xff"), 2, 2),
    "memo of one hash": (fixed(START + b"N" + b"".join(b"p%d\n" % (index * HASH) for index in range(100_000)) + END), 2, 2),
    "extension of 1 byte": (stream(b"\x82\x01"), 3, 3),
    "extension of 2 bytes": (stream(b"\x83\x01\x00"), 3, 3),
    "extension of 4 bytes": (stream(b"\x84\x01\x00\x00\x00"), 3, 3),
    "NEWOBJ_EX": (stream(b"cbuiltins\nset\n)}\x92"), 3, 3),
    "text as persistent id": (stream(b"Pos.system\n"), 3, 3),
    "buffer from outside": (stream(b"\x97"), 3, 3),
    "subprocess": (lambda marker: START + hostile.called("subprocess", "call", f"touch {marker}") + END, 3, 3),
    "import": (stream(hostile.called("builtins", "__import__", "os")), 3, 3),
    "name with dots": (stream(hostile.called("torch", "hub.load", "x")), 3, 3),
    "dots in a StyleGAN module": (stream(hostile.called("dnnlib.util", "EasyDict.__init__.__globals__", "x")), 3, 3),
    "name with escapes": (stream(b"ctorch.storage\n_load_from\\x5fbytes\n"), 2, 2),
    "name with a wrong escape": (stream(b"cos\nsyst\\\xbfem\n"), 2, 2),
    "name of a terminal's codes": (stream(hostile.called("os", _ESCAPE, "x")), 3, 3),
}
_LAUGHS = b")" + b"".join(b"\x85q%ch%c\x86" % (index, index) for index in range(60))
"""Instructions for 2^60 empty tuples: what Python would need to hash them, no machine has the time for."""
_SIZES = {
    "bytes of 2^62": (stream(b"\x8e" + struct.pack("<Q", 1 << 62)), 2, 2),
    "text of 2^62": (stream(b"\x8d" + struct.pack("<Q", 1 << 62)), 2, 2),
    "text of 2 GiB": (stream(b"X" + struct.pack("<I", (1 << 31) - 1)), 2, 2),
    "number of 2 GiB": (stream(b"\x8b" + struct.pack("<i", (1 << 31) - 1)), 2, 2),
    "frame of 2^62": (stream(b"\x95" + struct.pack("<Q", 1 << 62) + b"N"), 2, 2),
    "text of 9 MiB": (stream(b"X" + struct.pack("<I", 9 << 20) + b"x" * (9 << 20)), 3, 3),
    "number of a million digits": (stream(b"\x8b" + struct.pack("<i", 415_241) + b"\x7f" * 415_241), 3, 3),
    "six million sets": (fixed(START + b"(" + b"\x8f" * 6_000_000 + b"t."), 3, 3),
    "a million memos": (fixed(START + b"N" + b"\x94" * 1_000_000 + END), 3, 3),
    "lists in lists": (deep_list, 3, 3),
    "tuples in tuples": (fixed(START + b")" + b"\x85" * 100_000 + END), 3, 3),
    "tuples in tuples as a key": (fixed(START + b"})" + b"\x85" * 400_000 + b"Ns."), 3, 3),
    "itself": (progress((lambda items: items.append(items) or items)([])), 3, 3),
    "billion laughs": (progress(laughs()), 0, 2),
    "billion laughs in a list of lists": (lambda marker: hostile.dumps(hostile.snapshot(training_set_kwargs={"x": laughs([0])})), 3, 3),
    "billion laughs as a key": (stream(b"}" + _LAUGHS + b"Ns"), 3, 3),
    "billion laughs in a set": (stream(b"(" + _LAUGHS + b"\x91"), 3, 3),
    "layers without tensors": (lambda marker: hostile.dumps(hostile.snapshot(D=layers(hostile.module("Layer"), 100, 8))), 3, 3),
    "one network by many names": (lambda marker: hostile.dumps(hostile.snapshot(**dict.fromkeys(map(str, range(5000)), hostile.generator()))), 3, 3),
    "keys of one hash": (stream(b"}(" + b"".join(_int(index * HASH % (1 << 62)) + b"N" for index in range(1, 20_000)) + b"u"), 3, 3),
    "members of one hash": (lambda marker: hostile.dumps(hostile.snapshot(progress=set(range(20_000)))), 3, 3),
    "a tensor of 2^40": (progress(hostile.tensor(hostile.storage(), size=(1 << 40,), stride=(0,))), 3, 3),
    "a tensor of a million dimensions": (progress(hostile.tensor(hostile.storage(), size=(2,) * 100_000, stride=(0,) * 100_000)), 2, 2),
    "an array of no elements": (
        lambda marker: hostile.dumps(hostile.snapshot(training_set_kwargs={"x": np.zeros((1 << 40, 0))})),
        3,
        3,
    ),
    "a network of strides of zero": (spread, 0, 3),
}


def one_storage_a_thousand_times(marker: Path) -> bytes:
    """A file of 1 MB whose tensors would take 1 GB."""
    blob = encode_storage(torch.zeros(1 << 18))
    tensors = [hostile.tensor(blob, size=(1 << 18,)) for _ in range(1000)]
    return hostile.dumps(hostile.snapshot(progress=tensors))


_DATA = {
    "one storage a thousand times": (one_storage_a_thousand_times, 3, 3),
    "an array of objects": (progress(np.array([object()], dtype=object)), 3, 3),
    "a number that is an object": (progress(hostile.Call(np.dtype, "O8", False, True, state=(3, "|", None, None, None, -1, -1, 63))), 3, 3),
    "an array of records": (progress(np.zeros(2, dtype=[("a", "f4")])), 3, 3),
    "an array over a subclass": (stream(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nmemmap\nK\x00\x85C\x01btR"), 3, 3),
    "a storage on the meta device": (progress(hostile.tensor(hostile.storage(location="meta"))), 2, 2),
    "a storage that lies": (progress(hostile.tensor(hostile.storage(numel=200))), 2, 2),
    "a storage that hides bytes": (progress(hostile.tensor(hostile.storage(tail=b"x"))), 3, 3),
    "a function as a value": (progress(torch._utils._rebuild_tensor_v2), 3, 3),
    "a source that would run": (runs_when_loaded, 0, 0),
    "terminal's codes in the provenance": (lambda marker: hostile.dumps(hostile.snapshot(redaction={_ESCAPE: _ESCAPE})), 0, 2),
    "terminal's codes as names": (
        lambda marker: hostile.dumps(hostile.snapshot(**{_ESCAPE: hostile.module(_ESCAPE)}, G=network({_ESCAPE.replace(".", ""): torch.zeros(1)}))),
        0,
        2,
    ),
    "a class name of a megabyte": (lambda marker: hostile.dumps(hostile.snapshot(G=hostile.module("G" * (1 << 20)))), 0, 2),
}
_ARGUMENTS = {
    "resolution of 2^20": (built_with(img_resolution=1 << 20), 0, 3),
    "resolution of 2^5000": (built_with(img_resolution=1 << 5000), 0, 3),
    "channels of 2^40": (built_with(channel_base=1 << 40, channel_max=1 << 40), 0, 3),
    "channels of 2^23": (built_with(channel_base=1 << 23, channel_max=1 << 23), 0, 3),
    "latents of 2^24": (built_with(z_dim=(1 << 24) - 1), 0, 3),
    "a milliard layers": (built_with(mapping_kwargs={"num_layers": 10**9}), 0, 3),
    "layers of 2^20": (built_with(mapping_kwargs={"layer_features": 1 << 20}), 0, 3),
    "a filter of 100,000 taps": (built_with(resample_filter=[1] * 50_000), 0, 3),
    "half precision below nothing": (built_with(num_fp16_res=-(10**9)), 0, 3),
    "arguments in arguments": (built_with(mapping_kwargs={"a": [[[[[[[[[[1]]]]]]]]]]}), 0, 3),
    "a tensor as an argument": (built_with(channel_base=torch.zeros(2)), 0, 2),
    "no channels": (built_with(channel_base=0), 0, 2),
    "infinitely many channels": (built_with(channel_max=float("inf")), 0, 3),
    "not a number of channels": (built_with(channel_max=float("nan")), 0, 3),
    "text as resolution": (built_with(img_resolution="16"), 0, 2),
    "StyleGAN3: a milliard layers": (built_with_3(num_layers=10**9), 0, 3),
    "StyleGAN3: a filter of 2^20": (built_with_3(filter_size=1 << 20, use_radial_filters=True), 0, 3),
    "StyleGAN3: a margin of 2^20": (built_with_3(margin_size=1 << 20), 0, 3),
    "StyleGAN3: no sampling rate": (built_with_3(first_stopband=1e-300), 0, 2),
    "StyleGAN3: upsampling without end": (built_with_3(first_stopband=1e-9, first_cutoff=1e-9), 0, 2),
    "StyleGAN3: all layers critical": (built_with_3(num_layers=4, num_critical=4), 0, 2),
    "TensorFlow: resolution of 2^20": (tensorflow(resolution=1 << 20), 0, 3),
    "TensorFlow: a milliard layers": (tensorflow(mapping_layers=10**9), 0, 3),
    "TensorFlow: 10^12 components": (tensorflow_components, 3, 3),
    "TensorFlow: a variable of objects": (tensorflow_objects, 3, 3),
}
_OTHER = {
    "safetensors: a milliard layers": (described(_with_layers), 2, 3, ".safetensors"),
    "safetensors: lists in lists": (
        described(lambda d: json.dumps(d | {"redaction": {"x": 0}}).replace("0}", "[" * 900 + "]" * 900 + "}")),
        2,
        2,
        ".safetensors",
    ),
    "safetensors: endless lists": (described(lambda d: "[" * 100_000), 2, 2, ".safetensors"),
    "safetensors: a long number": (described(lambda d: "1" * 100_000), 2, 2, ".safetensors"),
    "safetensors: a header of 2^62": (fixed(struct.pack("<Q", 1 << 62) + b"{"), 2, 2, ".safetensors"),
    "safetensors: data beyond the file": (
        fixed(struct.pack("<Q", 64) + b'{"G.x":{"dtype":"F32","shape":[268435456,4],"data_offsets":[0,4294967296]}}'.ljust(64)),
        2,
        2,
        ".safetensors",
    ),
    "TorchScript": (torchscript, 2, 2),
    "nothing": (fixed(b""), 2, 2),
    "zeros": (fixed(b"\0" * 4096), 2, 2),
    "a pickle's first byte": (fixed(b"\x80"), 2, 2),
}


def table(marker: Path) -> dict[str, HostileFile]:
    """Every file by name."""
    named = {name: (fixed(data), 3, 3) for name, data in hostile.hostile_streams(marker).items()}
    rest: Iterable[tuple[str, Any]] = (item for part in (_SETS, _SIZES, _DATA, _ARGUMENTS, _OTHER) for item in part.items())
    return {name: HostileFile(*entry) for name, entry in [*named.items(), *rest]}


def truncated(data: bytes) -> dict[str, bytes]:
    """The file cut at every fiftieth of its length."""
    return {f"cut at {part}/50": data[: len(data) * part // 50] for part in range(50)}


def flipped(data: bytes) -> dict[str, bytes]:
    """The file with one byte flipped: in every fiftieth part, and in opcode and argument of the first and the last instruction of every kind."""
    places: dict[str, list[int]] = {f"part {part}/50": [len(data) * part // 50] for part in range(50)}
    steps = [(opcode.name, at) for opcode, _, at in pickletools.genops(data)] + [("end", len(data))]
    for (name, at), (_, after) in zip(steps, steps[1:], strict=False):
        places.setdefault(f"{name} opcode", []).append(at)
        if after - at > 1:
            places.setdefault(f"{name} argument", []).append((at + after) // 2)
    found = {}
    for name, there in places.items():
        for place in sorted({there[0], there[-1]}):
            found[f"{name} at {place}"] = data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]
    return found
