"""100 faces of LFW that come with scikit-image: tiny, gray, without names."""

import numpy as np
from PIL import Image
from skimage.data import lfw_subset as _read

from fedaudit.data.crop import to_tensor
from fedaudit.data.face_set import FaceSet

_FACES = 100
# The other hundred pictures of the set are not faces.


def lfw_subset(*, size: int = 64) -> FaceSet:
    """100 faces of 25 × 25 pixels, enlarged; no identities, so re-identification is not measured.

    Args:
        size: Side of the photos in pixels.
    """
    faces: np.ndarray = _read()[:_FACES]
    photos = [Image.fromarray(np.uint8(np.rint(face * 255))) for face in faces]
    names = tuple(f"lfw_subset/{i}" for i in range(_FACES))
    return FaceSet(
        name="lfw_subset",
        images=to_tensor(photos, size),
        people=names,
        sources=names,
        terms="Labeled Faces in the Wild (Huang et al. 2007), as in scikit-image; research use",
        public=True,
        has_identities=False,
    )
