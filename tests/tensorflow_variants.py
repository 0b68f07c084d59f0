# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2 as it was built in TensorFlow and as our classes are told the same: names and numbers from NVIDIA's documented options."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow_pickles
from tensorflow_pickles import Nets

# fmap_base counts from half the resolution: 2 * 256 / 32 = 16 channels at 32 pixels.
_SMALL_TF: dict[str, Any] = dict(fmap_base=256, fmap_max=32)
_SMALL: dict[str, Any] = dict(channel_base=512, channel_max=32)
_PLAIN: dict[str, Any] = dict(num_fp16_res=0, conv_clamp=None)
_LATENTS: dict[str, Any] = dict(latent_size=32, dlatent_size=32)
_NO_GROUPS: dict[str, Any] = dict(epilogue_kwargs=dict(mbstd_group_size=None))
_FILTER = [1, 4, 6, 4, 1]


@dataclass(frozen=True)
class Variant:
    """A network in both languages."""

    version: int
    tf_G: dict[str, Any]
    tf_D: dict[str, Any]
    our_G: dict[str, Any] = field(default_factory=dict)
    our_D: dict[str, Any] = field(default_factory=dict)
    resolution: int = 32

    def networks(self, seed: int = 0) -> Nets:
        """As our classes build them."""
        G = {**_SMALL, **_PLAIN, "mapping_kwargs": {"w_avg_beta": 0.995}, **self.our_G}
        return tensorflow_pickles.tiny_networks(self.resolution, G, {**_SMALL, **_PLAIN, **_NO_GROUPS, **self.our_D}, seed=seed)

    def kwargs(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What TensorFlow was told of G and of D."""
        common = {"resolution": self.resolution, **_SMALL_TF}
        return {**common, **_LATENTS, **self.tf_G}, {**common, **self.tf_D}

    def write(self, path: Path, nets: Nets) -> Path:
        """The networks as a pickle of TensorFlow."""
        G, D = self.kwargs()
        return tensorflow_pickles.write(path, nets, version=self.version, G=G, D=D)


VARIANTS: dict[str, Variant] = {
    "defaults": Variant(4, dict(truncation_psi=0.7, style_mixing_prob=None), dict(structure="fixed")),
    **{architecture: Variant(version, *[dict(architecture=architecture)] * 4) for version, architecture in ((4, "skip"), (4, "orig"), (5, "resnet"))},
    "conditional": Variant(
        5, dict(label_size=3, num_channels=3), dict(label_size=3), dict(c_dim=3), dict(mapping_kwargs=dict(num_layers=0, lr_multiplier=0.1))
    ),
    "odd": Variant(
        5,
        dict(
            label_size=3,
            num_channels=1,
            architecture="resnet",
            resample_kernel=_FILTER,
            use_noise=False,
            nonlinearity="swish",
            mapping_layers=3,
            label_fmaps=5,
            mapping_fmaps=24,
            mapping_nonlinearity="relu",
            mapping_lrmul=0.1,
            w_avg_beta=None,
            num_fp16_res=2,
            conv_clamp=4,
        ),
        dict(
            label_size=3,
            num_channels=1,
            architecture="skip",
            nonlinearity="relu",
            resample_kernel=_FILTER,
            mapping_fmaps=7,
            mapping_layers=2,
            mapping_lrmul=0.2,
            mbstd_group_size=2,
            mbstd_num_features=2,
            freeze_layers=3,
            num_fp16_res=3,
            conv_clamp=2,
        ),
        dict(
            c_dim=3,
            img_channels=1,
            architecture="resnet",
            resample_filter=_FILTER,
            use_noise=False,
            activation="swish",
            mapping_kwargs=dict(num_layers=3, embed_features=5, layer_features=24, activation="relu", lr_multiplier=0.1, w_avg_beta=1),
            num_fp16_res=2,
            conv_clamp=4,
        ),
        dict(
            architecture="skip",
            cmap_dim=7,
            block_kwargs=dict(activation="relu", resample_filter=_FILTER, freeze_layers=3),
            mapping_kwargs=dict(num_layers=2, embed_features=7, layer_features=7, activation="relu", lr_multiplier=0.2),
            epilogue_kwargs=dict(activation="relu", mbstd_group_size=2, mbstd_num_channels=2),
            num_fp16_res=3,
            conv_clamp=2,
        ),
    ),
}
