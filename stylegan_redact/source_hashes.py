# SPDX-License-Identifier: Apache-2.0
"""Which embedded sources are known: by hash alone, without a line of their text.

    python -m stylegan_redact.source_hashes --root CHECKOUT --name NVlabs/stylegan3

prints, as JSON, the hashes of a checkout of NVIDIA's code, as its own classes would put their sources into a pickle. `source_hashes.json`
holds what it printed for the checkouts named in it. A known hash says whose text it is; nothing is run because of it.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from stylegan_redact.networks import build
from stylegan_redact.types import RedactError

_LIST = Path(__file__).with_suffix(".json")
# What today's setuptools lacks and NVIDIA's code imports.
_STAND_IN = "def parse_version(text):\n    return tuple(int(part) for part in text.split('+')[0].split('.') if part.isdigit())\n"
_ASK = """
import hashlib, importlib, inspect, json, pathlib, sys
found = {}
for path in sorted(pathlib.Path("training").glob("*.py")):
    if path.stem.startswith("networks") or path.stem == "augment":
        module = importlib.import_module(f"training.{path.stem}")
        stored = {vars(value)["_orig_module_src"] for value in vars(module).values() if isinstance(value, type) and "_orig_module_src" in vars(value)}
        for text in stored & {inspect.getsource(module)}:  # Classes of another file, imported here, bring that file's text.
            found[f"training/{path.name}"] = hashlib.sha256(text.encode()).hexdigest()
sys.stdout.write("\\n" + json.dumps(found))
"""


def describe(sha256: str) -> str:
    """Whose source it is, or that nobody here knows it."""
    own = {_own_sha256(module): name for name, module in build.architectures().items()}
    if sha256 in own:
        return f"of stylegan-redact, unmodified: {own[sha256]}.py"
    for checkout in known():
        for file, its in checkout["sources"].items():
            if its == sha256:
                return f"official source, unmodified: {checkout['name']} ({file}, commit {checkout['commit'][:8]})"
    return "not known here"


@functools.cache
def known() -> list[dict[str, Any]]:
    """Every checkout of the list: `name`, `commit`, `sources` (file -> sha256)."""
    listed: list[dict[str, Any]] = json.loads(_LIST.read_text(encoding="utf-8"))
    return listed


def hashes_of(root: Path) -> dict[str, str]:
    """File -> sha256 of every source that the checkout would embed, found by asking its own classes in a process of its own.

    Raises:
        RedactError: it is no checkout of NVIDIA's code, or its code does not run.
    """
    if not (root / "torch_utils" / "persistence.py").is_file() or not (root / "training").is_dir():
        raise RedactError(f"{root} was to be asked for its sources - it has no torch_utils/persistence.py and training/ - give a checkout")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pkg_resources.py").write_text(_STAND_IN, encoding="utf-8")
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root.resolve()), folder]), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([sys.executable, "-c", _ASK], cwd=root, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:200]
        raise RedactError(f"{root} was to be asked for its sources - its code does not run: {reason} - install what it needs")
    answer: Mapping[str, str] = json.loads(done.stdout.splitlines()[-1])
    return dict(answer)


def _own_sha256(module: ModuleType) -> str:
    return hashlib.sha256(inspect.getsource(module).encode()).hexdigest()


def _commit(root: Path) -> str:
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RedactError(f"the commit of {root} was asked - git says: {done.stderr.strip()[:200]} - give a git checkout")
    return done.stdout.strip()


@click.command(help="Print the hashes of the sources that a checkout of NVIDIA's code embeds in its pickles.")
@click.option("--root", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False), help="The checkout")
@click.option("--name", required=True, help="Of its repository")
def main(root: Path, name: str) -> None:
    """The command."""
    try:
        click.echo(json.dumps({"name": name, "commit": _commit(root), "sources": hashes_of(root)}, indent=2))
    except RedactError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
