"""Prepare a study's scenario to be explained: its attacks on an honest server, and its judges."""

from fedaudit.captures.simulate.simulated_source import simulation_of
from fedaudit.core.errors import ConfigError, UnknownNameError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.protocols import Attack
from fedaudit.core.registry import create
from fedaudit.core.scenario import Scenario, Study
from fedaudit.core.threat_models import check_knowledge, threat_model
from fedaudit.study.judge import judge_of, judges_beside
from fedaudit.study.run_folder import RunFolder
from fedaudit.why.explained_scenario import Subject


def prepare(
    study: Study, scenario: Scenario, folder: RunFolder, *, targets: int, seed: int
) -> Subject:
    """Everything that the parts of an explanation share.

    The scenario's first defense is the one in place.

    Raises:
        ConfigError: None of the scenario's attacks works on what an honest server sees.
        KnowledgeError: One needs a fact that the scenario's threat model does not grant.
    """
    attacks: dict[str, Attack] = {}
    left_out: list[str] = []
    for choice in scenario.attacks:
        attack: Attack = create("attacks", choice.name, choice.settings)
        if Knowledge.MANIPULATION in attack.needs:
            left_out.append(f"{choice.label}: it changes what the server sends")
        else:
            attacks[choice.label] = attack
    if not attacks:
        raise ConfigError(
            f"scenario {scenario.name!r} has no attack on an honest server: "
            f"{'; '.join(left_out)}. Add one that reads updates, such as map_inversion."
        )
    threat = threat_model(scenario.threat_model, scenario.grant, scenario.deny)
    for name, attack in attacks.items():
        check_knowledge(name, attack, threat)
    gallery, embed = judge_of(study, folder, scenario)
    beside = {judge.label: judge.gallery for judge in judges_beside(study, folder, scenario)}
    layer_judge = gallery if study.judges[0].name == "dlib" else beside.get("dlib")
    return Subject(
        study=study,
        scenario=scenario,
        simulation=simulation_of(study, scenario, scenario.defenses[0]),
        attacks=attacks,
        skipped=tuple(left_out),
        gallery=gallery,
        embed=embed,
        layered=layer_judge if gallery else None,
        folder=folder,
        targets=targets,
        seed=seed,
    )


def scenario_of(study: Study, name: str | None) -> Scenario:
    """A scenario by name; the first if no name is given.

    Raises:
        UnknownNameError: None of that name.
    """
    scenarios = {scenario.name: scenario for scenario in study.scenarios}
    if name is None:
        return study.scenarios[0]
    if name not in scenarios:
        raise UnknownNameError("scenario", name, scenarios)
    return scenarios[name]
