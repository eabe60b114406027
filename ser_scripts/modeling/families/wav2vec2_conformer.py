"""wav2vec 2.0 with conformer layers (Wang et al. 2022, fairseq S2T; Gulati et al. 2020)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ser_scripts.modeling.families.base import frame_mask, silence
from ser_scripts.modeling.families.wav2vec2 import Wav2Vec2Encoder


class Wav2Vec2ConformerEncoder(Wav2Vec2Encoder):
    """The front end of wav2vec 2.0; each layer convolves over time, which in the library reads padded frames too."""

    LORA_TARGETS = ("linear_q", "linear_v")
    IA3_TARGETS = ("linear_k", "linear_v", "output_dense")

    def __init__(self, config: Any, extractor: Any, identity: dict[str, str | None]) -> None:
        super().__init__(config, extractor, identity)
        self._mask: torch.Tensor | None = None  # (B, T), of the batch that goes through
        layer: Any
        for layer in self.layers:
            layer.conv_module.depthwise_conv.register_forward_pre_hook(self._silence_padding)

    def last_modules(self) -> list[nn.Module]:
        """The final layer norm."""
        return [self.model.encoder.layer_norm]

    def embed(self, inputs: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples (B, N), or padded outputs of the convolutions -> (B, T, D), mask (B, T).

        Positions are added inside the layers.
        """
        hidden, frames = self._hear(inputs, lengths)
        self._mask = frame_mask(frames, hidden.shape[1])
        hidden = silence(self.spec_augment(self._project(hidden), self._mask), self._mask)
        return self.model.encoder.dropout(hidden), self._mask

    def layer_arguments(self, hidden: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
        """The mask of attention, and the relative or rotary positions."""
        positions = self.model.encoder.embed_positions
        return {
            "attention_mask": self.attention_mask(hidden, mask),
            "relative_position_embeddings": positions(hidden) if positions is not None else None,
        }

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        """The final layer norm."""
        out: torch.Tensor = self.model.encoder.layer_norm(hidden)
        return out

    def _silence_padding(self, module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        """What a layer's convolution over time gets, (B, D, T), with padded frames at 0."""
        assert self._mask is not None
        return (silence(inputs[0].transpose(1, 2), self._mask).transpose(1, 2),)
