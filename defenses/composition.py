"""How claims compose: over rounds, chains of defenses, methods and what they send, in one place."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from fedaudit.core.claims import COUNTS, Claim, Gap, Spending, by_unit, joint_scope, worst
from fedaudit.core.client import ClientReturn, ClientStep, ClientTask
from fedaudit.core.protocols import Defense
from fedaudit.core.shared import Shared, kind_of
from fedaudit.defenses.accounting import epsilon_of, laplace_epsilon

WHY = {
    "buffers": "running statistics of batch norm carry no noise",
    COUNTS: "exact numbers of images travel in clear",
}
SUMMED = {"update": "aggregate", "class_embeddings": "summed_rows"}
"""What a secure aggregator shows in place of what each client sends."""
BASIC = "basic composition of"
STATED = Spending("stated")
"""Stands for a mechanism of which nothing is known but its claim."""


@dataclass(frozen=True)
class Plan:
    """What of a federation's training decides how much privacy it spends.

    Attributes:
        rounds: In each of which every client takes part.
        steps: Local steps a round.
        sample_rate: Share of its images that a client's step takes, of the client with the fewest.
    """

    rounds: int
    steps: int
    sample_rate: float


@runtime_checkable
class Planned(Protocol):
    """A defense with settings that follow from the planned training."""

    def planned(self, plan: Plan) -> Defense:
        """The same with these settings filled in."""


# --- a chain of defenses --------------------------------------------------------------------------


def apply_defense(defense: Defense, step: ClientStep) -> ClientStep:
    """The defended step; claims of inner mechanisms lose what the outer defense computed anew.

    A defense says by `keeps_claims` whether what it makes of an update depends on nothing but the
    update and draws of its own. One that reads the photos, too, takes what it changes out of every
    claim; one that does not say takes everything out.
    """
    keeps = getattr(defense, "keeps_claims", None)
    if keeps:
        return defense(step)

    def scoped(task: ClientTask) -> ClientReturn:
        before: set[int] = set()

        def inner(task: ClientTask) -> ClientReturn:
            reply = step(task)
            before.update(map(id, reply.shared))
            return reply

        reply = defense(inner)(task)
        name = defense.facts().name
        if keeps is None:
            why, additions = f"{name} does not say what it reads (keeps_claims)", reply.shared
        else:
            why = f"{name} reads the photos after the noise"
            additions = tuple(payload for payload in reply.shared if id(payload) not in before)
        gaps = tuple(Gap(kind, why) for kind in dict.fromkeys(map(kind_of, additions)))
        claims = tuple(
            claim.without(*(gap for gap in gaps if gap.what in claim.covers))
            for claim in reply.claims
        )
        return replace(reply, claims=claims, unnoised=(*reply.unnoised, *gaps))

    return scoped


def with_claim(returned: ClientReturn, claim: Claim) -> ClientReturn:
    """The return with one more mechanism's claim."""
    return replace(returned, claims=together((*returned.claims, claim)))


def releasing(returned: ClientReturn, sent: Shared) -> ClientReturn:
    """The client's return with one more thing computed from the trained weights, and its claims.

    Noise in training covers it; noise in sending did not meet it.
    """
    kind = kind_of(sent)
    claims = tuple(c.covering(kind) if c.stage == "training" else c for c in returned.claims)
    return replace(
        returned,
        shared=(*returned.shared, sent),
        of_weights=(*returned.of_weights, kind),
        claims=claims,
    )


def noised_in_training(returned: ClientReturn) -> tuple[tuple[str, ...], tuple[Gap, ...]]:
    """Which kinds the noise of DP training covers, and what was computed from photos beside it."""
    out = {gap.what for gap in returned.unnoised}
    kinds = dict.fromkeys(map(kind_of, returned.shared))
    covers = tuple(kind for kind in kinds if kind in returned.of_weights and kind not in out)
    return covers, returned.unnoised


# --- what was sent --------------------------------------------------------------------------------


def claims_of(returned: ClientReturn) -> tuple[Claim, ...]:
    """The claims of a client's round, with everything that it sent outside of them by name."""
    return close_claims(returned.claims, returned.shared, returned.unnoised)


def close_claims(
    claims: Iterable[Claim], shared: Sequence[Shared], unnoised: Iterable[Gap] = ()
) -> tuple[Claim, ...]:
    """The claims, with every kind of `shared` that none of them covers added as a gap."""
    kinds = list(dict.fromkeys(map(kind_of, shared)))
    if any(getattr(part, "examples", None) or getattr(part, "weights", ()) for part in shared):
        kinds.append(COUNTS)
    whys = {gap.what: gap.why for gap in unnoised}
    complete = []
    for claim in claims:
        same_number = claim.unit == "image" and claim.neighbors == "replace one"
        known = {*claim.covers, *(gap.what for gap in claim.gaps), *([COUNTS] * same_number)}
        outside = (
            Gap(kind, whys.get(kind) or WHY.get(kind, "sent outside of the mechanism"))
            for kind in kinds
            if kind not in known
        )
        complete.append(claim.without(*outside))
    return tuple(complete)


def sum_claims(claims: Iterable[tuple[Claim, ...]], shared: Sequence[Shared]) -> tuple[Claim, ...]:
    """Claims behind a secure sum: for each unit of privacy, the weakest of all clients' claims."""
    weakest = (claim.renamed(SUMMED) for claim in worst(claims))
    behind_masks = any(kind_of(payload) == "masked_vectors" for payload in shared)
    uniform = ("masked_vectors",) if behind_masks else ()  # uniform, whatever the update is
    return tuple(c if c.broken else c.covering(*uniform) for c in weakest)


@dataclass(frozen=True)
class PrivacyLedger:
    """What each client of a training claims in each round.

    Attributes:
        spent: Claims of a client's rounds, in order, by its number.
    """

    spent: dict[int, list[tuple[Claim, ...]]] = field(default_factory=dict)

    def add(self, client: int, returned: ClientReturn) -> None:
        """Count one more round of a client."""
        self.spent.setdefault(client, []).append(claims_of(returned))

    def weakest(self) -> tuple[Claim, ...]:
        """All rounds composed, of the client that has the weakest claim."""
        return worst(over_rounds(rounds) for rounds in self.spent.values())


# --- composition ----------------------------------------------------------------------------------


def together(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """Claims of one round, composed where they are of the same unit and neighbor relation.

    Different units or neighbors stand side by side: no one (ε, δ) states both.
    """
    return tuple(_compose(group, _most(group)) for group in by_unit(claims))


def over_rounds(rounds: Sequence[tuple[Claim, ...]]) -> tuple[Claim, ...]:
    """The claims of all these rounds of one client together, in each of which it has its data."""
    lengths = [_most(claims) if claims else 1 for claims in rounds]
    spans = [length for length in lengths if length is not None]
    total = sum(spans) if len(spans) == len(lengths) else None
    groups = by_unit(claim for claims in rounds for claim in claims)
    return tuple(_compose(group, total) for group in groups)


def _most(claims: Iterable[Claim]) -> int | None:
    rounds = [claim.rounds for claim in claims]
    return None if None in rounds else max(r for r in rounds if r is not None)


def _compose(claims: Sequence[Claim], rounds: int | None) -> Claim:
    """One claim of several of the same unit and neighbor relation, for everything they cover."""
    if len(claims) == 1:
        return replace(claims[0], rounds=rounds)
    covers, gaps = joint_scope(claims)
    epsilon, delta, accountant = _spend(claims)
    mechanisms = dict.fromkeys(claim.mechanism for claim in claims)
    settings: dict[str, float | str] = {}
    for claim in claims:
        settings = {**claim.settings, **settings}
    return replace(
        claims[0],
        epsilon=epsilon,
        delta=delta,
        covers=covers,
        gaps=gaps,
        rounds=rounds,
        mechanism=" and ".join(mechanisms),
        settings=settings,
        accountant=accountant,
        sampling="; ".join(dict.fromkeys(claim.sampling for claim in claims if claim.sampling)),
        stage="training" if all(c.stage == "training" for c in claims) else "sending",
        spendings=_merge(spending for claim in claims for spending in claim.spendings),
    )


def _spend(claims: Sequence[Claim]) -> tuple[float, float, str]:
    """ε, δ and their accountant: its own where all mechanisms are known to one, else the sum.

    The sum is basic composition (Dwork & Roth 2014, theorem 3.16).
    """
    accountants = tuple(dict.fromkeys(claim.accountant for claim in claims))
    deltas = {claim.delta for claim in claims}
    spendings = _merge(spending for claim in claims for spending in claim.spendings)
    laws = {spending.law for claim in claims for spending in claim.spendings or (STATED,)}
    name = accountants[0].removeprefix("opacus ")
    if len(accountants) == 1 and laws == {"gaussian"} and len(deltas) == 1:
        assert name in ("rdp", "prv")
        schedule = tuple((s.noise, s.sampling, s.runs) for s in spendings)
        return epsilon_of(schedule, claims[0].delta, name), claims[0].delta, accountants[0]
    if laws == {"laplace"} and len(spendings) == 1:
        (one,) = spendings
        epsilon, delta = laplace_epsilon(one.noise, one.delta, one.runs)
        return epsilon, delta, accountants[0]
    names = ", ".join(accountants)
    return (
        sum(claim.epsilon for claim in claims),
        sum(claim.delta for claim in claims),
        names if names.startswith(BASIC) else f"{BASIC} {names}",
    )


def _merge(spendings: Iterable[Spending]) -> tuple[Spending, ...]:
    """Equal mechanisms as one, run as often as all of them."""
    runs: dict[Spending, int] = {}
    for spending in spendings:
        alike = replace(spending, runs=1)
        runs[alike] = runs.get(alike, 0) + spending.runs
    return tuple(replace(spending, runs=times) for spending, times in runs.items())
