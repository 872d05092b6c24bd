"""Which patch lies where, in which photo, where nothing but the patches themselves tells.

Transformers that know places by attention alone, from relative positions (BEiT) or rotations
(DINOv3), add next to nothing to a token that would tell its place. The photos are a jigsaw puzzle
then: boards are grown from one patch, each time by the patch that fits best to what lies there
already, within the height and width of a photo, and once more from the largest parts in which each
patch is its neighbor's best, and the neighbor its own (Pomeranz, Shemesh, Ben-Shahar, CVPR 2011).
In between, patches of places that do not touch are dealt anew, all at once by assignment (Kuhn,
1955), as long as borders fit better for it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fedaudit.attacks.evidence.patch_borders import cut, misfits_below

# By color photos of p01 and p02 of OpenPeople, patches of 16, four photos at a time: of 32 at 64 px
# all come together, of 32 at 112 px 30. With plain misfits 31 and 31, but some photos, one of p09
# and p10, too, fit better if they are shifted by a column; without growing anew 21 at 112 px.
STARTS = 4
"""Boards that are grown from one patch."""
BORDER = 0.1
"""What one more border counts, in units of the ratio of the least misfit to the second."""
LEAST, MOST = 1e-3, 3.0
"""Of 1 between black and white, what second best misfits are taken for at least; and the largest
ratio to them that tells a difference."""
PATIENCE = 30
"""Draws of places without a gain after which boards stay as they are."""
GAIN = 1e-9
"""Least gain: two orders of a sum differ by less."""

Place = tuple[int, int, int]
"""A photo, a row and a column."""
Boards = dict[Place, int]
"""The piece of each place."""


def by_jigsaw(images: Tensor, kernel: tuple[int, int], seed: int = 0) -> Tensor:
    """For each photo and place, where its patch lies now, `[N, P]`.

    Patches are numbered place by place, photo after photo; each is taken once. Which photo is which
    is not told: they come in the order of their first patches' numbers.

    Args:
        images: `[N, C, H, W]`, 0 black and 1 white, cut into patches without a rest.
        kernel: Height and width of a patch.
        seed: Of all randomness.

    Example:
        >>> slope = torch.linspace(0, 1, 12)
        >>> photo = (slope[:, None] + 2 * slope).expand(1, 1, 12, 12) / 3
        >>> left, right = photo.tensor_split(2, 3)
        >>> by_jigsaw(torch.cat([right, left], 3), (6, 6)).tolist()
        [[1, 0, 3, 2]]
    """
    patches = cut(images.double().cpu(), kernel)
    count, rows, columns = patches.shape[:3]
    pieces = patches.flatten(0, 2)
    puzzle = _Puzzle(
        right=_beside_the_second(misfits_below(pieces.mT, pieces.mT)),
        below=_beside_the_second(misfits_below(pieces, pieces)),
        size=(count, rows, columns),
    )
    generator = torch.Generator().manual_seed(seed)
    firsts = torch.randperm(len(pieces), generator=generator)[:STARTS].tolist()
    best = min((puzzle.solved(first, generator) for first in firsts), key=puzzle.misfit)
    boards = torch.tensor([best[place] for place in sorted(best)]).view(count, rows * columns)
    return boards[boards[:, 0].argsort()]


@dataclass(frozen=True)
class _Puzzle:
    """How badly pieces fit each other.

    Attributes:
        right: Of the second on the right of the first, `[M, M]`.
        below: Of the second below the first, `[M, M]`.
        size: Photos, and their rows and columns.
    """

    right: Tensor
    below: Tensor
    size: Place

    def solved(self, first: int, generator: torch.Generator) -> Boards:
        """Boards grown from a piece, then from what surely belongs together, while that helps."""
        boards = self._improved(self._shifted(self._grown({(0, 0, 0): first})), generator)
        while True:
            anew = self._improved(self._shifted(self._grown(self._sure(boards))), generator)
            if not self.misfit(anew) < self.misfit(boards) - GAIN:
                return boards
            boards = anew

    def misfit(self, boards: Boards) -> float:
        """Over all borders."""
        return sum(float(self._at(boards, place)[0][piece]) for place, piece in boards.items()) / 2

    def _at(self, boards: Boards, place: Place) -> tuple[Tensor, int]:
        """Of each piece at a place, over its borders, `[M]`; and how many borders it has there."""
        photo, row, column = place
        beside = (
            ((photo, row, column - 1), self.right),
            ((photo, row, column + 1), self.right.T),
            ((photo, row - 1, column), self.below),
            ((photo, row + 1, column), self.below.T),
        )
        costs = [cost[boards[near]] for near, cost in beside if near in boards]
        return sum(costs, torch.zeros(len(self.right)).double()), len(costs)

    def _grown(self, seeds: Boards) -> Boards:
        """Whole boards from what is given of each; where that is nothing, from a piece."""
        free = torch.ones(len(self.right), dtype=torch.bool)
        free[list(seeds.values())] = False
        boards: Boards = {}
        for photo in range(self.size[0]):
            own = {place: piece for place, piece in seeds.items() if place[0] == photo}
            board = own or {(photo, 0, 0): int(torch.nonzero(free)[0])}
            free[list(board.values())] = False
            boards |= self._filled(photo, board, free)
        return boards

    def _filled(self, photo: int, board: Boards, free: Tensor) -> Boards:
        """That of a photo, from some pieces; what it takes is no longer `free`, `[M]`.

        Surest first: where the best piece is far better than the second, along many borders.
        """
        while len(board) < self.size[1] * self.size[2]:
            likely: list[tuple[float, Place, int]] = []
            for place in self._open(board):
                cost, borders = self._at(board, place)
                cost = F.pad(cost.masked_fill(~free, torch.inf), (0, 1), value=torch.inf)
                least, pieces = cost.topk(2, largest=False)
                unsure = float(least[0] / least[1].clamp_min(1e-12))
                likely.append((unsure - BORDER * borders, place, int(pieces[0])))
            _, place, piece = min(likely)
            board[place] = piece
            free[piece] = False
        top, left = (min(place[side] for place in board) for side in (1, 2))
        return {(photo, row - top, column - left): n for (_, row, column), n in board.items()}

    def _open(self, board: Boards) -> set[Place]:
        """Places beside those taken, as far as the height and width of a photo allow."""
        sides = [(min(side), max(side)) for side in zip(*board, strict=True)][1:]
        return {
            place
            for place in {near for taken in board for near in _beside(taken)} - board.keys()
            if all(
                max(end, at) - min(begin, at) < size
                for at, (begin, end), size in zip(place[1:], sides, self.size[1:], strict=True)
            )
        }

    def _shifted(self, boards: Boards) -> Boards:
        """Boards of which each is shifted to where it fits best, first rows or columns to the end.

        Those that were grown beyond an edge of a photo have what lies there at the other edge.
        """
        count, rows, columns = self.size
        shifts = [(row, 0) for row in range(rows)] + [(0, column) for column in range(1, columns)]
        shifted: Boards = {}
        for photo in range(count):
            own = [(place, piece) for place, piece in boards.items() if place[0] == photo]
            likely: list[Boards] = [
                {(photo, (y + dy) % rows, (x + dx) % columns): n for (_, y, x), n in own}
                for dy, dx in shifts
            ]
            best: Boards = min(likely, key=self.misfit)
            shifted |= best
        return shifted

    def _sure(self, boards: Boards) -> Boards:
        """Of each photo the largest part in which neighbors are each other's best."""
        right, below = _best_of_both(self.right), _best_of_both(self.below)

        def joined(one: Place, two: Place) -> bool:
            first, second = sorted((one, two))
            best = right if first[1] == second[1] else below
            return bool(best[boards[first], boards[second]])

        largest: dict[int, set[Place]] = {}
        left = set(boards)
        while left:
            part, edge = set[Place](), {left.pop()}
            while edge:
                part |= edge
                near = {(a, b) for a in edge for b in _beside(a) if b in boards and b not in part}
                edge = {b for a, b in near if joined(a, b)}
            left -= part
            photo = next(iter(part))[0]
            largest[photo] = max(largest.get(photo, part), part, key=lambda p: (len(p), min(p)))
        return {place: boards[place] for part in largest.values() for place in part}

    def _improved(self, boards: Boards, generator: torch.Generator) -> Boards:
        """Boards whose pieces were dealt anew until borders fit no better for it."""
        boards, places, idle = dict(boards), sorted(boards), 0
        while idle < PATIENCE:
            drawn: list[Place] = []
            touched: set[Place] = set()
            for number in torch.randperm(len(places), generator=generator).tolist():
                if places[number] not in touched:
                    drawn.append(places[number])
                    touched.update(_beside(places[number]))
            pieces = torch.tensor([boards[place] for place in drawn])
            cost = torch.stack([self._at(boards, place)[0] for place in drawn])[:, pieces]
            chosen = torch.as_tensor(linear_sum_assignment(cost.numpy())[1])
            gain = cost.diagonal().sum() - cost[range(len(drawn)), chosen].sum()
            idle = 0 if gain > GAIN else idle + 1
            if not idle:
                boards |= dict(zip(drawn, pieces[chosen].tolist(), strict=True))
        return boards


def _beside_the_second(misfit: Tensor) -> Tensor:
    """Misfits `[M, M]` in units of the second best one of the piece on either side.

    Borders inside a plain wall fit well by chance, and say little; those along edges of what is
    shown fit worse, and say more.
    """
    apart = misfit.clone().fill_diagonal_(torch.inf)
    if len(apart) < 3:
        return misfit
    second = torch.minimum(apart.kthvalue(2, 1, True).values, apart.kthvalue(2, 0, True).values)
    return (misfit / (second + LEAST)).clamp_max(MOST)


def _beside(place: Place) -> Iterable[Place]:
    photo, row, column = place
    for other in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
        yield photo, *other


def _best_of_both(misfit: Tensor) -> Tensor:
    """Which two pieces fit each other better than any others on this side, `[M, M]`."""
    apart = misfit.clone().fill_diagonal_(torch.inf)
    return (apart == apart.amin(1, keepdim=True)) & (apart == apart.amin(0, keepdim=True))
