# SPDX-License-Identifier: Apache-2.0
"""The fuzzer itself: it mutates, it is the same for the same seed, and it sees what must not come of a file."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import fuzz_reader
import pytest

from stylegan_redact import pickles
from stylegan_redact.types import RedactError


def test_some_mutated_files(tmp_path: Path) -> None:
    dice, files = random.Random(0), fuzz_reader.corpus(tmp_path)
    made = [fuzz_reader.mutated(dice.choice(files), dice) for _ in range(120)]
    again = random.Random(0)
    assert made[:5] == [fuzz_reader.mutated(again.choice(files), again) for _ in range(5)] and len(set(made) | set(files)) > 100
    kinds = Counter(fuzz_reader.check(data, tmp_path) for data in made)
    assert kinds["RedactError"] > 10 and kinds["UntrustedFile"] > 10, kinds
    assert [fuzz_reader.check(data, tmp_path) for data in files[2:]] == ["read and built", "read and built, of TensorFlow"]


@pytest.mark.parametrize(
    "fault", [KeyError("x"), RedactError("one part"), RedactError("a - b - Unable to allocate"), RedactError("a - b - two\nlines")]
)
def test_it_sees_faults(fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(source: Any) -> Any:
        raise fault

    monkeypatch.setattr(pickles, "read_pickle", broken)
    with pytest.raises((KeyError, AssertionError)):
        fuzz_reader.check(b"", tmp_path)
