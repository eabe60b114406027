"""The audio tower of CLAP (Wu et al. 2023): a Swin transformer on ten seconds of log-mel spectrogram as an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import ClapAudioModel, ClapFeatureExtractor

from ser_scripts.errors import BadInput
from ser_scripts.modeling.families.base import Clip, TransformersEncoder


class ClapEncoder(TransformersEncoder):
    """CLAP's audio model (HTSAT), plain or fused.

    It hears a picture of fixed size: a shorter clip is repeated as often as it fits into the length that the extractor
    says (10 s), and the rest is silence, as in its pre-training. So all clips have one length, and no batch is padded;
    repetitions and that silence count in every pooling. Longer clips are heard in windows (`takes_seconds`), so that of
    the fused models only the path for short clips is used.

    The widths of its four stages differ, so the hidden states are those of the last stage: state 0 is its input, and
    the blocks of that stage are the layers. Positions in frequency are averaged; what remains are 32 frames in time,
    whose mean is the pooled output of transformers.
    """

    WEIGHT = "audio_encoder.patch_embed.proj.weight"
    LORA_TARGETS = ("query", "value")
    IA3_TARGETS = ("key", "value")

    @staticmethod
    def build(config: Any) -> nn.Module:
        """`ClapAudioModel`."""
        model: nn.Module = ClapAudioModel(config)
        return model

    @staticmethod
    def default_extractor(config: Any) -> Any:
        """48 kHz and 10 s, a hop of 10 ms at the published size, longer where the picture is smaller."""
        width = config.spec_size * (config.spec_size // config.num_mel_bins)
        fused = "fusion" if config.enable_fusion else "rand_trunc"
        return ClapFeatureExtractor(
            feature_size=config.num_mel_bins, hop_length=480 * 1024 // width, truncation=fused, padding="repeatpad"
        )

    @staticmethod
    def load_extractor(folder: str) -> Any:
        """Read preprocessor_config.json."""
        return ClapFeatureExtractor.from_pretrained(folder)

    @property
    def hidden_size(self) -> int:
        """D, the width of the last stage."""
        return int(self.model.audio_encoder.num_features)

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks of the last stage."""
        blocks: nn.ModuleList = self.model.audio_encoder.layers[-1].blocks
        return blocks

    @property
    def min_samples(self) -> int:
        """One: what is short is repeated."""
        return 1

    @property
    def takes_seconds(self) -> float:
        """10 in the published models."""
        return float(self.extractor.nb_max_samples) / self.sample_rate_hz

    def front_end(self) -> list[nn.Module]:
        """The norm of the mel bands and the patches."""
        return [self.model.audio_encoder.batch_norm, self.model.audio_encoder.patch_embed]

    def last_modules(self) -> list[nn.Module]:
        """The final layer norm."""
        return [self.model.audio_encoder.norm]

    def extract(self, clip: Clip) -> Clip:
        """Log-mel frames of the repeated clip, (1001, 64) in the published models."""
        if len(clip) > self.extractor.nb_max_samples:
            raise BadInput(
                f"CLAP hears {self.takes_seconds:g} s at once, and a clip has {len(clip) / self.sample_rate_hz:.2f} s; "
                'cached hidden states ("frozen": true) take no longer ones, "freeze": {"encoder": true} hears '
                "them in windows"
            )
        state = np.random.get_state()  # the extractor draws which of several clips counts as longer
        made = self.extractor(clip, sampling_rate=self.sample_rate_hz, return_tensors="np")
        np.random.set_state(state)
        features: Clip = made["input_features"][0, 0]
        return features

    def frames_of(self, lengths: torch.Tensor) -> torch.Tensor:
        """The same for every clip."""
        ratio, _, width = self._grid()
        return torch.full_like(lengths, ratio * width)

    def embed(self, inputs: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel (B, F, bins) -> positions that enter the last stage (B, P, D), mask (B, P), all of them valid."""
        tower = self.model.audio_encoder
        image = tower.batch_norm(inputs[:, None].transpose(1, 3)).transpose(1, 3)
        nobody = torch.zeros(0, dtype=torch.long, device=inputs.device)  # no clip is longer
        hidden = tower.patch_embed(tower.reshape_mel2img(image), nobody)
        for stage, size in zip(tower.layers[:-1], tower.input_resolutions, strict=False):
            hidden = stage(hidden, size)[0]
        return hidden, torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)

    def layer_arguments(self, hidden: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
        """Height and width of the last stage."""
        return {"input_dimensions": self.model.audio_encoder.input_resolutions[-1]}

    def run_layer(self, layer: nn.Module, hidden: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        """One block."""
        out: torch.Tensor = layer(hidden, **arguments)[0]
        return out

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        """The final layer norm."""
        out: torch.Tensor = self.model.audio_encoder.norm(hidden)
        return out

    def transform(
        self, hidden: torch.Tensor, mask: torch.Tensor, depth: int
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Run the blocks, and turn positions into frames in time."""
        states, _ = super().transform(hidden, mask, depth)
        ratio, bins, width = self._grid()
        frames = tuple(
            state.view(len(state), ratio, bins, width, -1).mean(dim=2).flatten(1, 2) for state in states
        )  # rows of the picture are stretches of time, and within them frequency
        return frames, torch.ones(frames[0].shape[:2], dtype=torch.bool, device=hidden.device)

    def _grid(self) -> tuple[int, int, int]:
        """Of the last stage: stretches of time below each other, positions in frequency, positions in time."""
        height, width = self.model.audio_encoder.input_resolutions[-1]
        ratio = int(self.model.audio_encoder.freq_ratio)
        return ratio, height // ratio, width
