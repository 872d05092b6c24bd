"""Checks that need the plugins: do they exist, do they take these settings, may they know that."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fedaudit.captures.simulate.known_controls import pretraining_sets
from fedaudit.captures.simulate.prior_overlap import common_photos
from fedaudit.captures.simulate.study_faces import require_fitting_judges
from fedaudit.core import registry
from fedaudit.core.errors import (
    ConfigError,
    DataError,
    FedauditError,
    UnknownNameError,
    UsageError,
)
from fedaudit.core.observation import LocalTraining
from fedaudit.core.protocols import Defense, Method
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.core.threat_models import check_knowledge, threat_model
from fedaudit.data.photo_hashes import photo_hashes
from fedaudit.data.splits import Split, split, target_photos
from fedaudit.defenses.chain import parts_of
from fedaudit.defenses.none import NoDefense
from fedaudit.federation.abilities import Checks
from fedaudit.federation.together import aggregator_of, photos_of, training_of
from fedaudit.files import asset_store
from fedaudit.files.asset_table import ASSETS
from fedaudit.models.named_network import is_foreign
from fedaudit.study.deciding_files import barred_assets
from fedaudit.study.network_check import NetworkChecks
from fedaudit.study.reach import check_targets, faces_to_count, reach_of

SET_BY_STUDY = {
    ("data", "size"): "size = 64 at the top of the study",
    ("networks", "image_size"): "size = 64 at the top of the study",
    ("networks", "classes"): "nothing: the data set decides it",
}
"""Settings that are not a plugin's to choose, and what to write instead."""
_Build = Callable[[str, Choice, str], Any]
"""Kind, choice and place in the study → the plugin."""


def check_study(study: Study, *, file: str = "study") -> None:
    """Look up every plugin, check its settings, and check each attack against its threat model.

    Attacks, defenses and methods are built once, which checks the values of their settings, and so
    are networks that are not ours; data sets are not, because that may be slow. Only faces that are
    at hand, a folder or a cached ORL, are read, and dealt to clients and targets as the run will.

    Raises:
        DataError: The faces cannot be used, or are too few for the study.
        UnknownNameError: A plugin, one of its settings or a deployed label does not exist.
        ConfigError: A plugin refuses its settings or cannot be imported.
        KnowledgeError: An attack needs a fact that its scenario denies.
    """
    labels = {defense.label for scenario in study.scenarios for defense in scenario.defenses}
    for label in study.deployed:
        if label not in labels:
            raise UnknownNameError("defense label", label, labels, where=f"{file}: deployed")
    build, networks = _builder(), NetworkChecks(study.size)
    _check_settings("data", study.data, f"{file}: data")
    with _at(file):
        require_fitting_judges(study, of_pictures=study.of_pictures)
    for choice in study.judges:
        _check_settings("judges", choice, f"{file}: judges")
    for scenario in study.scenarios:
        place = f"{file}: scenario {scenario.name!r}"
        _check_settings("networks", scenario.network, f"{place}: network")
        with _at(f"{place}: network"):
            networks.check(scenario)
        _check_pretraining(study, scenario, place)
        method = _check_method(scenario, build, place)
        for choice in scenario.defenses:
            defense: Defense = build("defenses", choice, f"{place}: defenses")
            with _at(f"{place}: defenses: {choice.label}"):
                training_of(method, defense, scenario.audited_training)
                aggregator_of(method, defense)
        threat = threat_model(scenario.threat_model, scenario.grant, scenario.deny)
        for choice in scenario.attacks:
            attack = build("attacks", choice, f"{place}: attacks")
            with _at(place):
                check_knowledge(choice.label, attack, threat)
    if study.use == "commercial" and (terms := barred_assets(study)):
        items = "; ".join(f"{name} ({why})" for name, why in terms.items())
        raise ConfigError(
            f'{file}: use = "commercial" is stated, and the study uses what may not serve it: '
            f"{items}. Choose other data, attacks that draw no faces (subspace_matching, "
            "inverting_gradients) or a `prior` of your own."
        )
    _check_faces(study, build, file)


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Errors inside name the place in the study."""
    try:
        yield
    except UnknownNameError as error:
        raise UnknownNameError(error.kind, error.name, error.known, where=place) from error
    except UsageError as error:
        raise type(error)(f"{place}: {error}") from error
    except FedauditError as error:
        raise ConfigError(f"{place}: {error}") from error


def _check_faces(study: Study, build: _Build, file: str) -> None:
    place = f"{file}: data"
    try:
        faces = faces_to_count(study, fetched=False)
        if faces is None:
            return
        require_fitting_judges(study, of_pictures=bool(faces.classes))
        splits: dict[Federation, Split] = {}
        for scenario in study.scenarios:
            scene = f"{file}: scenario {scenario.name!r}"
            place = f"{scene if scenario.federation else file}: federation"
            federation = study.federation_of(scenario)
            parts = splits.get(federation) or split(faces, federation)
            splits[federation] = parts
            place = scene
            method = build("methods", scenario.method, scene)
            all_defenses = [build("defenses", choice, scene) for choice in scenario.defenses]
            defenses = [part for defense in all_defenses for part in parts_of(defense)]
            for part in (method, *defenses):
                if isinstance(part, Checks):
                    part.check(faces, parts)
            most = max(photos_of(defense, scenario.batch_size) for defense in all_defenses)
            for target in range(min(scenario.targets, len(parts.clients))):
                target_photos(parts, target, scenario.batch_size, most)
            check_targets(reach_of(faces, parts, scenario), scenario, "")
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    except OSError as error:
        raise DataError(
            f"{place}: cannot read {error.filename}: {error.strerror}. Correct its permissions, "
            "or name another folder."
        ) from error


def _check_method(scenario: Scenario, build: _Build, place: str) -> Method:
    method: Method = build("methods", scenario.method, f"{place}: method")
    plan = scenario.audited_training
    with _at(f"{place}: method"):
        actual = training_of(method, NoDefense(), plan)
    if actual.steps != plan.steps:
        unit = "step" if actual.steps == 1 else "steps"
        raise ConfigError(
            f"{place}: method {scenario.method.label!r} makes {actual.steps} local {unit}, and "
            f"local_steps asks for {plan.steps}. Write local_steps = {actual.steps}, or "
            'method = "fedavg".'
        )
    for key in ("momentum", "optimizer", "weight_decay", "proximal"):
        value = getattr(plan, key)
        if value != getattr(actual, key) and value != getattr(LocalTraining(), key):
            raise ConfigError(
                f"{place}: method {scenario.method.label!r} trains with {key} = "
                f"{getattr(actual, key)!r}, and the scenario asks for {value!r}. Remove {key}, or "
                'write method = "fedavg".'
            )
    if plan.steps * plan.batch_size < scenario.batch_size:
        excess = scenario.batch_size - plan.steps * plan.batch_size
        raise ConfigError(
            f"{place}: {plan.steps} local step(s) of {plan.batch_size} images leave {excess} of "
            f"the {scenario.batch_size} images unused. Raise local_steps or local_batch_size, or "
            "lower batch_size."
        )
    return method


def _check_pretraining(study: Study, scenario: Scenario, place: str) -> None:
    """Refuse to teach the network the photos on which it is audited."""
    for asks, public in pretraining_sets(study, scenario).items():
        with _at(f"{place}: {asks}: public"):
            registry.lookup("data", public)
        if public == study.data.name:
            raise ConfigError(
                f"{place}: {asks}: the network would be pre-trained on {public!r}, whose people "
                "are audited. Name other faces by public."
            )
        if common := _common_files(study.data, public):
            raise ConfigError(
                f"{place}: {asks}: {common} are among the files of {public!r}, on which the "
                "network would be pre-trained. Name other faces by public."
            )


def _common_files(data: Choice, public: str) -> str:
    """How many files of an audited folder are those of a set at hand, in words; "" for none.

    What else is the same photo shows in its pixels, once both sets are read (`check_apart`).
    """
    at_hand = public in ASSETS and asset_store.state(public) in asset_store.AT_HAND
    if not at_hand or "path" not in data.settings:
        return ""
    with suppress(OSError):  # what cannot be read is said where it is used
        return common_photos(data, photo_hashes(asset_store.path(public)))
    return ""


def _builder() -> _Build:
    """A function that checks a plugin's settings and builds it, equal ones once."""
    cache: dict[tuple[str, str, str], Any] = {}

    def build(kind: str, choice: Choice, place: str) -> Any:
        key = kind, choice.name, repr(sorted(choice.settings.items()))
        if key not in cache:
            _check_settings(kind, choice, place)
            with _at(place):
                cache[key] = registry.create(kind, choice.name, choice.settings)
        return cache[key]

    return build


def _check_settings(kind: str, choice: Choice, place: str) -> None:
    for option in choice.settings:
        if instead := SET_BY_STUDY.get((kind, option)):
            raise ConfigError(
                f"{place}: {option} is not for {choice.name!r} to choose. Write {instead}."
            )
    later = [option for of, option in SET_BY_STUDY if of == kind]
    if kind == "networks" and is_foreign(choice.name):
        return  # of a stranger's network: `NetworkChecks` builds it
    with _at(place):
        registry.check_settings(kind, choice.name, choice.settings, later=later)
