# SPDX-License-Identifier: Apache-2.0
"""What the page asks for and is told: which pictures are on it, what the probe guesses, how far one is; and the file of labels at the end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from stylegan_redact import probe
from stylegan_redact.label_page import PER_PAGE
from stylegan_redact.label_page.gallery import Gallery
from stylegan_redact.label_page.session import Session
from stylegan_redact.latents import LabelFile, save_labels
from stylegan_redact.types import LabelledLatents, RedactError

FEWEST_TO_SAVE = 10
"""Of either label, said or guessed: what a direction is fitted to needs as many."""
_DOUBTED = 4
"""Clicks that the probe would not have expected, shown again on a page of guesses."""
MODES = ("label", "check")
"""Label what is shown, or check what is guessed."""


class Desk:
    """A gallery, a session and a probe; one request at a time."""

    def __init__(self, gallery: Gallery, session: Session, feature: str, out: Path, sha256: str, *, seed: int = 0) -> None:
        """Begins with a page to label; the gallery must have drawn some pictures, and all that the session has labels of.

        Args:
            feature: Its name, for the page and the file.
            out:     Where `finish` writes.
            sha256:  Of the network's file.
            seed:    Of the pictures shown at random.
        """
        self._gallery, self._session, self.feature, self._out, self._sha256 = gallery, session, feature, out, sha256
        self._generator = torch.Generator().manual_seed(seed)
        self._lock = threading.RLock()
        self._mode, self.saved = "label", False
        self._page: list[int] = []
        self.turn("label")

    def state(self) -> dict[str, Any]:
        """All that the page shows, in plain values."""
        with self._lock:
            labels, accuracy = self._session.labels, self._accuracy
            cells = [
                {"seed": seed, "label": labels.get(seed), "guess": None if self._score is None else bool(self._score[self._row(seed)] > 0)}
                for seed in self._page
            ]
            yes = sum(labels.values())
            return {
                "feature": self.feature, "mode": self._mode, "cells": cells, "yes": yes, "no": len(labels) - yes, "undo": self._session.can_undo,
                "drawn": self._gallery.drawn, "pool": len(self._gallery.seeds), "saved": self.saved, "settled": self._settled,
                "accuracy": None if accuracy is None else [accuracy.value, accuracy.low, accuracy.high, accuracy.n],
                "rate": None if self._score is None else float((self._score > 0).double().mean()),
                "can_check": self._score is not None, "of_images": self._gallery.of_images,
            }  # fmt: skip

    def label(self, answers: Sequence[tuple[int, bool | None]]) -> None:
        """Keeps labels of pictures that are on the page.

        Raises:
            RedactError: one is not, or the disk is full.
        """
        with self._lock:
            strange = [seed for seed, _ in answers if seed not in self._page]
            if strange:
                raise RedactError(f"a label for picture {strange[0]} was sent - it is not on the page - load the page again")
            self._session.label(answers)
            self.saved = False

    def undo(self) -> None:
        """Takes the last action back, and shows the pictures that it was about if they are on the page no more."""
        with self._lock:
            seeds = self._session.undo()
            if seeds and not set(seeds) & set(self._page):
                self._page = list(seeds)[:PER_PAGE]
            self.saved = False

    def turn(self, mode: str) -> None:
        """Learns from what was said, then the next page of that mode."""
        with self._lock:
            self._learn()
            self._mode = "check" if mode == "check" and self._score is not None else "label"
            labelled = torch.zeros(self._known, dtype=torch.bool)
            labelled[self._rows()] = True
            if self._mode == "check":
                assert self._score is not None
                free = (~labelled).nonzero()[:, 0]
                doubted = self._doubted()
                rows = doubted + free[self._score[free].abs().argsort()].tolist()[: PER_PAGE - len(doubted)]
            else:
                rows = probe.show_next(self._score, labelled, PER_PAGE, self._generator)
            self._page = [self._gallery.seeds[row] for row in rows]

    def finish(self) -> None:
        """Writes the file: what a person said, and the probe's guess for every other picture that is drawn.

        Raises:
            RedactError: too little is known, or it cannot be written.
        """
        with self._lock:
            self._learn()
            asked = f"labels of {self.feature} were to be saved"
            if self._score is None:
                raise RedactError(
                    f"{asked} - there are {sum(self._session.labels.values())} yes among {len(self._session.labels)} - label some of each"
                )
            score, n = self._score.clone(), len(self._score)
            rows, shows = self._rows(), self._shows()
            score[rows] = torch.where(shows, probe.CERTAIN, -probe.CERTAIN).double()
            hits = int((score > 0).sum())
            if not FEWEST_TO_SAVE <= hits <= n - FEWEST_TO_SAVE:
                raise RedactError(
                    f"{asked} - {hits} of {n} pictures show it - {FEWEST_TO_SAVE} of each kind are needed: label more, or a bigger --pool"
                )
            said = set(rows.tolist())
            c = self._gallery.c()
            latents = LabelledLatents(self._gallery.w()[:n], score.float(), torch.tensor(self._gallery.seeds[:n]), c=None if c is None else c[:n])
            source = tuple("person" if row in said else "probe" for row in range(n))
            save_labels(self._out, LabelFile(self.feature, latents, source, self._sha256))
            self.saved = True

    def _learn(self) -> None:
        """The probe of all clicks so far, on all that is drawn so far."""
        self._known = self._gallery.drawn  # More may be drawn meanwhile.
        self._score: torch.Tensor | None = None
        self._held_out: torch.Tensor | None = None
        self._accuracy, self._settled = None, False
        rows, shows = self._rows(), self._shows()
        if not probe.can_learn(shows):
            return
        white = probe.whiten(self._gallery.features()[: self._known])
        self._score = probe.fit(white, rows, shows)
        self._held_out = probe.cross_validated(white, rows, shows)
        if self._held_out is not None:
            self._accuracy = probe.balanced_accuracy(self._held_out > 0, shows)
        self._settled = probe.settled(white, rows, shows, last=PER_PAGE)

    def _doubted(self) -> list[int]:
        """Rows of clicks that the probe, not knowing them, was surest to be otherwise."""
        if self._held_out is None:
            return []
        against = torch.where(self._shows(), -self._held_out, self._held_out)
        worst = against.argsort(descending=True)[:_DOUBTED]
        return self._rows()[worst[against[worst] > 1]].tolist()

    def _row(self, seed: int) -> int:
        return self._gallery.seeds.index(seed)

    def _rows(self) -> torch.Tensor:
        """Of labelled pictures, in the order of the clicks."""
        return torch.tensor([self._row(seed) for seed in self._session.labels], dtype=torch.int64)

    def _shows(self) -> torch.Tensor:
        return torch.tensor(list(self._session.labels.values()), dtype=torch.bool)
