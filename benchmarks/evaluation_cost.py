# SPDX-License-Identifier: Apache-2.0
"""What `redact.py evaluate` costs on the bundled network, attacks excluded: seconds of the processor, files and report included.

python -m benchmarks.evaluation_cost
python -m benchmarks.evaluation_cost --psi=1,0.7 --noise=const,random

The network after is the bundled one with another bias in its last layer: what an evaluation costs does not depend on what was redacted. Seconds of
the processor, as what else a machine has to do does not count; with OMP_NUM_THREADS=1, two cores need half of it at best.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from stylegan_redact.network import load_network, read_snapshot, save_network
from stylegan_redact.network_files import locate


def written(folder: Path) -> Path:
    """A network to compare with the bundled one."""
    original = read_snapshot(locate("portraits64"))
    network = load_network(original)
    for G in (network.G, network.G_ema):
        G.synthesis.b64.torgb.bias.data -= 0.1
    save_network(network, folder / "after.pkl", original=original, record={"feature": "beard", "network_sha256": original.sha256})
    return folder / "after.pkl"


@click.command()
@click.option("--num-images", default=10_000, show_default=True)
@click.option("--psi", default="1", show_default=True)
@click.option("--noise", default="const", show_default=True)
@click.option("--rounds", default=1, show_default=True)
def main(num_images: int, psi: str, noise: str, rounds: int) -> None:
    """Print a line for each round."""
    with tempfile.TemporaryDirectory() as name:
        after = written(Path(name))
        for number in range(rounds):
            words = ["evaluate", "--before=portraits64", f"--after={after}", "--feature=beard", f"--num-images={num_images}", "--device=cpu"]
            words += [f"--psi={psi}", f"--noise={noise}", f"--outdir={Path(name) / str(number)}"]
            process = subprocess.Popen([sys.executable, "redact.py", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            assert process.stdout is not None
            told = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise click.ClickException(told)
            click.echo(f"{num_images} seeds, psi {psi}, noise {noise}: {used.ru_utime + used.ru_stime:.0f} s of processor")


if __name__ == "__main__":
    main()
