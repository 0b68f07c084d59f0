# SPDX-License-Identifier: Apache-2.0
"""Fuzzes the reader: `PYTHONPATH=.:tests python tests/fuzz_reader.py --seconds=600 --seed=0 --findings=DIR`.

Mutates small legitimate files, bytes and pickle instructions, and fails on anything but a network or a RedactError of one line, on more than 10 s
of CPU and on more than 1 GiB. With atheris installed (`--engine=atheris`) coverage of the reader guides the choice of what to mutate.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import pickletools
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:  # The plain engine does without.
    atheris = None

READER = ["stylegan_redact." + name for name in ("pickle_stream", "pickle_values", "pickle_tree", "pickle_tensorflow", "torch_storage", "pickles")]
with atheris.instrument_imports(include=READER) if atheris else contextlib.nullcontext():
    import hostile
    import hostile_files
    import tensorflow_pickles
    import torch

    from stylegan_redact import pickles
    from stylegan_redact.network import load_network, read_snapshot
    from stylegan_redact.types import RedactError

SECONDS, MEMORY = 10, 1 << 30
TINY = {"channel_base": 32, "channel_max": 4}
NUMBERS = [0, 1, 2, 127, 128, 255, 256, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1]
SNIPPETS = [
    *(opcode.code.encode("latin-1") for opcode in pickletools.opcodes),
    *(hostile.called(*names) for names in (("os", "system", "x"), ("builtins", "exec", "x"), ("collections", "OrderedDict"), ("builtins", "set"))),
    b"cnumpy\ndtype\n", b"ctorch\nSize\n", b"\x85\x85\x85", b"h\x00", b"h\x01\x86", b"}\x94", b"]q\x00h\x00a", b"\x8a\x09" + b"\x7f" * 9,
]  # fmt: skip


def corpus(folder: Path) -> list[bytes]:
    """Small legitimate files of each kind."""
    nets = tensorflow_pickles.tiny_networks(8, TINY | {"mapping_kwargs": {"num_layers": 1, "w_avg_beta": 0.995}}, TINY, z_dim=4, w_dim=4)
    told = {"resolution": 8, "fmap_base": 16, "fmap_max": 4}
    G = told | {"latent_size": 4, "dlatent_size": 4, "mapping_layers": 1}
    small = tensorflow_pickles.write(folder / "tensorflow.pkl", nets, version=4, G=G, D=told)
    snapshots = [hostile.dumps(hostile.snapshot(redaction={"a": [1, None]}), protocol) for protocol in (3, 4)]
    return [*snapshots, hostile_files.tiny_bytes(folder), small.read_bytes()]


def mutated(data: bytes, dice: random.Random) -> bytes:
    """The file with one to eight changes."""
    for _ in range(dice.choice((1, 1, 2, 4, 8))):
        data = dice.choice((of_bytes, of_instructions, of_instructions))(data, dice)
    return data


def of_bytes(data: bytes, dice: random.Random) -> bytes:
    """A byte, a number or a piece changed, wherever it lies."""
    at, length = dice.randrange(len(data) + 1), dice.choice((1, 1, 2, 4, 16, 100))
    number = dice.choice(NUMBERS).to_bytes(8, "little")[: dice.choice((1, 2, 4, 8))]
    piece = dice.choice((dice.randbytes(length), number, b"", data[at : at + length] * 2, dice.choice(SNIPPETS)))
    return data[:at] + piece + data[at + dice.choice((0, length, len(piece))) :]


def of_instructions(data: bytes, dice: random.Random) -> bytes:
    """Whole instructions left out, doubled, moved or put in."""
    cuts = [2]
    try:
        cuts = [at for _, _, at in pickletools.genops(data)]
    except Exception:  # noqa: BLE001 - what was cut so far is what can be cut
        return of_bytes(data, dice)
    start = dice.randrange(len(cuts))
    end = min(start + dice.choice((1, 1, 2, 5, 30)), len(cuts) - 1)
    first, last, other = cuts[start], cuts[end], dice.choice(cuts)
    piece = data[first:last]
    chosen = dice.randrange(4)
    if chosen == 0:
        return data[:first] + data[last:]
    if chosen == 1:
        return data[:other] + piece + data[other:]
    if chosen == 2:
        return data[:first] + dice.choice(SNIPPETS) + data[first:]
    return data[:first] + dice.choice(SNIPPETS) + data[last:]


def check(data: bytes, folder: Path) -> str:
    """What came of the file, by kind; raises for what must not come of any."""
    began = time.process_time()
    try:
        kind = _through(data, folder)
    except RedactError as error:
        text = str(error)
        assert "\n" not in text and text.count(" - ") >= 2 and "allocate" not in text and "MemoryError" not in text, text
        kind = type(error).__name__
    seconds = time.process_time() - began
    assert seconds < SECONDS, f"took {seconds} s"
    return kind


def _through(data: bytes, folder: Path) -> str:
    found = pickles.read_pickle(io.BytesIO(data))
    if not isinstance(found, pickles.Snapshot):
        load_network(read_snapshot(io.BytesIO(data)))
        return "read and built, of TensorFlow"
    pickles.write_snapshot(found, folder / "written.pkl", tensors={}, redaction={})
    load_network(found)
    return "read and built"


def plain(seconds: float, seed: int, folder: Path, findings: Path) -> int:
    """How many files were tried; stops at the first finding."""
    dice, files, kinds, count = random.Random(seed), corpus(folder), Counter[str](), 0
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutated(dice.choice(files), dice)
        (findings / "last.pkl").write_bytes(data)  # Should the process die, here is why.
        kinds[check(data, folder)] += 1
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - start
        assert peak < MEMORY, f"took {peak >> 20} MiB"
        count += 1
    sys.stdout.write(f"{count} files, {dict(kinds.most_common())}, peak {peak >> 20} MiB above the start; nothing found\n")
    return count


def guided(seconds: int, seed: int, folder: Path, findings: Path) -> None:
    """The same under atheris, which ends the process."""
    inputs = folder / "corpus"
    inputs.mkdir()
    for number, data in enumerate(corpus(folder)):
        (inputs / str(number)).write_bytes(data)

    def mutator(data: bytes, max_size: int, number: int) -> bytes:
        return mutated(data, random.Random(number))[:max_size]

    def test(data: bytes) -> None:
        check(data, folder)

    # The watch of libFuzzer counts seconds of the day, and `check` those of the CPU.
    limits = [
        f"-timeout={6 * SECONDS}",
        "-max_len=300000",
        f"-rss_limit_mb={(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10) + (MEMORY >> 20)}",
    ]
    options: list[Any] = [
        f"-max_total_time={seconds}",
        f"-seed={seed + 1}",
        "-max_len=300000",
        f"-artifact_prefix={findings}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, *limits, str(inputs)], test, custom_mutator=mutator)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--findings", type=Path, required=True)
    parser.add_argument("--engine", choices=("plain", "atheris"), default="plain")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run = guided if asked.engine == "atheris" else plain
        run(asked.seconds, asked.seed, Path(folder), asked.findings)


if __name__ == "__main__":
    main()
