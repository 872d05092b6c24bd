"""Claims composed over rounds, chains and clients, against dp-accounting and by hand."""

import json
import math
from dataclasses import replace
from typing import Any, Literal

import dp_accounting
import jsonschema
import pytest
import torch
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.rdp import RdpAccountant
from pydantic import TypeAdapter

from fedaudit.core.claims import Claim, Gap, Spending, in_short, in_words, origin, worst
from fedaudit.core.client import ClientReturn
from fedaudit.core.shared import Aggregate, Buffers, ClusterCenters, MaskedVectors, Update
from fedaudit.defenses.accounting import Accountant, epsilon_of, laplace_epsilon
from fedaudit.defenses.client_dp import ClientDP
from fedaudit.defenses.composition import (
    PrivacyLedger,
    close_claims,
    over_rounds,
    releasing,
    sum_claims,
    together,
    with_claim,
)
from fedaudit.defenses.dplc import DPLC

ORDERS = [1 + x / 10 for x in range(1, 100)] + [float(x) for x in range(12, 64)]
UPDATE = Update("delta", {"w": torch.ones(2)}, 3)
CENTERS = ClusterCenters(torch.eye(2), 0.5)


def gaussian(
    noise: float,
    sampling: float = 1.0,
    runs: int = 1,
    delta: float = 1e-5,
    accountant: Accountant = "rdp",
    **changes: Any,
) -> Claim:
    claim = Claim(
        epsilon=epsilon_of(((noise, sampling, runs),), delta, accountant),
        delta=delta,
        unit="image",
        neighbors="add or remove one",
        covers=("update",),
        mechanism="DP-SGD",
        accountant=f"opacus {accountant}",
        stage="training",
        spendings=(Spending("gaussian", runs, noise, sampling),),
    )
    return replace(claim, **changes)


def stated(epsilon: float, delta: float = 1e-6) -> Claim:
    """Of which nothing is known but its (ε, δ)."""
    return replace(
        gaussian(1.0),
        epsilon=epsilon,
        delta=delta,
        accountant="somebody",
        spendings=(Spending("stated", 1, epsilon=epsilon, delta=delta),),
    )


# --- over rounds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 10])
@pytest.mark.parametrize(
    "parts", [[(1.0, 1.0, 1)], [(4.0, 0.5, 3), (0.9, 1.0, 1)], [(2.0, 0.1, 8), (2.0, 0.5, 8)]]
)
def test_rounds_compose_as_dp_accounting_composes_them(
    parts: list[tuple[float, float, int]], rounds: int
) -> None:
    """Other noise, sampling and steps in every other round, over and over."""
    made = [(gaussian(*part),) for part in parts]
    (whole,) = over_rounds(made * rounds)
    accountant = RdpAccountant(ORDERS)
    for noise, rate, steps in parts:
        event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
        accountant.compose(dp_accounting.SelfComposedDpEvent(event, steps * rounds))
    assert whole.epsilon == pytest.approx(float(accountant.get_epsilon(1e-5)), rel=2e-2)
    assert (whole.delta, whole.rounds) == (1e-5, rounds * len(parts))
    assert whole.accountant == "opacus rdp"
    assert whole.epsilon <= sum(claim.epsilon for (claim,) in made) * rounds + 1e-9


@pytest.mark.parametrize("rounds", [1, 3, 200])
def test_laplace_rounds_take_the_better_of_two_theorems(rounds: int) -> None:
    once = ClientDP(noise_multiplier=8.0, mechanism="laplace").claim
    (whole,) = over_rounds([(once,)] * rounds)
    assert (whole.epsilon, whole.delta) == laplace_epsilon(4.0, 1e-5, rounds)
    tight = privacy_loss_distribution.from_laplace_mechanism(
        4.0, value_discretization_interval=1e-3
    ).self_compose(rounds)
    assert tight.get_epsilon_for_delta(1e-5) <= whole.epsilon + 1e-3 * rounds
    assert (whole.epsilon < rounds / 4) == (rounds == 200)


def test_what_is_known_only_as_stated_adds_up() -> None:
    once = DPLC(epsilon=0.5, delta=1e-6).claim(2)
    (whole,) = over_rounds([(once,)] * 7)
    assert whole.epsilon == pytest.approx(7 * 2 * 0.5)
    assert whole.delta == pytest.approx(7 * 2 * 1e-6)
    assert whole.spendings == (Spending("stated", 14, epsilon=0.5, delta=1e-6),)
    assert whole.accountant.count("basic composition of") == 1
    assert whole.gaps == once.gaps


def test_a_round_of_several_counts_as_many() -> None:
    (whole,) = over_rounds([(gaussian(2.0, rounds=3),), (gaussian(2.0),)])
    assert whole.rounds == 4
    (unknown,) = over_rounds([(gaussian(2.0, rounds=None),), (gaussian(2.0),)])
    assert unknown.rounds is None
    assert over_rounds([]) == over_rounds([(), ()]) == ()
    (late,) = over_rounds([(), (gaussian(2.0),)])  # in the first nothing was released
    assert late.rounds == 2


# --- side by side ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other", [{"unit": "client"}, {"neighbors": "replace one"}, {"unit": "", "neighbors": ""}]
)
def test_other_units_and_neighbors_are_never_added(other: dict[str, Any]) -> None:
    two = together((gaussian(1.0), gaussian(1.0, **other)))
    assert [claim.epsilon for claim in two] == [gaussian(1.0).epsilon] * 2
    assert len(over_rounds([two] * 3)) == 2


def test_mechanisms_of_one_accountant_share_their_delta_and_others_add_theirs() -> None:
    (both,) = together((gaussian(2.0), gaussian(3.0)))
    assert both.epsilon == epsilon_of(((2.0, 1.0, 1), (3.0, 1.0, 1)), 1e-5, "rdp")
    assert both.delta == 1e-5
    for other in (stated(0.5, 1e-5), gaussian(3.0, delta=1e-6), gaussian(3.0, spendings=())):
        (mixed,) = together((gaussian(2.0), other))
        assert mixed.epsilon == pytest.approx(gaussian(2.0).epsilon + other.epsilon)
        assert mixed.delta == pytest.approx(1e-5 + other.delta)
        assert mixed.accountant.startswith("basic composition of")
    (prv,) = together((gaussian(2.0), gaussian(3.0, accountant="prv")))
    assert prv.accountant == "basic composition of opacus rdp, opacus prv"


def test_no_noise_anywhere_is_no_guarantee() -> None:
    for other in (gaussian(0.0), stated(math.inf)):
        (both,) = together((gaussian(2.0), other))
        assert both.epsilon == math.inf


# --- scope ----------------------------------------------------------------------------------------


def test_a_joint_claim_covers_what_no_part_leaves_out() -> None:
    first = gaussian(2.0, covers=("update", "clipped_bit"))
    second = gaussian(2.0, covers=("class_embeddings",), gaps=(Gap("update", "in clear"),))
    (both,) = together((first, second))
    assert both.covers == ("clipped_bit", "class_embeddings")
    assert both.gaps == second.gaps
    (rounds,) = over_rounds([(first,), (first.without(Gap("update", "soteria reads it")),)])
    assert rounds.covers == ("clipped_bit",)  # one bad round is enough


@pytest.mark.parametrize("other", ["training", "sending"])
def test_a_joint_claim_reaches_the_weights_only_where_all_noise_is_in_training(
    other: Literal["training", "sending"],
) -> None:
    (both,) = together((gaussian(2.0), gaussian(2.0, stage=other)))
    assert both.stage == other
    (later,) = releasing(ClientReturn((), claims=(both,)), CENTERS).claims
    assert ("cluster_centers" in later.covers) == (other == "training")


def test_a_broken_claim_has_no_epsilon_on_any_page() -> None:
    broken = gaussian(2.0).without(Gap("update", "soteria reads the photos after the noise"))
    assert broken.broken
    for words in (in_words(broken), in_short((broken,))):
        assert "broken" in words
        assert "ε =" not in words
        assert "image" in words
    assert "soteria" in in_words(broken)


def test_every_epsilon_has_unit_rounds_and_scope_beside_it() -> None:
    claim = replace(gaussian(2.0), gaps=(Gap("counts", "in clear"), Gap("counts", "twice")))
    for words in (in_words(claim), in_short((claim,))):
        for part in (f"ε = {claim.epsilon:.3g}", "image", "1 round", "update", "counts"):
            assert part in words
    assert in_words(claim).count("counts") == 1
    assert in_short(()) == "heuristic"
    assert "opacus rdp" in origin(claim)
    nameless = replace(claim, unit="", neighbors="", rounds=None, sampling="")
    assert "not stated" in in_words(nameless)
    assert nameless.missing == ("unit", "neighbor relation", "sampling", "number of rounds")


def test_the_two_forms_of_a_claim_word_by_word() -> None:
    claim = gaussian(2.0, epsilon=4.734, gaps=(Gap("counts", "in clear"), Gap("labels", "granted")))
    assert in_short((claim, replace(claim, unit="client", rounds=3, epsilon=math.inf))) == (
        "ε = 4.73, δ = 1e-05, per image, 1 round, covers update, not counts, labels; "
        "ε = ∞, δ = 1e-05, per client, 3 rounds, covers update, not counts, labels"
    )
    assert in_words(claim) == (
        "ε = 4.73, δ = 1e-05 for one image (add or remove one), 1 round, of: update; "
        "not covered: counts (in clear), labels (granted)"
    )
    known = replace(claim, settings={"C": 0.5, "centers": "2"}, sampling="every round")
    assert origin(known) == "DP-SGD, C = 0.5, centers = 2; every round; opacus rdp"


@pytest.mark.parametrize("epsilon", [4.5, math.inf])
def test_a_claim_survives_json_which_knows_no_infinity(epsilon: float) -> None:
    claim = gaussian(2.0, epsilon=epsilon, gaps=(Gap("counts", "in clear"),), settings={"C": 1.0})
    adapter = TypeAdapter(Claim)
    plain = adapter.dump_python(claim, mode="json")
    assert plain["epsilon"] == (None if epsilon == math.inf else 4.5)
    text = json.dumps(plain, allow_nan=False)
    assert adapter.validate_json(text) == claim
    schema = adapter.json_schema()
    jsonschema.validate(json.loads(text), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(text), "epsilon": -0.5}, schema)


def test_a_mechanism_of_which_nothing_is_known_has_run_once_on_everybody() -> None:
    assert Spending("stated") == Spending("stated", 1, 0.0, 1.0, 0.0, 0.0)


def test_what_was_sent_and_is_not_covered_becomes_a_gap() -> None:
    buffers = Buffers({"m": torch.ones(1)}, 3)
    (claim,) = close_claims((gaussian(2.0),), (UPDATE, buffers, CENTERS), [Gap("buffers", "odd")])
    assert claim.covers == ("update",)
    whys = {gap.what: gap.why for gap in claim.gaps}
    assert list(whys) == ["buffers", "cluster_centers", "counts"]
    assert whys["buffers"] == "odd"
    (again,) = close_claims((claim,), (UPDATE, buffers, CENTERS))
    assert again == claim
    silent = replace(UPDATE, examples=None)
    assert close_claims((gaussian(2.0),), (silent,))[0].gaps == ()
    # Whoever replaces one image leaves their number as it is.
    assert close_claims((gaussian(2.0, neighbors="replace one"),), (UPDATE,))[0].gaps == ()


def test_noise_in_training_covers_what_is_computed_of_the_weights() -> None:
    sending = gaussian(2.0, stage="sending", unit="client")
    returned = releasing(ClientReturn((UPDATE,), claims=(gaussian(2.0), sending)), CENTERS)
    images, clients = returned.claims
    assert images.covers == ("update", "cluster_centers")
    assert clients.covers == ("update",)
    assert returned.of_weights == ("cluster_centers",)
    assert returned.shared == (UPDATE, CENTERS)


# --- several clients ------------------------------------------------------------------------------


def test_the_worst_client_speaks_for_all() -> None:
    mild, weak = gaussian(4.0), gaussian(0.7, gaps=(Gap("buffers", "in clear"),))
    odd = gaussian(9.0, unit="client")
    assert worst([(mild,), (weak, odd), (mild,)]) == (weak, odd)
    broken = mild.without(Gap("update", "read"))
    (shown,) = worst([(weak,), (broken,)])
    assert shown.broken
    assert {gap.what for gap in shown.gaps} == {"buffers", "update"}


def test_a_ledger_composes_each_client_and_takes_the_weakest() -> None:
    ledger = PrivacyLedger()
    for _ in range(5):
        for client, noise in enumerate((4.0, 1.5, 4.0)):
            ledger.add(client, with_claim(ClientReturn((UPDATE,)), gaussian(noise)))
    (claim,) = ledger.weakest()
    assert claim.epsilon == epsilon_of(((1.5, 1.0, 5),), 1e-5, "rdp")
    assert claim.rounds == 5
    assert [gap.what for gap in claim.gaps] == ["counts"]


def test_behind_a_secure_sum_is_the_weakest_client() -> None:
    claims = [(gaussian(4.0),), (gaussian(1.0).without(Gap("class_embeddings", "in clear")),)]
    (shown,) = sum_claims(claims, ())
    assert shown.covers == ("aggregate",)
    assert shown.epsilon == gaussian(1.0).epsilon
    assert [gap.what for gap in shown.gaps] == ["summed_rows"]


def test_masks_are_covered_wherever_the_sum_is() -> None:
    masks, total = MaskedVectors(torch.zeros(2, 3)), Aggregate("delta", {}, (1.0, 1.0))
    (shown,) = sum_claims([(gaussian(4.0),)], (total, masks))
    assert shown.covers == ("aggregate", "masked_vectors")
    broken = gaussian(4.0).without(Gap("update", "read"))
    assert sum_claims([(broken,)], (total, masks))[0].broken
