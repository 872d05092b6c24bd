"""Checks that need the plugins: do they exist, do they take these settings, may they know that."""

import inspect
from typing import Any

from fedaudit import registry
from fedaudit.config import Choice, Scenario, Study
from fedaudit.errors import ConfigError, FedauditError, KnowledgeError, UnknownNameError
from fedaudit.study_rules import Place
from fedaudit.threat_models import check_knowledge, threat_model
from fedaudit.types import LocalTraining

SET_BY_STUDY = {
    ("data", "size"): "size = 64 at the top of the study",
    ("networks", "image_size"): "size = 64 at the top of the study",
    ("networks", "classes"): "nothing: the data set decides it",
}
"""Settings that are not a plugin's to choose, and what to write instead."""


def check_study(study: Study, *, file: str = "study") -> None:
    """Look up every plugin, check its settings, and check each attack against its threat model.

    Attacks, defenses and methods are built once, which checks the values of their settings; data
    sets and networks are not, because building them may be slow.

    Raises:
        UnknownNameError: A plugin or one of its settings does not exist.
        ConfigError: A plugin refuses its settings or cannot be imported.
        KnowledgeError: An attack needs a fact that its scenario denies.
    """
    check_settings("data", study.data, Place(file, key="data"))
    for scenario in study.scenarios:
        table = f"scenario {scenario.name!r}"
        check_settings("networks", scenario.network, Place(file, table, "network"))
        _check_method(scenario, Place(file, table, "method"))
        for choice in scenario.defenses:
            build("defenses", choice, Place(file, table, "defenses"))
        _check_attacks(scenario, file, table)


def _check_method(scenario: Scenario, place: Place) -> None:
    method = build("methods", scenario.method, place)
    asked = LocalTraining(scenario.lr, scenario.local_steps, scenario.batch_size)
    steps = method.local(asked).steps
    if steps != asked.steps:
        raise ConfigError(
            f"{place}: method {scenario.method.label!r} makes {steps} local steps, and local_steps "
            f'asks for {asked.steps}. Write local_steps = {steps}, or method = "fedavg".'
        )


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
