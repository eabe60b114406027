"""The model: encoder, choice of layers, pooling, head, loss; what of it is trained; saving and predicting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ser_eval.run_folder import read_json, write_json
from ser_scripts.errors import BadInput
from ser_scripts.modeling.adapters import add_adapter
from ser_scripts.modeling.adversary import PREFIX as ADVERSARY
from ser_scripts.modeling.adversary import Adversary
from ser_scripts.modeling.encoders import restore_encoder, uninitialised
from ser_scripts.modeling.families import Encoder
from ser_scripts.modeling.losses import cross_entropy, focal_loss, soft_cross_entropy
from ser_scripts.modeling.masking import BatchNorm
from ser_scripts.modeling.pooling import build_pooling, pooled_size
from ser_scripts.modeling.ratings import ratings_loss
from ser_scripts.modeling.weights import CONFIG, PREPROCESSOR, WEIGHTS
from ser_scripts.specs.base import parse
from ser_scripts.specs.model import HeadSpec, ModelSpec

LABELS = "labels.json"
OURS = "sertain"
"""The key of config.json below which stands what transformers does not know."""


def build_head(spec: HeadSpec, size: int, num_labels: int) -> nn.Sequential:
    """The steps of the spec, each if asked for: (B, D) -> (B, K)."""
    steps: list[nn.Module] = []
    if spec.layer_norm:
        steps.append(nn.LayerNorm(size))
    if spec.kind == "linear":
        if spec.relu:
            steps.append(nn.ReLU())
        if spec.batch_norm:
            steps.append(BatchNorm(size))
    if spec.dropout:
        steps.append(nn.Dropout(spec.dropout))
    if spec.kind == "mlp":
        steps.append(nn.Linear(size, spec.hidden))
        if spec.activation != "none":
            steps.append(nn.GELU() if spec.activation == "gelu" else nn.ReLU())
        if spec.dropout:
            steps.append(nn.Dropout(spec.dropout))
        size = spec.hidden
    steps.append(nn.Linear(size, num_labels))
    if spec.temperature:
        steps.append(Temperature())
    return nn.Sequential(*steps)


def build_rating_head(spec: HeadSpec, size: int, num_dimensions: int) -> nn.Sequential:
    """A head like that of the classes, without a temperature, that answers the middle of the scale at first."""
    head = build_head(spec.model_copy(update={"temperature": False}), size, num_dimensions)
    last = head[-1]
    assert isinstance(last, nn.Linear)
    nn.init.constant_(last.bias, 0.5)
    return head


class Temperature(nn.Module):
    """Divides logits by a learned number, whose logarithm is the parameter; 1 at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.zeros(()))

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, K) -> (B, K)."""
        return logits / self.logarithm.exp()


class SerModel(nn.Module):
    """A speech emotion classifier. A clip's logits do not depend on its batch mates (eval mode)."""

    accepts_loss_kwargs = True  # the HF Trainer then passes num_items_in_batch and does not divide the loss itself

    def __init__(
        self,
        spec: ModelSpec,
        labels: Sequence[str],
        *,
        encoder: Encoder,
        class_weights: torch.Tensor | None = None,
        num_adversaries: int | None = None,
    ) -> None:
        """Put the parts together; pooling and head are drawn from torch's generator.

        Args:
            spec: the model spec; its `encoder` and `training` parts are not read here
            labels: the K labels, in the order of the logits
            encoder: what `build_encoder` gives
            class_weights: one per label, (K,), for the loss; of the training clips, so not saved with the model
            num_adversaries: speakers or genders that the adversary of the spec tells apart; without it there is none,
                as in a saved model

        Raises:
            BadInput: a layer, or a target of the adapter, that the encoder does not have
        """
        super().__init__()
        self.spec = spec
        self.labels = tuple(labels)
        self.encoder = encoder
        use = spec.layers.use
        if isinstance(use, int) and use > encoder.num_layers:
            raise BadInput(
                f"layers.use: {use} is not valid; {_name(encoder)} has hidden states 0 to {encoder.num_layers}"
            )
        self.depth = use if isinstance(use, int) else encoder.num_layers
        if len(encoder.layers) < encoder.num_layers:
            _refuse_single_layers(spec, encoder)
        if spec.adapter is not None:
            add_adapter(encoder, spec.adapter)
        self.layer_weights = nn.Parameter(torch.zeros(encoder.num_layers + 1)) if use == "weighted" else None
        self.pooling = build_pooling(spec.pooling.kind, encoder.hidden_size)
        size = pooled_size(spec.pooling.kind, encoder.hidden_size)
        self.head = build_head(spec.head, size, len(self.labels))
        self.dimensions: tuple[str, ...] = spec.ratings.dimensions if spec.ratings is not None else ()
        self.rating_head = build_rating_head(spec.head, size, len(self.dimensions)) if self.dimensions else None
        if spec.ratings is not None and spec.ratings.only:
            self.head.requires_grad_(False)
        # drawn last, so that what came before is the same without it
        self.adversary = (
            Adversary(spec.adversary, size, num_adversaries)
            if spec.adversary is not None and num_adversaries is not None
            else None
        )
        self.progress = 0.0
        """Share of the training that is done, for the adversary."""
        self.class_weights: torch.Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)
        self._freeze()
        self._stages = self._unfreezing() if spec.freeze.gradual is not None else {}
        self.start_epoch(0)

    def forward(
        self,
        inputs: torch.Tensor,
        lengths: torch.Tensor,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        targets: torch.Tensor | None = None,
        ratings: torch.Tensor | None = None,
        adversaries: torch.Tensor | None = None,
        **ignored: object,
    ) -> dict[str, torch.Tensor]:
        """Logits of a padded batch, and the loss when labels are given.

        Args:
            inputs: what `encoder.collate` gives
            lengths: its valid lengths, (B,)
            labels: indices of the labels, (B,)
            num_items_in_batch: clips of the whole update when it is accumulated over several batches
            targets: distributions over the labels that the loss is taken towards instead, (B, K)
            ratings: in [0, 1], NaN where a clip has none, (B, D)
            adversaries: what the adversary is to tell, -1 where a clip does not count, (B,)
            ignored: other columns of the batch

        Returns:
            `logits` (B, K), float32; `loss`: weighted cross-entropy or focal loss (see `losses`), in training mode plus
            `head.l2` times the sum of the head's squared parameters. With ratings also `ratings` (B, D), float32, and
            their loss is added; where there are ratings only, it stands alone, and all logits are 0. With an adversary
            and in training mode also `adversary`, sums of its cross-entropy, right answers and clips (3,)
        """
        trained = any(parameter.requires_grad for parameter in self.encoder.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            states, mask = self.encoder(inputs, lengths, self.depth)
        with torch.autocast(inputs.device.type, enabled=False):  # pooling and head stay in float32
            pooled = self._pool(states, mask)
            only = self.spec.ratings is not None and self.spec.ratings.only
            logits = pooled.new_zeros(len(pooled), len(self.labels)) if only else self.head(pooled).float()
            outputs = {"logits": logits}
            if self.rating_head is not None:
                outputs["ratings"] = self.rating_head(pooled).float()
        if labels is None:
            return outputs
        settings: dict[str, Any] = {
            "weights": self.class_weights,
            "label_smoothing": self.spec.loss.label_smoothing,
            "num_items": num_items_in_batch,
        }
        gamma = self.spec.loss.focal_gamma
        if only:
            loss = logits.new_zeros(())
        elif targets is not None:
            loss = soft_cross_entropy(logits, targets, gamma=gamma, **settings)
        elif gamma is not None:
            loss = focal_loss(logits, labels, gamma=gamma, **settings)
        else:
            loss = cross_entropy(logits, labels, **settings)
        if self.training and self.spec.head.l2:
            share = 1.0 if num_items_in_batch is None else len(labels) / num_items_in_batch
            loss = loss + self.spec.head.l2 * share * sum(p.square().sum() for p in self._head_parameters())
        if self.spec.ratings is not None and ratings is not None:
            rated = ratings_loss(outputs["ratings"], ratings, self.spec.ratings, num_items=num_items_in_batch)
            loss = loss + self.spec.ratings.weight * rated
        if self.adversary is not None and adversaries is not None and self.training:
            nothing, outputs["adversary"] = self.adversary(
                pooled.float(), adversaries, progress=self.progress, num_items=num_items_in_batch
            )
            loss = loss + nothing
        return {"loss": loss, **outputs}

    def _head_parameters(self) -> list[nn.Parameter]:
        """Of the heads that are trained and saved."""
        heads = [self.head, self.rating_head]
        return [p for head in heads if head is not None for p in head.parameters() if p.requires_grad]

    def _pool(self, states: tuple[torch.Tensor, ...], mask: torch.Tensor) -> torch.Tensor:
        if self.layer_weights is None:
            pooled: torch.Tensor = self.pooling(states[-1].float(), mask)
            return pooled
        shares = self.layer_weights.softmax(dim=0)
        weighted = zip(shares, states, strict=True)
        if self.spec.layers.pool_position == "before":
            return torch.stack([share * self.pooling(state.float(), mask) for share, state in weighted]).sum(dim=0)
        frames = torch.stack([share * state.float() for share, state in weighted]).sum(dim=0)
        pooled = self.pooling(frames, mask)
        return pooled

    def _freeze(self) -> None:
        """Mark what `spec.freeze` freezes, and layers that no logit depends on, as not trained."""
        freeze, encoder = self.spec.freeze, self.encoder
        used = encoder.freezable(self.depth)
        if self.spec.adapter is not None:
            pass  # what was added is trained, and nothing else of the encoder
        elif freeze.encoder:
            encoder.requires_grad_(False)
        elif freeze.all_but_last is not None:
            if freeze.all_but_last > len(used):
                raise BadInput(
                    f"freeze.all_but_last: {freeze.all_but_last} is not valid; "
                    f"{len(used)} layer(s) of {_name(encoder)} are used"
                )
            encoder.requires_grad_(False)
            for layer in used[len(used) - freeze.all_but_last :]:
                layer.requires_grad_(True)
        elif freeze.cnn:
            for parameter in encoder.front_end_parameters():
                parameter.requires_grad_(False)
        if self.depth < encoder.num_layers:
            for module in [*encoder.layers[self.depth :], *encoder.last_modules()]:
                module.requires_grad_(False)

    @property
    def window_seconds(self) -> float | None:
        """The longest stretch that is heard at once, where spec or encoder limit it."""
        limits = (self.spec.window_seconds, self.encoder.takes_seconds)
        return min((limit for limit in limits if limit is not None), default=None)

    def _layers_above(self) -> dict[str, int]:
        """Of every parameter of the encoder: used layers above it; their number for what lies below the first layer."""
        above = dict.fromkeys((id(parameter) for parameter in self.encoder.parameters()), self.depth)
        for index, layer in enumerate(self.encoder.layers[: self.depth]):
            above |= dict.fromkeys(map(id, layer.parameters()), self.depth - 1 - index)
        for module in self.encoder.last_modules():
            above |= dict.fromkeys(map(id, module.parameters()), 0)
        return {f"encoder.{name}": above[id(parameter)] for name, parameter in self.encoder.named_parameters()}

    def _unfreezing(self) -> dict[str, int]:
        """The step of gradual unfreezing at which each parameter of the encoder that is ever trained joins, from 1."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return {name: above + 1 for name, above in self._layers_above().items() if name in trained}

    def start_epoch(self, epoch: int) -> None:
        """With `freeze.gradual`, train what is to be trained in this epoch (from 0); a pure function of its number."""
        if self.spec.freeze.gradual is not None:
            for name, step in self._stages.items():
                self.get_parameter(name).requires_grad_(epoch // self.spec.freeze.gradual >= step)

    def train(self, mode: bool = True) -> SerModel:
        """As usual, but a frozen part of the encoder stays in eval mode: no dropout, no layer drop, no SpecAugment."""
        super().train(mode)
        if mode:
            for module in self.encoder.modules():
                parameters = list(module.parameters())
                if parameters and not any(parameter.requires_grad for parameter in parameters):
                    module.eval()
        return self

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the transformer layers in the backward pass: less memory, more time, the same gradients."""
        self.encoder.enable_gradient_checkpointing()

    def parameter_groups(
        self,
        learning_rate: float,
        head_learning_rate: float | None,
        weight_decay: float,
        layer_decay: float | None = None,
    ) -> list[dict[str, Any]]:
        """Groups for an optimiser: encoder, and the rest (pooling, layer weights, head); no decay on biases and norms.

        What gradual unfreezing trains later is among them: without a gradient an optimiser leaves it alone.

        Args:
            learning_rate: of the encoder; with `layer_decay` of its last used layer and what follows it
            head_learning_rate: of the rest; `learning_rate` when None
            weight_decay: of matrices and kernels
            layer_decay: by which the rate is multiplied for every used layer above; the parts below the first layer
                lie one deeper than it

        Returns:
            one group, or two, per rate: the encoder from the top downwards, then the rest
        """
        above = self._layers_above() if layer_decay is not None else {}
        groups: dict[tuple[bool, int, bool], dict[str, Any]] = {}
        for name, parameter in self.named_parameters():
            if not (parameter.requires_grad or name in self._stages):
                continue
            rest, depth, plain = not name.startswith("encoder."), above.get(name, 0), parameter.ndim <= 1
            rate = learning_rate * (layer_decay or 1.0) ** depth
            if rest and head_learning_rate is not None:
                rate = head_learning_rate
            title = "head" if rest else "encoder" if layer_decay is None else f"encoder, {depth} above"
            group = groups.setdefault(
                (rest, depth, plain),
                {
                    "name": f"{title}{', no decay' if plain else ''}",
                    "params": [],
                    "lr": rate,
                    "weight_decay": 0.0 if plain else weight_decay,
                },
            )
            group["params"].append(parameter)
        return [groups[key] for key in sorted(groups)]

    def save(self, folder: Path) -> None:
        """Write config.json, model.safetensors, preprocessor_config.json and labels.json; `load` needs nothing else."""
        folder.mkdir(parents=True, exist_ok=True)
        config = self.encoder.config.to_dict() | {
            "architectures": [type(self).__name__],
            "id2label": {str(index): label for index, label in enumerate(self.labels)},
            "label2id": {label: index for index, label in enumerate(self.labels)},
            OURS: {
                "spec": self.spec.model_dump(mode="json"),
                "encoder": self.encoder.identity(),
                "dtype": str(self.encoder.dtype).removeprefix("torch."),
            },
        }
        write_json(folder / CONFIG, config)
        write_json(folder / LABELS, list(self.labels))
        self.encoder.extractor.save_pretrained(str(folder))
        self.encoder.save_code(folder)
        tensors = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in self.state_dict().items()
            if not name.startswith(ADVERSARY)
        }
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    @classmethod
    def load(cls, folder: Path, *, remote_code: bool = False) -> SerModel:
        """Read what `save` wrote, in eval mode; needs neither the hub nor the original encoder.

        Args:
            folder: of a saved model
            remote_code: RUN the code of an encoder that brings its own

        Raises:
            BadInput: a file is missing, the weights do not fit the configuration, or code that is not allowed
        """
        for name in (CONFIG, LABELS, WEIGHTS, PREPROCESSOR):
            if not (folder / name).is_file():
                raise BadInput(
                    f"{folder} holds no {name}; a saved model has {CONFIG}, {LABELS}, {WEIGHTS}, {PREPROCESSOR}"
                )
        content = read_json(folder / CONFIG)
        if OURS not in content:
            raise BadInput(f"{folder / CONFIG} has no key '{OURS}': a bare encoder, not a model trained here")
        ours = content.pop(OURS)
        spec = parse(ModelSpec, ours["spec"], source=str(folder / CONFIG), kind="saved model")
        try:
            state = load_file(folder / WEIGHTS)
        except SafetensorError as error:
            raise BadInput(f"{folder / WEIGHTS} is damaged: {error}") from None
        encoder = restore_encoder(content, folder, ours["encoder"], remote_code=remote_code)
        with uninitialised():
            encoder.to(getattr(torch, ours["dtype"]))
            model = cls(spec, read_json(folder / LABELS), encoder=encoder)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise BadInput(f"{folder / WEIGHTS} does not fit {CONFIG}: {error}") from None
        return model.eval()


def _refuse_single_layers(spec: ModelSpec, encoder: Encoder) -> None:
    """Refuse settings that treat layers one by one, of an encoder that does not show which modules they are."""
    settings = {
        "freeze.all_but_last": spec.freeze.all_but_last,
        "freeze.gradual": spec.freeze.gradual,
        "training.layer_decay": spec.training.layer_decay,
    }
    if given := [name for name, value in settings.items() if value is not None]:
        raise BadInput(
            f"{', '.join(given)}: the code of {_name(encoder)} does not show which of its modules are its layers; "
            "freeze.encoder, layers.use and a head_learning_rate work all the same"
        )


def _name(encoder: Encoder) -> str:
    return str(encoder.identity()["name"])
