"""Networks as their owners have them: in wrappers, compiled, scripted, with hooks and histories."""

import copy
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import fedaudit
from fedaudit.core.errors import AttackError, UsageError
from fedaudit.core.observation import LocalTraining
from fedaudit.library.attack_update import _facts

sys.path.insert(0, str(Path(__file__).parent))
from plain_networks import LABELS, SHAPE, cnn, drawn, gradient, mlp


def first_layer_found(model: nn.Module, update: Mapping[str, Tensor | None], photo: Tensor) -> None:
    """The closed form brings the photo back, which it does by the names of the first layer."""
    rebuilt = fedaudit.attack(model, update, "analytic", image_shape=SHAPE)
    torch.testing.assert_close(rebuilt.images, photo, atol=1e-4, rtol=0)


def renamed(update: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in update.items()}


def compiled(model: nn.Module) -> nn.Module:
    made: Any = torch.compile(model)
    assert isinstance(made, nn.Module)
    return made


def traced(model: nn.Module) -> nn.Module:
    made: nn.Module = torch.jit.trace(model, torch.ones(1, *SHAPE))  # type: ignore[no-untyped-call]
    return made


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (nn.DataParallel, "module."),
        (compiled, "_orig_mod."),
        (lambda model: nn.DataParallel(compiled(model)), "module._orig_mod."),
    ],
)
def test_a_wrapper_of_torch_is_taken_off(wrap: Callable[..., Any], prefix: str) -> None:
    model = mlp()
    photo = drawn(model)
    update = gradient(model, photo, LABELS)
    wrapped = wrap(model)
    assert set(dict(wrapped.named_parameters())) == set(renamed(update, prefix))
    first_layer_found(wrapped, renamed(update, prefix), photo)
    first_layer_found(wrapped, update, photo)


def test_a_compiled_part_runs_as_it_was_written() -> None:
    """What torch.compile makes by default has no second derivatives."""
    body, head = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.Sigmoid()), nn.Linear(32, 10)
    model = nn.Sequential(compiled(body), head)
    update = gradient(nn.Sequential(body, head), drawn(head), LABELS)
    names = {name: name.replace("0.", "0._orig_mod.") for name in update}
    sent = {names[name]: value for name, value in update.items()}
    rebuilt = fedaudit.attack(model, sent, "idlg", image_shape=SHAPE, settings={"steps": 1})
    assert rebuilt.labels.tolist() == [3]


class Checkpointed(nn.Module):
    """Its middle is computed again on the way back, so that it need not be kept."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(192, 32), nn.Linear(32, 10)
        self.middle = nn.Sequential(nn.Sigmoid(), nn.Linear(32, 32), nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.inner(images.flatten(1))
        scores: Tensor = self.head(checkpoint(self.middle, hidden, use_reentrant=True))
        return scores


@pytest.mark.parametrize("attack", ["inverting_gradients", "subspace_matching"])
def test_reentrant_checkpoints_compute_as_they_are(attack: str) -> None:
    torch.manual_seed(0)
    model = Checkpointed()
    photo = drawn(model)
    nn.functional.cross_entropy(model(photo), LABELS).backward()  # type: ignore[no-untyped-call]
    update = {name: p.grad for name, p in model.named_parameters()}
    settings = {"steps": 2, "polish": 1} if attack == "subspace_matching" else {"steps": 2}
    rebuilt = fedaudit.attack(model, update, attack, image_shape=SHAPE, settings=settings)
    assert rebuilt.labels.tolist() == [3]
    with pytest.raises(RuntimeError, match="use_reentrant"):  # as ever, once the attack is over
        torch.autograd.grad(model(photo).sum(), list(model.parameters()))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("make", [torch.jit.script, traced])
def test_torchscript_is_taken_as_layers(make: Callable[..., Any]) -> None:
    model = mlp()
    photo = drawn(model)
    script = make(model).train()
    first_layer_found(script, gradient(model, photo, LABELS), photo)
    assert script.training


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_what_a_pass_left_behind_is_no_obstacle() -> None:
    model = cnn()
    photo = drawn(model)
    nn.utils.weight_norm(model[2])  # type: ignore[index]
    kept: list[Tensor] = []
    model[0].kept = kept  # type: ignore[index]
    model[0].register_forward_hook(lambda layer, _, outputs: layer.kept.append(outputs))  # type: ignore[index]
    update = gradient(model, photo, LABELS)
    assert not kept[0].is_leaf
    for attack in ("subspace_matching", "inverting_gradients"):
        settings = {"steps": 2, "polish": 1}
        rebuilt = fedaudit.attack(model, update, attack, image_shape=SHAPE, settings=settings)
        assert rebuilt.labels.tolist() == [3]
    assert len(kept) == 1


def test_hooks_of_the_backward_pass_stay_with_the_client() -> None:
    """As Opacus's per-sample gradients have them: what they wait for does not come here."""
    model = mlp()
    photo = drawn(model)
    update = gradient(model, photo, LABELS)

    def refuse(*_: object) -> None:
        raise IndexError("pop from empty list")

    model[1].register_full_backward_hook(refuse)  # type: ignore[index]
    first_layer_found(model, update, photo)
    assert len(model[1]._backward_hooks) == 1  # type: ignore[index]


def test_an_update_that_lists_what_is_not_zero_is_taken() -> None:
    model = mlp()
    photo = drawn(model)
    sparse = {n: value.to_sparse() for n, value in gradient(model, photo, LABELS).items()}
    first_layer_found(model, sparse, photo)


def test_weights_in_place_of_their_change_are_noticed() -> None:
    model = mlp()
    update = {n: p.detach() + 1e-3 for n, p in model.named_parameters()}
    with pytest.warns(UserWarning, match=r"looks like weights: .* after\[name\] − before\[name\]"):
        fedaudit.attack(model, update, "analytic", image_shape=SHAPE, kind="delta")


def test_steps_of_adam_that_are_given_as_those_of_sgd_are_noticed() -> None:
    layers = [layer for _ in range(4) for layer in (nn.Linear(192, 192), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), *layers, nn.Linear(192, 10))
    photo = drawn(model)
    client = copy.deepcopy(model)
    optimizer = torch.optim.Adam(client.parameters(), 1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(client(photo), LABELS).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = dict(client.named_parameters())
    update = {n: (after[n] - p).detach() for n, p in model.named_parameters()}
    given: dict[str, Any] = {"image_shape": SHAPE, "kind": "delta"}
    with pytest.warns(UserWarning, match=r"one size in all layers.* optimizer='adam'"):
        fedaudit.attack(model, update, "analytic", **given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adam = LocalTraining(lr=1e-3, steps=2, optimizer="adam")
        fedaudit.attack(model, update, "analytic", training=adam, **given)
        fedaudit.attack(model, gradient(model, photo, LABELS), "analytic", image_shape=SHAPE)


def test_a_lazy_layer_that_has_seen_nothing_is_told() -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    with pytest.raises(UsageError, match=r"'1' \(LazyLinear\) .* run the model once"):
        fedaudit.attack(model, {"1.weight": torch.zeros(10, 192)}, image_shape=SHAPE)


def test_what_the_model_gives_is_checked_before_what_the_update_lacks() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.Unflatten(1, (2, 5)))
    with pytest.raises(UsageError, match=r"gives \[2, 2, 5\] for two images"):
        fedaudit.attack(model, {"1.weight": torch.ones(10, 192)}, image_shape=SHAPE)


@pytest.mark.parametrize("form", ["by name", "made"])
def test_settings_may_name_layers_as_a_wrapper_does(form: str) -> None:
    model = mlp()
    update = renamed(gradient(model, drawn(model), LABELS), "module.")

    def objective(layer: str) -> float | None:
        settings: dict[str, Any] = {"layers": (layer,), "steps": 2, "polish": 0}
        chosen: dict[str, Any] = {"name": "subspace_matching", "settings": settings}
        if form == "made":
            chosen = {"name": fedaudit.attacks.subspace_matching(**settings)}
        wrapped = nn.DataParallel(model)
        return fedaudit.attack(wrapped, update, image_shape=SHAPE, **chosen).objective

    assert objective("module.1.") == objective("1.")


def test_defenses_may_name_layers_as_a_wrapper_does() -> None:
    parts = {"of": ("clipping", {"name": "soteria", "layer": "module.1", "pruned": 0.5})}
    named = (fedaudit.defenses.Soteria(layer="module.1"), fedaudit.defenses.Chain(**parts))
    plain, chain = _facts(named, "module.") or ()
    assert plain.settings["layer"] == "1"
    assert chain.settings["of"][0] == "clipping"
    assert chain.settings["of"][1]["layer"] == "1"
    assert chain.settings["of"][1]["pruned"] == 0.5


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (("1.", "3.wieght"), r"begins with '3\.wieght'. The nearest are '3\.weight'"),
        (("encoder.",), r"begins with 'encoder\.'. It has '1', '3'\."),
    ],
)
def test_layers_that_there_are_not_are_told(layers: tuple[str, ...], says: str) -> None:
    model = mlp()
    update = gradient(model, drawn(model), LABELS)
    with pytest.raises(AttackError, match=says):
        fedaudit.attack(model, update, image_shape=SHAPE, settings={"layers": layers})


def test_layers_of_which_nothing_was_shared_are_told() -> None:
    model = mlp()
    update = {n: g for n, g in gradient(model, drawn(model), LABELS).items() if n[0] == "1"}
    kept = [name for name in dict(model.named_parameters()) if name not in update]
    with pytest.raises(AttackError, match="nothing of that was shared"):
        fedaudit.attack(
            model, update, image_shape=SHAPE, unshared=kept, settings={"layers": ("3.",)}
        )


class FirstScores(nn.Sequential):
    """The scores of some classes of a layer that has rows for more."""

    def forward(self, images: Tensor) -> Tensor:
        """Scores."""
        scores: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        return scores[:, :10]


@pytest.mark.parametrize("attack", ["subspace_matching", "idlg"])
@pytest.mark.parametrize("kind", ["cut", "weight norm"])
def test_labels_are_told_behind_heads_that_are_no_plain_layer(kind: str, attack: str) -> None:
    plain = mlp()
    model: nn.Module = FirstScores(*plain[:-1], nn.Linear(32, 16))  # type: ignore[index]
    if kind == "weight norm":
        nn.utils.parametrizations.weight_norm(plain[3])  # type: ignore[index]
        model = plain
    photo = drawn(model)
    settings = {"steps": 2} | ({"polish": 0} if attack == "subspace_matching" else {})
    rebuilt = fedaudit.attack(
        model, gradient(model, photo, LABELS), attack, image_shape=SHAPE, settings=settings
    )
    assert rebuilt.labels.tolist() == LABELS.tolist()
