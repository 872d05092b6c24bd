"""What a recording claims of differential privacy, held against what it shows."""

from collections.abc import Sequence
from dataclasses import replace

from fedaudit.captures.claims.claim_verdict import ClaimVerdict
from fedaudit.captures.claims.gaussian_claims import CLOSE, client_noise
from fedaudit.captures.claims.protection_catalog import CATALOG, judge
from fedaudit.captures.claims.stated_mechanism import RunSize, StatedMechanism
from fedaudit.captures.claims.verdict_parts import COUNTS_AND_METRICS, delta_reasons, unjudged
from fedaudit.captures.format.capture_facts import DpClaim, Facts
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.inspect.inspection import inspect
from fedaudit.core.claims import Claim, Gap, Spending, epsilon
from fedaudit.core.recorded_run import Protection
from fedaudit.defenses.accounting import epsilon_of

FILTER = "NVFlare filter "
"""What the recording of NVFlare puts before the name of a filter that changed a message."""
SPENT = "svt_privacy_budget.epsilon_total"
"""Metric in which the recording keeps what NVFlare's own ledger says of a message."""
EXAMPLES = frozenset({"example", "image", "sample", "record"})
BROKEN = {
    "less noise than claimed": "add the noise to every parameter before anything leaves the device",
    "noise that repeats": "draw the noise anew in each round and at each client, without a seed",
    "inconsistent sensitivity": "set the sensitivity to the clipping norm",
    "buffers in clear": "keep running statistics on the devices: group norm in place of batch norm",
}
"""Faults by which a claim does not hold of what was sent, and what to do about each."""
UNHIDDEN = frozenset({"less noise than claimed", "noise that repeats"})
"""Of these, those after which no ε is left."""
OUTSIDE = {"buffers in clear": "buffers", "counters in the clipping norm": "counters"}


UNMET = "a privacy claim that does not hold"


def unmet_claims(capture: StoredCapture, shown: Sequence[Protection]) -> tuple[Protection, ...]:
    """Claims of which nothing, or less than they say, is there, as faults for a report.

    Args:
        capture: Of which all headers are read.
        shown: What its inspection found; faults among it are findings of their own already.
    """
    known = {one.evidence for one in shown}
    return tuple(
        Protection(UNMET, True, f"{verdict.stated}: {'; '.join(reasons)}")
        for verdict in recorded_verdicts(capture, RunSize(), shown)
        if verdict.grave and (reasons := [one for one in verdict.reasons if one not in known])
    )


def recorded_verdicts(
    capture: StoredCapture, run: RunSize, shown: Sequence[Protection] | None = None
) -> tuple[ClaimVerdict, ...]:
    """The claim that a recording states, and the filters that its messages name.

    Args:
        capture: Of which all headers are read.
        run: What is known beside it; of what both know, this counts.
        shown: What its inspection found, where that was made already.
    """
    shown = inspect(capture).protections if shown is None else shown
    rounds = capture.rounds()
    messages = [one.message for number in rounds for one in capture.messages(number)]
    counts = [message.examples for message in messages if message.examples]
    facts = capture.facts
    run = run.filled(
        RunSize(
            rounds=len(rounds) or None,
            clients=len({message.client for message in messages}) or None,
            images=min(counts, default=None),
            batch_size=facts.batch_size,
            epochs=facts.local_epochs,
        )
    )
    outside = [COUNTS_AND_METRICS[0]] if counts else []
    if metrics := sorted({name for message in messages for name in message.metrics}):
        excerpt = ", ".join(metrics[:4])
        outside.append(Gap("metrics", f"{excerpt} travel in clear"))
    outside += [
        Gap(OUTSIDE[one.name], f"round {one.round}: {one.evidence}")
        for one in shown
        if one.name in OUTSIDE and one.fault
    ]
    filters = dict.fromkeys(
        name.removeprefix(FILTER)
        for message in messages
        for name in message.protections
        if name.startswith(FILTER)
    )
    ledger = [v for m in messages if isinstance(v := m.metrics.get(SPENT), int | float)]
    rows = [_of_filter(name, run, outside, ledger) for name in filters if name in CATALOG]
    if facts.dp is not None:
        rows.insert(0, of_claim(facts, facts.dp, run, shown, outside))
    return tuple(rows)


def of_claim(
    facts: Facts,
    claim: DpClaim,
    run: RunSize,
    shown: Sequence[Protection] = (),
    outside: Sequence[Gap] = (),
) -> ClaimVerdict:
    """What the numbers of a stated claim give, and what the recorded updates say of it."""
    rule = StatedMechanism(
        name="DpClaim",
        place="capture.json: facts.dp",
        settings={
            name: value
            for name in ("clip", "sensitivity", "noise", "epsilon", "delta", "unit", "where")
            if (value := getattr(claim, name)) is not None
        },
    )
    delta = claim.delta or run.delta
    missing = _missing(claim, run)
    base = replace(unjudged(rule), claimed=claim.epsilon, missing=missing, outside=tuple(outside))
    faults = [one for one in shown if one.fault and one.name in BROKEN]
    evidence = [one.evidence for one in faults]
    if claim.noise == 0:
        return replace(
            base,
            standing="contradicted" if claim.epsilon is not None else "heuristic",
            reasons=("noise = 0: updates are clipped, and nothing is added",),
            changes=("add noise, or take the words off",),
        )
    claims = _claims(facts, claim, run, delta)
    if claim.unit is None or claims is None:
        why = (
            "an ε without its unit is no claim: it may be for an image or for a whole client"
            if claim.unit is None
            else "its ε cannot be worked out without what is missing"
        )
        return replace(
            base,
            standing="contradicted" if evidence else "no claim",
            reasons=(*evidence, why),
            changes=(f"state {', '.join(missing)}",),
        )
    lost = [Gap("update", one.name) for one in faults if one.name in UNHIDDEN]
    a_round, over = (tuple(one.without(*outside, *lost) for one in side) for side in claims)
    reasons = [*delta_reasons(delta, _units(claim, run), str(claim.unit)), *evidence]
    fails = bool(reasons)
    least = _of_relation(over, claim)
    if claim.epsilon is not None and least.epsilon > claim.epsilon * CLOSE:
        fails = True
        once = _of_relation(a_round, claim).epsilon
        share = "one round" if once <= claim.epsilon * CLOSE else "not even one round"
        reasons.append(
            f"ε = {claim.epsilon:g} holds for {share}: its noise gives {once:.4g} a round and "
            f"{epsilon(least)} over {run.rounds} rounds"
        )
    if claim.where == "server":
        reasons.append("the server adds the noise: it sees every update without")
    changes = list(dict.fromkeys(BROKEN[one.name] for one in faults))
    changes += ["state the ε of all rounds, or add more noise"] if fails and not faults else []
    changes += [f"state {', '.join(missing)}"] if missing else []
    return replace(
        base,
        standing="contradicted" if fails else "guarantee",
        a_round=a_round,
        over_rounds=over,
        reasons=tuple(reasons),
        changes=tuple(changes),
    )


def _missing(claim: DpClaim, run: RunSize) -> tuple[str, ...]:
    needs = {
        "unit": claim.unit,
        "neighbor relation": claim.neighbors,
        "δ": claim.delta,
        "clip": claim.clip,
        "noise": claim.noise,
        "where the noise is added": claim.where,
        "number of rounds": run.rounds,
    }
    if claim.unit in EXAMPLES:
        needs["sampling"] = claim.sampling
    return tuple(name for name, value in needs.items() if value is None)


def _units(claim: DpClaim, run: RunSize) -> int | None:
    return run.images if claim.unit in EXAMPLES else run.clients if claim.unit == "client" else None


def _of_relation(claims: Sequence[Claim], claim: DpClaim) -> Claim:
    """The claim of the relation that is stated; of an unstated one the weakest that it may mean."""
    swap = claim.neighbors == "replace"
    return claims[-1 if swap else 0]


def _claims(
    facts: Facts, claim: DpClaim, run: RunSize, delta: float
) -> tuple[tuple[Claim, ...], tuple[Claim, ...]] | None:
    """Of a round and of all; None where they cannot be worked out."""
    if claim.noise is None or claim.clip is None or not run.rounds:
        return None
    noise = claim.noise * (claim.sensitivity or claim.clip) / claim.clip
    covers = ("global model",) if claim.where == "server" else ("update",)
    if claim.unit == "client":
        a_round, over = (
            client_noise(
                mechanism="as the recording states",
                noise=noise,
                delta=delta,
                rounds=rounds,
                settings={"C": claim.clip, "σ": claim.noise},
                covers=covers,
            )
            for rounds in (1, run.rounds)
        )
        return a_round, over
    steps = facts.local_steps
    per_epoch = -(-run.images // run.batch_size) if run.images and run.batch_size else None
    if steps is None and per_epoch and run.epochs:
        steps = per_epoch * run.epochs
    rate = claim.sampling or (1 / per_epoch if per_epoch else None)
    if claim.unit not in EXAMPLES or steps is None or rate is None:
        return None
    of_image, of_all = (
        Claim(
            epsilon=epsilon_of(((noise, rate, steps * rounds),), delta, "rdp"),
            delta=delta,
            unit="image",
            neighbors="add or remove one",
            covers=covers,
            rounds=rounds,
            mechanism="DP-SGD, as the recording states",
            settings={"C": claim.clip, "σ": claim.noise},
            accountant="opacus rdp",
            sampling=f"Poisson sampling of images, q = {rate:.3g}",
            stage="training",
            spendings=(Spending("gaussian", steps * rounds, noise, rate),),
        )
        for rounds in (1, run.rounds)
    )
    return (of_image,), (of_all,)


def _of_filter(
    name: str, run: RunSize, outside: Sequence[Gap], ledger: Sequence[float]
) -> ClaimVerdict:
    """A filter that messages name; its settings are not recorded, its ledger may be."""
    # A recording holds no comments: what a filter is called is all that those who rely on it read.
    rule = StatedMechanism(
        name=name,
        place="recorded messages",
        unread=CATALOG[name].positions,
        label=name if name.endswith("Privacy") else "",
    )
    verdict = judge(rule, run)
    if not ledger or name != "SVTPrivacy":
        return replace(verdict, outside=(*verdict.outside, *outside))
    most = max(ledger)
    a_round = Claim(
        epsilon=most,
        delta=0.0,
        unit="client",
        neighbors="replace one",
        covers=("update",),
        mechanism="NVFlare SVTPrivacy",
        accountant="its own ledger, as its messages say",
    ).without(*verdict.outside, *outside)
    rounds = run.rounds or 1
    return replace(
        verdict,
        standing="contradicted",
        a_round=(a_round,),
        over_rounds=(replace(a_round, epsilon=most * rounds, rounds=rounds),),
        reasons=(
            f"its own ledger, in its messages, says ε = {most:,.6g} a round: no promise at all",
        ),
        outside=(*verdict.outside, *outside),
        missing=("settings",),
        changes=("call it no differential privacy, or train with DP-SGD (Opacus) on the clients",),
    )
