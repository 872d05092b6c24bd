"""Clients that differ: by how much, in what, and what methods and studies make of it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.captures.simulate.simulated_source import wrong_person_for
from fedaudit.captures.simulate.study_faces import faces_of
from fedaudit.core.errors import ConfigError, DataError
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.registry import create
from fedaudit.core.scenario import Choice, Federation, Scenario, Study, with_keys
from fedaudit.core.threat_models import threat_model
from fedaudit.data.face_set import FaceSet
from fedaudit.data.lighting_pose import lighting, pose
from fedaudit.data.skew import feature_skew, label_skew
from fedaudit.data.splits import Split, split, target_photos
from fedaudit.federation.simulation import Simulation
from fedaudit.study.jobs import AttackJob, expand, gallery_name
from fedaudit.study.study_file import load_study, study_from_mapping

EXAMPLE = Path(__file__).parents[2] / "examples" / "heterogeneity.toml"


def crowd(people: int, photos: int) -> FaceSet:
    """Blank photos, so that only names matter."""
    names = tuple(f"p{k}" for k in range(people) for _ in range(photos))
    images = torch.zeros(len(names), 1, 2, 2)
    return FaceSet("crowd", images, names, tuple(map(str, range(len(names)))), terms="")


def dirichlet(faces: FaceSet, alpha: float, clients: int, photos: int) -> Split:
    return split(
        faces,
        Federation(clients=clients, held_out=0, photos=photos, partition="dirichlet", alpha=alpha),
    )


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_shares_have_the_mean_and_variance_of_a_dirichlet_draw(alpha: float) -> None:
    clients, photos, people = 4, 40, 400
    faces = crowd(people, photos + 1)
    dealt = dirichlet(faces, alpha, clients, photos)
    counts = [Counter(faces.people[i] for i in mine) for mine in dealt.photos]
    shares = np.array([[c[f"p{k}"] / photos for k in range(people)] for c in counts])
    average = 1 / clients
    variance = average * (1 - average) / (clients * alpha + 1)
    deviation = (variance / people) ** 0.5
    assert np.abs(shares.mean(1) - average).max() < 4 * deviation
    assert shares.var() == pytest.approx(variance, rel=0.15)


def test_one_photo_a_person_falls_to_every_client_alike() -> None:
    """Rounding shares would give it to the client in the middle, always."""
    dealt = dirichlet(crowd(600, 2), 1e4, 3, 1)
    assert all(abs(len(mine) - 200) < 50 for mine in dealt.photos)


def test_a_smaller_alpha_is_a_greater_skew() -> None:
    faces = crowd(60, 11)
    skews = [label_skew(faces, dirichlet(faces, a, 5, 10)) for a in (1e-6, 0.1, 1.0, 10.0, 1e6)]
    assert skews == sorted(skews, reverse=True)
    assert skews[0] == pytest.approx(1.0)  # whole people at single clients
    assert skews[-1] < 0.01  # everybody everywhere, in equal parts


def test_skews_of_splits_that_can_be_counted_by_hand() -> None:
    faces = replace(crowd(2, 4), images=torch.arange(8.0).view(8, 1, 1, 1))
    train = {"p0": (0, 1, 2, 3), "p1": (4, 5, 6, 7)}

    def of(*photos: tuple[int, ...]) -> Split:
        people = tuple(tuple(dict.fromkeys(faces.people[i] for i in mine)) for mine in photos)
        return Split(people, photos, train, {}, ())

    def value(images: Tensor) -> Tensor:
        return images.flatten()

    alone, mixed, uneven = (
        of((0, 1, 2, 3), (4, 5, 6, 7)),
        of((0, 1, 4, 5), (2, 3, 6, 7)),
        of((0, 1, 2, 4), (3, 5, 6, 7)),
    )
    assert [label_skew(faces, parts) for parts in (alone, mixed, uneven)] == [1.0, 0.0, 0.5]
    assert label_skew(faces, of((0, 1, 2, 3, 4, 5, 6, 7))) == 0.0
    # Within a person the values are ±0.5, ±1.5 about the middle: 10 of squares, 8 between.
    assert feature_skew(faces, mixed, value) == pytest.approx(8 / 10)
    assert feature_skew(faces, alone, value) == pytest.approx(0.0)


def test_light_is_told_by_its_side_not_by_its_strength() -> None:
    ramp = torch.linspace(-0.5, 0.5, 64).expand(1, 64, 64)
    dim, bright = 0.3 + 0.1 * ramp, 0.6 + 0.2 * ramp
    scores = lighting(torch.stack([dim, bright, dim.flip(2), torch.full_like(dim, 0.5)]))
    assert scores[:2].tolist() == pytest.approx([1 / 3, 1 / 3], abs=0.01)
    assert scores[2:].tolist() == pytest.approx([-1 / 3, 0.0], abs=0.01)


def test_pose_is_the_axis_of_a_drawn_face_under_any_light() -> None:
    """Two eyes, a nose and a mouth about an axis that moves; shading from either side."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")

    def face(axis: float, shade: float) -> Tensor:
        dots = [(22, -11, 4.0), (22, 11, 4.0), (36, 0, 3.0), (48, -5, 3.0), (48, 5, 3.0)]
        image = torch.full((64, 64), 0.7)
        for y, x, size in dots:
            middle = 31.5 + 64 * axis + x
            image -= 0.4 * torch.exp(-((rows - y) ** 2 + (columns - middle) ** 2) / 2 / size**2)
        return (image * (1 + shade * (columns - 31.5) / 64)).clamp(0, 1)[None]

    places = (-0.12, -0.06, 0.0, 0.06, 0.12)
    for shade in (-0.3, 0.0, 0.3):
        scores = pose(torch.stack([face(axis, shade) for axis in places]))
        assert scores.tolist() == pytest.approx(places, abs=0.02)


@pytest.mark.parametrize("judge", [lighting, pose])
def test_a_mirror_image_has_the_opposite_score(
    faces: FaceSet, judge: Callable[[Tensor], Tensor]
) -> None:
    photos = faces.images[:60]
    assert torch.allclose(judge(photos.flip(3)), -judge(photos), atol=1e-5)
    assert torch.allclose(judge(photos[:, :1]), judge(photos), atol=1e-5)  # ORL is gray


@pytest.mark.parametrize(("kind", "judge", "other"), [("lighting", lighting, pose),
                                                      ("pose", pose, lighting)])  # fmt: skip
def test_clients_differ_in_what_the_partition_says(
    faces: FaceSet, kind: Any, judge: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]
) -> None:
    federation = Federation(clients=3, partition=kind)
    parts = split(faces, federation)
    assert all(set(people) == set(parts.people) for people in parts.clients)
    scores = judge(faces.images)
    for person in parts.people:  # within each person: one part of the order after the other
        ends = [
            (float(scores[list(mine)].min()), float(scores[list(mine)].max()))
            for mine in (parts.photos_of(client, person) for client in range(3))
        ]
        assert ends[0][1] <= ends[1][0]
        assert ends[1][1] <= ends[2][0]
    assert feature_skew(faces, parts, judge) > 0.4
    assert feature_skew(faces, parts, other) < 0.1
    shuffled = split(faces, replace(federation, partition="dirichlet", alpha=1e6))
    assert feature_skew(faces, shuffled, judge) < 0.1


def simulation_of(
    faces: FaceSet, method: str, defense: str = "none", **federation: Any
) -> Simulation:
    common = Federation(clients=3, partition="dirichlet", alpha=0.5)
    settled = with_keys(common, {"local_steps": 1} | federation)
    return Simulation(
        network=ModelSpec("face"),
        faces=faces,
        split=split(faces, settled),
        federation=settled,
        method=create("methods", method, {}),
        defense=create("defenses", defense, {}),
    )


@pytest.mark.parametrize(
    ("method", "defense"),
    [
        ("fedavg", "none"),
        ("fedsgd", "dplc"),
        ("fedavg", "private_projector"),
        ("fedaffect", "none"),
    ],
)
@pytest.mark.parametrize("partition", ["dirichlet", "lighting"])
def test_methods_train_where_people_are_at_several_clients(
    faces: FaceSet, method: str, defense: str, partition: str
) -> None:
    simulation = simulation_of(faces, method, defense, partition=partition, photos=9)
    state, _ = simulation.train(simulation.fresh(), range(1, 3))
    assert all(bool(torch.isfinite(value).all()) for value in state.server.values())
    private = defense != "none"
    for client, photos in enumerate(simulation.split.photos):
        names = simulation.labels_of(client)
        assert len(names) == simulation.spec(client).arguments["classes"]
        assert len(names) == (len(simulation.split.clients[client]) if private else 30)
        for photo in photos:
            assert names[simulation.label_of(client, photo)] == faces.people[photo]
    owned = [simulation.owned(client) for client in range(3)]
    if private:  # a person at two clients has a number at each
        assert [n for mine in owned for n in mine] == list(range(sum(map(len, owned))))
    else:
        assert owned == [(), (), ()]


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("fedgc", {}),
        ("privacyface", {}),
        # Few people, whose photos fall to one client each; those who go without are given one.
        ("fedface", {"alpha": 1e-6, "identities": 3, "clients": 5}),
    ],
)
def test_methods_with_one_client_a_person_refuse_others(
    faces: FaceSet, method: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=r"takes the people of two clients for different people"):
        simulation_of(faces, method, **settings).fresh()
    simulation_of(faces, "fedavg", **settings).fresh()


def test_the_refusal_names_the_person_and_the_way_out(faces: FaceSet) -> None:
    simulation = simulation_of(faces, "fedgc", partition="pose")
    person = simulation.split.clients[1][0]  # everybody is at client 0 too
    with pytest.raises(
        DataError, match=rf"FedGC .*'{person}' is at client 0 and at client 1. "
    ) as no:
        simulation.fresh()
    assert 'partition = "people"' in str(no.value)
    simulation_of(faces, "fedgc", partition="people").fresh()


def test_portraits_are_the_clients_own_photos(faces: FaceSet) -> None:
    simulation = simulation_of(faces, "fedavg", partition="lighting")
    capture = simulate(
        simulation,
        simulation.fresh(),
        target=1,
        batch_size=2,
        training=LocalTraining(batch_size=2),
        threat=threat_model("D"),
    )
    secret = capture.secret
    assert secret is not None
    assert secret.portraits is not None
    mine = faces.images[list(simulation.split.photos[1])]
    for person, portrait in zip(secret.portrayed, secret.portraits, strict=True):
        others = [i for c in (0, 2) for i in simulation.split.photos_of(c, person)]
        assert any(torch.equal(portrait, image) for image in mine)
        assert not any(torch.equal(portrait, faces.images[i]) for i in others)
    assert len(set(secret.people)) == 2


def study(**federation: Any) -> Study:
    return Study(
        name="s",
        scenarios=(Scenario("plain", targets=6, batch_size=4, attacks=(Choice("gan_inversion"),)),),
        size=32,
        federation=Federation(**federation),
    )


@pytest.mark.parametrize("partition", ["people", "dirichlet", "lighting"])
def test_the_wrong_person_is_not_in_the_batch(partition: Any) -> None:
    asked = study(clients=3, partition=partition, alpha=0.3)
    faces = faces_of(asked)
    parts = split(faces, asked.federation)
    cells = [job.cell for job in expand(asked) if isinstance(job, AttackJob)]
    assert {cell.target for cell in cells} == set(range(6))
    for cell in cells:
        _, photos = target_photos(parts, cell.target, 4)
        shown = {faces.people[i] for i in photos}
        wrong = wrong_person_for(asked, asked.scenarios[0], cell, shown)
        assert wrong in parts.clients[(cell.target + 1) % 3]
        assert wrong not in shown


def test_one_gallery_serves_all_partitions() -> None:
    common = study(clients=3)
    names = {
        gallery_name(common, replace(common.federation, partition=p, clients=c))
        for p in ("people", "pose")
        for c in (2, 3)
    }
    assert names == {"gallery"}
    assert gallery_name(common, replace(common.federation, photos=3)) == "gallery-3"


def test_settings_are_read_and_refused() -> None:
    def read(**federation: Any) -> Federation:
        table = {"name": "s", "scenario": [{"name": "a", "federation": federation}]}
        own = study_from_mapping(table).scenarios[0].federation
        assert own is not None
        return own

    found = read(partition="dirichlet", alpha=0.1, identities=4)
    assert (found.partition, found.alpha, found.identities) == ("dirichlet", 0.1, 4)
    for wrong in ({"alpha": 0}, {"alpha": -1.0}, {"alpha": 1e7}, {"identities": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            read(**wrong)
    with pytest.raises(Exception, match=r"did you mean.*lighting|lighting"):
        read(partition="lightning")


def test_the_example_varies_one_thing_at_a_time() -> None:
    asked = load_study(EXAMPLE)
    names = set(Federation.__dataclass_fields__)
    changed = set()
    for scenario in asked.scenarios:
        own = asked.federation_of(scenario)
        different = {n for n in names if getattr(own, n) != getattr(asked.federation, n)}
        if own.partition == "dirichlet":
            different -= {"alpha"}
        assert len(different) <= 1
        changed |= different
        same = replace(scenario, name="", federation=None)
        assert same == replace(asked.scenarios[0], name="", federation=None)
    assert changed == {"clients", "photos", "partition"}
