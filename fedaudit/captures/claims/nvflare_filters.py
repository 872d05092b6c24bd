"""NVFlare's filters of what clients send: what each of them gives (2.9)."""

import math
from dataclasses import replace

from fedaudit.captures.claims.claim_verdict import ClaimVerdict
from fedaudit.captures.claims.stated_mechanism import RunSize, StatedMechanism
from fedaudit.captures.claims.verdict_parts import COUNTS_AND_METRICS, unjudged
from fedaudit.core.claims import Claim, Gap, Spending

SCALARS = Gap("scalars", "single numbers, such as batch-norm counters, pass as they are")
STEPS = Gap("counts", "the exact number of local steps travels in clear")
BESIDE = (STEPS, COUNTS_AND_METRICS[1])


def svt_privacy(stated: StatedMechanism, run: RunSize) -> ClaimVerdict:
    """`SVTPrivacy`: noisy values of a share of all numbers, each of them clipped to ±γ.

    Its own ledger adds ε of the selection and ε of the release, which is `noise_var` for each
    number that is sent unless `epsilon_release` is set. Everything that it does is scaled to γ, so
    that the sum holds for replacing all data of a client. What it does beyond the sparse vector
    technique of Lyu, Su & Li (VLDB 2017, algorithm 1): it goes on until enough numbers have passed,
    and a pass may accept more than it accounts for.
    """
    selection = stated.number("epsilon", 0.1)
    each, whole = stated.number("noise_var", 0.1), stated.number("epsilon_release")
    share, gamma = stated.number("fraction", 0.1), stated.number("gamma", 1e-5)
    outside = (SCALARS, *BESIDE)
    base = replace(unjudged(stated), claimed=selection, outside=outside)
    if not (selection and share and gamma and (whole or each)) or (
        whole is None and "epsilon_release" in stated.unread
    ):
        return replace(
            base,
            missing=("epsilon, noise_var, fraction, gamma (above 0)",),
            reasons=("its ε cannot be worked out without what is missing",),
        )
    if whole is None and run.parameters is None:
        return replace(
            base,
            standing="contradicted",
            reasons=(
                f"epsilon = {selection:g} is for the choice of what is sent alone. Sending it "
                f"costs {each:g} more for each number: "
                f"{selection + (each or 0) * share * 1e6:,.0f} a round for each million parameters",
            ),
            missing=("number of parameters (--parameters)", *_rounds(run)),
            changes=_svt_changes(selection),
        )
    count = None if run.parameters is None else math.ceil(run.parameters * share)
    release = whole if whole is not None else (each or 0) * (count or 0)
    total = selection + release
    a_round = Claim(
        epsilon=total,
        delta=0.0,
        unit="client",
        neighbors="replace one",
        covers=("update",),
        mechanism="NVFlare SVTPrivacy",
        settings={"γ": gamma, "sent": float(count or 0)},
        accountant="its own ledger: basic composition",
        sampling="every client in every round",
        spendings=(Spending("stated", 1, epsilon=total),),
    ).without(*outside)
    over = replace(a_round, epsilon=total * run.rounds, rounds=run.rounds) if run.rounds else None
    reasons = [
        f"epsilon = {selection:g} is for the choice of what is sent alone; with the values that "
        f"are sent a round spends {total:,.6g}"
    ]
    if count and release:
        noise = 2 * count / release
        bound = math.sqrt(share / (1 + 2 * noise**2))
        if noise > 1:
            reasons.append(
                f"and yet little of the update is left: noise of scale {noise:.3g}·γ on values of "
                f"at most γ, for {share:.0%} of the numbers. The cosine with the true update is "
                f"expected to be at most {bound:.2g}"
            )
    reasons.append(
        "a pass may accept more numbers than it accounts for, which costs more than is counted"
    )
    return replace(
        base,
        standing="contradicted" if total > selection * 1.001 else "guarantee",
        a_round=(a_round,),
        over_rounds=(over,) if over else (),
        reasons=tuple(reasons),
        missing=_rounds(run),
        changes=_svt_changes(selection),
    )


def _rounds(run: RunSize) -> tuple[str, ...]:
    return () if run.rounds else ("number of rounds (--rounds)",)


def _svt_changes(selection: float) -> tuple[str, ...]:
    return (
        "call it no differential privacy, or train with DP-SGD (Opacus) on the clients",
        f"if it stays, state epsilon_release, and quote the sum with epsilon = {selection:g}",
    )


def percentile_privacy(stated: StatedMechanism, run: RunSize) -> ClaimVerdict:
    """`PercentilePrivacy`: drops small values and cuts large ones (Shokri & Shmatikov 2015)."""
    del run
    percentile, gamma = stated.number("percentile", 10), stated.number("gamma", 0.01)
    label = f"labeled {stated.label!r}, and it is none: " if stated.label else ""
    about = (
        f"the smallest {percentile:g} % become 0 and the rest is cut at ±{gamma:g}"
        if percentile is not None and gamma is not None
        else "small values become 0 and large ones are cut"
    )
    return replace(
        unjudged(stated),
        standing="heuristic",
        reasons=(f"{label}{about}. Nothing is random, so there is no ε, whatever the settings",),
        outside=(SCALARS, *BESIDE),
        changes=(
            *(("take the words off: it is no differential privacy",) if stated.label else ()),
            "train with DP-SGD (Opacus) on the clients if a guarantee is asked for",
        ),
    )


def exclude_vars(stated: StatedMechanism, run: RunSize) -> ClaimVerdict:
    """`ExcludeVars`: some layers stay on the device."""
    del run
    layers = stated.settings.get("exclude_vars")
    if not layers:
        why = "it names no layer, so that everything is sent"
    else:
        names = ", ".join(layers[:4]) if isinstance(layers, tuple) else str(layers)
        why = f"{names} stay on the device; what is sent has no noise"
    return replace(
        unjudged(stated),
        standing="heuristic",
        reasons=(_label(stated) + why,),
        outside=(Gap("update", "all other layers are sent as they are"), *BESIDE),
        changes=("audit what is still sent: fedaudit audit",),
    )


def homomorphic_encryption(stated: StatedMechanism, run: RunSize) -> ClaimVerdict:
    """`HEModelEncryptor`: the server adds up what it cannot read."""
    del run
    layers = stated.settings.get("encrypt_layers")
    partly = layers is not None or "encrypt_layers" in stated.unread
    reasons = [
        _label(stated) + "it hides each update from a server without the key; every client can "
        "read the sum, which has no noise, and no ε"
    ]
    outside = [*BESIDE]
    if partly:
        some = ", ".join(layers[:3]) if isinstance(layers, tuple) else str(layers or "?")
        reasons.append(f"it encrypts {some} alone")
        outside.insert(0, Gap("update", "layers that are not encrypted travel in clear"))
    return replace(
        unjudged(stated),
        standing="heuristic",
        reasons=tuple(reasons),
        outside=tuple(outside),
        changes=(
            *(("encrypt all layers",) if partly else ()),
            "add noise on the clients before encryption, if an ε is asked for",
        ),
    )


def other_filter(stated: StatedMechanism, run: RunSize) -> ClaimVerdict:
    """A filter of which nothing is known: it may do anything."""
    del run
    return replace(
        unjudged(stated),
        reasons=(_label(stated) + "it is none that fedaudit knows: not tested",),
        missing=("mechanism, clipping, noise",),
        changes=("state mechanism, C, σ, unit, δ in the recording (DpClaim)",),
    )


def _label(mechanism: StatedMechanism) -> str:
    return f"labeled {mechanism.label!r}: " if mechanism.label else ""
