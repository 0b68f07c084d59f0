# SPDX-License-Identifier: Apache-2.0
"""A process that starts a run on two ranks, on one, and on two of which one is killed, or an evaluation on two and one, and says how they ended.

`python ranks_child.py FOLDER [evaluate] OPTION...`; forks before any thread is there, as kill_child.py does, to import once.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

import torch
from kill_child import result_of, started

from stylegan_redact import keeping
from stylegan_redact.attacks import resurface
from stylegan_redact.following import Together
from stylegan_redact.proof import attacking

torch.set_num_threads(1)
KILLED_AFTER = 40
"""Images."""
FILES = {"before": "tiny.pkl", "judge": "judge.pt", "attacker": "detector.pt"}
PROOF = ["--feature=glow", "--num-images=24", "--psi=1", "--noise=const", "--device=cpu", "--batch-gpu=8"]
PROOF += ["--attacks=relearn:examples=4:steps=1:images=32", "--attacked=4"]
attacking.CLEAN_STEPS, resurface.LEARNED_FROM = 1, 60


def two_ranks(outdir: Path, options: list[str], verb: str = "") -> list[int]:
    """Their exit codes; negative: of a signal."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    processes = []
    for rank in range(2):
        os.environ |= shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        processes.append(started(outdir, options, verb))
    for name in (*shared, "RANK", "LOCAL_RANK"):
        del os.environ[name]
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def kill_rank_1() -> None:
    """From now on rank 1 is killed with SIGKILL in the middle of its training."""
    keep = Together.keep

    def keep_or_die(self: Together, moment: keeping.Moment) -> None:
        if self.world.rank == 1 and moment.name == "edit" and moment.images == KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)
        keep(self, moment)

    Together.keep = keep_or_die  # type: ignore[method-assign]


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
    if options[0] == "evaluate":
        sys.stdout.write(json.dumps(evaluated(folder, options[1:])))
        return
    found: dict[str, object] = {"two": two_ranks(folder / "two", options)}
    found["one"] = os.waitpid(started(folder / "one", options), 0)[1]
    kill_rank_1()
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
