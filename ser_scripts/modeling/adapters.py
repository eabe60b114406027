"""Small trained additions to a frozen encoder (peft): put in by name, saved beside the weights, merged into them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ser_scripts.errors import BadInput
from ser_scripts.modeling.families import Encoder, TransformersEncoder
from ser_scripts.specs.model import AdapterSpec, LoraAdapter

ADAPTABLE = (nn.Linear, nn.Conv1d)
_BASE = ".base_layer."
_OWN = (".lora_A.", ".lora_B.", ".ia3_l.")
"""What peft calls the adapted module inside its wrapper, and its additions."""


def add_adapter(encoder: Encoder, spec: AdapterSpec) -> None:
    """Freeze the encoder and wrap the targeted modules in place; LoRA's A is drawn from torch's generator.

    Raises:
        BadInput: a target that the encoder does not have, or whose wrapper it would never call
    """
    from peft import IA3Config, LoraConfig, inject_adapter_in_model

    if not isinstance(encoder, TransformersEncoder):
        raise BadInput("adapter: goes with an encoder of transformers only")
    targets = _targets(encoder, spec)
    config: Any
    if isinstance(spec, LoraAdapter):
        config = LoraConfig(r=spec.rank, lora_alpha=spec.alpha, lora_dropout=spec.dropout, target_modules=targets)
    else:
        second = [name for name in targets if name.rpartition(".")[2] in encoder.IA3_FEEDFORWARD]
        config = IA3Config(target_modules=targets, feedforward_modules=second)
    encoder.requires_grad_(False)
    try:
        inject_adapter_in_model(config, encoder.model)
    except (ValueError, NotImplementedError) as error:  # e.g. a grouped convolution whose groups the rank does not fit
        raise BadInput(f"adapter.targets: {', '.join(targets)}: {error}") from None


def _targets(encoder: TransformersEncoder, spec: AdapterSpec) -> list[str]:
    names = [name for name, module in encoder.model.named_modules() if isinstance(module, ADAPTABLE)]
    ends = sorted({name.rpartition(".")[2] for name in names})
    default = encoder.LORA_TARGETS if isinstance(spec, LoraAdapter) else encoder.IA3_TARGETS
    targets = list(spec.targets or default)
    family = encoder.config.model_type
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise BadInput(
                f"adapter.targets: {family} has no linear layer or convolution named {target!r}; it has "
                f"{', '.join(ends)}"
            )
        if target.rpartition(".")[2] in encoder.BYPASSED:
            able = sorted(set(ends) - set(encoder.BYPASSED))
            raise BadInput(
                f"adapter.targets: {target!r}: {family} reads the weight of this layer without calling the layer, so "
                f"that an adapter would have no effect; valid: {', '.join(able)}"
            )
    return targets


def plain_state(encoder: Encoder) -> dict[str, torch.Tensor]:
    """The encoder's weights under the names that they have without an adapter, an adapter merged into them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if any(isinstance(module, BaseTunerLayer) for module in encoder.modules()):
        encoder = copy.deepcopy(encoder)  # to merge and part again would not give the same bits
        for module in encoder.modules():
            if isinstance(module, BaseTunerLayer):
                module.merge()
    return {
        name.replace(_BASE, "."): tensor
        for name, tensor in encoder.state_dict().items()
        if not any(own in name for own in _OWN)
    }


def load_plain_state(encoder: Encoder, state: Mapping[str, torch.Tensor]) -> None:
    """Load what `plain_state` gives; adapters of this encoder stay as they are.

    Raises:
        RuntimeError: names or shapes that do not fit
    """
    own = encoder.state_dict()
    renamed = {name.replace(_BASE, "."): name for name in own if not any(part in name for part in _OWN)}
    adapters = {name: tensor for name, tensor in own.items() if name not in renamed.values()}
    encoder.load_state_dict({renamed.get(name, name): tensor for name, tensor in state.items()} | adapters)


def count_parameters(module: nn.Module) -> dict[str, int]:
    """How many parameters there are, and how many of them are trained."""
    parameters = list(module.parameters())
    return {
        "total": sum(parameter.numel() for parameter in parameters),
        "trained": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
    }
