"""The ledger of a scenario: what its threat model grants the attacker, and how training was set."""

from collections.abc import Collection, Mapping

from fedaudit.core.knowledge import Knowledge
from fedaudit.core.measures import Utility
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.core.source import SourceFacts
from fedaudit.core.threat_models import threat_model
from fedaudit.core.training import LocalTraining
from fedaudit.federation.fedprox import FedProx
from fedaudit.federation.fedsgd import FedSGD
from fedaudit.reports.results import Ledger

TUNING: Mapping[str, type[FedSGD | FedProx]] = {"fedsgd": FedSGD, "fedprox": FedProx}
"""Our methods that change local training; nothing that a run folder names is looked up."""


def ledger_of(
    scenario: Scenario, study: Study, source: SourceFacts, worth: Collection[Utility] = ()
) -> Ledger:
    """What was granted and denied, how the audited client trained, and the model that it got.

    `worth` are the utilities that were measured in the scenario: with any, the ledger says of which
    training they are.
    """
    model = threat_model(scenario.threat_model, scenario.grant, scenario.deny)
    settings = study.federation_of(scenario)
    everybody = _local(_tuned(scenario.method, settings.training))
    training = (
        f"audited update: {_steps(scenario.training.steps)}, batch "
        f"{scenario.batch_size}, lr {scenario.training.lr:g}"
    )
    state = "fresh global model (round 1): nothing has been learned yet"
    if scenario.round > 1:
        state = (
            f"trained global model: round {scenario.round}, after {scenario.round - 1} rounds of "
            f"{settings.clients} clients, {everybody}, each defense with its own training"
        )
    trainings = max((len(one.accuracies) for one in worth), default=0)
    federation = (
        f"{settings.rounds} rounds of {settings.clients} clients, each with {everybody}, "
        f"before what a defense changes of it; {trainings} training{'s' * (trainings > 1)} each"
    )
    return Ledger(
        scenario=scenario.name,
        threat_model=f"{model.name}: {model.summary}",
        granted=tuple(sorted(fact.value for fact in model.grants)),
        denied=tuple(sorted(fact.value for fact in Knowledge if fact not in model.grants)),
        training=source.training or training,
        model_state=source.model_states.get(scenario.name, state),
        federation=federation if trainings else "",
    )


def _tuned(method: Choice, training: LocalTraining) -> LocalTraining:
    """The training as the method has it."""
    ours = TUNING.get(method.name)
    return ours(**method.settings).local(training) if ours else training


def _local(training: LocalTraining) -> str:
    """A client's round in words.

    >>> _local(LocalTraining(lr=0.05, steps=4, batch_size=16, momentum=0.9))
    '4 local steps of batch 16 at lr 0.05, momentum 0.9'
    """
    parts = [f"{_steps(training.steps)} of batch {training.batch_size} at lr {training.lr:g}"]
    if training.optimizer != "sgd":
        parts.append(training.optimizer)
    for name in ("momentum", "weight_decay", "proximal"):
        if value := getattr(training, name):
            parts.append(f"{name.replace('_', ' ')} {value:g}")
    return ", ".join(parts)


def _steps(count: int) -> str:
    return f"{count} local step{'s' * (count != 1)}"
