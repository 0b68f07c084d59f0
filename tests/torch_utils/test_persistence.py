# SPDX-License-Identifier: Apache-2.0
"""torch_utils.persistence: round trips within the process, into a fresh one, and with NVIDIA's code."""

import copy
import inspect
import io
import os
import pickle
import pickletools
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dnnlib
from torch_utils import persistence

SOURCE = '''
"""A module such as a user writes."""
import torch
from torch_utils import persistence

CALLS = []

@persistence.persistent_class
class Layer(torch.nn.Module):
    """Adds a weight."""
    def __init__(self, features, gain=1, options=None):
        super().__init__()
        self.gain = gain
        self.weight = torch.nn.Parameter(torch.arange(float(features)))
        self.register_buffer("offset", torch.ones(features))
    def forward(self, x):
        return x + self.weight * self.gain + self.offset

@persistence.persistent_class
class Network(torch.nn.Module):
    def __init__(self, features, layers=2, **layer_kwargs):
        super().__init__()
        self.layers = torch.nn.ModuleList([Layer(features, **layer_kwargs) for _ in range(layers)])
        self.tied = self.layers[0].weight
    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x * self.tied

@persistence.persistent_class
class DoubleLayer(Layer):
    def forward(self, x):
        return super().forward(super().forward(x))

@persistence.persistent_class
class Plain:
    def __init__(self, value=0):
        self.value = value

@persistence.persistent_class
class Counting:
    def __init__(self, value):
        self.value = value
    def __getstate__(self):
        return {"packed": self.value, **{k: v for k, v in vars(self).items() if k.startswith("_init")}}
    def __setstate__(self, state):
        self.__dict__.update(state)
        self.value = self.__dict__.pop("packed") + 1

@persistence.persistent_class
class Unrecorded:
    def __init__(self, value):
        self._record_init_args = False
        self.value = value

class Ordinary:
    def __init__(self, value=0):
        self.value = value
'''


@pytest.fixture(autouse=True)
def clean_state(monkeypatch):
    """Hooks, caches and modules of each test are its own."""
    monkeypatch.setattr(persistence, "_import_hooks", [])
    for name in ("_module_to_src_dict", "_src_to_module_dict"):
        monkeypatch.setattr(persistence, name, dict(getattr(persistence, name)))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("_imported_module_", "user_module")):
            del sys.modules[name]


@pytest.fixture
def user(tmp_path, monkeypatch):
    """SOURCE as an imported module."""
    (tmp_path / "user_module.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import user_module

    return user_module


def round_trip(obj, protocol=4):
    return pickle.loads(pickle.dumps(obj, protocol))


def meta_of(obj):
    function, (meta,), nothing = obj.__reduce__()
    assert function is persistence._reconstruct_persistent_obj and nothing is None
    return meta


def rebuild(**changes):
    meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": "Plain", "state": {"value": 5}, **changes}
    return persistence._reconstruct_persistent_obj(meta)


def imported_modules():
    return {name for name in sys.modules if name.startswith("_imported_module_")}


# ---------------------------------------------------------------------------------------------------------------------
# The decorator


def test_decorated_class_is_a_subclass_that_remembers(user):
    options = {"a": [1]}
    layer = user.Layer(3, gain=2, options=options)
    assert type(layer).__name__ == "Layer" and type(layer).__doc__ == "Adds a weight."
    assert layer._orig_class_name == "Layer" and layer._orig_module_src == SOURCE
    options["a"].append(2)
    assert layer.init_args == (3,)
    assert layer.init_kwargs == {"gain": 2, "options": {"a": [1]}} and type(layer.init_kwargs) is dnnlib.EasyDict
    layer.init_kwargs.options["a"].append(3)
    assert layer.init_kwargs.options == {"a": [1]}, "the properties hand out copies"
    assert type(layer._init_kwargs) is dict
    values = [1]
    plain = user.Plain(values)
    values.append(2)
    plain.init_args[0].append(3)
    assert plain.value == [1, 2] and plain.init_args == ([1],)
    assert pickle.loads(pickle.dumps(type(layer))) is user.Layer, "the class itself goes by name"


def test_decorating_twice_changes_nothing(user):
    assert persistence.persistent_class(user.Layer) is user.Layer
    once = persistence.persistent_class(user.Ordinary)
    assert persistence.persistent_class(once) is once and issubclass(once, user.Ordinary)
    with pytest.raises(AssertionError, match="expected a class"):
        persistence.persistent_class(lambda: 0)


def test_is_persistent(user):
    class Undecorated(user.Plain):
        pass

    assert persistence.is_persistent(user.Plain) and persistence.is_persistent(user.Plain())
    for other in (user.Ordinary, user.Ordinary(), Undecorated, Undecorated(), [], {}, None, 5, torch.nn.Linear, user, type):
        assert not persistence.is_persistent(other)


def test_unrecorded_arguments(user):
    value = user.Unrecorded([1])
    assert value.init_args is None and value.init_kwargs is None
    twin = round_trip(value)
    assert twin.value == [1] and twin.init_args is None


@pytest.mark.parametrize("bad", [lambda: 0, sys, (x for x in ()), types.SimpleNamespace(lock=threading.Lock())])
def test_what_cannot_be_pickled_is_refused_at_construction(user, bad):
    with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
        user.Plain([{"deep": bad}])


@pytest.mark.parametrize("good", [{1, 2}, torch.float16, types.SimpleNamespace(a=1), np.float64(3), np.zeros(2), torch.nn.ReLU(), None, "x", 1j])
def test_what_can_be_pickled_is_accepted(user, good):
    assert type(user.Plain(good).value) is type(good)
    assert type(round_trip(user.Plain(value=good)).value) is type(good)


def test_check_skips_bulk_data(user, monkeypatch):
    """Constructing a network must not serialise its weights once per level of nesting."""
    monkeypatch.setattr(torch.Tensor, "__reduce_ex__", lambda self, protocol: pytest.fail("a tensor was pickled"))
    user.Network(3)


def test_module_without_source_is_an_error():
    module = types.ModuleType("user_module_typed_in")
    sys.modules[module.__name__] = module
    with pytest.raises((OSError, TypeError)):
        exec("from torch_utils import persistence\n@persistence.persistent_class\nclass A: pass\n", vars(module))


# ---------------------------------------------------------------------------------------------------------------------
# The stream


def test_meta_has_the_five_keys_in_nvidias_order(user):
    meta = meta_of(user.Layer(3, gain=2))
    assert type(meta) is dict and list(meta) == ["type", "version", "module_src", "class_name", "state"]
    assert (meta["type"], meta["version"], meta["class_name"]) == ("class", 6, "Layer")
    assert meta["module_src"] == SOURCE == inspect.getsource(user)
    assert meta["state"]["_init_args"] == (3,) and meta["state"]["_init_kwargs"] == {"gain": 2}
    assert {"training", "_parameters", "_buffers", "_modules"} <= set(meta["state"])


def test_stream_stores_the_source_once_and_names_what_nvidia_names(user):
    data = pickle.dumps(user.Network(3, layers=3), protocol=4)
    assert data.count(SOURCE.encode()) == 1
    strings = [argument for opcode, argument, _ in pickletools.genops(data) if "UNICODE" in opcode.name]
    position = strings.index("_reconstruct_persistent_obj")
    assert strings[position - 1] == "torch_utils.persistence"
    assert "user_module" not in strings, "nothing refers to the module by name"


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_network_survives(user, protocol):
    network = user.Network(3, layers=3, gain=2).eval()
    network.layers[1].weight.requires_grad_(False)
    twin = round_trip(network, protocol)
    x = torch.randn(2, 3)
    assert torch.equal(twin(x), network(x))
    assert not twin.training and not twin.layers[1].weight.requires_grad and twin.layers[2].weight.requires_grad
    assert twin.tied is twin.layers[0].weight, "what was shared stays shared"
    assert twin.init_args == (3,) and twin.init_kwargs == {"layers": 3, "gain": 2}
    assert [layer.init_kwargs.gain for layer in twin.layers] == [2, 2, 2]


def test_classes_of_a_known_module_are_that_modules_own(user):
    known = imported_modules()
    twin = round_trip(user.Network(3))
    assert type(twin) is user.Network and {type(layer) for layer in twin.layers} == {user.Layer}
    assert imported_modules() == known


def test_decorated_subclass_keeps_its_identity(user):
    layer = user.DoubleLayer(3)
    assert meta_of(layer)["class_name"] == "DoubleLayer" and layer.init_args == (3,)
    twin = round_trip(layer)
    assert type(twin) is user.DoubleLayer and isinstance(twin, user.Layer)
    assert torch.equal(twin(torch.ones(3)), layer(torch.ones(3)))


def test_undecorated_subclass_becomes_its_base(user):
    class Undecorated(user.Plain):
        pass

    assert type(round_trip(Undecorated(3))) is user.Plain


def test_subclass_of_another_modules_persistent_class(user, tmp_path):
    (tmp_path / "user_module_heir.py").write_text(
        "import user_module\nfrom torch_utils import persistence\n"
        "@persistence.persistent_class\nclass Heir(user_module.Plain):\n    def twice(self):\n        return self.value * 2\n"
    )
    import user_module_heir

    heir = user_module_heir.Heir(4)
    assert "class Heir" in meta_of(heir)["module_src"]
    assert type(round_trip(heir)) is user_module_heir.Heir and round_trip(heir).twice() == 8


def test_own_state_methods_are_used(user):
    assert meta_of(user.Counting(4))["state"]["packed"] == 4
    assert round_trip(user.Counting(4)).value == 5
    assert round_trip(user.Counting(4)).init_args == (4,)


def test_deepcopy_is_independent(user):
    network = user.Network(3)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin.layers[0].weight += 1
    assert type(twin) is user.Network and not torch.equal(twin.layers[0].weight, network.layers[0].weight)
    assert twin.tied is twin.layers[0].weight and twin.init_kwargs == network.init_kwargs


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(json_like)
def test_any_plain_value_survives(value):
    obj = rebuild(class_name="Plain", state={})
    obj.__init__(value)
    for twin in (round_trip(obj), copy.deepcopy(obj)):
        assert twin.value == value and twin.init_args == (value,)


# ---------------------------------------------------------------------------------------------------------------------
# Reading what this process does not know


def test_unknown_source_runs_once_under_a_name_of_its_own():
    before = imported_modules()
    first, second = rebuild(), rebuild(class_name="Counting", state={"packed": 1})
    assert (first.value, second.value) == (5, 2)
    (name,) = imported_modules() - before
    module = sys.modules[name]
    assert len(name) == len("_imported_module_") + 32
    assert vars(module)["Plain"] is type(first) and type(first).__module__ == name
    assert round_trip(first).value == 5 and meta_of(first)["module_src"] == SOURCE, "saved again, it carries the same text"
    assert persistence.is_persistent(first)


def test_source_imported_later_takes_over(tmp_path, monkeypatch):
    before = rebuild()
    (tmp_path / "user_module.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import user_module

    assert type(before) is not user_module.Plain
    assert type(rebuild()) is user_module.Plain


def test_text_is_compared_exactly(user):
    assert type(rebuild()) is user.Plain
    assert type(rebuild(module_src=SOURCE + "\n")) is not user.Plain


def test_class_that_its_source_leaves_undecorated_becomes_persistent(user):
    value = rebuild(class_name="Ordinary", state={"value": 3, "_init_args": (), "_init_kwargs": {}})
    assert persistence.is_persistent(value) and isinstance(value, user.Ordinary)
    assert round_trip(value).value == 3


def test_embedded_source_is_not_compiled_with_our_future_imports():
    source = "class A:\n    x: int = 0\nkind = type(A.__annotations__['x'])\n"
    value = rebuild(module_src=source, class_name="A", state={})
    assert vars(sys.modules[type(value).__mro__[1].__module__])["kind"] is type


def test_tracebacks_show_the_embedded_lines():
    source = "class A:\n    def fail(self):\n        raise KeyError('inside')\n"
    value = rebuild(module_src=source, class_name="A", state={})
    assert "def fail" in inspect.getsource(type(value).fail)


@pytest.mark.parametrize(("version", "accepted"), [(5, False), (6, True), (7, False), (None, False)])
def test_version_must_be_6(version, accepted):
    if accepted:
        assert rebuild(version=version).value == 5
    else:
        with pytest.raises(AssertionError, match=f"version {version}"):
            rebuild(version=version)


def test_other_malformed_objects():
    with pytest.raises(AssertionError, match="function"):
        rebuild(type="function")
    with pytest.raises(KeyError, match="Absent"):
        rebuild(class_name="Absent")


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("import pg_modules.blocks", ModuleNotFoundError, ["pg_modules", "StyleGAN-XL"]),
        ("from training.volumetric_rendering import x", ModuleNotFoundError, ["training", "repository"]),
        ("import training_elsewhere", ModuleNotFoundError, ["training_elsewhere", "its provider"]),
        ("from torch_utils import absent_thing", ImportError, ["absent_thing", "repository"]),
        ("import nowhere_to_be_found", ModuleNotFoundError, ["nowhere_to_be_found"]),
        ("1 / 0", ImportError, ["ZeroDivisionError", "Plain"]),
        ("def broken(:", ImportError, ["SyntaxError"]),
    ],
)
def test_source_that_fails_says_why_every_time_and_leaves_nothing(line, kind, words):
    source = SOURCE + line + "\n"
    before = imported_modules(), dict(persistence._src_to_module_dict), dict(persistence._module_to_src_dict)
    for _attempt in range(2):
        with pytest.raises(kind) as caught:
            rebuild(module_src=source)
        assert all(word in str(caught.value) for word in ["Plain", *words]), str(caught.value)
        assert caught.value.__cause__ is not None
    assert before == (imported_modules(), persistence._src_to_module_dict, persistence._module_to_src_dict)


def test_source_that_failed_can_be_read_once_the_import_is_there(tmp_path, monkeypatch):
    source = SOURCE + "import user_module_late\n"
    with pytest.raises(ModuleNotFoundError) as caught:
        rebuild(module_src=source)
    assert caught.value.name == "user_module_late"
    (tmp_path / "user_module_late.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert rebuild(module_src=source).value == 5


def test_interrupt_is_passed_on_and_leaves_nothing():
    before = imported_modules()
    with pytest.raises(KeyboardInterrupt):
        rebuild(module_src="raise KeyboardInterrupt\n")
    assert imported_modules() == before


# ---------------------------------------------------------------------------------------------------------------------
# Hooks


def test_hooks_run_in_order_on_every_object_and_may_change_it(user):
    calls = []

    @persistence.import_hook
    def first(meta):
        assert type(meta) is dnnlib.EasyDict and type(meta.state) is dnnlib.EasyDict
        calls.append(("first", meta.class_name))
        return meta

    def second(meta):
        calls.append(("second", meta.class_name))
        meta.module_src = meta.module_src.replace("self.weight * self.gain", "self.weight * 100")
        return meta

    assert first is not None and persistence.import_hook(second) is second
    twin = round_trip(user.Layer(2))
    assert calls == [("first", "Layer"), ("second", "Layer")]
    assert twin(torch.zeros(2)).tolist() == [1, 101]
    calls.clear()
    copy.deepcopy(user.Network(2, layers=2))
    assert [name for hook, name in calls if hook == "first"] == ["Layer", "Layer", "Network"]


def test_hook_can_lift_an_old_version(user):
    @persistence.import_hook
    def lift(meta):
        meta.version = 6
        return meta

    assert rebuild(version=5).value == 5


def test_hook_must_return_something(user):
    persistence.import_hook(lambda meta: None)
    with pytest.raises(AssertionError, match="returned None"):
        round_trip(user.Plain())
    with pytest.raises(AssertionError, match="expected a function"):
        persistence.import_hook(5)


# ---------------------------------------------------------------------------------------------------------------------
# Other processes

WRITE = (
    SOURCE
    + """
if __name__ == "__main__":
    import pickle, sys
    network = Network(3, layers=2, gain=2).eval().requires_grad_(False)
    with open(sys.argv[1], "wb") as file:
        pickle.dump({"G_ema": network, "heir": DoubleLayer(2), "plain": Plain([1, 2])}, file, protocol=4)
"""
)
READ = """
import pickle, sys, torch
with open(sys.argv[1], "rb") as file:
    data = pickle.load(file)
x = torch.arange(3.0)
assert data["G_ema"](x).tolist() == [0, 7, 24], data["G_ema"](x)
assert data["G_ema"].init_kwargs == {"layers": 2, "gain": 2} and data["G_ema"].tied is data["G_ema"].layers[0].weight
assert type(data["heir"]).__name__ == "DoubleLayer" and data["heir"](torch.zeros(2)).tolist() == [2, 4]
assert data["plain"].value == [1, 2] and data["plain"].init_args == ([1, 2],)
with open(sys.argv[1], "wb") as file:
    pickle.dump(data, file, protocol=4)
"""
OURS = os.path.dirname(os.path.dirname(dnnlib.__file__))


def run_in(root, tmp_path, code, name):
    script = tmp_path / f"{name}.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "x.pkl")], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_script_writes_and_a_fresh_process_reads(tmp_path):
    """The classes live in `__main__`, whose text travels with them."""
    run_in(OURS, tmp_path, WRITE, "write")
    run_in(OURS, tmp_path, READ, "read")


@pytest.mark.host
@pytest.mark.parametrize("variable", ["STYLEGAN3_ROOT", "STYLEGAN2_ADA_ROOT"])
@pytest.mark.parametrize("ours_writes", [True, False])
def test_files_go_to_nvidia_and_back(tmp_path, variable, ours_writes):
    theirs = os.environ.get(variable)
    if not theirs:
        pytest.skip(f"{variable} is not set")
    writer, reader = (OURS, theirs) if ours_writes else (theirs, OURS)
    run_in(writer, tmp_path, WRITE, "write")
    run_in(reader, tmp_path, READ, "read")  # Saves it again ...
    run_in(writer, tmp_path, READ, "read")  # ... for the writer to read.


def test_stream_can_be_read_by_torch_free_tools(user):
    """Only documented names occur, so a reader that executes nothing knows all of them."""
    seen = set()

    class Names(pickle.Unpickler):
        def find_class(self, module, name):
            seen.add(f"{module}.{name}")
            return super().find_class(module, name)

    Names(io.BytesIO(pickle.dumps(user.Layer(3), protocol=4))).load()
    assert seen == {
        "torch_utils.persistence._reconstruct_persistent_obj",
        "collections.OrderedDict",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor_v2",
        "torch.storage._load_from_bytes",
    }
