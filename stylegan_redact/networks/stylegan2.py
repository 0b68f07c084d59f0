# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2 generator and discriminator, written from the paper and from the documented behaviour of its implementations.

Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", arXiv 1912.04958.

Names of classes, tensors, arguments and attributes are those that StyleGAN tools expect, so that a state dict moves between
implementations unchanged. Defaults are those of the networks in NVIDIA's stylegan3 repository; `networks/build.py` supplies the
older ones for pickles of stylegan2-ada-pytorch.

This file is embedded as text in the pickles that we write and is then executed by other people's tools. So it stands alone: it
imports only what every StyleGAN code base offers, and keeps to Python 3.7 and torch 1.7. That is also why it is one file.
"""

import math

import torch

from torch_utils import misc, persistence
from torch_utils.ops import bias_act, conv2d_resample, fma, upfirdn2d

SQRT_HALF = math.sqrt(0.5)


def normalize_second_moment(x, dim=1, eps=1e-8):
    """x / sqrt(mean(x^2) + eps) along `dim`."""
    return x * (x.square().mean(dim=dim, keepdim=True) + eps).rsqrt()


def act_gain(activation):
    """Gain that keeps the variance through an activation."""
    return float(bias_act.activation_funcs[activation].def_gain)


def use_half(x, wanted, force_fp32):
    """float16 only where it pays: on a GPU. Elsewhere it is slow and inexact."""
    return torch.float16 if wanted and not force_fp32 and x.device.type == "cuda" else torch.float32


def modulated_conv2d(x, weight, styles, noise=None, up=1, padding=0, resample_filter=None, demodulate=True, fused=True):
    """Convolution whose weights are scaled per sample by a style, and normalised per output channel.

    x [n, i, h, w], weight [o, i, kh, kw], styles [n, i], noise broadcastable to the output -> [n, o, h * up, w * up].
    Source: section 2.2, equations 1 and 3. The two forms differ only in rounding: `fused` builds one weight per sample.
    """
    n = x.shape[0]
    o, i, kh, kw = weight.shape
    misc.assert_shape(styles, [n, i])
    if x.dtype == torch.float16 and demodulate:  # Keep intermediate values within float16; demodulation cancels both scales.
        weight = weight / (weight.abs().amax(dim=[1, 2, 3], keepdim=True) * math.sqrt(i * kh * kw))
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    norm = None
    if demodulate:
        norm = (styles.square() @ weight.square().sum(dim=[2, 3]).t() + 1e-8).rsqrt()  # [n, o]
    if x.device.type == "cpu" and kh == kw == up == 1 and padding == 0 and norm is None:  # A matrix for each sample, and images are read once.
        y = (weight.reshape(1, o, i) * styles.reshape(n, 1, i)).matmul(x.reshape(n, i, -1)).reshape(n, o, x.shape[2], x.shape[3])
        return y if noise is None else y + noise
    if x.device.type == "cpu" and (n > 1 or x.shape[2] * x.shape[3] <= o * kh * kw):
        fused = False  # Grouped convolutions are slow there, and so is making one weight of another where it is larger than the image.
    flip = up == 1  # By convention, weights of up-sampling layers are stored flipped.
    if not fused:
        x = x * styles.to(x.dtype).reshape(n, i, 1, 1)
        x = conv2d_resample.conv2d_resample(x, weight.to(x.dtype), f=resample_filter, up=up, padding=padding, flip_weight=flip)
        if norm is not None and noise is not None:
            return fma.fma(x, norm.to(x.dtype).reshape(n, o, 1, 1), noise.to(x.dtype))
        if norm is not None:
            x = x * norm.to(x.dtype).reshape(n, o, 1, 1)
        return x if noise is None else x + noise.to(x.dtype)
    w = weight.unsqueeze(0) * styles.reshape(n, 1, i, 1, 1)
    if norm is not None:
        w = w * norm.reshape(n, o, 1, 1, 1)
    x = x.reshape(1, n * i, x.shape[2], x.shape[3])
    w = w.reshape(n * o, i, kh, kw).to(x.dtype)
    x = conv2d_resample.conv2d_resample(x, w, f=resample_filter, up=up, padding=padding, groups=n, flip_weight=flip)
    x = x.reshape(n, o, x.shape[2], x.shape[3])
    return x if noise is None else x + noise.to(x.dtype)


@persistence.persistent_class
class FullyConnectedLayer(torch.nn.Module):
    """y = act(x W^T + b), with weights stored at unit variance and scaled when used (equalised learning rate)."""

    def __init__(self, in_features, out_features, bias=True, activation="linear", lr_multiplier=1, bias_init=0):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.activation = activation
        self.weight = torch.nn.Parameter(torch.randn([out_features, in_features]) / lr_multiplier)
        self.bias = torch.nn.Parameter(torch.full([out_features], float(bias_init))) if bias else None
        self.weight_gain = float(lr_multiplier) / math.sqrt(in_features)
        self.bias_gain = float(lr_multiplier)

    def forward(self, x):
        if self.activation == "linear" and self.bias is not None:
            return torch.addmm(self.bias.to(x.dtype), x, self.weight.to(x.dtype).t(), beta=self.bias_gain, alpha=self.weight_gain)
        w = self.weight.to(x.dtype) * self.weight_gain
        b = None if self.bias is None else self.bias.to(x.dtype) * self.bias_gain
        return bias_act.bias_act(x.matmul(w.t()), b, act=self.activation)


@persistence.persistent_class
class Conv2dLayer(torch.nn.Module):
    """Convolution with bias, activation, clamp and optional resampling by 2."""

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        bias=True,
        activation="linear",
        up=1,
        down=1,
        resample_filter=(1, 3, 3, 1),
        conv_clamp=None,
        channels_last=False,
        trainable=True,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.activation = activation
        self.up = up
        self.down = down
        self.conv_clamp = conv_clamp
        self.padding = kernel_size // 2
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.act_gain = act_gain(activation)
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(list(resample_filter)))
        layout = torch.channels_last if channels_last else torch.contiguous_format
        weight = torch.randn([out_channels, in_channels, kernel_size, kernel_size]).to(memory_format=layout)
        offset = torch.zeros([out_channels]) if bias else None
        if trainable:
            self.weight = torch.nn.Parameter(weight)
            self.bias = torch.nn.Parameter(offset) if bias else None
        else:  # Frozen layers keep their names but are no parameters (FreezeD).
            self.register_buffer("weight", weight)
            self.register_buffer("bias", offset)

    def forward(self, x, gain=1):
        w = (self.weight * self.weight_gain).to(x.dtype)
        b = None if self.bias is None else self.bias.to(x.dtype)
        x = conv2d_resample.conv2d_resample(x, w, f=self.resample_filter, up=self.up, down=self.down, padding=self.padding, flip_weight=self.up == 1)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act.bias_act(x, b, act=self.activation, gain=self.act_gain * gain, clamp=clamp)


@persistence.persistent_class
class MappingNetwork(torch.nn.Module):
    """z [n, z_dim] and c [n, c_dim] -> ws [n, num_ws, w_dim] (or [n, w_dim] if num_ws is None)."""

    def __init__(
        self,
        z_dim,
        c_dim,
        w_dim,
        num_ws,
        num_layers=8,
        embed_features=None,
        layer_features=None,
        activation="lrelu",
        lr_multiplier=0.01,
        w_avg_beta=0.998,
    ):
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.num_ws = num_ws
        self.num_layers = num_layers
        self.w_avg_beta = w_avg_beta
        embed_features = (w_dim if embed_features is None else embed_features) if c_dim > 0 else 0
        layer_features = w_dim if layer_features is None else layer_features
        sizes = [z_dim + embed_features] + [layer_features] * (num_layers - 1) + [w_dim]
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, embed_features)
        for index in range(num_layers):
            layer = FullyConnectedLayer(sizes[index], sizes[index + 1], activation=activation, lr_multiplier=lr_multiplier)
            setattr(self, "fc%d" % index, layer)
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros([w_dim]))

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False):
        x = None
        if self.z_dim > 0:
            misc.assert_shape(z, [None, self.z_dim])
            x = normalize_second_moment(z.to(torch.float32))
        if self.c_dim > 0:
            misc.assert_shape(c, [None, self.c_dim])
            y = normalize_second_moment(self.embed(c.to(torch.float32)))
            x = y if x is None else torch.cat([x, y], dim=1)
        for index in range(self.num_layers):
            x = getattr(self, "fc%d" % index)(x)
        if update_emas and self.w_avg_beta is not None:
            self.w_avg.copy_(x.detach().mean(dim=0).lerp(self.w_avg, self.w_avg_beta))
        if self.num_ws is not None:
            x = x.unsqueeze(1).repeat([1, self.num_ws, 1])  # [n, num_ws, w_dim]
        if truncation_psi != 1:
            assert self.w_avg_beta is not None
            rows = self.num_ws if self.num_ws is None or truncation_cutoff is None else truncation_cutoff
            if rows is None:
                x = self.w_avg.lerp(x, truncation_psi)
            else:
                x = torch.cat([self.w_avg.lerp(x[:, :rows], truncation_psi), x[:, rows:]], dim=1)
        return x


@persistence.persistent_class
class SynthesisLayer(torch.nn.Module):
    """Modulated 3x3 convolution, noise, bias, activation."""

    def __init__(
        self,
        in_channels,
        out_channels,
        w_dim,
        resolution,
        kernel_size=3,
        up=1,
        use_noise=True,
        activation="lrelu",
        resample_filter=(1, 3, 3, 1),
        conv_clamp=None,
        channels_last=False,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.w_dim = w_dim
        self.resolution = resolution
        self.up = up
        self.use_noise = use_noise
        self.activation = activation
        self.conv_clamp = conv_clamp
        self.padding = kernel_size // 2
        self.act_gain = act_gain(activation)
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(list(resample_filter)))
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.weight = torch.nn.Parameter(torch.randn([out_channels, in_channels, kernel_size, kernel_size]).to(memory_format=layout))
        if use_noise:
            self.register_buffer("noise_const", torch.randn([resolution, resolution]))
            self.noise_strength = torch.nn.Parameter(torch.zeros([]))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))

    def forward(self, x, w, noise_mode="random", fused_modconv=True, gain=1):
        assert noise_mode in ["random", "const", "none"]
        noise = None
        if self.use_noise and noise_mode == "random":
            noise = torch.randn([x.shape[0], 1, self.resolution, self.resolution], device=x.device) * self.noise_strength
        if self.use_noise and noise_mode == "const":
            noise = self.noise_const * self.noise_strength
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        bend = dict(act=self.activation, gain=self.act_gain * gain, clamp=clamp)

        def steps(x, weight, styles, noise, bias):
            x = modulated_conv2d(x, weight, styles, noise, self.up, self.padding, self.resample_filter, demodulate=True, fused=fused_modconv)
            return bias_act.bias_act(x, bias.to(x.dtype), **bend)

        joined = getattr(conv2d_resample, "modulated_layer", None)  # Only stylegan-redact has it.
        if joined is None:
            return steps(x, self.weight, self.affine(w), noise, self.bias)
        return joined(
            steps, x, self.weight, self.affine(w), noise, self.bias, up=self.up, resample_filter=self.resample_filter, padding=self.padding, **bend
        )


@persistence.persistent_class
class ToRGBLayer(torch.nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation."""

    def __init__(self, in_channels, out_channels, w_dim, kernel_size=1, conv_clamp=None, channels_last=False):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.w_dim = w_dim
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.weight = torch.nn.Parameter(torch.randn([out_channels, in_channels, kernel_size, kernel_size]).to(memory_format=layout))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x, w, fused_modconv=True):
        styles = self.affine(w) * self.weight_gain
        x = modulated_conv2d(x, self.weight, styles, demodulate=False, fused=fused_modconv)
        return bias_act.bias_act(x, self.bias.to(x.dtype), clamp=self.conv_clamp)


@persistence.persistent_class
class SynthesisBlock(torch.nn.Module):
    """The layers of one resolution."""

    def __init__(
        self,
        in_channels,
        out_channels,
        w_dim,
        resolution,
        img_channels,
        is_last,
        architecture="skip",
        resample_filter=(1, 3, 3, 1),
        conv_clamp=256,
        use_fp16=False,
        fp16_channels_last=False,
        fused_modconv_default=True,
        **layer_kwargs,
    ):
        assert architecture in ["orig", "skip", "resnet"]
        super().__init__()
        self.in_channels = in_channels
        self.w_dim = w_dim
        self.resolution = resolution
        self.img_channels = img_channels
        self.is_last = is_last
        self.architecture = architecture
        self.use_fp16 = use_fp16
        self.channels_last = use_fp16 and fp16_channels_last
        self.fused_modconv_default = fused_modconv_default
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(list(resample_filter)))
        self.num_conv = 1 if in_channels == 0 else 2
        self.num_torgb = 1 if is_last or architecture == "skip" else 0
        common = dict(w_dim=w_dim, conv_clamp=conv_clamp, channels_last=self.channels_last)
        if in_channels == 0:
            self.const = torch.nn.Parameter(torch.randn([out_channels, resolution, resolution]))
        else:
            self.conv0 = SynthesisLayer(
                in_channels, out_channels, resolution=resolution, up=2, resample_filter=resample_filter, **common, **layer_kwargs
            )
        self.conv1 = SynthesisLayer(out_channels, out_channels, resolution=resolution, **common, **layer_kwargs)
        if self.num_torgb:
            self.torgb = ToRGBLayer(out_channels, img_channels, **common)
        if in_channels != 0 and architecture == "resnet":
            self.skip = Conv2dLayer(in_channels, out_channels, 1, bias=False, up=2, resample_filter=resample_filter, channels_last=self.channels_last)

    def forward(self, x, img, ws, force_fp32=False, fused_modconv=None, update_emas=False, **layer_kwargs):
        misc.assert_shape(ws, [None, self.num_conv + self.num_torgb, self.w_dim])
        rows = iter(ws.unbind(dim=1))
        dtype = use_half(ws, self.use_fp16, force_fp32)
        layout = torch.channels_last if self.channels_last and dtype == torch.float16 else torch.contiguous_format
        if fused_modconv is None:
            fused_modconv = self.fused_modconv_default
        if fused_modconv == "inference_only":
            fused_modconv = not self.training
        layer_kwargs["fused_modconv"] = fused_modconv
        if self.in_channels == 0:
            x = self.const.to(dtype=dtype, memory_format=layout).unsqueeze(0).repeat([ws.shape[0], 1, 1, 1])
            x = self.conv1(x, next(rows), **layer_kwargs)
        else:
            misc.assert_shape(x, [None, self.in_channels, self.resolution // 2, self.resolution // 2])
            x = x.to(dtype=dtype, memory_format=layout)
            y = self.skip(x, gain=SQRT_HALF) if self.architecture == "resnet" else None
            x = self.conv0(x, next(rows), **layer_kwargs)
            x = self.conv1(x, next(rows), gain=1 if y is None else SQRT_HALF, **layer_kwargs)
            x = x if y is None else y + x
        if img is not None:
            img = upfirdn2d.upsample2d(img, self.resample_filter)
        if self.num_torgb:
            y = self.torgb(x, next(rows), fused_modconv=fused_modconv)
            y = y.to(dtype=torch.float32, memory_format=torch.contiguous_format)
            img = y if img is None else img + y
        return x, img


@persistence.persistent_class
class SynthesisNetwork(torch.nn.Module):
    """ws [n, num_ws, w_dim] -> img [n, img_channels, img_resolution, img_resolution]."""

    def __init__(self, w_dim, img_resolution, img_channels, channel_base=32768, channel_max=512, num_fp16_res=4, **block_kwargs):
        assert img_resolution >= 4 and img_resolution & (img_resolution - 1) == 0
        super().__init__()
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_resolution_log2 = img_resolution.bit_length() - 1
        self.img_channels = img_channels
        self.num_fp16_res = num_fp16_res
        self.block_resolutions = [2**i for i in range(2, self.img_resolution_log2 + 1)]
        channels = {r: min(channel_base // r, channel_max) for r in self.block_resolutions}
        fp16_resolution = max(2 ** (self.img_resolution_log2 + 1 - num_fp16_res), 8)
        for r in self.block_resolutions:
            block = SynthesisBlock(
                0 if r == 4 else channels[r // 2],
                channels[r],
                w_dim=w_dim,
                resolution=r,
                img_channels=img_channels,
                is_last=r == img_resolution,
                use_fp16=r >= fp16_resolution,
                **block_kwargs,
            )
            setattr(self, "b%d" % r, block)
        self.num_ws = 2 * self.img_resolution_log2 - 2

    def forward(self, ws, **block_kwargs):
        misc.assert_shape(ws, [None, self.num_ws, self.w_dim])
        ws = ws.to(torch.float32)
        x = img = None
        row = 0
        for r in self.block_resolutions:
            block = getattr(self, "b%d" % r)
            x, img = block(x, img, ws[:, row : row + block.num_conv + block.num_torgb], **block_kwargs)
            row += block.num_conv  # torgb shares its row with the next block's first layer.
        return img


@persistence.persistent_class
class Generator(torch.nn.Module):
    """Mapping and synthesis: z [n, z_dim], c [n, c_dim] or None -> img in about [-1, 1]."""

    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs=None, **synthesis_kwargs):
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        nested = dict(synthesis_kwargs.pop("synthesis_kwargs", None) or {})  # stylegan2-ada-pytorch hands them in one dict.
        nested.update(synthesis_kwargs)
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **nested)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, num_ws=self.num_ws, **(mapping_kwargs or {}))

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False, **synthesis_kwargs):
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff, update_emas=update_emas)
        return self.synthesis(ws, update_emas=update_emas, **synthesis_kwargs)


@persistence.persistent_class
class DiscriminatorBlock(torch.nn.Module):
    """The layers of one resolution, halving it."""

    def __init__(
        self,
        in_channels,
        tmp_channels,
        out_channels,
        resolution,
        img_channels,
        first_layer_idx,
        architecture="resnet",
        activation="lrelu",
        resample_filter=(1, 3, 3, 1),
        conv_clamp=None,
        use_fp16=False,
        fp16_channels_last=False,
        freeze_layers=0,
    ):
        assert architecture in ["orig", "skip", "resnet"]
        super().__init__()
        self.in_channels = in_channels
        self.resolution = resolution
        self.img_channels = img_channels
        self.first_layer_idx = first_layer_idx
        self.architecture = architecture
        self.use_fp16 = use_fp16
        self.channels_last = use_fp16 and fp16_channels_last
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(list(resample_filter)))
        self.num_layers = 0

        def conv(c_in, c_out, size, **kwargs):
            trainable = first_layer_idx + self.num_layers >= freeze_layers
            self.num_layers += 1
            return Conv2dLayer(c_in, c_out, size, trainable=trainable, channels_last=self.channels_last, **kwargs)

        halving = dict(down=2, resample_filter=resample_filter)  # What does not resample keeps the default filter, unused.

        if in_channels == 0 or architecture == "skip":
            self.fromrgb = conv(img_channels, tmp_channels, 1, activation=activation, conv_clamp=conv_clamp)
        self.conv0 = conv(tmp_channels, tmp_channels, 3, activation=activation, conv_clamp=conv_clamp)
        self.conv1 = conv(tmp_channels, out_channels, 3, activation=activation, conv_clamp=conv_clamp, **halving)
        if architecture == "resnet":
            self.skip = conv(tmp_channels, out_channels, 1, bias=False, **halving)

    def forward(self, x, img, force_fp32=False):
        source = img if x is None else x
        dtype = use_half(source, self.use_fp16, force_fp32)
        layout = torch.channels_last if self.channels_last and dtype == torch.float16 else torch.contiguous_format
        if x is not None:
            misc.assert_shape(x, [None, self.in_channels, self.resolution, self.resolution])
            x = x.to(dtype=dtype, memory_format=layout)
        if self.in_channels == 0 or self.architecture == "skip":
            misc.assert_shape(img, [None, self.img_channels, self.resolution, self.resolution])
            y = self.fromrgb(img.to(dtype=dtype, memory_format=layout))
            x = y if x is None else x + y
            img = upfirdn2d.downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        if self.architecture == "resnet":
            y = self.skip(x, gain=SQRT_HALF)
            x = y + self.conv1(self.conv0(x), gain=SQRT_HALF)
        else:
            x = self.conv1(self.conv0(x))
        return x, img


@persistence.persistent_class
class MinibatchStdLayer(torch.nn.Module):
    """Appends the spread within groups of samples as further channels (Karras et al. 2018, section 3)."""

    def __init__(self, group_size, num_channels=1):
        super().__init__()
        self.group_size = group_size
        self.num_channels = num_channels

    def forward(self, x):
        n, c, h, w = x.shape
        g = n if self.group_size is None else min(int(self.group_size), n)
        f = self.num_channels
        y = x.reshape(g, n // g, f, c // f, h, w)
        y = (y - y.mean(dim=0)).square().mean(dim=0)  # [n / g, f, c / f, h, w]
        y = (y + 1e-8).sqrt().mean(dim=[2, 3, 4])  # [n / g, f]
        y = y.reshape(n // g, f, 1, 1).repeat(g, 1, h, w)
        return torch.cat([x, y], dim=1)


@persistence.persistent_class
class DiscriminatorEpilogue(torch.nn.Module):
    """4x4 features -> logit, projected on the condition if there is one."""

    def __init__(
        self,
        in_channels,
        cmap_dim,
        resolution,
        img_channels,
        architecture="resnet",
        mbstd_group_size=4,
        mbstd_num_channels=1,
        activation="lrelu",
        conv_clamp=None,
    ):
        assert architecture in ["orig", "skip", "resnet"]
        super().__init__()
        self.in_channels = in_channels
        self.cmap_dim = cmap_dim
        self.resolution = resolution
        self.img_channels = img_channels
        self.architecture = architecture
        if architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, in_channels, 1, activation=activation)
        self.mbstd = MinibatchStdLayer(mbstd_group_size, mbstd_num_channels) if mbstd_num_channels > 0 else None
        self.conv = Conv2dLayer(in_channels + mbstd_num_channels, in_channels, 3, activation=activation, conv_clamp=conv_clamp)
        self.fc = FullyConnectedLayer(in_channels * resolution**2, in_channels, activation=activation)
        self.out = FullyConnectedLayer(in_channels, 1 if cmap_dim == 0 else cmap_dim)

    def forward(self, x, img, cmap, force_fp32=False):
        misc.assert_shape(x, [None, self.in_channels, self.resolution, self.resolution])
        x = x.to(dtype=torch.float32, memory_format=torch.contiguous_format)
        if self.architecture == "skip":
            x = x + self.fromrgb(img.to(dtype=torch.float32, memory_format=torch.contiguous_format))
        if self.mbstd is not None:
            x = self.mbstd(x)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        if self.cmap_dim > 0:
            misc.assert_shape(cmap, [None, self.cmap_dim])
            x = (x * cmap).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)
        return x


@persistence.persistent_class
class Discriminator(torch.nn.Module):
    """img [n, img_channels, res, res], c [n, c_dim] or None -> logit [n, 1]; large: looks real."""

    def __init__(
        self,
        c_dim,
        img_resolution,
        img_channels,
        architecture="resnet",
        channel_base=32768,
        channel_max=512,
        num_fp16_res=4,
        conv_clamp=256,
        cmap_dim=None,
        block_kwargs=None,
        mapping_kwargs=None,
        epilogue_kwargs=None,
    ):
        super().__init__()
        self.c_dim = c_dim
        self.img_resolution = img_resolution
        self.img_resolution_log2 = img_resolution.bit_length() - 1
        self.img_channels = img_channels
        self.block_resolutions = [2**i for i in range(self.img_resolution_log2, 2, -1)]
        channels = {r: min(channel_base // r, channel_max) for r in self.block_resolutions + [4]}
        fp16_resolution = max(2 ** (self.img_resolution_log2 + 1 - num_fp16_res), 8)
        cmap_dim = 0 if c_dim == 0 else channels[4] if cmap_dim is None else cmap_dim
        common = dict(img_channels=img_channels, architecture=architecture, conv_clamp=conv_clamp)
        first_layer_idx = 0
        for r in self.block_resolutions:
            block = DiscriminatorBlock(
                channels[r] if r < img_resolution else 0,
                channels[r],
                channels[r // 2],
                resolution=r,
                first_layer_idx=first_layer_idx,
                use_fp16=r >= fp16_resolution,
                **common,
                **(block_kwargs or {}),
            )
            setattr(self, "b%d" % r, block)
            first_layer_idx += block.num_layers
        if c_dim > 0:
            self.mapping = MappingNetwork(0, c_dim, cmap_dim, num_ws=None, w_avg_beta=None, **(mapping_kwargs or {}))
        self.b4 = DiscriminatorEpilogue(channels[4], cmap_dim=cmap_dim, resolution=4, **common, **(epilogue_kwargs or {}))

    def forward(self, img, c, update_emas=False, force_fp32=False):
        x = None
        for r in self.block_resolutions:
            x, img = getattr(self, "b%d" % r)(x, img, force_fp32=force_fp32)
        cmap = self.mapping(None, c) if self.c_dim > 0 else None
        return self.b4(x, img, cmap)


RECOGNISED_BY = {"Generator": "synthesis.b4.const", "Discriminator": "b4.out.weight"}
