"""The encoder of Whisper (Radford et al. 2022): log-mel frames, two convolutions, absolute positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import WhisperFeatureExtractor, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder as Model

from ser_scripts.modeling.families.base import Clip, TransformersEncoder, frame_mask, silence


class WhisperEncoder(TransformersEncoder):
    """Whisper, never padded to 30 s: positions are cropped to the longest clip, attention sees valid frames only.

    The log-mel floor (8 below the loudest) is that of the clip itself. Clips beyond the positions (1500 frames, 30 s)
    go through the transformer in windows of that length, each two thirds of a window after the one before (20 s); where
    windows overlap, hidden states are averaged. The grid of windows starts at the clip's beginning, so that it does not
    depend on the batch.
    """

    WEIGHT = "conv1.weight"
    IA3_TARGETS = ("k_proj", "v_proj", "fc2")

    @staticmethod
    def build(config: Any) -> nn.Module:
        """The encoder alone, no decoder."""
        model: nn.Module = Model(config)
        return model

    @staticmethod
    def default_extractor(config: Any) -> Any:
        """As many mel bins as the configuration has."""
        return WhisperFeatureExtractor(feature_size=config.num_mel_bins)

    @staticmethod
    def load_extractor(folder: str) -> Any:
        """Read preprocessor_config.json."""
        return WhisperFeatureExtractor.from_pretrained(folder)

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers."""
        layers: nn.ModuleList = self.model.layers
        return layers

    @property
    def min_samples(self) -> int:
        """One analysis window (400 samples, 25 ms)."""
        return int(self.extractor.n_fft)

    @property
    def window_seconds(self) -> float:
        """As many frames as there are positions (30 s in the published models)."""
        return 2 * int(self.config.max_source_positions) * int(self.extractor.hop_length) / self.sample_rate_hz

    def front_end(self) -> list[nn.Module]:
        """The two convolutions."""
        return [self.model.conv1, self.model.conv2]

    def last_modules(self) -> list[nn.Module]:
        """The final layer norm."""
        return [self.model.layer_norm]

    def extract(self, clip: Clip) -> Clip:
        """Log-mel frames of the clip's own length, (samples // 160, bins)."""
        made = self.extractor(
            clip, sampling_rate=self.sample_rate_hz, padding="do_not_pad", truncation=False, return_tensors="np"
        )
        features: Clip = made["input_features"][0].T
        return features

    def frames_of(self, lengths: torch.Tensor) -> torch.Tensor:
        """Half of the features' frames, rounded up."""
        return (lengths + 1) // 2

    def embed(self, inputs: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel (B, F, bins) -> frames before positions are added (B, T, D), mask (B, T)."""
        mask = frame_mask(lengths, inputs.shape[1])
        hidden = silence(self.spec_augment(inputs, mask), mask).transpose(1, 2)
        hidden = nn.functional.gelu(self.model.conv1(hidden)).transpose(1, 2)
        hidden = silence(hidden, mask).transpose(1, 2)  # conv2 reads one frame beyond the end
        hidden = nn.functional.gelu(self.model.conv2(hidden)).transpose(1, 2)
        return hidden, frame_mask(self.frames_of(lengths), hidden.shape[1])

    def spec_augment(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Whisper masks its log-mel input, (B, F, bins), and only where `apply_spec_augment` is set."""
        if not self.model.training or hidden.shape[1] < self.config.mask_time_length:
            return hidden
        mel = hidden.transpose(1, 2).clone()  # the library writes in place
        masked: torch.Tensor = WhisperModel._mask_input_features(self.model, mel, attention_mask=mask)
        return masked.transpose(1, 2)

    def drop_probability(self, index: int) -> float:
        """Whisper's name of the setting is `encoder_layerdrop`."""
        return float(self.config.encoder_layerdrop)

    def transform(
        self, hidden: torch.Tensor, mask: torch.Tensor, depth: int
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Add positions and run the layers, in overlapping windows where a clip is longer than the positions."""
        positions = self.model.embed_positions.weight
        window = len(positions)
        if hidden.shape[1] <= window:
            return super().transform(self._drop(hidden + positions[: hidden.shape[1]]), mask, depth)
        hop = max(1, window * 2 // 3)
        lengths = mask.sum(dim=1).tolist()
        pieces = [
            (row, start)
            for row, length in enumerate(lengths)
            for start in range(0, hidden.shape[1], hop)
            if start == 0 or length > start - hop + window
        ]
        parts = [hidden[row, start : start + window] for row, start in pieces]
        stacked = nn.utils.rnn.pad_sequence(parts, batch_first=True)
        part_mask = frame_mask(
            torch.tensor([min(lengths[row] - start, window) for row, start in pieces], device=hidden.device),
            stacked.shape[1],
        )
        states, _ = super().transform(self._drop(stacked + positions[: stacked.shape[1]]), part_mask, depth)
        return tuple(_average_overlap(state, pieces, parts, hidden.shape) for state in states), mask

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        """The final layer norm."""
        out: torch.Tensor = self.model.layer_norm(hidden)
        return out

    def _drop(self, hidden: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(hidden, p=self.config.dropout, training=self.model.training)


def _average_overlap(
    state: torch.Tensor, pieces: list[tuple[int, int]], parts: list[torch.Tensor], shape: torch.Size
) -> torch.Tensor:
    """Put windows (W, window, D) back at their places in (B, T, D), averaged where they overlap."""
    total = state.new_zeros(shape)
    count = state.new_zeros((*shape[:2], 1))
    for window, (row, start), part in zip(state, pieces, parts, strict=True):
        total[row, start : start + len(part)] += window[: len(part)]
        count[row, start : start + len(part)] += 1
    return total / count.clamp(min=1)
