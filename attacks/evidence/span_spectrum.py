"""Which directions of a layer's gradient are certain, by its singular values.

A gradient has as many as there are positions in the batch; beyond that number its spectrum shows
rounding, noise, or the drift of several local steps, and directions below that are not believed.

Of signs, which signSGD sends and which a step of Adam nearly is, rows lie near the span of inputs
whose columns are divided by their lengths: a sign is its number over its own size, and how large a
column's numbers are goes with that column of the inputs. What a sign has beside a multiple of its
number is nearly independent from entry to entry, and of known size.
"""

import math
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import LayerSpan
from fedaudit.attacks.evidence.layer_unfolding import is_centered, matrices_of
from fedaudit.attacks.evidence.own_directions import leading_rows, own_directions

GAP = 2.0
"""Singular values must exceed the largest that is none of the signal's by this factor."""
PRECISION = 1e-5
"""Relative size of singular values below which they are rounding."""
# Of sixteen photos of p01 and p02 of OpenPeople through a ResNet-18 in training mode, 256 positions
# and as many rows, the last three are 2e-5, 1e-5 and 2e-8: with `PRECISION` two of three layers'
# maps are missed (benchmarks/subspace.py --maps --batch 16 --people p01 p02, with --set
# attacks.evidence.span_spectrum.SQUARE_PRECISION=1e-5).
SQUARE_PRECISION = 1e-6
"""The same of a batch's gradient with fewer than two rows a position: near a square matrix, the
smallest singular values are small by themselves, and a layer's maps need the last of them."""
DRIFT = 0.01
"""The same of an update of several steps whose spectrum does not show it."""
FOLLOWED = 0.002
"""The same where what enters layers is followed step by step (`mini_batches`): of sixteen photos of
p01 and p02 after two epochs, replayed on images of SSIM 0.59, smaller ones are missed by 0.01."""
SIGN_NOISE = (1 - 2 / math.pi) ** 0.5
"""Standard deviation of what the sign of a normal number has beside a multiple of that number."""
SPARE = 8
"""Singular values beyond the number of positions that are looked at."""


def find_spans(
    reader: InputReader,
    target: Mapping[str, Tensor],
    *,
    private: Collection[str] = (),
    clean: bool = False,
    noise: Callable[[str], float] = lambda _: 0.0,
    least: int = 0,
    gaps: bool = False,
    signs: bool = False,
) -> tuple[LayerSpan, ...]:
    """What the gradient of each layer gives away, in the order of the forward pass.

    How many directions are certain, the spectrum says: beyond the number of positions it shows what
    is noise, or the drift of several local steps. Layers that have no such singular values are
    taken to be as inexact as the others.

    Args:
        reader: Of the network.
        target: Mean gradient by parameter name.
        private: Names of local parameters; layers behind the first of them are left out, because
            what dummy images send there is not known.
        clean: The update is one exact gradient.
        noise: Standard deviation of independent noise on an entry, by parameter.
        least: Directions that each layer is believed, however uncertain.
        gaps: Columns of zeros were not sent (Soteria): what inputs have there is not compared, not
            even where it was zero for everybody.
        signs: Of most numbers of the gradient only the sign is left (`SIGN_NOISE`).
    """
    positions = reader.positions(private)
    spectra, epochs, errors = {}, {}, {}
    for name in positions:
        if name in target and not (signs and reader.derives(name)):
            error = 0.0 if clean else DRIFT
            gradient, each = reader.gradient_of(name, target, error=error, noise=noise(name))
            matrix = matrices_of(reader.layers[name][0], gradient).double()
            total = reader.count * positions[name].positions
            epochs[name] = max(min(reader.epochs, (positions[name].width - 1) // total), 1)
            total *= epochs[name]
            errors[name] = 0.0 if each is None else float(each.max())
            if errors[name] > PRECISION * float(matrix.norm()) and total < matrix.shape[1]:
                along = matrices_of(reader.layers[name][0], reader.direction_of(name))
                matrix, errors[name] = matrix + own_directions(matrix, along, total), 0.0
            spectra[name] = leading_rows(matrix, total + SPARE)
    totals = {n: epochs[n] * reader.count * positions[n].positions for n in spectra}
    beyond = [
        float((sizes[:, totals[name]] / sizes[:, 0].clamp_min(1e-300)).max())
        for name, (sizes, _) in spectra.items()
        if totals[name] < sizes.shape[1]
    ]
    shown = sorted(beyond)[len(beyond) // 2] if beyond else (0.0 if clean else DRIFT)
    spans = []
    for name, (sizes, rows) in spectra.items():
        total, height = totals[name], len(sizes[0])
        first = sizes[:, :1]
        square = reader.count > 1 and total <= reader.sides(name)[0] < 2 * total
        precision = SQUARE_PRECISION if square else PRECISION
        if reader.moments:
            precision = shown = FOLLOWED if epochs[name] == reader.epochs else DRIFT
        floor = max(precision, shown) * first
        if total < height:
            floor = torch.maximum(precision * first, sizes[:, total : total + 1])
        edge = sum(x**0.5 for x in reader.sides(name))  # of a matrix of noise of deviation 1
        loud = max(noise(name) * edge, errors[name])
        if signs:  # what lies beyond the number of positions is that noise, and no precision
            size = float(target[name].square().mean().sqrt())
            floor, loud = torch.zeros_like(floor), max(loud, SIGN_NOISE * size * edge / GAP)
        floor = floor.clamp_min(max(loud, 1e-300))
        sure = sizes[:, :total] > GAP * floor
        sure[:, :least] = True
        rank = int(sure.sum(1).max())
        if not rank:
            continue
        sure, spectrum = sure[:, :rank], sizes[:, :rank].clamp_min(1e-300)
        weights = (1 - (GAP * floor / spectrum).square()).clamp_min(1e-3 if least else 0) * sure
        relative = float((floor / spectrum).where(sure, 0).max())
        whole, full = total <= reader.sides(name)[0], bool(sure.all()) and rank == total
        spans.append(
            LayerSpan(
                name=name,
                positions=positions[name].positions,
                basis=rows[:, :rank],
                weights=weights,
                whole=whole,
                full=full,
                floor=relative,
                certain=positions[name].certain,
                epochs=epochs[name],
                sent=_sent(reader, name, target[name]) if gaps else None,
                signs=signs,
                centered=is_centered(reader.layers[name][0]),
            )
        )
    return tuple(spans)


def _sent(reader: InputReader, name: str, gradient: Tensor) -> Tensor | None:
    """The columns `[F]` of a layer's gradient that are not zero; None where none is."""
    zero = (matrices_of(reader.layers[name][0], gradient.detach()) == 0).all(1).all(0)
    return ~zero if bool(zero.any()) else None
