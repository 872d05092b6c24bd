"""Measures in the headers of updates: they are the tensors', and not trusted where they are not."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import fedaudit
from fedaudit.captures.audit.audit_request import Request
from fedaudit.captures.audit.capture_study import study_of
from fedaudit.captures.format import kept_measures
from fedaudit.captures.format.capture_facts import Keywords
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.kept_measures import KEPT
from fedaudit.captures.format.message_header import KEY
from fedaudit.captures.format.update_measures import measure
from fedaudit.captures.inspect.inspection import Inspection, inspect
from fedaudit.core.observation import ModelSpec
from fedaudit.core.scenario import Choice
from fedaudit.models.build_network import build

sys.path.insert(0, str(Path(__file__).parent))
from test_hostile_files import QUICK, damages

NAMES = ("conv.weight", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked", "fc.weight")


def state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(8, 4, 3, 3, generator=generator),
        "bn.running_mean": torch.randn(8, generator=generator),
        "bn.running_var": torch.rand(8, generator=generator),
        "bn.num_batches_tracked": torch.tensor(7),
        "fc.weight": torch.randn(600, 50, generator=generator),
    }


def moved(number: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return {
        n: v + torch.randn(v.shape, generator=generator) / 100 if v.is_floating_point() else v + 2
        for n, v in state().items()
    }


def record_many(folder: Path) -> None:
    """Updates of many kinds, ordinary ones and odd ones."""
    record = fedaudit.recording(folder, lr=0.1)
    record.broadcast(1, state())
    record.update(1, "plain", moved(1), kind="weights")
    record.update(1, "again", moved(2), kind="weights")
    record.update(1, "again", moved(3), kind="weights")  # a second message of one client
    record.update(1, "twin", moved(1), kind="weights")  # bit-identical to the first
    delta = {n: (v - state()[n]).float() for n, v in moved(4).items()}
    record.update(1, "delta", delta, kind="delta", sign=-1)
    record.update(1, "sum", delta, kind="gradient", aggregate=True, weights=[1, 2])
    record.update(1, "half", {n: v.to(torch.bfloat16) for n, v in delta.items()}, kind="gradient")
    top = {n: torch.where(v.abs() > 0.02, v, 0) for n, v in delta.items()}
    record.update(1, "sparse", top, kind="delta")
    record.update(1, "coarse", {n: (v * 50).round() / 50 for n, v in delta.items()}, kind="delta")
    record.update(1, "idle", {**delta, "fc.weight": torch.eye(600, 50)}, kind="delta")
    record.update(1, "masked", {n: (v * 1e6).long() for n, v in moved(5).items()}, kind="weights")
    record.update(1, "still", state(), kind="weights")
    record.update(1, "bad", {**moved(6), "conv.weight": torch.full((8, 4, 3, 3), torch.nan)},
                  kind="weights")  # fmt: skip
    record.update(1, "counter", {**delta, "bn.num_batches_tracked": torch.tensor(torch.nan)},
                  kind="delta")  # fmt: skip
    record.update(1, "shape", {**moved(7), "fc.weight": torch.ones(3)}, kind="weights")
    record.update(1, "renamed", {"other": torch.ones(20), "empty": torch.ones(0)}, kind="weights")
    record.update(1, "wrapped", {f"module.{n}": v for n, v in moved(8).items()}, kind="weights")
    record.broadcast(2, {n: v * 2 for n, v in state().items()})
    record.broadcast(2, {n: v * 3 for n, v in state().items()}, client="own")
    record.update(2, "own", moved(9), kind="weights")
    record.update(2, "own", moved(10), kind="weights")
    record.update(2, "else", moved(9), kind="weights")
    record.update(3, "alone", moved(11), kind="weights")
    odd = {"a.weight": torch.ones(0, 5), "b.weight": torch.ones(5, 0, 2), "n": torch.tensor(True)}
    record.update(3, "odd", {**odd, "a.running_var": torch.ones(3, dtype=torch.uint16)},
                  kind="weights")  # fmt: skip


def change_header(path: Path, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    """Write a message again with another header."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, change(metadata))


def without(header: dict[str, str]) -> dict[str, str]:
    """As fedaudit wrote it before it kept measures."""
    return {KEY: header[KEY]}


def updates(folder: Path) -> list[Path]:
    return sorted(folder.glob("round-*/update-*.safetensors"))


def plain(found: Inspection) -> Any:
    """All of an inspection, numbers to six digits, but for how it came about."""
    return json.loads(
        json.dumps(replace(found, kept=0, folder="").as_plain()),
        parse_float=lambda text: f"{float(text):.5g}",
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "c"
    record_many(folder)
    return folder


@pytest.fixture
def two(tmp_path: Path) -> Path:
    record = fedaudit.recording(tmp_path / "c", lr=0.1)
    record.broadcast(1, state())
    for number, client in enumerate("ab"):
        record.update(1, client, moved(number), kind="weights")
    return tmp_path / "c"


def test_measures_taken_while_recording_are_those_of_the_tensors(
    many: Path, tmp_path: Path
) -> None:
    record_many(tmp_path / "c")
    for path in updates(tmp_path / "c"):
        change_header(path, without)
    kept, read = inspect(StoredCapture(many)), inspect(StoredCapture(tmp_path / "c"))
    assert (kept.kept, read.kept) == (len(updates(many)), 0) == (22, 0)
    created = {"created": read.created}
    assert {**plain(kept), **created} == plain(read)
    assert not kept.problems
    capture = StoredCapture(many)
    for number in capture.rounds():
        for message in capture.messages(number):
            held = kept_measures.kept_in(message, capture.facts)
            assert held is not None
            before = capture.broadcast(number, message.message.client) if number < 3 else None
            header = message.message
            again = measure(message.tensors(), header.kind, before, sign=header.sign)
            assert kept_measures.disagreement(message, held, again) is None
    assert not inspect(StoredCapture(many), verify=True).problems


def test_a_nan_in_a_counter_is_named_and_stops_nothing(many: Path) -> None:
    told = {(a.client, a.what) for a in inspect(StoredCapture(many)).anomalies}
    assert ("counter", "'bn.num_batches_tracked' holds NaN or infinity") in told


def test_tensors_are_read_to_verify_only_and_damage_is_then_found(two: Path) -> None:
    path = updates(two)[0]
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    found = inspect(StoredCapture(two))
    assert found.kept == 2
    assert not found.problems
    (problem,) = inspect(StoredCapture(two), verify=True).problems
    assert "not those that were recorded" in problem
    assert path.name in problem


def test_another_question_is_answered_by_the_tensors(tmp_path: Path) -> None:
    """A broadcast that came later, and facts that say what a buffer is."""
    record = fedaudit.recording(tmp_path / "c")
    record.update(1, "early", moved(1), kind="weights")
    record.broadcast(1, state())
    record.update(1, "late", moved(2), kind="weights")
    found = inspect(StoredCapture(tmp_path / "c"))
    assert found.kept == 1
    (summary,) = found.rounds
    norms = [
        float(torch.cat([(sent[n] - state()[n]).flatten() for n in (NAMES[0], NAMES[-1])]).norm())
        for sent in (moved(1), moved(2))
    ]
    assert summary.norm is not None
    assert summary.norm[::2] == pytest.approx((min(norms), max(norms)), rel=1e-4)
    fedaudit.recording(tmp_path / "c", buffers=("conv.weight",))
    found = inspect(StoredCapture(tmp_path / "c"))
    assert found.kept == 0
    assert found.rounds[0].norm is not None
    rest = [float((moved(k)["fc.weight"] - state()["fc.weight"]).norm()) for k in (1, 2)]
    assert found.rounds[0].norm[::2] == pytest.approx((min(rest), max(rest)), rel=1e-4)
    assert not found.problems


def seal(body: str, path: Path) -> str:
    """What a liar writes who knows the code."""
    (stored,) = (m for m in StoredCapture(path.parents[1]).messages(1) if m.path == path)
    layout = {n: (e.dtype, e.shape) for n, e in stored.header.entries.items()}
    return f"{kept_measures._seal(body, stored.header.metadata[KEY], layout)} {body}"


def rewritten(path: Path, change: Callable[[Any], object], *, sealed: bool) -> None:
    """Change the measures of a message, with the right checksum or the old one."""

    def edit(header: dict[str, str]) -> dict[str, str]:
        old, _, body = header[KEPT].partition(" ")
        table = json.loads(body)
        change(table)
        new = json.dumps(table)
        return {**header, KEPT: seal(new, path) if sealed else f"{old} {new}"}

    change_header(path, edit)


def test_damaged_measures_are_a_problem_and_the_tensors_are_read(two: Path) -> None:
    sound = plain(inspect(StoredCapture(two)))
    rewritten(updates(two)[0], lambda t: t["measures"].update(norm=1e9), sealed=False)
    found = inspect(StoredCapture(two))
    assert found.kept == 1
    (problem,) = found.problems
    assert "its tensors were read instead" in problem
    assert plain(replace(found, problems=())) == sound


def test_measures_of_another_message_are_not_taken(two: Path) -> None:
    one, other = updates(two)
    with safe_open(other, "pt") as file:
        theirs = file.metadata()[KEPT]
    change_header(one, lambda header: {**header, KEPT: theirs})
    found = inspect(StoredCapture(two))
    assert found.kept == 1
    assert "belong to another message" in found.problems[0]


def test_another_version_is_read_from_the_tensors_quietly(two: Path) -> None:
    rewritten(
        updates(two)[0],
        lambda t: t.update(version=kept_measures.VERSION + 1, more="text"),
        sealed=True,
    )
    found = inspect(StoredCapture(two))
    assert (found.kept, found.problems) == (1, ())


IMPOSSIBLE: dict[str, Callable[[Any], object]] = {
    "size": lambda t: t["measures"]["layers"]["fc.weight"].update(size=5),
    "idle": lambda t: t["measures"]["layers"]["fc.weight"].update(zeros=30_000, idle=30_000),
    "name": lambda t: t["measures"]["layers"].update(x=t["measures"]["layers"]["fc.weight"]),
    "kurtosis": lambda t: t["measures"].update(kurtosis=float("nan")),
    "counters": lambda t: t["measures"].update(counters=[1.0] * 9),
    "negative": lambda t: t["measures"].update(norm=-1.0),
    "rest": lambda t: t["measures"].update(norm_of_all=0.0),
    "levels": lambda t: t["measures"].update(distinct=[9, 2]),
    "content": lambda t: t.update(content="x"),
    "type": lambda t: t["measures"].update(layers=3),
}


@pytest.mark.parametrize("lie", IMPOSSIBLE)
def test_impossible_measures_are_refused(two: Path, lie: str) -> None:
    rewritten(updates(two)[0], IMPOSSIBLE[lie], sealed=True)
    found = inspect(StoredCapture(two))
    assert found.kept == 1
    assert "its tensors were read instead" in found.problems[0]


def test_possible_lies_deceive_no_attack_and_are_found_by_verifying(two: Path) -> None:
    """Two updates that are said to be one aggregate, and a norm of somebody's choice."""
    same = sha256(b"the same").hexdigest()
    for path in updates(two):
        rewritten(path, lambda t: t.update(content=same), sealed=True)
    assert {seen.name for seen in inspect(StoredCapture(two)).protections} >= {"aggregate"}
    checked = inspect(StoredCapture(two), verify=True)
    assert "aggregate" not in {seen.name for seen in checked.protections}
    assert len(checked.problems) == 2
    from fedaudit.captures.format.identical_messages import identical_groups

    groups = identical_groups(StoredCapture(two).messages(1))  # as what is attacked is grouped
    assert [len(group) for group in groups] == [1, 1]


def test_an_audit_is_told_what_the_tensors_show(tmp_path: Path) -> None:
    """Headers say that nobody trains the first layer, which attacks would then leave out."""
    known: Keywords = {"model": "mlp", "classes": 5, "image_shape": (3, 8, 8), "lr": 0.1}
    known["local_steps"] = known["batch_size"] = 1
    record = fedaudit.recording(tmp_path / "c", **known)
    before = build(ModelSpec("mlp", {"classes": 5, "image_size": 8})).state_dict()
    record.broadcast(1, before)
    for seed, client in enumerate("abc"):
        generator = torch.Generator().manual_seed(seed)
        sent = {n: v + torch.randn(v.shape, generator=generator) / 99 for n, v in before.items()}
        record.update(1, client, sent, kind="weights", examples=1)

    def frozen(table: Any) -> None:
        layer = next(iter(table["measures"]["layers"].values()))
        layer.update(norm=0.0, zeros=layer["size"], idle=0)

    for path in updates(tmp_path / "c"):
        rewritten(path, frozen, sealed=True)
    assert "frozen layers" in {s.name for s in inspect(StoredCapture(tmp_path / "c")).protections}
    plan = study_of(Request(path=tmp_path / "c", attacks=[Choice("inverting_gradients")]))
    assert "frozen layers" not in repr(plan)
    assert "made up" in repr(plan)


def test_a_made_up_norm_is_found_by_verifying(two: Path) -> None:
    def larger(table: Any) -> None:
        table["measures"].update(norm=50.0, norm_of_all=60.0)

    rewritten(updates(two)[0], larger, sealed=True)
    norm = inspect(StoredCapture(two)).rounds[0].norm
    assert norm is not None
    assert norm[2] == 50.0
    checked = inspect(StoredCapture(two), verify=True)
    assert "(norm): they are made up" in checked.problems[0]
    assert checked.rounds[0].norm is not None
    assert checked.rounds[0].norm[2] < 10


def test_updates_with_too_many_layers_are_recorded_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_measures, "LARGEST", 100)
    fedaudit.record_update(tmp_path / "c", 1, "a", state(), kind="gradient")
    found = inspect(StoredCapture(tmp_path / "c"))
    assert (found.kept, found.rounds[0].updates, found.problems) == (0, 1, ())


@pytest.mark.slow
@pytest.mark.parametrize("sealed", [True, False])
def test_damaged_measures_of_any_kind(two: Path, sealed: bool) -> None:
    """Hundreds of damaged texts in a sound header, with a right checksum or without."""
    path = updates(two)[0]
    with safe_open(path, "pt") as file:
        header = file.metadata()
    sound = path.read_bytes()
    outcomes = set()

    @settings(QUICK, max_examples=100)
    @given(damages())
    def run(damage: Callable[[bytes], bytes]) -> None:
        path.write_bytes(sound)
        given_, _, body = header[KEPT].partition(" ")
        if sealed:
            text = seal(damage(body.encode()).decode("latin1"), path)
        else:
            text = damage(header[KEPT].encode()).decode("latin1")
        change_header(path, lambda _: {**header, KEPT: text})
        found = inspect(StoredCapture(two))
        found.as_plain()
        assert found.rounds[0].updates == 2
        assert all(problem.isprintable() for problem in found.problems)
        assert found.kept == 2 or sealed or found.problems or given_ not in text
        outcomes.add((found.kept, bool(found.problems)))

    run()
    assert (1, True) in outcomes
