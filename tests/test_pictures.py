# SPDX-License-Identifier: Apache-2.0
"""Which seeds are shown, where they stand, and what a pixel says."""

import numpy as np
import pytest
import tiny_run
import torch
from PIL import Image

from stylegan_redact import pictures
from stylegan_redact.network import sample_w, synthesize
from stylegan_redact.types import LabelledLatents, Network, RedactError


def latents(scores, first_seed=100):
    score = torch.tensor(scores)
    return LabelledLatents(torch.zeros([len(score), 2]), score, torch.arange(len(score)) + first_seed)


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_half_of_the_seeds_showed_the_feature():
    layout = pictures.choose(latents([1.0, -1.0, -2.0, 3.0] * 100), img_resolution=64)
    assert layout.columns == 12
    assert layout.with_feature[:4] == (100, 103, 104, 107) and layout.without_feature[:4] == (101, 102, 105, 106)
    assert len(layout.with_feature) == len(layout.without_feature) == 36
    assert layout.seeds == layout.with_feature + layout.without_feature


@pytest.mark.parametrize(("resolution", "columns", "rows_each"), [(64, 12, 3), (256, 8, 2), (512, 4, 1), (1024, 4, 1)])
def test_large_images_make_smaller_grids(resolution, columns, rows_each):
    layout = pictures.choose(latents([1.0, -1.0] * 100), resolution)
    assert (layout.columns, len(layout.with_feature)) == (columns, columns * rows_each)


@pytest.mark.parametrize("found", [1, 5, 12, 13, 30])
def test_few_examples_make_full_rows_of_each_kind(found):
    layout = pictures.choose(latents([1.0] * found + [-1.0] * 200), 64)
    assert 0 < len(layout.with_feature) == len(layout.without_feature) <= found
    assert len(layout.with_feature) % layout.columns == 0


def test_a_score_of_zero_does_not_show():
    assert pictures.choose(latents([0.0, 1.0]), 64).without_feature == (100,)


@pytest.mark.parametrize("scores", [[1.0, 2.0], [-1.0, 0.0]])
def test_latents_of_one_kind_are_refused(scores):
    with pytest.raises(RedactError, match="label more seeds"):
        pictures.choose(latents(scores), 64)


def test_latents_without_seeds_are_refused():
    with pytest.raises(RedactError, match="have no seeds"):
        pictures.choose(LabelledLatents(torch.zeros([2, 2]), torch.tensor([1.0, -1.0])), 64)


def test_images_stand_in_reading_order():
    img = torch.full([6, 3, 4, 5], -1.0)
    for index in range(6):
        img[index, 1] = -1 + (index * 10 + 0.5) / 127.5
    array = np.asarray(pictures.to_grid(img, columns=3))
    assert array.shape == (8, 15, 3)
    for index in range(6):
        row, column = divmod(index, 3)
        assert (array[row * 4 : row * 4 + 4, column * 5 : column * 5 + 5] == [0, index * 10 + 1, 0]).all()


def test_pixels_are_made_as_nvidia_makes_them():
    img = torch.tensor([-2.0, -1.0, 0.0, 0.5, 0.9999, 1.0, 3.0]).reshape(1, 1, 1, 7)
    # floor(x * 127.5 + 128) within 0...255, worked by hand
    assert np.asarray(pictures.to_grid(img, 1)).tolist() == [[0, 0, 128, 191, 255, 255, 255]]


@pytest.mark.parametrize(("channels", "shape"), [(1, (4, 4)), (2, (4, 4)), (3, (4, 4, 3)), (4, (4, 4, 3))])
def test_every_number_of_channels_is_shown(channels, shape):
    assert np.asarray(pictures.to_grid(torch.zeros([1, channels, 4, 4]), 1)).shape == shape


def test_the_difference_is_amplified_and_black_where_there_is_none(tmp_path):
    before = torch.zeros([1, 1, 1, 4])
    after = torch.tensor([0.0, 0.1, -0.1, 0.9]).reshape(1, 1, 1, 4)
    pictures.save(before, after, 1, tmp_path)
    assert pictures.AMPLIFIED == 4
    assert pixels(tmp_path / "diff.png").tolist() == [[0, 51, 51, 255]]  # 0.1 * 4 * 127.5 = 51
    assert pixels(tmp_path / "before.png").tolist() == [[128, 128, 128, 128]]
    assert pixels(tmp_path / "after.png").tolist() == [[128, 140, 115, 242]]
    assert {path.name for path in tmp_path.iterdir()} == {"before.png", "after.png", "diff.png"}


def test_seeds_are_drawn_by_g_ema_without_truncation():
    G, other, D = tiny_run.generator(), tiny_run.generator(seed=1), torch.nn.Identity()
    before, after = Network(other, D, G), Network(G, D, other)
    images = pictures.draw(before, after, (3, 85, 7), batch=2)
    for net, img in zip((G, other), images, strict=True):
        assert torch.allclose(img, synthesize(net, sample_w(net, (3, 85, 7))), atol=1e-6)
