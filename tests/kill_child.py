# SPDX-License-Identifier: Apache-2.0
"""A process that starts runs of the command, kills them at random moments, resumes them, and says whether they ended as one left alone did.

`python kill_child.py FOLDER MOMENTS SEED OPTION...`; a process of its own, since it forks before any thread is there, to import once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from stylegan_redact import cli, verbs

torch.set_num_threads(1)


def started(outdir: Path, options: list[str], verb: str = "") -> int:
    """The process of a run, of the command or of a verb."""
    process = os.fork()
    if process:
        return process
    os.setpgid(0, 0)
    with (outdir.parent / "output.txt").open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = 1
    try:
        (verbs.load(verb) if verb else cli.command()).main([f"--outdir={outdir}", *options], prog_name="redact.py")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def result_of(outdir: Path) -> dict[str, str]:
    """File -> its bytes in hexadecimal, of the only run that there may be."""
    (folder,) = outdir.iterdir()
    found = {path.name: path.read_bytes().hex() for path in folder.iterdir() if path.suffix in (".pkl", ".png", ".safetensors", ".npz")}
    record = json.loads((folder / "redaction.json").read_text())
    found["redaction.json"] = json.dumps({key: value for key, value in record.items() if key != "seconds"})
    found["folders"] = ",".join(sorted(path.name for path in folder.iterdir() if path.is_dir()))
    assert all(json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines())
    return found


def main(folder: Path, moments: int, seed: int, options: list[str]) -> None:
    begin = time.monotonic()
    assert os.waitpid(started(folder / "alone", options), 0)[1] == 0
    duration, alone, chance = time.monotonic() - begin, result_of(folder / "alone"), random.Random(seed)
    killed, unequal = 0, []
    for moment in range(moments):
        outdir = folder / f"killed-{moment}"
        while True:
            process = started(outdir, [*options, "--resume=latest"])
            time.sleep(chance.random() * duration)
            if os.waitpid(process, os.WNOHANG)[0]:
                break
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            killed += 1
            if chance.random() < 0.5:  # Some are killed once, some more often.
                os.waitpid(started(outdir, [*options, "--resume=latest"]), 0)
                break
        found = result_of(outdir)
        unequal += [f"{moment}: {name}" for name in {*alone, *found} if alone.get(name) != found.get(name)]
    sys.stdout.write(json.dumps({"killed": killed, "unequal": unequal}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
