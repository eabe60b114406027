"""What every encoder has: features per clip, padded batches, all hidden states; and what families share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers.masking_utils import create_bidirectional_mask

from ser_scripts.errors import BadInput
from ser_scripts.modeling.linear import use_onednn
from ser_scripts.modeling.masking import frame_mask

Clip = NDArray[np.float32]


class Encoder(nn.Module):
    """Reads clips and gives hidden states; its result for a clip does not depend on the other clips of its batch.

    This is all that models, training and prediction know of an encoder. Dropout draws from torch's generator, which a
    trainer seeds.
    """

    def __init__(self, config: Any, extractor: Any, identity: dict[str, str | None]) -> None:
        """Keep what describes the encoder; `build_encoder` is the public way in.

        Args:
            config: has `to_dict`, the content of config.json
            extractor: has `sampling_rate` and `save_pretrained`, which writes preprocessor_config.json
            identity: name, revision and sha256
        """
        super().__init__()
        self.config = config
        self.extractor = extractor
        self.sample_rate_hz = int(extractor.sampling_rate)
        self._identity = dict(identity)

    # What a kind of encoder provides

    @property
    def hidden_size(self) -> int:
        """D, the width of every hidden state."""
        raise NotImplementedError

    @property
    def layers(self) -> nn.ModuleList:
        """The layers behind each of which there is a hidden state, first to last."""
        raise NotImplementedError

    @property
    def min_samples(self) -> int:
        """Shorter clips are padded with zeros to this many samples before their features are taken."""
        raise NotImplementedError

    def extract(self, clip: Clip) -> Clip:
        """Features of one clip that is at least `min_samples` long; time is the first axis."""
        raise NotImplementedError

    def frames_of(self, lengths: torch.Tensor) -> torch.Tensor:
        """Frames of the hidden states for each feature length."""
        raise NotImplementedError

    def forward(
        self, inputs: torch.Tensor, lengths: torch.Tensor, last_layer: int | None = None
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Hidden states of a padded batch.

        Args:
            inputs: what `collate` gives
            lengths: valid length of each row of `inputs`, (B,)
            last_layer: stop behind this layer (0: run none); all of them when None

        Returns:
            the input of the first layer and the output of each one, (B, T, D) each, the last passed through what the
            model has behind its last layer; and the frame mask (B, T). Values at padded frames are meaningless.
        """
        raise NotImplementedError

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the layers in the backward pass: less memory, more time, the same gradients."""
        raise NotImplementedError

    # What most do not need to change

    def code_sums(self) -> dict[str, str]:
        """SHA-256 of each file of code that came with the weights and ran; {} where there is none."""
        return {}

    def save_code(self, folder: Path) -> None:
        """Write code that a saved model needs beside its weights: none, but for an encoder that brings its own."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.parameters()).dtype

    @property
    def stacked_frames(self) -> int:
        """Frames of the spectrogram that stand side by side in one row of the features."""
        return 1

    @property
    def window_seconds(self) -> float | None:
        """The longest stretch that the layers hear at once; longer clips go through in windows. None: no limit."""
        return None

    @property
    def takes_seconds(self) -> float | None:
        """The longest clip that `features` takes; longer ones must come in windows. None: no limit."""
        return None

    @property
    def num_layers(self) -> int:
        """Number of layers; there is one hidden state more."""
        return len(self.layers)

    @property
    def fixed_seconds(self) -> float | None:
        """The length that every clip is given before its features are taken; None where clips keep their own."""
        return None

    def freezable(self, depth: int) -> list[nn.Module]:
        """What `freeze.all_but_last` counts, first to last: the layers, as far as `depth` of them are used."""
        return list(self.layers[:depth])

    def front_end(self) -> list[nn.Module]:
        """The pretrained convolutional front end; empty where there is none."""
        return []

    @property
    def hears_alone(self) -> bool:
        """Whether `front_output` gives what `forward` would compute: the front end is there, and is not trained."""
        return False

    def front_output(self, features: torch.Tensor) -> torch.Tensor:
        """What the front end makes of the features of one clip, (T, C); `forward` takes it in their place, padded.

        Only where `hears_alone`. It depends on the clip alone, so that a trainer may keep it.
        """
        raise NotImplementedError

    def last_modules(self) -> list[nn.Module]:
        """Modules behind the last layer, which only the last hidden state passes."""
        return []

    def front_end_parameters(self) -> list[nn.Parameter]:
        """Parameters of the convolutional front end."""
        return [parameter for module in self.front_end() for parameter in module.parameters()]

    def layer_parameters(self, index: int) -> list[nn.Parameter]:
        """Parameters of one layer, counted from 0."""
        return list(self.layers[index].parameters())

    def identity(self) -> dict[str, str | None]:
        """Name, revision, and SHA-256 of the weight file(s); of the configuration when the weights are random."""
        return dict(self._identity)

    def num_frames(self, length: int) -> int:
        """Frames of the hidden states for features of this length (the first axis of what `features` gives)."""
        return int(self.frames_of(torch.tensor(length)))

    def features(self, clip: Clip) -> Clip:
        """What the encoder hears of one clip: the family's own features and normalisation, before any padding.

        Args:
            clip: mono, `sample_rate_hz`, shape (samples,); clips under `min_samples` are padded with zeros at the end

        Returns:
            float32: samples (N,), or frames of a spectrogram (T, bins)
        """
        clip = np.asarray(clip, dtype=np.float32)
        if clip.ndim != 1 or not len(clip):
            raise BadInput(f"a clip must be mono, with the shape (samples,) and at least one sample; got {clip.shape}")
        if len(clip) < self.min_samples:
            clip = np.pad(clip, (0, self.min_samples - len(clip)))
        return np.ascontiguousarray(self.extract(clip), dtype=np.float32)

    def collate(self, features: Sequence[Clip]) -> dict[str, torch.Tensor]:
        """Pad features with zeros at the end to the longest.

        Returns:
            `inputs` (B, N) or (B, T, bins), float32, and `lengths` (B,), int64
        """
        lengths = torch.tensor([len(item) for item in features])
        inputs = torch.zeros((len(features), int(lengths.max()), *features[0].shape[1:]))
        for row, item in zip(inputs, features, strict=True):
            row[: len(item)] = torch.from_numpy(np.array(item))
        return {"inputs": inputs, "lengths": lengths}


class TransformersEncoder(Encoder):
    """A speech encoder of transformers.

    The modules and weights are those of transformers; the forward pass is ours, because the library's leaks padding:
    group norms over time, stacked positional convolutions, Whisper's attention, models whose extractor gives no mask.

    Randomness in training mode: dropout and layer drop draw from torch's generator, SpecAugment (where the pretrained
    configuration has it) from `numpy.random`; a trainer seeds both. A layer in eval mode is never dropped.

    Subclasses say how the model is built, how features become frames (`embed`), and where their layers are.
    """

    WEIGHT: ClassVar[str]
    """The name of a weight that every file of this family holds exactly once; what precedes it is the file's prefix."""
    IGNORED: ClassVar[tuple[str, ...]] = ()
    """Prefixes (inside the encoder) of weights that a file may hold and this project does not use."""
    LORA_TARGETS: ClassVar[tuple[str, ...]] = ("q_proj", "v_proj")
    """What LoRA adapts when the spec does not say it: queries and values, as its authors advise."""
    IA3_TARGETS: ClassVar[tuple[str, ...]] = ("k_proj", "v_proj", "output_dense")
    """Likewise for IA3: keys, values, and the second feed-forward layer."""
    IA3_FEEDFORWARD: ClassVar[tuple[str, ...]] = ("output_dense", "fc2")
    """Second feed-forward layers, whose inputs IA3 scales."""
    BYPASSED: ClassVar[tuple[str, ...]] = ()
    """Layers whose weights are read without calling them, so that an adapter around them would do nothing."""

    def __init__(self, config: Any, extractor: Any, identity: dict[str, str | None]) -> None:
        """Build the modules with random weights (torch's generator).

        Args:
            config: the transformers configuration
            extractor: the transformers feature extractor, used for one clip at a time
            identity: name, revision and sha256
        """
        super().__init__(config, extractor, identity)
        self.model: Any = self.build(config)
        use_onednn(self.model)

    # What a family provides

    @staticmethod
    def prepare(config: Any) -> None:
        """Switch off, in place, the parts of a configuration that are not used here."""

    @staticmethod
    def build(config: Any) -> nn.Module:
        """The transformers module of the encoder alone."""
        raise NotImplementedError

    @staticmethod
    def default_extractor(config: Any) -> Any:
        """The feature extractor of a configuration that comes without one (random weights)."""
        raise NotImplementedError

    @staticmethod
    def load_extractor(folder: str) -> Any:
        """Read preprocessor_config.json."""
        raise NotImplementedError

    def embed(self, inputs: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Padded features -> input of the first layer (B, T, D) and frame mask (B, T)."""
        raise NotImplementedError

    def layer_arguments(self, hidden: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
        """What every layer gets besides the hidden states."""
        return {"attention_mask": self.attention_mask(hidden, mask)}

    def run_layer(self, layer: nn.Module, hidden: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        """One transformer layer, (B, T, D) -> (B, T, D)."""
        out: torch.Tensor = layer(hidden, **arguments)
        return out

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        """What the model does behind its last layer, (B, T, D) -> (B, T, D)."""
        return hidden

    def drop_probability(self, index: int) -> float:
        """Layer-drop probability of a layer in training mode."""
        return float(getattr(self.config, "layerdrop", 0.0))

    # What every family has

    @property
    def hidden_size(self) -> int:
        """D, the width of every hidden state."""
        return int(self.config.hidden_size)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the transformer layers in the backward pass."""
        self.model.activation_checkpointing_enable({"use_reentrant": False})

    def forward(
        self, inputs: torch.Tensor, lengths: torch.Tensor, last_layer: int | None = None
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Hidden states of a padded batch."""
        hidden, mask = self.embed(inputs.to(self.model.dtype), lengths.to(inputs.device))
        return self.transform(hidden, mask, self.num_layers if last_layer is None else last_layer)

    def transform(
        self, hidden: torch.Tensor, mask: torch.Tensor, depth: int
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Run the first `depth` layers and keep every hidden state."""
        states = [hidden]
        arguments = self.layer_arguments(hidden, mask) if depth else {}
        for index, layer in enumerate(self.layers[:depth]):
            drop = self.drop_probability(index) if layer.training else 0.0
            if drop == 0.0 or torch.rand(()).item() >= drop:
                hidden = self.run_layer(layer, hidden, arguments)
            states.append(hidden)
        if depth == self.num_layers:
            states[-1] = self.finish(hidden)
        return tuple(states), mask

    def attention_mask(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | None:
        """The mask in the form that the configured attention wants; None when nothing is padded."""
        made: torch.Tensor | None = create_bidirectional_mask(
            config=self.model.config, inputs_embeds=hidden, attention_mask=mask
        )
        return made

    def spec_augment(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The library's SpecAugment, where the pretrained configuration has it; only in training mode."""
        if not self.model.training or hidden.shape[1] < self.config.mask_time_length:
            return hidden
        masked: torch.Tensor = self.model._mask_hidden_states(hidden, attention_mask=mask)
        return masked


def pad(outputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames of several clips, (T, C) each, with zeros behind them: (B, T, C), and their numbers, (B,)."""
    lengths = torch.tensor([len(output) for output in outputs], device=outputs[0].device)
    padded = outputs[0].new_zeros((len(outputs), max(map(len, outputs)), *outputs[0].shape[1:]))
    for row, output in zip(padded, outputs, strict=True):
        row[: len(output)] = output
    return padded, lengths


def silence(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Set padded frames of (B, T, D) to 0, so that a convolution reads there what it reads beyond a lone clip's end."""
    return hidden.masked_fill(~mask[..., None], 0.0)


__all__ = ["Clip", "Encoder", "TransformersEncoder", "frame_mask", "pad", "silence"]
