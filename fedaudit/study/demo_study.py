"""The studies of `fedaudit demo`: federations of real, public faces, and of nobody's, in color.

Two sets, two pages: forty people calibrate a false match rate of 1e-3, and ten who do not exist may
be shown to anybody. No file that they use bars commercial use.
"""

from fedaudit.core.scenario import Choice, Federation, Scenario, Study, with_keys

SUBSPACE = Choice("subspace_matching", {"steps": 80, "polish": 4})
"""Half of the defaults' steps, so that all fits in minutes."""
DEFENSES = (
    Choice("none"),
    Choice("dpsgd", {"noise_multiplier": 1.0, "max_grad_norm": 1.0}),
    # A head of ten people has no groups of hundreds; these settings release a center or two.
    Choice("dplc", {"radius": 1.5, "min_size": 3}),
    Choice("private_projector"),
)
FEDAVG = Choice("fedavg")
ROUNDS = 20
"""By which training is shown to help people that it never saw (`docs/benchmarks.md`)."""
COLOR_ROUNDS = 8
CONTEXT = "honest-but-curious server: it sees each client's update before it is averaged"


def study(quick: bool) -> Study:
    """The demo's study of 40 real people; `quick` is too small to conclude from, and says so."""
    fresh = Scenario(
        "fresh", method=FEDAVG, targets=2 if quick else 6, defenses=DEFENSES, attacks=(SUBSPACE,)
    )
    late = Scenario(
        "trained",
        method=FEDAVG,
        round=ROUNDS + 1,
        targets=1 if quick else 4,
        attacks=(SUBSPACE,),
    )
    batch = Scenario("batch-4", method=FEDAVG, batch_size=4, targets=2, attacks=(SUBSPACE,))
    return Study(
        name="demo-quick" if quick else "demo",
        description="Real faces (AT&T/ORL, 40 people, public research data) at 32×32 pixels. "
        "Clients train a face network; the server attacks their updates. Color faces at 64×64 "
        "pixels through a stock network have a page of their own, beside this one.",
        scenarios=(fresh, late) if quick else (fresh, late, batch),
        size=32,
        federation=with_keys(Federation(clients=3, rounds=ROUNDS), {"lr": 0.05}),
        utility=not quick,
        utility_seeds=1,  # three took a quarter of the demo's time; the page says "one training"
        release_context=CONTEXT,
        underpowered=quick,
        deployed=("none",),
    )


def color_study(quick: bool) -> Study:
    """The demo's color faces at 64 px through torchvision's ResNet-18; for looking at.

    Ten people calibrate no strict false match rate, and one update shows none: the page says so.
    The audited client fine-tunes with its batch norm fixed, as one photo has no statistics.
    """

    def audited(name: str, round: int, targets: int) -> Scenario:
        return with_keys(
            Scenario(
                name,
                network=Choice("torchvision:resnet18"),
                method=FEDAVG,
                round=round,
                targets=targets,
                attacks=(SUBSPACE,),
            ),
            {"batch_norm": "eval"},
        )

    late = audited("trained", COLOR_ROUNDS + 1, 1)
    return Study(
        name="demo-color-quick" if quick else "demo-color",
        description="Faces of ten people who do not exist (OpenPeople) at 64×64 pixels, in color. "
        "Clients train torchvision's ResNet-18; the server attacks their updates. Too few people "
        "to state a rate: the page beside this one, of 40 real people, has the rates.",
        scenarios=(late,) if quick else (late, audited("fresh", 1, 1)),
        data=Choice("openpeople"),
        size=64,
        federation=with_keys(
            Federation(clients=2, rounds=COLOR_ROUNDS, held_out=2, photos=12), {"lr": 0.05}
        ),
        utility=False,
        release_context=CONTEXT,
        underpowered=True,
        deployed=("none",),
    )
