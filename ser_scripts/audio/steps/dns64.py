"""The waveform network DNS64 (Défossez, Synnaeve and Adi, "Real time speech enhancement in the waveform domain",
Interspeech 2020): an encoder, a recurrent layer and a decoder with skip connections, between sinc resamplers.

Written from the paper, with the parameter names under which its weights are published, so that a file of them loads
as it is. No weights come with this project; those published by the authors allow no commercial use (CC BY-NC 4.0).
"""

from __future__ import annotations

import functools
import pickle
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from ser_scripts.audio import decode
from ser_scripts.audio.decode import Samples
from ser_scripts.audio.steps.line import to_length
from ser_scripts.audio.steps.threads import one_thread
from ser_scripts.errors import BadInput

RATE_HZ = 16_000
DEPTH, KERNEL, STRIDE, RESAMPLE = 5, 8, 4, 4
_ZEROS = 56
"""Zero crossings on each side of the sinc filters."""
_FLOOR = 1e-3


def dns64(mono: Samples, rate_hz: int, *, weights: Path) -> Samples:
    """Denoise a clip of shape (samples,): a copy at 16 kHz goes through the network and back to the clip's rate.

    What lies above 8 kHz is lost.

    Raises:
        BadInput: if the file holds other weights, or cannot be read
    """
    status = weights.stat()
    network = _load(weights, status.st_size, status.st_mtime_ns)
    narrow = torch.from_numpy(np.array(decode.resample(mono, rate_hz, RATE_HZ)))
    with one_thread():
        clean = network(narrow[None, None])[0, 0].numpy()
    return to_length(decode.resample(clean, RATE_HZ, rate_hz), len(mono))


class Network(nn.Module):
    """Waveform in, waveform out, same length: (batch, 1, samples) at 16 kHz.

    Level i of the encoder has `hidden` * 2^i channels. The convolutions look ahead and the recurrent layer does not:
    a sample of the result depends on the input up to `lookahead` samples later, apart from the clip's overall level,
    by which the input is divided.
    """

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        widths = [hidden * 2**level for level in range(DEPTH)]
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for level, width in enumerate(widths):
            below = widths[level - 1] if level else 1
            self.encoder.append(
                nn.Sequential(
                    nn.Conv1d(below, width, KERNEL, STRIDE), nn.ReLU(), nn.Conv1d(width, 2 * width, 1), nn.GLU(dim=1)
                )
            )
            up: list[nn.Module] = [
                nn.Conv1d(width, 2 * width, 1),
                nn.GLU(dim=1),
                nn.ConvTranspose1d(width, below, KERNEL, STRIDE),
            ]
            self.decoder.insert(0, nn.Sequential(*up, *([nn.ReLU()] if level else [])))
        self.lstm = _Recurrent(widths[-1])

    def forward(self, mix: torch.Tensor) -> torch.Tensor:
        """(B, 1, T) -> (B, 1, T)."""
        scale = mix.std(dim=-1, keepdim=True)
        return scale * self.enhance(mix / (_FLOOR + scale))

    def enhance(self, mix: torch.Tensor) -> torch.Tensor:
        """The network without the division by the clip's level: (B, 1, T) -> (B, 1, T)."""
        length = mix.shape[-1]
        x = F.pad(mix, (0, padded_length(length) - length))
        x = _double(_double(x))
        skips = []
        for encode in self.encoder:
            x = encode(x)
            skips.append(x)
        x = self.lstm(x)
        for decode_level in self.decoder:
            skip = skips.pop()
            x = decode_level(x + skip[..., : x.shape[-1]])
        return _halve(_halve(x))[..., :length]


class _Recurrent(nn.Module):
    """Two layers that hear the past only: (B, C, T) -> (B, C, T)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, num_layers=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.lstm(x.permute(2, 0, 1))[0]  # (T, B, C)
        return out.permute(1, 2, 0)


def padded_length(length: int) -> int:
    """Samples at 16 kHz, at least `length`, for which every level of the network comes out even."""
    frames = length * RESAMPLE
    for _ in range(DEPTH):
        frames = max(1, -(-(frames - KERNEL) // STRIDE) + 1)
    for _ in range(DEPTH):
        frames = (frames - 1) * STRIDE + KERNEL
    return -(-frames // RESAMPLE)


def lookahead() -> int:
    """How many later samples of the input a sample of `Network.enhance` can depend on, at 16 kHz."""
    span = 1
    for _ in range(DEPTH):
        span = (span - 1) * STRIDE + KERNEL  # samples at 64 kHz under one frame of the innermost level
    # a sinc filter reaches _ZEROS samples of the lower of its two rates: two at 16 kHz, two at 32 kHz
    return -(-span // RESAMPLE) + 3 * _ZEROS + 4


@functools.cache
def _kernel() -> torch.Tensor:
    """Sinc at half samples, under a Hann window: (1, 1, 2 * _ZEROS)."""
    window = torch.hann_window(4 * _ZEROS + 1, periodic=False)[1::2]
    times = torch.linspace(-_ZEROS + 0.5, _ZEROS - 0.5, 2 * _ZEROS)
    return (torch.sinc(times) * window)[None, None]


def _double(x: torch.Tensor) -> torch.Tensor:
    """Twice the rate: the samples between are interpolated. (B, 1, T) -> (B, 1, 2 T)."""
    between = F.conv1d(x, _kernel(), padding=_ZEROS)[..., 1:]
    return torch.stack([x, between], dim=-1).flatten(-2)


def _halve(x: torch.Tensor) -> torch.Tensor:
    """Half the rate: (B, 1, T) -> (B, 1, ceil(T / 2))."""
    x = F.pad(x, (0, x.shape[-1] % 2))
    return (x[..., ::2] + F.conv1d(x[..., 1::2].contiguous(), _kernel(), padding=_ZEROS)[..., :-1]) / 2


@functools.lru_cache(maxsize=1)
def _load(file: Path, size: int, mtime_ns: int) -> Network:
    """The network with the weights of a file; kept as long as the file does not change."""
    try:
        content = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, SafetensorError, EOFError) as error:
        raise BadInput(f"{file} cannot be read as plain weights: {str(error).splitlines()[0]}") from None
    first = content.get("encoder.0.0.weight") if isinstance(content, dict) else None
    if not isinstance(first, torch.Tensor) or first.ndim != 3:
        raise BadInput(f"{file} holds no weights of DNS64: 'encoder.0.0.weight' is missing")
    with torch.random.fork_rng(devices=[]):  # building layers must not move the caller's random numbers
        network = Network(hidden=len(first))
    try:
        network.load_state_dict(content)
    except RuntimeError as error:
        raise BadInput(f"{file} holds no weights of DNS64: {str(error).splitlines()[1].strip()}") from None
    return network.eval().requires_grad_(False)
