"""Flower's differential privacy: what each of its modifiers and strategies gives (1.42)."""

import math
from dataclasses import replace

from fedaudit.captures.claims.claim_verdict import ClaimVerdict
from fedaudit.captures.claims.gaussian_claims import CLOSE, client_noise
from fedaudit.captures.claims.stated_mechanism import RunSize, StatedMechanism
from fedaudit.captures.claims.verdict_parts import (
    COUNTERS,
    COUNTS_AND_METRICS,
    delta_reasons,
    missing_of,
    unjudged,
)
from fedaudit.core.claims import Gap, epsilon


def local_dp(stated: StatedMechanism, run: RunSize) -> ClaimVerdict:
    """`LocalDpMod`: clips to C, adds noise of Δ√(2 ln(1.25/δ))/ε; Δ and C are set apart."""
    clip, scale = stated.number("clipping_norm"), stated.number("sensitivity")
    target, delta = stated.number("epsilon"), stated.number("delta")
    missing = missing_of(stated, "clipping_norm", "sensitivity", "epsilon", "delta")
    missing += () if run.rounds else ("number of rounds",)
    outside = (COUNTERS, *COUNTS_AND_METRICS)
    if not (clip and target and delta and scale is not None and delta < 1):
        return replace(
            unjudged(stated),
            claimed=target,
            reasons=("its ε cannot be worked out without what is missing",),
            missing=missing,
            outside=outside,
            changes=(f"state {', '.join(missing)}",),
        )
    deviation = scale * math.sqrt(2 * math.log(1.25 / delta)) / target
    settings = {"C": clip, "noise": deviation}
    a_round, over_rounds = (
        client_noise(
            mechanism="Flower LocalDpMod",
            noise=deviation / clip,
            delta=delta,
            rounds=rounds,
            settings=settings,
        )
        if rounds
        else ()
        for rounds in (1, run.rounds)
    )
    least, of_replacement = a_round
    reasons, changes = [], []
    fails = least.epsilon > target * CLOSE
    if fails and scale < clip / CLOSE:
        reasons.append(
            f"the noise is scaled to a sensitivity of {scale:g}, and updates are clipped to "
            f"{clip:g}: it is {_times(clip, scale)} times too weak for "
            f"ε = {target:g}. Flower takes the two apart and does not compare them"
        )
    elif fails:
        reasons.append(
            f"the formula √(2 ln(1.25/δ))/ε holds for ε ≤ 1 only (Dwork & Roth 2014, theorem A.1): "
            f"for ε = {target:g} its noise gives {epsilon(least)}"
        )
    if not fails and of_replacement.epsilon > target * CLOSE:
        reasons.append(
            f"ε = {target:g} holds between an update and none. The server sees an update in any "
            f"case: between two sets of photos of the client it is {epsilon(of_replacement)}"
        )
    if fails or of_replacement.epsilon > target * CLOSE:
        changes.append(f"set sensitivity = {2 * clip:g}, twice clipping_norm")
    if fails and target > 1:
        changes.append("ask for ε ≤ 1 a round, for which the formula holds")
    if run.rounds and run.rounds > 1:
        reasons.append(f"ε is stated for one round; {run.rounds} rounds add up")
    deltas = delta_reasons(delta, run.clients, "client")
    return replace(
        unjudged(stated),
        standing="contradicted" if fails or deltas else "guarantee",
        claimed=target,
        a_round=tuple(claim.without(*outside) for claim in a_round),
        over_rounds=tuple(claim.without(*outside) for claim in over_rounds),
        reasons=(*deltas, *reasons),
        missing=(*missing, "neighbor relation"),
        outside=outside,
        changes=tuple(changes),
    )


def _times(clip: float, scale: float) -> str:
    ratio = clip / scale if scale else math.inf
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.3g}"


def central_dp(stated: StatedMechanism, run: RunSize) -> ClaimVerdict:
    """The four strategy wrappers: the server adds noise of z·C/n to the mean of n clients."""
    noise, number = stated.number("noise_multiplier"), stated.number("num_sampled_clients")
    side = "server" if "ServerSide" in stated.name else "clients"
    adaptive = "Adaptive" in stated.name
    missing = missing_of(stated, "noise_multiplier", "num_sampled_clients")
    missing += (*([] if run.rounds else ["number of rounds"]), "neighbor relation")
    seen = "unclipped" if side == "server" else "clipped"
    outside = [Gap("update", f"the server receives each client's {seen} update without noise")]
    outside += [Gap("norm_bit", "sent in clear")] if adaptive and side == "clients" else []
    outside += COUNTS_AND_METRICS
    base = replace(unjudged(stated), missing=(*missing, "δ"), outside=tuple(outside))
    if noise is None:
        return replace(base, reasons=("the noise is not known",))
    if noise == 0:
        return replace(
            base,
            standing="heuristic",
            reasons=("noise_multiplier = 0: updates are clipped, and nothing is added",),
            changes=("set noise_multiplier; 1 or more is usual",),
        )
    names = {"z": noise} | ({"n": number} if number else {})
    a_round, over_rounds = (
        client_noise(
            mechanism=f"Flower {stated.name}",
            noise=noise,
            delta=run.delta,
            rounds=rounds,
            settings=names,
            covers=("global model",),
            sampling="no amplification by sampling; equal weights of clients",
        )
        if rounds
        else ()
        for rounds in (1, run.rounds)
    )
    return replace(
        base,
        standing="guarantee",
        a_round=tuple(claim.without(*outside) for claim in a_round),
        over_rounds=tuple(claim.without(*outside) for claim in over_rounds),
        reasons=(
            "it protects from those who see the global model, not from the server, which adds the "
            "noise itself",
            "its noise is for a mean in which all clients weigh the same; FedAvg weighs by "
            "num-examples, and a client with more images then has more influence than C/n",
            f"δ is not stated; ε is given at δ = {run.delta:g}",
        ),
        changes=(
            "send the same num-examples for all clients",
            "against a curious server add noise on the clients, or secure aggregation",
        ),
    )


def clipping_mod(stated: StatedMechanism, run: RunSize) -> ClaimVerdict:
    """`fixedclipping_mod` and `adaptiveclipping_mod`: the client's half of central privacy."""
    del run
    bit = stated.name == "adaptiveclipping_mod"
    outside = (*([Gap("norm_bit", "sent in clear")] if bit else []), *COUNTS_AND_METRICS)
    return replace(
        unjudged(stated),
        standing="heuristic",
        reasons=(
            "it clips what a client sends and adds no noise; whether anybody does is decided by "
            "the server",
            "Flower's clipping counts batch-norm counters, so that an update can shrink to nothing",
        ),
        outside=outside,
        changes=("add LocalDpMod, or rely on the server's noise and say so",),
    )


def secagg(stated: StatedMechanism, run: RunSize) -> ClaimVerdict:
    """`secaggplus_mod`: the server sees sums."""
    del run
    return replace(
        unjudged(stated),
        standing="heuristic",
        reasons=(
            "the server sees the sum of all clients and no single update; the sum itself has no "
            "noise, and no ε",
        ),
        outside=(Gap("metrics", "they travel in clear"),),
        changes=("add noise on the clients before the sum, if an ε is asked for",),
    )
