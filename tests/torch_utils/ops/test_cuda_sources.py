# SPDX-License-Identifier: Apache-2.0
"""The sources of the GPU's kernels compile for the GPUs of four generations, without a GPU, without torch; and the module beside them does too."""

import importlib.machinery
import importlib.util
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from torch_utils.ops import gpu_kernels

ARCHITECTURES = (75, 80, 90, 100)
KERNELS = [source for source in gpu_kernels.SOURCES if source.endswith(".cu")]
FOLDER = Path(gpu_kernels.FOLDER)

nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@nvcc
@pytest.mark.slow
@pytest.mark.parametrize("source", KERNELS)
def test_a_source_compiles_for_every_generation(tmp_path, source):
    """Half a minute of a processor for all of them; warnings are errors, and no register spills but in float64's curved activations."""
    targets = [word for arch in ARCHITECTURES for word in ("-gencode", f"arch=compute_{arch},code=sm_{arch}")]
    flags = ["-O1", "-std=c++17", "-fatbin", "-Werror", "all-warnings", "-Xptxas", "-v"]
    said = run("nvcc", *flags, *targets, FOLDER / source, "-o", tmp_path / "kernels.fatbin")
    assert said.count("Compiling entry function") % len(ARCHITECTURES) == 0 and said.count("Compiling entry function") > 0
    spilling = said.count("spill stores") - said.count(" 0 bytes spill stores, 0 bytes spill loads")
    assert spilling <= (len(ARCHITECTURES) if source == "bias_act.cu" else 0)
    assert (tmp_path / "kernels.fatbin").stat().st_size > 0


@nvcc
def test_the_shortest_source_compiles_for_one(tmp_path):
    run("nvcc", "-O0", "-std=c++17", "-cubin", "-arch=sm_90", FOLDER / "upfirdn2d.cu", "-o", tmp_path / "kernels.cubin")


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_module_beside_them_is_an_empty_module(tmp_path):
    library = tmp_path / "stylegan_gpu_plugin.so"
    headers = sysconfig.get_paths()["include"]
    if not (Path(headers) / "Python.h").exists():
        pytest.skip("needs the headers of Python")
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-DTORCH_EXTENSION_NAME=stylegan_gpu_plugin"]
    run("g++", *flags, "-I", headers, FOLDER / "module.cpp", "-o", library)
    loader = importlib.machinery.ExtensionFileLoader("stylegan_gpu_plugin", str(library))
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("stylegan_gpu_plugin", library, loader=loader))
    assert module.__file__ == str(library)


@nvcc
def test_planted_faults_are_seen(tmp_path):
    """What the compiler of a GPU refuses, an unused variable included, fails the tests above."""
    (tmp_path / "fault.cu").write_text("__global__ void kernel(float* x) { int unused; *x = 0; }")
    with pytest.raises(AssertionError, match="unused"):
        run("nvcc", "-Werror", "all-warnings", "-cubin", "-arch=sm_90", tmp_path / "fault.cu", "-o", tmp_path / "fault.cubin")


def test_every_source_is_built_and_published():
    on_disk = {path.name for path in FOLDER.iterdir() if path.suffix in (".cu", ".cpp")}
    assert on_disk == set(gpu_kernels.SOURCES)
    patterns = (FOLDER.parents[2] / "pyproject.toml").read_text(encoding="utf-8").partition("torch_utils = [")[2].partition("]")[0]
    assert {f'"ops/cuda/*{path.suffix}"' for path in FOLDER.iterdir() if path.is_file()} <= {word.strip() for word in patterns.split(",")}


def test_no_kernel_adds_up_in_an_order_that_changes():
    """README.md says so: an atomic sum of floating point numbers has other last digits each time."""
    sources = [path for path in FOLDER.parent.rglob("*") if path.suffix in {".cu", ".cuh", ".h", ".py"}]
    assert {path.name for path in sources} >= set(KERNELS) and not [path for path in sources if "atomic" in path.read_text(encoding="utf-8").lower()]
