"""What a reviewer is told of what was shared, and of who attacks it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedaudit.captures.simulate.exposed_things import expose
from fedaudit.core.observation import ModelSpec, Observation
from fedaudit.core.registry import create, names
from fedaudit.core.shared import Aggregate, Buffers, ClassEmbeddings, Update
from fedaudit.core.trial import Cell
from fedaudit.study.sent_things import nothing_to_attack, sent_things


@dataclass(frozen=True)
class Prototypes:
    """A kind of another package."""

    rows: Tensor


UPDATE = Update("delta", {"body.0.weight": torch.zeros(2, 3), "head.weight": torch.zeros(4)})
BUFFERS = Buffers({"body.1.running_mean": torch.zeros(2)})
ROWS = ClassEmbeddings(torch.zeros(6, 64), tuple(range(6)))
SEEN = Observation(
    ModelSpec("face"), {}, (UPDATE, BUFFERS, UPDATE, ROWS, Prototypes(torch.zeros(1, 5)))
)
GAN = create("attacks", "gan_inversion", {})


def test_an_update_of_zeros_is_nothing_to_attack() -> None:
    cell = Cell("s", "face", "fedface", 1, 1, "none", "gan_inversion", "D", 0, 0)
    why = nothing_to_attack(sent_things(SEEN, GAN), SEEN.shared, cell)
    assert why == "what was shared is zero everywhere: nothing was trained in this round"
    moved = replace(SEEN, shared=(replace(UPDATE, tensors={"body.0.weight": torch.ones(2, 3)}),))
    assert nothing_to_attack(sent_things(moved, GAN), moved.shared, cell) == ""


def test_what_is_read_used_and_left() -> None:
    found = sent_things(SEEN, GAN)
    assert [(s.name, s.read, s.used) for s in found] == [
        ("update", True, False),
        ("buffers", False, True),
        ("update#2", False, False),
        ("class_embeddings", False, False),
        ("prototypes", False, False),
    ]
    assert [s.summary for s in found[::3]] == ["2 tensors, 10 values", "6 × 64 values"]
    assert [s.bytes for s in found] == [40, 8, 40, 1536, 20]
    assert not any(s.read or s.used for s in sent_things(SEEN, None))


def test_readers_are_the_registered_attacks_of_that_kind() -> None:
    update, buffers, second, rows, prototypes = sent_things(SEEN, None)
    assert {"gan_inversion", "inverting_gradients", "map_inversion"} <= set(update.readers)
    assert set(update.readers) <= set(names("attacks"))
    assert second.readers == update.readers
    assert not set(rows.readers) & set(update.readers)
    assert (buffers.readers, prototypes.readers) == ((), ())


def test_a_sum_of_updates_is_read_as_an_update_and_a_sum_of_buffers_is_not() -> None:
    sums = Aggregate("delta", UPDATE.tensors, (1.0,)), Aggregate("buffers", BUFFERS.tensors, (1.0,))
    first, second = sent_things(replace(SEEN, shared=sums), GAN)
    assert (first.name, first.read, first.used) == ("aggregate", True, False)
    assert (second.name, second.read, second.used) == ("aggregate#2", False, True)
    assert "gan_inversion" in first.readers
    assert second.readers == ()


def test_what_is_shown_alone_keeps_its_name_and_is_read() -> None:
    only = ("update#2",)
    (alone,) = sent_things(expose(SEEN, only), GAN, only)
    assert (alone.name, alone.read) == ("update#2", True)
    parts = ("class_embeddings", "update#2:head.", "buffers")
    cut = sent_things(expose(SEEN, parts), GAN, parts)
    assert [s.name for s in cut] == ["buffers", "update#2", "class_embeddings"]
    assert cut[1].summary == "4 values"
