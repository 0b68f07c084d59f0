# SPDX-License-Identifier: Apache-2.0
"""Snapshots in and out without running them."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylegan_redact import pickle_encode, pickle_stream, pickle_values, torch_storage
from stylegan_redact.downloads import sha256_of
from stylegan_redact.pickles import Snapshot, read_snapshot, write_snapshot
from stylegan_redact.types import RedactError

FEW_BYTES = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
NAMES = ["w_avg", "layer.weight", "layer.bias", "layer.noise", "mixed.weight", "mixed.bias"]


def read(value: Any, protocol: int = 4) -> Snapshot:
    return read_snapshot(io.BytesIO(value if isinstance(value, bytes) else hostile.dumps(value, protocol)))


def message(value: Any) -> str:
    with pytest.raises(RedactError) as caught:
        read(value)
    return str(caught.value)


def bits(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[Any, ...]]:
    return {name: (tensor.dtype, tensor.shape, tensor.contiguous().reshape(-1).view(torch.uint8).tolist()) for name, tensor in tensors.items()}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / "redacted.pkl"


class TestReading:
    @pytest.mark.parametrize("protocol", [3, 4, 5])
    def test_records_of_every_protocol(self, protocol: int) -> None:
        got = read(hostile.snapshot(), protocol)
        assert got.keys == ("G", "D", "G_ema", "augment_pipe", "training_set_kwargs") and got.redaction is None
        assert list(got.modules) == ["G", "D", "G_ema"]
        assert got.training_set_kwargs is not None and got.training_set_kwargs["path"] == "/home/someone/faces.zip"
        record = got.modules["G_ema"]
        assert (record.class_name, record.module_src) == ("Generator", hostile.SOURCE)
        assert record.init_kwargs == {"z_dim": 2, "mapping_kwargs": {"num_layers": 2}, "cutoff": 2.25, "sizes": [[0, 1], [2, 3]]}
        assert type(record.init_kwargs["mapping_kwargs"]) is dict and type(record.init_kwargs["cutoff"]) is float
        assert list(record.tensors) == NAMES
        assert record.parameter_names == ("layer.weight", "layer.bias", "mixed.weight", "mixed.bias")

    def test_tensors_have_the_bits_that_were_pickled(self) -> None:
        random = torch.Generator().manual_seed(1)
        weight, bias = torch.randn(3, 2, generator=random), torch.randn(3, generator=random)
        got = read(hostile.snapshot()).modules["G_ema"].tensors
        torch.testing.assert_close([got["layer.weight"], got["layer.bias"]], [weight, bias], rtol=0, atol=0)
        assert got["mixed.weight"].dtype == torch.float16 and got["layer.noise"].shape == ()

    @pytest.mark.parametrize(
        "dtype", ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64", "complex128"]
    )
    def test_dtypes_views_and_emptiness(self, dtype: str) -> None:
        base = torch.arange(24).reshape(4, 6).to(getattr(torch, dtype))
        buffers = {
            "all": base,
            "view": base.t()[1:3],
            "empty": base[:0],
            "many": torch.zeros(70_000, dtype=base.dtype),
            "wide": base[:1].expand(3, 6),
        }
        got = read(hostile.snapshot(D=hostile.module("D", buffers=buffers))).modules["D"].tensors
        assert bits(got) == bits(buffers)

    def test_gpu_storage_is_read_and_written_for_cpus(self, written: Path) -> None:
        from_gpu = hostile.tensor(hostile.storage(location="cuda:0"))
        snapshot = read(hostile.snapshot(D=hostile.module("D", buffers={"x": from_gpu})))
        assert snapshot.modules["D"].tensors["x"].tolist() == [1, 2]
        write_snapshot(snapshot, written, tensors={}, redaction={})
        assert b"cuda" not in written.read_bytes()

    def test_it_is_independent_of_the_tree(self, written: Path) -> None:
        snapshot = read(hostile.snapshot())
        before = bits(snapshot.modules["G"].tensors)
        snapshot.modules["G"].tensors["w_avg"].add_(1)
        with pytest.raises(RedactError, match="does not read back the same"):
            write_snapshot(snapshot, written, tensors={}, redaction={})
        assert not list(written.parent.iterdir()) and bits(snapshot.modules["G"].tensors) != before


class TestStorages:
    @pytest.mark.parametrize("n", [0, 1, 300, 70_000])
    def test_bytes_are_torchs_own_but_for_the_address(self, n: int) -> None:
        values = torch.arange(n, dtype=torch.float32)
        own = values.untyped_storage()
        address = str(own._cdata).encode()
        theirs = torch.storage.TypedStorage(wrap_storage=own, dtype=values.dtype, _internal=True).__reduce__()[1][0]
        assert address in theirs
        shorter = theirs.replace(b"X" + struct.pack("<I", len(address)) + address, b"X\x01\x00\x00\x000")
        assert torch_storage.encode_storage(values) == shorter

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.complex64])
    def test_torch_reads_them(self, dtype: torch.dtype) -> None:
        values = torch.tensor([0, 1, 1]).to(dtype)
        loaded = torch.load(io.BytesIO(torch_storage.encode_storage(values)), weights_only=True)
        assert torch.equal(torch.tensor([], dtype=dtype).set_(loaded), values)

    @pytest.mark.parametrize(
        "blob",
        [
            hostile.storage(raw=b"\0" * 7),
            hostile.storage(raw=b"\0" * 9),
            hostile.storage(numel=200),
            hostile.storage(location="meta"),
            hostile.storage(kind=b"ctorch\nUntypedStorage\n"),
            hostile.storage(raw=b"\x02\x01", kind=b"ctorch\nBoolStorage\n"),
            hostile.storage()[:-30],
            b"",
        ],
    )
    def test_lies_are_refused(self, blob: bytes) -> None:
        assert torch_storage.decode_storage(hostile.storage())[0].tolist() == [1, 2]
        with pytest.raises(pickle_stream.Refused):
            torch_storage.decode_storage(blob)

    def test_zip_inside_is_refused(self) -> None:
        zipped = io.BytesIO()
        torch.save(torch.zeros(2), zipped)
        assert "a tensor in it is damaged" in message(hostile.snapshot(progress=hostile.tensor(zipped.getvalue())))


class TestWriting:
    def test_only_what_was_asked_for_changes(self, written: Path) -> None:
        before = read(hostile.snapshot(progress={"cur_nimg": torch.tensor(5), "best": float("nan")}))
        new = {"layer.weight": torch.full((3, 2), -0.0), "mixed.bias": torch.tensor([float("nan"), 1]).half()}
        write_snapshot(before, written, tensors={"G": new, "G_ema": new}, redaction={"feature": "beard"})
        after = read_snapshot(written)
        assert after.keys == (*before.keys, "redaction") and after.redaction == {"feature": "beard"}
        for key, record in before.modules.items():
            expected = record.tensors | (new if key != "D" else {})
            assert bits(after.modules[key].tensors) == bits(expected) and list(after.modules[key].tensors) == list(record.tensors)
            for attribute in ("class_name", "module_src", "source_sha256", "init_args", "init_kwargs", "parameter_names"):
                assert getattr(after.modules[key], attribute) == getattr(record, attribute)
        assert bits(before.modules["G"].tensors) != bits(after.modules["G"].tensors)

    def test_python_reads_it_with_the_meaning_it_had(self, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_snapshot(read(hostile.snapshot()), written, tensors={"G": {"w_avg": torch.ones(4)}}, redaction={})
        monkeypatch.setattr(hostile.persistence, "_reconstruct_persistent_obj", lambda meta: meta)
        data = pickle.loads(written.read_bytes())
        state = data["G"]["state"]
        assert state["_buffers"]["w_avg"].tolist() == [1, 1, 1, 1] and data["G_ema"]["state"]["_buffers"]["w_avg"].tolist() == [0, 1, 2, 3]
        assert state["_buffers"]["nothing"] is None and state["_non_persistent_buffers_set"] == set()
        assert isinstance(state["_modules"]["mixed"], torch.nn.Linear) and state["size"].tolist() == [16, 8]
        assert type(state["count"]) is int and type(state["_modules"]["layer"]["state"]["gain"]) is float
        assert isinstance(state["_init_kwargs"]["mapping_kwargs"], hostile.dnnlib.EasyDict)
        weight = state["_modules"]["layer"]["state"]["_parameters"]["weight"]
        assert isinstance(weight, torch.nn.Parameter) and not weight.requires_grad

    def test_no_numpy_version_and_protocol_4(self, written: Path) -> None:
        write_snapshot(read(hostile.snapshot(), protocol=5), written, tensors={}, redaction={})
        data = written.read_bytes()
        assert data[:2] == b"\x80\x04" and b"numpy._core" not in data and b"numpy.core.multiarray" in data
        assert b"scalar" not in data.replace(hostile.SOURCE.encode(), b"") and "BYTEARRAY8" not in hostile.instructions(data)

    def test_same_request_same_bytes(self, written: Path) -> None:
        data = hostile.dumps(hostile.snapshot())
        for path in (written, written.with_name("again.pkl")):
            write_snapshot(read(data), path, tensors={"G": {"w_avg": torch.ones(4)}}, redaction={"a": [1, 2.5]})
        assert written.read_bytes() == written.with_name("again.pkl").read_bytes()

    def test_writing_what_was_read_is_a_fixed_point(self, written: Path) -> None:
        write_snapshot(read(hostile.snapshot()), written, tensors={}, redaction={})
        again = written.with_name("again.pkl")
        assert write_snapshot(read_snapshot(written), again, tensors={}, redaction={}) == ()
        assert again.read_bytes() == written.read_bytes()

    def test_source_is_stored_once(self, written: Path) -> None:
        write_snapshot(read(hostile.snapshot()), written, tensors={"G": {"w_avg": torch.ones(4)}}, redaction={})
        assert written.read_bytes().count(hostile.SOURCE.encode()) == 1

    def test_shared_networks_stay_shared_or_part(self, written: Path) -> None:
        shared = hostile.generator()
        before = read(hostile.snapshot(G=shared, G_ema=shared))
        new, other = torch.ones(4), torch.zeros(4)
        write_snapshot(before, written, tensors={"G": {"w_avg": new}, "G_ema": {"w_avg": new.clone()}}, redaction={})
        together = read_snapshot(written)
        assert together._tree["G"] is together._tree["G_ema"]
        for G, G_ema in ((new, other), (new, None), (None, other)):
            asked = {key: {"w_avg": value} for key, value in (("G", G), ("G_ema", G_ema)) if value is not None}
            write_snapshot(before, written, tensors=asked, redaction={})
            apart = read_snapshot(written)
            assert [apart.modules[key].tensors["w_avg"].tolist() for key in ("G", "G_ema")] == [
                [0, 1, 2, 3] if value is None else value.tolist() for value in (G, G_ema)
            ]

    def test_paths_are_dropped_and_named(self, written: Path) -> None:
        dropped = write_snapshot(read(hostile.snapshot()), written, tensors={}, redaction={})
        assert dropped == ("training_set_kwargs.path", "training_set_kwargs.extra.cache")
        assert read_snapshot(written).training_set_kwargs == {"class_name": "training.dataset.ImageFolderDataset", "max_size": 7, "extra": {}}
        assert b"someone" not in written.read_bytes()

    def test_new_provenance_takes_the_place_of_the_old(self, written: Path) -> None:
        write_snapshot(read(hostile.snapshot(redaction={"old": 1})), written, tensors={}, redaction={"new": (1, None, True)})
        assert read_snapshot(written).redaction == {"new": [1, None, True]}

    @pytest.mark.parametrize("value", [float("nan"), {1: 2}, b"x", torch.zeros(1), {1, 2}, Path("x"), np.float32(1), [[[float("inf")]]]])
    def test_provenance_is_plain(self, written: Path, value: Any) -> None:
        with pytest.raises(RedactError, match=r"redaction\.a.* was to be recorded"):
            write_snapshot(read(hostile.snapshot()), written, tensors={}, redaction={"a": value})
        assert not list(written.parent.iterdir())

    @pytest.mark.parametrize(
        ("tensors", "says"),
        [
            ({"H": {}}, "networks under G, D, G_ema"),
            ({"augment_pipe": {}}, "networks under G, D, G_ema"),
            ({"G": {"nothing": torch.zeros(1)}}, "no tensor of that name"),
            ({"G": {"w_avg": torch.zeros(5)}}, r"replaced by torch.float32 \[5\] - it is torch.float32 \[4\]"),
            ({"G": {"w_avg": torch.zeros(4, dtype=torch.float64)}}, "replaced by torch.float64"),
            ({"G": {"w_avg": [0, 0, 0, 0]}}, "replaced by list"),
        ],
    )
    def test_wrong_requests(self, written: Path, tensors: Any, says: str) -> None:
        with pytest.raises(RedactError, match=says):
            write_snapshot(read(hostile.snapshot()), written, tensors=tensors, redaction={})
        assert not list(written.parent.iterdir())

    def test_an_existing_file_survives_a_failure(self, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        written.write_bytes(b"old")
        monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(RedactError, match="No space left"):
            write_snapshot(read(hostile.snapshot()), written, tensors={}, redaction={})
        assert written.read_bytes() == b"old" and list(written.parent.iterdir()) == [written]

    def test_a_writing_fault_is_noticed(self, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        wrong = torch_storage.encode_storage(torch.full((4,), 9.0))
        monkeypatch.setattr("stylegan_redact.pickle_tree.encode_storage", lambda _: wrong)
        with pytest.raises(RedactError, match="does not read back the same"):
            write_snapshot(read(hostile.snapshot()), written, tensors={"G": {"w_avg": torch.ones(4)}}, redaction={})
        assert not list(written.parent.iterdir())

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(RedactError, match="was to be written - the system says"):
            write_snapshot(read(hostile.snapshot()), tmp_path / "no" / "x.pkl", tensors={}, redaction={})


class TestSafety:
    NAMES = sorted(hostile.hostile_streams(Path("x")))
    LIVE = (
        "os.system",
        "posix.system by GLOBAL",
        "exec",
        "python 2 name",
        "INST",
        "OBJ",
        "in a network",
        "hooks",
        "object array",
        "nested in a storage",
    )

    @pytest.mark.parametrize("name", NAMES)
    def test_nothing_runs(self, name: str, tmp_path: Path) -> None:
        marker = tmp_path / "ran"
        data = hostile.hostile_streams(marker)[name]
        text = message(data)
        assert not marker.exists() and text.count(" - ") >= 2 and "\n" not in text

    @pytest.mark.parametrize("name", LIVE)
    def test_the_payloads_are_live(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        marker = tmp_path / "ran"
        data = hostile.hostile_streams(marker)[name]
        monkeypatch.setattr(hostile.persistence, "_reconstruct_persistent_obj", lambda meta: meta)
        monkeypatch.setattr(torch.storage, "_load_from_bytes", lambda blob: torch.load(io.BytesIO(blob), weights_only=False))
        with contextlib.suppress(Exception):
            pickle.loads(data)
        assert marker.exists(), "a payload that does nothing in Python's pickle proves nothing here"

    def test_hostile_source_is_text(self, tmp_path: Path) -> None:
        marker = tmp_path / "ran"
        source = f"open({str(marker)!r}, 'w').close()\nclass Generator: pass\n"
        snapshot = read(hostile.snapshot(G=hostile.module("Generator", source=source)))
        write_snapshot(snapshot, tmp_path / "out.pkl", tensors={}, redaction={})
        assert snapshot.modules["G"].module_src == source and not marker.exists()

    def test_foreign_imports_are_named(self) -> None:
        text = message(hostile.snapshot(D=hostile.module("D", modules={"x": zipfile.ZipInfo("a")})))
        assert "it imports zipfile.ZipInfo" in text and "nothing was run" in text

    def test_only_listed_imports_resolve(self) -> None:
        assert str(pickle_values.resolve("numpy._core.multiarray", "scalar")) == "numpy.core.multiarray.scalar"
        for module, name in (("numpy", "load"), ("torch", "Tensor"), ("torch._utils", "_import_dotted_name"), ("torch.nn.modules.x.y", "Linear")):
            with pytest.raises(pickle_stream.Refused, match="it imports"):
                pickle_values.resolve(module, name)

    @pytest.mark.parametrize(
        "value",
        [
            hostile.tensor(hostile.storage(), size=(3,)),
            hostile.tensor(hostile.storage(), offset=1),
            hostile.tensor(hostile.storage(), stride=(-1,)),
            hostile.tensor(hostile.storage(), size=(1 << 40,), stride=(0,)),
            hostile.tensor(hostile.storage(), size=(2, 1)),
            hostile.tensor(hostile.storage(), size=[2]),
            hostile.tensor(hostile.storage(), size=(True,)),
            hostile.Call(np.dtype, "O8", False, True),
            hostile.Call(np.ndarray, (2,)),
            np.zeros(2, dtype=[("a", "f4")]),
            hostile.Call(torch.device, "cuda", "0"),
            hostile.Call(torch.Size, (-1,)),
            torch.load,
        ],
    )
    def test_impossible_values(self, value: Any) -> None:
        assert "was to be read as a StyleGAN snapshot" in message(hostile.snapshot(progress=value))

    def test_bombs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        deep: Any = None
        for _ in range(400):
            deep = [deep]
        assert "nested more than" in message(hostile.snapshot(progress=deep))
        wide: Any = 0
        for _ in range(60):
            wide = (wide, wide)
        assert read(hostile.snapshot(progress=wide)).keys[-1] == "progress"
        assert "more than 100000 values" in message(hostile.snapshot(training_set_kwargs={"x": wide}))
        names = hostile.module("Layer", buffers={"x": torch.zeros(1)})
        for _ in range(15):
            names = hostile.module("Layer", modules={"a": names, "b": names, "c": names})
        assert "layers and tensors or endless names" in message(hostile.snapshot(D=names))
        circle: list[Any] = []
        circle.append(circle)
        assert "contains itself" in message(hostile.snapshot(progress=circle))
        monkeypatch.setattr(pickle_stream, "MAX_PLAIN_BYTES", 1 << 16)
        assert "MiB besides tensors" in message(b"\x80\x04" + b"]" * (1 << 17))
        assert read(hostile.snapshot(progress=torch.zeros(1 << 17))), "tensors do not count"
        assert "ends too early" in message(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x")

    @settings(FEW_BYTES, max_examples=250)
    @given(data=st.data())
    def test_damage_is_refused_or_harmless(self, data: st.DataObject) -> None:
        good = bytearray(DAMAGED)
        for _ in range(data.draw(st.integers(1, 4))):
            good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(good)) | st.just(len(good)))
        try:
            read(bytes(good[:cut]))
        except RedactError as error:
            assert "\n" not in str(error)
        else:
            assert cut == len(good)

    @FEW_BYTES
    @given(st.binary(max_size=200))
    def test_noise_is_refused(self, noise: bytes) -> None:
        assert "was to be read" in message(b"\x80\x04" + noise)


DAMAGED = hostile.dumps(hostile.snapshot())


class TestWrongFiles:
    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (b"", "it is empty"),
            (DAMAGED[: len(DAMAGED) // 2], "it ends too early"),
            (DAMAGED[:-1], "it ends too early"),
            (b"\n <!DOCTYPE html><html>", "it looks like a web page, a failed download"),
            (b"\xff\xd8\xff\xe0JFIF", "it is a JPEG picture"),
            (b"\x89PNG\r\n\x1a\n", "it is a PNG picture"),
            (b"\x1f\x8b\x08", "compressed with gzip"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "it is a pointer of git-lfs"),
            (struct.pack("<Q", 30) + b'{"weight":{}}', "it is a safetensors file"),
            (b"hello", "it is not a pickle"),
            (b"\x80\x02cdnnlib.tflib.network\nNetwork\nq\x00.", "has dnnlib.tflib.network.Network as a value"),
            (b"\x80\x02ctfutil\nNetwork\nq\x00.", "has tfutil.Network as a value"),
            (hostile.dumps({"G_ema": hostile.generator()}), "it has G_ema and lacks G, D"),
            (hostile.dumps({}), "it has nothing and lacks G, D, G_ema"),
            (hostile.dumps(hostile.generator()), "one network alone"),
            (hostile.dumps([1, 2]), "a pickle, but not of a StyleGAN snapshot"),
            (hostile.dumps({1: 2}), "a pickle, but not of a StyleGAN snapshot"),
            (hostile.dumps(hostile.snapshot(G=None)), "what it has as G is no network"),
            (hostile.dumps(hostile.snapshot(G_ema=torch.nn.Linear(1, 1))), "what it has as G_ema is no network"),
            (hostile.dumps(hostile.snapshot(training_set_kwargs=3)), "what it has as training_set_kwargs is no dictionary"),
            (DAMAGED.replace(b"version\x94K\x06", b"version\x94K\x07"), "format 7, only format 6"),
        ],
    )
    def test_each_says_what_it_is(self, data: bytes, says: str, tmp_path: Path) -> None:
        path = tmp_path / "network.pkl"
        path.write_bytes(data)
        with pytest.raises(RedactError) as caught:
            read_snapshot(path)
        assert says in str(caught.value) and str(caught.value).startswith(f"{path} was to be read as a StyleGAN snapshot - ")

    def test_torch_files(self) -> None:
        for zipped, says in ((True, "it is a zip"), (False, "it is a file of torch.save")):
            file = io.BytesIO()
            torch.save({"G_ema": {}}, file, _use_new_zipfile_serialization=zipped)
            assert says in message(file.getvalue())

    def test_missing_and_folder(self, tmp_path: Path) -> None:
        with pytest.raises(RedactError, match="there is no such file"):
            read_snapshot(tmp_path / "nothing.pkl")
        with pytest.raises(RedactError, match="it is a folder"):
            read_snapshot(tmp_path)
        (tmp_path / "loop.pkl").symlink_to(tmp_path / "loop.pkl")
        with pytest.raises(RedactError, match="there is no such file"):
            read_snapshot(tmp_path / "loop.pkl")

    def test_a_pipe_is_refused_and_not_waited_for(self, tmp_path: Path) -> None:
        """Nobody writes into it; and what came out of one could not be read again for its hash."""
        os.mkfifo(tmp_path / "pipe.pkl")
        for read in (read_snapshot, sha256_of):
            with pytest.raises(RedactError, match="it is a pipe or a device"):
                read(tmp_path / "pipe.pkl")


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=5) | st.tuples(inner, inner, inner, inner) | st.tuples(inner) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=20,
)


class TestStream:
    @FEW_BYTES
    @given(plain_values, st.sampled_from([3, 4, 5]))
    def test_decoded_is_what_pickle_gives(self, value: Any, protocol: int) -> None:
        decoded = pickle_stream.decode(io.BytesIO(pickle.dumps(value, protocol)), pickle_values.resolve)
        assert repr(decoded) == repr(value)
        out = io.BytesIO()
        pickle_encode.encode(decoded, out.write)
        assert repr(pickle.loads(out.getvalue())) == repr(value)

    @pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**63, -1, 255, 256, 10**600, "\ud800", "x" * 300, b"y" * 300, frozenset({1}), {2}, True])
    def test_edges_of_the_encoding(self, value: Any) -> None:
        out = io.BytesIO()
        pickle_encode.encode(pickle_stream.decode(io.BytesIO(pickle.dumps(value, 4)), pickle_values.resolve), out.write)
        assert pickle.loads(out.getvalue()) == value

    def test_sharing_survives(self) -> None:
        inner = ["x" * 10]
        many = [[i, inner] for i in range(300)]
        out = io.BytesIO()
        pickle_encode.encode(pickle_stream.decode(io.BytesIO(pickle.dumps(many, 4)), pickle_values.resolve), out.write)
        again = pickle.loads(out.getvalue())
        assert again == many and all(item[1] is again[0][1] for item in again)
