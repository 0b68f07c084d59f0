# SPDX-License-Identifier: Apache-2.0
"""What comes in: locked versions, no network in tests; and what goes out: a wheel that works where it is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest
import requests
from loopback import NetworkUsed, is_here

ROOT = Path(__file__).parents[1]
NOWHERE = "192.0.2.1"
"""An address that is nobody's (RFC 5737)."""
SHIPPED = ("stylegan_redact", "torch_utils", "dnnlib", "legacy.py", "redact.py", "pyproject.toml", "README.md", "LICENSE")


def required() -> dict[str, str]:
    """Name -> condition on the version, of what the tests need."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"]]
    for line in extras["dev"]:
        of_this = re.fullmatch(r"stylegan-redact\[(.*)\]", line)  # Other extras of this project.
        lines += [line] if of_this is None else [each for extra in of_this[1].split(",") for each in extras[extra]]
    lines = [line.partition(";")[0].strip() for line in lines]
    return {name.lower(): condition for line in lines for name, condition in [re.fullmatch(r"([\w.-]+)(.*)", line).groups()]}  # type: ignore[union-attr]


def test_every_requirement_is_locked_at_a_version_that_fits() -> None:
    specifiers = pytest.importorskip("packaging.specifiers")
    lines = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8").splitlines()
    locked = {name.lower(): version for name, _, version in (line.partition("==") for line in lines if not line.startswith("#"))}
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) or line.startswith("#") for line in lines)  # No index, no address, no path.
    needed = {name: condition for name, condition in required().items() if name != "setuptools"}  # pip freeze leaves it out before Python 3.12.
    assert sorted(name for name in needed if name not in locked) == []
    assert [name for name, condition in needed.items() if not specifiers.SpecifierSet(condition).contains(locked[name])] == []


def test_tests_reach_no_other_machine() -> None:
    for ask in (
        lambda: socket.create_connection((NOWHERE, 80), timeout=1),
        lambda: socket.getaddrinfo("example.org", 80),
        lambda: requests.get("http://example.org", timeout=1),
    ):
        with pytest.raises(NetworkUsed):
            ask()
    assert is_here("127.0.0.1") and is_here("::1") and is_here("localhost") and not is_here(NOWHERE) and not is_here("localhost.example.org")


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".venv-sbom" / "bin" / "cyclonedx-py").exists(), reason="bash .ci/sbom has not fetched its tool yet")
def test_the_bill_of_materials_names_all_that_we_need(tmp_path: Path) -> None:
    environ = os.environ | {"PYTHON": sys.executable}
    for name in ("one.json", "two.json"):
        subprocess.run(["bash", ROOT / ".ci" / "sbom", tmp_path / name], check=True, cwd=tmp_path, env=environ)
    content = (tmp_path / "one.json").read_text(encoding="utf-8")
    assert content == (tmp_path / "two.json").read_text(encoding="utf-8") and str(ROOT) not in content and "file:" not in content
    bill = json.loads(content)
    listed = {each["name"].lower(): each for each in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX" and bill["metadata"]["component"]["name"] == "stylegan-redact"
    assert {name: metadata.version(name) for name in required()} == {name: listed[name]["version"] for name in required()}
    assert all(each["purl"].startswith("pkg:pypi/") for each in listed.values()) and "cyclonedx-bom" not in listed
    (ours,) = [set(each["dependsOn"]) for each in bill["dependencies"] if each["ref"] == "root-component"]
    assert {"torch", "numpy", "safetensors"} <= {each.partition("==")[0] for each in ours}


@pytest.mark.slow
def test_the_wheel_works_in_a_clean_environment(tmp_path: Path) -> None:
    """Built and installed without an index; dependencies are those of this Python, by path, so that nothing else of it is seen."""
    source, wheels, venv = tmp_path / "source", tmp_path / "wheels", tmp_path / "venv"
    for name in SHIPPED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (source / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    pip, offline = [sys.executable, "-m", "pip"], ["--no-deps", "--no-index", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", str(source), "--no-build-isolation", *offline, f"--wheel-dir={wheels}"], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", *offline, str(wheel)], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    for words, expected in ((["--help"], "--feature"), (["doctor"], "torch"), (["inspect", "portraits64"], "G_ema")):
        done = subprocess.run([venv / "bin" / "stylegan-redact", *words], capture_output=True, text=True, cwd=tmp_path, env=environ)
        assert done.returncode == 0 and expected in done.stdout, done.stdout + done.stderr
    where = subprocess.run(
        [python, "-c", "import stylegan_redact as s; print(s.__file__)"], capture_output=True, text=True, cwd=tmp_path, env=environ
    )
    assert Path(where.stdout.strip()).is_relative_to(site), where.stdout
