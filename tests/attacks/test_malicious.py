"""Malicious servers: what their models make clients give away, and that honest attacks stay so."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.malicious.fishing import NOTHING_FISHED, Fishing
from fedaudit.attacks.malicious.imprint import Imprint
from fedaudit.attacks.malicious.trap_weights import TrapWeights
from fedaudit.core.capture import Capture
from fedaudit.core.errors import AttackError, ConfigError, KnowledgeError, UnknownNameError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create
from fedaudit.core.shared import Update
from fedaudit.core.threat_models import check_knowledge, threat_model
from fedaudit.data.face_set import FaceSet
from fedaudit.models.build_network import build, parameters_of
from fedaudit.models.facenet import criterion_of

pytestmark = pytest.mark.usefixtures("drawn_once")
Intercept = Callable[..., Capture]


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attacked(attack: Any, capture: Capture, seed: int = 0) -> tuple[Reconstruction, Tensor]:
    """The result, and for each original the PSNR of the best reconstruction, up to 120 dB."""
    assert capture.secret is not None
    result = attack(capture.seen, generator=noise(seed))
    originals, images = capture.secret.images, result.images
    error = (originals[:, None] - images[None]).square().mean((2, 3, 4)).min(1).values
    return result, -10 * error.clamp_min(1e-12).log10()


@pytest.fixture(scope="module")
def batch_of(intercept: Intercept) -> Intercept:
    """Two clients hold 30 people, so that 32 photos of 15 people are a batch."""
    return partial(intercept, threat="G")


# --- imprint ------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["face", "face_pooled", "mlp"])
def test_imprint_reads_most_of_32_faces(network: str, batch_of: Intercept) -> None:
    attack = Imprint()
    capture = batch_of(batch=32, network=network, malicious=attack)
    result, quality = attacked(attack, capture)
    assert int((quality >= 30).sum()) >= 16
    assert float(quality[quality >= 30].median()) > 60  # read, not searched
    assert 0 < result.objective < 0.5
    assert result.iterations == 0


def test_imprint_knows_whose_images_it_has(batch_of: Intercept) -> None:
    """A label is given only with an exact image, and it is that image's."""
    attack = Imprint()
    capture = batch_of(batch=32, malicious=attack)
    result, _ = attacked(attack, capture)
    assert capture.secret is not None
    known = (result.labels >= 0).nonzero().flatten()
    assert len(known) >= 12
    for i in known.tolist():
        error = (capture.secret.images - result.images[i]).square().mean((1, 2, 3))
        assert float(error.min()) < 1e-6
        assert result.labels[i] == capture.secret.labels[error.argmin()]


def test_imprint_needs_no_faces_under_a_gaussian(batch_of: Intercept) -> None:
    attack: Any = Imprint(prior="")
    usual: Any = Imprint()
    check_knowledge("imprint", attack, threat_model("F"))
    with pytest.raises(KnowledgeError, match="auxiliary"):
        check_knowledge("imprint", usual, threat_model("F"))
    capture = batch_of(batch=16, malicious=attack, threat="F")
    assert int((attacked(attack, capture)[1] >= 30).sum()) >= 8


def test_more_bins_separate_more_images(batch_of: Intercept) -> None:
    found = []
    for bins in (8, 512):
        attack = Imprint(bins=bins)
        quality = attacked(attack, batch_of(batch=32, malicious=attack))[1]
        found.append(int((quality >= 30).sum()))
    assert found[0] < 8
    assert found[1] >= 16


def test_separate_bins_stand_several_local_steps(batch_of: Intercept) -> None:
    """Cumulative rows lose images that separate ones keep."""
    training = LocalTraining(lr=0.1, steps=4, batch_size=8)
    found = {}
    for mode, strength in (("cumulative", 1e-3), ("separate", 1e-3)):
        attack = Imprint(mode=mode, strength=strength)  # type: ignore[arg-type]
        capture = batch_of(batch=32, malicious=attack, method="fedavg", training=training)
        result, quality = attacked(attack, capture)
        found[mode] = int((quality >= 30).sum())
        assert (result.labels == -1).all()  # lengths say nothing after several steps
    assert found["separate"] >= found["cumulative"]
    assert found["separate"] >= 8


# --- trap weights -------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "least"), [(4, 3), (8, 6), (32, 12)])
def test_traps_give_away_their_share(batch: int, least: int, batch_of: Intercept) -> None:
    attack = TrapWeights()
    result, quality = attacked(attack, batch_of(batch=batch, malicious=attack))
    assert int((quality >= 30).sum()) >= least
    confirmed = round((1 - result.objective) * batch)
    assert confirmed <= int((quality >= 30).sum()) + 1  # it does not claim more than it has


def test_rows_that_everybody_activates_hold_mixtures(batch_of: Intercept) -> None:
    """Without the shorter positive half there is no trap."""
    trap, none = TrapWeights(), TrapWeights(prior="", scale=0.9999)
    counts = [
        int((attacked(attack, batch_of(batch=16, malicious=attack))[1] >= 30).sum())
        for attack in (trap, none)
    ]
    assert counts[0] > counts[1]


# --- fishing ------------------------------------------------------------------------------------


def shares(attack: Fishing, spec: ModelSpec, images: Tensor, labels: Tensor) -> Tensor:
    """Each image's share in the length of the gradient below the head, by plain autograd."""
    model, before = attack.broadcast(spec, parameters_of(build(spec)), generator=noise())
    network = build(model, before).eval()
    body = [p for name, p in network.named_parameters() if not name.startswith(("head.", "fc."))]
    sizes = []
    for image, label in zip(images, labels, strict=True):
        loss = criterion_of(network)(network(image[None]), label[None])
        grads = torch.autograd.grad(loss, body)
        sizes.append(torch.stack([g.norm() for g in grads]).norm())
    lengths = torch.stack(sizes)
    return lengths / lengths.sum()


@pytest.mark.parametrize("network", ["face", "face_pooled", "small_cnn"])
def test_one_image_drowns_the_others(network: str, faces: FaceSet) -> None:
    spec = ModelSpec(network, {"classes": 40, "image_size": 32})
    people = torch.tensor([3, 8, 11, 17, 20, 25, 30, 34])
    images = faces.images[people * 10 + 2]
    assert float(shares(Fishing(), spec, images, people).max()) > 0.6
    by_class = shares(Fishing(mode="class", target_class=17), spec, images, people)
    assert int(by_class.argmax()) == 3
    assert float(by_class.max()) > 0.99
    model = build(spec)
    body = [p for name, p in model.named_parameters() if not name.startswith("head.")]
    honest = [
        torch.autograd.grad(criterion_of(model)(model(i[None]), y[None]), body)
        for i, y in zip(images, people, strict=True)
    ]
    lengths = torch.stack([torch.stack([g.norm() for g in one]).norm() for one in honest])
    assert float(lengths.max() / lengths.sum()) < 0.4


def test_fishing_reads_the_labels_and_hands_on_one_image(batch_of: Intercept) -> None:
    attack = Fishing(inverter="inverting_gradients", settings={"steps": 2})
    capture = batch_of(batch=8, malicious=attack)
    result = attack(capture.seen, generator=noise())
    assert capture.secret is not None
    assert sorted(result.labels.tolist()) == sorted(capture.secret.labels.tolist())
    assert (result.images[1:] == 0.5).all()  # it claims nothing about the others
    assert result.images[0].std() > 0


def test_fishing_brings_one_image_back(batch_of: Intercept) -> None:
    attack = Fishing(
        settings={"candidates": 64, "latent_steps": 10, "stage_steps": 20, "pixel_steps": 90}
    )
    capture = batch_of(batch=8, malicious=attack)
    result = attack(capture.seen, generator=noise())
    assert capture.secret is not None
    own = (capture.secret.images - result.images[0]).square().mean((1, 2, 3))
    fished = int(own.argmin())
    assert float(own[fished]) < 0.01  # 20 dB; some CPUs come to 0.0102 in 60 steps
    assert capture.secret.labels[fished] == result.labels[0]


@pytest.mark.slow
def test_labels_are_read_where_nearly_all_classes_are_in_the_batch(faces: FaceSet) -> None:
    spec = ModelSpec("torchvision:resnet18", {"classes": 10, "image_size": 32})
    images = faces.images[torch.arange(8) * 10].expand(-1, 3, -1, -1)
    attack = Fishing(inverter="inverting_gradients", settings={"steps": 1, "polish": 0})
    _, sent = attack.broadcast(spec, build(spec).state_dict(), generator=noise())
    network = build(spec, sent).eval()
    labels = torch.tensor([6, 0, 3, 1, 7, 2, 8, 4])  # of ten, and 9 is the fished one
    named = dict(network.named_parameters())
    loss = criterion_of(network)(network(images), labels)
    update = Update(
        "gradient",
        dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True)),
        8,
    )
    seen = Observation(spec, dict(sent), (update,), (3, 32, 32), 8, 10)
    rebuilt = attack(seen, generator=noise())
    largest = int(shares(attack, spec, images, labels).argmax())
    assert int(rebuilt.labels[0]) == int(labels[largest])
    assert sorted(rebuilt.labels.tolist()) == sorted(labels.tolist())
    mixed = replace(seen, training=LocalTraining(batch_size=8, batch_norm="train"))
    with pytest.raises(AttackError, match=r"'bn1'.*mixes all images"):
        attack(mixed, generator=noise())


@pytest.mark.slow
def test_fishing_refuses_where_no_image_stands_out() -> None:
    """An angular margin lets a part of every image through; class fishing still fishes."""
    spec = ModelSpec("iresnet18", {"classes": 40, "image_size": 32})
    honest = build(spec).state_dict()
    with pytest.raises(AttackError, match=r"chance: 12%.*cosines"):
        Fishing().broadcast(spec, honest, generator=noise())
    Fishing(mode="class").broadcast(spec, honest, generator=noise())


def test_fishing_refuses_what_diverged(batch_of: Intercept) -> None:
    attack = Fishing(inverter="inverting_gradients", settings={"steps": 2})
    seen = batch_of(batch=2, malicious=attack).seen
    update = seen.update
    assert update is not None
    tensors = {k: v if k.startswith("head.") else v / 0 for k, v in update.tensors.items()}
    diverged = replace(seen, shared=(replace(update, tensors=tensors),))
    with pytest.raises(AttackError, match="not finite"):
        attack(diverged, generator=noise())


def test_fishing_without_a_head_is_the_honest_attack(batch_of: Intercept) -> None:
    attack = Fishing(inverter="inverting_gradients", settings={"steps": 3})
    capture = batch_of(batch=2, malicious=attack, defense="private_projector")
    plain = batch_of(batch=2, defense="private_projector")
    assert all(torch.equal(capture.seen.before[k], v) for k, v in plain.seen.before.items())
    honest = create("attacks", "inverting_gradients", {"steps": 3})
    first, second = (a(capture.seen, generator=noise()) for a in (attack, honest))
    assert torch.equal(first.images, second.images)
    assert first.unused == (*second.unused, NOTHING_FISHED)  # and says so


# --- the pipeline -------------------------------------------------------------------------------


def test_the_observation_holds_the_manipulated_model(batch_of: Intercept) -> None:
    attack = Imprint(bins=16)
    seen = batch_of(batch=2, malicious=attack).seen
    honest = batch_of(batch=2).seen
    assert seen.model != honest.model
    assert set(seen.before) - set(honest.before) == {
        "body.block.read.weight",
        "body.block.read.bias",
        "body.block.write.weight",
    }
    assert all(torch.equal(seen.before[k], v) for k, v in honest.before.items())
    assert seen.update is not None
    assert seen.update.tensors.keys() == seen.before.keys()
    assert isinstance(seen.update, Update)


def test_a_manipulated_model_is_captured_the_same_twice(batch_of: Intercept) -> None:
    one, two = (batch_of(batch=2, malicious=TrapWeights(rows=8)).seen for _ in range(2))
    assert one.update is not None
    assert two.update is not None
    assert all(torch.equal(one.before[k], two.before[k]) for k in one.before)
    assert all(torch.equal(one.update.tensors[k], v) for k, v in two.update.tensors.items())


def test_manipulation_must_be_granted(intercept: Intercept) -> None:
    with pytest.raises(KnowledgeError, match="model F, G or H"):
        intercept(threat="D", malicious=Imprint(bins=16))
    granted = intercept(threat="D", grant=("manipulation",), malicious=Imprint(bins=16))
    assert "body.block.read.weight" in granted.seen.before


@pytest.mark.parametrize("attack", [Imprint(bins=16), TrapWeights(rows=16)])
def test_an_honest_model_gives_nothing_to_read(attack: Any, intercept: Intercept) -> None:
    with pytest.raises(AttackError, match="honest model"):
        attack(intercept(threat="G").seen, generator=noise())


def test_a_study_captures_each_attack_through_its_own_broadcast(tmp_path: Any) -> None:
    from fedaudit.core.scenario import Choice, Federation, Scenario, Study
    from fedaudit.study import run_cell
    from fedaudit.study.jobs import AttackJob, expand
    from fedaudit.study.run_folder import RunFolder
    from fedaudit.study.sources import source_of
    from fedaudit.study.study_check import check_study

    attacks = (Choice("imprint", {"bins": 16}), Choice("inverting_gradients", {"steps": 1}))
    study = Study(
        name="malicious",
        scenarios=(Scenario("fresh", targets=1, threat_model="G", attacks=attacks),),
        size=32,
        federation=Federation(clients=3, rounds=1),
        utility=False,
    )
    check_study(study)
    seen: dict[tuple[str, str], Observation] = {}
    for job in expand(study):
        if isinstance(job, AttackJob):
            cell = job.cell
            attack = run_cell.attack_of(study.scenarios[0], cell)
            capture = source_of(study, RunFolder(tmp_path)).capture(cell, attack)
            seen[cell.attack, cell.role] = capture.seen
            made = run_cell.reconstruct(study.scenarios[0], cell, capture, attack)
            assert made.images.shape[1:] == (3, 32, 32)
    manipulated = {key for key, one in seen.items() if "body.block.read.bias" in one.before}
    roles = ("audit", "half_steps", "prior_only", "update_noise")
    assert manipulated == {("imprint", role) for role in roles}
    refused = replace(study, scenarios=(replace(study.scenarios[0], threat_model="D"),))
    with pytest.raises(KnowledgeError, match="manipulation"):
        check_study(refused)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Imprint, {"bins": 1}),
        (Imprint, {"strength": 0.0}),
        (Imprint, {"mode": "other"}),
        (TrapWeights, {"rows": 0}),
        (TrapWeights, {"activated": 1.0}),
        (Fishing, {"mode": "other"}),
        (Fishing, {"sharpness": 0.0}),
        (Fishing, {"inverter": "imprint"}),
    ],
)
def test_settings_that_make_no_sense(kind: Any, wrong: dict[str, Any]) -> None:
    error = UnknownNameError if "mode" in wrong else ValueError
    with pytest.raises(error, match=next(iter(wrong))):
        kind(**wrong)


def test_a_block_must_know_the_size() -> None:
    spec = ModelSpec("face", {"classes": 4})
    with pytest.raises(ConfigError, match="image_size"):
        Imprint(bins=4).broadcast(spec, {}, generator=noise())
    assert Knowledge.MANIPULATION in Imprint.needs
