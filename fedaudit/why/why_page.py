"""The explanation as one HTML file: a pure function of `why.json`, pictures and evidence level."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch
from jinja2 import ChoiceLoader, Environment, FileSystemLoader
from markupsafe import Markup
from torch import Tensor

from fedaudit.core.measures import Evidence
from fedaudit.reports import charts, html
from fedaudit.reports.csp import policy
from fedaudit.reports.figures import Figure
from fedaudit.reports.pictures import data_uri
from fedaudit.reports.text import clean
from fedaudit.reports.wording import CLOSING
from fedaudit.why import plots, sentences
from fedaudit.why.explanation_results import Why, canonical_bytes

_TEMPLATES = Path(__file__).parent / "templates"
SIDE, SHOWN = 96, 24
"""Longest side of a picture in pixels, and most images that are shown."""
LEDES = {
    "layers": "Which layer of an update gives the face away, and which would have to be withheld.",
    "rounds": "Whether it passes as the network learns.",
    "regions": "What of the face comes back, and what of it makes the match.",
    "artifacts": "What each thing that is sent, or known, adds for the attacker.",
    "clients": "Whether adding clients up hides them, and who pays for it.",
}
TITLES = {
    "layers": "Layers",
    "rounds": "Rounds",
    "regions": "Regions",
    "artifacts": "Shared things",
    "clients": "Clients",
}


@dataclass(frozen=True)
class Face:
    """Data URIs of one image; the overlay is None where there is no heat."""

    target: int
    image: int
    original: str
    reconstruction: str
    overlay: str | None


def render(why: Why, evidence: Evidence, faces: Sequence[Mapping[str, Tensor]] = ()) -> str:
    """The complete page. Same arguments, same bytes.

    Args:
        why: Contents of `why.json`.
        evidence: "full" shows faces; the other levels show none.
        faces: A target each: `original`, `reconstruction` `[N, C, H, W]` and `heat` `[N, H, W]`.
            Looked at only under full evidence.
    """
    shown = clean(why)
    with charts.unchecked():
        drawn: dict[str, Figure | None] = {
            "layers": plots.layers(shown),
            "rounds": plots.rounds(shown),
            "regions": plots.regions(shown),
            "artifacts": plots.artifacts(shown),
            "clients": plots.clients(shown),
        }
    css, _ = html._inline()
    sections = [("answer", "Answer"), *TITLES.items()]
    sections += [("method", "How it was measured"), ("limitations", "Limitations")]
    return (
        _environment()
        .get_template("why.html")
        .render(
            w=shown,
            evidence=evidence,
            digest=sha256(canonical_bytes(why)).hexdigest(),
            css=Markup(css),  # our own file, hashed in the policy
            policy=policy(styles=[css], scripts=[]),
            sections=[*sections, ("source", "Source")],
            parts=[(id_, TITLES[id_], LEDES[id_], figure) for id_, figure in drawn.items()],
            findings=sentences.findings(shown),
            faces=_faces(faces) if evidence == "full" else (),
            wording=sentences,
            closing=CLOSING,
        )
    )


def _faces(targets: Sequence[Mapping[str, Tensor]]) -> list[Face]:
    found = []
    for number, tensors in enumerate(targets):
        for image, (original, made) in enumerate(
            zip(tensors["original"], tensors["reconstruction"], strict=True)
        ):
            heat = tensors.get("heat")
            over = None if heat is None else data_uri(overlay(made, heat[image]), SIDE)
            found.append(Face(number, image, data_uri(original, SIDE), data_uri(made, SIDE), over))
    return found[:SHOWN]


def overlay(image: Tensor, heat: Tensor) -> Tensor:
    """The image in gray under its heat in red, `[3, H, W]` in [0, 1].

    Args:
        image: `[C, H, W]` in [0, 1].
        heat: `[H, W]`, ≥ 0; its largest value is drawn strongest.
    """
    gray = image.mean(0).clamp(0, 1)
    strength = 0.7 * heat / heat.max().clamp_min(1e-12)
    red = torch.tensor([0.85, 0.1, 0.1])[:, None, None]
    mixed: Tensor = gray * (1 - strength) + red * strength
    return mixed


@cache
def _environment() -> Environment:
    """The reports' own, with our template beside theirs."""
    environment = html._environment()
    assert environment.loader is not None
    loader = ChoiceLoader([FileSystemLoader(_TEMPLATES), environment.loader])
    return environment.overlay(loader=loader)
