# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's scripts, unchanged, on a machine without a GPU: with this folder on PYTHONPATH, "cuda" means the CPU in every Python that starts.

Python imports a module of this name by itself, in the processes that a script starts, too. Where there is a GPU only the shims are
installed that today's setuptools and torch ask for (stylegan_redact/host.py), which a redaction in a checkout needs as well.
"""

import os
import runpy
from pathlib import Path

import torch

HOST = Path(__file__).parents[2] / "stylegan_redact" / "host.py"
LEARNING_RATE = "ON_CPU_LEARNING_RATE"
"""Environment: the step of every Adam, in the place of the script's own; at 0 a training shows what it starts from."""

_Device = torch.device
_sampler = torch.utils.data.Sampler.__init__
_adam = torch.optim.Adam.__init__


class _DeviceType(type):
    def __instancecheck__(cls, instance):
        return isinstance(instance, _Device)


class Device(metaclass=_DeviceType):
    """torch.device, where "cuda" is "cpu"."""

    def __new__(cls, kind, *index, **named):
        made = _Device(kind, *index, **named)
        return _Device("cpu") if made.type == "cuda" else made


class Event:
    """torch.cuda.Event, which a training loop times its phases with."""

    def __init__(self, **kwargs):
        pass

    def record(self, stream=None):
        """Nothing: the CPU has no queue."""

    def synchronize(self):
        """Nothing: the CPU has no queue."""

    def elapsed_time(self, end):
        """0 milliseconds."""
        return 0.0


def same(self, *args, **kwargs):
    """The tensor or module itself."""
    return self


def on_cpu():
    """Everything that says cuda does what the CPU can do."""
    torch.device = Device
    torch.Tensor.cuda = torch.Tensor.pin_memory = torch.nn.Module.cuda = same
    torch.cuda.Event = Event
    for name in ("set_device", "synchronize", "reset_peak_memory_stats", "empty_cache", "current_stream"):
        setattr(torch.cuda, name, lambda *args: None)
    for name in ("max_memory_allocated", "max_memory_reserved", "memory_allocated"):
        setattr(torch.cuda, name, lambda *args: 0)


def sampler(self, data_source=None):
    """torch 2.13 takes no argument any more; NVIDIA's sampler hands on the data set."""
    _sampler(self)


def adam(self, params, lr=0.001, betas=(0.9, 0.999), **kwargs):
    """torch 2.13 takes no whole numbers for betas any more, and NVIDIA's are 0 and 0.99; the step may be the one that the environment names."""
    _adam(self, params, lr=float(os.environ.get(LEARNING_RATE, lr)), betas=tuple(map(float, betas)), **kwargs)


runpy.run_path(str(HOST))["install_shims"]()
torch.utils.data.Sampler.__init__ = sampler
torch.optim.Adam.__init__ = adam
if not torch.cuda.is_available():
    on_cpu()
