"""Solve for the faces whose maps the update gives away; search for them where it does not."""

import time
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.generators.face_generator import CropEdges, FaceGenerator
from fedaudit.attacks.presets.gan_inversion import gan_inversion
from fedaudit.attacks.search.checkpoint import Checkpoint
from fedaudit.attacks.search.image_priors import MATCHING_COLOR_WEIGHTS
from fedaudit.attacks.search.map_matching import goal_of, span_goal_of
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.stage import Stage, solving_stages
from fedaudit.attacks.search.variables.latents import Latent
from fedaudit.attacks.search.variables.pixels import Pixels
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import AttackCategory, Progress
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update

# Set by hand; what they reach is measured by leakage_over_training.py and unknown_head.py
# in benchmarks/.
PIXEL_LR = 0.05
"""Peak step size in pixels, in units of the range [0, 1]."""
USUAL_SHARE = 2 / 3
"""Of what the total variation weighs in `gan_inversion`: 0.2 of gray photos at 32 px, as it had at
every size."""
SHARP = 3e-5
"""Floor of a goal above which a search with the whole update does better than its maps alone."""
DAMPING = 1e-5
"""First damping of Gauss–Newton: a descent's end is near enough for bold steps."""
SPAN_DAMPING = 1e-8
"""Likewise on spans, whose descent ends nearer."""


@dataclass(frozen=True, kw_only=True)
class MapInversion:
    """From the maps that an update gives away in closed form to the faces, exactly.

    The gradients of the first fully connected layer and of the last block give each image's map
    before that block (`evidence.feature_maps`). Pixels are searched, image by image, until they
    have that map: feature inversion (Mahendran et al., CVPR 2015) on a map that the client never
    shared. Then Gauss–Newton makes them exact. Neither depends on how long the network was trained,
    nor mixes the images of a batch. Where the head, or all behind the map, stays on the device,
    images are searched whose patches span what the gradients of the last convolutions are made of
    (`layer_spans.py`), and made exact likewise. Where no such map is known (noise, several local
    steps, other networks) it is `gan_inversion`, and Gauss–Newton on what enters the embedding if
    that is known.

    Args:
        candidates: Generated faces that are tried as a start.
        descent_steps: First-order steps an image toward its map.
        total_variation: Weight of the total variation in them; None for two thirds of what suits
            `gan_inversion` at the images' size and color (`usual_variation`).
        solve_steps: Gauss–Newton steps an image, at most; 0 leaves them out. About 2 CPU seconds
            each for a gray 32×32 image.
        search_steps: Steps an image of `gan_inversion`, where no early map is known.
        prior: Where the generator comes from, as in `gan_inversion`.
        crop: Part of the generator's image that is kept.
        seconds: Wall-clock limit; results then depend on the machine. None for none.
    """

    candidates: int = 128
    descent_steps: int = 400
    total_variation: float | None = None
    solve_steps: int = 10
    search_steps: int = 210
    prior: str = "face_gan"
    crop: CropEdges | None = None
    seconds: float | None = None

    needs: ClassVar = frozenset({Knowledge.MODEL, Knowledge.BASIC, Knowledge.AUXILIARY})
    reads: ClassVar = frozenset({Update})
    category: ClassVar = AttackCategory.CLOSED_FORM

    def __post_init__(self) -> None:
        # Refuses what the engine refuses, before any observation is there.
        self._descent()
        self._search()

    def __call__(
        self,
        seen: Observation,
        *,
        generator: torch.Generator,
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Reconstruction:
        """Reconstruct the batch behind one update."""
        start = time.process_time()
        evidence = gather(seen)
        goal = goal_of(evidence)
        sharp = goal is not None and goal.depth is not None and goal.floor < SHARP
        by_spans = goal is None and span_goal_of(evidence) is not None
        known = self._descent if sharp else self._search
        attack = self._blind() if by_spans else known()
        before = time.process_time() - start
        result = attack.with_evidence(
            evidence, seen, generator=generator, progress=progress, checkpoint=checkpoint
        )
        way = "spans" if by_spans else result.searched_by
        return replace(result, seconds=before + result.seconds, searched_by=way)

    def halved(self) -> "MapInversion":
        """The same with half of the steps in each stage."""
        return replace(
            self,
            descent_steps=-(-self.descent_steps // 2),
            search_steps=-(-self.search_steps // 2),
            solve_steps=-(-self.solve_steps // 2),
            seconds=None if self.seconds is None else self.seconds / 2,
        )

    def _descent(self) -> MatchingAttack:
        descent = Stage(
            varies=Pixels(start="previous"),
            steps=self.descent_steps,
            lr=PIXEL_LR,
            optimizer="signed_adam",
            rounds=1,
            total_variation=self.total_variation,
            usual_share=USUAL_SHARE,
            color_weights=MATCHING_COLOR_WEIGHTS,
            match="maps",
        )
        start = Stage(varies=Latent(candidates=self.candidates), steps=0, lr=1.0)
        prior = FaceGenerator(source=self.prior, crop=self.crop)
        return self._attack(start, descent, damping=DAMPING, prior=prior)

    def _blind(self) -> MatchingAttack:
        """From gray: what is wrong in a generated face holds on to it longer than noise does."""
        descent = Stage(
            varies=Pixels(),
            steps=self.descent_steps,
            lr=PIXEL_LR,
            total_variation=self.total_variation,
            usual_share=USUAL_SHARE,
        )
        return self._attack(descent, damping=SPAN_DAMPING)

    def _attack(
        self, *stages: Stage, damping: float, prior: FaceGenerator | None = None
    ) -> MatchingAttack:
        return MatchingAttack(
            stages=(*stages, *solving_stages(self.solve_steps, damping)),
            angle=True,
            first_fully_connected=True,
            prior=prior,
            seconds=self.seconds,
        )

    def _search(self) -> MatchingAttack:
        latent, inner = self.search_steps // 10, self.search_steps // 5
        return gan_inversion(
            candidates=self.candidates,
            latent_steps=latent,
            stage_steps=inner,
            pixel_steps=self.search_steps - latent - inner,
            solve_steps=self.solve_steps,
            prior=self.prior,
            crop=self.crop,
            seconds=self.seconds,
        )
