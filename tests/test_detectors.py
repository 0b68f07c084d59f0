# SPDX-License-Identifier: Apache-2.0
"""TorchScript files of several logits: their names are in the file, and hold."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_run
import torch

from stylegan_redact import job
from stylegan_redact.detectors import NAMES_FILE, Classifier, load_torchscript, save_torchscript
from stylegan_redact.types import RedactError

SHAPE = (3, 16, 16)


class Means(torch.nn.Module):
    """A logit for each of the three channels."""

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img.mean([2, 3])


def with_names(path: Path, text: str) -> Path:
    """A file whose names are this text."""
    with pytest.warns(DeprecationWarning) if torch.__version__ >= "2.13" else pytest.MonkeyPatch.context():
        torch.jit.save(torch.jit.script(Means()), str(path), _extra_files={NAMES_FILE: text})
    return path


def test_each_logit_has_the_name_that_the_file_gives_it(tmp_path: Path) -> None:
    save_torchscript(Means(), tmp_path / "three.pt", ["red", "green_hue", "blue"])
    detector = load_torchscript(tmp_path / "three.pt", "green-hue", SHAPE)
    assert detector.attributes == ("red", "green-hue", "blue")  # Spelt as asked, so that two files that spell it otherwise agree.
    assert detector.differentiable
    img = torch.zeros(2, *SHAPE)
    img[1, 1] = 1
    torch.testing.assert_close(detector.logits(img), torch.tensor([[0.0, 0, 0], [0, 1, 0]]))


class Shares(torch.nn.Module):
    """What softmax gives of them."""

    def __init__(self, log: bool) -> None:
        super().__init__()
        self.log = log

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        logits = img.mean([2, 3])
        return logits.log_softmax(1) if self.log else logits.softmax(1)


@pytest.mark.parametrize(("log", "told"), [(True, "log-probabilities"), (False, "probabilities")])
def test_what_softmax_gives_is_no_logit(log: bool, told: str, tmp_path: Path) -> None:
    """None of it would be above 0, or all: the generator would be told to show the feature hardly ever, or always."""
    save_torchscript(Shares(log), tmp_path / "shares.pt", ["zero", "one", "two"])
    with pytest.raises(RedactError, match=rf"two images gave {told} that add up to one, and a logit above 0 has to say .* - give log"):
        load_torchscript(tmp_path / "shares.pt", "one", SHAPE)


def test_images_on_another_device_are_refused_with_both() -> None:
    detector = Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 1, device="meta")), ("glow",))
    with pytest.raises(RedactError, match="images on cpu were shown to the classifier of glow - it is on meta - load it with device='cpu'"):
        detector.logits(torch.zeros(2, *SHAPE))


def test_a_file_without_names_is_of_the_feature_alone(tmp_path: Path) -> None:
    tiny_run.save_torchscript(tiny_run.BrightRegion(8, 0.0), tmp_path / "one.pt")
    assert load_torchscript(tmp_path / "one.pt", "beard", SHAPE).attributes == ("beard",)
    tiny_run.save_torchscript(Means(), tmp_path / "nameless.pt")
    with pytest.raises(RedactError, match=r"two images gave shape \[2, 3\] - it must give one finite logit"):
        load_torchscript(tmp_path / "nameless.pt", "beard", SHAPE)


def test_a_feature_that_the_file_does_not_name_is_refused_with_those_that_it_does(tmp_path: Path) -> None:
    save_torchscript(Means(), tmp_path / "three.pt", ["red", "green", "blue"])
    with pytest.raises(RedactError, match=r"'beard' was asked - the classifier .*three.pt knows: red, green, blue - take"):
        load_torchscript(tmp_path / "three.pt", "beard", SHAPE)


def test_as_many_names_as_logits(tmp_path: Path) -> None:
    save_torchscript(Means(), tmp_path / "two.pt", ["red", "green"])
    with pytest.raises(RedactError, match=r"finite logits \[n, 2\], as it names so many"):
        load_torchscript(tmp_path / "two.pt", "red", SHAPE)


@pytest.mark.parametrize("text", ["{", '{"red": 0}', "[]", "[1, 2, 3]", '["red", "red", "blue"]', '["grey-hair", "grey_hair", "red"]'])
def test_names_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RedactError, match="no list of different names"):
        load_torchscript(with_names(tmp_path / "odd.pt", text), "red", SHAPE)


def test_the_main_job_knows_all_attributes_of_both_files(tmp_path: Path) -> None:
    tiny_run.write_network(tmp_path / "tiny.pkl")
    save_torchscript(Means(), tmp_path / "detector.pt", ["red", "grey_hue", "blue"])
    save_torchscript(
        Means().train(),
        tmp_path / "judge.pt",
        [
            "red",
            "grey-hue",
            "blue",
        ],
    )
    files = dict(classifier=str(tmp_path / "detector.pt"), judge=str(tmp_path / "judge.pt"))
    plan = job.prepare(job.Request(str(tmp_path / "tiny.pkl"), "grey hue", keep=("blue",), num_latents=10, num_images=10, **files))
    assert plan.detector.attributes == plan.judge.attributes == ("red", "grey hue", "blue")
    assert plan.keep == ("blue",)


class Lost(torch.nn.Module):
    """Answers whose gradient is lost on the way."""

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return (img.mean([1, 2, 3]) > 0).float() - 0.5


@pytest.mark.parametrize("method", ["edit", "redact_classifier"])
def test_what_needs_gradients_refuses_before_anything_is_labelled(tmp_path, method) -> None:
    G_ema = tiny_run.write_network(tmp_path / "tiny.pkl")
    tiny_run.save_torchscript(Lost(), tmp_path / "detector.pt")
    tiny_run.write_classifier(tmp_path / "judge.pt", G_ema, 9)
    files = {name: str(tmp_path / f"{name}.pt") for name in ("detector", "judge")}
    request = job.Request(
        network=str(tmp_path / "tiny.pkl"), feature="glow", method=method, classifier=files["detector"], judge=files["judge"], device="cpu"
    )
    with pytest.raises(RedactError, match=f"by {method} - its detector gives no gradients"):
        job.prepare(request)
    assert job.prepare(replace(request, method="fold")).feature == "glow"


class Gives(torch.nn.Module):
    """As many outputs as it is told, all of one value."""

    def __init__(self, columns: int, value: float) -> None:
        super().__init__()
        self.columns, self.value = columns, value

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        assert img.shape[1] == 3, "three channels"
        return torch.full([len(img), self.columns], self.value)


@pytest.mark.parametrize(
    ("columns", "value", "channels", "says"),
    [
        (2, 1.0, 3, r"gave shape \[2, 2\].*; or say in a JSON file beside it"),
        (1, math.nan, 3, "of two images' logits 2 are infinite or nan"),
        (1, 1.0, 1, r"\[n, 1, 4, 4\].*train it on such images, or say in a JSON file beside it"),
    ],
)
def test_a_refused_file_is_told_what_is_wrong_and_what_to_do(tmp_path, columns, value, channels, says) -> None:
    tiny_run.save_torchscript(Gives(columns, value), tmp_path / "odd.pt")
    with pytest.raises(RedactError, match=says):
        load_torchscript(tmp_path / "odd.pt", "beard", (channels, 4, 4))


class Unrepeatable(torch.nn.Module):
    """A bright corner's logit, spoilt in one of the ways that files in the wild are."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        if self.how == "dropout":
            img = torch.nn.functional.dropout(img, 0.5, training=True)
        if self.how == "batch":
            img = torch.nn.functional.batch_norm(img, None, None, training=True)
        if self.how == "counts":
            self.seen += 1
        if self.how == "in place":
            img.mul_(0.5).add_(0.5)
        logit = 20 * img[:, :, :8, :8].mean([1, 2, 3])
        return torch.complex(logit, logit) if self.how == "complex" else logit


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("dropout", "it gives the same image another logit the second time .* - export it in eval mode"),
        ("batch", "it gives the same image another logit with another one beside it .* - export it in eval mode"),
        ("counts", "it changes seen while it answers - export it in eval mode"),
        ("in place", r"it writes into the images that it is given, .* instead of img.mul_\(0.5\)"),
        ("complex", "two images gave complex numbers"),
    ],
)
def test_a_logit_is_of_its_image_alone(how: str, told: str, tmp_path: Path) -> None:
    """Of these a rate would be another one each time, or with another --batch-gpu, or that of other pictures."""
    tiny_run.save_torchscript(Unrepeatable(how), tmp_path / "spoilt.pt")
    with pytest.raises(RedactError, match=told):
        load_torchscript(tmp_path / "spoilt.pt", "glow", SHAPE)


def test_answers_that_are_true_or_false_are_logits_of_one_and_zero(tmp_path: Path) -> None:
    class Verdict(torch.nn.Module):
        def forward(self, img: torch.Tensor) -> torch.Tensor:
            return img.mean([1, 2, 3]) > 0

    tiny_run.save_torchscript(Verdict(), tmp_path / "verdict.pt")
    assert load_torchscript(tmp_path / "verdict.pt", "glow", SHAPE).logits(torch.ones(2, *SHAPE)).flatten().tolist() == [1, 1]


class Undecided(torch.nn.Module):
    """No answer about images whose first pixel is white."""

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        logit = img.mean([1, 2, 3])
        return torch.where(img[:, 0, 0, 0] == 1, torch.full_like(logit, math.nan), logit)


def test_an_image_without_an_answer_is_laid_to_the_classifier_not_counted_as_free_of_the_feature(tmp_path: Path) -> None:
    tiny_run.save_torchscript(Undecided(), tmp_path / "undecided.pt")
    detector = load_torchscript(tmp_path / "undecided.pt", "glow", SHAPE)
    img = torch.zeros(3, *SHAPE)
    img[1] = 1
    with (
        torch.no_grad(),
        pytest.raises(RedactError, match="3 images were shown to the classifier of glow - of 1 its logits are infinite or nan, though"),
    ):
        detector.logits(img)
    with torch.no_grad():  # What is broken here is the image, which whoever drew it tells.
        assert detector.logits(img.masked_fill(img == 1, math.nan))[:, 0].isnan().tolist() == [False, True, False]


def test_numbers_that_want_gradients_are_no_reason_to_warn(tmp_path: Path) -> None:
    """TorchScript may say that gradients are wanted where none are; torch warns who makes a number of that."""

    class Learned(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2))

        def forward(self, img: torch.Tensor) -> torch.Tensor:
            return torch.stack([img.mean([1, 2, 3]), img.amax([1, 2, 3])], 1) * self.weight

    save_torchscript(Learned(), tmp_path / "learned.pt", ["mean", "most"])
    assert load_torchscript(tmp_path / "learned.pt", "most", SHAPE).differentiable
