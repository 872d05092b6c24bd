"""What a user sees while the faces of a folder are looked for."""

from contextlib import suppress

from fedaudit.cli.console import live, stderr
from fedaudit.cli.say import say
from fedaudit.core.errors import DataError
from fedaudit.core.printable import first_few, printable
from fedaudit.core.scenario import Study

LISTED = 20
"""Photos that are named one by one."""


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
        left_out = [f"{source} {why}" for source, why in alignment.left_out]
        turns = [f"{source} lay on a side, and was turned" for source in alignment.turned]
        lines = [*(f"{line}: left out" for line in left_out), *turns]
        if several := alignment.several:
            which = first_few(several, 3)
            lines.append(f"several faces, of which the most prominent was taken: {which}")
        if quiet:
            return
        for line in lines[:LISTED]:
            say(f"note: {printable(line)}", err=True)
        if len(lines) > LISTED:
            say(f"note: … and {len(lines) - LISTED} more photos", err=True)
