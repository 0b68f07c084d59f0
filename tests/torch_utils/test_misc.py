# SPDX-License-Identifier: Apache-2.0
"""torch_utils.misc."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_utils import misc


class Small(torch.nn.Module):
    def __init__(self, features=3):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(features))
        self.register_buffer("count", torch.arange(features))


class Nested(torch.nn.Module):
    def __init__(self, features=3):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.randn(()))
        self.small = Small(features)


# ---------------------------------------------------------------------------------------------------------------------
# Constants


@pytest.mark.parametrize("value", [3, 2.5, True, [1, 2, 3], np.arange(6.0).reshape(2, 3), np.float64(7), np.arange(8)[::-2]])
def test_constant_has_the_value_and_is_made_once(value):
    tensor = misc.constant(value)
    assert tensor.dtype == torch.get_default_dtype() and tensor.device.type == "cpu"
    np.testing.assert_array_equal(tensor.numpy(), np.asarray(value))
    assert misc.constant(value) is tensor
    if isinstance(value, np.ndarray):
        assert misc.constant(value.copy()) is tensor, "the key is the content"


def test_every_option_of_a_constant_counts():
    made = [
        misc.constant(1.0),
        misc.constant(1.0, shape=[2]),
        misc.constant(1.0, shape=[1, 2]),
        misc.constant([1.0]),
        misc.constant(1.0, dtype=torch.float16),
        misc.constant(1.0, dtype=torch.int64),
        misc.constant(1.0, shape=[2, 3, 4, 5]),
        misc.constant(1.0, shape=[2, 3, 4, 5], memory_format=torch.channels_last),
        misc.constant(1.0, device="meta"),
    ]
    assert len({id(tensor) for tensor in made}) == len(made)
    assert made[2].shape == (1, 2) and made[4].dtype == torch.float16
    assert made[6].is_contiguous() and made[7].is_contiguous(memory_format=torch.channels_last)
    assert made[8].device.type == "meta"


def test_constant_does_not_share_memory_with_what_it_was_made_from():
    value = np.ones(3, dtype=np.float32)
    tensor = misc.constant(value)
    value[:] = 5
    assert tensor.tolist() == [1, 1, 1]
    assert misc.constant(value).tolist() == [5, 5, 5]


def test_constant_follows_the_default_dtype():
    assert misc.constant(0.125).dtype == torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert misc.constant(0.125).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_constant_born_in_inference_mode_can_be_trained_with():
    with torch.inference_mode():
        misc.constant([0.375, 2])
    x = torch.ones(2, requires_grad=True)
    (x * x * misc.constant([0.375, 2])).sum().backward()
    assert x.grad.tolist() == [0.75, 4]


def test_const_like_takes_dtype_and_device_but_no_shape():
    ref = torch.zeros([4, 5], dtype=torch.float16, device="meta")
    tensor = misc.const_like(ref, [1, 2, 3])
    assert (tensor.shape, tensor.dtype, tensor.device) == ((3,), ref.dtype, ref.device)
    assert misc.const_like(ref, 1, dtype=torch.int32, device="cpu").dtype == torch.int32


def test_set_random_seed_sets_both_generators():
    def draw(*seed):
        misc.set_random_seed(*seed)
        return torch.rand(1).item(), np.random.rand()

    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()
    try:
        assert draw(1, 2) == draw(1, 2)
        assert all(a != b for a, b in zip(draw(1, 2), draw(2, 1), strict=True))
    finally:
        torch.random.set_rng_state(torch_state)
        np.random.set_state(numpy_state)


# ---------------------------------------------------------------------------------------------------------------------
# Assertions, warnings, profiling


@given(st.lists(st.integers(0, 4), max_size=4), st.data())
def test_assert_shape_takes_what_fits_and_nothing_else(shape, data):
    tensor = torch.empty(shape)
    fits = [data.draw(st.sampled_from([size, None, torch.as_tensor(size)])) for size in shape]
    misc.assert_shape(tensor, fits)
    with pytest.raises(AssertionError, match=f"got {len(shape)}, expected {len(shape) + 1}"):
        misc.assert_shape(tensor, [*fits, None])
    if shape:
        dim = data.draw(st.integers(0, len(shape) - 1))
        wrong = shape[dim] + 1
        with pytest.raises(AssertionError, match=f"Wrong size for dimension {dim}: got {shape[dim]}, expected {wrong}"):
            misc.assert_shape(tensor, [*fits[:dim], wrong, *fits[dim + 1 :]])
        with pytest.raises(AssertionError, match=f"Wrong size for dimension {dim}"):
            misc.assert_shape(tensor, [*fits[:dim], torch.as_tensor(wrong), *fits[dim + 1 :]])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit.trace itself.
def test_assert_shape_can_be_traced_without_warnings():
    def fn(x):
        misc.assert_shape(x, [None, 3])
        return x * 2

    traced = torch.jit.trace(fn, torch.ones(2, 3))
    assert traced(torch.ones(5, 3)).shape == (5, 3)
    with pytest.raises(AssertionError):
        torch.jit.trace(fn, torch.ones(2, 4))


def test_suppress_tracer_warnings_silences_those_only_and_leaves_no_trace():
    before = list(warnings.filters)
    with misc.suppress_tracer_warnings():
        with misc.suppress_tracer_warnings():
            warnings.warn("quiet", torch.jit.TracerWarning, stacklevel=1)
        warnings.warn("quiet", torch.jit.TracerWarning, stacklevel=1)
        with pytest.raises(UserWarning):
            warnings.warn("loud", UserWarning, stacklevel=1)
    assert warnings.filters == before
    with pytest.raises(ZeroDivisionError), misc.suppress_tracer_warnings():
        raise ZeroDivisionError
    assert warnings.filters == before
    with pytest.raises(torch.jit.TracerWarning):
        warnings.warn("loud again", torch.jit.TracerWarning, stacklevel=1)


def test_names_that_torch_has_by_itself():
    assert misc.nan_to_num(torch.tensor([float("nan"), float("inf")]), nan=1.0, posinf=2.0).tolist() == [1, 2]
    with pytest.raises(AssertionError, match="why"):
        misc.symbolic_assert(False, "why")


def test_profiled_function_shows_under_its_name():
    @misc.profiled_function
    def distinctly_named(x, *, y=1):
        """What it does."""
        return x + y

    assert distinctly_named.__name__ == "distinctly_named" and distinctly_named.__doc__ == "What it does."
    with torch.autograd.profiler.profile() as profile:
        assert distinctly_named(torch.ones(1), y=2).item() == 3
    assert "distinctly_named" in {event.name for event in profile.function_events}


# ---------------------------------------------------------------------------------------------------------------------
# InfiniteSampler


def stream(length, count, **kwargs):
    return [int(index) for index in itertools.islice(misc.InfiniteSampler(range(length), **kwargs), count)]


@given(st.integers(1, 20), st.integers(1, 4), st.booleans(), st.integers(0, 3), st.floats(0, 1))
def test_ranks_share_one_stream(length, num_replicas, shuffle, seed, window_size):
    kwargs = {"shuffle": shuffle, "seed": seed, "window_size": window_size}
    whole = stream(length, 12 * num_replicas, **kwargs)
    parts = [stream(length, 12, rank=rank, num_replicas=num_replicas, **kwargs) for rank in range(num_replicas)]
    assert whole == [index for group in zip(*parts, strict=True) for index in group]


@given(st.integers(1, 50), st.integers(0, 3))
def test_without_a_window_each_epoch_is_the_same_permutation(length, seed):
    epochs = np.reshape(stream(length, 3 * length, seed=seed, window_size=0), [3, length])
    assert sorted(epochs[0]) == list(range(length))
    assert (epochs == epochs[0]).all()
    assert stream(length, 2 * length, shuffle=False) == list(range(length)) * 2


def test_shuffled_stream_is_nvidias():
    """Drawn with NVIDIA's sampler; tests and snapshots that count on an order must find it here."""
    assert stream(7, 20, seed=3) == [4, 6, 5, 3, 1, 0, 2, 3, 5, 0, 6, 4, 2, 5, 6, 0, 4, 1, 3, 2]
    assert stream(7, 20, seed=3) != stream(7, 20, seed=4)


def test_window_keeps_changing_the_order_and_all_items_keep_coming():
    indices = np.reshape(stream(100, 50 * 100, window_size=0.5), [50, 100])
    assert not any((indices[0] == later).all() for later in indices[1:])
    counts = np.bincount(indices.flatten(), minlength=100)
    assert counts.min() > 25 and counts.max() < 75


def test_sampler_feeds_a_data_loader():
    loader = torch.utils.data.DataLoader(torch.arange(10), sampler=misc.InfiniteSampler(range(10), shuffle=False), batch_size=4)
    assert [batch.tolist() for batch in itertools.islice(loader, 3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
    for bad in ({"rank": 1}, {"num_replicas": 0}, {"window_size": 1.5}):
        with pytest.raises(AssertionError):
            misc.InfiniteSampler(range(10), **bad)
    with pytest.raises(AssertionError):
        misc.InfiniteSampler([])


# ---------------------------------------------------------------------------------------------------------------------
# Modules


def test_parameters_come_before_buffers():
    module = Nested()
    named = misc.named_params_and_buffers(module)
    assert [name for name, _ in named] == ["bias", "small.weight", "small.count"]
    assert [id(tensor) for _, tensor in named] == [id(tensor) for tensor in misc.params_and_buffers(module)]


def test_copy_keeps_what_belongs_to_the_destination():
    src, dst = Nested(), Nested().double()
    src.small.extra = torch.nn.Parameter(torch.ones(1))
    dst.bias.requires_grad_(False)
    src.small.count += 5
    tensors = misc.params_and_buffers(dst)
    misc.copy_params_and_buffers(src, dst)
    assert [id(tensor) for tensor in misc.params_and_buffers(dst)] == [id(tensor) for tensor in tensors]
    for name, tensor in misc.named_params_and_buffers(dst):
        assert torch.equal(tensor, dict(misc.named_params_and_buffers(src))[name].to(tensor.dtype))
    assert dst.bias.dtype == torch.float64 and not dst.bias.requires_grad and dst.small.weight.requires_grad
    assert dst.small.weight.grad_fn is None, "copied values carry no history"


def test_copy_minds_missing_names_only_if_told():
    src, dst = Small(), Nested()
    dst.weight = torch.nn.Parameter(torch.zeros(3))
    misc.copy_params_and_buffers(src, dst)
    assert torch.equal(dst.weight, src.weight)
    with pytest.raises(AssertionError, match="bias"):
        misc.copy_params_and_buffers(src, dst, require_all=True)
    misc.copy_params_and_buffers(dst.small, src, require_all=True)
    assert torch.equal(src.weight, dst.small.weight)


@pytest.mark.parametrize("features", [1, 4])
def test_copy_refuses_other_shapes_even_those_that_broadcast(features):
    with pytest.raises(RuntimeError, match=rf"weight has shape \[{features}\] in the source module, \[3\]"):
        misc.copy_params_and_buffers(Small(features), Small(3))


def test_summary_returns_the_outputs_and_prints_each_layer_once(capsys):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(inplace=True), torch.nn.Sequential(torch.nn.BatchNorm1d(3)))
    x = torch.randn(4, 2)
    outputs = misc.print_module_summary(module.eval(), [x])
    assert torch.equal(outputs, module(x))
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines() if line]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert rows == [
        ["Sequential", "Parameters", "Buffers", "Output shape", "Datatype"],
        ["---"] * 5,
        ["0", "9", "-", "[4, 3]", "float32"],
        ["2.0", "6", "7", "[4, 3]", "float32"],
        ["---"] * 5,
        ["Total", "15", "7", "-", "-"],
    ], "ReLU changes its input in place: nothing new; the outer modules give out what their last part does"
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


@pytest.mark.parametrize(("max_nesting", "expected"), [(0, ["<top-level>"]), (1, ["0", "<top-level>"]), (2, ["0.0", "0", "<top-level>"])])
def test_summary_goes_as_deep_as_told(capsys, max_nesting, expected):
    module = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(2, 3)))
    misc.print_module_summary(module, (torch.zeros(1, 2),), max_nesting=max_nesting, skip_redundant=False)
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[2:-2] == expected


def test_summary_of_several_outputs_and_of_a_module_that_raises(capsys):
    class Two(torch.nn.Module):
        def forward(self, x):
            return x + 1, None, x.to(torch.float16)

    misc.print_module_summary(Two(), [torch.zeros(1, 2)])
    out = capsys.readouterr().out
    assert "<top-level>:0" in out and "<top-level>:1" in out and "float16" in out
    module = torch.nn.Sequential(torch.nn.Linear(2, 3))
    with pytest.raises(RuntimeError):
        misc.print_module_summary(module, [torch.zeros(1, 7)])
    assert not module[0]._forward_hooks


def test_ddp_sync_leaves_other_modules_alone():
    for sync in (True, False):
        with misc.ddp_sync(torch.nn.Linear(1, 1), sync):
            pass


class FakeReplica(torch.nn.parallel.DistributedDataParallel):
    def __init__(self):
        torch.nn.Module.__init__(self)
        self.quiet = []

    def no_sync(self):
        self.quiet.append(1)
        return misc.nullcontext()


def test_ddp_sync_of_a_replica():
    replica = FakeReplica()
    with misc.ddp_sync(replica, sync=True):
        assert replica.quiet == []
    with misc.ddp_sync(replica, sync=False):
        assert replica.quiet == [1]


@pytest.mark.parametrize("changed", ["bias", "small.weight", "small.count"])
def test_ddp_consistency_finds_what_differs(monkeypatch, changed):
    """The other rank is played by a dict of what it would broadcast."""
    module, rank0 = Nested(), Nested()
    rank0.load_state_dict(module.state_dict())
    for twin in (module, rank0):
        twin.small.weight.data[1] = float("nan")
    sent = iter([])
    monkeypatch.setattr(torch.distributed, "broadcast", lambda tensor, src: tensor.copy_(next(sent)))

    def values():
        return iter([misc.nan_to_num(t.detach()) if t.is_floating_point() else t for t in misc.params_and_buffers(rank0)])

    sent = values()
    misc.check_ddp_consistency(module)
    assert next(sent, None) is None, "every tensor is compared"
    with torch.no_grad():
        dict(misc.named_params_and_buffers(rank0))[changed].add_(1)
    sent = values()
    with pytest.raises(AssertionError, match=f"Nested.{changed}"):
        misc.check_ddp_consistency(module)
    sent = iter([misc.nan_to_num(t) for name, t in misc.named_params_and_buffers(rank0) if name != changed])
    misc.check_ddp_consistency(module, ignore_regex=f"Nested[.]{changed}")
    sent = values()
    with pytest.raises(AssertionError):
        misc.check_ddp_consistency(module, ignore_regex="Nested[.]")  # Not a full match.
