import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedaudit.scoring.pairing import labels_recovered, pair

UNKNOWN = -1


def _images(n: int, seed: int = 0) -> Tensor:
    return torch.rand((n, 3, 8, 8), generator=torch.Generator().manual_seed(seed))


def _labels(*labels: int) -> Tensor:
    return torch.tensor(labels)


@given(st.permutations(range(6)))
def test_a_permutation_is_recovered_without_labels(order: list[int]) -> None:
    images = _images(6)
    guessed = torch.full((6,), UNKNOWN)
    found = pair(images, torch.arange(6), images[order], guessed)
    assert torch.equal(images[order][list(found)], images)


@given(st.permutations(range(6)))
def test_a_permutation_is_recovered_by_labels_alone(order: list[int]) -> None:
    """The reconstructions are noise: nothing in them could tell."""
    labels = torch.tensor([3, 5, 0, 9, 7, 4])
    found = pair(_images(6), labels, _images(6, seed=1), labels[order])
    assert torch.equal(labels[order][list(found)], labels)


def test_labels_outweigh_every_squared_error() -> None:
    """Even where the images say the opposite, as strongly as images can that are no copies."""
    originals = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    alike = 0.04 + 0.92 * originals  # 28 dB
    found = pair(originals, _labels(0, 1), alike, _labels(1, 0))
    assert found == (1, 0)


@given(st.permutations(range(6)))
def test_no_wrong_label_hides_a_copy(guessed: list[int]) -> None:
    """The right labels, each at any image: that somebody's photo came back is seen all the same."""
    images = _images(6)
    found = pair(images, torch.arange(6), images, torch.tensor(guessed))
    assert found == tuple(range(6))


def test_one_copy_outweighs_the_labels_of_all_others() -> None:
    """The copy stands at the wrong label, and every other image at the right one."""
    images, made = _images(5), _images(5, seed=1)
    made[3] = images[0]
    found = pair(images, torch.arange(5), made, torch.arange(5))
    assert found == (3, 1, 2, 0, 4)


def test_what_counts_as_a_copy_is_the_calibration_s_word() -> None:
    """Two photos of one sitting may be 28 dB apart; there, 28 dB prove nothing."""
    originals = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    alike = 0.04 + 0.92 * originals
    found = pair(originals, _labels(0, 1), alike, _labels(1, 0), copy_psnr=27.0)
    assert found == (0, 1)


def test_labels_tell_copies_of_one_photo_apart() -> None:
    """Two people shared the same photo: which is whose, only labels say."""
    images = _images(1).repeat(2, 1, 1, 1)
    assert pair(images, _labels(0, 1), images, _labels(1, 0)) == (1, 0)


def test_equal_labels_are_told_apart_by_error() -> None:
    images = _images(4)
    order = [2, 3, 0, 1]
    found = pair(images, _labels(7, 7, 7, 7), images[order], _labels(7, 7, 7, 7))
    assert found == (2, 3, 0, 1)


def test_wrong_labels_fall_back_to_error() -> None:
    images = _images(3)
    found = pair(images, _labels(0, 1, 2), images[[1, 2, 0]], _labels(8, 8, 9))
    assert found == (2, 0, 1)


def test_one_right_label_is_kept_and_the_rest_goes_by_error() -> None:
    images = _images(3)
    faint = 0.25 + 0.5 * images[[1, 2, 0]]
    # The right label stands at another's image; the two others are assigned by what they show.
    found = pair(images, _labels(0, 1, 2), faint, _labels(0, UNKNOWN, 9))
    assert found[0] == 0
    assert found[2] == 1
    assert found == (0, 2, 1)


def test_an_unknown_label_matches_nobody() -> None:
    """-1 is "none guessed", so it must not attract an original."""
    images = _images(2)
    found = pair(images, _labels(0, 1), images, _labels(UNKNOWN, 1))
    assert found == (0, 1)


def test_the_assignment_is_the_best_as_a_whole() -> None:
    """Greedy nearest neighbors would take 0.4 for the first, and pay with the second."""
    originals = torch.tensor([0.5, 0.4]).reshape(2, 1, 1, 1)
    made = torch.tensor([0.42, 0.9]).reshape(2, 1, 1, 1)
    assert pair(originals, _labels(0, 0), made, _labels(0, 0)) == (1, 0)


@given(st.integers(1, 5), st.integers(0, 50))
def test_every_reconstruction_is_used_once(n: int, seed: int) -> None:
    guessed = torch.randint(-1, 3, (n,), generator=torch.Generator().manual_seed(seed))
    found = pair(_images(n), torch.arange(n) % 3, _images(n, seed), guessed)
    assert sorted(found) == list(range(n))


def test_many_images_keep_their_precision() -> None:
    """Faint differences decide too, although no label is known and `cdist` multiplies matrices."""
    images = 0.5 + 1e-2 * _images(64)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))
    found = pair(images, torch.zeros(64), images[order], torch.full((64,), UNKNOWN))
    assert torch.equal(order[list(found)], torch.arange(64))


def test_recovered_labels_are_a_multiset() -> None:
    truth = _labels(0, 1, 1, 2)
    assert labels_recovered(truth, _labels(2, 1, 0, 1)) == 1.0
    assert labels_recovered(truth, _labels(1, 1, 1, 1)) == 0.5
    assert labels_recovered(truth, _labels(0, 0, 0, 0)) == 0.25
    assert labels_recovered(truth, _labels(5, 6, 7, 8)) == 0.0
    assert labels_recovered(truth, _labels(UNKNOWN, UNKNOWN, 2, 1)) == 0.5


def test_labels_that_were_not_attempted_are_not_wrong() -> None:
    assert labels_recovered(_labels(0, 1), _labels(UNKNOWN, UNKNOWN)) is None
