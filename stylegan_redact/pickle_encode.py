# SPDX-License-Identifier: Apache-2.0
"""A graph of inert nodes -> pickle bytes, the same ones every time."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import Any

from stylegan_redact.pickle_stream import Global, Members, Object


class _Encoder:
    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self.write = write
        self.memo: dict[Any, int] = {}

    def save(self, node: Any) -> None:
        if node is None or isinstance(node, (bool, int, float)) or (isinstance(node, tuple) and not node):
            self.write(_atom(node))
            return
        # Everything else is written once; the graph holds it while it is written, so its id stays its own.
        key = node if isinstance(node, Global) else id(node)
        if key in self.memo:
            index = self.memo[key]
            self.write(b"h" + bytes([index]) if index < 256 else b"j" + struct.pack("<I", index))
            return
        self.body(node, key)

    def memoize(self, key: Any) -> None:
        self.memo[key] = len(self.memo)
        self.write(b"\x94")

    def body(self, node: Any, key: Any) -> None:
        if isinstance(node, str):
            self.sized(node.encode("utf-8", "surrogatepass"), b"\x8c", b"X", b"\x8d", key)
        elif isinstance(node, bytes):
            self.sized(node, b"C", b"B", b"\x8e", key)
        elif isinstance(node, tuple):
            self.write(b"(" if len(node) > 3 else b"")
            self.each(node)
            self.write(b"t" if len(node) > 3 else (b"\x85", b"\x86", b"\x87")[len(node) - 1])
            self.memoize(key)
        elif isinstance(node, Global):
            self.save(node.module)
            self.save(node.name)
            self.write(b"\x93")
            self.memoize(key)
        elif isinstance(node, Members) and node.frozen:
            self.write(b"(")
            self.each(node.values)
            self.write(b"\x91")
            self.memoize(key)
        else:
            self.mutable(node, key)

    def mutable(self, node: Any, key: Any) -> None:
        """Made empty, then filled: list, dict, set, Object."""
        if isinstance(node, list):
            self.write(b"]")
            self.memoize(key)
            self.marked(node, b"e")
        elif isinstance(node, dict):
            self.write(b"}")
            self.memoize(key)
            self.marked([part for item in node.items() for part in item], b"u")
        elif isinstance(node, Members):
            self.write(b"\x8f")
            self.memoize(key)
            self.marked(node.values, b"\x90")
        else:
            assert isinstance(node, Object), type(node)
            self.save(node.func)
            self.save(node.args)
            self.write(b"\x81" if node.new else b"R")
            self.memoize(key)
            self.marked([part for item in node.items for part in item], b"u")
            if node.state is not None:
                self.save(node.state)
                self.write(b"b")

    def each(self, nodes: Any) -> None:
        for node in nodes:
            self.save(node)

    def marked(self, nodes: list[Any], opcode: bytes) -> None:
        if nodes:
            self.write(b"(")
            self.each(nodes)
            self.write(opcode)

    def sized(self, data: bytes, short: bytes, normal: bytes, long: bytes, key: Any) -> None:
        if len(data) < 1 << 8:
            self.write(short + bytes([len(data)]))
        elif len(data) < 1 << 32:
            self.write(normal + struct.pack("<I", len(data)))
        else:
            self.write(long + struct.pack("<Q", len(data)))
        self.write(data)
        self.memoize(key)


def _atom(node: Any) -> bytes:
    if node is None:
        return b"N"
    if isinstance(node, bool):
        return b"\x88" if node else b"\x89"
    if isinstance(node, tuple):
        return b")"
    if isinstance(node, float):
        return b"G" + struct.pack(">d", node)
    if 0 <= node < 1 << 8:
        return b"K" + bytes([node])
    if -(1 << 31) <= node < 1 << 31:
        return b"J" + struct.pack("<i", node)
    data = pickle.encode_long(node)
    return (b"\x8a" + bytes([len(data)]) if len(data) < 256 else b"\x8b" + struct.pack("<i", len(data))) + data


def encode(root: Any, write: Callable[[bytes], Any]) -> None:
    """Writes the graph as a protocol 4 pickle: the same graph gives the same bytes, what is shared stays shared.

    Args:
        root:  A graph without circles, of the types that `decode` returns, without bytearray.
        write: Takes the bytes piece by piece.
    """
    write(b"\x80\x04")
    _Encoder(write).save(root)
    write(b".")
