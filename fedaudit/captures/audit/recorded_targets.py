"""One target of an audit of a recorded run: what the server saw, and what the auditor knows of it.

A study of a capture says in its data settings which messages are its targets (`auditing.study_of`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedaudit.attacks.gathering.gather import gather
from fedaudit.captures.audit.canary import (
    Originals,
    all_originals,
    embed_gallery,
    originals,
    secret_of,
)
from fedaudit.captures.audit.stated_defenses import seen_by_attacks
from fedaudit.captures.format.capture_facts import DpClaim
from fedaudit.captures.format.capture_network import model_of
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.observations import observed
from fedaudit.captures.format.renaming import checked
from fedaudit.core.capture import Capture
from fedaudit.core.claims import Budget
from fedaudit.core.client import ClientTask
from fedaudit.core.errors import AttackError, CaptureError, FedauditError
from fedaudit.core.observation import LocalTraining, Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.scenario import Scenario, Study
from fedaudit.core.seeds import generator_for
from fedaudit.core.trial import Cell
from fedaudit.data.face_set import FaceSet
from fedaudit.data.provenance import facts as provenance
from fedaudit.federation.local_training import train_locally
from fedaudit.scoring.identity import Embed

LISTED = 40
"""Updates whose hashes a report lists one by one."""
TERMS = "recorded in a real run; the people in it are not shown unless you ask for it"


@dataclass(frozen=True)
class Target:
    """A message of the capture that is attacked.

    Attributes:
        scenario: Of the study.
        round: Of the capture.
        file: Name of the message's file.
        client: Who sent it, as text to show.
        sha256: Of the file.
        images: Behind the update; 0 where that is not known.
        truth: Client and folder of each client behind it whose photos are known.
    """

    scenario: str
    round: int
    file: str
    client: str
    sha256: str
    images: int = 0
    truth: Mapping[str, str] | None = None

    def as_plain(self) -> dict[str, Any]:
        """As the study keeps it."""
        return {**self.__dict__, "truth": dict(self.truth or {})}


def targets_of(study: Study, scenario: str) -> tuple[Target, ...]:
    """The targets of a scenario, in order."""
    kept = (Target(**plain) for plain in study.data.settings["targets"])
    return tuple(target for target in kept if target.scenario == scenario)


def capture_of(study: Study, scenario: Scenario, cell: Cell) -> Capture:
    """What the server saw of the cell's target, and the truth where the auditor brought it.

    Raises:
        CaptureError: The message's file is gone, damaged, or another one than when the run began.
    """
    target = targets_of(study, scenario.name)[cell.target]
    settings = study.data.settings
    stored = StoredCapture(settings["path"], renaming=checked(settings["rename"]))
    model, digest = settings["model"] or None, settings["model_sha256"]
    spec = model_of(stored.facts, model, sha256=digest)
    found = next(
        observed(stored, spec, target.round, lambda one: one.path.name == target.file), None
    )
    if found is None:
        why = str(stored.problems[-1]) if stored.problems else "the message is gone"
        raise CaptureError(target.file, f"it cannot be used any more: {why}")
    members, seen = found
    if digest_of(members[0].path) != target.sha256:
        raise CaptureError(target.file, "it has changed since this audit began: use a new --output")
    shown = seen_by_attacks(seen, stored.facts, settings["seen"], target.client)
    secret = None
    if target.truth:
        assert seen.image_shape is not None  # studies give truth to no other
        secret = secret_of(known_photos(target), seen.image_shape)
    return Capture(shown, secret, budget_of(stored.facts.dp))


def known_photos(target: Target) -> tuple[tuple[str, Originals], ...]:
    """Photos of the target's clients, as far as they are known."""
    given = (target.truth or {}).items()
    return tuple((client, originals(Path(path), target.round)) for client, path in given)


def budget_of(claim: DpClaim | None) -> Budget | None:
    """The guarantee as the federation claims it; None where it claims none."""
    if claim is None or claim.epsilon is None or claim.delta is None:
        return None
    parts = {"C": claim.clip, "σ": claim.noise, "sampling": claim.sampling}
    told = ", ".join(f"{name} = {value:g}" for name, value in parts.items() if value is not None)
    return Budget(
        epsilon=claim.epsilon,
        delta=claim.delta,
        unit=f"one {claim.unit or 'unit that is not stated'}, for the whole training",
        mechanism=f"as claimed ({told or 'no settings stated'})",
        accountant="claimed by the federation, not computed here",
    )


def wrong_person(study: Study, scenario: Scenario, cell: Cell, people: tuple[str, ...]) -> str:
    """Somebody of another client whom the target does not show; "" where there is nobody.

    Args:
        study: Of the capture.
        scenario: Of the cell.
        cell: Of the target.
        people: Whom the target shows.
    """
    others = targets_of(study, scenario.name)
    turned = (*others[cell.target + 1 :], *others[: cell.target])
    known = (p for other in turned for client, o in known_photos(other) for p in _named(client, o))
    return next((person for person in known if person not in people), "")


def _named(client: str, found: Originals) -> tuple[str, ...]:
    return tuple(person or client for person in found.people)


def explained(seen: Observation, found: Reconstruction, *, own: bool = True) -> float | None:
    """Cosine between the update and the one that a client would have made of the reconstruction.

    1 where the reconstruction explains all of it; independent of the attack's own objective, so
    that attacks and controls can be compared. A photo that looks different may explain an update,
    too: this is no likeness.

    Args:
        seen: Holds the update.
        found: The images.
        own: They were rebuilt from this update: labels are the attack's, as far as it has any.
            Else, and where it has none, they are inferred from the update, so that a control is
            not told apart by its labels alone.

    Returns:
        None where labels cannot be inferred, or no update was shared.
    """
    update = seen.update
    if update is None:
        return None
    labels: Tensor | None = found.labels
    if not own or bool((found.labels < 0).any()):
        labels = _inferred(seen)
    if labels is None or len(labels) != len(found.images):
        return None
    count = len(found.images)
    training = seen.training or LocalTraining(batch_size=count)
    task = ClientTask(
        model=seen.model,
        before=seen.before,
        kept={},
        images=found.images.clamp(0, 1),
        labels=labels.long(),
        training=replace(training, batch_size=min(training.batch_size, count)),
        share=update.kind,
        generator=generator_for("explained"),
    )
    try:
        made = train_locally(task).shared[0]
    except (AttackError, RuntimeError, ValueError):  # it diverged, or batch norm met one image
        return None
    tensors: Mapping[str, Tensor] = made.tensors  # type: ignore[attr-defined]
    names = [name for name in update.tensors if name in tensors]
    ours = torch.cat([tensors[name].flatten().double() for name in names])
    theirs = torch.cat([update.tensors[name].flatten().double() for name in names])
    return float(ours @ theirs / (ours.norm() * theirs.norm()).clamp_min(1e-30))


def _inferred(seen: Observation) -> Tensor | None:
    try:
        return gather(seen).labels
    except (FedauditError, RuntimeError):
        return None


def explained_other(
    study: Study, scenario: Scenario, cell: Cell, found: Reconstruction
) -> float | None:
    """The same against the update of another client: the wrong-client control."""
    targets = targets_of(study, scenario.name)
    mine = targets[cell.target]
    turned = [(cell.target + k) % len(targets) for k in range(1, len(targets))]
    others = [k for k in turned if targets[k].client != mine.client]
    other = next((k for k in others if targets[k].round == mine.round), None)
    if other is None:
        return None
    try:
        seen = capture_of(study, scenario, replace(cell, target=other)).seen
    except CaptureError:
        return None
    return explained(seen, found, own=False)


def gallery_of(
    study: Study, full: int, embed: Embed
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """References and probes of the gallery that the auditor brought.

    Args:
        study: Names it.
        full: Pixels of references.
        embed: The embedder.
    """
    settings = study.data.settings
    channels, height, width = settings["shape"]
    shape = (channels, height, width)
    kept = [Target(**plain) for plain in settings["targets"]]
    truth = {client: Path(path) for one in kept for client, path in (one.truth or {}).items()}
    known = all_originals(truth, sorted({one.round for one in kept}), shape)
    return embed_gallery(Path(settings["gallery"]), shape, full, embed, known)


def facts_of(study: Study) -> dict[str, Any]:
    """Provenance of a recorded run: hashes of what was attacked, none of a face."""
    blank = FaceSet("capture", torch.empty(0), (), (), TERMS)
    kept = {f"{t['round']}/{t['file']}": t["sha256"] for t in study.data.settings["targets"]}
    if len(kept) > LISTED:
        whole = hashlib.sha256("\n".join(kept.values()).encode()).hexdigest()
        kept = {f"hashes of {len(kept)} updates": whole}
    return {**provenance(blank), "hashes": kept}


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
