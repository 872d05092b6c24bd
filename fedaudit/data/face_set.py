"""A set of photos, of faces or of anything else, whatever it was read from."""

from dataclasses import dataclass

from torch import Tensor

CLASS_MARK = " #"
"""Between class and number in the name of a picture that is no face."""


def class_of(name: str) -> str:
    """The class that a picture's name states; "" of a person.

    >>> class_of("pneumonia #12"), class_of("s7")
    ('pneumonia', '')
    """
    return name.rpartition(CLASS_MARK)[0]


@dataclass(frozen=True)
class FaceSet:
    """Photos with the name of the person each shows.

    Attributes:
        name: Of the set ("orl").
        images: `[N, C, H, W]` in [0, 1], cropped to the face, square.
        people: `[N]` a name a photo; photos of one person share it. Unique a photo where a set
            has no identities (then `has_identities` is False).
        sources: `[N]` file name or index within the set.
        terms: Credit and terms of use, one line.
        public: Research data whose faces may be shown in a report without asking.
        has_identities: Whether re-identification is possible.
        classes: `[N]` class of each picture, of a set that shows no faces: its images stand for
            themselves, as "CLASS #NUMBER" among `people`, and labels are classes. () of faces.
        expressions: `[N]` facial expression of each photo; () where the set states none.
        attributes: By name, `[N]` whether each photo has it ("glasses"); () where none are stated.
        notes: What a report must say of how the photos were prepared; without names.
        left_out: Sources of photos that the set was to have and has not, each with the reason.
    """

    name: str
    images: Tensor
    people: tuple[str, ...]
    sources: tuple[str, ...]
    terms: str
    public: bool = False
    has_identities: bool = True
    expressions: tuple[str, ...] = ()
    attributes: tuple[tuple[str, tuple[bool, ...]], ...] = ()
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
