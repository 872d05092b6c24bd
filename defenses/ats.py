"""Photos changed by a policy that was searched for its effect on gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.core.choices import check_choices
from fedaudit.core.client import ClientStep
from fedaudit.defenses.augmentations import OPERATIONS, STRONGEST
from fedaudit.defenses.gradient_transforms import ImageTransform, Replayed
from fedaudit.defenses.on_photos import on_photos
from fedaudit.defenses.settings import public_settings

Policy = tuple[tuple[str, int], ...]
"""Operations and their strengths, in order."""
HYBRID = ("translate_x:9 contrast:6 translate_y:2", "translate_y:3 contrast:7 contrast:7")
"""Policies 3-1-7 and 43-18-18 of the authors' library, their published hybrid for CIFAR-100."""


@dataclass(frozen=True, kw_only=True)
class ATS:
    """Train on photos changed by an augmentation policy, drawn for each photo in each round.

    Automatic transformation search (Gao et al., CVPR 2021, arXiv 2011.12505). The default is the
    authors' hybrid of two policies for CIFAR-100, in our own differentiable operations with black
    beyond the border; `fedaudit.defenses.ats_search` searches others by the paper's two scores.
    Each photo gives one image, whatever the others are, so that DP-SGD composes with it.
    Guarantee: none, it is a heuristic. Whoever knows the policies matches the changed photo, and
    what is rebuilt shows the person as far as the changed photo does; Balunović et al. (ICLR 2022,
    arXiv 2111.04706) rebuild photos from updates of networks that are not yet trained.

    Args:
        policies: Each photo draws one of them. A policy names operations of
            `fedaudit.defenses.augmentations.OPERATIONS` with strengths from 0 to 9, in order:
            "translate_x:9 contrast:6".
    """

    policies: tuple[str, ...] = HYBRID

    def __post_init__(self) -> None:
        check_choices(self)
        object.__setattr__(self, "policies", tuple(self.policies))
        if not self.policies:
            raise ValueError("policies must name at least one policy, such as 'translate_x:9'")
        for policy in self.policies:
            parse_policy(policy)

    def __call__(self, step: ClientStep) -> ClientStep:
        """Change the photos that the step trains on."""
        return on_photos(step, self.replay(1).images[0])

    def replay(self, count: int) -> Replayed:
        """The same on an attacker's images."""
        return Replayed(
            images=(draw_policy(tuple(parse_policy(policy) for policy in self.policies)),)
        )

    keeps_claims = True
    facts = public_settings("ats")


def parse_policy(policy: str) -> Policy:
    """Parse a policy from its text; refuses unknown operations and strengths by `ValueError`.

    >>> parse_policy("translate_x:9 invert:0")
    (('translate_x', 9), ('invert', 0))
    """
    steps = []
    for word in policy.split():
        name, _, strength = word.partition(":")
        if name not in OPERATIONS:
            raise ValueError(f"policies: no operation {name!r}; there are {', '.join(OPERATIONS)}")
        if not strength.isdecimal() or int(strength) > STRONGEST:
            raise ValueError(f"policies: {word!r} must end in a strength from 0 to 9, as {name}:5")
        steps.append((name, int(strength)))
    if not steps:
        raise ValueError(f"policies: {policy!r} names no operation")
    return tuple(steps)


def draw_policy(policies: tuple[Policy, ...]) -> ImageTransform:
    """Transform that changes each image by a randomly drawn policy and keeps its label."""

    def transform(
        images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        choice = torch.randint(len(policies), (len(images),), generator=generator)
        longest = max(len(policy) for policy in policies)
        signs = torch.randint(2, (longest, len(images)), generator=generator) * 2.0 - 1
        places, parts = [], []
        for number, policy in enumerate(policies):
            place = (choice == number).nonzero().flatten()
            if len(place):
                places.append(place)
                parts.append(apply_policy(images[place.to(images.device)], policy, signs[:, place]))
        order = torch.cat(places).argsort().to(images.device)
        return torch.cat(parts)[order], labels

    return transform


def apply_policy(images: Tensor, policy: Policy, signs: Tensor) -> Tensor:
    """`images [N, C, H, W]` after a policy; `signs [len(policy) or more, N]` of its amounts."""
    for (name, strength), sign in zip(policy, signs, strict=False):
        kind = OPERATIONS[name]
        amount = kind.least + (kind.most - kind.least) * strength / STRONGEST
        images = kind.transform(images, amount * (sign if kind.signed else torch.ones_like(sign)))
    return images
