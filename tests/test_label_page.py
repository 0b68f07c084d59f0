# SPDX-License-Identifier: Apache-2.0
"""The label page: the probe on planted features, clicks that survive a kill, a server that answers nobody else, the whole way in a browser."""

from __future__ import annotations

import errno
import http.client
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import browser
import pytest
import tiny_run
import torch

from stylegan_redact import api, probe
from stylegan_redact.features.labels import LabelsFile
from stylegan_redact.label_page.server import PageServer
from stylegan_redact.label_page.session import Session
from stylegan_redact.latents import LabelFile, load_labels, save_labels
from stylegan_redact.methods.fold import Fold
from stylegan_redact.network import load_network, sample_w, synthesize
from stylegan_redact.types import LabelledLatents, RedactError
from stylegan_redact.verbs import _label

pytestmark = pytest.mark.usefixtures("one_thread")
POOL = 120


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("label") / "tiny.pkl"
    tiny_run.write_network(path)
    return path


def bright(path: Path, seeds: range) -> list[bool]:
    """The truth: a quarter of the pictures has a bright corner."""
    G = load_network(path).G_ema
    with torch.no_grad():
        corner = synthesize(G, sample_w(G, seeds))[:, :, :8, :8].mean([1, 2, 3])
    return (corner > corner.quantile(0.75)).tolist()


@pytest.fixture
def served(network: Path, tmp_path: Path) -> Iterator[PageServer]:
    server = _label.open_page(network=str(network), feature="glow", out=tmp_path / "labels.npz", pool=POOL)
    yield from running(server)


def running(server: PageServer) -> Iterator[PageServer]:
    thread = threading.Thread(target=_label.serve, args=(server,), daemon=True)
    thread.start()
    yield server
    server.over = True
    thread.join(30)


def request(server: PageServer, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    own = {"Origin": f"http://127.0.0.1:{server.server_port}", "Content-Type": "application/json"} | {k: v for k, v in headers.items() if v}
    connection.request(method, path, None if method == "GET" else json.dumps(body), {k: v for k, v in own.items() if headers.get(k) != ""})
    answer = connection.getresponse()
    assert "default-src 'none'" in (answer.getheader("Content-Security-Policy") or "")
    return answer.status, answer.read()


def planted(n: int = 600, d: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    features = torch.randn(n, d, generator=torch.Generator().manual_seed(3), dtype=torch.float64) @ torch.diag(torch.logspace(-0.3, 0.3, d).double())
    white = probe.whiten(features)
    return white, white[:, 4] > 1  # One in six.


def test_whitened_features_have_the_identity_as_covariance() -> None:
    white, _ = planted()
    assert torch.allclose(white.T @ white / len(white), torch.eye(12, dtype=torch.float64), atol=0.6)
    assert torch.allclose(torch.linalg.eigvalsh(white.T @ white / len(white)).median(), torch.ones([]).double(), atol=0.4)


def test_the_probe_is_where_the_gradient_of_its_loss_is_zero() -> None:
    """Hand-worked: one number x = +-1, two labels of each kind by its sign, so the offset is 0 and ridge b = 4 sigmoid(-b)."""
    white = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)
    score = probe.fit(white, torch.arange(4), torch.tensor([True, True, False, False]))
    b = float(score[0])
    assert b > 0 and torch.allclose(score, white[:, 0] * b)
    assert abs(probe.RIDGE * b - 4 / (1 + torch.tensor(b).exp())) < 1e-6


def test_asking_beats_chance_on_a_rare_feature() -> None:
    white, truth = planted()
    found = {}
    for asks in (True, False):
        generator, rows = torch.Generator().manual_seed(0), torch.arange(24)
        while len(rows) < 96:
            labelled = torch.zeros(len(white), dtype=torch.bool)
            labelled[rows] = True
            score = probe.fit(white, rows, truth[rows]) if asks else None
            rows = torch.cat([rows, torch.tensor(probe.show_next(score, labelled, 24, generator))])
        assert len(set(rows.tolist())) == 96
        found[asks] = probe.balanced_accuracy(probe.fit(white, rows, truth[rows]) > 0, truth).value
    assert found[True] > max(found[False], 0.93)


def test_the_borderline_comes_first() -> None:
    score = torch.tensor([5.0, -0.1, 3.0, 0.2, -4.0, -6.0, -7.0, -8.0])
    shown = probe.show_next(score, torch.tensor([False] * 7 + [True]), 4, torch.Generator().manual_seed(0))
    assert shown[:2] == [1, 3] and 0 in shown and 7 not in shown


def test_cross_validation_does_not_see_the_label_and_has_an_interval() -> None:
    white, truth = planted()
    noise = torch.rand(200, generator=torch.Generator().manual_seed(1)) < 0.5
    rows = torch.arange(200)
    held_out = probe.cross_validated(white, rows, noise)
    assert held_out is not None
    estimate = probe.balanced_accuracy(held_out > 0, noise)
    assert estimate.low < 0.5 and estimate.value < 0.6 and estimate.high - estimate.low < 0.25
    good = probe.cross_validated(white, rows, truth[:200])
    assert good is not None and probe.balanced_accuracy(good > 0, truth[:200]).low > 0.7
    assert probe.cross_validated(white, rows[:4], torch.tensor([True, True, False, False])) is None
    half = probe.balanced_accuracy(torch.tensor([True, False, False, False]), torch.tensor([True, True, False, False]))
    assert half.value == 0.75 and half.n == 4


def test_it_says_when_more_clicks_change_little() -> None:
    white, truth = planted()
    assert not probe.settled(white, torch.arange(40), truth[:40], last=24)
    assert probe.settled(white, torch.arange(500), truth[:500], last=24)
    assert not probe.settled(white, torch.arange(100), torch.rand(100, generator=torch.Generator().manual_seed(2)) < 0.5, last=24)
    yes = torch.tensor([True, True, False, False])
    assert probe.kappa(yes, yes) == 1 and probe.kappa(yes, ~yes) == -1 and probe.kappa(yes, torch.tensor([True, False] * 2)) == 0


def test_clicks_survive_a_kill_and_undo_is_kept_too(tmp_path: Path) -> None:
    journal = tmp_path / "clicks"
    first = Session(journal, {"labels of": "beard"})
    first.label([(3, True), (4, False)])
    first.label([(3, None)])
    first.label([(5, True)])
    assert first.undo() == (5,) and first.labels == {4: False}
    with journal.open("ab") as file:
        file.write(b'{"label": [[9, tr')  # Killed while it wrote.
    again = Session(journal, {"labels of": "beard"})
    assert again.labels == {4: False}
    again.label([(6, True)])
    assert Session(journal, {"labels of": "beard"}).labels == {4: False, 6: True}
    again.undo(), again.undo()
    assert again.labels == {3: True, 4: False} and again.can_undo
    with pytest.raises(RedactError, match="about .*beard.*, these are about .*hat"):
        Session(journal, {"labels of": "hat"})
    journal.write_bytes(b"PK\x03\x04 \n")
    with pytest.raises(RedactError, match="no file of clicks"):
        Session(journal, {"labels of": "beard"})


def test_a_click_that_finds_no_space_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(tmp_path / "clicks", {"labels of": "beard"})
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
        with pytest.raises(RedactError, match="No space left"):
            session.label([(3, True)])
    assert session.labels == {}
    session.label([(4, True)])
    assert Session(tmp_path / "clicks", {"labels of": "beard"}).labels == {4: True}
    for out in (tmp_path, Path(".")):
        with pytest.raises(RedactError, match="that is a folder"):
            _label.open_page(network="none", feature="beard", out=out)


def test_labels_in_a_file_come_back_and_strange_files_are_refused(tmp_path: Path) -> None:
    latents = LabelledLatents(torch.randn(3, 4), torch.tensor([1.0, -1.0, 2.0]), torch.tensor([7, 8, 9]), c=torch.eye(3))
    save_labels(tmp_path / "a.npz", LabelFile("beard", latents, ("person", "probe", "probe"), "ab" * 32))
    found = load_labels(tmp_path / "a.npz")
    assert (found.feature, found.source, found.network_sha256) == ("beard", ("person", "probe", "probe"), "ab" * 32)
    assert all(torch.equal(getattr(found.latents, name), getattr(latents, name)) for name in ("w", "score", "seeds", "c"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    for name, content in {"missing": None, "text": b"hello", "cut": (tmp_path / "a.npz").read_bytes()[:200]}.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(RedactError, match="labels were expected in .* - .* - make one"):
            load_labels(tmp_path / name)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[6] |= 1  # Encrypted, say the headers of its first member.
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.npz").write_bytes(data)
    with pytest.raises(RedactError, match="cannot be read .*encrypted"):
        load_labels(tmp_path / "locked.npz")
    for wrong in (-5, 2**33):
        save_labels(tmp_path / "seeds.npz", LabelFile("beard", replace(latents, seeds=torch.tensor([0, 1, wrong])), found.source, ""))
        with pytest.raises(RedactError, match=f"seeds go from .*{wrong}"):
            load_labels(tmp_path / "seeds.npz")
    with pytest.raises(RedactError, match="have no seeds"):
        save_labels(tmp_path / "b.npz", LabelFile("beard", LabelledLatents(latents.w, latents.score), found.source, ""))


def test_the_server_answers_this_page_only(served: PageServer) -> None:
    root, port = f"/{served.token}/", served.server_port
    assert request(served, "GET", root)[0] == 200 and request(served, "GET", f"{root}page.js")[0] == 200
    assert served.server_address[0] == "127.0.0.1" and len(served.token) >= 32
    seed = served.desk.state()["cells"][0]["seed"]
    assert request(served, "GET", f"{root}small/{seed}")[1][:2] == b"\xff\xd8" and request(served, "GET", f"{root}large/{seed}")[1][:4] == b"\x89PNG"
    for path in ("/", "/state", f"/{served.token[:-1]}x/state", f"{root}../page.js", f"{root}small/{POOL}", f"{root}small/-1", f"{root}session.py"):
        assert request(served, "GET", path)[0] == 404, path
    for host in ("example.org", f"example.org:{port}", f"127.0.0.1.example.org:{port}", f"127.0.0.1:{port + 1}"):
        assert request(served, "GET", f"{root}state", Host=host)[0] == 403
    for origin in ("", "null", "http://example.org", f"http://127.0.0.1:{port + 1}", f"https://127.0.0.1:{port}"):
        assert request(served, "POST", f"{root}label", [[seed, True]], Origin=origin)[0] == 403
    wrong: list[Any] = [None, [], [[seed]], [[seed, 1]], [[str(seed), True]], [[True, True]], "x" * 70_000]
    for body in wrong:
        assert request(served, "POST", f"{root}label", body)[0] == 400
    assert request(served, "POST", f"{root}label", [[seed, True]], **{"Content-Type": "text/plain"})[0] == 400
    assert request(served, "POST", f"{root}turn", "elsewhere")[0] == 400 and request(served, "POST", f"{root}label", [[10**9, True]])[0] == 409
    assert served.desk.state()["yes"] == 0
    assert request(served, "POST", f"{root}label", [[seed, True]])[0] == 200 and served.desk.state()["yes"] == 1


def test_too_little_is_not_saved_and_another_network_is_refused(served: PageServer, network: Path, tmp_path: Path) -> None:
    status, text = request(served, "POST", f"/{served.token}/finish")
    assert status == 409 and b"0 yes among 0" in text and not served.over
    with pytest.raises(RedactError, match="these are about .*hat"):
        _label.open_page(network=str(network), feature="hat", out=tmp_path / "labels.npz", pool=POOL)
    with pytest.raises(RedactError, match="there is no such folder"):
        _label.open_page(network=str(network), feature="hat", out=tmp_path / "x" / "labels.npz", pool=POOL)
    G = load_network(network).G_ema
    latents = LabelledLatents(sample_w(G, range(40)), torch.linspace(-1, 1, 40), torch.arange(40))
    save_labels(tmp_path / "other.npz", LabelFile("glow", latents, ("person",) * 40, "0" * 64))
    with pytest.raises(RedactError, match="they are of the network 000000000000"):
        LabelsFile(str(tmp_path / "other.npz")).gather(load_network(network), [])


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium here: install the package chromium")
def test_no_button_moves_while_pages_turn(served: PageServer, tmp_path: Path) -> None:
    """Who aims at "Save and close" as a page turns must not press "Guesses are right"."""
    places = "JSON.stringify([...document.querySelectorAll('footer button')].map(b => b.getBoundingClientRect()))"
    page = browser.Browser(tmp_path / "profile")
    try:
        for width in (1200, 400):
            page.open(served.url, width, 900)
            page.until("state && document.querySelectorAll('.cell').length > 12")
            seen = {}
            for change in ("state.mode = 'label'", "state.mode = 'check'", "state.cells.forEach(c => c.label = true)"):
                seen[page.value(f"{change}, draw(), document.querySelector('#next').innerText.split('\\n')[0]")] = page.value(places)
            assert list(seen) == ["The rest do not, next", "Guesses are right, next", "Next page"] and len(set(seen.values())) == 1, seen
    finally:
        page.close()


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium here: install the package chromium")
def test_the_whole_way_in_a_browser(network: Path, tmp_path: Path) -> None:
    """Start, label with keys and the mouse, close, open again, check guesses, save; then a fold with the result."""
    truth, out = bright(network, range(POOL)), tmp_path / "labels.npz"
    shown = "document.querySelectorAll('.cell img').length && [...document.images].every(i => i.complete)"
    seeds = "[...document.querySelectorAll('.cell img')].map(i => +i.getAttribute('src').split('/')[1])"
    page = browser.Browser(tmp_path / "profile")
    try:
        first = running(_label.open_page(network=str(network), feature="glow", out=out, pool=POOL))
        server = next(first)
        page.open(server.url, 1200, 900)
        page.until(shown)
        before = page.value(seeds)
        for seed in before[:6]:
            page.press("y" if truth[seed] else "n")
        page.press("u")
        page.until(f"document.querySelector('#no').textContent == {6 - sum(truth[s] for s in before[:6]) - (not truth[before[5]])}")
        for index, seed in enumerate(before[5:], start=6):
            if truth[seed]:
                page.click(f".cell:nth-child({index})")
                page.until(f"document.querySelector('.cell:nth-child({index})').classList.contains('yes')")
        page.press("Enter")  # The rest do not.
        page.until(f"{shown} && document.querySelector('#yes').textContent == {sum(truth[s] for s in before)} && {seeds}[0] != {before[0]}")
        assert page.value("document.querySelector('#no').textContent") == str(sum(not truth[s] for s in before))
        assert next(first, None) is None  # The command ends.

        second = running(_label.open_page(network=str(network), feature="glow", out=out, pool=POOL))
        server = next(second)
        page.open(server.url, 1200, 900)
        page.until(f"{shown} && document.querySelector('#no').textContent == {sum(not truth[s] for s in before)}")
        assert not set(page.value(seeds)) & set(before) and server.desk.state()["accuracy"] is not None
        page.press(" ")
        page.until("document.querySelector('#zoom').open && document.querySelector('#zoom-img').naturalWidth == 16")
        page.press("Escape")
        page.until("!document.querySelector('#zoom').open")
        page.press("c")
        page.until("document.querySelectorAll('.guess-yes, .guess-no').length > 12")
        for index, seed in enumerate(page.value(seeds), start=1):
            kind = page.value(f"document.querySelector('.cell:nth-child({index})').className")
            if "guess" in kind and ("guess-yes" in kind) != truth[seed]:
                page.click(f".cell:nth-child({index})")
        page.until(f"document.querySelectorAll('.guess-yes, .guess-no, .yes, .no').length && {shown}")
        page.press("Enter")
        page.until("+document.querySelector('#yes').textContent + +document.querySelector('#no').textContent > 40")
        page.click("#finish")
        page.until("!document.querySelector('#over').hidden")
        assert next(second, None) is None
        assert page.value("performance.getEntriesByType('resource').every(e => e.name.startsWith(location.origin))")
    finally:
        page.close()
    found = load_labels(out)
    assert found.latents.seeds is not None and found.source.count("person") > 40
    said = [bool(score > 0) == truth[seed] for seed, score in zip(found.latents.seeds.tolist(), found.latents.score, strict=True)]
    assert all(right for right, source in zip(said, found.source, strict=True) if source == "person") and sum(said) > 0.85 * len(said)
    net = load_network(network)
    feature = LabelsFile(str(out)).gather(net, [])
    after = api.redact(net, feature, Fold(quantile=0.0))
    w = sample_w(net.G_ema, range(1000, 1200))
    with torch.no_grad():
        corners = [synthesize(G, w)[:, :, :8, :8].mean([1, 2, 3]) for G in (net.G_ema, after.G_ema)]
    limit = corners[0].quantile(0.75)
    assert float((corners[1] > limit).float().mean()) < 0.1
