"""Template inversion: a face for every class embedding or cluster center that the server holds."""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.adaptive.assumptions import how_adaptive
from fedaudit.attacks.evidence.grayscale import is_gray
from fedaudit.attacks.gathering.gather import mean_gradient
from fedaudit.attacks.generators.auxiliary import Auxiliary
from fedaudit.attacks.generators.eigenfaces import Eigenfaces, kept_faces
from fedaudit.attacks.search.movers.gradient_descent import Search
from fedaudit.attacks.search.trace import Trace
from fedaudit.attacks.templates.read_templates import KINDS, read_templates
from fedaudit.core.errors import AttackError, KnowledgeError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import AttackCategory, Progress
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.models.build_network import build
from fedaudit.models.facenet import FaceNet, require_face_net

PART = 256
# Set by hand; what they reach is measured by benchmarks/class_templates.py.
RIDGE = 1e-3
"""Of the regression, relative to the mean variance of an embedding's entries."""
WHITEN = 0.03
"""Variance, relative to the mean, below which directions of the embedding count less and less; more
where the rows are noisy."""
UNLIKELY = 0.01
"""Share of faces whose embedding lies as far from the mean as a row that is taken for no feature.
"""
JITTER = 0.1
"""Deviation of restarts around the regression's face, in units of the faces' own."""


@dataclass(frozen=True)
class Embeddings:
    """How the audited network sees the attacker's faces, and the rows beside them.

    Attributes:
        network: The audited one.
        seen: `[M, D]` unit embeddings of the attacker's faces.
        target: `[k, D]` what each row says of its face's embedding less the mean, unit length.
        reach: Usual length of an embedding less the mean.
        whitener: `[D, D]` makes the main directions of the embedding count alike: a network that
            was trained on few people tells most faces apart along a handful.
        noise: Variance of what in the rows is no face, relative to that of embeddings.
    """

    network: FaceNet
    seen: Tensor
    target: Tensor
    reach: Tensor
    whitener: Tensor
    noise: float

    @classmethod
    def of(cls, network: FaceNet, faces: Tensor, rows: Tensor, channels: int) -> "Embeddings":
        """Embed the faces `[M, c, H, W]`, and tell features from trained weights.

        FedFace's row is a mean feature, and features share a large common part. A trained row of a
        softmax head says how its people differ from others, and what it has along that part says
        how sure the head was. So a row that lies as near to the mean face as faces do is taken for
        a feature, and the mean is taken from it; of others, what lies along the mean is left out.
        """
        with torch.no_grad():
            parts = [
                network.embed(p.expand(-1, channels, -1, -1)) for p in torch.split(faces, PART)
            ]
        embeddings = torch.cat(parts)
        middle = embeddings.mean(0)
        near = F.normalize(middle, dim=0)
        unit = F.normalize(rows, dim=1)
        features = unit @ near >= torch.quantile(embeddings @ near, UNLIKELY)
        across = unit - (unit @ near)[:, None] * near
        target = torch.where(features[:, None], unit - middle, across)
        reach = (embeddings - middle).norm(dim=1).mean()
        target = F.normalize(target, dim=1)
        spread, axes = torch.linalg.eigh(torch.cov(embeddings.T.double()))
        noise = _noise(target.double() @ axes, spread) / float(spread.mean())
        scale = (spread.clamp_min(0) / spread.mean() + max(WHITEN, noise)).rsqrt()
        return cls(network, embeddings, target, reach, (axes * scale).to(embeddings), noise)

    def distance(self, images: Tensor) -> Tensor:
        """`[n]` 1 − cosine of each image's embedding, less the mean, to its row; n = R·k."""
        away = (self.network.embed(images) - self.seen.mean(0)) @ self.whitener
        target = self.target @ self.whitener
        return 1 - F.cosine_similarity(away, target.repeat(len(away) // len(target), 1))

    def look_gray(self, faces: Tensor) -> bool:
        """Whether most rows are of gray photos, by the same regression; `faces [M, c, H, W]`."""
        if faces.shape[1] < 2:
            return False
        gray = (faces - faces[:, :1]).abs().amax((1, 2, 3)) < 1e-3
        return bool(self.regression(gray.to(faces)[:, None]).mean() > 0.5)

    def regression(self, shapes: Tensor) -> Tensor:
        """Faces that the rows are likely of: `[k, P]` from the attacker's `shapes [M, P]`.

        The best linear guess of standardized pixels from an embedding (ridge regression).
        """
        middle, mean = self.seen.mean(0), shapes.mean(0)
        away = (self.seen - middle).double()
        cross, spread = away.T @ (shapes - mean).double(), away.T @ away
        ridge = max(RIDGE, self.noise) * spread.diagonal().mean()
        full = spread + ridge * torch.eye(len(spread)).to(spread)
        weights = torch.linalg.solve(full, cross).to(shapes.dtype)
        guess: Tensor = mean + self.reach * self.target @ weights
        return guess


def _noise(rows: Tensor, spread: Tensor) -> float:
    """Variance an entry of what in `rows [k, D]` is no face, once faces make the usual length.

    A trained row's random start and a center's noise fill all directions alike. Faces fill few:
    `spread [D]`, ascending. So what rows have along the lower half of the axes is noise (derived).
    """
    usual, low = float(spread.sum()), len(spread) // 2
    variance = float(rows[:, :low].square().mean())
    of_faces = max(1e-3, 1 - len(spread) * variance)  # the rows are of unit length
    return max(0.0, variance * usual / of_faces - float(spread[:low].clamp_min(0).mean()))


@dataclass(frozen=True, kw_only=True)
class TemplateInversion:
    """Draw the face behind every template: no gradient is needed.

    A template names a direction of the audited network's embedding; sought is the face whose
    embedding points there. Most images that do are no faces: a network of this size is met to a
    cosine of 1.00 by wrong ones (as Mai et al., TPAMI 2019, and Zhmoginov & Sandler 2016 found,
    from whom the two halves are: a mapping that is learned, and a search through the network). So
    the search stays where faces are: it starts at the face that a regression on the attacker's own
    faces makes of the template, moves along the principal axes of those faces, and pays for how
    unlikely a face is. The faces come from a generator, and 15 of 100 are photos.

    What it draws best is a feature of photos (FedFace in round 1). A trained row of a softmax head
    (FedGC) mixes how its people look with how others do not, and its random start: so far its faces
    are no nearer to the person than by chance (`benchmarks/class_templates.py`).

    Reads class embeddings (FedFace, FedGC), cluster centers (PrivacyFace), and sums of rows behind
    a secure aggregator, out of which each row that one client owns is computed exactly.

    Args:
        limit: Templates at most; the first ones.
        faces: Faces of the attacker's.
        components: Principal axes along which faces move; 0 leaves the regression's faces.
        steps: Steps of the search; 0 leaves the regression's faces.
        restarts: Starts around the regression's face; the one that ends best goes.
        lr: Peak step, in units of the faces' deviation along an axis.
        prior: Weight of how unlikely a face is, beside a cosine distance.
        source: The face generator: "face_gan", a file, or `package.module:factory`.
        photos: A folder of further photos, one folder a person; None for none.
        seed: Of the attacker's faces, so that one set serves all targets.
        cache: Folder for them; None for the user's cache folder, "off" for none.
    """

    limit: int = 64
    faces: int = 4000
    components: int = 400
    steps: int = 100
    restarts: int = 1
    lr: float = 0.05
    prior: float = 0.01
    source: str = "face_gan"
    photos: str | None = None
    seed: int = 0
    cache: str | None = None

    needs: ClassVar = frozenset({Knowledge.MODEL, Knowledge.BASIC, Knowledge.AUXILIARY})
    reads: ClassVar = KINDS
    category: ClassVar = AttackCategory.TEMPLATE

    def __post_init__(self) -> None:
        if self.limit < 1 or self.faces < 2 or self.restarts < 1:
            raise ValueError("limit and restarts must be at least 1, faces at least 2")
        if self.components < 0 or self.steps < 0 or self.prior < 0 or self.lr <= 0:
            raise ValueError("components, steps and prior must be ≥ 0, lr > 0")

    def halved(self) -> "TemplateInversion":
        """The same with half of the steps of the search."""
        return replace(self, steps=self.steps // 2)

    def __call__(
        self, seen: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """One face a template.

        Raises:
            KnowledgeError: The threat model does not grant the images' size.
            AttackError: No template was shared, or the network that made it was not broadcast.
        """
        start = time.process_time()
        if seen.image_shape is None:
            raise KnowledgeError(
                "templates are drawn at a size: without number and size of the images there is no "
                'face to draw. Use threat model B or above, or grant = ["basic"].'
            )
        templates = read_templates(seen, self.limit)
        network = _network(seen).to(templates.rows.device)
        channels = seen.image_shape[0]
        gray = seen.update is not None and is_gray(network, mean_gradient(seen, seen.update))
        auxiliary, device = Auxiliary(source=self.source, photos=self.photos), templates.rows.device
        facts = (auxiliary, self.faces, seen.image_shape)
        draw = partial(kept_faces, *facts, seed=self.seed, cache=self.cache)
        faces = draw(grayscale=gray).to(device)
        ours = Embeddings.of(network, faces, templates.rows, channels)
        if not gray and ours.look_gray(faces):  # no update proves it, or a client's loss was zero
            faces = draw(grayscale=True).to(device)
            ours = Embeddings.of(network, faces, templates.rows, channels)
        eigenfaces = Eigenfaces.of(faces, self.components)
        trace = Trace(max(1, self.steps), progress)
        images, objective = self._search(ours, eigenfaces, channels, generator, trace)
        evaluations = trace.step * len(templates.rows) * self.restarts
        return Reconstruction(
            images=images.clamp(0, 1).contiguous(),
            labels=templates.labels,
            of="people",
            objective=objective,
            iterations=trace.step,
            gradient_evaluations=evaluations,
            seconds=time.process_time() - start,
            adaptive=how_adaptive(seen, exact=True),
            history=tuple(trace.history),
            restarts=self.restarts,
        )

    def _search(
        self,
        ours: Embeddings,
        eigenfaces: Eigenfaces,
        channels: int,
        generator: torch.Generator,
        trace: Trace,
    ) -> tuple[Tensor, float]:
        """The faces `[k, C, H, W]` with the least objective, and its mean."""
        guess = ours.regression(eigenfaces.shapes)
        if not self.steps or not self.components:
            images = eigenfaces.draw(guess, channels)
            with torch.no_grad():
                objective = float(ours.distance(images).mean())
            trace.add(objective)
            return images, objective
        count = len(guess)
        start = eigenfaces.coordinates(guess).repeat(self.restarts, 1)
        noise = torch.randn(start.shape, generator=generator).to(start)
        latents = (start + JITTER * noise).requires_grad_()

        def losses() -> Tensor:
            likely = self.prior * latents.square().mean(1)
            return ours.distance(eigenfaces.images(latents, channels)) + likely

        search = Search([latents], self.lr, self.steps)
        for _ in range(self.steps):
            trace.add(float(search.step(losses).mean()))
        search.restore()
        best = search.best.view(self.restarts, count)
        winners = best.argmin(0) * count + torch.arange(count, device=best.device)
        with torch.no_grad():
            images = eigenfaces.images(latents.detach()[winners], channels)
        return images, float(best.min(0).values.mean())


def _network(seen: Observation) -> FaceNet:
    """The network that makes templates, as it was broadcast."""
    network = require_face_net(build(seen.model, seen.before), "template inversion")
    names = {name for name, _ in network.named_parameters() if not name.startswith("head.")}
    if missing := sorted(names - set(seen.before)):
        raise AttackError(
            f"the embedding that the templates live in is not known: {missing[0]!r} was not "
            "broadcast. Use an attack on updates, such as gan_inversion."
        )
    return network.eval().requires_grad_(False)
