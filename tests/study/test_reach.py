"""What a study can settle is known, and said, before it runs."""

from dataclasses import replace

import pytest
import torch

from fedaudit.core.errors import DataError
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.data.face_set import FaceSet
from fedaudit.stats.units import units
from fedaudit.study.reach import reaches, remarks


def faces(people: int = 12, photos: int = 2) -> FaceSet:
    names = tuple(f"p{k}" for k in range(people) for _ in range(photos))
    sources = tuple(f"{k}.png" for k in range(len(names)))
    return FaceSet("few", torch.zeros(len(names), 1, 16, 16), names, sources, "made up")


def asked(targets: int = 8, **more: object) -> Study:
    batch = more.pop("batch_size", 1)
    scenario = Scenario(
        "fresh",
        targets=targets,
        batch_size=batch,  # type: ignore[arg-type]
        defenses=(Choice("none"), Choice("dpsgd")),
    )
    federation = Federation(clients=3, held_out=0, photos=1)
    return Study("s", (scenario,), federation=federation, deployed=("dpsgd",), **more)  # type: ignore[arg-type]


def test_updates_that_share_a_person_are_one_unit() -> None:
    assert units([{"a"}, {"a"}, {"b"}]) == [0, 0, 1]
    assert units([{"a", "b"}, {"c"}, {"b", "c"}]) == [0, 0, 0]
    assert units([]) == []


def test_what_the_data_give() -> None:
    (one,) = reaches(asked(8), faces())
    assert (one.units, one.most, one.targets, one.updates, one.unit) == (8, 12, 12, 12, "people")
    assert one.best_limit == pytest.approx(1 - 0.025 ** (1 / 12))
    (batches,) = reaches(asked(6, batch_size=2), faces())
    assert (batches.units, batches.most, batches.unit) == (6, 6, "updates")


def test_targets_beyond_the_photos_are_refused() -> None:
    with pytest.raises(DataError, match=r"500 targets, and .* only 12 different updates") as error:
        reaches(asked(500), faces())
    assert "Write targets = 12" in str(error.value)


def test_remarks_say_what_to_change() -> None:
    (small, fmr) = sorted(remarks(asked(), faces()), key=lambda text: "gallery" in text)
    assert "the targets are 8 people" in small
    assert "exclude no rate below 0.369" in small
    assert "This data gives 12 at most: write targets = 12 and reid_limit = 0.265" in small
    assert "12 people and 132 impostor pairs" in fmr
    assert "identity cannot be tested" in fmr
    assert [*remarks(asked(12, reid_limit=0.265, fmr=0.1, underpowered=False), faces())] == []
    assert [*remarks(asked(1, underpowered=True, fmr=0.1), faces())] == []


def test_a_missing_control_is_said() -> None:
    study = asked(12, reid_limit=0.3, fmr=0.1)
    (scenario,) = study.scenarios
    bare = replace(scenario, defenses=(Choice("dpsgd"),), controls=False)
    prior, undefended = remarks(replace(study, scenarios=(bare,)), None)
    assert "controls = false" in prior
    assert 'Add "none" to its defenses' in undefended
    other = replace(scenario, name="other", defenses=(Choice("none"),))
    (elsewhere,) = remarks(replace(study, scenarios=(scenario, other)), None)
    assert elsewhere.startswith("scenario other does not have what is deployed")


def test_a_defense_that_sums_everybody_leaves_one_unit() -> None:
    study = asked(6, reid_limit=0.3, fmr=0.1)
    (scenario,) = study.scenarios
    defenses = (Choice("none"), Choice("secure_aggregation", label="sums"))
    summed = replace(study, scenarios=(replace(scenario, defenses=defenses),))
    plain, together = reaches(summed, faces())
    assert (plain.scenario, plain.units, plain.together) == ("fresh", 6, False)
    assert (together.scenario, together.units, together.most) == ("fresh, sums", 1, 1)
    (told,) = [text for text in remarks(summed, faces()) if text.startswith("fresh, sums")]
    assert "sums of clients" in told
    assert "write targets" not in told


def test_updates_that_share_photos_beside_the_audited_ones_are_one_unit() -> None:
    """Of a client's consecutive batches of three, each has two photos of the one before."""
    study = asked(6, reid_limit=0.3, fmr=0.1)
    (scenario,) = study.scenarios
    larger = Choice("larger_batch", {"images": 3}, label="larger")
    more = replace(study, scenarios=(replace(scenario, defenses=(Choice("none"), larger)),))
    plain, fewer = reaches(more, faces())
    assert (plain.units, plain.most) == (6, 12)
    assert (fewer.scenario, fewer.units, fewer.most) == ("fresh, larger", 3, 3)
    same = replace(larger, settings={"images": 1})
    alike = replace(study, scenarios=(replace(scenario, defenses=(Choice("none"), same)),))
    assert reaches(alike, faces()) == (plain,)
