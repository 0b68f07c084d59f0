# SPDX-License-Identifier: Apache-2.0
"""A run from its folder to its end, whatever end that is: finished, refused, stopped by a signal, or killed and gone on with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan_redact import keeping, ranks, resuming, run_dir
from stylegan_redact.checkpoints import FOLDER, Checkpoints
from stylegan_redact.following import Together
from stylegan_redact.profiling import Profile
from stylegan_redact.progress import Progress
from stylegan_redact.proof.pair_store import PairStore
from stylegan_redact.stopping import INTERRUPTED, listening
from stylegan_redact.types import Network, RedactError

UNFINISHED = "network-unfinished"
"""A network as far as it came, with the ending of the format."""


@dataclass
class Run:
    """A run on its way."""

    folder: Path
    checkpoints: Checkpoints
    pairs: PairStore
    """What was measured so far."""
    profile: Profile
    ending: str
    """Of a network's file."""
    save: Callable[[Network, Path, str], None] | None = None
    """Writes a network that is not finished, with a sentence on how far it is; from now on the folder is kept, however the run ends."""


class Ended(Exception):
    """The run was stopped by a signal and can be gone on with."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


@contextmanager
def running(request: Any, description: str, *, options: Mapping[str, Any], ending: str, progress: Progress) -> Iterator[Run]:
    """A run in its folder, new or resumed, that keeps what it needs to go on; at the end that is deleted. Of several ranks the first has the folder.

    Args:
        request:     Its `resume` and `outdir` are as `resuming.run_folder` takes them, its `checkpoint_every` is the seconds between checkpoints,
                     its `profile` whether to write where the time went.
        description: As `resuming.run_folder` takes it, like the options.
        options:     All, as they will be used.
        ending:      Of a network's file.
        progress:    Told, and kept in the folder.

    Raises:
        Ended: a signal came. What there is is kept; after Ctrl-C, the network as far as it came, too.
    """
    world = ranks.world()
    world.check_alike("options or files", {name: value for name, value in options.items() if name not in resuming.NOT_COMPARED})
    if world.rank:
        with _following(world) as run:
            yield run
        return
    with resuming.run_folder(request.resume, request.outdir, description, options) as (folder, told):
        new = not (folder / "log.txt").exists()
        run_dir.sweep(folder)
        progress.keep_in(folder)
        progress.tell(told)
        checkpoints = Checkpoints(folder / FOLDER, request.checkpoint_every, progress.tell)
        run = Run(folder, checkpoints, PairStore(folder / FOLDER / "pairs", progress.tell), Profile(folder if request.profile else None), ending)
        store = checkpoints if world.size == 1 else Together(world, checkpoints)
        with listening(store) as signals, keeping.kept_by(run.profile.watching(store)):
            try:
                yield run
            except keeping.Stopped as stopped:
                signals.over()
                if signals.exit_code == INTERRUPTED:
                    _save_so_far(run, stopped.moment, folder / f"{UNFINISHED}{ending}", progress)
                progress.tell(f"Unfinished; go on with --resume={folder}")
                raise Ended(signals.exit_code or 0) from None
            except RedactError as error:
                if new and run.save is None and not isinstance(error.__cause__, OSError):  # A request that cannot be met, and no disk that is full.
                    resuming.discard(folder)
                raise
        checkpoints.remove()
        run.profile.write()
        (folder / f"{UNFINISHED}{ending}").unlink(missing_ok=True)


@contextmanager
def _following(world: ranks.World) -> Iterator[Run]:
    """The run as ranks other than the first one see it: they write nothing, and have no folder."""
    nowhere = Path()
    store = Together(world, None)
    with listening(store) as signals, keeping.kept_by(store):
        try:
            yield Run(nowhere, Checkpoints(nowhere, math.inf, lambda text: None), PairStore(nowhere, lambda text: None), Profile(None), "")
        except keeping.Stopped:
            signals.over()
            raise Ended(signals.exit_code or 0) from None


def _save_so_far(run: Run, moment: keeping.Moment | None, path: Path, progress: Progress) -> None:
    if moment is None or moment.so_far is None or run.save is None:
        return
    told = f"{moment.share:.1%} of {moment.name}"
    run.save(moment.so_far(), path, told)
    progress.tell(f"The network after {told}, unfinished and not measured: {path}")
