"""Which attacks on which targets an audit plans, and what it lacks for others."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import fedaudit
from fedaudit.captures.audit.audit_request import Request
from fedaudit.captures.audit.capture_study import study_of
from fedaudit.captures.audit.known_defenses import estimate_defenses
from fedaudit.captures.format.capture_facts import DpClaim
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.core.errors import ConfigError, UsageError
from fedaudit.core.observation import ModelSpec
from fedaudit.core.recorded_run import Protection
from fedaudit.core.scenario import Choice
from fedaudit.data.face_set import FaceSet
from fedaudit.data.photo_hashes import photo_hashes
from fedaudit.models.build_network import build
from fedaudit.models.face_gan import FaceGan
from fedaudit.models.prior_file import Manifest, write_prior
from fedaudit.reports.recorded import findings_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from recorded_faces import ATTACKS, LR, audit_jobs, of_run, record, recorded, requested


def test_a_model_that_the_user_names_is_enough(tmp_path: Path, faces: FaceSet) -> None:
    network = build(ModelSpec("mlp", {"classes": 40, "image_size": 32, "hidden": 8}))
    before = network.state_dict()
    facts: Any = {"arguments": {"classes": 40, "image_size": 32, "hidden": 8}}
    with fedaudit.recording(tmp_path / "c", **facts) as recorded:
        recorded.broadcast(1, before)
        gradient = {name: torch.randn_like(p) for name, p in network.named_parameters()}
        recorded.update(1, "c", gradient, kind="gradient", examples=1)
    with pytest.raises(UsageError, match="does not say which model"):
        requested(tmp_path / "c")
    (scenario,) = requested(tmp_path / "c", model="mlp").scenarios
    assert (scenario.network.label, scenario.deny) == ("mlp", ("defense",))


def test_identical_updates_are_one_target(tmp_path: Path, capture: Path) -> None:
    copied = Path(shutil.copytree(capture, tmp_path / "c"))
    stored = StoredCapture(copied)
    sums = next(stored.messages(1)).tensors()
    shutil.rmtree(copied / "round-000001")
    again = fedaudit.recording(copied)
    again.broadcast(1, StoredCapture(capture).broadcast(1))
    for name in ("a", "b", "c"):
        again.update(1, name, sums, kind="weights", examples=1)
    study = requested(copied)
    (target,) = of_run(study).targets_of("round-1")
    assert (target.client, target.images) == ("aggregate of 3 clients", 3)
    assert study.scenarios[0].defenses[0].label == "aggregate"
    assert [f.title for f in findings_of(study, of_run(study).seen)] == [
        "Seen in the updates: aggregate"
    ]


def test_what_is_missing_is_named(tmp_path: Path, faces: FaceSet) -> None:
    network = build(ModelSpec("mlp", {"classes": 40, "image_size": 32, "hidden": 8}))
    before = network.state_dict()
    with fedaudit.recording(
        tmp_path / "c", model="mlp", arguments={"hidden": 8}, classes=40, image_shape=(3, 32, 32)
    ) as recorded:
        recorded.broadcast(1, before)
        after = {n: v + 1e-3 * torch.randn_like(v) for n, v in before.items()}
        recorded.update(1, "c", after, kind="weights")
    with pytest.raises(ConfigError, match="analytic misses the shape of the batch: state examples"):
        study_of(Request(path=tmp_path / "c", attacks=ATTACKS))
    fedaudit.recording(tmp_path / "c", local_steps=1, batch_size=1)  # lr is still not known
    study = requested(tmp_path / "c", attacks=[*ATTACKS, Choice("trap_weights")])
    assert [a.name for a in study.scenarios[0].attacks] == ["analytic"]
    (left,) = of_run(study).left_out
    assert left["attack"] == "trap_weights"
    assert "chooses what it sends" in left["missing"]
    assert "training" in study.scenarios[0].deny
    assert "basic" not in study.scenarios[0].deny


def test_default_attacks_suit_the_network(tmp_path: Path, capture: Path) -> None:
    def chosen(path: Path) -> list[str]:
        study = study_of(Request(path=path)).study
        return [attack.name for attack in study.scenarios[0].attacks]

    assert chosen(capture)[0] == "analytic"  # pixels enter a fully connected layer
    network = build(ModelSpec("face_pooled", {"classes": 5, "image_size": 32}))
    facts: Any = {"model": "face_pooled", "classes": 5, "image_shape": (3, 32, 32), "lr": LR}
    with fedaudit.recording(tmp_path / "c", **facts) as recorded:
        recorded.broadcast(1, network.state_dict())
        F.cross_entropy(network(torch.rand(1, 3, 32, 32)), torch.tensor([1])).backward()  # type: ignore[no-untyped-call]
        gradient = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        recorded.update(1, "c", gradient, kind="gradient", examples=1)
    assert "analytic" not in chosen(tmp_path / "c")
    assert "subspace_matching" in chosen(tmp_path / "c")


def test_few_updates_of_several_rounds_are_judged_together(tmp_path: Path, faces: FaceSet) -> None:
    path = record(tmp_path / "c", faces, {0: "a", 1: "b"}, rounds=3)
    (scenario,) = requested(path).scenarios
    assert (scenario.name, scenario.targets) == ("rounds-1-to-3", 6)
    (scenario,) = requested(path, rounds=[2]).scenarios
    assert (scenario.name, scenario.targets) == ("round-2", 2)


def test_faults_become_findings_and_protections_facts(tmp_path: Path, faces: FaceSet) -> None:
    path = record(tmp_path / "c", faces, {0: "a"})
    claim = DpClaim(clip=1.0, noise=0.5, sensitivity=0.5, epsilon=3.0, delta=1e-5, unit="client")
    seen = [
        Protection("sparsity", False, "e", round=1, value=0.9),
        Protection("clipping", False, "e", round=1, value=2.0),
    ]
    found = {facts.name: facts for facts in estimate_defenses(seen, 1)}
    assert found["top_k"].settings == {"pruned": 0.9}
    assert found["top_k"].estimated
    assert found["clipping"].settings == {"max_norm": 2.0}
    fedaudit.recording(path, dp=claim)
    study = requested(path)
    faults = [f for f in findings_of(study, of_run(study).seen) if f.severity != "none"]
    assert [(f.severity, "sensitivity" in f.evidence) for f in faults] == [
        ("high", True),
        ("high", False),  # and the noise that is claimed is not there at all
        ("critical", True),  # so that the claim is not met
    ]
    cell = next(j.cell for j in audit_jobs(study) if j.cell.role == "audit")
    capture = recorded(study).capture(cell)
    (stated,) = capture.claims
    assert (stated.epsilon, stated.unit, stated.rounds) == (3.0, "client", None)
    assert stated.missing == ("neighbor relation", "sampling", "number of rounds")
    assert capture.seen.defense is not None
    assert [(d.name, d.settings) for d in capture.seen.defense] == [
        ("clipping", {"max_norm": 1.0}),
        ("gaussian_noise", {"std": 0.25, "of": "entry"}),  # scaled to the sensitivity of 0.5
    ]


@pytest.mark.parametrize(
    ("data", "learned", "invented"), [("some", 3, False), ("openpeople", 0, True), ("x", 0, False)]
)
def test_a_prior_that_knows_the_auditors_faces_is_told(
    tmp_path: Path, capture: Path, gallery: Path, *, data: str, learned: int, invented: bool
) -> None:
    """Those of the gallery, or invented ones: that they come back shows of no attack that it works.

    On the gallery's people no word rests on what such a prior draws.
    """
    path, about = tmp_path / "prior.safetensors", Manifest(widths=(8, 8), latent_dim=4, data=data)
    generator = FaceGan((8, 8), 4, (0.0, 1.0, 0.0, 1.0))
    write_prior(path, generator, about, photo_hashes(gallery)[:learned])
    attacks = [Choice("gan_inversion", {"prior": str(path)})]
    facts = recorded(requested(capture, gallery=gallery, attacks=attacks)).facts()
    assert facts.familiar == tuple(facts.overlaps) == (("gan_inversion",) if learned else ())
    assert not learned or "3 of the 130 audited photos" in facts.overlaps["gan_inversion"]
    facts = recorded(requested(capture, attacks=attacks)).facts()
    assert facts.familiar == (("gan_inversion",) if invented else ())
    assert not facts.overlaps
