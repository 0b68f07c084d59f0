# SPDX-License-Identifier: Apache-2.0
"""StyleGAN3 generator, configurations T and R, written from the paper and from the documented behaviour of its implementations.

Source: Karras et al. 2021, "Alias-Free Generative Adversarial Networks", arXiv 2106.12423. Its discriminator is StyleGAN2's.

Names of classes, tensors, arguments and attributes are those that StyleGAN tools expect, so that a state dict moves between
implementations unchanged. Defaults are those of configuration T; R has conv_kernel=1, use_radial_filters=True and twice the channels.

This file is embedded as text in the pickles that we write and is then executed by other people's tools. So it stands alone: it
imports only what every StyleGAN3 code base offers, and keeps to Python 3.7 and torch 1.7. That is also why it is one file.
"""

import math

import numpy as np
import torch

from torch_utils import misc, persistence
from torch_utils.ops import bias_act, conv2d_gradfix, filtered_lrelu


def normalize_second_moment(x, eps=1e-8):
    """x / sqrt(mean(x^2) + eps) along axis 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()


def design_lowpass_filter(numtaps, cutoff, width, fs, radial=False):
    """Taps [numtaps] of a separable Kaiser low-pass filter, or [numtaps, numtaps] of a radially symmetric one; None for a single tap.

    cutoff, width of the transition band and sampling rate fs in cycles per unit length. Source: appendix C.1.
    """
    assert numtaps <= 256  # Ten times the largest: these are designed anew when a file is read, whatever it says.
    if numtaps == 1:
        return None
    import scipy.signal  # Not at the top: nobody who draws with StyleGAN2 should wait for it.
    import scipy.special

    if not radial:
        return torch.as_tensor(scipy.signal.firwin(numtaps=numtaps, cutoff=cutoff, width=width, fs=fs), dtype=torch.float32)
    place = (np.arange(numtaps) - (numtaps - 1) / 2) / fs
    radius = np.hypot(*np.meshgrid(place, place))
    middle = radius == 0  # There the jinc has its limit.
    radius = np.where(middle, 1, radius)
    jinc = np.where(middle, math.pi * cutoff**2, scipy.special.j1(2 * math.pi * cutoff * radius) * cutoff / radius)
    window = np.kaiser(numtaps, scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(numtaps, width / (fs / 2))))
    taps = jinc * np.outer(window, window)
    return torch.as_tensor(taps / taps.sum(), dtype=torch.float32)


def modulated_conv2d(x, weight, styles, demodulate=True, padding=0, input_gain=None):
    """Convolution whose weights are scaled per sample by a style, and normalised per output channel.

    x [n, i, h, w], weight [o, i, k, k], styles [n, i], input_gain a scalar or [i] -> [n, o, h', w'].
    Where demodulation is to cancel their scales, weights and styles are normalised before, which keeps float16 in range.
    """
    n = x.shape[0]
    o, i, kh, kw = weight.shape
    misc.assert_shape(styles, [n, i])
    norm = None
    if demodulate:
        weight = weight * weight.square().mean(dim=[1, 2, 3], keepdim=True).rsqrt()
        styles = styles * styles.square().mean().rsqrt()
        norm = (styles.square() @ weight.square().sum(dim=[2, 3]).t() + 1e-8).rsqrt()  # [n, o]
    if input_gain is not None:  # Demodulation must not cancel it: it undoes the size of x.
        styles = styles * input_gain
    # Grouped convolutions are slow there, and so is making one weight of another where it is larger than the image.
    if x.device.type == "cpu" and (n > 1 or x.shape[2] * x.shape[3] <= o * kh * kw):
        x = conv2d_gradfix.conv2d(x * styles.to(x.dtype).reshape(n, i, 1, 1), weight.to(x.dtype), padding=padding)
        return x if norm is None else x * norm.to(x.dtype).reshape(n, o, 1, 1)
    w = weight.unsqueeze(0) * styles.reshape(n, 1, i, 1, 1)
    if norm is not None:
        w = w * norm.reshape(n, o, 1, 1, 1)
    x = x.reshape(1, n * i, x.shape[2], x.shape[3])
    x = conv2d_gradfix.conv2d(x, w.reshape(n * o, i, kh, kw).to(x.dtype), padding=padding, groups=n)
    return x.reshape(n, o, x.shape[2], x.shape[3])


@persistence.persistent_class
class FullyConnectedLayer(torch.nn.Module):
    """y = act(x W^T + b), with weights stored at unit variance and scaled when used (equalised learning rate)."""

    def __init__(self, in_features, out_features, activation="linear", bias=True, lr_multiplier=1, weight_init=1, bias_init=0):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.activation = activation
        self.weight = torch.nn.Parameter(torch.randn([out_features, in_features]) * (weight_init / lr_multiplier))
        start = torch.as_tensor(bias_init, dtype=torch.float32).expand(out_features) / lr_multiplier
        self.bias = torch.nn.Parameter(start.clone()) if bias else None
        self.weight_gain = float(lr_multiplier) / math.sqrt(in_features)
        self.bias_gain = float(lr_multiplier)

    def forward(self, x):
        w = self.weight.to(x.dtype) * self.weight_gain
        b = None if self.bias is None else self.bias.to(x.dtype) * self.bias_gain
        if self.activation == "linear" and b is not None:
            return torch.addmm(b.unsqueeze(0), x, w.t())
        return bias_act.bias_act(x.matmul(w.t()), b, act=self.activation)


@persistence.persistent_class
class MappingNetwork(torch.nn.Module):
    """z [n, z_dim] and c [n, c_dim] -> ws [n, num_ws, w_dim]."""

    def __init__(self, z_dim, c_dim, w_dim, num_ws, num_layers=2, lr_multiplier=0.01, w_avg_beta=0.998):
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.num_ws = num_ws
        self.num_layers = num_layers
        self.w_avg_beta = w_avg_beta
        sizes = [z_dim + (w_dim if c_dim > 0 else 0)] + [w_dim] * num_layers
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, w_dim)
        for index in range(num_layers):
            layer = FullyConnectedLayer(sizes[index], sizes[index + 1], activation="lrelu", lr_multiplier=lr_multiplier)
            setattr(self, "fc%d" % index, layer)
        self.register_buffer("w_avg", torch.zeros([w_dim]))

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False):
        misc.assert_shape(z, [None, self.z_dim])
        x = normalize_second_moment(z.to(torch.float32))
        if self.c_dim > 0:
            misc.assert_shape(c, [None, self.c_dim])
            x = torch.cat([x, normalize_second_moment(self.embed(c.to(torch.float32)))], dim=1)
        for index in range(self.num_layers):
            x = getattr(self, "fc%d" % index)(x)
        if update_emas:
            self.w_avg.copy_(x.detach().mean(dim=0).lerp(self.w_avg, self.w_avg_beta))
        x = x.unsqueeze(1).repeat([1, self.num_ws, 1])  # [n, num_ws, w_dim]
        if truncation_psi != 1:
            rows = self.num_ws if truncation_cutoff is None else truncation_cutoff
            x = torch.cat([self.w_avg.lerp(x[:, :rows], truncation_psi), x[:, rows:]], dim=1)
        return x


@persistence.persistent_class
class SynthesisInput(torch.nn.Module):
    """Waves of fixed random frequencies, turned and shifted as w says and then as `transform` says: w [n, w_dim] -> [n, channels, h, w].

    `transform` [3, 3] is for users: the inverse of the transformation that the image is to undergo, in units of the image's width.
    """

    def __init__(self, w_dim, channels, size, sampling_rate, bandwidth):
        super().__init__()
        self.w_dim = w_dim
        self.channels = channels
        self.size = as_pair(size)
        self.sampling_rate = sampling_rate
        self.bandwidth = bandwidth
        freqs = torch.randn([channels, 2])  # (x, y)
        radii = freqs.square().sum(dim=1, keepdim=True).sqrt()
        freqs = freqs / (radii * radii.square().exp().pow(0.25)) * bandwidth  # Uniform within the disc of the band.
        self.weight = torch.nn.Parameter(torch.randn([channels, channels]))
        self.affine = FullyConnectedLayer(w_dim, 4, weight_init=0, bias_init=[1, 0, 0, 0])
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", torch.rand([channels]) - 0.5)

    def forward(self, w):
        c, s, x, y = unit_turn(self.affine(w)).unbind(dim=1)
        one, zero = torch.ones_like(c), torch.zeros_like(c)
        turn = torch.stack([c, -s, zero, s, c, zero, zero, zero, one], dim=1).reshape(-1, 3, 3)
        shift = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], dim=1).reshape(-1, 3, 3)
        total = turn @ shift @ self.transform.unsqueeze(0)  # [n, 3, 3]
        phases = self.phases.unsqueeze(0) + (self.freqs @ total[:, :2, 2:]).squeeze(2)  # [n, channels]
        freqs = self.freqs @ total[:, :2, :2]  # [n, channels, 2]
        # What a transformation has taken out of the band fades until it could not be sampled any more.
        amplitudes = 1 - (freqs.norm(dim=2) - self.bandwidth) / (self.sampling_rate / 2 - self.bandwidth)
        along_x, along_y = [(torch.arange(n, device=w.device) + 0.5 - n / 2) / self.sampling_rate for n in self.size]
        waves = (freqs[:, :, :1] * along_x).unsqueeze(2) + (freqs[:, :, 1:] * along_y + phases.unsqueeze(2)).unsqueeze(3)
        waves = torch.sin(waves * (2 * math.pi)) * amplitudes.clamp(0, 1).unsqueeze(2).unsqueeze(3)  # [n, channels, h, w]
        mixed = (self.weight / math.sqrt(self.channels)) @ waves.flatten(2)
        return mixed.reshape(-1, self.channels, self.size[1], self.size[0])


def as_pair(size):
    """[width, height] from one number or two."""
    return [int(n) for n in np.broadcast_to(np.asarray(size), [2])]


def unit_turn(t):
    """[n, 4] divided by the length of its first two values, a cosine and a sine."""
    return t / t[:, :2].norm(dim=1, keepdim=True)


@persistence.persistent_class
class SynthesisLayer(torch.nn.Module):
    """Modulated convolution and a leaky ReLU between two sampling rates."""

    def __init__(
        self,
        w_dim,
        is_torgb,
        is_critically_sampled,
        use_fp16,
        in_channels,
        out_channels,
        in_size,
        out_size,
        in_sampling_rate,
        out_sampling_rate,
        in_cutoff,
        out_cutoff,
        in_half_width,
        out_half_width,
        conv_kernel=3,
        filter_size=6,
        lrelu_upsampling=2,
        use_radial_filters=False,
        conv_clamp=256,
        magnitude_ema_beta=0.999,
    ):
        super().__init__()
        self.w_dim = w_dim
        self.is_torgb = is_torgb
        self.is_critically_sampled = is_critically_sampled
        self.use_fp16 = use_fp16
        self.in_channels, self.out_channels = in_channels, out_channels
        self.in_size, self.out_size = as_pair(in_size), as_pair(out_size)
        self.in_sampling_rate, self.out_sampling_rate = in_sampling_rate, out_sampling_rate
        self.tmp_sampling_rate = max(in_sampling_rate, out_sampling_rate) * (1 if is_torgb else lrelu_upsampling)
        self.in_cutoff, self.out_cutoff = in_cutoff, out_cutoff
        self.in_half_width, self.out_half_width = in_half_width, out_half_width
        self.conv_kernel = 1 if is_torgb else conv_kernel
        self.conv_clamp = conv_clamp
        self.magnitude_ema_beta = magnitude_ema_beta
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = torch.nn.Parameter(torch.randn([out_channels, in_channels, self.conv_kernel, self.conv_kernel]))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))
        self.register_buffer("magnitude_ema", torch.ones([]))

        self.up_factor = int(round(self.tmp_sampling_rate / in_sampling_rate))
        self.down_factor = int(round(self.tmp_sampling_rate / out_sampling_rate))
        assert in_sampling_rate * self.up_factor == self.tmp_sampling_rate == out_sampling_rate * self.down_factor
        self.up_taps = filter_size * self.up_factor if self.up_factor > 1 and not is_torgb else 1
        self.down_taps = filter_size * self.down_factor if self.down_factor > 1 and not is_torgb else 1
        self.down_radial = use_radial_filters and not is_critically_sampled
        fs = self.tmp_sampling_rate
        self.register_buffer("up_filter", design_lowpass_filter(self.up_taps, in_cutoff, in_half_width * 2, fs))
        self.register_buffer("down_filter", design_lowpass_filter(self.down_taps, out_cutoff, out_half_width * 2, fs, self.down_radial))
        extra = (self.conv_kernel - 1) * self.up_factor - (self.up_taps + self.down_taps - 2)  # What the layer adds before it pads.
        self.padding = []  # [x0, x1, y0, y1]
        for n_in, n_out in zip(self.in_size, self.out_size):
            total = (n_out - 1) * self.down_factor + 1 - n_in * self.up_factor - extra
            low = (total + self.up_factor) // 2  # Sample centres stay where they are.
            self.padding += [low, total - low]

    def forward(self, x, w, noise_mode="random", force_fp32=False, update_emas=False):
        assert noise_mode in ["random", "const", "none"]  # For callers of StyleGAN2; there is no noise here.
        misc.assert_shape(x, [None, self.in_channels, self.in_size[1], self.in_size[0]])
        misc.assert_shape(w, [x.shape[0], self.w_dim])
        if update_emas:
            magnitude = x.detach().to(torch.float32).square().mean()
            self.magnitude_ema.copy_(magnitude.lerp(self.magnitude_ema, self.magnitude_ema_beta))
        styles = self.affine(w)
        if self.is_torgb:
            styles = styles / math.sqrt(self.in_channels * self.conv_kernel**2)
        # float16 only where it pays: on a GPU. Elsewhere it is slow and inexact.
        dtype = torch.float16 if self.use_fp16 and not force_fp32 and x.device.type == "cuda" else torch.float32
        x = modulated_conv2d(
            x.to(dtype), self.weight, styles, demodulate=not self.is_torgb, padding=self.conv_kernel - 1, input_gain=self.magnitude_ema.rsqrt()
        )
        x = filtered_lrelu.filtered_lrelu(
            x,
            fu=self.up_filter,
            fd=self.down_filter,
            b=self.bias.to(x.dtype),
            up=self.up_factor,
            down=self.down_factor,
            padding=self.padding,
            gain=1 if self.is_torgb else math.sqrt(2),
            slope=1 if self.is_torgb else 0.2,
            clamp=self.conv_clamp,
        )
        misc.assert_shape(x, [None, self.out_channels, self.out_size[1], self.out_size[0]])
        return x


def plan_layers(num_layers, num_critical, first, last, img_resolution):
    """Cutoff, half width of the transition band and sampling rate of every layer, ToRGB included: three lists.

    first and last are pairs of cutoff and stop band; both grow geometrically up to the critically sampled layers. Source: section 4.
    """
    shares = [min(index / (num_layers - num_critical), 1) for index in range(num_layers + 1)]
    cutoffs, stopbands = [[low * (high / low) ** share for share in shares] for low, high in zip(first, last)]
    rates = [2.0 ** math.ceil(math.log2(min(stopband * 2, img_resolution))) for stopband in stopbands]
    half_widths = [max(stopband, rate / 2) - cutoff for stopband, rate, cutoff in zip(stopbands, rates, cutoffs)]
    return cutoffs, half_widths, rates


@persistence.persistent_class
class SynthesisNetwork(torch.nn.Module):
    """ws [n, num_ws, w_dim] -> img [n, img_channels, img_resolution, img_resolution]. Row 0 steers the input, row i + 1 layer i."""

    def __init__(
        self,
        w_dim,
        img_resolution,
        img_channels,
        channel_base=32768,
        channel_max=512,
        num_layers=14,
        num_critical=2,
        first_cutoff=2,
        first_stopband=2**2.1,
        last_stopband_rel=2**0.3,
        margin_size=10,
        output_scale=0.25,
        num_fp16_res=4,
        **layer_kwargs,
    ):
        super().__init__()
        self.w_dim = w_dim
        self.num_ws = num_layers + 2
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.num_layers = num_layers
        self.num_critical = num_critical
        self.margin_size = margin_size
        self.output_scale = output_scale
        self.num_fp16_res = num_fp16_res

        last = (img_resolution / 2, img_resolution / 2 * last_stopband_rel)
        cutoffs, half_widths, rates = plan_layers(num_layers, num_critical, (first_cutoff, first_stopband), last, img_resolution)
        sizes = [int(rate) + margin_size * 2 for rate in rates[:-2]] + [img_resolution] * 2
        channels = [int(round(min(channel_base / 2 / cutoff, channel_max))) for cutoff in cutoffs[:-1]] + [img_channels]
        self.input = SynthesisInput(w_dim, channels[0], size=sizes[0], sampling_rate=rates[0], bandwidth=cutoffs[0])
        self.layer_names = []
        for index in range(num_layers + 1):
            before = max(index - 1, 0)
            layer = SynthesisLayer(
                w_dim,
                is_torgb=index == num_layers,
                is_critically_sampled=index >= num_layers - num_critical,
                use_fp16=rates[index] * 2**num_fp16_res > img_resolution,
                in_channels=channels[before],
                out_channels=channels[index],
                in_size=sizes[before],
                out_size=sizes[index],
                in_sampling_rate=rates[before],
                out_sampling_rate=rates[index],
                in_cutoff=cutoffs[before],
                out_cutoff=cutoffs[index],
                in_half_width=half_widths[before],
                out_half_width=half_widths[index],
                **layer_kwargs,
            )
            name = "L%d_%d_%d" % (index, layer.out_size[0], layer.out_channels)
            setattr(self, name, layer)
            self.layer_names.append(name)

    def forward(self, ws, **layer_kwargs):
        misc.assert_shape(ws, [None, self.num_ws, self.w_dim])
        rows = ws.to(torch.float32).unbind(dim=1)
        x = self.input(rows[0])
        for name, w in zip(self.layer_names, rows[1:]):
            x = getattr(self, name)(x, w, **layer_kwargs)
        if self.output_scale != 1:
            x = x * self.output_scale
        misc.assert_shape(x, [None, self.img_channels, self.img_resolution, self.img_resolution])
        return x.to(torch.float32)


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
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **synthesis_kwargs)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, num_ws=self.num_ws, **(mapping_kwargs or {}))

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False, **synthesis_kwargs):
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff, update_emas=update_emas)
        return self.synthesis(ws, update_emas=update_emas, **synthesis_kwargs)


RECOGNISED_BY = {"Generator": "synthesis.input.freqs"}
