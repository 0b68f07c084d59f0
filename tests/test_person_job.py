# SPDX-License-Identifier: Apache-2.0
"""The command for one person: what it leaves behind, what it tells, what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tiny_person
import tiny_run
import torch
from click.testing import CliRunner

from stylegan_redact import cli, person_requests
from stylegan_redact.inversion import Search
from stylegan_redact.network import load_network, sample_w
from stylegan_redact.pickles import read_snapshot
from stylegan_redact.pictures import to_grid

SMALL = ["--num-latents=300", "--num-images=60", "--kimg=0.064"]


class Embedder(torch.nn.Module):
    """Means of the quarters of a picture."""

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(img, 2).flatten(1)


class TooWide(torch.nn.Module):
    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.pkl, photos/ with three pictures of one person, embedder.pt and what is none."""
    folder = tmp_path_factory.mktemp("made")
    G = tiny_run.write_network(folder / "net.pkl")
    (folder / "photos").mkdir()
    ws = tiny_person.hidden(G)
    for index, lean in enumerate((0.0, 0.1, 0.2)):
        with torch.no_grad():
            img = G.synthesis(ws.lerp(sample_w(G, [50])[:, None], lean), noise_mode="const")
        to_grid(img, 1).save(folder / "photos" / f"{index}.png")
    tiny_run.save_torchscript(Embedder(), folder / "embedder.pt")
    tiny_run.save_torchscript(TooWide(), folder / "wide.pt")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(person_requests, "SEARCH", Search(steps=2))
    return tmp_path


def ran(*args: str) -> tuple[Path, str]:
    result = CliRunner().invoke(cli.command(), list(args))
    assert result.exit_code == 0, result.output
    return Path(result.output.strip().splitlines()[-1]).parent, result.output


def test_a_person_of_a_folder(made: Path) -> None:
    folder, output = ran(f"--network={made / 'net.pkl'}", f"--feature=person:{made / 'photos'}", "--access=w_plus", *SMALL)
    assert folder.name == "00000-redact-person-net-identity"
    assert {path.name for path in folder.iterdir()} >= {"network-redacted.pkl", "before.png", "after.png", "diff.png", "photos.png", "redaction.json"}
    record, options = (json.loads((folder / name).read_text()) for name in ("redaction.json", "options.json"))
    estimates = record["estimates"]
    assert estimates["refound/l1_before"]["n"] == 2 and estimates["held_out/l1_before"]["n"] == 1
    assert estimates["others/l1"]["n"] == 60 == estimates["w_plus_others/l1"]["n"] and estimates["person/similarity_after"]["n"] == 66
    assert options["photos"]["known"] == 2 and options["photos"]["held_out"] == 1 and len(options["photos"]["sha256"]) == 3
    assert options["similarity_by"] == "D" and record["judge"] == {"embedder": "the network's discriminator"}
    assert "Whoever has the original file still has the person" in output and record["all_targets_met"] is None
    for text in ((folder / name).read_text() for name in ("report.html", "README.md")):
        assert "--feature=person:PHOTOS" in text and str(made) not in text and "photos/" not in text
        assert "Whoever has the original file still has the person" in text and "likeness to the photographs" in text
    page = (folder / "report.html").read_text()
    assert "All are other people" in page and page.count('data-kinds="') == len(re.findall(r'data-kinds="(moved free|moved|free)"', page)) > 20
    assert record["pictures"]["person_and_neighbours"] > 0
    redaction = read_snapshot(folder / "network-redacted.pkl").redaction
    assert redaction["feature"] == "person" and redaction["method"] == "identity"
    told = json.dumps(redaction)
    assert "photos" not in told and not any(digest in told for digest in options["photos"]["sha256"])  # nothing of who it was
    before, after = load_network(made / "net.pkl"), load_network(folder / "network-redacted.pkl")
    for key in ("G", "G_ema"):
        assert not torch.equal(*(tiny_person.images(getattr(net, key), range(2)) for net in (before, after)))


def test_the_same_command_gives_the_same_bytes_and_an_embedder_measures(made: Path) -> None:
    args = [f"--network={made / 'net.pkl'}", f"--feature=person:{made / 'photos' / '0.png'}", *SMALL]
    (one, _), (again, _) = ran(*args), ran(*args, f"--judge={(made / 'embedder.pt').as_uri()}")
    assert (one / "network-redacted.pkl").read_bytes() == (again / "network-redacted.pkl").read_bytes()
    record, options = (json.loads((again / name).read_text()) for name in ("redaction.json", "options.json"))
    assert options["similarity_by"] == "embedder" and len(record["judge"]["embedder"]["torchscript_sha256"]) == 64
    figures = [json.loads((each / "redaction.json").read_text())["estimates"]["person/similarity_before"]["value"] for each in (one, again)]
    assert figures[0] != figures[1] and not any(key.startswith("held_out") for key in record["estimates"])


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--feature=person:none"], "there is no such folder or file"),
        (["--feature=person:."], "there are none"),
        (["--feature=person:broken.png"], "broken.png cannot be read"),
        (["--feature=person:0.png", "--method=edit"], "use --method=identity"),
        (["--feature=person:0.png", "--method=substitute_class"], "give --feature=class:N"),
        (["--feature=person:0.png", "--keep=hat"], "was asked with --keep"),
        (["--feature=person:0.png", "--classifier=x.pt"], "was asked with --classifier"),
        (["--feature=person:0.png", "--judge=wide.pt"], "finite numbers of each image"),
        (["--feature=person:0.png", "--target=beside"], "one of nearest, mirror, extrapolate"),
        (["--feature=person:0.png", "--class=1"], "has no classes"),
        (["--feature=beard", "--method=identity"], "give --feature=person:PHOTOS"),
    ],
)
def test_requests_that_make_no_sense_are_refused(made: Path, here: Path, args: list[str], told: str) -> None:
    (here / "broken.png").write_bytes(b"no picture")
    (here / "broken.png").rename(made / "broken.png")
    args = [each.replace("person:0", f"person:{made / 'photos' / '0'}").replace("=wide", f"={made / 'wide'}") for each in args]
    args = [each.replace("person:broken", f"person:{made / 'broken'}") for each in args]
    result = CliRunner().invoke(cli.command(), [f"--network={made / 'net.pkl'}", *SMALL[:2], *args])
    assert result.exit_code == 2 and told in " ".join(result.output.split()) and not Path("redact-runs").exists(), result.output


def test_a_dry_run_tells_how_long_it_takes(made: Path) -> None:
    result = CliRunner().invoke(cli.command(), [f"--network={made / 'net.pkl'}", f"--feature=person:{made / 'photos'}", "-n"])
    assert result.exit_code == 0 and "inverting" in result.output and "labelling" not in result.output.split("This will")[1], result.output
    assert person_requests.METHOD == "identity"
