"""Encoders whose code comes with their weights (MERT, Li et al. 2024, and others), run as their authors wrote them.

Of such a model only this is asked: it hears samples (1, N), and gives hidden states, by itself or by a stack of layers
that can be told from what it does. What else this project wants to know of it is found by listening: it hears noise
once, in eval mode, and which module was called when, with what, tells its layers and what lies behind them.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from transformers.models.auto.feature_extraction_auto import feature_extractor_class_from_name

from ser_eval.run_folder import read_json
from ser_scripts.errors import BadInput
from ser_scripts.modeling.families.base import Clip, Encoder, frame_mask
from ser_scripts.modeling.masking import conv_length, receptive_field
from ser_scripts.modeling.remote_code import RemoteCode, running
from ser_scripts.modeling.weights import PREPROCESSOR

PROBE_SECONDS = (0.1, 0.5, 1.0, 5.0, 10.0)
"""Tried in turn as the shortest clip, where the configuration does not tell it."""
_ARGUMENTS = {"output_hidden_states": True, "output_attentions": False, "return_dict": True}

_heard: ContextVar[dict[tuple[int, str], torch.Tensor] | None] = ContextVar("heard", default=None)
"""Inputs and outputs of the layers in the forward pass that this thread is in."""


@dataclass(frozen=True)
class Structure:
    """What one forward pass has shown of a model."""

    num_layers: int
    hidden_size: int
    stack: str | None
    """Name of the module list of its layers; None where no list of modules can be told to be them."""
    gives_states: bool
    """It returns its hidden states itself; else they are those of the stack."""
    behind: tuple[str, ...]
    """Modules with weights that run only behind the last layer."""
    by_kernels: bool
    """Its frames are those of `conv_kernel` and `conv_stride`."""
    min_samples: int


class RemoteEncoder(Encoder):
    """An encoder with its own code. Each clip goes through alone, without padding, so that batch mates do not matter.

    In training mode the code does what it does: dropout and layer drop draw as its authors wrote them, from generators
    that a trainer seeds. A clip that is too short for SpecAugment's masks (`mask_time_length`) is not masked.
    """

    IGNORED: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        model: Any,
        extractor: Any,
        identity: dict[str, str | None],
        code: RemoteCode,
        *,
        place: str,
    ) -> None:
        """Take the model and listen to it once.

        Args:
            model: what `remote_code.load_classes` gives, a PreTrainedModel
            extractor: a feature extractor of transformers
            identity: name, revision, sha256 of the weights, code_sha256
            code: what runs
            place: where the code came from, for error texts

        Raises:
            BadInput: it takes no samples, fails, or gives no hidden states
        """
        super().__init__(model.config, extractor, identity)
        self.model = model
        self.code = code
        self._place = place
        known = inspect.signature(model.forward).parameters
        free = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known.values())
        self._arguments = {name: value for name, value in _ARGUMENTS.items() if free or name in known}
        was_training = model.training
        model.eval()
        self.structure = self._explore()
        model.train(was_training)
        if not self.structure.gives_states:
            for index, layer in enumerate(self.layers):
                layer.register_forward_pre_hook(partial(_note_input, index), with_kwargs=True)
                layer.register_forward_hook(partial(_note_output, index))

    # ---- what it is ----

    @property
    def hidden_size(self) -> int:
        """D, the width of every hidden state."""
        return self.structure.hidden_size

    @property
    def num_layers(self) -> int:
        """Hidden states less one."""
        return self.structure.num_layers

    @property
    def layers(self) -> nn.ModuleList:
        """Its layers; empty where they cannot be told, which a model that asks for single layers refuses."""
        found = nn.ModuleList() if self.structure.stack is None else self.model.get_submodule(self.structure.stack)
        assert isinstance(found, nn.ModuleList)
        return found

    @property
    def min_samples(self) -> int:
        """The receptive field of one frame where the configuration tells it, else the shortest probe it took."""
        return self.structure.min_samples

    def front_end(self) -> list[nn.Module]:
        """A module named as transformers names convolutional front ends, if there are convolutions in it."""
        for name in ("feature_extractor", "feature_encoder"):
            found = getattr(self.model, name, None)
            if isinstance(found, nn.Module) and any(isinstance(one, nn.Conv1d | nn.Conv2d) for one in found.modules()):
                return [found]
        return []

    def last_modules(self) -> list[nn.Module]:
        """Modules that ran behind the last layer only."""
        return [self.model.get_submodule(name) for name in self.structure.behind]

    def enable_gradient_checkpointing(self) -> None:
        """As the code has it.

        Raises:
            BadInput: it has it not
        """
        if not getattr(self.model, "supports_gradient_checkpointing", False):
            raise BadInput(f"training.gradient_checkpointing: the code of {self.name} does not have it; take it out")
        with running(self._place, "when gradient checkpointing is switched on"):
            self.model.activation_checkpointing_enable({"use_reentrant": False})

    @property
    def name(self) -> str:
        """For error texts."""
        return str(self.identity()["name"])

    def probe_weight(self) -> str:
        """The name of a weight by which a file's prefix is told: a long one that no parametrisation has renamed."""
        names = [str(name) for name in self.model.state_dict() if ".parametrizations." not in name]
        return max(names, key=lambda name: (len(name), name))

    def code_sums(self) -> dict[str, str]:
        """SHA-256 of each file that ran."""
        return self.code.sums()

    def save_code(self, folder: Path) -> None:
        """Write the files that ran beside the weights."""
        for name, content in self.code.files.items():
            (folder / name).write_bytes(content)

    # ---- what it does ----

    def extract(self, clip: Clip) -> Clip:
        """Samples, normalised when the extractor says so, (N,)."""
        values: Clip = np.asarray(
            self.extractor(clip, sampling_rate=self.sample_rate_hz, padding=False)["input_values"][0]
        )
        return values

    def frames_of(self, lengths: torch.Tensor) -> torch.Tensor:
        """By the kernels of its convolutions, where that was found to be right, else by hearing silence."""
        if self.structure.by_kernels:
            return _conv_frames(self.config, lengths)
        device = next(self.parameters()).device
        with torch.inference_mode():
            silences = [torch.zeros(n, device=device, dtype=self.dtype) for n in lengths.reshape(-1).tolist()]
            return torch.tensor([len(self._hear(silence)[0]) for silence in silences]).reshape(lengths.shape)

    def forward(
        self, inputs: torch.Tensor, lengths: torch.Tensor, last_layer: int | None = None
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Hidden states of a padded batch, one clip after the other; layers above `last_layer` run, too."""
        depth = self.num_layers if last_layer is None else last_layer
        clips = [self._hear(row[:length].to(self.dtype)) for row, length in zip(inputs, lengths.tolist(), strict=True)]
        padded = tuple(
            nn.utils.rnn.pad_sequence([states[layer] for states in clips], batch_first=True)
            for layer in range(depth + 1)
        )
        frames = torch.tensor([len(states[0]) for states in clips], device=inputs.device)
        return padded, frame_mask(frames, padded[0].shape[1])

    def _hear(self, samples: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All hidden states (T, D) of one clip (N,)."""
        with self._maskable(len(samples)):
            outputs, heard = self._run(samples)
        states, last = _given_states(outputs) if self.structure.gives_states else None, _last_state(outputs)
        if states is None:
            states = _states_of(heard, self.num_layers, last)
        elif last is not None:  # some give the last one before a norm that lies behind it
            states = (*states[:-1], last)
        if len(states) != self.num_layers + 1:
            raise BadInput(
                f"{self._place}: the code of {self.name} gave {len(states)} hidden states for one clip and "
                f"{self.num_layers + 1} for another"
            )
        return tuple(state[0] for state in states)

    def _run(self, samples: torch.Tensor) -> tuple[Any, dict[tuple[int, str], torch.Tensor]]:
        heard: dict[tuple[int, str], torch.Tensor] = {}
        token = _heard.set(heard)
        try:
            return self.model(samples[None], **self._arguments), heard
        finally:
            _heard.reset(token)

    @contextlib.contextmanager
    def _maskable(self, length: int) -> Iterator[None]:
        """Without SpecAugment where the clip has fewer frames than one of its masks: the library's fails there."""
        config = self.config
        short = (
            self.model.training
            and self.structure.by_kernels
            and getattr(config, "apply_spec_augment", False)
            and int(_conv_frames(config, torch.tensor(length))) < getattr(config, "mask_time_length", 0)
        )
        if short:
            config.apply_spec_augment = False
        try:
            yield
        finally:
            if short:
                config.apply_spec_augment = True

    # ---- how it is found out ----

    def _explore(self) -> Structure:
        noise = np.random.default_rng(0).normal(0, 0.1, self.sample_rate_hz).astype(np.float32)
        samples = self._extracted(noise)
        kernels = _kernels(self.config)
        shortest = [receptive_field(*kernels)] if kernels else []
        shortest += [round(seconds * self.sample_rate_hz) for seconds in PROBE_SECONDS]
        min_samples = next((count for count in shortest[:-1] if self._takes(count)), shortest[-1])
        samples = np.tile(samples, -(-min_samples // len(samples)))
        with torch.no_grad(), running(self._place, "when it hears a second of noise"), _watched(self.model) as calls:
            outputs, _ = self._run(torch.from_numpy(samples))
        with running(self._place, "to give hidden states"):
            given, last = _given_states(outputs), _last_state(outputs)
        if last is None and given is not None:
            last = given[-1]
        if last is None or last.ndim != 3 or len(last) != 1:
            raise BadInput(
                f"{self._place}: the code of {self.name} gives no last_hidden_state of the shape (1, frames, width)"
            )
        if given is not None and any(state.shape != last.shape for state in given):
            shapes = ", ".join(str(tuple(state.shape)) for state in given)
            raise BadInput(f"{self._place}: the hidden states of {self.name} differ in shape: {shapes}")
        wanted = len(given) - 1 if given is not None else getattr(self.config, "num_hidden_layers", None)
        stacks = [
            name
            for name, module in self.model.named_modules()
            if isinstance(module, nn.ModuleList) and _is_stack(name, len(module), calls, given, last)
        ]
        stacks = [name for name in stacks if wanted is None or len(self.model.get_submodule(name)) == wanted]
        if given is None and len(stacks) != 1:
            raise BadInput(
                f"{self._place}: the code of {self.name} returns no hidden states, and its layers cannot be told from "
                f"what it does ({len(stacks)} lists of modules would do)"
            )
        stack = stacks[0] if len(stacks) == 1 else None
        frames = last.shape[1]
        return Structure(
            num_layers=len(given) - 1 if given is not None else len(self.model.get_submodule(str(stack))),
            hidden_size=last.shape[2],
            stack=stack,
            gives_states=given is not None,
            behind=_behind(str(stack), self.model, calls) if stack is not None else (),
            by_kernels=kernels is not None and int(_conv_frames(self.config, torch.tensor(len(samples)))) == frames,
            min_samples=min_samples,
        )

    def _extracted(self, clip: Clip) -> Clip:
        """Features of a clip, checked."""
        names = getattr(self.extractor, "model_input_names", [])
        if "input_values" not in names or np.shape(values := self.extract(clip)) != clip.shape:
            raise BadInput(
                f"{self._place}: {PREPROCESSOR} makes something else than samples of a clip; of encoders with code of "
                "their own only those that hear samples are supported (feature_extractor_type Wav2Vec2FeatureExtractor)"
            )
        return np.asarray(values, dtype=np.float32)

    def _takes(self, count: int) -> bool:
        """Whether a clip of so many samples gives frames."""
        samples = torch.from_numpy(self._extracted(np.full(count, 0.01, dtype=np.float32)))
        with torch.no_grad(), contextlib.suppress(BadInput):  # what is wrong with any clip shows with a longer one
            with running(self._place, "when it hears a short clip"):
                last = _last_state(self._run(samples)[0])
            return last is not None and last.ndim == 3 and last.shape[1] > 0
        return False


def load_remote_extractor(folder: Path) -> Any:
    """The feature extractor that preprocessor_config.json names; one of transformers, whose code comes with nothing.

    Raises:
        BadInput: no file, or another extractor
    """
    if not (folder / PREPROCESSOR).is_file():
        raise BadInput(f"{folder} holds no {PREPROCESSOR}, which says how the encoder wants its input")
    kind = read_json(folder / PREPROCESSOR).get("feature_extractor_type")
    family = feature_extractor_class_from_name(kind) if isinstance(kind, str) else None
    if family is None:
        raise BadInput(
            f"{folder / PREPROCESSOR}: feature_extractor_type is {kind!r}; expected one of transformers, such as "
            "'Wav2Vec2FeatureExtractor'"
        )
    return family.from_pretrained(str(folder))


def _kernels(config: Any) -> tuple[list[int], list[int]] | None:
    """Kernels and strides of the convolutions, where the configuration has them as HuBERT's does."""
    kernels, strides = getattr(config, "conv_kernel", None), getattr(config, "conv_stride", None)
    if not isinstance(kernels, list | tuple) or not isinstance(strides, list | tuple) or len(kernels) != len(strides):
        return None
    return (list(kernels), list(strides)) if kernels else None


def _conv_frames(config: Any, lengths: torch.Tensor) -> torch.Tensor:
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        lengths = conv_length(lengths, kernel, stride)
    return lengths


# ---- layers by listening ----


@dataclass(frozen=True)
class _Call:
    """One call of a module: what it got first, and what it gave first."""

    name: str
    got: torch.Tensor | None
    gave: torch.Tensor | None
    weighty: bool
    """It has weights of its own, besides those of its parts."""


@contextlib.contextmanager
def _watched(model: nn.Module) -> Iterator[list[_Call]]:
    """Note every call of every module, in the order in which they end."""
    calls: list[_Call] = []

    def note(name: str, module: nn.Module, inputs: Sequence[Any], named: dict[str, Any], output: Any) -> None:
        weighty = any(True for _ in module.parameters(recurse=False))
        calls.append(_Call(name, _first(inputs, named), _output(output), weighty))

    handles = [
        module.register_forward_hook(partial(note, name), with_kwargs=True)
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _first(inputs: Sequence[Any], named: dict[str, Any]) -> torch.Tensor | None:
    first = inputs[0] if inputs else named.get("hidden_states")
    return first if isinstance(first, torch.Tensor) else None


def _output(output: Any) -> torch.Tensor | None:
    first = output[0] if isinstance(output, list | tuple) and output else output
    return first if isinstance(first, torch.Tensor) else None


def _is_stack(
    name: str, length: int, calls: list[_Call], given: tuple[torch.Tensor, ...] | None, last: torch.Tensor
) -> bool:
    """Whether the modules of a list ran once each, in order, each on what the one before gave, and gave the states."""
    members = [call for call in calls if call.name.rpartition(".")[0] == name]
    if not length or [call.name for call in members] != [f"{name}.{index}" for index in range(length)]:
        return False
    tensors = [(call.got, call.gave) for call in members]
    if any(got is None or gave is None or got.shape != last.shape or gave.shape != last.shape for got, gave in tensors):
        return False
    chain = [_same(one[1], other[0]) for one, other in itertools.pairwise(tensors)]
    if given is not None:
        if len(given) != length + 1:
            return False
        chain += [_same(state, got) for state, (got, _) in zip(given, tensors, strict=False)]
    return all(chain)


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one, other))


def _behind(stack: str, model: nn.Module, calls: list[_Call]) -> tuple[str, ...]:
    """Modules with weights that were called behind the last layer only."""
    top = f"{stack}.{len(model.get_submodule(stack)) - 1}"  # type: ignore[arg-type]
    end = max(number for number, call in enumerate(calls) if call.name == top)
    before = {call.name for call in calls[: end + 1]}
    late = [call.name for call in calls[end + 1 :] if call.weighty and call.name not in before]
    return tuple(dict.fromkeys(name for name in late if not stack.startswith(f"{name}.")))


def _note_input(index: int, module: nn.Module, inputs: Sequence[Any], named: dict[str, Any]) -> None:
    heard, first = _heard.get(), _first(inputs, named)
    if heard is not None and first is not None:
        heard[index, "in"] = first


def _note_output(index: int, module: nn.Module, inputs: Sequence[Any], output: Any) -> None:
    heard, first = _heard.get(), _output(output)
    if heard is not None and first is not None:
        heard[index, "out"] = first


def _states_of(
    heard: dict[tuple[int, str], torch.Tensor], num_layers: int, last: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    """Hidden states from what went through the layers; a layer that was dropped hands on what it would have got."""
    assert last is not None  # explored
    current = next((heard[index, "in"] for index in range(num_layers) if (index, "in") in heard), last)
    states = [current]
    for index in range(num_layers):
        current = heard.get((index, "out"), current)
        states.append(current)
    return (*states[:-1], last)


def _given_states(outputs: Any) -> tuple[torch.Tensor, ...] | None:
    found = outputs.get("hidden_states") if isinstance(outputs, dict) else getattr(outputs, "hidden_states", None)
    if not isinstance(found, list | tuple) or len(found) < 1:
        return None
    return tuple(found) if all(isinstance(one, torch.Tensor) and one.ndim == 3 for one in found) else None


def _last_state(outputs: Any) -> torch.Tensor | None:
    found = outputs.get("last_hidden_state") if isinstance(outputs, dict) else outputs
    return _output(found if isinstance(outputs, dict) else getattr(outputs, "last_hidden_state", outputs))
