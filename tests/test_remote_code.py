"""Encoders whose code comes with their weights: nothing of it runs without the flag, and what ran stands in the record.

The encoder of these tests is built the way MERT is: subclasses of HuBERT's configuration and model in two files beside
config.json, which leave a mark in a file whenever they are imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from ser_eval.run_folder import read_json, write_json
from ser_scripts import cli
from ser_scripts.errors import BadInput
from ser_scripts.modeling import places, remote_code
from ser_scripts.modeling.encoders import build_encoder
from ser_scripts.modeling.families import FAMILIES, RemoteEncoder
from ser_scripts.modeling.frozen import FrozenModel, frozen_encoder
from ser_scripts.modeling.model import SerModel
from ser_scripts.runs.plan import load_model
from ser_scripts.specs.base import parse
from ser_scripts.specs.model import WITHOUT_LAYERS, ModelSpec, PretrainedEncoder
from tests.tiny import clips, ser

WITNESS = "import os, pathlib\nwith pathlib.Path(os.environ['WITNESS']).open('a') as mark: mark.write('ran\\n')\n"
CONFIGURATION = f"""{WITNESS}
from transformers import PretrainedConfig

SMALL = dict(
    hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, conv_dim=[8, 8],
    conv_kernel=[10, 3], conv_stride=[5, 40], num_feat_extract_layers=2, num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2, hidden_act="gelu", hidden_dropout=0.1, activation_dropout=0.1,
    attention_dropout=0.1, feat_proj_dropout=0.0, feat_proj_layer_norm=True, layerdrop=0.1, initializer_range=0.02,
    layer_norm_eps=1e-5, feat_extract_norm="group", feat_extract_activation="gelu", conv_bias=False,
    do_stable_layer_norm=False, apply_spec_augment=True, mask_time_prob=0.1, mask_time_length=10, mask_time_min_masks=2,
    mask_feature_prob=0.0, mask_feature_length=10, mask_feature_min_masks=0,
)

class BandConfig(PretrainedConfig):
    model_type = "band_model"

    def __init__(self, **given):
        for name, value in SMALL.items():
            setattr(self, name, given.pop(name, value))
        super().__init__(**given)
"""
HEAD = f"""{WITNESS}
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.hubert.modeling_hubert import (
    HubertEncoder, HubertEncoderStableLayerNorm, HubertFeatureEncoder, HubertFeatureProjection, HubertModel,
)
from .configuration_band import BandConfig

try:
    import an_optional_package_that_is_not_there
except ImportError:
    print("WARNING: without the optional package")
"""
MODELING = f"""{HEAD}
class BandModel(HubertModel):
    config_class = BandConfig
    base_model_prefix = "band"

    def __init__(self, config):
        super(HubertModel, self).__init__(config)
        self.config = config
        self.feature_extractor = HubertFeatureEncoder(config)
        self.feature_projection = HubertFeatureProjection(config)
        self.masked_spec_embed = nn.Parameter(torch.empty(config.hidden_size).uniform_())
        self.encoder = (HubertEncoderStableLayerNorm if config.do_stable_layer_norm else HubertEncoder)(config)
        self.post_init()

    def forward(self, input_values, attention_mask=None, output_attentions=None, output_hidden_states=None,
                return_dict=None):
        if return_dict is None:
            return_dict = self.config.use_return_dict
        frames = self.feature_projection(self.feature_extractor(input_values).transpose(1, 2))
        frames = self._mask_hidden_states(frames)
        outputs = self.encoder(
            frames, attention_mask=attention_mask, output_attentions=output_attentions,
            output_hidden_states=output_hidden_states, return_dict=return_dict,
        )
        return BaseModelOutput(last_hidden_state=outputs[0], hidden_states=outputs.hidden_states)
"""
PLAIN = f"{HEAD}\nclass BandModel(HubertModel):\n    config_class = BandConfig\n"
"""Hidden states are given by the model itself."""
UNROLLED = f"""{HEAD}
from transformers import PreTrainedModel

class BandModel(PreTrainedModel):
    config_class = BandConfig

    def __init__(self, config):
        super().__init__(config)
        self.first, self.second = nn.Conv1d(1, 16, 400, 320), nn.Linear(16, 16)
        self.post_init()

    def forward(self, samples):
        one = self.first(samples[:, None]).transpose(1, 2).tanh()
        two = self.second(one).tanh()
        return {{"last_hidden_state": two, "hidden_states": (one, two)}}
"""
"""Hidden states, but no list of layers, nor kernels that tell the frames: conv_kernel is not what it does."""
AUTO_MAP = {"AutoConfig": "configuration_band.BandConfig", "AutoModel": "modeling_band.BandModel"}
MODELINGS = {"layers": MODELING, "stable": MODELING, "plain": PLAIN, "unrolled": UNROLLED}


@pytest.fixture(scope="session")
def bands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoders in save_pretrained layout with their code, by the keys of MODELINGS."""
    root = tmp_path_factory.mktemp("bands")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WITNESS", str(root / "witness"))
        for name, modeling in MODELINGS.items():
            folder = root / name
            folder.mkdir()
            (folder / "configuration_band.py").write_text(CONFIGURATION)
            (folder / "modeling_band.py").write_text(modeling)
            stable = {"do_stable_layer_norm": name == "stable"}
            write_json(folder / "config.json", {"model_type": "band_model", "auto_map": AUTO_MAP, **stable})
            extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 24000}
            write_json(folder / "preprocessor_config.json", {**extractor, "do_normalize": False})
            torch.manual_seed(0)
            content = read_json(folder / "config.json")
            code = remote_code.read_code(content, folder)
            _, model = remote_code.load_classes(code, content, place=str(folder))
            save_file({key: one.contiguous() for key, one in model.state_dict().items()}, folder / "model.safetensors")
    return root


@pytest.fixture
def witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that is there once the code has been imported."""
    file = tmp_path / "witness"
    monkeypatch.setenv("WITNESS", str(file))
    return file


@pytest.fixture
def band(bands: Path, tmp_path: Path, witness: Path) -> Path:
    """A copy of the encoder built as MERT is, whose code this process has not imported yet."""
    return fresh(bands / "layers", tmp_path / "band", f"# of {tmp_path}\n")


def fresh(template: Path, folder: Path, more: str = "") -> Path:
    """A copy with other bytes of code, so that importing it runs it even where another copy has run."""
    shutil.copytree(template, folder)
    for file in folder.glob("*.py"):
        file.write_text(file.read_text() + more)
    return folder


def spec_of(folder: Path, **more: Any) -> PretrainedEncoder:
    return PretrainedEncoder(model_path_or_name=str(folder), **more)


def built(folder: Path, **more: Any) -> RemoteEncoder:
    encoder = build_encoder(spec_of(folder, **more), models=None, remote_code=True)
    assert isinstance(encoder, RemoteEncoder)
    return encoder.eval()


def states_of(encoder: Any, one: np.ndarray) -> list[torch.Tensor]:
    with torch.inference_mode():
        states, mask = encoder(**encoder.collate([encoder.features(one)]))
    assert bool(mask.all())
    return [state[0] for state in states]


# ---- who may run ----


def test_without_the_flag_nothing_is_imported_and_one_sentence_says_what_would_be(
    band: Path, witness: Path, project: Any, tmp_path: Path, capsys: Any
) -> None:
    file = project(model={"encoder": {"model_path_or_name": str(band)}}, seeds=[0])
    frozen = tmp_path / "frozen.json"
    frozen.write_text(json.dumps({"name": "frozen", "encoder": {"model_path_or_name": str(band), "frozen": True}}))
    for command in (["check", file], ["train", file], ["train", file, "--jobs", "2"], ["preview", file],
                    ["embed", frozen, "--corpus", tmp_path]):  # fmt: skip
        assert ser(*command) == 2, command
        said = capsys.readouterr().err
        for part in ("modeling_band.py (BandModel)", "configuration_band.py (BandConfig)", str(band),
                     "no revision named", "--allow-remote-code", "code of strangers"):  # fmt: skip
            assert part in said, command
        assert said.count(". ") == 0, "one sentence"
        assert not witness.exists(), command
    assert ser("check", tmp_path / "tiny.json") == 0
    assert "runs on code of its own, with --allow-remote-code only: configuration_band.py (sha256" in (
        capsys.readouterr().out
    )
    assert not witness.exists(), "reading is not running"
    assert not list((tmp_path / "runs").rglob("run.json"))
    assert ser("check", file, "--allow-remote-code") == 0
    assert witness.exists(), "the witness works"


@pytest.mark.parametrize("key", ["trust_remote_code", "allow_remote_code", "remote_code"])
def test_a_spec_cannot_allow_it(key: str, band: Path, witness: Path, project: Any, capsys: Any) -> None:
    for changes in ({"model": {"encoder": {"model_path_or_name": str(band), key: True}}}, {key: True}):
        assert ser("train", project(**{"model": {"encoder": {"model_path_or_name": str(band)}}, **changes})) == 2
        assert f"{key}: unknown key" in capsys.readouterr().err
    file = project(model={"encoder": {"model_path_or_name": str(band)}})
    assert ser("train", file, "--set", f"model.encoder.{key}=true") == 2
    assert "unknown key" in capsys.readouterr().err
    assert not witness.exists()


def test_the_environment_cannot_allow_it(band: Path, witness: Path, project: Any, monkeypatch: Any) -> None:
    for name in ("TRUST_REMOTE_CODE", "SER_REMOTE_CODE", "SER_ALLOW_REMOTE_CODE", "HF_TRUST_REMOTE_CODE"):
        monkeypatch.setenv(name, "1")
    assert ser("train", project(model={"encoder": {"model_path_or_name": str(band)}})) == 2
    assert not witness.exists()


def test_a_known_model_type_runs_no_code_whatever_its_auto_map_says(
    tiny_whisper: Path, band: Path, witness: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "whisper"
    shutil.copytree(tiny_whisper, folder)
    for file in band.glob("*.py"):
        shutil.copy(file, folder)
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "auto_map": AUTO_MAP})
    for allowed in (False, True):
        encoder = build_encoder(spec_of(folder), models=None, remote_code=allowed)
        assert type(encoder).__name__ == "WhisperEncoder"
    assert not witness.exists()


def test_the_known_types_are_those_of_the_families() -> None:
    assert {*FAMILIES, "clap", *WITHOUT_LAYERS} == remote_code.BUILT_IN


def test_the_help_names_the_flag(capsys: Any) -> None:
    for command in ("check", "train", "tune", "eval", "embed", "preview", "reproduce"):
        assert ser(command, "--help") == 0
        assert "--allow-remote-code" in capsys.readouterr().out, command
    for command in ("split", "prepare", "stats", "report"):
        assert ser(command, "--help") == 0
        assert "--allow-remote-code" not in capsys.readouterr().out, command


# ---- what it hears ----


@pytest.mark.parametrize("name", MODELINGS)
def test_a_clip_gives_the_same_bits_alone_and_in_any_batch(name: str, bands: Path, witness: Path) -> None:
    encoder = built(bands / name)
    assert encoder.sample_rate_hz == 24000
    some = clips(24000, 9000, 15001)
    batch = encoder.collate([encoder.features(clip) for clip in some])
    batch["inputs"][1, 9000:] = 7.0  # what stands in the padding
    with torch.inference_mode():
        states, mask = encoder(**batch)
    for row, clip in enumerate(some):
        alone = states_of(encoder, clip)
        frames = int(mask[row].sum())
        assert frames == encoder.num_frames(len(clip)) == len(alone[0])
        assert all(torch.equal(state[row, :frames], one) for state, one in zip(states, alone, strict=True))
    assert len(states_of(encoder, np.ones(1, dtype=np.float32))[0]) == 1 or name == "unrolled"


@pytest.mark.parametrize("name", ["layers", "stable", "plain"])
def test_hidden_states_are_those_of_hubert_with_the_same_weights(name: str, bands: Path, witness: Path) -> None:
    from transformers import HubertConfig, HubertModel

    encoder = built(bands / name)
    content = {key: value for key, value in encoder.config.to_dict().items() if key not in ("auto_map", "model_type")}
    hubert = HubertModel(HubertConfig.from_dict(content)).eval()
    hubert.load_state_dict(encoder.model.state_dict())
    (clip,) = clips(12000)
    with torch.inference_mode():
        theirs = hubert(torch.from_numpy(clip)[None], output_hidden_states=True)
    ours = states_of(encoder, clip)
    assert len(ours) == len(theirs.hidden_states) == 4
    for one, other in zip(ours, (*theirs.hidden_states[:-1], theirs.last_hidden_state), strict=True):
        assert torch.equal(one, other[0])
    assert encoder.structure.gives_states == (name == "plain")
    assert encoder.structure.stack == "encoder.layers"
    assert encoder.structure.behind == (("encoder.layer_norm",) if name == "stable" else ())
    assert encoder.front_end() == [encoder.model.feature_extractor]
    assert encoder.min_samples == 10 + 2 * 5


def test_building_draws_nothing(bands: Path, witness: Path) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    before: Any = torch.get_rng_state(), np.random.get_state()
    one, other = built(bands / "layers"), built(bands / "layers", dtype="bfloat16")
    assert torch.equal(torch.get_rng_state(), before[0])
    now: Any = np.random.get_state()
    assert np.array_equal(now[1], before[1][1])
    assert now[2] == before[1][2]
    assert other.dtype == torch.bfloat16
    saved = one.model.state_dict()
    assert all(torch.equal(saved[name].bfloat16(), value) for name, value in other.model.state_dict().items())


def model_of(encoder: RemoteEncoder, **parts: Any) -> SerModel:
    content = {"name": "m", "encoder": {"model_path_or_name": "band"}, **parts}
    torch.manual_seed(0)
    return SerModel(parse(ModelSpec, content, source="test", kind="model"), ("a", "b"), encoder=encoder)


def test_layers_freeze_and_learn_one_by_one_where_they_can_be_told(bands: Path, witness: Path) -> None:
    encoder = built(bands / "stable")
    model = model_of(encoder, freeze={"all_but_last": 1}, training={"layer_decay": 0.5, "gradient_checkpointing": True})
    model.enable_gradient_checkpointing()
    trained = {name for name, one in model.named_parameters() if one.requires_grad and name.startswith("encoder.")}
    assert trained == {
        name for name, _ in model.named_parameters() if name.startswith("encoder.model.encoder.layers.2")
    }
    model = model_of(built(bands / "stable"), training={"layer_decay": 0.5}).train()
    frozen = {name for name, one in model.named_parameters() if not one.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if ".feature_extractor." in name}
    rates = {group["name"].partition(",")[2]: group["lr"] for group in model.parameter_groups(1.0, 3.0, 0.0, 0.5)}
    assert rates[" 0 above"] == 1.0
    assert rates[" 3 above"] == 0.125
    features = [model.encoder.features(clip) for clip in clips(24000, 300)]  # the second is shorter than one mask
    model(**model.encoder.collate(features), labels=torch.tensor([0, 1]))["loss"].backward()
    assert any(one.grad is not None and float(one.grad.abs().sum()) > 0 for one in model.encoder.layers.parameters())
    third = model_of(built(bands / "stable"), layers={"use": 1})
    assert third.depth == 1
    assert not any(one.requires_grad for one in third.encoder.layers[1:].parameters())
    assert not any(one.requires_grad for module in third.encoder.last_modules() for one in module.parameters())


def test_of_the_shipped_model_everything_is_trained_but_the_front_end(bands: Path, witness: Path) -> None:
    spec, _ = load_model(Path(__file__).parents[1] / "models/mert-v1-95m.json")
    assert isinstance(spec, ModelSpec)
    model = SerModel(spec, ("a", "b"), encoder=built(bands / "layers")).train()
    names = {name for name, _ in model.named_parameters()}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name in names if name.startswith("encoder.model.feature_extractor.")}
    batch = model.encoder.collate([model.encoder.features(clip) for clip in clips(24000, 20000)])
    model.eval()(**batch, labels=torch.tensor([0, 1]))["loss"].backward()
    unheard = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert unheard == frozen | {"encoder.model.masked_spec_embed"}, "SpecAugment's fill is for training mode"


def test_gradient_checkpointing_gives_the_same_gradients(bands: Path, witness: Path) -> None:
    grads = []
    for checkpointing in (False, True):
        model = model_of(built(bands / "layers"), layers={"use": "weighted"}).eval()
        if checkpointing:
            model.enable_gradient_checkpointing()
        batch = model.encoder.collate([model.encoder.features(clip) for clip in clips(12000, 8000)])
        model(**batch, labels=torch.tensor([0, 1]))["loss"].backward()
        grads.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


def test_layers_that_cannot_be_told_are_refused_one_by_one_only(bands: Path, witness: Path) -> None:
    encoder = built(bands / "unrolled")
    assert encoder.num_layers == 1
    assert len(encoder.layers) == 0
    for parts in (
        {"freeze": {"all_but_last": 1}},
        {"freeze": {"gradual": 1}},
        {"training": {"layer_decay": 0.5}},
    ):
        with pytest.raises(BadInput, match=r"does not show which of its modules are its layers; freeze.encoder"):
            model_of(encoder, **parts)
    model = model_of(encoder, layers={"use": "weighted"}, freeze={"encoder": True})
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    with pytest.raises(BadInput, match=r"gradient_checkpointing: the code of .* does not have it"):
        model.enable_gradient_checkpointing()
    with pytest.raises(BadInput, match="adapter: goes with an encoder of transformers only"):
        model_of(encoder, adapter={"kind": "lora"})


# ---- whole runs ----


@pytest.fixture(scope="module")
def trained(
    bands: Path, small_corpus: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, dict[str, str]]:
    """A finished experiment in a folder of its own: the folder, the experiment, the environment."""
    root = tmp_path_factory.mktemp("trained")
    folder = fresh(bands / "layers", root / "models" / "m-a-p" / "band", "# trained\n")
    assert folder.is_dir()
    environment = {
        "SER_RUNS": str(root / "runs"), "SER_CACHE": str(root / "cache"), "SER_DATA": str(root / "data"),
        "SER_MODELS": str(root / "models"), "WITNESS": str(root / "witness"),
    }  # fmt: skip
    model = {
        "name": "band",
        "encoder": {"model_path_or_name": "m-a-p/band", "revision": "0" * 40},
        "training": {"epochs": 2, "threads": 1, "track": [], "early_stopping": None, "learning_rate": 1e-3},
    }
    (root / "band.json").write_text(json.dumps(model))
    file = root / "mini.json"
    split = {"kind": "speaker_independent"}
    file.write_text(
        json.dumps({"name": "mini", "train": [small_corpus], "models": ["band"], "split": split, "seeds": [0]})
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.chdir(root)
        assert ser("train", file, "--device", "cpu", "--allow-remote-code") == 0
    return root, file, environment


@pytest.fixture
def place(trained: tuple[Path, Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished experiment, into which a test may write."""
    root, _, environment = trained
    shutil.copytree(root, tmp_path / "copy")
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace(str(root), str(tmp_path / "copy")))
    (tmp_path / "copy" / "witness").unlink()
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def run_of(place: Path) -> Path:
    (record,) = place.glob("runs/mini/band/mini/seed-0/run.json")
    return record.parent


def test_a_run_says_which_code_ran(place: Path, capsys: Any) -> None:
    run = run_of(place)
    record = read_json(run / "run.json")
    folder = place / "models/m-a-p/band"
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("*.py")}
    assert record["remote_code"] == {"name": "m-a-p/band", "revision": "0" * 40, "files": sums, "classes": AUTO_MAP}
    assert record["inputs"]["encoder_code_sha256"] == sums
    assert record["encoder"]["code_sha256"] == remote_code.read_code(read_json(folder / "config.json"), folder).sha256
    for name, checksum in sums.items():
        assert f"remote_code:{name} {checksum}" in (run / "environment.txt").read_text()
        assert (run / "model" / name).read_bytes() == (folder / name).read_bytes()
    saved = (run / "model/config.json").read_text()
    assert "ser-remote-code" not in saved
    assert json.loads(saved)["auto_map"] == AUTO_MAP
    assert ser("eval", "mini.json") == 0
    page = (place / "runs/mini/report/report.html").read_text()
    assert "Code of others" in page
    assert f"modeling_band.py {sums['modeling_band.py'][:12]}" in page
    capsys.readouterr()
    assert ser("report", "mini.json", "--checklist") == 0
    assert f"with its own code (configuration_band.py {sums['configuration_band.py'][:12]}" in capsys.readouterr().out
    assert not (place / "witness").exists(), "evaluation runs no encoder"
    assert ser("eval", "mini.json", "--allow-remote-code") == 2


def test_a_finished_run_is_skipped_and_changed_code_is_another_run(place: Path, capsys: Any) -> None:
    assert ser("train", "mini.json", "--device", "cpu", "--allow-remote-code") == 0
    assert "1 of 1 runs are finished already" in capsys.readouterr().err
    assert not (place / "witness").exists()
    assert ser("train", "mini.json", "--device", "cpu") == 2
    assert "--allow-remote-code" in capsys.readouterr().err
    file = place / "models/m-a-p/band/configuration_band.py"
    file.write_text(file.read_text() + "# changed\n")
    assert ser("train", "mini.json", "--device", "cpu", "--allow-remote-code") == 2
    assert "inputs.encoder_code_sha256.configuration_band.py: was" in capsys.readouterr().err


def test_other_corpora_are_heard_with_the_flag_only(place: Path, mini_corpus: Path, capsys: Any) -> None:
    rows = pd.read_csv(mini_corpus / "small.csv", dtype=str)
    rows["actor"] = "new" + rows["actor"]
    for path in rows["path"]:
        samples, rate_hz = soundfile.read(mini_corpus / path)
        soundfile.write(place / path, samples[::-1], rate_hz)  # other recordings, since the run knows these
    rows.to_csv(place / "away.csv", index=False)
    table = pd.DataFrame([["band", "away", str(run_of(place)), "away.csv", "out"]])
    table.columns = pd.Index(["model_name", "dataset_name", "model_path", "eval_csv_path", "eval_out_path"])
    table.to_csv("table.csv", index=False)
    shutil.rmtree(place / "models")  # a saved model needs its own folder only
    for command in (["eval", "mini.json", "--on", "away.csv"], ["eval", "--table", "table.csv"]):
        assert ser(*command, "--device", "cpu") == 2
        assert "--allow-remote-code" in capsys.readouterr().err
    assert ser("eval", "mini.json", "--on", "away.csv", "--device", "cpu", "--allow-remote-code") == 0
    heard = pd.read_csv(run_of(place) / "predictions/away.csv")
    assert len(heard) == len(rows)
    code = run_of(place) / "model/modeling_band.py"
    code.write_text(code.read_text() + "raise RuntimeError('tampered with')\n")
    assert ser("eval", "--table", "table.csv", "--device", "cpu", "--allow-remote-code") == 2
    said = capsys.readouterr().err
    assert "is not the code that was allowed, or that the model was trained with" in said
    assert "tampered" not in said


def test_a_run_is_reproduced_with_the_flag_only(place: Path, capsys: Any) -> None:
    assert ser("reproduce", run_of(place)) == 2
    assert "--allow-remote-code" in capsys.readouterr().err
    assert ser("reproduce", run_of(place), "--allow-remote-code") == 0
    assert "reproduced" in capsys.readouterr().out


def test_a_stopped_training_goes_on_to_the_same_bytes(place: Path, monkeypatch: Any, capsys: Any) -> None:
    expected = (run_of(place) / "predictions/mini.csv").read_bytes()
    monkeypatch.setenv("SER_RUNS", str(place / "again"))
    say = cli._say

    def stop(text: str) -> None:
        if "epoch 2/2" in text:  # the checkpoint of the first stands
            raise KeyboardInterrupt
        say(text)

    with monkeypatch.context() as patch:
        patch.setattr(cli, "_say", stop)
        assert ser("train", "mini.json", "--device", "cpu", "--allow-remote-code") != 0
    assert not list((place / "again").rglob("run.json"))
    assert ser("train", "mini.json", "--device", "cpu") == 2, "not even to go on"
    capsys.readouterr()
    assert ser("train", "mini.json", "--device", "cpu", "--allow-remote-code") == 0
    assert "resumes after" in capsys.readouterr().err
    assert (place / "again/mini/band/mini/seed-0/predictions/mini.csv").read_bytes() == expected


def test_settings_are_searched_and_classical_models_fitted_with_the_flag_only(place: Path, capsys: Any) -> None:
    model = read_json(place / "band.json")
    write_json(place / "band.json", {**model, "training": {**model["training"], "epochs": 1}})
    experiment = read_json(place / "mini.json")
    rates = {"training.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2}}
    write_json(place / "tuned.json", {**experiment, "name": "t", "search": {"parameters": rates, "num_trials": 1}})
    features = {"kind": "embedding", "encoder": {"model_path_or_name": "m-a-p/band"}, "layer": 1}
    svm = {"name": "svm", "kind": "classical", "features": features, "classifier": {"kind": "linear_svm"}}
    write_json(place / "svm.json", {**svm, "grid": {"C": [0.1]}})
    write_json(place / "fitted.json", {**experiment, "name": "f", "models": ["svm"]})
    for command in (["tune", "tuned.json"], ["train", "fitted.json"]):
        assert ser(*command, "--device", "cpu") == 2
        assert "--allow-remote-code" in capsys.readouterr().err
        assert ser(*command, "--device", "cpu", "--allow-remote-code") == 0, capsys.readouterr().err
        capsys.readouterr()
    assert set(read_json(place / "runs/f/svm/mini/seed-0/run.json")["remote_code"]["classes"]) == set(AUTO_MAP)


def test_init_from_needs_the_flag_too(place: Path, capsys: Any) -> None:
    content = read_json(place / "band.json")
    random = {"kind": "random", "config": {"model_type": "hubert"}}
    start = {"name": "next", "init_from": str(run_of(place)), "encoder": random}
    write_json(place / "next.json", {**content, **start})
    experiment = read_json(place / "mini.json")
    write_json(place / "mini.json", {**experiment, "models": ["next"], "seeds": [0]})
    assert ser("train", "mini.json", "--device", "cpu") == 2
    assert "--allow-remote-code" in capsys.readouterr().err
    assert not (place / "witness").exists()


@pytest.mark.slow
def test_parallel_runs_without_a_home_leave_no_code_behind(place: Path) -> None:
    experiment = read_json(place / "mini.json")
    write_json(place / "mini.json", {**experiment, "seeds": [0, 1]})
    expected = (run_of(place) / "predictions/mini.csv").read_bytes()
    temporary = place / "temporary"
    temporary.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    environment |= {
        "HOME": "/proc/nobody", "TMPDIR": str(temporary), "SER_RUNS": str(place / "jobs"), "OMP_NUM_THREADS": "1",
        "HTTPS_PROXY": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    command = [
        sys.executable,
        "-c",
        "from ser_scripts.cli import main; main()",
        "train",
        "mini.json",
        "--device",
        "cpu",
    ]
    done = subprocess.run(
        [*command, "--jobs", "2", "--allow-remote-code"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING: without the optional package" not in done.stdout, "a stranger's words are no output of ours"
    assert (place / "jobs/mini/band/mini/seed-0/predictions/mini.csv").read_bytes() == expected
    assert (place / "jobs/mini/band/mini/seed-1/run.json").is_file()
    assert len((place / "witness").read_text().splitlines()) >= 4, "the runs have imported it in processes of their own"
    assert not list(temporary.glob("ser-remote-code-*")), "private folders are gone"
    assert not list(place.glob("cache/**/*.py"))


def test_frozen_embeddings_depend_on_the_code(place: Path, mini_corpus: Path, capsys: Any) -> None:
    encoder = {"model_path_or_name": "m-a-p/band", "frozen": True}
    content = {"name": "frozen", "encoder": encoder, "layers": {"use": "search"}, "training": {"track": []}}
    write_json(place / "frozen.json", content)
    command = ["embed", "frozen.json", "--corpus", mini_corpus / "small.csv", "--device", "cpu", "--allow-remote-code"]
    counts = []
    for more in ("", "", "# changed\n"):
        file = place / "models/m-a-p/band/modeling_band.py"
        file.write_text(file.read_text() + more)
        assert ser(*command) == 0
        counts.append(capsys.readouterr().out.split("; ")[1].split(" embedded")[0])
    assert counts == ["48", "0", "48"]
    experiment = read_json(place / "mini.json")
    write_json(place / "mini.json", {**experiment, "name": "cold", "models": ["frozen"], "seeds": [0, 1]})
    assert ser("train", "mini.json", "--device", "cpu", "--allow-remote-code") == 0
    record = read_json(place / "runs/cold/frozen/mini/seed-1/run.json")
    assert set(record["remote_code"]["files"]) == {"configuration_band.py", "modeling_band.py"}
    found = frozen_encoder(PretrainedEncoder(**encoder), models=place / "models", remote_code=True)
    assert found.identity["files"].items() >= record["remote_code"]["files"].items()
    head = FrozenModel.load(place / "runs/cold/frozen/mini/seed-1/model")
    assert head.find_encoder(models=place / "models", remote_code=True).identity == found.identity
    file.write_text(file.read_text() + "# changed again\n")
    with pytest.raises(BadInput, match=r"the code of this encoder .* is not the one that the head was trained with"):
        head.find_encoder(models=place / "models", remote_code=True)
    with pytest.raises(BadInput, match="--allow-remote-code"):
        frozen_encoder(PretrainedEncoder(**encoder), models=place / "models")


# ---- what is no such encoder ----


BAD: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "a missing file": ({}, {"modeling_band.py": ""}, "holds no modeling_band.py, which auto_map.AutoModel names"),
    "a missing import": (
        {},
        {"configuration_band.py": ""},
        "holds no configuration_band.py, which",
    ),
    "a path": ({"AutoModel": "../x.BandModel"}, {}, r"auto_map.AutoModel: '../x.BandModel' is not valid.*same folder"),
    "a folder": ({"AutoModel": "sub/x.BandModel"}, {}, "'sub/x.BandModel' is not valid"),
    "another repository": ({"AutoModel": "me/other--x.BandModel"}, {}, "nor another repository"),
    "no model": ({"AutoModel": None}, {}, "auto_map names no AutoModel .it names AutoConfig"),
    "a list": ({"AutoModel": ["modeling_band.BandModel"]}, {}, "is not valid; expected <module>.<Class>"),
    "an import from above": ({}, {"modeling_band.py": "from ..x import y\n"}, "line 1: imports '..x'"),
    "an import from a folder": ({}, {"modeling_band.py": "from .x.y import z\n"}, "line 1: imports '.x.y'"),
    "no Python": ({}, {"modeling_band.py": "class\n"}, "modeling_band.py is no valid Python: invalid syntax"),
    "no such class": ({"AutoModel": "modeling_band.Nothing"}, {}, "its code fails when it is loaded: AttributeError"),
    "a missing package": (
        {},
        {"modeling_band.py": "import nnAudio_that_is_not_there\n" + MODELING},
        "cannot be imported: .*packages that were not found in your environment: nnAudio_that_is_not_there.*Install",
    ),
    "a class that transformers no longer has": (
        {},
        {"modeling_band.py": MODELING + "from transformers.models.hubert.modeling_hubert import HubertGone\n"},
        "cannot be imported: cannot import name 'HubertGone'",
    ),
    "a failing constructor": (
        {},
        {"modeling_band.py": MODELING.replace("self.post_init()", "assert False, 'needs nnAudio'")},
        "its code fails when it is loaded: AssertionError: needs nnAudio",
    ),
    "the end of the process": ({}, {"modeling_band.py": MODELING + "raise SystemExit(0)\n"}, "fails .*SystemExit"),
    "a failing forward pass": (
        {},
        {"modeling_band.py": MODELING.replace("frames = self._mask", "1 / 0; frames = self._mask")},
        "its code fails when it hears a second of noise: ZeroDivisionError",
    ),
    "no hidden states": (
        {},
        {"modeling_band.py": UNROLLED.replace(', "hidden_states": (one, two)', "")},
        "returns no hidden states, and its layers cannot be told from what it does .0 lists",
    ),
    "hidden states of several shapes": (
        {},
        {"modeling_band.py": UNROLLED.replace("(one, two)}", "(one[:, :5], two)}")},
        r"hidden states of .* differ in shape: \(1, 5, 16\), ",
    ),
    "no frames": (
        {},
        {"modeling_band.py": UNROLLED.replace('"last_hidden_state": two', '"last_hidden_state": two[:, 0]')},
        r"no last_hidden_state of the shape \(1, frames, width\)",
    ),
    "other weights": ({}, {"modeling_band.py": PLAIN.replace("BandModel(HubertModel):", "BandModel(HubertModel):\n"
        "    def __init__(self, config):\n        super().__init__(config)\n        self.more = nn.Linear(2, 2)\n")},
        "do not fit its config.json:\n  missing: more.bias, more.weight"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_such_encoder_is_refused_in_words(what: str, bands: Path, tmp_path: Path, witness: Path) -> None:
    named, files, message = BAD[what]
    folder = fresh(bands / "layers", tmp_path / "bad")
    (tmp_path / "x.py").write_text(MODELING)
    auto_map = {key: value for key, value in {**AUTO_MAP, **named}.items() if value is not None}
    write_json(folder / "config.json", {"model_type": "band_model", "auto_map": auto_map})
    for name, text in files.items():
        (folder / name).write_text(text) if text else (folder / name).unlink()
    with pytest.raises(BadInput, match=message) as refusal:
        built(folder)
    assert str(folder) in str(refusal.value)
    if "line 1" in message or "auto_map" in message or "no valid Python" in message:
        assert not witness.exists(), "found by reading"


@pytest.mark.parametrize(
    ("extractor", "message"),
    [
        ({"feature_extractor_type": "BandExtractor"}, "feature_extractor_type is 'BandExtractor'; expected one of tr"),
        ({}, "feature_extractor_type is None"),
        ({"feature_extractor_type": "WhisperFeatureExtractor"}, "something else than samples"),
        (None, "holds no preprocessor_config.json"),
    ],
)
def test_its_features_must_be_samples(
    extractor: dict[str, Any] | None, message: str, bands: Path, tmp_path: Path, witness: Path
) -> None:
    folder = fresh(bands / "layers", tmp_path / "bad")
    (folder / "preprocessor_config.json").unlink()
    if extractor is not None:
        write_json(folder / "preprocessor_config.json", {"sampling_rate": 16000, **extractor})
    with pytest.raises(BadInput, match=message):
        built(folder)


def test_a_pickle_stays_data(band: Path, witness: Path) -> None:
    """The flag allows the code in .py files, and no more: weights are read as plain tensors, or not at all."""
    weights = built(band).model.state_dict()
    (band / "model.safetensors").unlink()
    torch.save(weights, band / "pytorch_model.bin")
    again = built(band).model.state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    torch.save({**weights, "more": Path("a class")}, band / "pytorch_model.bin")
    with pytest.raises(BadInput, match="cannot be read as plain weights"):
        built(band)


def test_random_weights_have_no_code_of_their_own(witness: Path) -> None:
    config = {"model_type": "band_model", "auto_map": AUTO_MAP}
    spec = parse(ModelSpec, {"name": "m", "encoder": {"kind": "random", "config": config}}, source="m", kind="model")
    with pytest.raises(BadInput, match="code of its own goes with a pretrained encoder"):
        build_encoder(spec.encoder, models=None, remote_code=True)


@pytest.mark.real
@pytest.mark.parametrize("name", ["m-a-p/MERT-v1-95M", "m-a-p/MERT-v1-330M"])
def test_mert_itself(name: str, ser_models: Path) -> None:
    if not (ser_models / name).is_dir():
        pytest.skip(f"no {name} under SER_MODELS")
    if os.environ.get("SER_TEST_REMOTE_CODE") != "1":
        pytest.skip("runs the code that lies there: read it, and set SER_TEST_REMOTE_CODE=1 to say so")
    encoder = build_encoder(PretrainedEncoder(model_path_or_name=name), models=ser_models, remote_code=True)
    assert isinstance(encoder, RemoteEncoder)
    assert encoder.sample_rate_hz == 24000
    assert encoder.num_layers == len(encoder.layers) == (12 if "95M" in name else 24)
    assert encoder.eval().num_frames(24000) == 74
    assert all(bool(state.isfinite().all()) for state in states_of(encoder, clips(24000)[0]))


# ---- the hub ----


def test_from_the_hub_code_needs_a_commit_and_is_refused_before_any_weights(
    band: Path, witness: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    commit = "ab" * 20
    snapshot = tmp_path / commit
    asked: list[str] = []

    def download(name: str, file: str, *, revision: str | None, local_files_only: bool) -> str:
        asked.append(file)
        snapshot.mkdir(exist_ok=True)
        if not (band / file).is_file():
            raise EntryNotFoundError(file)
        return str(shutil.copy(band / file, snapshot))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    spec = PretrainedEncoder(model_path_or_name="m-a-p/band", revision=commit)
    with pytest.raises(
        BadInput, match=rf"modeling_band.py .BandModel. from the hub .revision {commit}.*--allow-remote"
    ):
        places.locate(spec, models=None)
    assert asked == ["config.json"]
    for revision in (None, "main", "abab"):
        with pytest.raises(BadInput, match=f"encoder.revision: {revision!r} is not valid.*40 hexadecimal digits"):
            places.locate(spec.model_copy(update={"revision": revision}), models=None, remote_code=True)
    assert set(asked) == {"config.json"}
    folder, identity, _ = places.locate(spec, models=None, remote_code=True)
    assert folder == snapshot
    assert identity["revision"] == commit
    assert {"modeling_band.py", "configuration_band.py", "model.safetensors"} <= set(asked)
    assert not witness.exists(), "to fetch is not to run"
    encoder = build_encoder(spec, models=None, remote_code=True)
    assert encoder.code_sums() == remote_code.read_code(read_json(band / "config.json"), band).sums()
    assert witness.exists()
