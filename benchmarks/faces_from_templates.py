"""Two further ways from templates to faces: a generator's latents, and a learned decoder.

`class_templates.py` measures them beside the attack that a study would run.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.generators.auxiliary import Auxiliary
from fedaudit.attacks.generators.eigenfaces import kept_faces
from fedaudit.attacks.generators.face_generator import FaceGenerator
from fedaudit.attacks.learned.decoder import VectorDecoder, teach
from fedaudit.attacks.search.movers.gradient_descent import Search
from fedaudit.attacks.templates.read_templates import read_templates
from fedaudit.attacks.templates.template_inversion import Embeddings
from fedaudit.core.observation import Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.seeds import draw_seeded
from fedaudit.models.build_network import build
from fedaudit.models.facenet import require_face_net

CANDIDATES, LATENT_STEPS, LATENT_LR, LATENT_WEIGHT = 1000, 150, 0.05, 0.01
"""Of a search through latents: faces that are tried as starts, steps of Adam, peak step, and the
weight of |z|²/dim. Set by hand."""
LEARNED, EPOCHS = 4000, 5
"""Faces that a decoder learns from, and how often it sees each. Set by hand."""


def through_latents(
    seen: Observation, source: str, limit: int, generator: torch.Generator
) -> Reconstruction:
    """Faces that a generator draws from the latents whose embeddings meet the templates best."""
    assert seen.image_shape is not None
    rows = read_templates(seen, limit)
    network = require_face_net(build(seen.model, seen.before), "the benchmark").eval()
    network.requires_grad_(False)
    faces = FaceGenerator(source=source).load(seen.image_shape, grayscale=True)
    latents = faces.sample(CANDIDATES, generator)
    with torch.no_grad():
        drawn = torch.cat([faces.images(part) for part in torch.split(latents, 50)])
    ours = Embeddings.of(network, drawn[:, :1], rows.rows, seen.image_shape[0])
    with torch.no_grad():
        away = (ours.seen - ours.seen.mean(0)) @ ours.whitener
        near = F.normalize(away, dim=1) @ F.normalize(ours.target @ ours.whitener, dim=1).T
    free = latents[near.argmax(0)].clone().requires_grad_()

    def losses() -> Tensor:
        return ours.distance(faces.images(free)) + LATENT_WEIGHT * free.square().flatten(1).mean(1)

    search = Search([free], LATENT_LR, LATENT_STEPS)
    for _ in range(LATENT_STEPS):
        search.step(losses)
    search.restore()
    with torch.no_grad():
        return Reconstruction(faces.images(free).clamp(0, 1), rows.labels, of="people")


def through_decoder(
    seen: Observation, blind: Observation, source: str, limit: int
) -> tuple[Reconstruction, Reconstruction]:
    """Faces of both by a network that learned on generated faces to draw them from embeddings."""
    assert seen.image_shape is not None
    rows = read_templates(seen, limit)
    network = require_face_net(build(seen.model, seen.before), "the benchmark").eval()
    auxiliary, shape = Auxiliary(source=source), seen.image_shape
    faces = kept_faces(auxiliary, LEARNED, shape, grayscale=True, seed=0, cache=None)
    ours = Embeddings.of(network, faces, rows.rows, shape[0])
    control = Embeddings.of(network, faces, read_templates(blind, limit).rows, shape[0])

    def entries(vectors: Tensor) -> Tensor:
        return F.normalize(vectors @ ours.whitener, dim=1) * vectors.shape[1] ** 0.5

    decoder = draw_seeded(lambda: VectorDecoder(ours.seen.shape[1], (1, *shape[1:])), 0)
    own = entries(ours.seen - ours.seen.mean(0))
    teach(decoder, own, faces[:, None], epochs=EPOCHS, seed=0)
    with torch.no_grad():
        drawn = [decoder(entries(one.target))[:, 0] for one in (ours, control)]
    found, made_up = (
        Reconstruction(x.expand(-1, shape[0], -1, -1).contiguous(), rows.labels, of="people")
        for x in drawn
    )
    return found, made_up
