# SPDX-License-Identifier: Apache-2.0
"""torch_utils.training_stats, in one process and in two."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dnnlib
from torch_utils import training_stats


@pytest.fixture(autouse=True)
def fresh_counters(monkeypatch):
    """The counters belong to the process; each test gets its own."""
    for name in ("_counters", "_cumulative"):
        monkeypatch.setattr(training_stats, name, {})
    for name in ("_rank", "_sync_device", "_sync_called"):
        monkeypatch.setattr(training_stats, name, getattr(training_stats, name))
    training_stats._sync_called = False


def close(actual, expected):
    return actual == pytest.approx(expected, rel=1e-5, abs=1e-4, nan_ok=True)


numbers = st.lists(st.floats(-100, 100, width=32), max_size=8)


@settings(max_examples=50)
@given(st.lists(st.lists(st.tuples(st.sampled_from("ab"), numbers), max_size=4), min_size=1, max_size=4), st.booleans())
def test_collector_agrees_with_keeping_all_numbers(ticks, keep_previous):
    training_stats._counters.clear()
    training_stats._cumulative.clear()
    collector = training_stats.Collector(keep_previous=keep_previous)
    shown = {}
    for tick in ticks:
        reported = {}
        for name, values in tick:
            assert training_stats.report(name, values) is values
            reported.setdefault(name, []).extend(values)
        shown = {**(shown if keep_previous else {}), **{name: values for name, values in reported.items() if values}}
        collector.update()
        for name in collector.names():
            values = np.float64(shown.get(name, []))
            assert collector.num(name) == len(values)
            assert close(collector.mean(name), values.mean() if len(values) else math.nan)
            assert close(collector[name], collector.mean(name))
            # Sums of squares are taken in float32: 100 squared has 1e-3 there.
            assert collector.std(name) ** 2 == pytest.approx(values.var() if len(values) else math.nan, rel=1e-4, abs=1e-2, nan_ok=True)


@pytest.mark.parametrize(
    "value", [3, 3.0, True, np.float64(3), np.ones([2, 3]), [1, 2], (1, 2.5), torch.ones(2, 2, dtype=torch.int64), torch.ones(3).half(), []]
)
def test_value_comes_back_unchanged(value):
    collector = training_stats.Collector()
    assert training_stats.report("x", value) is value
    assert training_stats.report0("y", value) is value
    collector.update()
    assert collector.names() == ["x", "y"]
    assert collector.num("x") == collector.num("y") == np.asarray(value).size
    if np.asarray(value).size:
        assert close(collector["x"], float(np.mean(np.asarray(value, dtype=np.float64))))


def test_reporting_keeps_gradients_out():
    x = torch.ones(3, requires_grad=True)
    y = training_stats.report("x", x * 2)
    assert y.requires_grad
    assert not any(t.requires_grad for counter in training_stats._counters.values() for t in counter.values())


def test_edge_cases_of_the_spread():
    collector = training_stats.Collector()
    for name, values in {"none": [], "one": 7, "nan": [1.0, math.nan], "inf": [1.0, math.inf], "same": [0.1] * 100}.items():
        training_stats.report(name, values)
    collector.update()
    assert {name: collector.num(name) for name in collector.names()} == {"none": 0, "one": 1, "nan": 2, "inf": 2, "same": 100}
    assert math.isnan(collector.mean("none")) and math.isnan(collector.std("none"))
    assert collector.mean("one") == 7 and collector.std("one") == 0
    assert math.isnan(collector.mean("nan")) and math.isnan(collector.std("nan"))
    assert collector.mean("inf") == math.inf and math.isnan(collector.std("inf"))
    assert collector.std("same") == pytest.approx(0, abs=1e-3)
    assert collector.num("never heard of") == 0 and math.isnan(collector["never heard of"])


def test_counts_stay_exact_where_float32_would_not():
    collector = training_stats.Collector()
    training_stats.report("x", torch.ones(2**24))
    for _ in range(3):
        training_stats.report("x", 1)
    collector.update()
    assert collector.num("x") == 2**24 + 3


def test_collectors_do_not_disturb_each_other():
    training_stats.report("x", 100)
    first, second = training_stats.Collector(), training_stats.Collector()
    assert first.num("x") == 0, "what was reported before is not seen"
    training_stats.report("x", 1)
    first.update()
    training_stats.report("x", 3)
    second.update()
    assert (first["x"], first.num("x")) == (1, 1)
    assert (second["x"], second.num("x")) == (2, 2)
    first.update()
    assert (first["x"], first.num("x")) == (3, 1)


def test_regex_and_dict():
    collector = training_stats.Collector(regex="Loss/.*")
    for name in ("Loss/G", "Loss/D", "Other/Loss/G"):
        training_stats.report(name, [1, 3])
    collector.update()
    stats = collector.as_dict()
    assert type(stats) is dnnlib.EasyDict and set(stats) == {"Loss/G", "Loss/D"}
    assert stats["Loss/G"] == {"num": 2, "mean": 2, "std": 1} and stats["Loss/D"].num == 2
    with pytest.raises(AssertionError, match="Other"):
        collector.mean("Other/Loss/G")


def test_only_rank_0_counts_for_report0():
    training_stats.init_multiprocessing(rank=1, sync_device=None)
    collector = training_stats.Collector()
    assert training_stats.report0("x", 5) == 5
    collector.update()
    assert collector.names() == ["x"] and collector.num("x") == 0


def test_processes_are_told_before_the_first_exchange():
    training_stats.report("x", 1)
    training_stats.Collector()
    with pytest.raises(AssertionError, match="first exchange"):
        training_stats.init_multiprocessing(rank=0, sync_device=None)


def test_default_collector_is_there_from_the_start():
    assert isinstance(training_stats.default_collector, training_stats.Collector)


RANK = """
import sys, time, torch
from torch_utils import misc, training_stats
rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
training_stats.init_multiprocessing(rank=rank, sync_device=torch.device("cpu"))
collector = training_stats.Collector()
training_stats.report("both", [1.0, 2.0] if rank == 0 else [6.0])
training_stats.report("second", [] if rank == 0 else 4.0)
training_stats.report0("first", rank + 10)
collector.update()
stats = {name: (collector.num(name), collector.mean(name)) for name in collector.names()}
assert stats == {"both": (3, 3.0), "second": (1, 4.0), "first": (1, 10.0)}, stats
training_stats.report("both", 10.0 * rank)
training_stats.report("second", [])
training_stats.report0("first", [])
collector.update()
assert (collector.num("both"), collector["both"], collector["second"]) == (2, 5.0, 4.0)

module = torch.nn.BatchNorm1d(3)
module.weight.data[0] = float("nan")
misc.check_ddp_consistency(module)
if rank == 1:
    module.running_mean[1] = 5
try:
    misc.check_ddp_consistency(module, ignore_regex=r".*[.]running_mean")
    found = False
    misc.check_ddp_consistency(torch.nn.ParameterList([module.running_mean]))
except AssertionError:
    found = True
assert found == (rank == 1), (found, rank)
time.sleep(0.2)  # Until torch's threads have dropped what was sent: torch 2.4 waits for them with the GIL that they need.
torch.distributed.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_available() or os.name == "nt", reason="needs torch.distributed with gloo")
def test_two_processes_add_up(tmp_path):
    root = os.path.dirname(os.path.dirname(dnnlib.__file__))
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-c", RANK]
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path / "store")], env=environment, stderr=subprocess.PIPE, text=True) for rank in (0, 1)]
    results = []
    try:
        for process in ranks:
            _, errors = process.communicate(timeout=60)
            results.append((process.returncode, errors))
    finally:
        for process in ranks:
            process.kill()
            process.wait()
            process.stderr.close()
    assert [code for code, _ in results] == [0, 0], "\n".join(errors for _, errors in results)
