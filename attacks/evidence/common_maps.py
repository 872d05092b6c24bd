"""Whole maps that enter a convolution, out of the span of their patches, in closed form.

A gradient with as many rows as the batch has positions gives all that the patches of a layer's
inputs span (`layer_spans`). Patches overlap: of all maps, hardly any but the batch's own have every
patch in that span. They are the null space of a linear system, of one dimension an image, found in
a second without a label, a head or a search. How the images of a batch are mixed, zeros tell
(`unmixed_maps`); how long each map is stays open. Dimitrov et al. (NeurIPS 2024, "SPEAR") know so
what enters a fully connected layer; for convolutions, overlap does the rest.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.layer_spans import LayerSpan
from fedaudit.attacks.evidence.layer_unfolding import Called
from fedaudit.attacks.evidence.unmixed_maps import in_one_order, unmix
from fedaudit.models.batch_norm import batch_norm_layers

# Of ResNet-18 at 64 px, on photos of p01 and p02 of OpenPeople, batches of 1, 4 and 8, both modes:
# the batch's maps are outside of the span by 1e-10 and less, the next map by 5e-3 and more.
GAP = 0.01
"""Largest ratio of the two at which the batch's maps are told from others."""
WIDE_GAP = 0.1
"""The same where gradients were completed. Set by hand: of eight photos of p01 and p02 one of three
layers has 0.1, the others 0.001 and 0.005."""
SPARE = 2
"""Maps beyond those of the batch that are looked for, to see the gap."""
LOOKS, PRODUCTS = 8, 10
"""Looks at the gap, and products with the operator before each."""
SETTLED = 1e-9
"""Square outside of the span that is rounding."""
ORTHOGONAL, TRIES = 1e-10, 3
"""Cosine up to which rows are orthogonal, and how often a block is made so."""
LARGEST = 50_000_000
"""Numbers that the search for maps may keep; layers that need more are left to their patches."""
ENOUGH = 1.5
"""Numbers an unknown pixel that whole maps give, from which on later layers add nothing; 1 of a
batch, whose maps are known apart."""

Operator = Callable[[Tensor], Tensor]


def with_whole_maps(
    reader: InputReader, spans: tuple[LayerSpan, ...], pixels: int, *, exact: bool = True
) -> tuple[LayerSpan, ...]:
    """The spans, and those of whole maps (`LayerSpan.of_maps`) that follow from them.

    All behind the maps that decide the images is left out, and no pass is run so far. Of one image
    the spans of the same layers' patches stay: they weigh all directions alike, also those in which
    maps hardly differ. Of a batch only maps that come apart (`unmix`) lead a search further than
    patches do, where they have a number a pixel; the spans of their patches are left out.

    Args:
        reader: Of the network.
        spans: In the order of the forward pass.
        pixels: Unknown numbers of one image.
        exact: The spans are those of the gradient, to rounding.
    """
    single = reader.count == 1
    known: dict[str, Tensor] = {}
    needed: list[LayerSpan] = []
    for span in spans:
        if sum(rows.shape[1] for rows in known.values()) >= (ENOUGH if single else 1) * pixels:
            break
        basis = common_maps(reader, span, exact=exact)
        rows = basis if basis is None or single else unmix(basis, exact=exact)
        if rows is not None:
            known[span.name] = rows
        needed.append(span)
    if not single:
        known = in_one_order(reader, known)
        if sum(rows.shape[1] for rows in known.values()) < pixels:
            return spans
        needed = [span for span in needed if span.name not in known]
    maps = [
        replace(
            span,
            positions=1,
            basis=known[span.name][None],
            weights=known[span.name].new_ones(1, reader.count),
            of_maps=True,
            alone=not single,
        )
        for span in spans
        if span.name in known
    ]
    return (*needed, *maps)


def common_maps(reader: InputReader, span: LayerSpan, *, exact: bool = True) -> Tensor | None:
    """Orthonormal `[N, C·H·W]` that span the maps of a batch of N; None where they do not follow.

    Behind batch norm in training mode upstream gradients sum to zero, and the span is one of
    differences of patches: the patches of each map lie in it but for their mean.
    """
    layer, count = reader.layers[span.name][0], reader.count
    has_mean = any(m.training for m in batch_norm_layers(reader.model).values())
    missing = count * span.positions - int((span.weights > 0).sum())
    if not span.whole or missing != has_mean or span.signs:
        return None
    if not _couples(layer) or len(reader.layers[span.name]) > 1:
        return None
    assert isinstance(layer, nn.Conv2d)
    seen = torch.zeros(min(count, 2), *reader.shape).to(layer.weight)
    with torch.no_grad():
        shape = reader.inputs([span.name], seen)[span.name][0][1].shape[1:]
    if 2 * LOOKS * PRODUCTS * (count + SPARE) * shape.numel() > LARGEST:
        return None
    basis = span.basis[0, span.weights[0] > 0]
    counts = _cover_count(layer, shape).to(basis)
    operator = _projection(layer, basis, counts, has_mean=has_mean)
    outside, maps = _leading(operator, (count + SPARE, *shape), counts)
    if outside[count - 1] > (GAP if exact else WIDE_GAP) * outside[count]:
        return None
    own: Tensor = torch.linalg.qr((maps[:count] / counts.sqrt()).flatten(1).T).Q.T
    return own


def _couples(layer: nn.Module) -> bool:
    """Whether patches overlap so that one says what its neighbors are.

    Steps, like padding on one side alone, leave shifted maps open: they have no other patches.
    Layers of derived weights are left out: the span may lack the patches' means.
    """
    if not isinstance(layer, nn.Conv2d) or isinstance(layer, Called):
        return False
    if layer.groups > 1 or layer.padding_mode != "zeros":
        return False
    single = all(n == 1 for n in (*layer.stride, *layer.dilation))
    return single and not isinstance(layer.padding, str) and max(layer.kernel_size) > 1


def _cover_count(layer: nn.Conv2d, shape: torch.Size) -> Tensor:
    """By how many patches each place of a map is held, `[1, H, W]`."""
    return _fold(layer, _patches(layer, torch.ones(1, 1, *shape[1:])), shape)[0]


def _patches(layer: nn.Conv2d, maps: Tensor) -> Tensor:
    """`[k, C, H, W]` → `[k, C·h·w, positions]`."""
    assert not isinstance(layer.padding, str)
    return F.unfold(maps, layer.kernel_size, layer.dilation, layer.padding, layer.stride)


def _fold(layer: nn.Conv2d, patches: Tensor, shape: torch.Size) -> Tensor:
    """The adjoint of `_patches`."""
    assert not isinstance(layer.padding, str)
    size = tuple(shape[-2:])
    return F.fold(patches, size, layer.kernel_size, layer.dilation, layer.padding, layer.stride)


def _projection(layer: nn.Conv2d, basis: Tensor, counts: Tensor, *, has_mean: bool) -> Operator:
    """The projection of maps' patches on their span, as a symmetric operator on `[k, C, H, W]`.

    In units in which a map is as long as all its patches; a map within the span is mapped on
    itself. `has_mean`: the mean patch of a map is not projected.
    """
    kernel = basis.view(len(basis), -1, *layer.kernel_size)
    assert not isinstance(layer.padding, str)
    places = (layer.stride, layer.padding, layer.dilation)

    def project(vector: Tensor) -> Tensor:
        maps = vector / counts.sqrt()
        parts = F.conv2d(maps, kernel, None, *places)
        if has_mean:
            parts = parts - parts.mean((2, 3), keepdim=True)
        back: Tensor = conv2d_input(maps.shape, kernel, parts, *places)  # type: ignore[no-untyped-call]
        if has_mean:
            patches = _patches(layer, maps)
            mean = patches.mean(2, keepdim=True).expand_as(patches)
            back = back + _fold(layer, mean, maps.shape)
        return back / counts.sqrt()

    return project


def _leading(operator: Operator, size: tuple[int, ...], like: Tensor) -> tuple[Tensor, Tensor]:
    """The maps `[k, C, H, W]` that the operator keeps most of, and what it takes, ascending.

    A block Krylov method (Musco & Musco, NeurIPS 2015): the maps of a batch are alike to the
    operator, which methods with single vectors cannot tell apart.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(size, generator=generator).to(like)
    block = torch.linalg.qr(start.flatten(1).T).Q
    width, looked = size[0], LOOKS * PRODUCTS
    # By rows, and all of it at once: what grows by copies costs as much as the products do.
    space = block.new_empty(width * (looked + 1), len(block))
    images = block.new_empty(width * looked, len(block))
    space[:width], done = block.T, 0
    for _ in range(LOOKS):
        for _ in range(PRODUCTS):
            image = operator(space[done : done + width].reshape(size)).flatten(1)
            images[done : done + width] = image
            done += width
            following = _orthogonal(image, space[:done], 2 * width)
            if following is None:
                break
            space[done : done + width] = following
        whole = space[:done] @ images[:done].T
        values, vectors = torch.linalg.eigh((whole + whole.T) / 2)
        outside = (1 - values.flip(0)[: size[0]]).clamp_min(0)
        if following is None or outside[-1 - SPARE] < SETTLED:
            break
    maps = vectors.flip(1)[:, :width].T @ space[:done]
    return outside, maps.reshape(size)


def _orthogonal(block: Tensor, space: Tensor, recent: int) -> Tensor | None:
    """Orthonormal rows that span a block `[k, F]` but for a space; None where nothing is left.

    Small maps have few directions that the operator keeps anything of: when they are used up, what
    is left of a block is rounding, which lies in the space as well as beside it.

    Args:
        block: Rows.
        space: Orthonormal rows.
        recent: Its last rows. Exactly, the others are orthogonal to the block; there is rounding.
    """
    for _ in range(TRIES):
        for known in (space[-recent:], space):
            block = block - (block @ known.T) @ known
        block = torch.linalg.qr(block.T).Q.T
        if float((block @ space.T).abs().max()) < ORTHOGONAL:
            return block
    return None
