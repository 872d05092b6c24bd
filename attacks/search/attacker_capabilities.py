"""The attacker's capabilities in a search, for adaptations to defenses that ask for more.

Such are further searches, of the rounds before, and what its own faces are good for.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from fedaudit.attacks.adaptive.defense_adaptation import Attacker
from fedaudit.attacks.adaptive.mixture_arithmetic import Coefficients
from fedaudit.attacks.adaptive.unmasking import Unmasking
from fedaudit.attacks.generators.face_generator import FaceGenerator
from fedaudit.attacks.search.search_run import SearchRun
from fedaudit.core.observation import Observation
from fedaudit.defenses.gradient_transforms import ImageTransform

MEAN_OF = 64
"""Generated faces whose mean is the mean face."""


def attacker_of(
    run: SearchRun,
    seen: Observation,
    begin: Callable[[Observation], SearchRun],
    prior: FaceGenerator | None,
    unmasking: Unmasking,
    evaluations: list[int],
) -> Attacker:
    """What a search that has ended can do for special defenses.

    Args:
        run: The search.
        seen: What it attacked.
        begin: A search of another observation, before its first step.
        prior: Where the attack's own faces come from; None where it has none.
        unmasking: How a network is trained that undoes masks; of faces from the source of `prior`.
        evaluations: To which further searches add how many images they compared.
    """

    def earlier_rounds() -> Iterator[tuple[Tensor, Tensor]]:
        for update in run.scene.evidence.adaptation.rounds[1:]:
            if run.trace.time_is_up:
                return
            past = begin(replace(seen, shared=(update,), earlier=()))
            soft = past.scene.evidence.soft
            if soft is not None:
                past.search()
                evaluations.append(past.scene.matching.evaluations)
                yield past.images[int(past.best.argmin())][0], soft[0]

    def unmasked(
        transforms: Sequence[ImageTransform], mixture: Tensor, shares: Coefficients
    ) -> tuple[Tensor, Tensor]:
        assert prior is not None  # who has no faces does not come here
        own = replace(unmasking.auxiliary, source=prior.source)
        trained = replace(unmasking, auxiliary=own)
        return trained.unmasked(transforms, mixture, shares, run.trace.progress)

    return Attacker(
        matched=run.scene.matching.follows,
        single_step=run.scene.matching.dummy is None,
        source=prior.source if prior else None,
        earlier_rounds=earlier_rounds,
        mean_face=lambda: run.scene.generic_faces(MEAN_OF).mean(0),
        unmasked=unmasked,
    )
