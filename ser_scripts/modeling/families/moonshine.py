"""The encoder of Moonshine (Jeffries et al. 2024): a convolutional stem on raw audio, rotary positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import Wav2Vec2FeatureExtractor
from transformers.models.moonshine.modeling_moonshine import MoonshineEncoder as Model

from ser_scripts.modeling.families.base import Clip, TransformersEncoder, frame_mask
from ser_scripts.modeling.masking import conv_length, masked_group_norm, receptive_field


class MoonshineEncoder(TransformersEncoder):
    """Moonshine. Its stem normalises over time, here over the valid frames of each clip."""

    WEIGHT = "conv1.weight"
    IA3_TARGETS = ("k_proj", "v_proj", "fc2")

    @staticmethod
    def build(config: Any) -> nn.Module:
        """The encoder alone, no decoder."""
        model: nn.Module = Model(config)
        return model

    @staticmethod
    def default_extractor(config: Any) -> Any:
        """16 kHz, samples as they are."""
        return Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)

    @staticmethod
    def load_extractor(folder: str) -> Any:
        """Read preprocessor_config.json."""
        return Wav2Vec2FeatureExtractor.from_pretrained(folder)

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers."""
        layers: nn.ModuleList = self.model.layers
        return layers

    @property
    def min_samples(self) -> int:
        """The receptive field of one frame (895 samples, 56 ms)."""
        return receptive_field(*self._stem())

    def front_end(self) -> list[nn.Module]:
        """The stem: three convolutions and the norm between them."""
        return [self.model.conv1, self.model.groupnorm, self.model.conv2, self.model.conv3]

    def last_modules(self) -> list[nn.Module]:
        """The final layer norm."""
        return [self.model.layer_norm]

    def extract(self, clip: Clip) -> Clip:
        """Samples, normalised per clip when the extractor says so, (N,)."""
        values: Clip = self.extractor(clip, sampling_rate=self.sample_rate_hz, padding=False)["input_values"][0]
        return values

    def frames_of(self, lengths: torch.Tensor) -> torch.Tensor:
        """Frames of the stem."""
        for kernel, stride in zip(*self._stem(), strict=True):
            lengths = conv_length(lengths, kernel, stride)
        return lengths

    def embed(self, inputs: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples (B, N) -> (B, T, D), mask (B, T)."""
        hidden = torch.tanh(self.model.conv1(inputs[:, None]))
        kernels, strides = self._stem()
        stem_mask = frame_mask(conv_length(lengths, kernels[0], strides[0]), hidden.shape[-1])
        hidden = masked_group_norm(hidden, stem_mask, self.model.groupnorm)
        hidden = nn.functional.gelu(self.model.conv2(hidden))
        hidden = nn.functional.gelu(self.model.conv3(hidden)).transpose(1, 2)
        return hidden, frame_mask(self.frames_of(lengths), hidden.shape[1])

    def layer_arguments(self, hidden: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
        """The mask and the rotary positions."""
        position_ids = torch.arange(hidden.shape[1], device=hidden.device)[None]
        return {
            "attention_mask": self.attention_mask(hidden, mask),
            "position_ids": position_ids,
            "position_embeddings": self.model.rotary_emb(hidden, position_ids=position_ids),
        }

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        """The final layer norm."""
        out: torch.Tensor = self.model.layer_norm(hidden)
        return out

    def _stem(self) -> tuple[list[int], list[int]]:
        stem = [self.model.conv1, self.model.conv2, self.model.conv3]
        return [conv.kernel_size[0] for conv in stem], [conv.stride[0] for conv in stem]
