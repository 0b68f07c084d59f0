# SPDX-License-Identifier: Apache-2.0
"""Whole jobs on a GPU that is only pretended (`pretended_gpu/`): no tensor is made, left or read on the wrong device.

Where there is a GPU the jobs' own tests run on it, since `--device` is auto there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

TESTS = Path(__file__).parent
FOLDER = TESTS / "pretended_gpu"
LACKS = [program for program in ("c++",) if shutil.which(program) is None]
NEEDS = {
    f"needs Linux and a C++ compiler; lacks {LACKS}": bool(LACKS) or not sys.platform.startswith("linux"),
    "this torch is built for GPUs, and has its own device of that name": torch.version.cuda is not None or torch.version.hip is not None,
    "written against what torch asks of a device from 2.13 on": tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13),
}
pytestmark = [pytest.mark.skipif(unmet, reason=reason) for reason, unmet in NEEDS.items()]

MANY = 1_000
"""Operations on the GPU of a job at least."""
JOBS = {
    "test_main_job.py": ["-k", "every_file"],
    "test_person_job.py": [],
    "test_decoders.py": [],
    "test_video.py": [],
    "test_redact_stylegan3.py": ["-k", "test_the_command"],
}
LONG_JOBS = {
    "test_redact_stylegan3.py": [],
    "test_conditional_job.py": [],
    "test_sources_job.py": [],
    "test_several.py": [],
    "test_learned.py": [],
    "test_learned_networks.py": [],
    "test_labelling_sources.py": [],
    "test_bare_names.py": [],
    "test_evaluate.py": ["--deselect", "tests/test_evaluate.py::test_the_sheet_has_the_highest_scores_first"],  # To more digits than float16 has.
}


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled device.cpp."""
    library = tmp_path_factory.mktemp("device") / "device.so"
    folders = [f"-I{folder}" for folder in cpp_extension.include_paths()]
    torch_at = cpp_extension.library_paths()[0]
    linked = [f"-L{torch_at}", f"-Wl,-rpath,{torch_at}", "-Wl,--no-as-needed", "-ltorch_cpu", "-lc10"]
    command = ["c++", "-std=c++20", "-O1", "-shared", "-fPIC", *folders, str(FOLDER / "device.cpp"), "-o", str(library), *linked]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library


def run(device: Path, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    paths = {"PYTHONPATH": f"{FOLDER}{os.pathsep}{TESTS.parent}", "LD_PRELOAD": str(device)}
    env = {**os.environ, **paths, "STYLEGAN_REDACT_KERNELS": "off", "OMP_NUM_THREADS": "1", **more}
    return subprocess.run([sys.executable, *args], env=env, capture_output=True, text=True, cwd=TESTS.parent, timeout=1200)


REFUSED = {
    "a + torch.ones(3)": "same device",
    "torch.cat([a, torch.ones(3)])": "same device",
    "torch.where(torch.ones(3) > 0, a, a)": "same device",
    "torch.ones(3)[torch.tensor([0, 1], device='cuda')]": "same device",
    "torch.nn.Linear(3, 2)(a)": "same device",
    "a.numpy()": "Tensor.cpu()",
    "torch.nn.functional.interpolate(a.view(1, 1, 3).requires_grad_(), 6, mode='linear').sum().backward()": "other last digits",
    "a.index_add(0, torch.zeros(3, dtype=torch.int64, device='cuda'), a)": "other last digits",
}


def test_what_a_gpu_refuses_is_refused(device: Path) -> None:
    code = """
import json, sys
import torch
a, told = torch.ones(3, device="cuda"), {}
for mixed in json.loads(sys.argv[1]):
    try:
        eval(mixed)
    except (RuntimeError, TypeError) as error:
        told[mixed] = str(error)
print(json.dumps([str(a.device), told]))
"""
    found = run(device, "-c", code, json.dumps(list(REFUSED)))
    assert found.returncode == 0, found.stderr
    where, told = json.loads(found.stdout)
    assert where == "cuda:0" and told.keys() == REFUSED.keys() and all(REFUSED[mixed] in told[mixed] for mixed in told), told


def test_what_a_gpu_takes_is_the_same_as_on_the_cpu(device: Path) -> None:
    """Gradients, steps of an optimizer, indices and numbers of the CPU, deep copies, changes in place."""
    code = """
import copy, torch
def work(device):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.LeakyReLU()).to(device)
    optimizer = torch.optim.Adam(net.parameters())
    for step in range(3):
        img = torch.randn(2, 3, 8, 8).to(device) * torch.tensor(2.0)
        (net(img)[torch.tensor([1, 0])].square().mean() + (img.flatten() @ img.flatten()) / 100).backward()
        optimizer.step()
    twin = copy.deepcopy(net)
    assert all(p.device.type == device and isinstance(p, torch.nn.Parameter) for p in twin.parameters())
    return [p.detach().cpu() for p in twin.parameters()]
assert all(torch.equal(a, b) for a, b in zip(work("cpu"), work("cuda"), strict=True))
"""
    found = run(device, "-c", code)
    assert found.returncode == 0, found.stderr


def test_the_example_for_programs_goes_there_as_it_says(device: Path, tmp_path: Path) -> None:
    code = r"""
import os, pathlib, re, sys
text = pathlib.Path("docs/examples/python_api.md").read_text(encoding="utf-8")
os.chdir(sys.argv[1])
names = {}
for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
    block = block.replace("load_network(snapshot)", 'load_network(snapshot, "cuda")')
    exec(re.sub(r'load_bundled\("(\w+)"\)', r'load_bundled("\1", "cuda")', block), names)
assert all(next(names[name].G_ema.parameters()).is_cuda for name in ("network", "after", "same", "weaker"))
"""
    found = run(device, "-c", code, str(tmp_path))
    assert found.returncode == 0, found.stderr


def _passes(device: Path, file: str, more: list[str], log: Path) -> None:
    """Its processes must have worked on the GPU: what starts another way computes on the CPU, and shows nothing."""
    found = run(device, "-m", "pytest", "-p", "no:cacheprovider", str(TESTS / file), *more, PRETENDED_GPU_LOG=str(log))
    assert found.returncode == 0 and " passed" in found.stdout, found.stdout[-4000:]
    assert sum(map(int, log.read_text().split())) > MANY, log.read_text()


@pytest.mark.parametrize("file", JOBS)
def test_jobs_keep_to_one_device(device: Path, file: str, tmp_path: Path) -> None:
    _passes(device, file, JOBS[file], tmp_path / "ran")


@pytest.mark.slow
@pytest.mark.parametrize("file", LONG_JOBS)
def test_longer_jobs_do_too(device: Path, file: str, tmp_path: Path) -> None:
    _passes(device, file, LONG_JOBS[file], tmp_path / "ran")
