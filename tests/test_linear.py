"""Linear layers by oneDNN: the numbers and gradients of torch's own, and torch's own wherever they do not fit."""

import copy

import pytest
import torch
from torch import nn

from ser_scripts.modeling.encoders import build_encoder
from ser_scripts.modeling.linear import LEAST_WEIGHTS, OneDnnLinear, use_onednn
from ser_scripts.specs.model import RandomEncoder

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def pair(bias: bool = True) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(256, 320, bias=bias)
    other = copy.deepcopy(plain)
    use_onednn(other)
    assert type(other) is OneDnnLinear
    return plain, other


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(256,), (7, 256), (3, 1, 256), (2, 50, 256)])
def test_values_and_gradients_are_those_of_torch(shape: tuple[int, ...], bias: bool) -> None:
    found = []
    for layer in pair(bias):
        torch.manual_seed(1)
        inputs = torch.randn(shape, requires_grad=True)
        outputs = layer(inputs)
        (outputs * torch.randn(outputs.shape)).sum().backward()
        with torch.no_grad():
            assert torch.allclose(layer(inputs), outputs, atol=1e-6)
        assert inputs.grad is not None
        found.append([outputs.detach(), inputs.grad, *(parameter.grad for parameter in layer.parameters())])
    assert len(found[0]) == 4 if bias else 3
    for one, other in zip(*found, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=2e-5, rtol=1e-5)


def test_gradients_that_nobody_wants_are_not_computed() -> None:
    _, layer = pair()
    layer.weight.requires_grad_(False)
    inputs = torch.randn(4, 256)
    layer(inputs).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad is not None
    assert inputs.grad is None


def test_inputs_in_any_layout_give_the_same() -> None:
    plain, layer = pair()
    inputs = torch.randn(256, 9, 3).permute(2, 1, 0)
    assert torch.allclose(layer(inputs), plain(inputs), atol=1e-6)
    assert layer(inputs[:0]).shape == (0, 9, 320)


@pytest.mark.parametrize("shape", [(7, 256), (2, 7, 256)])
def test_outputs_can_be_changed_in_place(shape: tuple[int, ...]) -> None:
    """As SpecAugment does with the projected features."""
    found = []
    for layer in pair():
        outputs = layer(torch.ones(shape))
        outputs[0] = 0.0
        outputs.sum().backward()
        found.append(layer.weight.grad)
    assert torch.allclose(*found, atol=1e-5)
    assert found[0][0, 0] == torch.ones(shape)[1:, ..., 0].numel()


def test_other_types_are_left_to_torch() -> None:
    plain, layer = pair()
    inputs = torch.randn(5, 256)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(inputs), plain(inputs))
        assert layer(inputs).dtype == torch.bfloat16
    assert torch.equal(layer.double()(inputs.double()), plain.double()(inputs.double()))


def test_it_does_the_same_twice() -> None:
    _, layer = pair()
    inputs = torch.randn(11, 256)
    assert torch.equal(layer(inputs), layer(inputs))


def test_large_layers_of_an_encoder_are_such_and_keep_their_names() -> None:
    config = {"model_type": "whisper", "d_model": 256, "encoder_layers": 1, "encoder_attention_heads": 4}
    encoder = build_encoder(RandomEncoder(kind="random", config={**config, "encoder_ffn_dim": 320}), models=None)
    layers = {name: part for name, part in encoder.named_modules() if isinstance(part, nn.Linear)}
    assert len(layers) >= 6
    assert all(type(part) is OneDnnLinear for part in layers.values() if part.weight.numel() >= LEAST_WEIGHTS)
    assert {f"{name}.weight" for name in layers} <= encoder.state_dict().keys()
