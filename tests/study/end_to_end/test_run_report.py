"""What a report says of a run: its numbers, its facts, what privacy was spent."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import torch

from fedaudit.captures.simulate.study_faces import faces_of
from fedaudit.core.scenario import Choice, Federation, Scenario
from fedaudit.data.provenance import PACKAGES
from fedaudit.reports.build import build_report
from fedaudit.reports.exhibits import OF_FEW
from fedaudit.reports.results import Results
from fedaudit.reports.serialization import schema
from fedaudit.study import demo_study, run_cell
from fedaudit.study.jobs import AttackJob, TrainJob, expand
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.session import open_run
from fedaudit.study.sources import source_of
from fedaudit.study.study_check import check_study

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_study import CELLS, STUDY


@pytest.mark.slow
def test_reports_are_reproducible(full: Path, redacted: Path, results: Results) -> None:
    for path, evidence in ((full, "full"), (redacted, "redacted")):
        twice = []
        for _ in range(2):
            build_report(path, evidence)  # type: ignore[arg-type]
            twice.append([(path / n).read_bytes() for n in ("results.json", "report.html")])
        assert twice[0] == twice[1]


def test_results_follow_their_schema(redacted: Path, results: Results) -> None:
    data = json.loads((redacted / "results.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(data, schema(), cls=jsonschema.Draft202012Validator)
    assert data["study"] == "tiny"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**data, "rows": [{}]}, schema())


def test_what_the_report_says(results: Results) -> None:
    assert [
        (r.scenario, r.defense, r.attack, r.measurement and r.measurement.n_targets)
        for r in results.rows
    ] == [
        ("fresh", "none", "inverting_gradients", 2),
        ("fresh", "none", "gan_inversion", 2),
        ("fresh", "dplc", "inverting_gradients", 2),
        ("fresh", "dplc", "gan_inversion", 2),
        ("trained", "none", "inverting_gradients", 1),
    ]
    assert all(r.reid and r.utility is None for r in results.rows)
    assert all(r.measurement and r.measurement.prior and r.measurement.excess for r in results.rows)
    assert [(e.image_size, e.gallery_people) for e in results.ceilings] == [(32, 40)]
    names = [c.name.partition(" ")[0] for c in results.controls]
    assert names == [
        "FMR",
        "copies",
        "identity",
        "positive",
        "noise",
        "wrong",
        *["prior-only"] * 3,
        "noise",
        "noise",
    ]
    assert {p.role for p in results.points} == {"audit", "prior_only", "noise"}
    assert len(results.points) == sum(cell.role not in OF_FEW for cell in CELLS)
    assert [ledger.scenario for ledger in results.ledger] == ["fresh", "trained"]
    assert "fresh global model" in results.ledger[0].model_state
    assert "round 2, after 1 rounds of 3 clients" in results.ledger[1].model_state
    assert not any("not run" in text or "damaged" in text for text in results.limitations)


def test_facts(redacted: Path, results: Results) -> None:
    facts = json.loads((redacted / "facts.json").read_bytes())
    faces = faces_of(STUDY)
    assert set(facts["versions"]) == set(PACKAGES)
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["terms"] == faces.terms
    assert facts["public"] is True
    assert facts["cpu_count"] >= 1
    assert len(facts["hashes"]["faces"]) == 64
    assert facts["git_commit"] is None or len(facts["git_commit"]) == 40
    provenance = results.provenance
    assert (provenance.command, provenance.data) == ("fedaudit run tiny.toml", "orl")
    assert provenance.data_terms == faces.terms
    assert provenance.hashes["faces"] == facts["hashes"]["faces"]
    assert len(provenance.hashes["study"]) == 64
    judges = ("asset face_embedder", "asset lpips_alex", "asset openpeople")
    assert all(len(provenance.hashes[name]) == 64 for name in judges)
    assert provenance.seconds > 0


@pytest.mark.parametrize("quick", [True, False])
def test_the_demo_is_a_valid_study(quick: bool) -> None:
    study = demo_study.study(quick)
    check_study(study)
    assert study.underpowered is quick
    assert (study.data.name, study.size) == ("orl", 32)
    color = demo_study.color_study(quick)
    check_study(color)
    assert color.underpowered
    assert (color.data.name, color.size) == ("openpeople", 64)
    assert {s.network.name for s in color.scenarios} == {"torchvision:resnet18"}


@pytest.mark.slow
def test_a_private_study_states_what_it_spent_and_what_it_changed(tmp_path: Path) -> None:
    """A stated ε holds for the training, not for the audited round; the network is told of."""
    defenses = (
        Choice("dpsgd", {"epsilon": 8.0}, label="eight"),
        Choice("client_dp", {"epsilon": 20.0, "quantile": 0.5}, label="clients"),
    )
    study = replace(
        STUDY,
        scenarios=(
            Scenario(
                "fresh",
                network=Choice("convnet", {"width": 4}),
                method=Choice("fedavg"),
                targets=1,
                defenses=defenses,
                attacks=(Choice("inverting_gradients", {"steps": 1}),),
                controls=False,
            ),
        ),
        federation=Federation(clients=3, rounds=2, photos=2),
        utility=True,
    )
    check_study(study)
    (note, other) = source_of(study, RunFolder(tmp_path)).notes()
    assert note.startswith("eight on convnet: batch norm in 8 layers was replaced by group norm")
    with open_run(tmp_path / "run", study, command="", evidence="none"):
        folder = RunFolder(tmp_path / "run")
        for job in expand(study):  # in this process, which knows the gallery already
            if isinstance(job, AttackJob):
                run_cell.run_cell(study, job.cell, folder, "none")
            elif isinstance(job, TrainJob):
                run_cell.run_train(study, job, folder)
    results = build_report(tmp_path / "run", "none")
    assert {note, other} <= set(results.limitations)
    rows = {row.defense: row for row in results.rows}
    eight, clients = rows["eight"], rows["clients"]
    assert eight.utility is not None
    (images,) = eight.utility.training_claims
    assert images.epsilon == pytest.approx(8.0, rel=5e-3)
    assert (images.delta, images.unit, images.rounds) == (1e-5, "image", 2)
    assert clients.utility is not None
    (whole,) = clients.utility.training_claims
    assert whole.epsilon == pytest.approx(20.0, rel=5e-3)
    assert (whole.unit, whole.rounds) == ("client", 2)
    (once,) = clients.claims
    assert (once.unit, once.rounds) == ("client", 1)
    assert once.epsilon < 20
    shown = {e.artifact: e for e in results.exposures if e.defense == "clients"}
    assert set(shown) == {"update", "clipped_bit"}
    assert shown["clipped_bit"].attack is None
    assert "no attack reads" in shown["clipped_bit"].note
