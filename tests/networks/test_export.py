# SPDX-License-Identifier: Apache-2.0
"""New snapshots from live modules."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.pickles import read_snapshot
from stylegan_redact.types import RedactError
from torch_utils import persistence

HALF_MORE = np.float64(1.5)


@persistence.persistent_class
class Net(torch.nn.Module):
    def __init__(self, gain: Any = HALF_MORE, **extra: Any) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)
        self.register_buffer("w_avg", torch.ones(2))
        self.gain, self.sizes, self.extra = gain, [np.int64(4), (np.float32(0.5),)], extra


def test_modules_come_back_ready_to_use(tmp_path: Path) -> None:
    path, G, D = tmp_path / "new.pkl", Net(), Net(gain=2)
    write_network_pickle(path, G=G, D=D, G_ema=copy.deepcopy(G), training_set_kwargs={"max_size": np.int64(3)})
    assert G.training and all(p.requires_grad for p in G.parameters()) and type(G.gain) is np.float64, "what is given stays as it is"
    data = pickle.loads(path.read_bytes())
    assert list(data) == ["G", "D", "G_ema", "training_set_kwargs", "augment_pipe"] and data["training_set_kwargs"] == {"max_size": 3}
    for key, net in (("G", G), ("D", D), ("G_ema", G)):
        assert not any(part.training for part in data[key].modules()) and not any(p.requires_grad for p in data[key].parameters())
        assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in data[key].state_dict().items())
    assert (type(data["G"].gain), type(data["G"].sizes[0]), type(data["G"].sizes[1][0])) == (float, int, float)
    assert path.read_bytes()[:2] == b"\x80\x04" and b"numpy" not in path.read_bytes().replace(data["G"]._orig_module_src.encode(), b"")


def test_it_is_a_snapshot(tmp_path: Path) -> None:
    G = Net(gain=np.float64(3))
    write_network_pickle(tmp_path / "new.pkl", G=G, D=Net(), G_ema=G)
    snapshot = read_snapshot(tmp_path / "new.pkl")
    assert snapshot.modules["G"].class_name == "Net" and snapshot.modules["G"].init_kwargs == {"gain": 3}
    assert list(snapshot.modules["G_ema"].tensors) == ["w_avg", "layer.weight", "layer.bias"]
    assert snapshot._tree["G"] is snapshot._tree["G_ema"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"G": torch.nn.Linear(1, 1)}, "G was to be written - Linear is no persistent class"),
        ({"training_set_kwargs": {"path": "faces.zip"}}, "path is a private path"),
        ({"training_set_kwargs": {"cache": "/data"}}, "cache is a private path"),
        ({"D": Net(table=np.zeros(2))}, "it is a NumPy array"),
    ],
)
def test_what_is_refused(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(RedactError, match=says):
        write_network_pickle(tmp_path / "new.pkl", **({"G": Net(), "D": Net(), "G_ema": Net()} | change))
    assert not list(tmp_path.iterdir())


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(RedactError, match="the system says"):
        write_network_pickle(tmp_path / "no" / "new.pkl", G=Net(), D=Net(), G_ema=Net())
