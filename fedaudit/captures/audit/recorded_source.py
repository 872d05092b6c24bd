"""A recorded run as the source of a study's captures, with what the auditor knows of it."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedaudit.captures.audit.auditor_photos import (
    Shape,
    all_originals,
    embed_gallery,
    gallery_faces,
    secret_of,
)
from fedaudit.captures.audit.auditor_steps import explained, positive_capture
from fedaudit.captures.audit.invented_updates import of_invented_people
from fedaudit.captures.audit.known_defenses import seen_by_attacks
from fedaudit.captures.audit.recorded_people import hide_names, key_of_run, people_of, photos_of
from fedaudit.captures.claims.stated_claim import claim_of
from fedaudit.captures.format.capture_network import model_of
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.observations import observe
from fedaudit.captures.format.tensor_names import check_rules
from fedaudit.captures.simulate.invented_clients import NOISE, is_gray
from fedaudit.captures.simulate.known_controls import familiar_priors, known_controls
from fedaudit.captures.simulate.prior_overlap import overlaps
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.capture import Capture, Secret
from fedaudit.core.errors import AttackError, CaptureError
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import Attack
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.recorded_run import RecordedRun, RecordedTarget
from fedaudit.core.scenario import Choice, Federation, Study
from fedaudit.core.seeds import generator_for
from fedaudit.core.source import Explained, FaceEmbedder, SourceFacts
from fedaudit.core.trial import POSITIVE, Cell
from fedaudit.data import provenance
from fedaudit.data.composites import composite_faces
from fedaudit.data.face_set import FaceSet
from fedaudit.data.pseudonyms import nameless_errors, pseudonym
from fedaudit.defenses.composition import close_claims
from fedaudit.files.asset_sources import sha256
from fedaudit.scoring.identity import GALLERY_SIZE, pack

LISTED = 40
"""Updates whose hashes a report lists one by one."""
TERMS = "recorded in a real run; the people in it are not shown unless you ask for it"
LIMITATIONS = (
    "Only the listed attacks were run, on the updates that were recorded. A stronger attack may "
    "succeed where these did not; a longer or better tuned one too.",
    "What was recorded is taken as stated; a wrong fact, such as a learning rate, makes attacks "
    "fail.",
    "That a protection is not seen in the numbers does not mean that there is none.",
    "The prior-only control attacks updates that the auditor computed on invented people, at the "
    "recorded weights and through the protections that are known; where a client's round cannot be "
    "repeated so, noise of the update's norm, and Controls says so.",
)
NO_ROW = "Not in the gallery, so that updates of these people are in no row"
IDENTITY = (
    "Identity is judged by the stated networks at the stated FMR, calibrated on the gallery's "
    "people: the first decides.",
    "A threshold calibrated on photos says little about images that are not faces; the noise and "
    "prior-only controls show how often such images match.",
)


@dataclass(frozen=True)
class RecordedSource:
    """Updates that clients of a real run sent; the truth is what the auditor brought along.

    Attributes:
        study: Whose cells are of the run.
        run: What is attacked of it.
    """

    study: Study
    run: RecordedRun

    def capture(self, cell: Cell, attack: Attack | None = None) -> Capture:
        """What the server saw of the cell's target, or of a step that the auditor makes itself.

        Raises:
            CaptureError: The message's file is gone, damaged, or another one than when the run
                began.
        """
        del attack  # what the server sent is recorded
        if cell.role in POSITIVE:
            seen = self._read_target(self._targets(cell)[0]).seen
            if seen.image_shape is None:
                raise AttackError("a control needs the size of the images to make some.")
            truth = self._known_faces(cell.target, seen.image_shape)
            trained_on = truth.images
            if cell.role == "positive_prior":  # its control: other faces, as gray as these
                others = tuple(f"control {cell.target}, {k}" for k in range(len(trained_on)))
                gray = is_gray(trained_on)
                trained_on = composite_faces(others, seen.image_shape, grayscale=gray)
            return positive_capture(seen, f"positive control {cell.target}", truth, trained_on)
        capture = self._read_target(self._targets(cell)[cell.target])
        if cell.role == "prior_only" and (twin := of_invented_people(capture.seen, cell)):
            return replace(capture, seen=twin[0], control=twin[1])
        if cell.role in {"prior_only", "update_noise"}:
            empty = without_update(capture.seen, generator_for("update noise", cell.key))
            return replace(capture, seen=empty, control=NOISE)
        return capture

    def facts(self) -> SourceFacts:
        """What a report must know of the recorded run."""
        run, known = self.run, {}
        if run.gallery:
            folder = Choice("folder", {"path": run.gallery})
            known = overlaps(replace(self.study, data=folder))
        return SourceFacts(
            truth="brought",
            originals=any(target.truth for target in run.targets),
            gallery=bool(run.gallery),
            training=run.training,
            model_states={s.name: self._model_state(s.name) for s in self.study.scenarios},
            protections=run.seen,
            positive="photos of the gallery" if run.gallery else "invented faces",
            familiar=tuple(known) if run.gallery else familiar_priors(self.study),
            overlaps=known,
        )

    def limitations(self) -> tuple[str, ...]:
        """What was assumed, and what could not be tested."""
        run = self.run
        assumptions, strangers = ", ".join(run.assumed), ", ".join(run.unidentified)
        return (
            *LIMITATIONS,
            *(IDENTITY if run.gallery else ()),
            *known_controls(self.study),
            *(f"{note[:1].upper()}{note[1:]}." for note in run.naming),
            *([f"Assumed, as nothing else was stated: {assumptions}."] if assumptions else ()),
            *([f"{NO_ROW}: {strangers}."] if strangers else ()),
            *(f"Not tested: {o['attack']}, which misses {o['missing']}." for o in run.left_out),
            *(f"Not tested, because it cannot be used: {problem}" for problem in run.problems),
            *(f"Unusual: {anomaly}" for anomaly in run.anomalies),
        )

    def notes(self) -> tuple[str, ...]:
        """Always empty: defenses are the clients' own."""
        return ()

    def provenance(self) -> dict[str, Any]:
        """Software versions, and hashes of the attacked files; no hash of a face."""
        blank = FaceSet("capture", torch.empty(0), (), (), TERMS)
        hashes = {f"{one.round}/{one.file}": one.sha256 for one in self.run.targets}
        if len(hashes) > LISTED:
            whole = hashlib.sha256("\n".join(hashes.values()).encode()).hexdigest()
            hashes = {f"hashes of {len(hashes)} updates": whole}
        return {**provenance.facts(blank), "hashes": hashes}

    def gallery(self, federation: Federation, embedder: FaceEmbedder) -> dict[str, Tensor] | None:
        """Embeddings of the people whom the auditor brought along."""
        del federation  # nothing of it trains here
        run = self.run
        if not run.gallery:
            return None
        truth = {c: Path(path) for one in run.targets for c, path in one.truth.items()}
        channels, height, width = run.shape
        shape = channels, height, width
        with nameless_errors():
            faces = all_originals(truth, sorted({one.round for one in run.targets}), shape)
            photos = [self._known_faces(k, shape).images for k in range(run.positive)]
            faces = torch.cat([*([faces] if len(faces) else ()), *photos])
            gallery = embed_gallery(Path(run.gallery), shape, GALLERY_SIZE, embedder, faces)
        key = key_of_run(run)
        references, probes = ({pseudonym(p, key): e for p, e in of.items()} for of in gallery[:2])
        nearest = {pseudonym(person, key): psnr for person, psnr in gallery[2].items()}
        return pack(references, probes, nearest, gallery[3])

    def wrong_person(self, cell: Cell, secret: Secret, found: Reconstruction) -> str | None:
        """Somebody of another target whose photos the auditor brought."""
        del found
        if cell.role in POSITIVE:
            return None
        key = key_of_run(self.run)
        others = (pseudonym(p, key) for other in self._others(cell) for p in people_of(other))
        return next((person for person in others if person not in secret.people), None)

    def explained(self, cell: Cell, seen: Observation, found: Reconstruction) -> Explained:
        """How much of the cell's update the images explain, and of another client's update."""
        if cell.role in {*POSITIVE, "half_steps"}:
            return Explained()
        mine = self._targets(cell)[cell.target]
        if cell.role != "audit":  # how much of the recorded update a control's images explain
            return Explained(explained(self._read_target(mine).seen, found, own=False))
        own = explained(seen, found)
        others = [other for other in self._others(cell) if other.client != mine.client]
        other = next((other for other in others if other.round == mine.round), None)
        if other is None:
            return Explained(own)
        try:
            return Explained(own, explained(self._read_target(other).seen, found, own=False))
        except CaptureError:
            return Explained(own)

    def _known_faces(self, number: int, shape: Shape) -> Secret:
        """The faces of a positive control, as many as clients train on.

        They are of the gallery's people, or of people who do not exist.
        """
        count, gallery = max(1, self.run.targets[0].images), self.run.gallery
        unknown = torch.full((count,), -1)
        if not gallery:
            names = tuple(f"positive control {number}, face {k}" for k in range(count))
            return Secret(composite_faces(names, shape, grayscale=False), unknown, names, names)
        faces, people, drawn_from = gallery_faces(gallery, shape, number, count)
        truth = Secret(faces, unknown, people, people, eligible=drawn_from)
        return hide_names(truth, key_of_run(self.run))

    def _targets(self, cell: Cell) -> tuple[RecordedTarget, ...]:
        return self.run.targets_of(cell.scenario)

    def _others(self, cell: Cell) -> tuple[RecordedTarget, ...]:
        """All other targets of the scenario, from the next on."""
        targets = self._targets(cell)
        return (*targets[cell.target + 1 :], *targets[: cell.target])

    def _read_target(self, target: RecordedTarget) -> Capture:
        run = self.run
        capture = StoredCapture(run.path, renaming=check_rules(run.rename))
        spec = model_of(capture.facts, run.model or None, sha256=run.model_sha256)
        match = next(
            observe(capture, spec, target.round, lambda one: one.path.name == target.file), None
        )
        if match is None:
            why = str(capture.problems[-1]) if capture.problems else "the message is gone"
            raise CaptureError(target.file, f"it cannot be used any more: {why}")
        members, seen = match
        if sha256(members[0].path) != target.sha256:
            raise CaptureError(
                target.file, "it has changed since this audit began: use a new --output"
            )
        observation = seen_by_attacks(seen, capture.facts, run.seen, target.client)
        secret = None
        if target.truth:
            assert seen.image_shape is not None  # studies give truth to no other
            with nameless_errors():
                secret = hide_names(secret_of(photos_of(target), seen.image_shape), key_of_run(run))
        return Capture(
            observation, secret, close_claims(claim_of(capture.facts.dp), observation.shared)
        )

    def _model_state(self, scenario: str) -> str:
        rounds = sorted({target.round for target in self.run.targets_of(scenario)})
        if len(rounds) == 1:
            return f"the recorded model (round {rounds[0]})"
        return f"the recorded models (rounds {rounds[0]} to {rounds[-1]})"
