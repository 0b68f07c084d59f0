# SPDX-License-Identifier: Apache-2.0
"""A process that starts runs on ranks, of which some are killed or hang, or evaluations, and says how they ended.

`python ranks_child.py FOLDER [evaluate|hang] OPTION...`; forks before any thread is there, as kill_child.py does, to import once.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import torch
from kill_child import result_of, started

from stylegan_redact import keeping, ranks
from stylegan_redact.attacks import resurface
from stylegan_redact.following import Together
from stylegan_redact.proof import attacking

torch.set_num_threads(1)
HURT_AFTER = 40
"""Images."""
TIMEOUT = 3
"""Seconds that a rank waits for one that hangs."""
FILES = {"before": "tiny.pkl", "judge": "judge.pt", "attacker": "detector.pt"}
PROOF = ["--feature=glow", "--num-images=24", "--psi=1", "--noise=const", "--device=cpu", "--batch-gpu=8"]
PROOF += ["--attacks=relearn:examples=4:steps=1:images=32", "--attacked=4"]
attacking.CLEAN_STEPS, resurface.LEARNED_FROM = 1, 60


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def two_ranks(outdir: Path, options: list[str], verb: str = "", hangs: int | None = None) -> list[int]:
    """Their exit codes; negative: of a signal. One that hangs is killed once the other has ended."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    processes = []
    for rank in range(2):
        os.environ |= shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        processes.append(started(outdir, options, verb))
    for name in (*shared, "RANK", "LOCAL_RANK"):
        del os.environ[name]
    codes = {process: os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for rank, process in enumerate(processes) if rank != hangs}
    if hangs is not None:
        os.kill(processes[hangs], signal.SIGKILL)
        codes[processes[hangs]] = os.waitstatus_to_exitcode(os.waitpid(processes[hangs], 0)[1])
    return [codes[process] for process in processes]


def hurt(rank: int, number: signal.Signals) -> None:
    """From now on the rank gets the signal in the middle of its training."""
    keep = Together.keep

    def keep_or_not(self: Together, moment: keeping.Moment) -> None:
        if self.world.rank == rank and moment.name == "edit" and moment.images == HURT_AFTER:
            os.kill(os.getpid(), number)
        keep(self, moment)

    Together.keep = keep_or_not  # type: ignore[method-assign]


def hung(folder: Path, options: list[str]) -> dict[str, object]:
    """Rank 1 of two stops in the middle of its training."""
    os.environ[ranks.TIMEOUT] = str(TIMEOUT)
    hurt(1, signal.SIGSTOP)
    begin = time.monotonic()
    return {"codes": two_ranks(folder / "hung", options, hangs=1), "seconds": time.monotonic() - begin}


def evaluated(folder: Path, options: list[str]) -> dict[str, object]:
    """Two ranks and one at the same evaluation, attacks included."""
    found: dict[str, object] = {}
    os.waitpid(started(folder / "two", options), 0)
    (after,) = (folder / "two").glob("*/network-redacted.pkl")
    given = {"after": after, **{name: folder.parent / file for name, file in FILES.items()}}
    proof = [*(f"--{name}={path}" for name, path in given.items()), *PROOF]
    found["evaluated"] = [
        *two_ranks(folder / "evaluated-two", proof, "evaluate"),
        os.waitpid(started(folder / "evaluated-one", proof, "evaluate"), 0)[1],
    ]
    evaluations = [{path.name: path.read_text() for path in (folder / f"evaluated-{name}").glob("*/*.json*")} for name in ("two", "one")]
    found["evaluated_alike"] = [evaluations[0][name] == evaluations[1][name] for name in ("evaluation.json", "metric-residual_rate.jsonl")]
    found["attacked"] = json.loads(evaluations[0]["evaluation.json"])["attacks"] != {}
    return found


def main(folder: Path, options: list[str]) -> None:
    modes = {"evaluate": evaluated, "hang": hung}
    if options[0] in modes:
        sys.stdout.write(json.dumps(modes[options[0]](folder, options[1:])))
        return
    found: dict[str, object] = {"two": two_ranks(folder / "two", options)}
    found["one"] = os.waitpid(started(folder / "one", options), 0)[1]
    hurt(1, signal.SIGKILL)
    found["killed"] = two_ranks(folder / "killed", options)
    found["finished"] = [path.name for path in (folder / "killed").glob("*/redaction.json")]
    found["resumed"] = os.waitpid(started(folder / "killed", [*options, "--resume=latest"]), 0)[1]
    results = {name: result_of(folder / name) for name in ("one", "two", "killed")}
    one = results["one"]
    found["unequal"] = [f"{name}: {file}" for name, those in results.items() for file in {*one, *those} if one.get(file) != those.get(file)]
    found["files"] = sorted(one)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
