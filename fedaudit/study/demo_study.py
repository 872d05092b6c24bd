"""The studies of `fedaudit demo`: small federations of real, public faces."""

from fedaudit.core.scenario import Choice, Federation, Scenario, Study, with_keys

GRADIENT = Choice("inverting_gradients", {"steps": 160, "restarts": 1})
"""Fewer steps than the defaults, so that all fits in minutes."""
SUBSPACE = Choice("subspace_matching", {"steps": 80, "polish": 4})
"""Half of the defaults' steps, which are for larger pictures."""
DEFENSES = (
    Choice("none"),
    Choice("dpsgd", {"noise_multiplier": 1.0, "max_grad_norm": 1.0}),
    # A head of ten people has no groups of hundreds; these settings release a center or two.
    Choice("dplc", {"radius": 1.5, "min_size": 3}),
    Choice("private_projector"),
)
ROUNDS = 20
"""By which training is shown to help people that it never saw (`docs/benchmarks.md`)."""
CONTEXT = "honest-but-curious server: it sees each client's update before it is averaged"


def study(quick: bool) -> Study:
    """The demo's study; `quick` is too small to conclude from, and says so."""
    fedavg = Choice("fedavg")
    fresh = Scenario(
        "fresh", method=fedavg, targets=2 if quick else 6, defenses=DEFENSES, attacks=(SUBSPACE,)
    )
    trained = Scenario(
        "trained",
        method=fedavg,
        round=ROUNDS + 1,
        targets=1 if quick else 4,
        attacks=(SUBSPACE, GRADIENT),
    )
    pooled = Scenario(
        "pooled",
        network=Choice("face_pooled"),
        method=fedavg,
        targets=4,
        attacks=(SUBSPACE, GRADIENT),
    )
    batch = Scenario("batch-4", method=fedavg, batch_size=4, targets=2, attacks=(SUBSPACE,))
    return Study(
        name="demo-quick" if quick else "demo",
        description="Real faces (AT&T/ORL, 40 people, public research data) at 32×32 pixels. "
        "Clients train a face network; the server attacks their updates.",
        scenarios=(fresh, trained) if quick else (fresh, trained, pooled, batch),
        size=32,
        federation=with_keys(Federation(clients=3, rounds=ROUNDS), {"lr": 0.05}),
        utility=not quick,
        release_context=CONTEXT,
        underpowered=quick,
        deployed=("none",),
    )
