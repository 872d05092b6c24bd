"""What a user sees while the faces of a folder are looked for."""

from collections.abc import Sequence
from contextlib import suppress

from fedaudit.cli.console import live, stderr
from fedaudit.cli.say import say
from fedaudit.core.errors import DataError
from fedaudit.core.printable import first_few, printable
from fedaudit.core.scenario import Study

LISTED = 20
"""Lines that name photos."""


def align_photos(study: Study, *, quiet: bool) -> None:
    """Align a folder's photos where the study asks for it, and name those that are left out.

    What is wrong with the folder itself is said where the study is checked.
    """
    settings = study.data.settings
    if study.data.name != "folder" or settings.get("align") is not True:
        return
    from fedaudit.data.folder import align_folder  # noqa: PLC0415 - imports torch

    with suppress(DataError), live(stderr(), "aligning", 1.0, quiet=quiet) as update:

        def watch(part: int, total: int) -> None:
            update(part / total, f"{part} of {total} photos", f"aligned {part} of {total} photos")

        alignment = align_folder(str(settings.get("path", "")), study.size, watch)
        told = [(source, f"{why}: left out") for source, why in alignment.left_out]
        told += [(source, "lay on a side, and was turned") for source in alignment.turned]
        lines = _lines(told)
        if several := alignment.several:
            which = first_few(several, 3)
            lines.append(f"several faces, of which the most prominent was taken: {which}")
        if quiet:
            return
        for line in lines[:LISTED]:
            say(f"note: {printable(line)}", err=True)
        if len(lines) > LISTED:
            say(f"note: … and as much of {len(lines) - LISTED} more", err=True)


def _lines(told: Sequence[tuple[str, str]]) -> list[str]:
    """What is told of photos, a line for each person and reason.

    >>> _lines([("ann/1.jpg", "shows no face"), ("bob/1.jpg", "shows no face")])
    ['ann/1.jpg shows no face', 'bob/1.jpg shows no face']
    >>> _lines([("ann/1.jpg", "shows no face"), ("ann/2.jpg", "shows no face")])
    ['ann: 2 show no face (1.jpg, 2.jpg)']
    """
    from fedaudit.data.aligned_folder import in_number  # noqa: PLC0415 - imports torch

    alike: dict[tuple[str, str], list[str]] = {}
    for source, reason in told:
        person, _, name = source.partition("/")
        alike.setdefault((person, reason), []).append(name)
    return [
        f"{person}/{names[0]} {reason}"
        if len(names) == 1
        else f"{person}: {in_number(len(names), reason)} ({first_few(names, 3)})"
        for (person, reason), names in alike.items()
    ]
