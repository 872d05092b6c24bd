"""The scenarios of a recorded run's study: which of its updates are judged together."""

from collections import Counter
from collections.abc import Sequence

from fedaudit.captures.audit.choose_attacks import Candidate
from fedaudit.captures.audit.recorded_labels import rounds_name, safe_label
from fedaudit.captures.format.capture_facts import Facts
from fedaudit.captures.format.capture_network import network_name
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.printable import printable
from fedaudit.core.recorded_run import RECORDED, RecordedTarget
from fedaudit.core.scenario import Choice, Scenario
from fedaudit.core.threat_models import EXPLANATIONS
from fedaudit.files.asset_sources import sha256

ALONE = 6
"""Updates of a round that can say something by themselves: the fewest of which an exact test can
tell a leak from chance. Rounds of fewer are judged together."""


def scenarios_of(
    candidates: Sequence[Candidate],
    attacks: tuple[Choice, ...],
    defense: str,
    spec: ModelSpec,
    facts: Facts,
) -> tuple[tuple[Scenario, ...], tuple[RecordedTarget, ...]]:
    """A scenario a round, and apart from it one of clients whose photos are known.

    Rounds that have too few updates to say something alone make one scenario together.
    """
    granted = {str(fact) for fact in EXPLANATIONS} - {"labels", "statistics", "manipulation"}
    deny = tuple(sorted({fact.value for one in candidates for fact in one.lacking} & granted))
    groups: dict[tuple[bool, tuple[int, ...]], list[Candidate]] = {}
    for has_truth in (True, False):
        mine = [one for one in candidates if bool(one.truth) is has_truth]
        updates = Counter(one.seen.round for one in mine)
        few = tuple(round for round, count in updates.items() if count < ALONE)
        for one in mine:
            rounds = few if one.seen.round in few else (one.seen.round,)
            groups.setdefault((has_truth, rounds), []).append(one)
    both = len({has_truth for has_truth, _ in groups}) > 1
    scenarios, targets = [], []
    network = Choice(spec.factory, {}, label=safe_label(network_name(spec), "network"))
    method = Choice(
        RECORDED, {}, label=safe_label((facts.framework or "recorded").split()[0], RECORDED)
    )
    for (has_truth, rounds), them in groups.items():
        name = rounds_name(rounds) + ("-canary" if both and has_truth else "")
        sizes = [one.seen.batch_size for one in them if one.seen.batch_size]
        scenarios.append(
            Scenario(
                name=name,
                network=network,
                method=method,
                round=max(1, rounds[0]),
                batch_size=max(sizes, default=1),
                training=LocalTraining(facts.lr or 0.1, facts.local_steps or 1, batch_size=0),
                targets=len(them),
                threat_model="D",
                deny=deny,
                defenses=(Choice(RECORDED, {}, label=defense),),
                attacks=attacks,
            )
        )
        targets += [
            RecordedTarget(
                scenario=name,
                round=one.seen.round,
                file=one.members[0].path.name,
                client=printable(one.seen.client)[:200] or "unnamed",
                sha256=sha256(one.members[0].path),
                images=one.seen.batch_size or 0,
                truth=dict(one.truth),
            )
            for one in them
        ]
    return tuple(scenarios), tuple(targets)
