# SPDX-License-Identifier: Apache-2.0
"""Pickle bytes -> a graph of inert nodes. Nothing is imported or called: an import becomes a name, a call a record of it."""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

MAX_PLAIN_BYTES = 8 << 20
"""Of opcodes, numbers and text. A 1024x1024 snapshot has 0.5 MiB."""
MAX_INSTRUCTIONS = 500_000
"""A 1024x1024 snapshot has 40,000. One byte can ask for an object of a few hundred in memory."""
_MAX_OTHER_KEYS = 10_000
"""Keys of dictionaries that are not text. Numbers can be chosen so that all have one hash, and each is compared with all the others."""
_MAX_NUMBER_BITS = 1 << 13
"""Python refuses to print integers of more than 4,300 digits."""
_MAX_LINE = 1 << 16
_MARK = object()
TRUSTED = "get it again, from a source that you trust"  # What to do with a damaged or hostile file.
_TOO_LONG = f"it has more than {MAX_PLAIN_BYTES >> 20} MiB besides tensors, no snapshot has - {TRUSTED}"
_CUT = "it ends too early, as after a download that was cut off - download it again"
_MISFIT = f"its instructions do not fit each other: it is damaged or hostile - {TRUSTED}"


class Refused(ValueError):
    """What there is and what to do; whoever knows the file's name puts it in front."""


class Untrusted(Refused):
    """What accidents do not make: the file wants to run something, or to fill memory or time."""


@dataclass(frozen=True)
class Global:
    """An import by name, not carried out."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Object:
    """A call of a Global, not carried out, with the state and the items that were to be put into its result. Equal only to itself."""

    __slots__ = ("func", "args", "new", "state", "items")

    def __init__(
        self, func: Global, args: tuple[Any, ...], *, new: bool = False, state: Any = None, items: list[tuple[Any, Any]] | None = None
    ) -> None:
        self.func = func
        self.args = args
        self.new = new
        """True where `func.__new__(func, *args)` is meant, not `func(*args)`."""
        self.state = state
        self.items = items if items is not None else []


class Members:
    """A set in the order of the file: Python's own would come out in another order in another process. Equal only to itself."""

    __slots__ = ("values", "frozen")

    def __init__(self, values: list[Any], *, frozen: bool = False) -> None:
        self.values = values
        self.frozen = frozen


class _Bounded:
    """Reads no further than the file goes, so that a hostile length allocates nothing; text no longer than a snapshot has."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.opcode: bytes | None = None
        self.position = start = file.tell()
        self.end = file.seek(0, 2)
        file.seek(start)

    def tell(self) -> int:
        self.opcode = None  # pickletools asks where it stands before each instruction, and only then.
        return self.position

    def read(self, n: int) -> bytes:
        if n > self.end - self.position:
            raise Refused(_CUT)
        if n > MAX_PLAIN_BYTES and self.opcode not in _BYTES:
            raise Untrusted(_TOO_LONG)
        data = self.file.read(max(0, n))
        self.position += len(data)
        if self.opcode is None:
            self.opcode = data
        return data

    def readline(self) -> bytes:
        line = self.file.readline(_MAX_LINE)
        self.position += len(line)
        if not line.endswith(b"\n") and len(line) < _MAX_LINE:
            raise Refused(_CUT)
        if b"\\" in line and self.opcode != b"V":  # pickletools would undo escapes in names where pickle does not.
            raise Refused(_MISFIT)
        if len(line) == _MAX_LINE:
            raise Untrusted(f"it has a line of text longer than any in a StyleGAN pickle - {TRUSTED}")
        return line


_BYTES = (b"B", b"\x8e", b"\x96")  # Opcodes of tensors' storages, which may be as long as the file.
_RUNS = frozenset("INST OBJ NEWOBJ_EX EXT1 EXT2 EXT4 PERSID BINPERSID NEXT_BUFFER READONLY_BUFFER".split())
"""Instructions that no accident is: they call, or fetch from outside the file."""
_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Members([]),
}


class _Decoder:
    def __init__(self, resolve: Callable[[str, str], Global], persistent_ids: bool) -> None:
        self.resolve = resolve
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.binary_bytes = 0
        self.other_keys = 0
        self.actions: dict[str, Callable[[Any], None]] = {
            "MARK": lambda _: self.stack.append(_MARK),
            "POP": lambda _: self.push_nothing(self.stack.pop()),
            "POP_MARK": lambda _: self.push_nothing(self.marked()),
            "TUPLE": lambda _: self.stack.append(tuple(self.marked())),
            "TUPLE1": lambda _: self.stack.append(self.take(1)),
            "TUPLE2": lambda _: self.stack.append(self.take(2)),
            "TUPLE3": lambda _: self.stack.append(self.take(3)),
            "LIST": lambda _: self.stack.append(self.marked()),
            "DICT": lambda _: self.stack.append(dict(self.pairs(self.marked()))),
            "FROZENSET": lambda _: self.stack.append(Members(self.marked(), frozen=True)),
            "APPEND": lambda _: self.extend(list(self.take(1))),
            "APPENDS": lambda _: self.extend(self.marked()),
            "ADDITEMS": lambda _: self.add(self.marked()),
            "SETITEM": lambda _: self.update(list(self.take(2))),
            "SETITEMS": lambda _: self.update(self.marked()),
            "MEMOIZE": lambda _: self.put(len(self.memo)),
            **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self.put),
            **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda index: self.stack.append(self.memo[int(index)])),
            "GLOBAL": lambda names: self.stack.append(self.resolve(*names.split(" ", 1))),
            "STACK_GLOBAL": lambda _: self.stack_global(),
            "REDUCE": lambda _: self.call(new=False),
            "NEWOBJ": lambda _: self.call(new=True),
            "BUILD": lambda _: self.build(),
            **dict.fromkeys(("PROTO", "FRAME", "STOP"), self.push_nothing),
        }
        if persistent_ids:
            self.actions["BINPERSID"] = lambda _: self.stack.append(Object(Global("", "persistent_id"), self.take(1)))

    def step(self, name: str, arg: Any) -> None:
        if name in _LITERALS:
            if isinstance(arg, (bytes, bytearray)):
                self.binary_bytes += len(arg)
            if isinstance(arg, int) and arg.bit_length() > _MAX_NUMBER_BITS:
                raise Untrusted(f"it has a number of {arg.bit_length()} bits - {TRUSTED}")
            self.stack.append(arg)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in self.actions:
            self.actions[name](arg)
        else:
            refused = Untrusted if name in _RUNS else Refused
            raise refused(f"it uses the pickle instruction {name}, which no StyleGAN pickle has; nothing was run - {TRUSTED}")

    def push_nothing(self, _: Any) -> None: ...

    def take(self, n: int) -> tuple[Any, ...]:
        taken = tuple(self.stack[-n:])
        if len(taken) < n or any(item is _MARK for item in taken):
            raise Refused(_MISFIT)
        del self.stack[-n:]
        return taken

    def marked(self) -> list[Any]:
        """Everything above the topmost mark."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise Refused(_MISFIT)
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def top(self, *kinds: type) -> Any:
        if not isinstance(self.stack[-1], kinds):
            refused = Untrusted if isinstance(self.stack[-1], Global) else Refused
            raise refused(f"it fills a {type(self.stack[-1]).__name__} as if it were something else: it is damaged or hostile - {TRUSTED}")
        return self.stack[-1]

    def put(self, index: Any) -> None:
        if self.stack[-1] is _MARK:
            raise Refused(_MISFIT)
        if int(index) > MAX_INSTRUCTIONS:
            raise Refused(_MISFIT)
        self.memo[int(index)] = self.stack[-1]

    def extend(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def add(self, values: list[Any]) -> None:
        self.top(Members).values.extend(values)

    def update(self, values: list[Any]) -> None:
        target = self.top(dict, Object)
        if isinstance(target, dict):
            target.update(self.pairs(values))
        else:
            target.items.extend(self.pairs(values))

    def pairs(self, values: list[Any]) -> list[tuple[Any, Any]]:
        """Keys and values; keys are looked at before anything hashes them, which could take for ever with tuples of tuples."""
        for key in values[::2]:
            if type(key) is not str:
                check_key(key)
                self.other_keys += 1
        if self.other_keys > _MAX_OTHER_KEYS:
            raise Untrusted(f"it has more than {_MAX_OTHER_KEYS} keys that are not text - {TRUSTED}")
        return list(zip(values[::2], values[1::2], strict=True))

    def stack_global(self) -> None:
        module, name = self.take(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise Untrusted(f"it imports something that has no name: it is damaged or hostile - {TRUSTED}")
        self.stack.append(self.resolve(module, name))

    def call(self, *, new: bool) -> None:
        func, args = self.take(2)
        if not (isinstance(func, Global) and isinstance(args, tuple)):
            raise Untrusted(f"it calls something that is not an import; nothing was run - {TRUSTED}")
        self.stack.append(Object(func, args, new=new))

    def build(self) -> None:
        (state,) = self.take(1)
        target = self.top(Object)
        if target.state is not None:
            raise Untrusted(f"it sets the state of an object twice: it is damaged or hostile - {TRUSTED}")
        target.state = state


def check_key(key: Any) -> None:
    """Raises Untrusted unless the key is a plain value, or a tuple of such."""
    kinds = (bool, int, float, str, bytes, type(None), Global)
    if not all(isinstance(part, kinds) for part in (key if isinstance(key, tuple) else (key,))):
        raise Untrusted(f"it has a dictionary or set with unusual keys: it is damaged or hostile - {TRUSTED}")


def decode(file: BinaryIO, resolve: Callable[[str, str], Global], *, persistent_ids: bool = False, max_instructions: int = MAX_INSTRUCTIONS) -> Any:
    """The graph of the pickle that starts where the file stands; afterwards the file stands behind it.

    Args:
        file:           Seekable.
        resolve:        (module, name) -> Global, raises Refused for names that have no place in the file.
        persistent_ids: Whether the pickle may hold any (those inside torch's storages do).
        max_instructions: How many the pickle may have.

    Returns:
        None, bool, int, float, str, bytes, bytearray, tuple, list, dict, Global, Object, Members; shared where the pickle shares.

    Raises:
        Refused, and whatever pickletools and Python's containers raise on damaged input.
    """
    decoder = _Decoder(resolve, persistent_ids)
    source = _Bounded(file)
    start = source.position
    for count, (opcode, arg, _) in enumerate(pickletools.genops(source)):  # type: ignore[arg-type]
        decoder.step(opcode.name, arg)
        if source.position - start - decoder.binary_bytes > MAX_PLAIN_BYTES:
            raise Untrusted(_TOO_LONG)
        if count > max_instructions:
            raise Untrusted(f"it has more than {max_instructions} instructions, no snapshot has - {TRUSTED}")
    (root,) = decoder.stack
    if root is _MARK:
        raise Refused(_MISFIT)
    return root


def imported_names(file: BinaryIO) -> tuple[str, ...]:
    """What the pickle imports, by name and in order; nothing is imported."""
    found: dict[str, None] = {}

    def note(module: str, name: str) -> Global:
        found[f"{module}.{name}"] = None
        return Global(module, name)

    decode(file, note)
    return tuple(found)
