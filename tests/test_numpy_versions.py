# SPDX-License-Identifier: Apache-2.0
"""What we write is tied to no NumPy version: NumPy 1.26 loads what NumPy 2 wrote, and the other way round.

The second half needs a Python with the other NumPy, and torch and this package's requirements beside it; docs/security.md says how to make one:
`OTHER_NUMPY_PYTHON=/path/to/python python -m pytest -m slow tests/test_numpy_versions.py`.
"""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan_redact.networks import stylegan2, stylegan3
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.pickle_stream import imported_names
from stylegan_redact.pickles import read_snapshot, write_snapshot

ROOT = Path(__file__).parents[1]
OTHER = os.environ.get("OTHER_NUMPY_PYTHON")
OLD_NAMES = {"numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar", "numpy.ndarray", "numpy.dtype"}
"""Those that both know."""


def networks() -> dict[str, torch.nn.Module]:
    """Of both architectures, with NumPy's numbers among their attributes, as NVIDIA's code has them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small = dict(channel_base=64, channel_max=4)
        G2, G3 = stylegan2.Generator(4, 0, 4, 16, 3, **small), stylegan3.Generator(4, 0, 4, 16, 3, num_layers=4, **small)
        D = stylegan2.Discriminator(0, 16, 3, **small)
    G2.synthesis.b4.conv1.act_gain = np.float64(1.5)
    G3.synthesis.input.bandwidth = np.float64(2.0)
    return {"2": G2, "3": G3, "D": D}


def write_all(folder: Path) -> list[Path]:
    """One file of each kind that we write: new snapshots, and one that was read, with NumPy's arrays and numbers in it, and written again."""
    nets = networks()
    for name in ("2", "3"):
        write_network_pickle(folder / f"new{name}.pkl", G=nets[name], D=nets["D"], G_ema=nets[name])
    nets["2"].spectrum = np.arange(6.0).reshape(2, 3)
    (folder / "raw.pkl").write_bytes(pickle.dumps({"G": nets["2"], "D": nets["D"], "G_ema": nets["2"], "training_set_kwargs": None}))
    original = read_snapshot(folder / "raw.pkl")
    changed = {"mapping.w_avg": torch.ones(4)}
    write_snapshot(original, folder / "edited.pkl", tensors={"G": changed, "G_ema": changed}, redaction={"feature": "beard"})
    return [folder / name for name in ("new2.pkl", "new3.pkl", "edited.pkl")]


def loaded(path: Path) -> dict[str, str]:
    """What Python's own pickle makes of the file, as text: images, numbers and arrays."""
    with path.open("rb") as file:
        G = pickle.load(file)["G_ema"].eval()
    with torch.no_grad():
        img = G(torch.linspace(-1, 1, 4).reshape(1, 4), None, noise_mode="const")
    told = {"image": str([round(float(value), 3) for value in img.flatten()[::37]]), "spectrum": str(getattr(G, "spectrum", np.zeros(0)).tolist())}
    return told | {"read": str(sorted(read_snapshot(path).modules["G_ema"].tensors))}


def names_in(path: Path) -> set[str]:
    with path.open("rb") as file:
        return {name for name in imported_names(file) if "numpy" in name}


def test_only_names_that_both_know(tmp_path: Path) -> None:
    new2, new3, edited = write_all(tmp_path)
    assert names_in(new2) == names_in(new3) == set()
    raw = names_in(tmp_path / "raw.pkl")
    assert any("scalar" in name for name in raw) and (np.__version__.startswith("1.") or any("numpy._core" in name for name in raw))
    assert names_in(edited) == OLD_NAMES - {"numpy.core.multiarray.scalar"}
    for path in (new2, new3, edited):
        assert not any("numpy._core" in str(argument) for _, argument, _ in pickletools.genops(path.read_bytes()) if not isinstance(argument, bytes))
        assert loaded(path)["image"]


@pytest.mark.slow
@pytest.mark.skipif(not OTHER, reason="OTHER_NUMPY_PYTHON names no Python with another NumPy")
@pytest.mark.parametrize("there_to_here", [True, False])
def test_the_other_numpy_loads_them(there_to_here: bool, tmp_path: Path) -> None:
    def run(verb: str) -> str:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
        done = subprocess.run([str(OTHER), __file__, verb, str(tmp_path)], env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    if there_to_here:
        theirs = json.loads(run("write"))
        found = {path.name: loaded(path) for path in sorted(tmp_path.glob("*.pkl")) if path.name != "raw.pkl"}
    else:
        expected = {path.name: loaded(path) for path in write_all(tmp_path)}
        theirs, found = json.loads(run("load")), expected
    assert theirs.pop("numpy") != np.__version__
    assert theirs == found and len(found) == 3 and found["edited.pkl"]["spectrum"] == "[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]"


def main() -> None:
    """In the other Python: writes the files or finds them, and says what they are."""
    folder = Path(sys.argv[2])
    paths = write_all(folder) if sys.argv[1] == "write" else [folder / name for name in ("new2.pkl", "new3.pkl", "edited.pkl")]
    sys.stdout.write(json.dumps({"numpy": np.__version__, **{path.name: loaded(path) for path in paths}}))


if __name__ == "__main__":
    main()
