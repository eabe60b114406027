"""Augmentation of training clips: the items of an epoch, and each item as a pure function of its key."""

from __future__ import annotations

import hashlib
import inspect
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ser_scripts.augment import background
from ser_scripts.augment.imports import LIBRARIES, check_arguments, load_class, resolve_allowed
from ser_scripts.errors import BadInput
from ser_scripts.specs.augmentation import AugmentationSpec, Transform

TRIAL_RATE_HZ = 16000
TRIAL_SECONDS = 2
FAULTS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
"""What a transform that was given wrong arguments or an unsuitable clip raises."""


@dataclass(frozen=True)
class _Loaded:
    """A constructed transform."""

    instance: Any
    where: str
    """Names it in errors."""
    tensors: bool
    reads_files: bool
    """It reads sound files through torch_audiomentations, whose reader has to be replaced."""


class Augmenter:
    """The transforms of one augmentation, constructed once; a chain of several counts as one.

    Args:
        spec: the augmentation
        seed: training seed of the run
        allow_imports: modules or .py files beyond the allow-list whose code the user trusts
        base: folder of the spec file, against which relative paths resolve before the working directory

    Raises:
        BadInput: anything that would go wrong later: a module that is not allowed, an unknown class or argument, a
            missing sound file, a transform that fails on a trial clip or does not repeat itself
    """

    def __init__(self, spec: AugmentationSpec, *, seed: int, allow_imports: Sequence[str] = (), base: Path):
        self.spec = spec
        self.seed = seed
        self._allow_imports = resolve_allowed(allow_imports)
        self._base = base.resolve()
        self._files: dict[str, list[Path]] = {}
        # Sorted: the digest of a spec does not know the order of JSON keys, so that nothing may depend on it.
        self._chains = {
            name: [self._construct(name, number, step) for number, step in enumerate(spec.transforms[name], start=1)]
            for name in sorted(spec.transforms)
        }
        for name in self._chains:
            self._try_out(name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.spec, self.seed, self._allow_imports, self._base)

    def plan(self, num_clips: int) -> list[tuple[int, str | None]]:
        """The items of an epoch: (index of the clip, name of the transform or None), for `apply`.

        `union`: each clip clean and once per transform. `repeat`: each clip clean, `copies` + 1 times. `on_the_fly`:
        each clip once; `apply` decides.
        """
        copies: list[str | None] = [None]
        if self.spec.mode == "union":
            copies += self._chains
        elif self.spec.copies is not None:
            copies *= self.spec.copies + 1
        return [(clip, item) for clip in range(num_clips) for item in copies]

    def apply(
        self, samples: NDArray[np.float32], rate_hz: int, item: str | None, *, epoch: int, clip_key: str
    ) -> NDArray[np.float32]:
        """Make one item of the plan from its clean clip; depends on nothing but the arguments, the spec and the seed.

        Args:
            samples: float32 (samples,), left as they are
            rate_hz: sample rate
            item: second element of the plan's pair
            epoch: number of the epoch; every epoch draws anew
            clip_key: name of the clip, `<corpus>/<path>`

        Returns:
            float32 (samples,), finite; some transforms change the length; `samples` itself when nothing is applied

        Raises:
            BadInput: a transform fails on this clip or returns something else than finite samples
        """
        for name in self.applied(epoch=epoch, clip_key=clip_key) if item is None else [item]:
            samples = self._run(name, samples, rate_hz, key=(self.seed, epoch, clip_key, name), clip_key=clip_key)
        return samples

    def applied(self, *, epoch: int, clip_key: str) -> list[str]:
        """Names of the transforms that `apply` draws for an item without one, in order; none but with `on_the_fly`."""
        if self.spec.mode != "on_the_fly":
            return []
        own = self.spec.probabilities
        return [
            name
            for name in self._chains
            if _number(self.seed, epoch, clip_key, name, "applied?") < own.get(name, self.spec.probability) * 2**64
        ]

    def input_sha256(self) -> dict[str, str]:
        """SHA-256 of what the transforms read besides the spec: sound files per argument, and allowed .py files."""
        code = {item: [Path(item)] for item in self._allow_imports if item.endswith(".py")}
        named = {f"--allow-import {Path(item).name}": files for item, files in code.items()}
        return {name: background.sha256_of(files) for name, files in sorted({**self._files, **named}.items())}

    def _construct(self, name: str, number: int, transform: Transform) -> _Loaded:
        alone = len(self.spec.transforms[name]) == 1
        where = self._where(name) + ("" if alone else f", step {number} ({transform.class_name})")
        cls = load_class(transform.module, transform.class_name, allow_imports=self._allow_imports, where=where)
        library = cls.__module__.partition(".")[0]
        if library in LIBRARIES and transform.tensors != (library == "torch_audiomentations"):
            wanted = str(not transform.tensors).lower()
            raise BadInput(f"{where}: 'tensors' must be {wanted} for {library}; write \"tensors\": {wanted}")
        arguments = transform.arguments
        if "p" in arguments:
            raise BadInput(
                f"{where}: 'p' is not taken: mode 'union' applies every transform to its own copy, "
                "and mode 'on_the_fly' takes the 'probability' that stands beside 'transforms'"
            )
        given = {"p": 1.0, "output_type": "dict"} if transform.tensors and library in LIBRARIES else {"p": 1.0}
        check_arguments(cls, list(arguments), reserved=list(given), where=where)
        for key, value in arguments.items():
            if key.endswith(("path", "paths")):
                argument = f"{name}.{key}" if alone else f"{name}.{number}.{key}"
                arguments[key] = self._paths(argument, value, library, f"{where}, argument '{key}'")
        try:
            with _seeded(self.seed, name, *_step(number)):
                instance = cls(**arguments, **{key: given[key] for key in given if _takes(cls, key)})
        except FAULTS as error:
            raise BadInput(f"{where}: {cls.__name__} refuses {_shown(transform.arguments)}: {_text(error)}") from error
        reads_files = library == "torch_audiomentations" and any(key.endswith(("path", "paths")) for key in arguments)
        return _Loaded(instance, where, transform.tensors, reads_files)

    def _paths(self, argument: str, value: Any, library: str, where: str) -> str | list[str]:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list | tuple) or not all(isinstance(item, str) for item in values):
            raise BadInput(f"{where}: expected a path or a list of paths, found {_shown(value)}")
        paths = [background.resolve(item, base=self._base, where=where) for item in values]
        if library not in LIBRARIES:
            return str(paths[0]) if isinstance(value, str) else [str(path) for path in paths]
        suffixes = (".wav",) if library == "torch_audiomentations" else background.SUFFIXES
        self._files[argument] = background.sound_files(paths, suffixes=suffixes, where=where)
        return [str(file) for file in self._files[argument]]

    def _try_out(self, name: str) -> None:
        """Run a chain twice on noise: faults show before training, and so do draws that the seed does not rule."""
        noise = np.random.Generator(np.random.PCG64(0)).normal(0, 0.1, TRIAL_RATE_HZ * TRIAL_SECONDS).astype(np.float32)
        first, second = (self._run(name, noise, TRIAL_RATE_HZ, key=(self.seed,), clip_key="(trial)") for _ in range(2))
        if not np.array_equal(first, second):
            raise BadInput(
                f"{self._where(name)}: two runs from the same seed differ; a transform must draw from `random`, "
                "numpy's or torch's global generator and keep nothing from clip to clip"
            )

    def _run(
        self, name: str, samples: NDArray[np.float32], rate_hz: int, *, key: tuple[Any, ...], clip_key: str
    ) -> NDArray[np.float32]:
        """Apply a chain. Each step has a seed of its own, so that what follows it does not change its draws."""
        for number, loaded in enumerate(self._chains[name], start=1):
            copy = np.array(samples, dtype=np.float32)  # some transforms write into their input
            try:
                with _seeded(*key, *_step(number)):
                    call = partial(_call_with_tensors, loaded) if loaded.tensors else loaded.instance
                    result = call(copy, rate_hz)
            except BadInput as error:
                raise BadInput(f"{loaded.where} fails on clip {clip_key}: {error}") from None
            except FAULTS as error:
                raise BadInput(f"{loaded.where} fails on clip {clip_key}: {_text(error)}") from error
            if fault := _fault(result):
                raise BadInput(f"{loaded.where} returns {fault} for clip {clip_key}; expected finite float32 samples")
            samples = np.ascontiguousarray(result)
        return samples

    def _where(self, name: str) -> str:
        return f"augmentation '{self.spec.name}', transform '{name}'"


def _rebuild(spec: AugmentationSpec, seed: int, allow_imports: Sequence[str], base: Path) -> Augmenter:
    """Unpickle: custom classes need not be importable by name in a spawned worker."""
    return Augmenter(spec, seed=seed, allow_imports=allow_imports, base=base)


def _call_with_tensors(loaded: _Loaded, samples: NDArray[np.float32], rate_hz: int) -> Any:
    """Call a class that wants (batch, channel, time) and returns a tensor or an object with `samples`."""
    import torch

    if loaded.reads_files:
        loaded.instance.audio = background.SoundFileAudio(rate_hz)
    with torch.no_grad():
        result = loaded.instance(torch.from_numpy(samples)[None, None], sample_rate=rate_hz)
    result = getattr(result, "samples", result)
    if isinstance(result, torch.Tensor) and result.ndim == 3 and result.shape[:2] == (1, 1):
        return result[0, 0].numpy()
    return result


def _fault(result: Any) -> str | None:
    if not isinstance(result, np.ndarray):
        return f"a {type(result).__name__}"
    if result.dtype != np.float32:
        return f"samples of type {result.dtype}"
    if result.ndim != 1 or result.size == 0:
        return f"an array of shape {result.shape}"
    return None if np.isfinite(result).all() else "NaN or infinite samples"


@contextmanager
def _seeded(*key: Any) -> Iterator[None]:
    """Seed the global generators of `random`, numpy and torch from a key, and put their states back.

    Only torch's CPU generator is touched: seeding all devices would make dropout on a GPU repeat itself. One torch
    thread, since data-loader workers have one too and sums over other numbers of threads differ in their last bits.
    """
    import torch

    number = _number(*key)
    threads = torch.get_num_threads()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(number)
        np.random.seed(number % 2**32)
        torch.default_generator.manual_seed(number)
        torch.set_num_threads(1)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.set_num_threads(threads)


def _step(number: int) -> tuple[Any, ...]:
    """What a step adds to the key of its chain: a transform alone draws like the first step of a chain."""
    return () if number == 1 else ("step", number)


def _number(*key: Any) -> int:
    """A number below 2^64 from a key."""
    return int.from_bytes(hashlib.sha256(json.dumps(key).encode()).digest()[:8], "big")


def _takes(cls: type[Any], argument: str) -> bool:
    return argument in inspect.signature(cls).parameters


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) < 120 else text[:117] + "..."
