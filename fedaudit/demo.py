"""The studies of `fedaudit demo`: small federations of real, public faces."""

from fedaudit.config import Choice, Federation, Scenario, Study

ATTACKS = (Choice("inverting_gradients"), Choice("gan_inversion"))
DEFENSES = (
    Choice("none"),
    Choice("dpsgd", {"noise_multiplier": 1.0, "max_grad_norm": 1.0}),
    Choice("dplc"),
    Choice("private_projector"),
)
CONTEXT = "honest-but-curious server: it sees each client's update before it is averaged"


def study(quick: bool) -> Study:
    """The demo's study; `quick` is too small to conclude from, and says so."""
    fedavg = Choice("fedavg")
    fresh = Scenario(
        "fresh", method=fedavg, targets=3 if quick else 8, defenses=DEFENSES, attacks=ATTACKS
    )
    trained = Scenario(
        "trained",
        method=fedavg,
        round=7,
        targets=2 if quick else 4,
        attacks=ATTACKS,
    )
    pooled = Scenario(
        "pooled",
        network=Choice("face_pooled"),
        method=fedavg,
        targets=4,
        attacks=(Choice("gan_inversion"),),
    )
    batch = Scenario("batch-4", method=fedavg, batch_size=4, targets=2, attacks=ATTACKS)
    return Study(
        name="demo-quick" if quick else "demo",
        description="Real faces (AT&T/ORL, 40 people, public research data) at 32×32 pixels. "
        "Clients train a face network; the server attacks their updates.",
        scenarios=(fresh, trained) if quick else (fresh, trained, pooled, batch),
        size=32,
        federation=Federation(rounds=2 if quick else 6),
        utility=not quick,
        release_context=CONTEXT,
        underpowered=quick,
    )
