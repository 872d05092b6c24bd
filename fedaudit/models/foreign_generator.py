"""Generators of the user's own: TorchScript, torch.export, or any Python factory."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fedaudit.errors import UsageError
from fedaudit.registry import import_object

_USUAL_WIDTHS = (100, 128, 256, 512)
_SLACK = 1e-3


class ForeignGenerator(nn.Module):
    """A user's own generator, its output mapped to [0, 1].

    Args:
        network: `z → images`.
        latent_dim: Width of `z`.
        as_map: Whether it takes `z` as `[N, D, 1, 1]` rather than `[N, D]`.
        signed: Whether its output is in [-1, 1].
    """

    def __init__(
        self, network: Callable[[Tensor], Tensor], latent_dim: int, *, as_map: bool, signed: bool
    ) -> None:
        super().__init__()
        self.network, self.latent_dim = network, latent_dim
        self.as_map, self.signed = as_map, signed

    def forward(self, z: Tensor) -> Tensor:
        """Images `[N, 3|1, H, W]` in [0, 1] from latent vectors `[N, latent_dim]`."""
        images = self.network(z[:, :, None, None] if self.as_map else z)
        return (images + 1) / 2 if self.signed else images


def load_foreign(source: str, latent_dim: int | None) -> nn.Module:
    """See `fedaudit.models.generator.load_generator`, which this does for all but our own.

    Raises:
        UsageError: The source cannot be loaded, or gives something that is not images.
    """
    network = _load(source)
    if isinstance(network, nn.Module):
        for parameter in network.parameters():
            parameter.requires_grad = False
    wrapped = _probe(network, source, latent_dim)
    plain = not wrapped.as_map and not wrapped.signed
    if plain and isinstance(network, nn.Module) and hasattr(network, "forward_from"):
        return network  # it needs no mapping, and an attack may want its stages
    return wrapped


def _load(source: str) -> Callable[[Tensor], Tensor]:
    path = Path(source)
    if path.suffix not in {".ts", ".pt", ".pt2"}:
        if ":" in source:
            made: Callable[[Tensor], Tensor] = import_object(source)()
            return made.eval() if isinstance(made, nn.Module) else made
        raise UsageError(
            f"generator {source!r} is neither 'face_gan', a TorchScript file (.ts, .pt), a "
            "torch.export file (.pt2), nor package.module:factory."
        )
    if not path.is_file():
        raise UsageError(f"there is no generator file {source}. Check the path.")
    try:
        return _load_exported(path) if path.suffix == ".pt2" else _load_script(path)
    except UsageError:
        raise
    except Exception as error:  # torch raises whatever its readers raise
        reason = str(error).strip().split("\n")[0]
        raise UsageError(
            f"cannot load {source}: {reason}. A .pt or .ts file must come from torch.jit.save and "
            "a .pt2 file from torch.export.save; a bare state dict does not say what network it "
            "belongs to, so name its factory as package.module:factory instead."
        ) from error


def _load_script(path: Path) -> nn.Module:
    # Read by TorchScript's own reader in C++, which builds tensors and script classes only.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return module.eval()


def _load_exported(path: Path) -> nn.Module:
    """A torch.export program, refused where reading it would run pickles or native code."""
    try:
        records = torch._C.PyTorchFileReader(str(path)).get_all_records()
    except RuntimeError:
        records = []  # the format before torch 2.8, with none of these but pickles; see below
    for record in records:
        folder, _, name = record.rpartition("/")
        inert = not folder.endswith("constants") or name.startswith("tensor_")
        if "aotinductor" in record or not (inert or name.endswith(".json")):
            raise UsageError(
                f"{path} holds {record!r}, compiled code or a pickled object, and is refused. "
                "Export the plain network with torch.export.save."
            )
    # torch.export.load asks for unrestricted unpickling; this switch overrules it.
    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        return torch.export.load(path).module()
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before


def _probe(network: Callable[[Tensor], Tensor], source: str, dim: int | None) -> ForeignGenerator:
    """Find out how a generator wants its latent vector and what range it answers in."""
    own = dim or getattr(network, "latent_dim", None)
    noise = torch.Generator().manual_seed(0)
    reason = ""
    for width in (own,) if own else _USUAL_WIDTHS:
        z = torch.randn(3, width, generator=noise).requires_grad_()
        for as_map in (False, True):
            try:
                images = network(z[:, :, None, None] if as_map else z)
            except Exception as error:  # a foreign network may raise anything
                reason = reason or str(error).strip().split("\n")[0]
                continue
            signed = _checked_images(images, source)
            return ForeignGenerator(network, width, as_map=as_map, signed=signed)
    raise UsageError(
        f"generator {source!r} takes neither z [N, D] nor z [N, D, 1, 1] with D = "
        f"{own or 'any of ' + ', '.join(map(str, _USUAL_WIDTHS))} and N = 3: {reason}. Give it an "
        "attribute latent_dim, or name the width in the settings; export it with a free batch size."
    )


def _checked_images(images: object, source: str) -> bool:
    """Whether a generator's output is signed; refuses what is not images."""
    needed = (
        "Needed are images [N, 3, H, W] or [N, 1, H, W] in [0, 1] or [-1, 1], differentiable in z."
    )
    if not isinstance(images, Tensor):
        raise UsageError(f"generator {source!r} gave {type(images).__name__}. {needed}")
    if not images.numel():
        raise UsageError(f"generator {source!r} gave {list(images.shape)} for N = 3. {needed}")
    low, high = images.detach().min().item(), images.detach().max().item()
    facts = f"{list(images.shape)} with values {low:.3g} to {high:.3g}"
    if images.dim() != 4 or len(images) != 3 or images.shape[1] not in {1, 3}:
        raise UsageError(f"generator {source!r} gave {facts} for N = 3. {needed}")
    if not images.isfinite().all() or low < -1 - _SLACK or high > 1 + _SLACK:
        raise UsageError(f"generator {source!r} gave {facts}. {needed}")
    if not images.requires_grad:
        raise UsageError(f"generator {source!r} gave {facts}, cut off from z. {needed}")
    return low < -_SLACK
