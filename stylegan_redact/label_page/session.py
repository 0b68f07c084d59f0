# SPDX-License-Identifier: Apache-2.0
"""The clicks, kept: each is on the disk before it is answered for, so that a killed server loses nothing and a new one goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stylegan_redact.run_dir import append
from stylegan_redact.types import RedactError


class Session:
    """Labels by seed, with undo, in a journal: a line of JSON for each action, the first of them saying of what network and feature."""

    def __init__(self, journal: Path, about: Mapping[str, Any]) -> None:
        """Opens the journal, or begins it.

        Args:
            journal: File of lines; a last line that was cut off is dropped.
            about:   What the labels are of: plain values.

        Raises:
            RedactError: the journal is about something else, is none, or cannot be written.
        """
        self._journal = journal
        self._actions: list[list[tuple[int, bool | None]]] = []
        self._labels: dict[int, bool] = {}
        try:
            there = journal.read_bytes() if journal.exists() else b""
            whole = there[: there.rfind(b"\n") + 1]
            if whole:
                self._replay(whole, dict(about))
            with journal.open("r+b" if there else "wb") as file:
                file.truncate(len(whole))
        except OSError as error:
            raise self._unwritable(error) from error
        if not whole:
            self._append(dict(about))

    @property
    def labels(self) -> Mapping[int, bool]:
        """Seed -> whether it shows the feature, in the order of the clicks."""
        return self._labels

    @property
    def can_undo(self) -> bool:
        """Whether there is an action to take back."""
        return bool(self._actions)

    def label(self, answers: Sequence[tuple[int, bool | None]]) -> None:
        """One action: (seed, shows) pairs; None takes a label away."""
        self._append({"label": [[seed, shows] for seed, shows in answers]})
        self._apply(answers)

    def undo(self) -> tuple[int, ...]:
        """Takes the last action back; the seeds that it was about."""
        if not self._actions:
            return ()
        self._append({"undo": True})
        return self._take_back()

    def _apply(self, answers: Sequence[tuple[int, bool | None]]) -> None:
        self._actions.append([(seed, self._labels.get(seed)) for seed, _ in answers])
        for seed, shows in answers:
            self._labels.pop(seed, None)
            if shows is not None:
                self._labels[seed] = shows

    def _take_back(self) -> tuple[int, ...]:
        before = self._actions.pop()
        for seed, shows in before:
            self._labels.pop(seed, None)
            if shows is not None:
                self._labels[seed] = shows
        return tuple(seed for seed, _ in before)

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            append(self._journal, (json.dumps(line) + "\n").encode(), sync=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _replay(self, whole: bytes, about: dict[str, Any]) -> None:
        try:
            first, *rest = [json.loads(line) for line in whole.splitlines()]
            if first == about:
                for line in rest:
                    self._take_back() if "undo" in line else self._apply([(int(seed), shows) for seed, shows in line["label"]])
        except (ValueError, KeyError, TypeError, IndexError):
            raise RedactError(f"clicks were to be kept in {self._journal} - it is no file of clicks - give another --out") from None
        if first != about:
            held = first if isinstance(first, dict) else {}
            theirs = {key: held.get(key) for key in about if held.get(key) != about[key]}
            ours = {key: about[key] for key in theirs}
            raise RedactError(
                f"clicks were to be kept in {self._journal} - it has clicks about {theirs}, these are about {ours} - give another --out, or delete it"
            )

    def _unwritable(self, error: OSError) -> RedactError:
        return RedactError(f"clicks were to be kept in {self._journal} - {error.strerror or error} - check the folder, its rights and the space left")
