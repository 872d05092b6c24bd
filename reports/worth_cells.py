"""What stands in the cells of a comparison of a federation's worth, and of what defenses cost."""

from fedaudit.core.measures import Estimate
from fedaudit.federation.utility import accuracy_difference
from fedaudit.reports import text
from fedaudit.reports.cells import Cell, Scene
from fedaudit.reports.comparison import DefenseLine, Row
from fedaudit.reports.text import ABSENT, number, percent, points, rounded, signed


def _no_worth(x: Row | DefenseLine, scene: Scene) -> Cell:
    """Of what was not measured of a defense's training, with the reason where that is known."""
    if x.defense not in scene.alike:
        return Cell()
    return Cell(ABSENT, (text.TRAINS_SO,), f"{ABSENT} (the federation trains so)")


def accuracy(x: Row | DefenseLine, scene: Scene) -> Cell:
    """What the federation learned: verification of people it never saw."""
    u = x.utility
    if u is None:
        return _no_worth(x, scene)
    trainings = f"{len(u.accuracies)} training" + ("s" if len(u.accuracies) > 1 else "")
    notes = [
        f"{text.percent_range(u.accuracy)} %",
        f"{u.accuracy.n} people, {trainings}",
        f"untrained {percent(u.untrained.value)}",
        f"gain {points(u.gain)} {text.points_range(u.gain)}",
    ]
    if not u.helps:
        notes.append("no gain over the untrained network is shown")
    if u.central:
        notes.append(f"central training {percent(u.central.value)}")
    notes += [f"TAR {percent(tar)} at FAR {far}" for far, tar in sorted(u.tar_at_far.items())]
    return Cell(percent(u.accuracy.value), tuple(notes), _share(u.accuracy))


def without_training(x: DefenseLine, _: Scene) -> Cell:
    """The same of the untrained network."""
    return Cell(brief=_share(x.utility.untrained) if x.utility else ABSENT)


def central(x: DefenseLine, _: Scene) -> Cell:
    """The same of a network that trained on all data in one place."""
    return Cell(brief=_share(x.utility.central) if x.utility else ABSENT)


def _share(value: Estimate | None) -> str:
    return ABSENT if value is None else f"{percent(value.value)} {text.percent_range(value)}"


def accuracy_loss(x: Row | DefenseLine, scene: Scene) -> Cell:
    """What the defense costs in verification, in points."""
    if scene.bare is None or x.utility is None:
        return _no_worth(x, scene)
    loss = accuracy_difference(scene.bare, x.utility)
    if loss is None:
        return Cell()
    return Cell(signed(100 * loss.value, 1), (text.points_range(loss),))


def overhead(x: DefenseLine, scene: Scene) -> Cell:
    """How many times longer a step takes under the defense."""
    if x.utility is None or x.utility.overhead is None:
        return _no_worth(x, scene)
    times = rounded(x.utility.overhead)
    step = rounded(x.utility.step_seconds or 0.0)
    return Cell(times, (f"{step} s",), f"{times} ×")


def kilobytes(x: DefenseLine, _: Scene) -> Cell:
    """What one client sends a round."""
    if x.utility is None or not x.utility.bytes_sent:
        return Cell()
    size, plainly = x.utility.bytes_sent / 1000, x.utility.plain_bytes_sent
    notes = (f"{number(plainly / 1000, 0)} undefended",) if plainly else ()
    return Cell(number(size, 0), notes, f"{size:,.0f}")


def training(x: Row, _: Scene) -> Cell:
    """How long the federation trained."""
    return Cell(text.seconds(x.utility.seconds if x.utility else None))
