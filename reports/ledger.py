"""The ledger of a scenario: what its threat model grants the attacker, and how training was set."""

from fedaudit.core.knowledge import Knowledge
from fedaudit.core.scenario import Scenario, Study
from fedaudit.core.source import SourceFacts
from fedaudit.core.threat_models import threat_model
from fedaudit.reports.results import Ledger


def ledger_of(scenario: Scenario, study: Study, source: SourceFacts) -> Ledger:
    """What was granted and denied, how the audited client trained, and the model that it got."""
    model = threat_model(scenario.threat_model, scenario.grant, scenario.deny)
    settings = study.federation_of(scenario)
    everybody = settings.training
    training = (
        f"audited update: {scenario.training.steps} local step(s), batch "
        f"{scenario.batch_size}, lr {scenario.training.lr:g}"
    )
    state = "fresh global model (round 1): nothing has been learned yet"
    if scenario.round > 1:
        state = (
            f"trained global model: round {scenario.round}, after {scenario.round - 1} rounds of "
            f"{settings.clients} clients, {everybody.steps} local steps of batch "
            f"{everybody.batch_size} at lr {everybody.lr:g}, each defense with its own training"
        )
    return Ledger(
        scenario=scenario.name,
        threat_model=f"{model.name}: {model.summary}",
        granted=tuple(sorted(fact.value for fact in model.grants)),
        denied=tuple(sorted(fact.value for fact in Knowledge if fact not in model.grants)),
        training=source.training or training,
        model_state=source.model_states.get(scenario.name, state),
    )
