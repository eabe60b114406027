"""w2v-BERT 2.0 (Seamless Communication 2023): log-mel frames, two stacked, into a conformer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertModel

from ser_scripts.modeling.families.base import Clip, TransformersEncoder, frame_mask, silence


class Wav2Vec2BertEncoder(TransformersEncoder):
    """w2v-BERT 2.0. It has no convolutional front end; an adapter behind the last layer is left out."""

    WEIGHT = "feature_projection.projection.weight"
    IGNORED = ("adapter.", "intermediate_ffn.")
    LORA_TARGETS = ("linear_q", "linear_v")
    IA3_TARGETS = ("linear_k", "linear_v", "output_dense")

    @staticmethod
    def prepare(config: Any) -> None:
        """No adapter behind the last layer, nor the feed-forward block that belongs to it."""
        config.use_intermediate_ffn_before_adapter = False
        config.add_adapter = False

    @staticmethod
    def build(config: Any) -> nn.Module:
        """`Wav2Vec2BertModel`."""
        model: nn.Module = Wav2Vec2BertModel(config)
        return model

    @staticmethod
    def default_extractor(config: Any) -> Any:
        """80 mel bins and a stride of 2 in the published model; half the input width in others."""
        bins = config.feature_projection_input_dim // 2
        return SeamlessM4TFeatureExtractor(feature_size=bins, num_mel_bins=bins, stride=2, padding_value=1.0)

    @staticmethod
    def load_extractor(folder: str) -> Any:
        """Read preprocessor_config.json."""
        return SeamlessM4TFeatureExtractor.from_pretrained(folder)

    @property
    def layers(self) -> nn.ModuleList:
        """The conformer layers."""
        layers: nn.ModuleList = self.model.encoder.layers
        return layers

    @property
    def min_samples(self) -> int:
        """One stacked frame, and two plain ones for the variance of the normalisation."""
        return 400 + 160 * (max(2, int(self.extractor.stride)) - 1)

    @property
    def stacked_frames(self) -> int:
        """The extractor's stride (2 in the published model)."""
        return int(self.extractor.stride)

    def front_end(self) -> list[nn.Module]:
        """None."""
        return []

    def last_modules(self) -> list[nn.Module]:
        """None."""
        return []

    def extract(self, clip: Clip) -> Clip:
        """Log-mel frames, normalised per bin over the clip, two stacked, (T, 2 bins); an odd last frame is left out."""
        made = self.extractor(clip, sampling_rate=self.sample_rate_hz, padding=True, return_tensors="np")
        features: Clip = made["input_features"][0][made["attention_mask"][0].astype(bool)]
        return features

    def frames_of(self, lengths: torch.Tensor) -> torch.Tensor:
        """As many as the features have."""
        return lengths

    def embed(self, inputs: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, T, 2 bins) -> (B, T, D), mask (B, T)."""
        mask = frame_mask(lengths, inputs.shape[1])
        hidden = self.spec_augment(self.model.feature_projection(inputs)[0], mask)
        return self.model.encoder.dropout(silence(hidden, mask)), mask

    def layer_arguments(self, hidden: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
        """Masks for attention and convolution, and the relative positions where they are not inside the layers."""
        positions = self.model.encoder.embed_positions
        return {
            "attention_mask": self.attention_mask(hidden, mask),
            "conv_attention_mask": mask,
            "relative_position_embeddings": positions(hidden) if positions is not None else None,
        }
