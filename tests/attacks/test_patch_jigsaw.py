"""Patches that nothing else places are put together by their borders."""

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.evidence.patch_borders import cut, misfits_below
from fedaudit.attacks.evidence.patch_jigsaw import by_jigsaw
from fedaudit.data.openpeople import openpeople


def mixed(photos: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The photos with all of their patches dealt anew; and the patches `[N, P, C, h, w]`."""
    patches = cut(photos, (side, side))
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(patches[..., 0, 0, 0].numel(), generator=generator)
    dealt = patches.flatten(0, 2)[order].view_as(patches)
    return dealt.permute(0, 3, 1, 4, 2, 5).reshape(photos.shape), dealt.flatten(1, 2)


@pytest.mark.parametrize(("people", "size"), [([30], 112), ([5, 60], 64)])
def test_faces_come_together(people: list[int], size: int) -> None:
    photos = openpeople(size=size).images[people].double()
    images, dealt = mixed(photos, 16)
    assert (images - photos).abs().amax() > 0.3
    found = dealt.flatten(0, 1)[by_jigsaw(images, (16, 16))]
    truth = cut(photos, (16, 16)).flatten(1, 2)
    same = (found[:, None] == truth).flatten(2).all(2)
    assert sorted(same.nonzero()[:, 1].tolist()) == list(range(len(people)))


def test_what_is_together_stays_where_it_is() -> None:
    photos = openpeople(size=64).images[[5, 60]]
    assert torch.equal(by_jigsaw(photos, (16, 16)), torch.arange(32).view(2, 16))


def test_a_photo_of_one_patch_and_patches_of_one_color_are_no_obstacle() -> None:
    assert by_jigsaw(torch.rand(3, 1, 4, 4), (4, 4)).tolist() == [[0], [1], [2]]
    plain = by_jigsaw(torch.zeros(2, 3, 8, 8), (4, 4))
    assert sorted(plain.flatten().tolist()) == list(range(8))


def test_a_slope_that_goes_on_fits_better_than_the_same_color() -> None:
    rising = torch.arange(8.0).view(1, 1, 8, 1).expand(1, 1, 8, 3) / 20
    above, below = rising.tensor_split(2, 2)
    flat = above[:, :, -1:].expand(1, 1, 4, 3)
    apart = misfits_below(above, torch.cat([below, flat]))
    assert float(apart[0, 0]) < 1e-6 < float(apart[0, 1])
