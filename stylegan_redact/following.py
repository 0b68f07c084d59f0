# SPDX-License-Identifier: Apache-2.0
"""The store of a run on several ranks: rank 0 writes and reads, the others get what it read, and all stop at the same step."""

from __future__ import annotations

from stylegan_redact.checkpoints import Checkpoints
from stylegan_redact.keeping import Moment, State, Stopped
from stylegan_redact.ranks import World


class Together:
    """A store (`keeping.Store`) of one rank.

    Args:
        world: The ranks.
        first: Where rank 0 keeps states; None on all others.
    """

    def __init__(self, world: World, first: Checkpoints | None) -> None:
        self.world, self.first = world, first
        self.stop = False
        """Set by whoever wants the run to end: on any rank, all end at their next step."""

    def begin(self, stage: str) -> tuple[str, State | None]:
        """As `keeping.Store`."""
        name, state = self.world.from_first((stage, None) if self.first is None else self.first.begin(stage))
        return name, state

    def keep(self, moment: Moment) -> None:
        """As `keeping.Store`."""
        stop = self.world.any(self.stop)
        if self.first is not None:
            self.first.stop = stop
            self.first.keep(moment)
        elif stop:
            raise Stopped(moment)

    def check(self) -> None:
        """As `keeping.Store`."""
        if self.world.any(self.stop):
            raise Stopped()

    def tell(self, text: str) -> None:
        """As `keeping.Store`."""
        if self.first is not None:
            self.first.tell(text)
