"""Pictures that a run kept, of what a report shows; and why there are none."""

from collections.abc import Iterator

from fedaudit.reports.pictures import Picture
from fedaudit.reports.results import Results
from fedaudit.study.removal_record import read_removals
from fedaudit.study.run_folder import RunFolder


def read_pictures(folder: RunFolder, results: Results) -> Iterator[tuple[tuple[str, int], Picture]]:
    """What the gallery and the verdict card show."""
    places = {(e.cell, e.image) for e in results.exhibits}
    places |= {(e.prior_cell, e.image) for e in results.exhibits if e.prior_cell}
    rows = (row for matrix in results.matrices for row in matrix.rows)
    places |= {(c.cell, c.image) for row in rows for c in row.cells if c}
    worst = (row.measurement.worst for row in results.rows if row.measurement)
    places |= {(place.cell, place.image) for place in worst if place}
    for key, image in sorted(places):
        trial = folder.trial(key)
        photos = folder.evidence(trial.cell.scenario, trial.cell.target) or {}
        name = f"portrait/{trial.images[image].person}" if trial.of == "people" else "images"
        original = photos.get(name)
        tensors = folder.tensors(key)
        if original is not None and trial.of == "photos":
            index = tensors.get("originals")  # of a client's many photos, those that are meant
            original = original[image if index is None else int(index[image])]
        yield (key, image), Picture(original, tensors["images"][image])


def why_absent(folder: RunFolder) -> str:
    """Why a run has no pictures to show; "" where it has."""
    text = ". ".join(one.sentence for one in read_removals(folder.path))
    if not text and folder.recipients and folder.identity is None:
        text = (
            f"pictures are sealed for {', '.join(folder.recipients)}: `fedaudit report RUN "
            "--evidence full --identity KEY --output PAGE.html` shows them to whoever has the key"
        )
    return f"{text[:1].upper()}{text[1:]}." if text else ""
