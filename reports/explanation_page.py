"""An explanation as one HTML file: a pure function of `why.json`, pictures and evidence level."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor

from fedaudit.core.measures import Evidence
from fedaudit.reports import charts
from fedaudit.reports.explanation import Explanation
from fedaudit.reports.explanation_figures import figures
from fedaudit.reports.explanation_wording import findings
from fedaudit.reports.html import page
from fedaudit.reports.pictures import data_uri
from fedaudit.reports.serialization import canonical_bytes
from fedaudit.reports.text import clean

SIDE, SHOWN = 96, 24
"""Longest side of a picture in pixels, and most images that are shown."""
PARTS = {
    "layers": (
        "Layers",
        "Which layer of an update gives the face away, and which would have to be withheld.",
    ),
    "rounds": ("Rounds", "Whether it passes as the network learns."),
    "regions": ("Regions", "What of the face comes back, and what of it makes the match."),
    "artifacts": ("Shared things", "What each thing that is sent, or known, adds."),
    "clients": ("Clients", "Whether adding clients up hides them, and who pays for it."),
}
"""Title and lede of each."""


@dataclass(frozen=True)
class Face:
    """Data URIs of one image; the overlay is None where there is no heat."""

    target: int
    image: int
    original: str
    reconstruction: str
    overlay: str | None


def render(
    explanation: Explanation, evidence: Evidence, faces: Sequence[Mapping[str, Tensor]] = ()
) -> str:
    """The complete page. Same arguments, same bytes.

    Args:
        explanation: Contents of `why.json`.
        evidence: "full" shows faces; the other levels show none.
        faces: A target each: `original`, `reconstruction` `[N, C, H, W]` and `heat` `[N, H, W]`.
            Looked at only under full evidence.
    """
    cleaned = clean(explanation)
    with charts.unchecked():
        svgs = figures(cleaned)
    titles = [(name, title) for name, (title, _) in PARTS.items()]
    sections = [("answer", "Answer"), *titles, ("method", "How it was measured")]
    content = {
        "w": cleaned,
        "parts": [(name, *PARTS[name], figure) for name, figure in svgs.items()],
        "findings": findings(cleaned),
        "faces": _faces(faces) if evidence == "full" else (),
        "version": cleaned.source.fedaudit,
        "schema": f"why schema {cleaned.schema_version}",
        "source": "source",
    }
    return page(
        "why.html",
        content,
        [*sections, ("limitations", "Limitations"), ("source", "Source")],
        evidence=evidence,
        digest=sha256(canonical_bytes(explanation)).hexdigest(),
    )


def _faces(targets: Sequence[Mapping[str, Tensor]]) -> list[Face]:
    faces = []
    for target, tensors in enumerate(targets):
        pairs = zip(tensors["original"], tensors["reconstruction"], strict=True)
        for k, (original, image) in enumerate(pairs):
            heat = tensors.get("heat")
            over = None if heat is None else data_uri(overlay(image, heat[k]), SIDE)
            faces.append(Face(target, k, data_uri(original, SIDE), data_uri(image, SIDE), over))
    return faces[:SHOWN]


def overlay(image: Tensor, heat: Tensor) -> Tensor:
    """The image in gray under its heat in red, `[3, H, W]` in [0, 1].

    Args:
        image: `[C, H, W]` in [0, 1].
        heat: `[H, W]`, ≥ 0; its largest value is drawn strongest.
    """
    gray = image.mean(0).clamp(0, 1)
    strength = 0.7 * heat / heat.max().clamp_min(1e-12)
    red = torch.tensor([0.85, 0.1, 0.1])[:, None, None]
    blend: Tensor = gray * (1 - strength) + red * strength
    return blend
