"""The exposure map: who attacks what, with what result, and what nobody attacks."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.core.trial import Sent, Trial
from fedaudit.reports.comparison import Exposure, Row
from fedaudit.reports.controls import any_failed, controls
from fedaudit.reports.coverage import coverage
from fedaudit.reports.exhibits import exhibits
from fedaudit.reports.exposure import exposures
from fedaudit.reports.exposure_figure import exposure_map
from fedaudit.reports.findings import findings
from fedaudit.reports.headline import headline
from fedaudit.reports.html import render
from fedaudit.reports.results import Results
from fedaudit.reports.rows import rows
from fedaudit.reports.serialization import canonical_bytes, read_results, schema
from fedaudit.study.manifest import categories_of

sys.path.insert(0, str(Path(__file__).parent))
from made_up import GAN, IG, SETTINGS, gallery, line, measured, trial, trials
from sample import page, sample

TEMPLATES = "template_inversion"
UPDATE = Sent("update", "16 tensors, 40 values", 160, True, False, (GAN, IG))
IGNORED = replace(UPDATE, read=False)
SECOND = replace(UPDATE, name="update#2", read=False)
BUFFERS = Sent("buffers", "4 tensors, 8 values", 32, False, True, ())
ROWS = Sent("class_embeddings", "6 × 64 values", 1536, False, False, (TEMPLATES,))
ODD = Sent("prototypes", "6 × 64 values", 1536, False, False, ())


def scenario(name: str, *attacks: str, method: str = "fedgc", expose: str = "") -> Scenario:
    chosen = tuple(Choice(a) for a in attacks)
    shown = (expose,) if expose else ()
    return Scenario(name, method=Choice(method), targets=8, attacks=chosen, expose=shown)


def audit(*scenarios: Scenario) -> Study:
    return Study(name="made up", scenarios=scenarios)


def sending(made: list[Trial], *sent: Sent) -> list[Trial]:
    return [replace(t, sent=sent) for t in made]


def idle(name: str, attack: str, *sent: Sent) -> list[Trial]:
    """Cells in which the attack had nothing to attack."""
    why = f"{attack} reads none of what was shared"
    return [
        replace(
            trial(t, scenario=name, attack=attack, role=role),
            images=(),
            objective=float("nan"),
            sent=sent,
            not_attacked=why,
        )
        for t in range(8)
        for role in ("audit", "prior_only")
    ]


def cells(asked: Study, *groups: list[Trial]) -> tuple[tuple[Exposure, ...], tuple[Row, ...]]:
    made = trials(*groups)
    table = rows(asked, made, {}, SETTINGS)
    return exposures(asked, made, table), table


def test_a_cell_repeats_the_numbers_of_its_row() -> None:
    asked = audit(scenario("fresh", GAN))
    ((cell,), (row,)) = cells(asked, sending(line(6, attack=GAN), UPDATE))
    assert (cell.artifact, cell.attack, cell.together) == ("update", GAN, ("update",))
    assert cell.measurement == row.measurement
    assert cell.reid
    assert (cell.verdict, cell.note) == ("LEAK DEMONSTRATED", "")
    assert (cell.bytes, cell.sent, cell.targets) == (160, 8, 8)
    assert measured(row).attacked == ("update",)


@pytest.mark.parametrize(
    ("sent", "note"),
    [
        (
            ROWS,
            "not attacked: no attack in this study reads class_embeddings; template_inversion does",
        ),
        (ODD, "not attacked: no attack reads kind prototypes"),
        (replace(ROWS, readers=("a", "b", "c")), "a, b and c do"),
        (SECOND, 'expose = ["update#2"]'),
    ],
)
def test_what_nobody_attacks_says_why(sent: Sent, note: str) -> None:
    asked = audit(scenario("fresh", GAN))
    found, _ = cells(asked, sending(line(6, attack=GAN), UPDATE, sent))
    assert [(cell.artifact, cell.attack) for cell in found] == [
        ("update", GAN),
        (sent.name, None),
    ]
    assert note in found[1].note
    assert (found[1].verdict, found[1].measurement) == ("NOT TESTED", None)


def test_a_second_update_is_attacked_where_it_is_shown_alone() -> None:
    asked = audit(scenario("fresh", GAN), scenario("second", GAN, expose="update#2"))
    alone = replace(SECOND, read=True, name="update#2")
    found, _ = cells(
        asked,
        sending(line(6, attack=GAN), UPDATE, SECOND),
        sending(line(2, attack=GAN, scenario="second"), alone),
    )
    assert [(c.scenario, c.artifact, c.attack) for c in found] == [
        ("fresh", "update", GAN),
        ("fresh", "update#2", None),
        ("second", "update#2", GAN),
    ]
    assert found[1].note == "not attacked here: scenario second shows it alone"
    assert found[2].reid is not None
    assert found[2].reid.hits == 2


def test_parts_of_an_update_are_named() -> None:
    asked = audit(scenario("fresh", GAN, expose="update:body.0."))
    found, _ = cells(asked, sending(line(6, attack=GAN), UPDATE))
    assert [c.artifact for c in found] == ["update:body.0."]


def test_what_is_attacked_at_once_is_said_to_be_so() -> None:
    asked = audit(scenario("fresh", GAN))
    both = (UPDATE, replace(ROWS, read=True))
    found, _ = cells(asked, sending(line(6, attack=GAN), *both))
    assert [c.together for c in found] == [("update", "class_embeddings")] * 2
    assert all("of update + class_embeddings together" in c.note for c in found)
    assert found[0].reid == found[1].reid


def test_what_is_used_beside_has_no_number_of_its_own() -> None:
    asked = audit(scenario("fresh", GAN))
    update, buffers = cells(asked, sending(line(6, attack=GAN), UPDATE, BUFFERS))[0]
    assert update.reid is not None
    assert update.note == "the result is of update + buffers together"
    assert (buffers.attack, buffers.reid, buffers.verdict) == (GAN, None, "NOT TESTED")
    assert buffers.note == f"{GAN} uses it beside update, where its result stands"


def test_an_attack_that_ran_elsewhere_is_a_dash_here() -> None:
    asked = audit(scenario("fresh", GAN), scenario("later", IG))
    found, _ = cells(
        asked,
        sending(line(6, attack=GAN), UPDATE),
        sending(line(1, scenario="later"), UPDATE),
    )
    dashes = [(c.scenario, c.attack, c.note) for c in found if c.reid is None]
    note = "not run in this scenario"
    assert dashes == [("fresh", IG, note), ("later", GAN, note)]
    unfinished, _ = cells(audit(scenario("fresh", GAN, IG)), sending(line(6), UPDATE))
    assert [(c.attack, c.note) for c in unfinished] == [(GAN, "not finished"), (IG, "")]


def test_templates_count_people_and_things_that_only_some_clients_send() -> None:
    asked = audit(scenario("fresh", TEMPLATES))
    sent = replace(ROWS, read=True)
    made = [
        replace(
            trial(t, hits=(True, t < 2), attack=TEMPLATES, people=("p0", f"q{t % 3}"), role=role),
            of="people",
            sent=(IGNORED, sent),
        )
        for t in range(6)
        for role in ("audit", "prior_only")
    ]
    made += idle("fresh", TEMPLATES, IGNORED)[12:]
    found, (row,) = cells(asked, made)
    (cell,) = [c for c in found if c.artifact == "class_embeddings"]
    assert cell.measurement
    assert (cell.measurement.of, cell.measurement.n_people) == ("people", 4)
    assert cell.note == "templates of 4 people: 1 of 1 group of updates; sent in 6 of 8 targets"
    assert (measured(row).n_targets, row.reid and row.reid.n) == (6, 1)  # all share p0


def test_nothing_to_attack_is_not_tested_and_never_zero() -> None:
    asked = audit(scenario("fresh", GAN, TEMPLATES))
    made = [sending(line(6, attack=GAN), UPDATE), idle("fresh", TEMPLATES, IGNORED)]
    found, (attacked, row) = cells(asked, *made)
    assert [c.attack for c in found] == [GAN]
    assert row.verdict.kind == "NOT TESTED"
    assert "template_inversion reads none of what was shared" in row.verdict.sentence
    assert row.measurement is None
    test = measured(attacked).identity
    assert test
    assert measured(attacked).p_holm == test.p_value, "the row was counted as tested"
    checks = controls(asked, trials(*made), (attacked, row), gallery())
    assert not any_failed(checks)
    assert not [c for c in checks if TEMPLATES in c.name]
    classes = {c.attack_class: c for c in coverage(categories_of(asked), (attacked, row))}
    assert not any(c.executed for name, c in classes.items() if TEMPLATES in name)
    assert headline((row,), SETTINGS, ("none",))[0].sentence.startswith("Nothing was tested")
    shown = exhibits(asked, trials(*made), (attacked, row), {"fresh": 0.4})
    assert {e.attack for e in shown} == {GAN}


def test_a_control_without_anything_to_attack_is_no_control() -> None:
    """The first defense sends no class embeddings, the second does."""
    asked = audit(replace(scenario("fresh", TEMPLATES), defenses=(Choice("none"), Choice("dplc"))))
    other = replace(ROWS, read=True)
    made = [
        idle("fresh", TEMPLATES, IGNORED),
        sending(line(3, attack=TEMPLATES, defense="dplc", prior=None), other),
    ]
    _, (first, second) = cells(asked, *made)
    assert first.verdict.kind == "NOT TESTED"
    assert (measured(second).prior, second.verdict.kind) == (None, "INCONCLUSIVE")
    shown = exhibits(asked, trials(*made), (first, second), {"fresh": 0.4})
    assert {e.prior_cell for e in shown} == {None}


def test_templates_are_a_finding_of_their_own() -> None:
    asked = audit(scenario("fresh", GAN, TEMPLATES))
    sent = (UPDATE, replace(ROWS, read=True))
    made = [
        sending(line(8, attack=GAN), UPDATE, ROWS),
        [replace(t, of="people", sent=(IGNORED, sent[1])) for t in line(7, attack=TEMPLATES)],
    ]
    found, table = cells(asked, *made)
    (template_cell,) = [c for c in found if c.attack == TEMPLATES]
    assert template_cell.note == "7 of 8 people"
    update, template = findings(table, found)
    assert update.title.startswith("Faces can be rebuilt from updates of a fresh model")
    assert template.title.startswith("Class embeddings are templates")
    assert "on the device" in template.remedy
    assert "ISO/IEC 24745 irreversibility" in template.standards
    assert "from class embeddings" in template.configuration
    assert update.fingerprint != template.fingerprint
    odd = [
        replace(row, measurement=replace(measured(row), attacked=("prototypes",)))
        for row in table
        if row.attack == TEMPLATES
    ]
    assert "come back from prototypes" in findings(tuple(odd))[0].title


def test_a_secure_sum_is_told_what_it_does_not_hide() -> None:
    asked = audit(scenario("fresh", GAN, method="solomon_woubie"))
    total = replace(UPDATE, name="aggregate")
    found, table = cells(asked, sending(line(0, attack=GAN), total))
    (note,) = findings(table, found)
    assert note.severity == "none"
    assert "W_k = (S − (Σw − w_k) · W_sent) / w_k" in note.claim
    assert findings(table) == ()
    rows_ = replace(ROWS, name="summed_rows")
    found, table = cells(asked, sending(line(0, attack=GAN), total, rows_))
    (owned,) = findings(table, found)
    assert (owned.severity, owned.confidence) == ("low", "high")
    assert "as if it had been sent in clear" in owned.claim


def test_the_map_is_part_of_results_and_of_their_schema() -> None:
    results = sample()
    data = json.loads(canonical_bytes(results))
    jsonschema.validate(data, schema())
    assert read_results(canonical_bytes(results)) == results
    data["exposures"][0]["verdict"] = "SAFE"
    with pytest.raises(jsonschema.ValidationError, match="SAFE"):
        jsonschema.validate(data, schema())


@pytest.mark.slow
def test_the_same_map_gives_the_same_picture() -> None:
    first, again = exposure_map(sample()), exposure_map(sample())
    assert [p.svg for p in first.panels] == [p.svg for p in again.panels]
    assert {k.label for k in first.keys} >= {"leak demonstrated", "not attacked", "invalid"}


def test_every_cell_stands_in_the_picture_and_in_the_table() -> None:
    results = sample()
    picture = "".join(str(p.svg) for p in exposure_map(results).panels)
    shown = page("none")
    assert picture in shown
    for cell in results.exposures:
        assert f"<b>{cell.artifact.replace('_', ' ')}</b>" in shown
        if cell.note:
            assert f'<small class="note">{cell.note}</small>' in shown
    attacked = [c.reid for c in results.exposures if c.reid]
    # Twice: for a page and, drawn anew, for a telephone.
    assert sum(picture.count(f">{r.hits} of {r.n}") for r in set(attacked)) == 2 * len(attacked)
    assert picture.count(">used beside<") == 2
    assert picture.count(">not attacked: no attack in this study") == 2


def test_many_attacks_take_several_panels() -> None:
    results = sample()
    one = next(c for c in results.exposures if c.reid)
    many = tuple(replace(one, attack=f"attack-{k}") for k in range(7))
    panels = exposure_map(replace(results, exposures=many)).panels
    assert [p.alt.count("attack-") for p in panels] == [3, 3, 1]
    assert "".join(str(p.svg) for p in panels).count("<path") > 7


@pytest.mark.slow
def test_a_study_of_which_nothing_is_finished_has_no_map() -> None:
    results: Results = replace(sample(), exposures=())
    assert exposure_map(results).panels == ()
    assert "No finished cell says what was sent" in render(results, None, "none")
