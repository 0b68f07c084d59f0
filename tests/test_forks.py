# SPDX-License-Identifier: Apache-2.0
"""What can be done with the files of each fork: docs/forks.md, held row by row on a file with that fork's layout."""

from __future__ import annotations

import functools
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import forks
import hostile
import numpy as np
import pytest
import tiny
import tiny_run
import torch
from click.testing import CliRunner, Result

from stylegan_redact import api, cli, methods, pickle_trust, plugins
from stylegan_redact.features.attribute import Attribute
from stylegan_redact.methods._adversarial import Adversarial
from stylegan_redact.network import load_network, read_snapshot, sample_w, save_network, synthesize
from stylegan_redact.pickle_stream import Global
from stylegan_redact.pickles import write_snapshot
from stylegan_redact.types import Feature, RedactError
from stylegan_redact.verbs import _fold
from stylegan_redact.wspace.affine import AffineEdit

DOC = Path(__file__).parents[1] / "docs" / "forks.md"
YES, NO = "yes", "no"
SHORT: dict[str, Any] = {"steps": 20, "kimg": 0.05, "batch": 16}


def run(*args: Any) -> Result:
    chosen, verb = cli.choose([str(arg) for arg in args])
    return CliRunner().invoke(chosen, [str(arg) for arg in args[1 if verb else 0 :]])


def documented() -> dict[str, dict[str, str]]:
    """The table of the document: fork -> column -> text."""
    table = re.search(r"^\| fork \|.*?\n\n", DOC.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert table is not None
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.group().strip().splitlines()]
    return {row[0]: dict(zip(lines[0], row, strict=True)) for row in lines[2:]}


@pytest.fixture
def direction(tmp_path: Path) -> Path:
    np.save(tmp_path / "direction.npy", np.arange(1.0, 9.0)[None])
    return tmp_path / "direction.npy"


def test_every_layout_has_its_row() -> None:
    assert list(documented()) == list(forks.LAYOUTS)


@pytest.mark.parametrize("fork", forks.LAYOUTS)
def test_the_table_says_what_happens(fork: str, tmp_path: Path, direction: Path) -> None:
    row = documented()[fork]
    path = forks.write(tmp_path / "x.pkl", fork)
    seen = run("inspect", path, "--json")
    assert (NO if seen.exit_code else json.loads(seen.output)["networks"]["G_ema"]["architecture"]) == row["inspect"]
    refused = ""
    try:
        network = load_network(path)
        assert row["redacted"] == ("all methods" if network.D is not None else "all methods but the adversarial ones; edit without a discriminator")
    except RedactError as error:
        refused = str(error)
        assert row["redacted"] == NO
    assert "\n" not in refused and bool(refused) == bool(row["otherwise"])
    assert row["otherwise"] in re.sub(r"[0-9a-f]{64}", "SHA256", refused), refused
    wide = np.arange(1.0, 17.0) if fork == "StyleGAN-T" else np.arange(1.0, 9.0)
    np.save(direction, wide)
    folded = run("fold", path, tmp_path / "y.pkl", f"--direction={direction}", "--target=0.25")
    assert (YES if folded.exit_code == 0 else NO) == row["fold"], folded.output
    assert not any(name.rpartition(".")[0] in sys.modules for name in forks._CLASSES), "a class was imported"


@pytest.mark.parametrize("fork", ["EG3D", "StyleGAN-XL", "StyleGAN-T", "R3GAN", "Projected GAN, fastgan"])
def test_all_is_written_back(fork: str, tmp_path: Path) -> None:
    """What is not known comes out as it went in: the same imports in the same order, and a second writing changes nothing."""
    path = forks.write(tmp_path / "x.pkl", fork)
    snapshot = read_snapshot(path)
    assert snapshot.opaque and all(pickle_trust.is_opaque(Global(*name.rsplit(".", 1))) for name in snapshot.opaque)
    key, name = "G_ema", next(iter(snapshot.modules["G_ema"].tensors))
    new = {key: {name: snapshot.modules[key].tensors[name] + 1}}
    write_snapshot(snapshot, tmp_path / "y.pkl", tensors=new, redaction={})
    written = read_snapshot(tmp_path / "y.pkl")
    assert written.opaque == snapshot.opaque and written.keys == (*snapshot.keys, "redaction")
    for module, record in snapshot.modules.items():
        for each, tensor in record.tensors.items():
            assert torch.equal(written.modules[module].tensors[each], tensor + 1 if (module, each) == (key, name) else tensor)
    write_snapshot(written, tmp_path / "z.pkl", tensors={}, redaction={})
    assert (tmp_path / "z.pkl").read_bytes() == (tmp_path / "y.pkl").read_bytes()


@functools.cache
def labelled(fork: str) -> tuple[bytes, Feature]:
    """A file of the fork, and a feature that was planted in it; once for all methods."""
    data = forks.dumps({"training_set_kwargs": None} | forks.LAYOUTS[fork]())
    network = load_network(read_snapshot(io.BytesIO(data)))
    return data, Attribute(tiny.FEATURE, tiny.Corners(network.G_ema)).gather(network, range(250), batch=250)


@pytest.mark.parametrize("fork", ["stylegan3-fun", "Projected GAN, stylegan2"])
@pytest.mark.parametrize("method", [name for name in plugins.names(methods) if not {"label", "codes"} & set(plugins.load(methods, name).needs)])
def test_every_method_where_the_table_says_so(fork: str, method: str, tmp_path: Path) -> None:
    data, known = labelled(fork)
    snapshot = read_snapshot(io.BytesIO(data))
    network = load_network(snapshot)
    names = {option.name for option in plugins.options(plugins.load(methods, method))}
    plugin = plugins.build(plugins.load(methods, method), {name: value for name, value in SHORT.items() if name in names})
    if network.D is None and isinstance(plugin, Adversarial):
        with pytest.raises(RedactError, match="the file's is not known here"):
            api.redact(network, known, plugin)
        return
    after = api.redact(network, known, plugin)
    save_network(after, tmp_path / "y.pkl", original=snapshot, record={"feature": tiny.FEATURE})
    written = read_snapshot(tmp_path / "y.pkl")
    assert written.opaque == snapshot.opaque and written.modules["G"].module_src == snapshot.modules["G"].module_src
    drawn = [tiny.images(net.G_ema, range(4)) for net in (network, after, load_network(written))]
    assert torch.equal(drawn[1], drawn[2]) and not torch.equal(drawn[0], drawn[1])


def test_the_command_tells_what_a_file_carries_and_lacks(tmp_path: Path) -> None:
    path = forks.write(tmp_path / "x.pkl", "Projected GAN, stylegan2")
    for name, size in (("detector", 8), ("judge", 9)):
        tiny_run.write_classifier(tmp_path / f"{name}.pt", load_network(path).G_ema, size)
    files = [f"--network={path}", f"--classifier={tmp_path / 'detector.pt'}", f"--judge={tmp_path / 'judge.pt'}"]
    budget = ["--num-latents=300", "--num-images=50", "--kimg=0.05", "--batch=16"]
    done = run(*files, "--feature=glow", *budget, f"--outdir={tmp_path / 'runs'}")
    assert done.exit_code == 0, done.output
    assert "carries objects of classes not known here" in done.output and "timm.models.efficientnet.EfficientNet" in done.output
    assert "The discriminator of this file is not known here" in done.output
    (written,) = (tmp_path / "runs").glob("*/network-redacted.pkl")
    record = read_snapshot(written).redaction
    assert record is not None and record["discriminator"].startswith("not known here")
    shown = run("inspect", path).output
    assert re.search(r"carried_unread: +pg_modules.discriminator.ProjectedDiscriminator, ", shown) and "which only names the class" in shown
    assert "its D, a pg_modules.discriminator.ProjectedDiscriminator, is not known" in run("convert", path, tmp_path / "y.pkl").output


class TestFoldWithoutDrawing:
    def test_it_is_the_fold_of_what_is_drawn(self, tmp_path: Path, direction: Path) -> None:
        """On a network that can be drawn: the folded one draws for w what the other draws for the moved w; nothing but its style layers changed."""
        path = forks.write(tmp_path / "x.pkl", "Projected GAN, stylegan2")
        told = _fold.fold(str(path), tmp_path / "y.pkl", direction, 0.5)
        assert told[0] == "Folded into 8 style layers of G, to 0.5 along the direction" and "Nothing was drawn, so nothing was measured" in told[-2]
        unit = torch.arange(1.0, 9.0).double() / torch.arange(1.0, 9.0).norm()
        edit = AffineEdit(torch.eye(8).double() - torch.outer(unit, unit), unit * 0.5)
        before, after = load_network(path), load_network(tmp_path / "y.pkl")
        for key in ("G", "G_ema"):
            old, new = getattr(before, key), getattr(after, key)
            w = sample_w(old, range(4))
            with torch.no_grad():
                torch.testing.assert_close(synthesize(new, w), synthesize(old, edit(w)), rtol=1e-4, atol=1e-4)
                assert (synthesize(new, w) - synthesize(old, w)).abs().max() > 0.01
        held, written = read_snapshot(path), read_snapshot(tmp_path / "y.pkl")
        for key, record in held.modules.items():
            changed = [name for name, tensor in record.tensors.items() if not torch.equal(tensor, written.modules[key].tensors[name])]
            assert all(".affine." in name for name in changed) and bool(changed) == (key != "D")
        assert written.redaction is not None and written.redaction["target"] == {"G": 0.5, "G_ema": 0.5}

    def test_the_pose_stays_and_the_default_is_the_mean(self, tmp_path: Path, direction: Path) -> None:
        path = forks.write(tmp_path / "x.pkl", "StyleGAN-XL")
        snapshot = read_snapshot(path)
        snapshot.modules["G"].tensors["mapping.w_avg"].fill_(2.0)
        told = _fold.fold(str(path), tmp_path / "y.pkl", direction)
        assert told[0].endswith("to 0 along the direction")
        written = read_snapshot(tmp_path / "y.pkl").modules["G"].tensors
        before = snapshot.modules["G"].tensors
        assert torch.equal(written["synthesis.input.affine.weight"], before["synthesis.input.affine.weight"])
        first = next(name for name in before if re.fullmatch(r"synthesis\.L0_.*\.affine\.weight", name))
        assert not torch.equal(written[first], before[first])
        unit = torch.arange(1.0, 9.0).double() / torch.arange(1.0, 9.0).norm()
        assert _fold._place(snapshot, "G", unit) == pytest.approx(2 * float(unit.sum()))

    @pytest.mark.parametrize(
        ("fork", "values", "says"),
        [
            ("R3GAN", np.ones(8), "without layers named affine"),
            ("EG3D", np.ones(9), "a mean w of shape [8] for a direction of 9 numbers"),
            ("StyleGAN-T", np.ones(16), "give --target"),
            ("EG3D", np.zeros(8), "zero or not finite"),
            ("EG3D", np.array([1, np.nan, 3]), "zero or not finite"),
            ("EG3D", np.ones([2, 8]), "an array of shape [2, 8]"),
            ("EG3D", np.array(["a", "b"]), "an array of shape [2]"),
            ("EG3D", np.array([{}], dtype=object), "cannot be read"),
        ],
    )
    def test_refusals(self, fork: str, values: Any, says: str, tmp_path: Path, direction: Path) -> None:
        path = forks.write(tmp_path / "x.pkl", fork)
        np.save(direction, values, allow_pickle=True)
        result = run("fold", path, tmp_path / "y.pkl", f"--direction={direction}")
        assert result.exit_code == 2 and says in result.output and not (tmp_path / "y.pkl").exists(), result.output

    @pytest.mark.parametrize("target", ["nan", "inf", "1e30"])
    def test_a_place_that_no_w_comes_near_is_refused(self, target: str, tmp_path: Path, direction: Path) -> None:
        path = forks.write(tmp_path / "x.pkl", "EG3D")
        result = run("fold", path, tmp_path / "y.pkl", f"--direction={direction}", f"--target={target}")
        assert result.exit_code == 2 and f"--target={float(target):g} was asked" in result.output and not (tmp_path / "y.pkl").exists()

    def test_a_layer_that_does_not_say_what_it_does_is_refused(self, tmp_path: Path, direction: Path) -> None:
        for affine in (forks.plain("networks.shared.Odd", weight=forks.parameter(6, 8), bias=forks.parameter(6)),
                       forks.plain("networks.shared.Odd", weight=forks.parameter(6, 8), bias=forks.parameter(6), weight_gain=1.0, bias_gain=1.0,
                                   activation="lrelu")):  # fmt: skip
            G = forks.plain("networks.generator.Generator", affine=affine)
            (tmp_path / "x.pkl").write_bytes(forks.dumps({"G": G, "D": G, "G_ema": G}))
            told = run("fold", tmp_path / "x.pkl", tmp_path / "y.pkl", f"--direction={direction}", "--target=0").output
            assert "it does not say that it is affine" in told and not (tmp_path / "y.pkl").exists()


class TestPolicy:
    """Which names may pass unread (pickle_trust)."""

    @pytest.mark.parametrize(
        "name",
        [
            "training.triplane.OSGDecoder",
            "training.volumetric_rendering.ray_marcher.MipRayMarcher2",
            "torch_utils.misc.InfiniteSampler",
            "R3GAN.Networks.Generator",
            "torch.nn.utils.spectral_norm.SpectralNorm",
            "timm.models.efficientnet.EfficientNet",
        ],
    )
    def test_classes_of_forks_pass(self, name: str) -> None:
        assert pickle_trust.is_opaque(Global(*name.rsplit(".", 1)))

    @pytest.mark.parametrize(
        ("module", "name"),
        [
            ("os", "PathLike"),
            ("subprocess", "Popen"),
            ("builtins", "Exception"),
            ("posix", "DirEntry"),
            ("training", "os.system"),
            ("training.loss", "Loss.run"),
            ("training.training_loop", "training_loop"),
            ("torch_utils.custom_ops", "get_plugin"),
            ("dnnlib.util", "open_url"),
            ("dnnlib.util", "call_func_by_name"),
            ("training.os", "system"),
            ("trainings.networks", "Generator"),
            ("torch.nn.utils", "ClipGrad"),
            ("torch.hub", "Path"),
            ("torch.nn.modules.module", "_Private"),
            ("torchvision.datasets", "ImageFolder"),
            ("timm", "Anything"),
            ("functools", "Partial"),
            ("__main__", "Generator"),
            ("training networks", "Generator"),
            ("training..networks", "Generator"),
        ],
    )
    def test_all_else_does_not(self, module: str, name: str) -> None:
        assert not pickle_trust.is_opaque(Global(module, name))

    @pytest.mark.parametrize("new", [False, True])
    @pytest.mark.parametrize("place", ["progress", "G"])
    def test_a_call_with_arguments_is_refused(self, place: str, new: bool) -> None:
        """Constructors open files and more: a class of a known package must not be made, by `cls(...)` or by `cls.__new__(cls, ...)`."""
        cls = type(forks.plain("training.log.Logger"))

        def data(value: Any) -> bytes:
            return forks.dumps(hostile.snapshot(**{place: hostile.generator(extra=value) if place == "G" else value}))

        assert read_snapshot(io.BytesIO(data(forks.plain("training.log.Logger")))).opaque == ("training.log.Logger",)
        assert read_snapshot(io.BytesIO(data(cls))).opaque == ("training.log.Logger",)
        called = data(hostile.Call(cls, "x.gz"))
        assert called.count(b"x.gz\x94\x85\x94R") == 1
        with pytest.raises(RedactError, match="training.log.Logger in an unusual way"):
            read_snapshot(io.BytesIO(called.replace(b"x.gz\x94\x85\x94R", b"x.gz\x94\x85\x94\x81") if new else called))

    def test_dangerous_names_are_refused_inside_a_fork_too(self, tmp_path: Path) -> None:
        marker = tmp_path / "ran"
        for payload in (hostile.Call(exec, f"open({str(marker)!r}, 'w').close()"), hostile.Call(getattr, hostile.Call(__import__, "os"), "system")):
            layout = forks.projected_gan()
            layout["D"].extra = payload
            with pytest.raises(RedactError, match="which no StyleGAN snapshot needs; nothing was run"):
                read_snapshot(io.BytesIO(forks.dumps(layout)))
        assert not marker.exists()
