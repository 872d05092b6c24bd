"""Every attack on every network that people use: it runs, or says in one error why not."""

import sys
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
import torch

from fedaudit.attacks.evidence.labels.infer import infer_labels
from fedaudit.attacks.malicious.block import FRONT, BehindBlock, Block
from fedaudit.core.registry import names

sys.path.insert(0, str(Path(__file__).parent))
from client_training import LOOPS, photos, train_client
from matrix_cases import REFUSALS, SETTINGS, Case, run_case
from small_networks import CLASSES, SHAPE
from stock_networks import NETWORKS, build_seeded


def covering() -> list[Case]:
    """Every attack on every network, and each pair of network, loop and batch at least once."""
    turns = list(product(LOOPS, (1, 4)))
    cases = []
    for number, (attack, network) in enumerate(product(SETTINGS, NETWORKS)):
        for step in range(len(turns)):
            loop, batch = turns[(number + number // len(NETWORKS) + step) % len(turns)]
            case = Case(attack, network, loop, batch)
            if case.possible:
                cases.append(case)
                break
    return cases


QUICK = [
    Case("grad_inversion", "iresnet_arcface", "gradient", 4),
    Case("inverting_gradients", "mobile_face", "gradient", 4),
    Case("idlg", "unused_layer", "adam", 4),
    Case("grad_inversion", "dropout_depth", "epochs", 4),
    Case("gifd", "vit", "gradient", 1),
    Case("fishing", "vit", "gradient", 4),
    Case("subspace_matching", "lora", "gradient", 1),
]
"""What crashed, and takes little time."""


def check(case: Case) -> None:
    """It runs and is sound, or its one error is a sentence that says why."""
    before, result, refused = torch.get_rng_state(), None, ""
    try:
        result = run_case(case)
    except REFUSALS as error:
        refused = str(error)
    assert torch.equal(before, torch.get_rng_state())
    if result is None:
        assert len(refused) > 40
        assert "\n" not in refused
        return
    assert result.images.shape == (case.batch, *SHAPE)
    assert bool(result.images.isfinite().all())
    assert result.labels.shape == (case.batch,)
    assert int(result.labels.min()) >= -1
    assert int(result.labels.max()) < CLASSES


def test_every_attack_has_settings() -> None:
    assert set(SETTINGS) == set(names("attacks"))


@pytest.mark.parametrize("case", QUICK, ids=str)
def test_what_once_crashed(case: Case) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("attack", SETTINGS)
def test_runs_or_says_why(attack: str) -> None:
    for case in covering():
        if case.attack == attack:
            check(case)


def test_labels_of_a_bare_margin_head_in_either_mode_of_batch_norm() -> None:
    """All of them in evaluation mode; where the embeddings have no mean, more than chance gives."""
    right = {"train": 0, "eval": 0}
    for mode, seed in product(right, range(3)):
        network = NETWORKS["mobile_face"]
        labels, model = torch.tensor([1, 3, 3, 7]), build_seeded(network, seed)
        model.train(mode == "train")
        update = train_client(model, network, None, photos(4, seed), labels)
        found = infer_labels(model, update, 4, SHAPE)
        assert found is not None
        right[mode] += (Counter(found.tolist()) & Counter(labels.tolist())).total()
    assert right["eval"] == 12
    assert right["train"] >= 7


def test_what_an_attack_does_without_is_said_in_its_result() -> None:
    said = run_case(Case("inverting_gradients", "dropout_depth", "gradient", 1)).unused
    assert any("'depth' and 1 more drew" in one for one in said)
    said = run_case(Case("idlg", "unused_layer", "adam", 4)).unused
    assert any("'unused.bias' and 1 more stayed as sent" in one for one in said)
    assert run_case(Case("idlg", "unused_layer", "gradient", 4)).unused == ()
    said = run_case(Case("subspace_matching", "dropout_depth", "gradient", 1)).unused
    assert any("'depth' and 1 more drew" in one for one in said)
    said = run_case(Case("subspace_matching", "unused_layer", "adam", 4)).unused
    assert any("'unused.bias' and 1 more stayed as sent" in one for one in said)
    assert run_case(Case("subspace_matching", "resnet18_eval", "gradient", 1)).unused == ()


@pytest.mark.parametrize("network", ["dropout_depth", "vit"])
def test_what_clients_draw_does_not_make_attacks_random(network: str) -> None:
    case = Case("inverting_gradients", network, "gradient", 1)
    assert torch.equal(run_case(case).images, run_case(case).images)


@pytest.mark.parametrize("attack", ["imprint", "trap_weights"])
@pytest.mark.parametrize("network", ["resnet18", "vit"])
def test_a_block_in_front_of_a_stock_network_is_read(
    attack: str, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTINGS, attack, {"bins" if attack == "imprint" else "rows": 256})
    result = run_case(Case(attack, network, "gradient", 4))
    apart = (photos(4)[:, None] - result.images[None]).square().mean((2, 3, 4)).min(1).values
    assert int((apart < 1e-6).sum()) >= 3
    model = build_seeded(NETWORKS[network])
    behind = BehindBlock(model, Block(SHAPE, 4, "relu"))
    names = {name for name, _ in behind.named_parameters()}
    assert names - {name for name, _ in model.named_parameters()} == {
        f"{FRONT}.{name}" for name in ("read.weight", "read.bias", "write.weight")
    }
