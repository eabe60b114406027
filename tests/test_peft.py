"""Adapters: what they train, that they are heard, how they are saved, continued and merged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ser_scripts.errors import BadInput
from ser_scripts.modeling.adapters import count_parameters, load_plain_state, plain_state
from ser_scripts.modeling.encoders import build_encoder
from ser_scripts.modeling.model import SerModel
from ser_scripts.specs.base import parse
from ser_scripts.specs.model import ModelSpec, PretrainedEncoder, RandomEncoder
from tests.test_encoders import CONFIGS as FAMILY_CONFIGS
from tests.test_model import CONFIGS, LABELS, batch_of, make

LORA = {"kind": "lora", "rank": 2, "alpha": 4}
IA3 = {"kind": "ia3"}
TRUTH = torch.tensor([0, 1, 2, 0, 1])


def of_family(name: str, adapter: dict[str, Any], **parts: Any) -> SerModel:
    encoder = {"kind": "random", "config": FAMILY_CONFIGS[name]}
    spec = ModelSpec.model_validate({"name": "m", "encoder": encoder, "adapter": adapter, **parts})
    assert isinstance(spec.encoder, RandomEncoder)
    torch.manual_seed(0)
    return SerModel(spec, LABELS, encoder=build_encoder(spec.encoder, models=None))


def own(model: SerModel) -> dict[str, torch.nn.Parameter]:
    """Trained parameters of the encoder."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.startswith("encoder.") and parameter.requires_grad
    }


def train(model: SerModel, steps: int = 3) -> None:
    optimiser = torch.optim.AdamW(model.parameter_groups(1e-2, None, 0.0))
    batch = batch_of(model)
    for step in range(steps):
        torch.manual_seed(step)
        optimiser.zero_grad()
        model.train()(**batch, labels=TRUTH)["loss"].backward()
        optimiser.step()
    model.eval()


def logits_of(model: SerModel) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(**batch_of(model))["logits"]
    return logits


@pytest.mark.parametrize("adapter", [LORA, IA3], ids=["lora", "ia3"])
@pytest.mark.parametrize("family", [name for name in FAMILY_CONFIGS if "windows" not in name])
def test_every_added_parameter_reaches_the_logits(family: str, adapter: dict[str, Any]) -> None:
    model = of_family(family, adapter)
    added = own(model)
    assert added
    assert all(".lora_" in name or ".ia3_l." in name for name in added)
    layers = {name.split("layers.")[1].split(".")[0] for name in added}
    assert layers == {str(index) for index in range(model.encoder.num_layers)}
    for name, parameter in added.items():  # B of LoRA is 0, which would hide A
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.eval()(**batch_of(model), labels=TRUTH)["loss"].backward()  # no layer is dropped
    for name, parameter in added.items():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name
    assert not any(p.grad is not None for n, p in model.encoder.named_parameters() if f"encoder.{n}" not in added)


@pytest.mark.parametrize("adapter", [LORA, IA3], ids=["lora", "ia3"])
def test_a_fresh_adapter_changes_nothing_and_a_trained_one_only_itself(adapter: dict[str, Any]) -> None:
    model, bare = make(adapter=adapter), make()
    state = bare.encoder.state_dict()
    assert plain_state(model.encoder).keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in plain_state(model.encoder).items())
    model.head.load_state_dict(bare.head.state_dict())
    torch.testing.assert_close(logits_of(model), logits_of(bare), atol=1e-6, rtol=1e-6)
    train(model)
    changed = {name for name, value in model.encoder.state_dict().items() if "base_layer" in name}
    for name in changed:
        assert torch.equal(model.encoder.state_dict()[name], state[name.replace(".base_layer", "")])
    assert not torch.allclose(logits_of(model), logits_of(bare), atol=1e-3)


def test_the_trained_share_is_counted_by_hand() -> None:
    model = make(adapter={**LORA, "targets": ["q_proj"]})
    counted = count_parameters(model)
    assert counted["trained"] == 3 * (2 * 32 + 32 * 2) + (32 * 3 + 3)  # layers x (A and B), and the head
    assert counted["total"] == sum(parameter.numel() for parameter in model.parameters())
    assert len(own(make(adapter=LORA, layers={"use": 1}))) == 4  # one layer: A and B of queries and values


def test_lora_is_what_its_paper_says() -> None:
    model = make(adapter={**LORA, "targets": ["fc1"]})
    layer: Any = model.encoder.layers[0].fc1
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(up)
    x = torch.randn(5, 32)
    base = layer.base_layer
    expected = x @ (base.weight + 4 / 2 * up @ down).T + base.bias
    torch.testing.assert_close(layer(x), expected, atol=1e-4, rtol=1e-4)


def test_targets_that_are_not_there_or_not_called_are_refused() -> None:
    with pytest.raises(BadInput, match=r"'query'; it has conv1, conv2, fc1, fc2, k_proj, out_proj, q_proj, v_proj"):
        make(adapter={**LORA, "targets": ["q_proj", "query"]})
    with pytest.raises(BadInput, match=r"'q_proj': wavlm reads the weight .*valid: .*intermediate_dense, output_dense"):
        of_family("wavlm layer norm", {**LORA, "targets": ["q_proj"]})
    for parts, match in [
        ({"freeze": {"all_but_last": 1}}, r"'adapter' freezes the encoder itself, so 'freeze\.all_but_last'"),
        ({"freeze": {"gradual": 1}}, r"'freeze\.gradual'"),
        ({"encoder": {"kind": "compact"}}, "'adapter' goes with an encoder that has transformer layers"),
        ({"encoder": {"model_path_or_name": "a/b", "frozen": True}}, "adapter does not go with a frozen encoder"),
        ({"adapter": {"kind": "lara"}}, "lora"),
    ]:
        content = {"name": "m", "encoder": {"model_path_or_name": "a/b"}, "adapter": LORA, **parts}
        with pytest.raises(BadInput, match=match):
            parse(ModelSpec, content, source="m.json", kind="model")


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("adapter", [{**LORA, "dropout": 0.1}, IA3], ids=["lora", "ia3"])
def test_a_saved_adapter_gives_the_same_bits(kind: str, adapter: dict[str, Any], tmp_path: Path) -> None:
    model = make(kind, adapter=adapter)
    train(model)
    model.save(tmp_path / "a")
    loaded = SerModel.load(tmp_path / "a")
    assert torch.equal(logits_of(loaded), logits_of(model))
    loaded.save(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name
    assert (
        json.loads((tmp_path / "a" / "config.json").read_text())["sertain"]["spec"]["adapter"]["kind"]
        == (adapter["kind"])
    )
    with pytest.raises(BadInput, match="was trained with an adapter"):
        build_encoder(PretrainedEncoder(model_path_or_name=str(tmp_path / "a")), models=None)


@pytest.mark.parametrize("adapter", [LORA, IA3], ids=["lora", "ia3"])
def test_a_merged_adapter_gives_the_same_logits_without_it(adapter: dict[str, Any]) -> None:
    model, plain = make("hubert", adapter=adapter), make("hubert")
    train(model)
    before = logits_of(model)
    load_plain_state(plain.encoder, plain_state(model.encoder))
    plain.head.load_state_dict(model.head.state_dict())
    torch.testing.assert_close(logits_of(plain), before, atol=1e-5, rtol=1e-5)
    assert torch.equal(logits_of(model), before)  # merging was done on a copy
    other = make("hubert", adapter={**LORA, "rank": 4})
    load_plain_state(other.encoder, plain_state(model.encoder))
    other.head.load_state_dict(model.head.state_dict())
    torch.testing.assert_close(logits_of(other), before, atol=1e-5, rtol=1e-5)
