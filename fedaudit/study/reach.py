"""What a study can settle at most, known before anything runs: how many people its data give."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

from fedaudit.core import registry
from fedaudit.core.errors import DataError
from fedaudit.core.protocols import Method
from fedaudit.core.scenario import Scenario, Study
from fedaudit.data.face_set import FaceSet, class_of
from fedaudit.data.splits import Split, split, target_photos
from fedaudit.federation.abilities import Secures
from fedaudit.federation.together import aggregator_of, is_secure, photos_of, targets_behind
from fedaudit.files import asset_store
from fedaudit.files.asset_table import ASSETS
from fedaudit.scoring.identity import PAIRS_PER_FALSE_MATCH
from fedaudit.stats.intervals import clopper_pearson, targets_needed
from fedaudit.stats.units import unit_counts

SMALL = 16
"""Pixels: faces are read to be counted, not to be seen."""


@dataclass(frozen=True)
class Reach:
    """What the data of one scenario give.

    Attributes:
        scenario: Its name; and the defense's, as `place_of` joins them, where that leaves fewer.
        units: Independent units among its targets: people, or updates that share nobody.
        most: The most that any number of targets can give.
        targets: How many targets give that.
        updates: Different updates that the photos give; further ones show the same photos again.
        unit: What a unit is.
        together: The server sees sums over clients that share photos, so that all are one update.
    """

    scenario: str
    units: int
    most: int
    targets: int
    updates: int
    unit: str
    together: bool = False

    @property
    def counted(self) -> str:
        """How many units the targets are, in words."""
        one = {"people": "person", "updates": "update", "images": "image"}
        return f"{self.units} {one[self.unit] if self.units == 1 else self.unit}"

    @property
    def limit(self) -> float:
        """The smallest rate that the scenario's targets exclude where none comes back."""
        return clopper_pearson(0, self.units)[1]

    @property
    def best_limit(self) -> float:
        """The smallest rate that any number of targets excludes."""
        return clopper_pearson(0, self.most)[1]


def faces_to_count(study: Study, *, fetched: bool) -> FaceSet | None:
    """The study's faces, small; None of a recorded run.

    Args:
        study: Names the data set.
        fetched: Whatever it needs was fetched; else only a folder or a cached set is read.
    """
    name, settings = study.data.name, study.data.settings
    at_hand = {asset_store.State.PRESENT, asset_store.State.YOURS}
    near = name in {"folder", "pictures"} or (name in ASSETS and asset_store.state(name) in at_hand)
    if not study.trains or not (fetched or near):
        return None
    faces = registry.create("data", name, {**settings, "size": SMALL})
    return faces if isinstance(faces, FaceSet) else None


def reach_of(
    faces: FaceSet,
    parts: Split,
    scenario: Scenario,
    *,
    total: int | None = None,
    numbers_of: Callable[[int], tuple[int, ...]] = lambda target: (target,),
) -> Reach:
    """How many independent units a scenario's targets and its data give.

    Updates are one unit where photos of a person are behind both, scored or not, as in the rows of
    a report (`fedaudit.reports.unit_scores`).

    Args:
        faces: The data.
        parts: How they are dealt.
        scenario: Whose targets are counted.
        total: Photos behind each target's update, where that is more than are audited.
        numbers_of: Which targets are behind what the server sees of one, as `targets_behind`.
    """
    count = scenario.batch_size
    photos = [sum(len(parts.photos_of(c, p)) for p in ps) for c, ps in enumerate(parts.clients)]
    updates = sum(-(-photo // count) for photo in photos)

    @cache  # of many clients, each is in as many sums
    def people_of(number: int) -> frozenset[str]:
        return frozenset(faces.people[i] for i in target_photos(parts, number, count, total)[1])

    people_of_targets = [
        frozenset().union(*map(people_of, numbers_of(target))) for target in range(updates)
    ]
    sizes = unit_counts(people_of_targets)
    most = max(sizes, default=1)
    now = sizes[min(scenario.targets, updates) - 1] if sizes else 1
    alone = all(len(people) == 1 for people in people_of_targets)
    targets = sizes.index(most) + 1 if sizes else 1
    single = "images" if faces.classes else "people"
    unit = single if alone else "updates"
    together = most == 1 and len(numbers_of(0)) > 1
    return Reach(scenario.name, now, most, targets, updates, unit, together)


def place_of(scenario: str, defense: str) -> str:
    """What a scenario is called under one of its defenses."""
    return f"{scenario}, {defense}"


def check_targets(found: Reach, scenario: Scenario, place: str) -> None:
    """Refuse targets that show the same photos again.

    Raises:
        DataError: More targets than there are different updates.
    """
    if scenario.targets > found.updates:
        raise DataError(
            f"{place}{scenario.targets} targets, and the training photos give only "
            f"{found.updates} different updates of batch {scenario.batch_size}; further ones would "
            f"show the same photos again. Write targets = {found.targets} (that is {found.most} "
            f"{found.unit}, the most that this data can give), or add people or images."
        )


def reaches(study: Study, faces: FaceSet) -> tuple[Reach, ...]:
    """Of every scenario, as `reach_of`; and of it under each defense that leaves fewer units.

    Those are secure sums, and defenses that put more photos behind an update.

    Raises:
        DataError: Too few people or photos; or more targets than different updates.
    """
    result = []
    for scenario in study.scenarios:
        parts = split(faces, study.federation_of(scenario))
        method = registry.create("methods", scenario.method.name, scenario.method.settings)

        def behind(
            target: int,
            aggregator: Secures | None = None,
            method: Method = method,
            clients: int = len(parts.clients),
        ) -> tuple[int, ...]:
            seed = study.seeds[0]
            return targets_behind(method, aggregator, clients=clients, target=target, seed=seed)

        one = reach_of(faces, parts, scenario, numbers_of=behind)
        check_targets(one, scenario, f"scenario {scenario.name!r}: ")
        result.append(one)
        for choice in () if is_secure(method) else scenario.defenses:
            defense = registry.create("defenses", choice.name, choice.settings)
            aggregator = aggregator_of(method, defense)
            total = photos_of(defense, scenario.batch_size)
            if aggregator is None and total == scenario.batch_size:
                continue
            summed = partial(behind, aggregator=aggregator)
            fewer = reach_of(faces, parts, scenario, total=total, numbers_of=summed)
            if aggregator or (fewer.units, fewer.most) != (one.units, one.most):
                result.append(replace(fewer, scenario=place_of(scenario.name, choice.label)))
    return tuple(result)


def remarks(study: Study, faces: FaceSet | None) -> Iterator[str]:
    """What a user should know before the study runs: why it may not be able to conclude."""
    yield from _controls(study)
    if faces is None:
        return
    yield from _gallery(study, faces)
    if study.data.name == "folder":
        yield _people(study, faces)
    alike: dict[str, list[str]] = {}
    if not study.underpowered:
        for one in reaches(study, faces):
            if words := _limit(study, one):
                alike.setdefault(words, []).append(one.scenario)
    for words, names in alike.items():
        yield f"{', '.join(names)}: {words}"


def _limit(study: Study, one: Reach) -> str:
    enough = targets_needed(study.reid_limit)
    if one.units >= enough:
        return ""
    if one.together:
        return (
            "the server sees sums of clients, and those of neighboring targets share photos, so "
            "that all targets are one unit: a leak can be demonstrated, and no rate below "
            f"{one.best_limit:.3f} be excluded."
        )
    lead = (
        f"the targets are {one.counted}; if none comes back, they exclude no rate below "
        f"{one.limit:.3f}, and reid_limit = {study.reid_limit:.3g} takes {enough}. A leak can be "
        "demonstrated all the same."
    )
    if one.most >= enough:
        return f"{lead} Write targets = {one.targets}, of which {one.most} are independent."
    reachable = math.ceil(one.best_limit * 1000) / 1000
    return (
        f"{lead} This data gives {one.most} at most: write targets = {one.targets} and "
        f"reid_limit = {reachable:.3g}, use a larger data set, or write underpowered = true "
        "if you know."
    )


def _gallery(study: Study, faces: FaceSet) -> Iterator[str]:
    if not faces.has_identities and not faces.classes:
        return
    parts = split(faces, study.federation)
    in_gallery = sum(map(len, parts.gallery.values()))
    people = len(parts.gallery)
    pairs = (len(faces.people) - in_gallery) * (people - 1)
    there, more = f"gallery has {people} people", "people or photos"
    if faces.classes:
        idle = set(parts.held_out)
        counts = Counter(class_of(name) for name in faces.people if name not in idle)
        pairs = sum(2 * n * (n - 1) for n in counts.values())  # plain and in noise
        there, more = f"set has {counts.total()} images to copy", "images in each class"
    least = PAIRS_PER_FALSE_MATCH / study.fmr
    if pairs >= least:
        return
    at_percent = pairs * 1e-2 >= PAIRS_PER_FALSE_MATCH
    consequence = "copies cannot be told" if faces.classes else "identity cannot be tested"
    then = "matches are judged at an FMR of 0.01" if at_percent else consequence
    yield (
        f"the {there} and {pairs:,} impostor pairs, and an FMR of {study.fmr:g} takes "
        f"{least:,.0f}: {then}. Use a data set of more {more}, or raise fmr."
    )


def _people(study: Study, faces: FaceSet) -> str:
    """How a folder's people are split, as its defaults may not be what somebody expects."""
    parts, total = split(faces, study.federation), len(set(faces.people))
    clients, idle = len(parts.clients), len(parts.held_out)
    return (
        f"of {total} people {len(parts.people)} train at {clients} client{'s' * (clients > 1)}, "
        f"with {study.federation.photos} photos each, and {idle} {'is' if idle == 1 else 'are'} "
        "held out"
    )


def _controls(study: Study) -> Iterator[str]:
    for scenario in study.scenarios:
        place = f"scenario {scenario.name}"
        labels = {defense.label for defense in scenario.defenses}
        if study.audited and not labels & set(study.audited):
            yield f"{place} does not have what is deployed: the verdict is not about it."
            continue
        if not scenario.controls:
            yield (
                f"{place}: controls = false leaves out the prior-only control, and without it "
                "nothing can be concluded. Remove that key."
            )
        if study.trains and not any(defense.name == "none" for defense in scenario.defenses):
            yield (
                f"{place} has no undefended control: nothing can show that its attacks work, so NO "
                'LEAK FOUND can never be said. Add "none" to its defenses.'
            )
