"""Protections that a capture shows, each with its evidence, and the known ways to get them wrong.

What is found here is seen in the numbers or follows from what was stated. That something is not
found does not mean that it is not there.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor

from fedaudit.captures.format.capture_facts import Facts
from fedaudit.captures.format.tensor_names import STATISTICS, is_buffer
from fedaudit.captures.format.update_measures import Measures
from fedaudit.captures.inspect.missing_noise import missing_noise
from fedaudit.core.printable import first_few
from fedaudit.core.recorded_run import Protection

COUNTED = "counters in the clipping norm"
COMMON = 3e-4
"""Relative difference of norms that count as one: sums of float32 squares agree better."""
SHARE = 0.1
"""Norm of counters over the clipping norm above which they matter."""
EVEN = 1.5
"""Ratio of the largest to the smallest root mean square of layers that count as equal; gradients of
real networks differ by orders of magnitude from layer to layer."""


def protections_of_round(
    number: int,
    measured: Sequence[Measures],
    alone: Sequence[Measures],
    broadcast: Mapping[str, Tensor],
    facts: Facts,
) -> tuple[Protection, ...]:
    """What the updates of one round show.

    `measured` holds bit-identical updates once, and `alone` those that are one client's: norms
    and buffers of a sum are nobody's.
    """
    secure_sum = _masking(number, measured)
    usable = [m for m in measured if not m.not_finite and m.layers and m.norm > 0]
    if not usable:
        return tuple(secure_sum)
    own = [m for m in alone if any(m is u for u in usable)]
    seen = [
        *secure_sum,
        *(_clipping(number, own, facts) if own else ()),
        *_noise(number, usable, facts),
        *_sparsity(number, usable),
        *_quantization(number, usable, facts),
        *_absent(number, usable, broadcast, facts),
    ]
    return (*seen, *_buffers(number, own, facts, seen, broadcast))


def protections_stated(facts: Facts) -> tuple[Protection, ...]:
    """Faults that follow from what is stated alone."""
    claim = facts.dp
    if claim is None or claim.clip is None or claim.sensitivity is None:
        return ()
    if claim.sensitivity >= claim.clip * (1 - COMMON):
        return ()
    return (
        Protection(
            "inconsistent sensitivity",
            True,
            f"noise is scaled to a sensitivity of {claim.sensitivity:g}, and updates are clipped "
            f"to {claim.clip:g}: the noise is {claim.clip / claim.sensitivity:.3g} times too weak "
            "for the ε that is claimed. (Flower's LocalDpMod takes the two apart and does not "
            "compare them.)",
            value=claim.sensitivity / claim.clip,
        ),
    )


def _noise_deviation(measures: Measures) -> float | None:
    """Standard deviation of Gaussian noise that drowns an update; None where none does.

    Under it all layers have the same root mean square, and values are distributed normally.
    """
    layers = [layer for layer in measures.layers.values() if layer.size >= 256]
    if len(layers) < 3 or measures.zeros > 0.1 or measures.sampled < 1000:
        return None
    sizes = sorted(layer.rms for layer in layers)
    if sizes[0] == 0 or sizes[-1] > EVEN * sizes[0] or abs(measures.kurtosis) > 0.3:
        return None
    return sizes[len(sizes) // 2]


def _masking(number: int, measures: Sequence[Measures]) -> list[Protection]:
    whole = [m for m in measures if m.whole]
    if not whole:
        return []
    evidence = (
        f"{whole[0].whole[0]!r} and others are whole numbers where the server sent fractions: "
        "quantized and masked (as secure aggregation does), or encrypted"
    )
    return [Protection("encrypted or masked", False, evidence, number, len(whole))]


def _clipping(number: int, usable: Sequence[Measures], facts: Facts) -> list[Protection]:
    """Several clients with one and the same norm, and none above it."""
    protections = []
    # Norms of noise agree by themselves: they vary by 1/√(2n) for n numbers.
    noisy = sum(_noise_deviation(m) is not None for m in usable) * 2 > len(usable)
    bounds = (
        (_bound([m.norm for m in usable]), ""),
        (_bound([m.norm_of_all for m in usable]), " with batch-norm buffers and counters"),
    )
    common = next(((*bound, what) for bound, what in bounds if bound), None)
    if common and not noisy:
        top, count, what = common
        evidence = (
            f"{count} of {len(usable)} updates have an L2 norm of {top:.4g}{what}, and none has "
            "a larger one"
        )
        protections.append(Protection("clipping", False, evidence, number, count, top))
    fractions = [m for m in usable if not all(map(is_whole, m.counters))]
    if fractions:
        one = fractions[0]
        evidence = (
            f"a counter of training steps moved by {max(one.counters):.4g}, which is no whole "
            f"number: counters and buffers were clipped with the update. They make "
            f"{math.sqrt(max(0.0, 1 - (one.norm / one.norm_of_all) ** 2)):.1%} of its norm, so "
            "that little of the update is left: it looks protected for the wrong reason. Leave "
            "buffers out of the clipping, or use a network without batch norm"
        )
        protections.append(Protection(COUNTED, True, evidence, number, len(fractions), one.norm))
    elif seen := _counted_by_flower(number, usable, facts, noisy=noisy):
        protections.append(seen)
    return protections


def _counted_by_flower(
    number: int, usable: Sequence[Measures], facts: Facts, *, noisy: bool
) -> Protection | None:
    """Clipping that counts counters and sends them as they are.

    Flower's modifiers take the norm of all arrays, and scale all but single numbers (1.42: they are
    scaled as copies). So counters stay whole, and nothing in the numbers tells this from a network
    whose updates are that small: it is known of the framework.
    """
    bound = facts.dp.clip if facts.dp else None
    counters = math.sqrt(sum(c**2 for c in usable[0].counters))
    if (
        bound is None
        or counters < SHARE * bound
        or not (facts.framework or "").startswith("flower")
    ):
        return None
    if not noisy and any(m.norm > bound * (1 + COMMON) for m in usable):
        return None  # it is not clients that clip
    left = "" if noisy else f" What is left of the update's is {usable[0].norm:.3g}."
    movement = f"{len(usable[0].counters)} batch-norm counters moved by {usable[0].counters[0]:g}"
    evidence = (
        f"updates are clipped to {bound:g}, and {movement}, which is a norm of {counters:.3g}. "
        "Flower's clipping counts them, so that they take the bound up and the update shrinks with "
        f"them.{left} It looks protected for the wrong reason. Leave buffers out of what is "
        "clipped, or use a network without batch norm"
    )
    return Protection(COUNTED, True, evidence, number, len(usable), usable[0].norm)


def is_whole(value: float) -> bool:
    """Whether a counter moved by whole steps, as exactly as float32 arithmetic leaves it."""
    return math.isfinite(value) and abs(value - round(value)) <= 1e-4 * max(1.0, abs(value))


def _bound(norms: Sequence[float]) -> tuple[float, int] | None:
    """The largest norm, where at least three clients and a third of all share it."""
    top = max(norms)
    count = sum(norm >= top * (1 - COMMON) for norm in norms)
    return (top, count) if count >= max(3, math.ceil(len(norms) / 3)) else None


def _noise(number: int, usable: Sequence[Measures], facts: Facts) -> list[Protection]:
    absent = missing_noise(number, usable, facts)
    if absent:
        return absent
    deviations = [d for m in usable if (d := _noise_deviation(m)) is not None]
    if not deviations:
        return []
    middle = sorted(deviations)[len(deviations) // 2]
    evidence = (
        f"in {len(deviations)} of {len(usable)} updates all layers have the same root mean square "
        f"({middle:.3g}) and values are distributed normally, as under Gaussian noise that drowns "
        "the update"
    )
    return [Protection("noise", False, evidence, number, len(deviations), middle)]


def _sparsity(number: int, usable: Sequence[Measures]) -> list[Protection]:
    """Zeros spread over all large layers, and not in whole rows: idle units have these, too."""

    def spread(m: Measures) -> bool:
        large = [layer for layer in m.layers.values() if layer.size >= 1000 and layer.norm]
        shares = ((layer.zeros - layer.idle) / (layer.size - layer.idle) for layer in large)
        return len(large) > 0 and all(share >= 0.5 for share in shares)

    sparse = [m for m in usable if spread(m)]
    if not sparse:
        return []
    share = sorted(m.zeros for m in sparse)[len(sparse) // 2]
    evidence = (
        f"in {len(sparse)} of {len(usable)} updates {share:.1%} of the numbers are exactly 0, and "
        "at least half in every large layer: pruned, or the largest only are sent"
    )
    return [Protection("sparsity", False, evidence, number, len(sparse), share)]


def _quantization(number: int, usable: Sequence[Measures], facts: Facts) -> list[Protection]:
    few = [m for m in usable if m.distinct[1] >= 500 and m.distinct[0] <= 256]
    if few:
        levels, values = few[0].distinct
        evidence = (
            f"in {len(few)} of {len(usable)} updates {values} values of the largest layer take "
            f"{levels} levels"
        )
        return [Protection("quantization", False, evidence, number, len(few), float(levels))]
    half = [m for m in usable if m.half and m.distinct[1] >= 500]
    if half and facts.precision is None:  # else the recording rounded them
        evidence = f"the values of {len(half)} of {len(usable)} updates fit into 16 bits"
        return [Protection("quantization", False, evidence, number, len(half), 65536.0)]
    return []


def _absent(
    number: int, usable: Sequence[Measures], broadcast: Mapping[str, Tensor], facts: Facts
) -> list[Protection]:
    """Layers that nobody sends, and layers that nobody changes."""
    protections = []
    names = [n for n in broadcast if not is_buffer(n, facts.buffers)]
    missing = [n for n in names if not any(n in m.layers or n in m.whole for m in usable)]
    if missing:
        few = first_few(missing, quote=True)
        evidence = f"nobody sent {few}, which the server had sent: kept on the devices"
        protections.append(("missing layers", evidence, missing))
    still = Counter(n for m in usable for n, layer in m.layers.items() if layer.norm == 0)
    frozen = [name for name, count in still.items() if count == len(usable)]
    if frozen:
        few = first_few(frozen, quote=True)
        evidence = f"no update changes {few}: frozen, or out of reach of the loss"
        protections.append(("frozen layers", evidence, frozen))
    return [
        Protection(name, False, evidence, number, len(usable), names=tuple(layers))
        for name, evidence, layers in protections
    ]


def _buffers(
    number: int,
    usable: Sequence[Measures],
    facts: Facts,
    protections: Sequence[Protection],
    broadcast: Mapping[str, Tensor],
) -> tuple[Protection, ...]:
    """Running statistics beside a protected update; whole counters show that they were left out."""
    seen = {one.name: one for one in protections}
    clear = [m for m in usable if m.buffers and all(is_whole(c) for c in m.counters)]
    if "noise" in seen and (deviation := seen["noise"].value):
        numbers = sum(t.numel() for n, t in broadcast.items() if f".{n}".endswith(STATISTICS))
        clear = [m for m in clear if not _have_noise(m, deviation, numbers)]
    is_private = bool(facts.dp or facts.protections or {"noise", "clipping"} & seen.keys())
    if not clear or COUNTED in seen:
        return ()
    way = "moved" if all(c >= 0 for m in clear for c in m.counters) else "went backwards"
    evidence = (
        f"{len(clear)} of {len(usable)} updates come with {len(clear[0].buffers)} batch-norm "
        f"buffers, whose counters {way} by whole steps: running statistics of the client's images "
        "are sent as they are"
    )
    if is_private:
        evidence += ", outside the protection of the parameters"
    return (Protection("buffers in clear", is_private, evidence, number, len(clear)),)


def _have_noise(measures: Measures, deviation: float, numbers: int) -> bool:
    """Whether running statistics have the noise that parameters have: single numbers have none."""
    rest = measures.norm_of_all**2 - measures.norm**2 - sum(c**2 for c in measures.counters)
    norm = deviation * math.sqrt(numbers)
    return numbers > 0 and abs(math.sqrt(max(0.0, rest)) - norm) < 0.25 * norm
