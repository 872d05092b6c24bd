"""Checks that need the plugins: do they exist, do they take these settings, may they know that."""

import inspect
from typing import Any

from fedaudit.core import registry
from fedaudit.core.errors import (
    ConfigError,
    DataError,
    FedauditError,
    KnowledgeError,
    UnknownNameError,
)
from fedaudit.core.observation import LocalTraining
from fedaudit.core.protocols import Defense, Method
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.core.setting_types import check_types
from fedaudit.core.threat_models import check_knowledge, threat_model
from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import split, target_photos
from fedaudit.defenses.chain import parts_of
from fedaudit.federation.abilities import Checks
from fedaudit.federation.together import aggregator_of, photos_of, training_of
from fedaudit.files import asset_store
from fedaudit.study.study_rules import Place

SET_BY_STUDY = {
    ("data", "size"): "size = 64 at the top of the study",
    ("networks", "image_size"): "size = 64 at the top of the study",
    ("networks", "classes"): "nothing: the data set decides it",
}
"""Settings that are not a plugin's to choose, and what to write instead."""

_SMALL = 16
"""Pixels: faces are read to be counted, not to be seen."""


def check_study(study: Study, *, file: str = "study") -> None:
    """Look up every plugin, check its settings, and check each attack against its threat model.

    Attacks, defenses and methods are built once, which checks the values of their settings; data
    sets and networks are not, because building them may be slow. Only faces that are at hand, a
    folder or a cached ORL, are read, and dealt to clients and targets as the run will.

    Raises:
        DataError: The faces cannot be used, or are too few for the study.
        UnknownNameError: A plugin or one of its settings does not exist.
        ConfigError: A plugin refuses its settings or cannot be imported.
        KnowledgeError: An attack needs a fact that its scenario denies.
    """
    check_settings("data", study.data, Place(file, key="data"))
    for scenario in study.scenarios:
        table = f"scenario {scenario.name!r}"
        check_settings("networks", scenario.network, Place(file, table, "network"))
        method = _check_method(scenario, Place(file, table, "method"))
        for choice in scenario.defenses:
            _check_defense(scenario, method, choice, Place(file, table, "defenses"))
        _check_attacks(scenario, file, table)
    _check_faces(study, file)


def _check_faces(study: Study, file: str) -> None:
    name, settings = study.data.name, study.data.settings
    at_hand = {asset_store.State.PRESENT, asset_store.State.YOURS}
    if name != "folder" and not (name == "orl" and asset_store.state("orl") in at_hand):
        return
    place = f"{file}: data"
    try:
        faces = registry.create("data", name, {**settings, "size": _SMALL})
        if not isinstance(faces, FaceSet):
            return
        for scenario in study.scenarios:
            scene = f"{file}: scenario {scenario.name!r}"
            place = f"{scene if scenario.federation else file}: federation"
            parts = split(faces, study.federation_of(scenario))
            place = scene
            method = registry.create("methods", scenario.method.name, scenario.method.settings)
            chosen = [registry.create("defenses", d.name, d.settings) for d in scenario.defenses]
            defenses = [part for defense in chosen for part in parts_of(defense)]
            for part in (method, *defenses):
                if isinstance(part, Checks):
                    part.check(faces, parts)
            most = max(photos_of(defense, scenario.batch_size) for defense in chosen)
            for target in range(scenario.targets):
                target_photos(parts, target, scenario.batch_size, most)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    except OSError as error:
        raise DataError(
            f"{place}: cannot read {error.filename}: {error.strerror}. Correct its permissions, "
            "or name another folder."
        ) from error


def _check_method(scenario: Scenario, place: Place) -> Method:
    method: Method = build("methods", scenario.method, place)
    asked = scenario.audited_training
    made = method.local(asked)
    steps = made.steps
    if steps != asked.steps:
        unit = "step" if steps == 1 else "steps"
        raise ConfigError(
            f"{place}: method {scenario.method.label!r} makes {steps} local {unit}, and "
            f"local_steps asks for {asked.steps}. Write local_steps = {steps}, or "
            'method = "fedavg".'
        )
    for key in ("momentum", "optimizer", "weight_decay", "proximal"):
        value = getattr(asked, key)
        if value != getattr(made, key) and value != getattr(LocalTraining(), key):
            raise ConfigError(
                f"{place}: method {scenario.method.label!r} trains with {key} = "
                f"{getattr(made, key)!r}, and the scenario asks for {value!r}. Remove {key}, or "
                'write method = "fedavg".'
            )
    if asked.steps * asked.batch_size < scenario.batch_size:
        unused = scenario.batch_size - asked.steps * asked.batch_size
        raise ConfigError(
            f"{place}: {asked.steps} local step(s) of {asked.batch_size} images leave {unused} of "
            f"the {scenario.batch_size} images unused. Raise local_steps or local_batch_size, or "
            "lower batch_size."
        )
    return method


def _check_defense(scenario: Scenario, method: Method, choice: Choice, place: Place) -> None:
    defense: Defense = build("defenses", choice, place)
    try:
        training_of(method, defense, scenario.audited_training)
        aggregator_of(method, defense)
    except ConfigError as error:
        raise ConfigError(f"{place}: {place.key}: {choice.label}: {error}") from error


def _check_attacks(scenario: Scenario, file: str, table: str) -> None:
    threat = threat_model(scenario.threat_model, scenario.grant, scenario.deny)
    for choice in scenario.attacks:
        place = Place(file, table, "attacks")
        attack = build("attacks", choice, place)
        try:
            check_knowledge(choice.label, attack, threat)
        except KnowledgeError as error:
            raise KnowledgeError(f"{place}: {error}") from error


def check_settings(kind: str, choice: Choice, place: Place) -> Any:
    """Look a plugin up and check the names of its settings against its signature.

    Returns:
        The class or function.
    """
    factory = _find(kind, choice, place)
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # built in C; it will refuse on its own
        return factory
    known = [p.name for p in parameters if p.kind not in {p.VAR_KEYWORD, p.VAR_POSITIONAL}]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for option in choice.settings:
        if instead := SET_BY_STUDY.get((kind, option)):
            raise ConfigError(
                f"{place}: {place.key}: {option} is not for {choice.name!r} to choose. "
                f"Write {instead}."
            )
        if option not in known and not takes_any:
            what = f"option of {kind.removesuffix('s')} {choice.name!r}:"
            raise UnknownNameError(what, option, known, where=f"{place}: {place.key}")
    what = f"{place}: {place.key}: {kind.removesuffix('s')} {choice.name!r}"
    for p in parameters:
        given = p.name in choice.settings or (kind, p.name) in SET_BY_STUDY
        optional = p.kind in {p.VAR_KEYWORD, p.VAR_POSITIONAL} or p.default is not p.empty
        if not given and not optional:
            raise ConfigError(
                f"{what} needs {p.name!r}. Write "
                f'{place.key.partition("[")[0]} = {{name = "{choice.name}", {p.name} = …}}.'
            )
    check_types(what, factory, choice.settings)
    return factory


def build(kind: str, choice: Choice, place: Place) -> Any:
    """Build a plugin once, with errors that name the place in the study."""
    check_settings(kind, choice, place)
    try:
        return registry.create(kind, choice.name, choice.settings)
    except FedauditError as error:
        raise ConfigError(f"{place}: {place.key}: {error}") from error


def _find(kind: str, choice: Choice, place: Place) -> Any:
    where = f"{place}: {place.key}"
    try:
        return registry.lookup(kind, choice.name)
    except UnknownNameError as error:
        raise UnknownNameError(error.kind, error.name, error.known, where=where) from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{where}: {kind.removesuffix('s')} {choice.name!r} is registered but cannot be "
            f"imported: {error}. Repair or remove the package that brings it."
        ) from error
