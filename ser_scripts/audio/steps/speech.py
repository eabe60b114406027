"""Where somebody speaks: Silero VAD 6 (Silero Team, MIT licence), with the weights that its package carries.

The package runs its TorchScript file frame by frame, and its import sets torch's number of threads for the whole
process. Here the weights of that file feed the same network, all frames at once, on one thread; a test compares the
probabilities with the package's. Nothing is downloaded. (The package's safetensors file holds other weights than the
file that it runs by default, so it is of no use here.)
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ser_scripts.audio import decode
from ser_scripts.audio.decode import Samples
from ser_scripts.audio.steps.threads import one_thread
from ser_scripts.errors import BadInput

if TYPE_CHECKING:
    import torch

RATE_HZ = 16_000
FRAME = 512
"""Samples (32 ms) for which there is one probability."""
_CONTEXT = 64
_BLOCK = 1024
"""Frames (33 s) that go through the network at once, so that an hour needs no more memory than a minute."""
_HYSTERESIS = 0.15
_WEIGHTS = "data/silero_vad.jit"
_STRIDES = (1, 2, 2, 1)


class Segment(NamedTuple):
    """Samples [start, end)."""

    start: int
    end: int


def cut_to_speech(
    mono: Samples,
    rate_hz: int,
    *,
    mode: Literal["keep_speech", "trim_ends"],
    threshold: float,
    min_speech_seconds: float,
    min_silence_seconds: float,
    pad_seconds: float,
) -> Samples | None:
    """Cut what is not speech out of a clip, at its own rate.

    Args:
        mono: (samples,)
        rate_hz: its rate; the network hears a copy at 16 kHz
        mode: `keep_speech` joins the segments, `trim_ends` keeps the pauses between the first and the last
        threshold: see `segments`
        min_speech_seconds: see `segments`
        min_silence_seconds: see `segments`
        pad_seconds: see `segments`

    Returns:
        (samples,), or None where there is no speech
    """
    found = segments(
        speech_probabilities(decode.resample(mono, rate_hz, RATE_HZ)),
        threshold=threshold,
        min_speech_seconds=min_speech_seconds,
        min_silence_seconds=min_silence_seconds,
        pad_seconds=pad_seconds,
    )
    here = [
        Segment(start * rate_hz // RATE_HZ, min(len(mono), -(-end * rate_hz // RATE_HZ)))
        for start, end in found
        if start * rate_hz // RATE_HZ < len(mono)
    ]
    if not here:
        return None
    if mode == "trim_ends":
        return mono[here[0].start : here[-1].end]
    return np.concatenate([mono[start:end] for start, end in here])


def segments(
    probabilities: npt.NDArray[np.float32],
    *,
    threshold: float,
    min_speech_seconds: float,
    min_silence_seconds: float,
    pad_seconds: float,
) -> list[Segment]:
    """Speech segments, in samples at 16 kHz, from the probability of each frame of 32 ms.

    Speech begins with a frame that reaches `threshold`, and ends where the probability has been below `threshold` -
    0.15 (without reaching `threshold` again) for `min_silence_seconds`. A segment that is not longer than
    `min_speech_seconds` is left out. Pads never overlap: two segments that are nearer than two pads meet halfway.

    Args:
        probabilities: (frames,)
        threshold: in (0, 1)
        min_speech_seconds: a shorter segment does not count
        min_silence_seconds: a shorter pause does not end a segment
        pad_seconds: added on both sides

    Returns:
        in order; the last may end after the clip, by less than a frame and the pad
    """
    leave = max(threshold - _HYSTERESIS, 0.01)
    least_speech, least_silence = min_speech_seconds * RATE_HZ, min_silence_seconds * RATE_HZ
    end_of_clip = len(probabilities) * FRAME
    speech: list[Segment] = []
    start = quiet_from = None
    for position, probability in zip(range(0, end_of_clip, FRAME), probabilities, strict=True):
        if probability >= threshold:
            start, quiet_from = (position if start is None else start), None
        elif start is not None and (quiet_from is not None or probability < leave):
            quiet_from = position if quiet_from is None else quiet_from
            if probability < leave and position - quiet_from >= least_silence:
                speech += [Segment(start, quiet_from)] if quiet_from - start > least_speech else []
                start = quiet_from = None
    if start is not None and end_of_clip - start > least_speech:
        speech.append(Segment(start, end_of_clip))
    return _padded(speech, round(pad_seconds * RATE_HZ))


def _padded(speech: Sequence[Segment], pad: int) -> list[Segment]:
    wider = []
    for number, (start, end) in enumerate(speech):
        before = pad if number == 0 else min(pad, (start - speech[number - 1].end) // 2)
        after = pad if number == len(speech) - 1 else min(pad, (speech[number + 1].start - end) // 2)
        wider.append(Segment(max(0, start - before), end + after))
    return wider


def speech_probabilities(mono: Samples) -> npt.NDArray[np.float32]:
    """Probability of speech in each frame of 32 ms of a clip at 16 kHz: (samples,) -> (frames,).

    The last frame is filled with zeros.
    """
    import torch

    if not len(mono):
        return np.zeros(0, np.float32)
    padded = np.pad(mono, (_CONTEXT, -len(mono) % FRAME))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME + _CONTEXT)[::FRAME]  # (N, 576)
    _, recurrent = _network()
    probabilities, state = [], None
    with one_thread():
        for start in range(0, len(frames), _BLOCK):
            hidden, state = recurrent(_features(torch.from_numpy(frames[start : start + _BLOCK].copy())), state)
            probabilities.append(_decision(hidden).numpy())
    return np.concatenate(probabilities)


def _features(frames: torch.Tensor) -> torch.Tensor:
    """What the recurrent layer hears of each frame: (N, 576) -> (N, 128)."""
    import torch

    weights, _ = _network()
    x = torch.nn.functional.pad(frames, (0, _CONTEXT), mode="reflect")  # (N, 640)
    x = torch.nn.functional.conv1d(x[:, None], weights["stft.forward_basis_buffer"], stride=128)  # (N, 258, 4)
    x = torch.hypot(x[:, :129], x[:, 129:])
    for number, stride in enumerate(_STRIDES):
        kernel, bias = (weights[f"encoder.{number}.reparam_conv.{name}"] for name in ("weight", "bias"))
        x = torch.relu(torch.nn.functional.conv1d(x, kernel, bias, stride=stride, padding=1))
    return x[:, :, 0]


def _decision(hidden: torch.Tensor) -> torch.Tensor:
    """(N, 128) -> (N,) probabilities."""
    import torch

    weights, _ = _network()
    kernel, bias = (weights[f"decoder.decoder.2.{name}"] for name in ("weight", "bias"))
    return torch.sigmoid(torch.relu(hidden) @ kernel[0, :, 0] + bias)


def weights_file() -> Path:
    """The weights inside the package silero-vad, found without importing it.

    Raises:
        BadInput: if the package is absent, or of a version without this file
    """
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(
            "preprocess 'vad' needs the package silero-vad, which is not installed; `make setup` installs it"
        )
    file = Path(spec.submodule_search_locations[0]) / _WEIGHTS
    if not file.is_file():
        raise BadInput(f"{file}: missing; preprocess 'vad' needs the package silero-vad in version 6.2")
    return file


@functools.cache
def _network() -> tuple[dict[str, torch.Tensor], torch.nn.LSTM]:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is to go; only its tensors are read here
        script = torch.jit.load(str(weights_file()), map_location="cpu")  # type: ignore[no-untyped-call]
    content = script.state_dict()
    weights = {name.removeprefix("_model."): tensor for name, tensor in content.items() if name.startswith("_model.")}
    with torch.random.fork_rng(devices=[]):  # building a layer must not move the caller's random numbers
        recurrent = torch.nn.LSTM(128, 128)
    recurrent.load_state_dict(
        {f"{name}_l0": weights[f"decoder.rnn.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    )
    return weights, recurrent.requires_grad_(False)
