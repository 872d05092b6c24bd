"""A model that is not the recording's: the first wrong name, the likely cause, and what to do."""

import copy
import shlex
import time
from collections.abc import Mapping

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fedaudit.captures.format.tensor_names import Renaming, parse_rules, shortest
from fedaudit.captures.inspect.model_mismatch import Mismatch, find_mismatch
from fedaudit.captures.inspect.name_matching import Shapes
from fedaudit.core.errors import ConfigError, UsageError


class Net(nn.Module):
    """Two convolutions with batch norm, a hidden layer and a head; no two layers of one shape."""

    def __init__(self, classes: int = 10, side: int = 4, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 16, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16 * side**2, 32)
        self.head = nn.Linear(32, classes)


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    held = network.state_dict()
    return {n: tuple(t.shape) for n, t in held.items() if not n.endswith("num_batches_tracked")}


def renamed(names: Shapes, **parts: str) -> Shapes:
    def new(name: str) -> str:
        first, _, rest = name.partition(".")
        return f"{parts.get(first, first)}.{rest}"

    return {new(name): shape for name, shape in names.items()}


def found(sent: Shapes, network: Shapes) -> Mismatch:
    mismatch = find_mismatch(sent, network, lambda needed: f"Say {needed}.")
    assert mismatch is not None
    return mismatch


def test_what_fits_is_no_mismatch() -> None:
    sent = shapes(Net())
    assert find_mismatch(sent, sent, str) is None
    body = {n: s for n, s in sent.items() if not n.startswith("head")}
    assert find_mismatch(body, sent, str) is None  # the head stays on the devices


def test_wrong_number_of_classes() -> None:
    wrong = found(shapes(Net(40)), shapes(Net(10)))
    assert wrong.key == "head.weight"
    assert "[40, 32] in the capture and [10, 32] in the model" in wrong.fact
    assert wrong.cause == "the wrong number of classes, 10 in place of 40"
    assert wrong.advice == "Say 40."
    assert wrong.renaming is None


@pytest.mark.parametrize(
    ("sent", "network", "cause"),
    [
        (Net(side=8), Net(), "another size of images: 'fc.weight' takes 1,024 features"),
        (Net(width=12), Net(), "the same architecture in another size: 6 of 14 shapes differ"),
    ],
)
def test_other_shapes(sent: nn.Module, network: nn.Module, cause: str) -> None:
    assert found(shapes(sent), shapes(network)).cause.startswith(cause)


def test_gray_images() -> None:
    gray = Net()
    gray.conv1 = nn.Conv2d(1, 8, 3, bias=False)
    assert found(shapes(gray), shapes(Net())).cause == (
        "images of 1 channels in the capture and 3 in the model"
    )


@pytest.mark.parametrize(
    ("prefix", "wrapper"),
    [
        ("module", "DataParallel or DistributedDataParallel"),
        ("_orig_mod", "torch.compile"),
        ("model", "LightningModule"),
        ("net.backbone", "LightningModule"),
    ],
)
def test_prefixes_on_either_side(prefix: str, wrapper: str) -> None:
    plain = shapes(Net())
    wrapped = {f"{prefix}.{name}": shape for name, shape in plain.items()}
    for sent, network, rule, side in (
        (wrapped, plain, (prefix, ""), "capture"),
        (plain, wrapped, ("", prefix), "model"),
    ):
        wrong = found(sent, network)
        assert wrong.key == next(iter(sent))
        assert f"names in the {side} begin with '{prefix}.', which" in wrong.cause
        assert wrapper in wrong.cause
        assert wrong.renaming == Renaming((rule,))
        typed = f"{rule[0]}={rule[1]}" if rule[0] else f"'={rule[1]}'"
        assert wrong.advice == f"Add --rename {typed}, or --rename auto."
        assert list(wrong.renaming.names(sent)) == list(network)
        options = wrong.advice.removeprefix("Add ").partition(",")[0]
        assert parse_rules([shlex.split(options)[1]]) == wrong.renaming


def test_a_prefix_that_is_another_prefix() -> None:
    sent = {f"model.{name}": shape for name, shape in shapes(Net()).items()}
    network = {f"backbone.{name}": shape for name, shape in shapes(Net()).items()}
    assert found(sent, network).renaming == Renaming((("model", "backbone"),))


def test_a_prefix_with_something_beside_it() -> None:
    sent = {f"model.{name}": shape for name, shape in shapes(Net()).items()}
    wrong = found({**sent, "criterion.weight": (10,)}, shapes(Net()))
    assert "(14 of 15 names then fit)" in wrong.cause
    assert wrong.renaming == Renaming((("model", ""),))
    after = found(wrong.renaming.names({**sent, "criterion.weight": (10,)}), shapes(Net()))
    assert after.key == "criterion.weight"


def test_a_prefix_that_leads_to_two_places_is_refused() -> None:
    plain = shapes(Net())
    network = {f"{side}.{name}": s for side in ("student", "teacher") for name, s in plain.items()}
    wrong = found(plain, network)
    assert wrong.renaming is None
    assert wrong.advice == "Say which is meant: --rename '=student' or --rename '=teacher'."


def test_batch_norm_that_was_folded() -> None:
    fused = Net().eval()
    for number in ("1", "2"):
        conv: nn.Conv2d = getattr(fused, f"conv{number}")
        norm: nn.BatchNorm2d = getattr(fused, f"bn{number}")
        setattr(fused, f"conv{number}", fuse_conv_bn_eval(conv, norm))
        setattr(fused, f"bn{number}", nn.Identity())
    wrong = found(shapes(fused), shapes(Net()))
    assert wrong.key == "conv1.bias"
    assert "folded into convolutions in what the server sent" in wrong.cause
    assert "the model has 2 batch-norm layers that it lacks" in wrong.cause
    assert "fuse_conv_bn_eval" in wrong.advice
    wrong = found(shapes(Net()), shapes(fused))
    assert wrong.key == "bn1.weight"
    assert "folded into convolutions in the model" in wrong.cause
    assert "before it is fused" in wrong.advice


def test_a_model_without_its_head() -> None:
    body = {n: s for n, s in shapes(Net()).items() if not n.startswith("head")}
    wrong = found(shapes(Net()), body)
    assert wrong.key == "head.weight"
    assert wrong.cause == "the model lacks the head of 10 classes: all 12 tensors that it has fit"


NEW = {"conv1": "stem", "bn1": "norm", "conv2": "deep", "bn2": "last", "fc": "embed", "head": "out"}


def test_renamed_layers_in_the_same_order() -> None:
    plain = shapes(Net())
    other = renamed(plain, **NEW)
    wrong = found(plain, other)
    assert wrong.cause == "renamed layers: all shapes are the same, in the same order"
    assert wrong.renaming is not None
    assert wrong.renaming.rules == tuple(NEW.items())
    assert list(wrong.renaming.names(plain)) == list(other)
    assert wrong.advice.startswith("Add --rename conv1=stem --rename bn1=norm ")


def test_renamed_layers_whose_order_is_lost() -> None:
    plain = shapes(Net())
    unique = {n: s for n, s in plain.items() if not n.startswith("bn")}
    other = renamed(dict(sorted(unique.items(), reverse=True)), **NEW)
    wrong = found(unique, other)
    assert wrong.cause == "renamed layers: each shape occurs once"
    assert wrong.renaming is not None
    assert wrong.renaming.names(unique) == other


@pytest.mark.parametrize("order", [sorted, lambda n: sorted(n, reverse=True)])
def test_layers_that_only_their_order_could_tell_apart_are_refused(order: object) -> None:
    same = {f"{name}.weight": (8, 8) for name in ("a", "b", "c")}
    other = {f"{name}.weight": (8, 8) for name in ("x", "y", "z")}
    sent = {name: same[name] for name in sorted(same)}
    wrong = found({**sent, "d.bias": (3,)}, {"w.bias": (3,), **other})
    assert wrong.renaming is None
    assert "'a.weight' and 'b.weight' have the same shape [8, 8]" in wrong.cause
    wrong = found(sent, other)  # the order is that of the alphabet
    assert wrong.renaming is None
    shuffled = {name: same[name] for name in ("b.weight", "a.weight", "c.weight")}
    assert found(shuffled, other).renaming is not None


def test_names_that_shift_are_refused() -> None:
    sent = {f"layers.{k}.weight": (8, 8) for k in (2, 1, 0)}
    network = {f"layers.{k}.weight": (8, 8) for k in (3, 2, 1)}
    wrong = found(sent, network)
    assert wrong.renaming is None
    assert "by order 'layers.2.weight' would be 'layers.3.weight', by name itself" in wrong.cause


def test_weights_are_never_taken_for_biases() -> None:
    sent = {"a.bias": (8,), "a.weight": (8,)}
    network = {"b.weight": (8,), "b.bias": (8,)}
    renaming = found(sent, network).renaming
    assert renaming is not None
    assert renaming.rules == (("a", "b"),)


def test_another_architecture() -> None:
    other = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    wrong = found(shapes(Net()), shapes(other))
    assert wrong.cause == "another architecture: 0 of 14 names agree, shapes included"
    assert "--model" in wrong.advice


def test_hostile_names_stay_short_text() -> None:
    evil = {"\x1b[31m\u202e" + "x" * 490: (1,), "a b'; rm -rf=~": (2,)}
    text = str(found(evil, {"y": (3,)}))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text) < 600
    wrong = found(evil, {"u": (1,), "v": (2,)})
    assert wrong.advice == "Add --rename auto."  # nothing of it is to be typed
    assert wrong.renaming is not None
    assert list(wrong.renaming.names(evil)) == ["u", "v"]


def test_many_names_take_little_time() -> None:
    sent: Mapping[str, tuple[int, ...]] = {f"a{k}." + "b." * 100: (k,) for k in range(4000)}
    network = {f"c{k}." + "b." * 100: (k,) for k in range(4000)}
    start = time.process_time()
    renaming = found(sent, network).renaming
    assert renaming is not None
    assert list(renaming.names(sent)) == list(network)
    assert time.process_time() - start < 5


def test_the_longest_rule_counts_and_each_name_is_renamed_once() -> None:
    renaming = parse_rules(["model.=", "model.fc=head.out", "a=b", "b=a"])
    assert renaming is not None
    names = {
        "model.conv.weight": "conv.weight",
        "model.fc.weight": "head.out.weight",
        "model.fc2.weight": "fc2.weight",
        "modelling.weight": "modelling.weight",
        "a.weight": "b.weight",
        "b.weight": "a.weight",
    }
    assert {old: renaming.name(old) for old in names} == names
    assert shortest(names).names(dict.fromkeys(names, 0)) == dict.fromkeys(names.values(), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["module"], "write it as OLD=NEW"),
        (["a=a"], "write it as OLD=NEW"),
        (["a=b", "a=c"], "two things of 'a'"),
        (["auto", "a=b"], "leave the other rules out"),
        (["a" * 501 + "=b"], "500 characters at most"),
    ],
)
def test_rules_that_are_none(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_rules(options)


def test_two_names_may_not_become_one() -> None:
    renaming = Renaming((("a", "b"),))
    with pytest.raises(UsageError, match=r"makes 'b\.w' of both 'a\.w' and 'b\.w'"):
        renaming.names({"a.w": 1, "b.w": 2})


def test_a_rename_never_changes_a_tensor() -> None:
    tensors = {"a.w": torch.rand(2), "c": torch.rand(3)}
    kept = copy.copy(tensors)
    made = Renaming((("a", "b"),)).names(tensors)
    assert made["b.w"] is kept["a.w"]
    assert made["c"] is kept["c"]
