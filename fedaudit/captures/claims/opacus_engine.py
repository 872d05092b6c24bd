"""DP-SGD by Opacus' `PrivacyEngine`: what its settings give over all rounds of a federation."""

import math
from dataclasses import replace

from fedaudit.captures.claims.claim_verdict import ClaimVerdict
from fedaudit.captures.claims.gaussian_claims import CLOSE, EXACT, gaussian_epsilon
from fedaudit.captures.claims.stated_mechanism import RunSize, StatedMechanism
from fedaudit.captures.claims.verdict_parts import (
    COUNTS_AND_METRICS,
    delta_reasons,
    missing_of,
    unjudged,
)
from fedaudit.core.claims import Claim, Spending, epsilon
from fedaudit.core.errors import ConfigError
from fedaudit.defenses.accounting import epsilon_of, noise_for


def make_private(stated: StatedMechanism, run: RunSize) -> ClaimVerdict:
    """`make_private` and `make_private_with_epsilon`, one engine a round on each client."""
    has_target = stated.name == "make_private_with_epsilon"
    needs = ("target_epsilon", "target_delta", "epochs") if has_target else ("noise_multiplier",)
    missing = [*missing_of(stated, *needs, "max_grad_norm")]
    size = {
        "number of rounds (--rounds)": run.rounds,
        "images of a client (--images)": run.images,
        "batch size (--batch-size)": run.batch_size,
    }
    epochs = int(stated.number("epochs") or run.epochs or 0)
    size |= {"epochs of a round (--epochs)": epochs}
    missing += [name for name, value in size.items() if not value]
    claim = stated.number("target_epsilon")
    delta = stated.number("target_delta") or run.delta
    base = replace(unjudged(stated), claimed=claim, outside=COUNTS_AND_METRICS)
    if missing or not (run.rounds and run.images and run.batch_size):
        return replace(
            base,
            reasons=("ε is for a number of steps, a sampling rate and a δ, and not all are known",),
            missing=tuple(missing),
            changes=(f"state {', '.join(missing)}",),
        )
    per_epoch = math.ceil(run.images / run.batch_size)
    rate, steps = 1 / per_epoch, per_epoch * epochs
    try:
        noise = stated.number("noise_multiplier")
        if noise is None:
            noise = noise_for(claim or 0, delta, steps=steps, sample_rate=rate, accountant="rdp")
    except (ConfigError, ValueError) as error:
        return replace(base, standing="contradicted", reasons=(str(error),))
    poisson = stated.settings.get("poisson_sampling", True) is not False
    claims = [
        _claim(stated, noise, delta, rounds, steps=steps, epochs=epochs, rate=rate, poisson=poisson)
        for rounds in (1, run.rounds)
    ]
    rdp = epsilon_of(((noise, rate, steps),), delta, "rdp")
    reasons = list(delta_reasons(delta, run.images, "image"))
    changes = []
    fails = bool(reasons)
    if noise == 0:
        reasons.append("noise_multiplier = 0: gradients are clipped, and nothing is added")
        changes.append("set noise_multiplier, or make_private_with_epsilon")
    elif not poisson and claims[0].epsilon > rdp * CLOSE:
        fails = True
        reasons.append(
            f"poisson_sampling is off, and Opacus' accountant counts as if it were on: it says "
            f"{rdp:.3g} a round, and shuffled batches give {epsilon(claims[0])}"
        )
        changes.append("leave poisson_sampling on")
    if run.rounds > 1:
        once = f"ε = {claim:g} is" if claim else "what its accountant says is"
        reasons.append(
            f"{once} for one engine. Clients make a new one in each round, and {run.rounds} rounds "
            f"on the same images give {epsilon(claims[1])}"
        )
        if has_target:
            changes.append("ask for the ε of all rounds: epochs = epochs of all rounds together")
    if "target_delta" not in stated.settings:
        reasons.append(f"δ is not stated; ε is given at δ = {delta:g}")
    return replace(
        base,
        standing="heuristic" if noise == 0 else "contradicted" if fails else "guarantee",
        a_round=(claims[0],) if noise else (),
        over_rounds=(claims[1],) if noise else (),
        reasons=tuple(reasons),
        missing=() if "target_delta" in stated.settings else ("δ",),
        changes=tuple(changes),
    )


def _claim(
    mechanism: StatedMechanism,
    noise: float,
    delta: float,
    rounds: int,
    *,
    steps: int,
    epochs: int,
    rate: float,
    poisson: bool,
) -> Claim:
    """ε for one image. Shuffled batches take each image once an epoch, and amplify nothing."""
    if poisson:
        of_all_rounds = epsilon_of(((noise, rate, steps * rounds),), delta, "rdp")
        spending, accountant = Spending("gaussian", steps * rounds, noise, rate), "opacus rdp"
    else:
        of_all_rounds = gaussian_epsilon(noise, epochs * rounds, delta)
        spending, accountant = Spending("gaussian", epochs * rounds, noise), EXACT
    return Claim(
        epsilon=of_all_rounds,
        delta=delta,
        unit="image",
        neighbors="add or remove one",
        covers=("update",),
        rounds=rounds,
        mechanism="DP-SGD (Opacus)",
        settings={"C": mechanism.number("max_grad_norm") or 0.0, "σ": noise},
        accountant=accountant,
        sampling=f"Poisson sampling of images, q = {rate:.3g}"
        if poisson
        else "shuffled batches, each image once an epoch",
        stage="training",
        spendings=(spending,),
    ).without(*COUNTS_AND_METRICS)
