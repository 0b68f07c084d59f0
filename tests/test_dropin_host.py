# SPDX-License-Identifier: Apache-2.0
"""`redact.py` and `stylegan_redact/` copied into unmodified checkouts of NVIDIA's: the main job runs there, on their code, and changes none of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
from host import DROPPED_IN, ON_CPU, REPOSITORY, checkout, commit_of, digests, dropped_into, said_in
from PIL import Image

from stylegan_redact.network import load_network, sample_w, synthesize
from stylegan_redact.pickles import read_snapshot

pytestmark = pytest.mark.host

JOB = ("redact.py", "--network=portraits64", "--feature=beard", "--num-latents=600", "--num-images=100", "--kimg=0.032")
RUN = "redact-runs/00000-redact-beard-portraits64-edit"
SCRIPTS = {"STYLEGAN3_ROOT": "gen_images.py", "STYLEGAN2_ADA_ROOT": "generate.py"}
SEEDS = range(4)
# Of what the redaction changes. Their operations add in another order than ours: float32 images are some 1e-6 apart. Training magnifies that,
# Adam's first steps above all, whose size does not depend on the gradient's.
SHARE = 0.01
REPORT = """
import atexit, json, os, sys
def report():
    found = {name: module.__file__ for name, module in sys.modules.items() if getattr(module, "__file__", None)}
    with open(os.environ["LOADED"], "w") as file:
        json.dump(found, file)
atexit.register(report)
"""


@pytest.fixture(scope="module", params=SCRIPTS)
def variable(request: pytest.FixtureRequest) -> str:
    """Of the environment; it names a checkout."""
    checkout(request.param)
    return request.param


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the same command gives in our own tree."""
    folder = tmp_path_factory.mktemp("here")
    said_in(REPOSITORY, *JOB, f"--outdir={folder / 'redact-runs'}", log=folder / "log.txt")
    return folder / RUN


def test_the_main_job_runs_in_a_checkout_on_its_code(variable: str, here: Path, tmp_path: Path) -> None:
    root = dropped_into(checkout(variable), tmp_path / "checkout")
    before = digests(root)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "sitecustomize.py").write_text(REPORT)
    said = said_in(root, *JOB, log=tmp_path / "log.txt", LOADED=str(tmp_path / "loaded.json"), PYTHONPATH=str(tmp_path / "report"))
    first = [line for line in said.splitlines() if not line.startswith("Setting up PyTorch plugin")]  # On a GPU they build theirs.
    assert first[0] == "Redaction options:" and "Warning" not in said

    after = digests(root)
    assert {name: after[name] for name in before} == before, "no file of the checkout changes"
    assert all(name.startswith(f"{RUN}/") for name in set(after) - set(before)), "all that is new is the run directory"
    original = digests(checkout(variable))
    assert all(original[name] == digest for name, digest in before.items() if name.split("/")[0] not in DROPPED_IN)
    loaded = {name: Path(file) for name, file in json.loads((tmp_path / "loaded.json").read_text()).items()}
    theirs = {name for name in loaded if name.partition(".")[0] in ("torch_utils", "dnnlib", "stylegan_redact")}
    assert {"torch_utils.persistence", "torch_utils.ops.upfirdn2d", "torch_utils.ops.bias_act", "dnnlib.util", "stylegan_redact.cli"} <= theirs
    assert all(loaded[name].is_relative_to(root) for name in theirs), "their torch_utils and dnnlib served, and no other stylegan_redact"

    assert_same_result(root / RUN, here, f"redact.py in {variable} at {commit_of(checkout(variable))}")
    drawn = said_in(root, SCRIPTS[variable], f"--network={RUN}/network-redacted.pkl", "--seeds=0-3", "--outdir=out", log=tmp_path / "log.txt",
                    PYTHONPATH=str(ON_CPU))  # fmt: skip
    assert "seed 3" in drawn
    G = load_network(root / RUN / "network-redacted.pkl").G_ema
    ours = (synthesize(G, sample_w(G, SEEDS)) * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    theirs_drawn = np.stack([np.asarray(Image.open(root / "out" / f"seed{seed:04d}.png")) for seed in SEEDS])
    apart = np.abs(ours.astype(int) - theirs_drawn.astype(int))
    print(f"{SCRIPTS[variable]} on the result: at most {apart.max()} of 255 apart from ours, in {(apart > 0).mean():.2%} of the values")
    assert apart.max() <= 1


def assert_same_result(there: Path, here: Path, what: str) -> None:
    """The same records, and the same network but for rounding."""
    records = [read_snapshot(folder / "network-redacted.pkl") for folder in (there, here)]
    assert records[0].redaction == records[1].redaction
    options = [json.loads((folder / "options.json").read_text()) | {"outdir": ""} for folder in (there, here)]
    assert options[0] == options[1]
    networks = [load_network(record).G_ema for record in records] + [load_network(REPOSITORY / "stylegan_redact/portraits/portraits64.pkl").G_ema]
    img_there, img_here, img_before = [synthesize(G, sample_w(G, range(64))) for G in networks]
    apart, change = float((img_there - img_here).abs().mean()), float((img_here - img_before).abs().mean())
    print(f"{what}: the result's images are {apart:.1e} from our own tree's on average, {change:.1e} from the original's")
    assert apart < SHARE * change


def test_the_command_takes_files_and_refuses_what_the_checkout_cannot(tmp_path: Path) -> None:
    """--network as a URL goes through their dnnlib; a dry run writes nothing; StyleGAN3 is refused in a sentence where its operations are missing."""
    root = dropped_into(checkout("STYLEGAN2_ADA_ROOT"), tmp_path / "checkout")
    options = tiny_run.write_all(tmp_path)
    before = digests(root)
    url = f"--network={(tmp_path / 'tiny.pkl').as_uri()}"
    said = said_in(root, "redact.py", url, *options[1:], "--method=fold", "--dry-run", log=tmp_path / "log.txt")
    assert said.rstrip().endswith("Dry run; exiting.") and digests(root) == before
    write_stylegan3(tmp_path / "stylegan3.pkl")
    refused = said_in(root, "redact.py", f"--network={tmp_path / 'stylegan3.pkl'}", *options[1:], log=tmp_path / "log.txt", rc=2)
    assert "not stylegan3, since this checkout's torch_utils lacks something" in refused and digests(root) == before
    assert_a_sentence_for_what_is_missing(root, tmp_path)


def write_stylegan3(path: Path) -> None:
    from stylegan_redact.networks.export import write_network_pickle
    from stylegan_redact.networks.stylegan2 import Discriminator
    from stylegan_redact.networks.stylegan3 import Generator

    small = dict(img_resolution=16, img_channels=3, channel_base=256, channel_max=8)
    G = Generator(z_dim=8, c_dim=0, w_dim=8, num_layers=4, **small).eval().requires_grad_(False)
    write_network_pickle(path, G=G, D=Discriminator(c_dim=0, **small).eval().requires_grad_(False), G_ema=G)


def assert_a_sentence_for_what_is_missing(root: Path, folder: Path) -> None:
    """Without requests, which their dnnlib imports."""
    (folder / "without").mkdir()
    (folder / "without" / "sitecustomize.py").write_text("import sys\nsys.modules['requests'] = None\n")
    (sentence,) = said_in(root, "redact.py", "--help", log=folder / "log.txt", rc=2, PYTHONPATH=str(folder / "without")).splitlines()
    assert "needs the module requests" in sentence and sentence.endswith("-m pip install requests")
