# SPDX-License-Identifier: Apache-2.0
"""Sources known by their hash: what the list holds, how it is made, and what inspect says of them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import host
import hostile
import pytest
import tiny_run
from click.testing import CliRunner

from stylegan_redact import cli, source_hashes
from stylegan_redact.types import RedactError

ROOT = Path(__file__).parents[1]


def inspect(path: Path) -> dict[str, dict[str, str]]:
    chosen, _ = cli.choose(["inspect"])
    result = CliRunner().invoke(chosen, [str(path), "--json"])
    assert result.exit_code == 0, result.output
    networks: dict[str, dict[str, str]] = json.loads(result.output)["networks"]
    return networks


def test_the_list_is_hashes_and_no_text() -> None:
    listed = source_hashes.known()
    assert [checkout["name"] for checkout in listed] == ["NVlabs/stylegan3", "NVlabs/stylegan2-ada-pytorch"]
    for checkout in listed:
        assert set(checkout) == {"name", "commit", "sources"} and re.fullmatch("[0-9a-f]{40}", checkout["commit"])
        assert all(re.fullmatch(r"training/\w+\.py", file) and re.fullmatch("[0-9a-f]{64}", its) for file, its in checkout["sources"].items())
    assert len({its for checkout in listed for its in checkout["sources"].values()}) == 5


def test_what_is_said_of_a_source(tmp_path: Path) -> None:
    tiny_run.write_network(tmp_path / "ours.pkl")
    assert inspect(tmp_path / "ours.pkl")["G"]["source"] == "of stylegan-redact, unmodified: stylegan2.py"
    (tmp_path / "other.pkl").write_bytes(hostile.dumps(hostile.snapshot()))
    assert inspect(tmp_path / "other.pkl")["G"]["source"] == "not known here"
    sha256 = source_hashes.known()[0]["sources"]["training/networks_stylegan3.py"]
    assert source_hashes.describe(sha256) == "official source, unmodified: NVlabs/stylegan3 (training/networks_stylegan3.py, commit c233a919)"


def test_hashes_are_of_what_a_pickle_would_hold(tmp_path: Path) -> None:
    """Of a checkout with our torch_utils, one file of which has the line ends of Windows: in a pickle it has not."""
    for folder in ("torch_utils", "dnnlib"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "ops"))
    (tmp_path / "training").mkdir()
    text = "from torch_utils import persistence\n\n@persistence.persistent_class\nclass Net:\n    pass\n"
    (tmp_path / "training" / "networks_odd.py").write_bytes(text.replace("\n", "\r\n").encode())
    (tmp_path / "training" / "augment.py").write_text("from training.networks_odd import Net\n")
    (tmp_path / "training" / "loop.py").write_text("raise RuntimeError('of no interest')\n")
    assert source_hashes.hashes_of(tmp_path) == {"training/networks_odd.py": hashlib.sha256(text.encode()).hexdigest()}
    (tmp_path / "training" / "networks_bad.py").write_text("import no_such_module\n")
    with pytest.raises(RedactError, match="its code does not run: ModuleNotFoundError: No module named 'no_such_module' - install"):
        source_hashes.hashes_of(tmp_path)
    result = CliRunner().invoke(source_hashes.main, ["--root", str(tmp_path / "training"), "--name=x"])
    assert result.exit_code == 1 and "Error: " in result.output


@pytest.mark.host
@pytest.mark.parametrize(("variable", "index"), [("STYLEGAN3_ROOT", 0), ("STYLEGAN2_ADA_ROOT", 1)])
def test_the_list_is_what_the_checkout_gives(variable: str, index: int, tmp_path: Path) -> None:
    """And a pickle that its own classes write is recognised."""
    root = host.checkout(variable)
    listed = source_hashes.known()[index]
    result = CliRunner().invoke(source_hashes.main, ["--root", str(root), "--name", listed["name"]])
    assert json.loads(result.output) == listed
    module = "networks_stylegan3" if index == 0 else "networks"
    code = f"""
import pickle, sys
from training import {module} as networks, {"networks_stylegan2" if index == 0 else "networks"} as of_images
small = dict(channel_base=128, channel_max=8)
G = networks.Generator(8, 0, 8, 16, 3, **({"dict(small, num_layers=4, margin_size=4)" if index == 0 else "dict(synthesis_kwargs=small)"}))
D = of_images.Discriminator(0, 16, 3, **small)
nets = {{"G": G, "D": D, "G_ema": G, "training_set_kwargs": None, "augment_pipe": None}}
pickle.dump(nets, open(sys.argv[1], "wb"))
"""
    host.run_in(root, tmp_path, code, str(tmp_path / "theirs.pkl"))
    found = inspect(tmp_path / "theirs.pkl")
    assert all(net["source"].startswith(f"official source, unmodified: {listed['name']} (training/networks") for net in found.values())
    assert [net["architecture"] for net in found.values()] == [("stylegan3", "stylegan2")[index], "stylegan2", ("stylegan3", "stylegan2")[index]]
