"""What an observation says before any search: target gradients, color, labels, feature maps."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fedaudit.attacks.adaptive.adaptation import Adaptation, adapt_to
from fedaudit.attacks.adaptive.changed_photos import ChangedPhotos, copies_of
from fedaudit.attacks.adaptive.concealed_separation import among_company, photo_among
from fedaudit.attacks.evidence.feature_maps.first_fully_connected import (
    FirstFullyConnected,
    common_direction,
    embedding_span,
    find_first_fully_connected,
    leads_to_head,
    likeliest_label,
    place_maps,
    take_apart,
)
from fedaudit.attacks.evidence.feature_maps.input_span import InputSpan, decisive, find_spans
from fedaudit.attacks.evidence.labels.head_gradient import HeadGradient, read_head
from fedaudit.attacks.evidence.labels.infer import share_out, solved
from fedaudit.attacks.evidence.labels.mixed import mixed_label
from fedaudit.attacks.evidence.unshared_layers import unshared_names
from fedaudit.attacks.training.schedule import without_pulls
from fedaudit.core.errors import AttackError, KnowledgeError
from fedaudit.core.observation import Observation
from fedaudit.core.shared import Update
from fedaudit.models.batch_norm import client_mode
from fedaudit.models.facenet import FaceNet
from fedaudit.models.foreign_network import adopt
from fedaudit.models.soft_labels import most_likely
from fedaudit.models.zoo import build

NOTHING = Adaptation()
GRAY_TOLERANCE = 1e-3
"""Relative difference of channels that count as equal."""
GRAY_ENTRIES = 4
"""Entries that must have been sent of two channels to compare them."""
GRAY_NOISE = 1.1
"""Difference of channels, in units of the noise's, up to which they count as equal."""
GRAY_SIGNAL = 1.2
"""Size of what channels share, in units of the noise's, from which on they can be compared."""
NON_SMOOTH = (nn.ReLU, nn.ReLU6, nn.PReLU, nn.LeakyReLU, nn.RReLU, nn.Hardtanh, nn.MaxPool2d)
"""Layers whose second derivative is zero or missing."""


@dataclass(frozen=True)
class Evidence:
    """An observation, made ready for matching.

    Attributes:
        model: The client's network with the broadcast parameters, in the mode that it trains in;
            what is private is random.
        target: The client's mean gradient by parameter name, as far as it was shared.
        count: Number of images N.
        shape: `(C, H, W)`.
        labels: `[N]`; None where the head was not shared.
        grayscale: The update proves that the channels of every image were equal.
        first_fc: What the first fully connected layer gives away; None where it gives nothing.
        private: Names of the parameters that stay on the device.
        clean: The update is one exact gradient: no noise, no drift over several steps.
        adaptation: How the defenses in use are met.
        photos: As they trained, of photos as they are searched for.
        soft: `[N, K]` class probabilities, where a defense gave images such labels.
        turned: Where each parameter was turned away at right angles: what was sent of it in every
            round, `[R, …]` by name; {} where it was not.
    """

    model: nn.Module
    target: Mapping[str, Tensor]
    count: int
    shape: tuple[int, int, int]
    labels: Tensor | None
    grayscale: bool
    first_fc: FirstFullyConnected | None
    private: frozenset[str] = frozenset()
    clean: bool = False
    adaptation: Adaptation = field(default_factory=Adaptation)
    photos: ChangedPhotos = field(default_factory=lambda: ChangedPhotos((), 0))
    soft: Tensor | None = None
    turned: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def told(self) -> bool:
        """Whether one photo is told from the images that a defense put beside it.

        It is the first where labels are `soft`, and else one of several of the same person.
        """
        if self.adaptation.company is None or self.labels is None:
            return False
        known = self.first_fc is not None and self.first_fc.maps is not None
        return self.soft is not None or (known and bool((self.labels == self.labels[0]).all()))

    @property
    def mixed(self) -> bool:
        """Whether the image is a mixture of photos whose coefficients, `soft`, are known."""
        return self.adaptation.mixed is not None and self.soft is not None

    @property
    def masked(self) -> bool:
        """Whether values of the mixture were turned into their negative at random."""
        return self.mixed and self.adaptation.mixed is not None and self.adaptation.mixed.masked

    @property
    def blind(self) -> bool:
        """Whether the client's loss cannot be computed: no labels, or a head that is not known."""
        return self.labels is None or bool(self.private)

    @cached_property
    def spans(self) -> tuple[InputSpan, ...]:
        """What the inputs of each layer span, where its gradient gives that away."""
        return find_spans(
            self.model,
            self.target,
            self.shape,
            self.count,
            private=self.private,
            clean=self.clean,
        )

    @property
    def spans_decide(self) -> bool:
        """Whether spans alone leave the images no freedom."""
        return decisive(self.spans, self.shape, self.count, grayscale=self.grayscale)

    @property
    def smooth(self) -> bool:
        """Whether all activations are smooth, so that a search may trust second derivatives."""
        return not any(isinstance(module, NON_SMOOTH) for module in self.model.modules())

    @property
    def coupled(self) -> bool:
        """Whether images see each other: batch norm in training mode, several images."""
        return self.count > 1 and any(
            isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
            for module in self.model.modules()
        )

    def photos_among(self, images: Tensor) -> slice:
        """Which of the rebuilt images `[N, C, H, W]` are photos: all, or the one that is `told`."""
        if not self.told:
            return slice(None)
        assert self.first_fc is not None
        assert isinstance(self.model, FaceNet)
        with torch.no_grad():
            features = self.model.features(images)
        which = photo_among(self.first_fc, features, told=self.soft is not None)
        return slice(which, which + 1)

    def to(self, dtype: torch.dtype) -> "Evidence":
        """The same in another precision; the model is converted in place."""
        first_fc = self.first_fc
        if first_fc is not None:
            tensors: dict[str, Any] = {f.name: getattr(first_fc, f.name) for f in fields(first_fc)}
            for name, value in tensors.items():
                tensors[name] = value if value is None else value.to(dtype)
            first_fc = replace(first_fc, **tensors)
        return replace(
            self,
            model=self.model.to(dtype),
            target={name: value.to(dtype) for name, value in self.target.items()},
            first_fc=first_fc,
            turned={name: value.to(dtype) for name, value in self.turned.items()},
        )


def gather(seen: Observation) -> Evidence:
    """Everything that closed-form arguments give.

    Raises:
        KnowledgeError: The threat model does not grant the number and size of the images.
        AttackError: No model update among what was shared.
    """
    if seen.batch_size is None or seen.image_shape is None:
        raise KnowledgeError(
            "matching needs the number and size of the images: use threat model B or above, "
            'or grant = ["basic"].'
        )
    if seen.update is None:
        raise AttackError("nothing to match: the client shared no model update")
    adaptation = adapt_to(seen)
    target = mean_gradient(seen, adaptation.update or seen.update)
    device = next(iter(target.values())).device
    network = adopt(build(seen.model, seen.before), seen.image_shape)
    model = client_mode(network, seen.training).to(device)
    # Adam's steps keep the signs of a gradient but not its rank, which is what gives maps away.
    adam = seen.training is not None and seen.training.optimizer == "adam"
    first_fc = None
    if not adam and adaptation.readable:
        first_fc = find_first_fully_connected(
            model, target, seen.batch_size, sparse=adaptation.sparse
        )
    straight = first_fc if leads_to_head(model) else None
    common = common_direction(straight) if straight else None
    span = embedding_span(straight) if straight else None
    head = read_head(model, target, seen.batch_size, common, span, noise=adaptation.std_of)
    linear = adaptation.readable and not adaptation.sparse
    found = None if adam or head is None or not linear else solved(head)
    labels = seen.labels
    if labels is None and head is not None and not adaptation.turned:
        labels = share_out(head, found)
        blurred = adaptation.noise or adaptation.sparse
        if first_fc and first_fc.maps is not None and blurred and seen.batch_size == 1:
            labels = likeliest_label(first_fc, model, target, sparse=adaptation.sparse)
    complete = all(name in target for name, _ in model.named_parameters())
    if first_fc and complete and labels is not None:
        if found and found.complete and torch.equal(labels.sort().values, found.labels):
            places = torch.empty_like(found.places)
            places[labels.argsort(stable=True)] = found.places
            first_fc = place_maps(first_fc, model, places)
        if first_fc.maps is None or first_fc.upstream is None or seen.batch_size == 1:
            first_fc = take_apart(first_fc, model, labels)
    first_fc, soft = _behind_defense(adaptation, first_fc, model, head)
    labels = labels if soft is None else most_likely(soft)
    copies = copies_of(adaptation.images, seen.image_shape)
    count = max(1, seen.batch_size // copies)
    if copies > 1:
        labels = None if labels is None else labels.sort().values[::copies][:count]
        first_fc = first_fc and replace(first_fc, maps=None, upstream=None)
    return Evidence(
        model=model,
        target=target,
        count=count,
        shape=seen.image_shape,
        labels=None if labels is None else labels.to(device),
        grayscale=not adaptation.turned and is_gray(model, target, adaptation),
        first_fc=first_fc,
        private=unshared_names(model, seen.before),
        clean=_is_clean(seen, seen.update) and adaptation.exact,
        adaptation=adaptation,
        photos=ChangedPhotos(adaptation.images, count),
        soft=soft,
        turned=_every_round(seen, adaptation) if adaptation.turned else {},
    )


def _every_round(seen: Observation, adaptation: Adaptation) -> dict[str, Tensor]:
    """What was sent of each parameter, `[R, …]`, newest first."""
    every = [mean_gradient(seen, update) for update in adaptation.rounds]
    return {name: torch.stack([one[name] for one in every]) for name in every[0]}


def _behind_defense(
    adaptation: Adaptation,
    first_fc: FirstFullyConnected | None,
    model: nn.Module,
    head: HeadGradient | None,
) -> tuple[FirstFullyConnected | None, Tensor | None]:
    """The layer, and `[N, K]` class probabilities, of images that a defense gave such labels."""
    if first_fc is None or head is None:
        return first_fc, None
    if adaptation.company is not None:
        return among_company(first_fc, model, head, adaptation.company) or (first_fc, None)
    known = first_fc.maps is not None and first_fc.known is None
    if not (adaptation.mixed and known and leads_to_head(model)):
        return first_fc, None
    assert first_fc.maps is not None
    assert isinstance(model, FaceNet)
    place = (
        first_fc.maps[0] if model.entry_layer is model.head else first_fc.weight @ first_fc.maps[0]
    )
    found = mixed_label(head, place)
    return first_fc, None if found is None else found[None]


def mean_gradient(seen: Observation, update: Update) -> dict[str, Tensor]:
    """The client's mean gradient; for several local steps, the mean over them.

    A weight delta is minus the sum of the steps' gradients, each with its factor: the learning rate
    and what momentum adds to it. Weight decay and FedProx's pull are subtracted. Adam's delta is
    left as it is: the mean of steps of about the learning rate, nearly the gradient's sign. Where
    the settings are not known the scale is not known either, which cosine distances do not mind.
    """
    if update.kind == "gradient":
        return dict(update.tensors)
    if seen.training is None:
        return {name: -value for name, value in update.tensors.items()}
    return without_pulls(update.tensors, seen.before, seen.training)


def _is_clean(seen: Observation, update: Update) -> bool:
    """Whether the threat model lets an attacker know that the gradient is exact."""
    training = seen.training
    once = update.kind == "gradient" or (
        training is not None and training.steps == 1 and training.optimizer == "sgd"
    )
    return once and seen.defense is not None


def is_gray(
    model: nn.Module, target: Mapping[str, Tensor], adaptation: Adaptation = NOTHING
) -> bool:
    """Equal channels in every image make the first convolution's gradient equal over them.

    Under noise they are equal as far as it allows, where anything is left to be told apart: of
    photos whose colors are fainter than the noise, it leaves their brightness only. Where
    entries are missing, those that were sent of all channels count.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            gradient = target.get(f"{name}.weight")
            if gradient is None or gradient.shape[1] < 2 or module.groups != 1:
                return False
            if adaptation.sparse:
                return _alike(gradient)
            common = gradient.mean(1, keepdim=True)
            spread = (gradient - common).norm()
            if adaptation.noise:
                channels, std = gradient.shape[1], adaptation.std_of(f"{name}.weight")
                chance = std * (common.numel() * (channels - 1)) ** 0.5
                loud = common.norm() > GRAY_SIGNAL * std * (common.numel() / channels) ** 0.5
                return bool(loud and spread < GRAY_NOISE * chance)
            return bool(spread < GRAY_TOLERANCE * gradient.norm())
    return False


def _alike(gradient: Tensor) -> bool:
    """Whether channels agree in all entries that were sent of two of them."""
    channels = gradient.shape[1]
    apart, loud, both = 0.0, 0.0, 0
    for one in range(channels):
        for two in range(one + 1, channels):
            sent = (gradient[:, one] != 0) & (gradient[:, two] != 0)
            apart += float(((gradient[:, one] - gradient[:, two]) * sent).square().sum())
            loud += float((gradient[:, one] * sent).square().sum())
            both += int(sent.sum())
    return both >= GRAY_ENTRIES and apart < GRAY_TOLERANCE**2 * loud
