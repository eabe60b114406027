"""Encoder families, by the `model_type` of their transformers configuration. A new one is a module and a line here."""

from ser_scripts.modeling.families.base import Encoder, TransformersEncoder
from ser_scripts.modeling.families.clap import ClapEncoder
from ser_scripts.modeling.families.moonshine import MoonshineEncoder
from ser_scripts.modeling.families.remote import RemoteEncoder, load_remote_extractor
from ser_scripts.modeling.families.wav2vec2 import SEWEncoder, Wav2Vec2Encoder, WavLMEncoder
from ser_scripts.modeling.families.wav2vec2_bert import Wav2Vec2BertEncoder
from ser_scripts.modeling.families.wav2vec2_conformer import Wav2Vec2ConformerEncoder
from ser_scripts.modeling.families.whisper import WhisperEncoder

FAMILIES: dict[str, type[TransformersEncoder]] = {
    "wav2vec2": Wav2Vec2Encoder,
    "hubert": Wav2Vec2Encoder,
    "unispeech": Wav2Vec2Encoder,
    "unispeech-sat": Wav2Vec2Encoder,
    "data2vec-audio": Wav2Vec2Encoder,
    "wavlm": WavLMEncoder,
    "sew": SEWEncoder,
    "wav2vec2-bert": Wav2Vec2BertEncoder,
    "wav2vec2-conformer": Wav2Vec2ConformerEncoder,
    "whisper": WhisperEncoder,
    "moonshine": MoonshineEncoder,
    "clap_audio_model": ClapEncoder,
}

__all__ = ["FAMILIES", "Encoder", "RemoteEncoder", "TransformersEncoder", "load_remote_extractor"]
