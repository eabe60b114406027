"""Raw-waveform encoders of the wav2vec 2.0 build: convolutions, a positional convolution, a transformer.

wav2vec 2.0 (Baevski et al. 2020), HuBERT (Hsu et al. 2021), WavLM (Chen et al. 2022), UniSpeech (Wang et al. 2021),
UniSpeech-SAT (Chen et al. 2022), data2vec-audio (Baevski et al. 2022) and SEW (Wu et al. 2022).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from transformers import MODEL_MAPPING, Wav2Vec2FeatureExtractor

from ser_scripts.modeling.families.base import Clip, TransformersEncoder, frame_mask, pad, silence
from ser_scripts.modeling.masking import conv_length, masked_group_norm, receptive_field


class Wav2Vec2Encoder(TransformersEncoder):
    """wav2vec 2.0, HuBERT, UniSpeech, UniSpeech-SAT and data2vec-audio.

    Adapters behind the last layer (`add_adapter`) are left out: hidden states are those of the transformer.
    """

    WEIGHT = "feature_extractor.conv_layers.0.conv.weight"
    IGNORED = ("adapter.",)

    @staticmethod
    def prepare(config: Any) -> None:
        """No adapter behind the last layer."""
        if getattr(config, "add_adapter", False):
            config.add_adapter = False

    @staticmethod
    def build(config: Any) -> nn.Module:
        """The `...Model` class of the configuration."""
        model: nn.Module = MODEL_MAPPING[type(config)](config)
        return model

    @staticmethod
    def default_extractor(config: Any) -> Any:
        """16 kHz, each clip to zero mean and unit variance."""
        return Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)

    @staticmethod
    def load_extractor(folder: str) -> Any:
        """Read preprocessor_config.json."""
        return Wav2Vec2FeatureExtractor.from_pretrained(folder)

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers."""
        layers: nn.ModuleList = self.model.encoder.layers
        return layers

    @property
    def min_samples(self) -> int:
        """The receptive field of one frame (400 samples, 25 ms, in the published models)."""
        return receptive_field(list(self.config.conv_kernel), list(self.config.conv_stride))

    def front_end(self) -> list[nn.Module]:
        """The convolutional feature encoder, what the library's `freeze_feature_encoder` freezes."""
        return [self.model.feature_extractor]

    def last_modules(self) -> list[nn.Module]:
        """The final layer norm of the pre-norm build."""
        return [self.model.encoder.layer_norm] if self._pre_norm else []

    def extract(self, clip: Clip) -> Clip:
        """Samples, normalised per clip when the extractor says so, (N,)."""
        values: Clip = self.extractor(clip, sampling_rate=self.sample_rate_hz, padding=False)["input_values"][0]
        return values

    def frames_of(self, lengths: torch.Tensor) -> torch.Tensor:
        """Frames of the convolutions."""
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            lengths = conv_length(lengths, kernel, stride)
        return lengths

    @property
    def hears_alone(self) -> bool:
        """Whether the convolutions are not trained now; then each clip of a batch goes through them alone."""
        trained = torch.is_grad_enabled() and any(part.requires_grad for part in self.front_end_parameters())
        return not trained

    @torch.no_grad()
    def front_output(self, features: torch.Tensor) -> torch.Tensor:
        """Samples of one clip (N,) -> what the convolutions make of them, (T, C); nothing is padded."""
        hidden = features.to(self.model.dtype)[None, None]  # (1, 1, N)
        for layer in self.model.feature_extractor.conv_layers:
            hidden = layer(hidden)
        return hidden[0].T.contiguous()

    def embed(self, inputs: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples (B, N), or padded outputs of the convolutions -> (B, T, D), mask (B, T)."""
        hidden, frames = self._hear(inputs, lengths)
        mask = frame_mask(frames, hidden.shape[1])
        hidden = silence(self.spec_augment(self._project(hidden), mask), mask)
        hidden = hidden + self._positions(hidden, mask)
        if not self._pre_norm:
            hidden = self.model.encoder.layer_norm(hidden)
        return self.model.encoder.dropout(hidden), mask

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        """The final layer norm of the pre-norm build."""
        return self.model.encoder.layer_norm(hidden) if self._pre_norm else hidden

    @property
    def _pre_norm(self) -> bool:
        return bool(getattr(self.config, "do_stable_layer_norm", False))

    def _hear(self, inputs: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the convolutions give, (B, T, C), and how many frames of it are valid, (B,).

        Args:
            inputs: samples (B, N), or the outputs of `front_output`, padded (B, T, C)
            lengths: valid ones, (B,)
        """
        if inputs.ndim == 3:
            return inputs, lengths
        if self.hears_alone:
            hidden, frames = pad(
                [self.front_output(row[:length]) for row, length in zip(inputs, lengths.tolist(), strict=True)]
            )
            return hidden.to(self.model.dtype), frames  # as `forward` does with outputs that were kept
        return self._convolve(inputs, lengths), Wav2Vec2Encoder.frames_of(self, lengths)

    def _convolve(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The convolutions over a padded batch, for training them."""
        hidden = inputs[:, None]  # (B, 1, N)
        shapes = zip(self.config.conv_kernel, self.config.conv_stride, strict=True)
        for layer, (kernel, stride) in zip(self.model.feature_extractor.conv_layers, shapes, strict=True):
            lengths = conv_length(lengths, kernel, stride)
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                hidden = layer.conv(hidden)
                mask = frame_mask(lengths, hidden.shape[-1])
                hidden = layer.activation(masked_group_norm(hidden, mask, norm))
            else:
                hidden = layer(hidden)
        return hidden.transpose(1, 2)  # (B, T, C)

    def _project(self, hidden: torch.Tensor) -> torch.Tensor:
        projected: Any = self.model.feature_projection(hidden)
        out: torch.Tensor = projected[0] if isinstance(projected, tuple) else projected
        return out

    def _positions(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        embed = self.model.encoder.pos_conv_embed
        if hasattr(embed, "layers"):  # data2vec: a stack, and each of its layers fills the padding anew
            for layer in embed.layers:
                hidden = layer(silence(hidden, mask).transpose(1, 2)).transpose(1, 2)
            return hidden
        if getattr(embed, "batch_norm", None) is not None:  # some HuBERT: the norm moves padding away from 0
            hidden = silence(embed.batch_norm(hidden.transpose(1, 2)).transpose(1, 2), mask)
            hidden = embed.activation(embed.padding(embed.conv(hidden.transpose(1, 2))))
            return hidden.transpose(1, 2)
        hidden = embed(hidden)
        return hidden


class WavLMEncoder(Wav2Vec2Encoder):
    """WavLM: the first layer makes a relative position bias that all others use, so it is never dropped.

    Its attention hands the weights of its four maps to torch, so that adapters go to the feed-forward layers.
    """

    LORA_TARGETS = ("intermediate_dense", "output_dense")
    IA3_TARGETS = ("output_dense",)
    BYPASSED = ("q_proj", "k_proj", "v_proj", "out_proj")

    def drop_probability(self, index: int) -> float:
        """0 for the first layer."""
        return super().drop_probability(index) if index else 0.0

    def layer_arguments(self, hidden: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
        """The 2-D mask, which WavLM's attention wants, and the position bias, not made yet."""
        return {"attention_mask": None if bool(mask.all()) else mask, "position_bias": None}

    def run_layer(self, layer: nn.Module, hidden: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        """One layer; keeps the position bias for the next one."""
        with warnings.catch_warnings():  # the library gives torch a bool and a float mask, which works
            warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
            hidden, arguments["position_bias"] = layer(hidden, **arguments)
        return hidden


class SEWEncoder(Wav2Vec2Encoder):
    """SEW: the transformer runs on squeezed frames, and the last hidden state is stretched back.

    The other hidden states repeat each frame `squeeze_factor` times, so that all have one length. A remainder of frames
    that fills no squeezed one is left out.
    """

    @property
    def min_samples(self) -> int:
        """Enough for one squeezed frame."""
        kernels, strides = list(self.config.conv_kernel), list(self.config.conv_stride)
        return receptive_field(kernels, strides, int(self.config.squeeze_factor))

    def last_modules(self) -> list[nn.Module]:
        """The upsampling layer."""
        return [self.model.encoder.upsample]

    def frames_of(self, lengths: torch.Tensor) -> torch.Tensor:
        """Frames of the convolutions, down to a multiple of `squeeze_factor`."""
        factor = int(self.config.squeeze_factor)
        return super().frames_of(lengths) // factor * factor

    def _project(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = self.model.layer_norm(hidden)
        if self.model.project_features:
            hidden = self.model.feature_projection(hidden)
        out: torch.Tensor = self.model.feature_dropout(hidden)
        return out

    def embed(self, inputs: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples (B, N), or padded outputs of the convolutions -> squeezed frames (B, T, D), mask (B, T)."""
        encoder = self.model.encoder
        hidden, lengths = self._hear(inputs, lengths)
        mask = frame_mask(lengths, hidden.shape[1])
        hidden = silence(self.spec_augment(self._project(hidden), mask), mask).transpose(1, 2)
        pooled, positions = encoder.pool(hidden), encoder.pos_conv_embed(hidden)
        hidden = (pooled + positions[..., : pooled.shape[-1]]).transpose(1, 2)
        mask = frame_mask(lengths // int(self.config.squeeze_factor), hidden.shape[1])
        return encoder.dropout(encoder.layer_norm(hidden)), mask

    def transform(
        self, hidden: torch.Tensor, mask: torch.Tensor, depth: int
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Run the layers on squeezed frames and bring every hidden state to the frame rate of the convolutions."""
        states, mask = super().transform(hidden, mask, depth)
        factor = int(self.config.squeeze_factor)
        long = [state if len(state[0]) > len(mask[0]) else state.repeat_interleave(factor, dim=1) for state in states]
        return tuple(long), mask.repeat_interleave(factor, dim=1)

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        """Stretch back to the frame rate of the convolutions."""
        out: torch.Tensor = self.model.encoder.upsample(hidden)
        return out
