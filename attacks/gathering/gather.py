"""Gathers what an observation says before any search: gradients, color, labels, feature maps."""

from dataclasses import fields, replace

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.changed_photos import ChangedPhotos
from fedaudit.attacks.adaptive.probing import adapt_to
from fedaudit.attacks.evidence.adam_magnitudes import read_magnitudes
from fedaudit.attacks.evidence.feature_maps.first_fully_connected import (
    common_direction,
    embedding_span,
    find_first_fully_connected,
    leads_to_head,
)
from fedaudit.attacks.evidence.feature_maps.map_separation import place_maps, take_apart
from fedaudit.attacks.evidence.followed_training import FollowedTraining
from fedaudit.attacks.evidence.grayscale import is_gray
from fedaudit.attacks.evidence.known_entries import kept_entries
from fedaudit.attacks.evidence.labels.head_gradient import read_head
from fedaudit.attacks.evidence.labels.infer import share_out, solve_all
from fedaudit.attacks.evidence.labels.of_feature_map import likeliest_label
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.attacks.evidence.simulated_misfit import simulated_misfit
from fedaudit.attacks.evidence.unshared_layers import unshared_names
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.training.schedule import without_pulls
from fedaudit.attacks.training.trained_parameters import (
    changed,
    possible_training,
    trained_part,
    unused_parts,
)
from fedaudit.core.errors import AttackError, KnowledgeError
from fedaudit.core.observation import Observation
from fedaudit.core.shared import Update
from fedaudit.core.training import LocalTraining
from fedaudit.models.batch_norm import replay_mode
from fedaudit.models.build_network import build
from fedaudit.models.foreign_network import adopt


def gather(seen: Observation) -> Evidence:
    """Everything that closed-form arguments give.

    Raises:
        KnowledgeError: The threat model does not grant the number and size of the images.
        AttackError: No model update among what was shared.
    """
    count, shape, update = _basics(seen)
    adaptation = adapt_to(seen)
    payload = adaptation.update or update
    device = next(iter(payload.tensors.values())).device
    network = adopt(build(seen.model, seen.before), shape)
    model = replay_mode(network, possible_training(network, seen)).to(device)
    training_part = trained_part(model, payload.tensors, shape)
    whole = mean_gradient(seen, payload, sparse=adaptation.sparse)
    target = {n: value for n, value in whole.items() if n in training_part}
    # Adam's steps keep the signs of a gradient but not its rank, which is what gives maps away.
    adam = _is_adam(seen)
    first_fc = None
    if not adam and adaptation.readable:
        first_fc = find_first_fully_connected(model, target, count, sparse=adaptation.sparse)
    straight = first_fc if first_fc and leads_to_head(model) else None
    common = common_direction(straight) if straight else None
    span = embedding_span(straight) if straight else None
    head = read_head(model, target, count, shape, common, span, noise=adaptation.std_of)
    linear = adaptation.readable and not adaptation.sparse and not adam
    labels, solution = seen.labels, None
    # Where labels are granted, the head has nothing to add but each image's place before it.
    if head is not None and linear and (labels is None or straight is not None):
        solution = solve_all(head, labels)
    if labels is None and head is not None and adaptation.directional:
        labels = share_out(head, solution)
        is_blurry = adaptation.noise or adaptation.sparse
        if first_fc and first_fc.maps is not None and is_blurry and count == 1:
            labels = likeliest_label(first_fc, model, target, sparse=adaptation.sparse)
    constants = frozenset(payload.tensors) - training_part
    complete = all(n in target or n in constants for n, _ in model.named_parameters())
    if first_fc and complete and labels is not None:
        if solution and solution.complete and torch.equal(labels.sort().values, solution.labels):
            places = torch.empty_like(solution.places)
            places[labels.argsort(stable=True)] = solution.places
            first_fc = place_maps(first_fc, model, places)
        if first_fc.maps is None or first_fc.upstream is None or count == 1:
            first_fc = take_apart(first_fc, model, labels)
    reading = Reading(
        model=model,
        target=target,
        count=count,
        shape=shape,
        labels=labels,
        grayscale=adaptation.directional
        and is_gray(
            model,
            target,
            sparse=adaptation.sparse,
            noise=adaptation.std_of if adaptation.noise else None,
        ),
        first_fc=first_fc,
        private=unshared_names(model, seen.before),
        clean=_is_clean(seen, update) and adaptation.exact,
        untrained=constants,
        draws=_draws(seen),
        signs=adam or adaptation.signs,
        unused=unused_parts(model, constants, seen.training, has_labels=labels is not None),
    )
    if adaptation.special:
        rounds = [mean_gradient(seen, update) for update in adaptation.rounds]
        for special in adaptation.special:
            reading = special.read(reading, head, rounds)
    labels = None if reading.labels is None else reading.labels.to(device)
    read = {f.name: getattr(reading, f.name) for f in fields(reading)} | {"labels": labels}
    photos = ChangedPhotos(adaptation.images, reading.count)
    return Evidence(**read, adaptation=adaptation, photos=photos)


def gather_inputs(seen: Observation) -> Evidence:
    """Only what is needed to read the layers' inputs: no labels, no head, no loss.

    The network is taken as it is. Special defenses are not met.

    Raises:
        KnowledgeError: The threat model does not grant the number and size of the images.
        AttackError: No model update among what was shared, or one of zeros.
    """
    count, shape, update = _basics(seen)
    still = frozenset(update.tensors) - frozenset(changed(update.tensors))
    adaptation = adapt_to(seen)
    if adaptation.special:
        adaptation = replace(adaptation, special=()).missing(adaptation.special[0].name)
    target = mean_gradient(seen, adaptation.update or update, sparse=adaptation.sparse)
    device = next(iter(target.values())).device
    network = build(seen.model, seen.before)
    model = replay_mode(network, possible_training(network, seen)).to(device)
    noise = adaptation.std_of if adaptation.noise else None
    evidence = Evidence(
        model=model,
        target=target,
        count=count,
        shape=shape,
        labels=None,
        grayscale=adaptation.directional
        and is_gray(model, target, sparse=adaptation.sparse, noise=noise),
        first_fc=None,
        private=unshared_names(model, seen.before),
        clean=_is_clean(seen, update) and adaptation.exact,
        adaptation=adaptation,
        photos=ChangedPhotos((), count),
        untrained=still,
        draws=_draws(seen),
        signs=_is_adam(seen) or adaptation.signs,
        # Labels are read off at the end.
        unused=unused_parts(model, still, seen.training, has_labels=True),
    )
    if seen.training is not None and update.kind == "delta" and evidence.adaptation.untouched:
        known = read_magnitudes(update.tensors, seen.before, seen.training)
        evidence = replace(evidence, known=known)
    elif evidence.adaptation.pruned and not evidence.signs and _is_one_step(seen.training):
        evidence = replace(evidence, known=kept_entries(target))
    if _is_followed(seen, evidence):
        assert seen.training is not None
        followed = FollowedTraining(model, seen.training, seen.before, update.tensors)
        evidence = replace(evidence, followed=followed)
    return replace(evidence, misfit=simulated_misfit(evidence, seen))


def _draws(seen: Observation) -> bool:
    """Whether what is random was so on the device: where batch norm evaluates, all may have."""
    return seen.mode is None or seen.mode.batch_norm == "train"


def _is_adam(seen: Observation) -> bool:
    """Whether each step divides every number of the gradient by that number's usual size."""
    return seen.training is not None and seen.training.by_adam


def _is_followed(seen: Observation, evidence: Evidence) -> bool:
    """Whether an update of several steps says where the weights were meanwhile.

    Not where each of them sees all images: two steps on eight photos of p09 and p10 had SSIM 0.81
    and 0.65 so in two networks, 0.79 and 0.65 without (156 and 99 CPU s; benchmarks/subspace.py).
    Nor where nothing tells who shared a mini-batch, as batch norm in training mode does, or where
    each epoch sees other versions of the photos.
    """
    training, update = seen.training, seen.update
    if training is None or update is None or update.kind == "gradient":
        return False
    several = training.optimizer == "sgd" and training.steps > 1
    if training.augmentation and training.steps * training.batch_size > evidence.count:
        return False
    mixed = evidence.coupled and evidence.count > training.batch_size
    return several and mixed and evidence.adaptation.exact and not evidence.adaptation.scaled


def _is_one_step(training: LocalTraining | None) -> bool:
    """Whether the update may be one gradient, at the weights that were broadcast."""
    return training is None or training.steps == 1


def _basics(seen: Observation) -> tuple[int, tuple[int, int, int], Update]:
    """Number and shape of the images, and the update; an error where one of them is missing."""
    if seen.batch_size is None or seen.image_shape is None:
        raise KnowledgeError(
            "matching needs the number and size of the images: use threat model B or above, "
            'or grant = ["basic"].'
        )
    if seen.update is None:
        raise AttackError("nothing to match: the client shared no model update")
    return seen.batch_size, seen.image_shape, seen.update


def mean_gradient(seen: Observation, update: Update, *, sparse: bool = False) -> dict[str, Tensor]:
    """The client's mean gradient; for several local steps, the mean over them.

    Weight decay and FedProx's pull are subtracted. Adam's delta is left as the mean of steps of
    about the learning rate, nearly the gradient's sign. Where the settings are not known the scale
    is not known either, which cosine distances do not mind. Of a `sparse` update what is zero was
    left out, and stays zero: of weight decay it shows nothing that could be subtracted.
    """
    if update.kind == "gradient":
        return dict(update.tensors)
    if seen.training is None:
        return {name: -value for name, value in update.tensors.items()}
    slopes = without_pulls(update.tensors, seen.before, seen.training)
    if sparse:
        return {name: slope * (update.tensors[name] != 0) for name, slope in slopes.items()}
    return slopes


def _is_clean(seen: Observation, update: Update) -> bool:
    """Whether the threat model lets an attacker know that the gradient is exact."""
    training = seen.training
    once = update.kind == "gradient" or (
        training is not None and training.steps == 1 and training.optimizer == "sgd"
    )
    return once and seen.defense is not None
