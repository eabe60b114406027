"""Every random draw comes from an explicit seed, so that a draw never depends on what was drawn before it."""

from __future__ import annotations

import hashlib
import os
import random

import numpy as np
import torch


def derive(*parts: object) -> int:
    """A 32-bit seed from any parts: a pure function, the same in every process."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), numpy's global generator (HF SpecAugment draws from it) and `random`."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def fix_arithmetic(threads: int) -> None:
    """Whatever else torch's results depend on: threads, deterministic kernels, and fp32 that means fp32."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS is not deterministic
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.allow_tf32 = False
