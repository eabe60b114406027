"""Linear layers that multiply with oneDNN on a CPU, forward and backward.

In float32 torch multiplies with MKL there, which on processors that are not Intel's leaves their widest instructions
alone: on an AMD EPYC with AVX-512, products of the size of wav2vec2-base run at half the speed of oneDNN's, which comes
with torch as well. Both are float32 throughout and differ in the last digits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

LEAST_WEIGHTS = 1 << 16
"""Of a layer that is worth it: oneDNN makes a kernel for every new shape, which takes a millisecond."""


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        context.save_for_backward(inputs, weight)
        return _multiply(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(
        context: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        inputs, weight = context.saved_tensors
        for_inputs, for_weight, for_bias = context.needs_input_grad
        return (
            _multiply(gradient, weight.t(), None) if for_inputs else None,
            _multiply(gradient.t(), inputs.t(), None) if for_weight else None,
            gradient.sum(dim=0) if for_bias else None,
        )


def _multiply(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Inputs (N, I), weight (O, I), bias (O,) -> (N, O)."""
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return out


class OneDnnLinear(nn.Linear):
    """`nn.Linear`, the same weights under the same names; by oneDNN in float32 on a CPU, else as torch does it."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., I) -> (..., O)."""
        plain = (
            torch.compiler.is_compiling()
            or input.device.type != "cpu"
            or not input.dtype == self.weight.dtype == torch.float32
            or torch.is_autocast_enabled("cpu")
            or not input.numel()
        )
        if plain:
            return super().forward(input)
        rows = input.reshape(-1, input.shape[-1])
        multiply = _Product.apply if torch.is_grad_enabled() else _multiply
        product: torch.Tensor = multiply(rows, self.weight, self.bias)
        return product.view(*input.shape[:-1], -1)  # out here: what a function returns as a view cannot be written to


def use_onednn(module: nn.Module) -> None:
    """Turn the large linear layers inside a module into `OneDnnLinear`, in place, where torch has oneDNN."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for part in module.modules():
        if type(part) is nn.Linear and part.weight.numel() >= LEAST_WEIGHTS:
            part.__class__ = OneDnnLinear
