"""How a client trained, as far as the facts say: the settings, and the images behind an update.

What is not stated stays unknown. Three settings that frameworks leave at zero unless told otherwise
(AdamW's decay at 0.01) are taken so where everything else is known, and this is said; so is in
which mode batch norm and in which range images are taken to be, which every attack must presume.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import get_args

from fedaudit.captures.format.capture_facts import Facts
from fedaudit.captures.format.message_header import Message
from fedaudit.core.errors import UsageError
from fedaudit.core.observation import LocalTraining
from fedaudit.core.printable import printable
from fedaudit.core.training import Augmentation, Optimizer

MOST = 1_000_000
"""Images, and local steps, behind an update."""
_NUMBERS = 1 << 32
"""In all images behind an update together: 16 GB."""

_KINDS: Mapping[Augmentation, tuple[str, ...]] = {
    "flip": ("flip", "mirror"),
    "crop": ("crop", "affine", "translat", "shift", "rotat", "resiz", "zoom", "erasing"),
    "jitter": ("jitter", "color", "brightness", "contrast", "gray", "blur"),
}
"""Words by which frameworks name the kinds of augmentation, lower case."""

_REPLAYED: tuple[Optimizer, ...] = get_args(Optimizer)
ADAMW_DECAY = 0.01
"""Of torch's AdamW where nothing else is asked."""
_OPTIMIZERS = (
    *("adadelta", "adafactor", "adagrad", "adamax", "asgd", "lamb", "lars", "lbfgs", "lion"),
    *("muon", "nadam", "radam", "rmsprop", "rprop", "sam", "sparseadam", "yogi"),
)
"""Of torch and of papers: known by name, and not replayed."""


@dataclass(frozen=True)
class Training:
    """What is known of one client's local training.

    Attributes:
        settings: None where a setting that an attack cannot do without is not known.
        images: Images behind the update; None where it is not known.
        missing: Facts to state so that `settings` and `images` are known.
        assumed: Settings that were not stated, in words.
    """

    settings: LocalTraining | None
    images: int | None
    missing: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()


def local_training(facts: Facts, message: Message) -> Training:
    """The training behind a message, from the facts and what the client says of itself."""
    images = images_behind(facts, message)
    missing = [] if images is not None else ["examples, or local_steps and batch_size"]
    steps = _steps_made(facts, message)
    gradient = message.kind == "gradient"
    if not gradient:
        missing += [] if facts.lr is not None else ["lr"]
        missing += [] if steps is not None else ["local_steps, or local_epochs and examples"]
    if facts.batch_size is None and not (gradient or steps == 1):
        missing.append("batch_size")
    stated = (facts.optimizer or "sgd").lower()
    optimizer = next((name for name in _REPLAYED if name == stated), None)
    usual_decay = ADAMW_DECAY if optimizer == "adamw" and not gradient else 0.0
    if not gradient and optimizer is None:
        names = "sgd, adam or adamw"
        missing.append(f"an optimizer that can be replayed: {names}, not {facts.optimizer}")
    always = ["batch_norm = train"] if facts.batch_norm is None else []
    if facts.mean is None and facts.std is None:
        always.append("images that enter the model in [0, 1] (no mean, no std)")
    if facts.augmentation is None:
        always.append("no augmentation")
    augmentation = augmentation_in(facts.augmentation or "")
    if augmentation and not _named(facts.augmentation or ""):
        always.append(f"augmentation = {', '.join(augmentation)}")
    if missing:
        return Training(None, images, tuple(missing), tuple(always))
    assumptions = []
    if not gradient:
        assumptions += ["optimizer = sgd"] if facts.optimizer is None else []
        usual = {"momentum": 0, "weight_decay": usual_decay, "proximal": 0}
        assumptions += [f"{n} = {v:g}" for n, v in usual.items() if getattr(facts, n) is None]
    settings = LocalTraining(
        lr=facts.lr or 1.0,  # a gradient has no learning rate in it
        steps=1 if gradient else steps or 1,
        batch_size=facts.batch_size if facts.batch_size and not gradient else images or 1,
        momentum=0.0 if gradient else facts.momentum or 0.0,
        optimizer="sgd" if gradient or optimizer is None else optimizer,
        weight_decay=usual_decay if facts.weight_decay is None else facts.weight_decay,
        proximal=facts.proximal or 0.0,
        batch_norm=facts.batch_norm or "train",
        augmentation=augmentation,
    )
    return Training(settings, images, (), (*assumptions, *always))


def optimizer_note(name: str | None) -> str:
    """What to say of the optimizer that is stated; "" of one that is replayed.

    Any text may be stated: somebody may have written an optimizer of their own.

    Example:
        >>> optimizer_note("sdg")
        "optimizer = 'sdg' is not known: did you mean 'sgd'? Attacks replay sgd, adam and adamw"
    """
    if name is None or name.lower() in _REPLAYED:
        return ""
    close = get_close_matches(name.lower(), (*_REPLAYED, *_OPTIMIZERS), n=1, cutoff=0.5)
    known, hint = name.lower() in _OPTIMIZERS, f"did you mean {close[0]!r}? " if close else ""
    text = "is not replayed. " if known else f"is not known: {hint}"
    return f"optimizer = {printable(name)!r} {text}Attacks replay sgd, adam and adamw"


def augmentation_in(words: str) -> tuple[Augmentation, ...]:
    """The kinds of random change that are stated in words; all of them where none is recognized.

    What an attack must know is that no photo enters the network twice as it was.

    Example:
        >>> augmentation_in("RandomHorizontalFlip, RandomResizedCrop(112)")
        ('flip', 'crop')
        >>> augmentation_in("none"), augmentation_in("AugMix")
        ((), ('flip', 'crop', 'jitter'))
    """
    said = words.strip().lower()
    if said in ("", "no", "none", "false", "-"):
        return ()
    return _named(said) or tuple(_KINDS)


def _named(words: str) -> tuple[Augmentation, ...]:
    said = words.lower()
    return tuple(kind for kind, names in _KINDS.items() if any(name in said for name in names))


def check_size(training: Training, shape: tuple[int, int, int] | None) -> None:
    """Refuse a training that no attack could rebuild, before anything is made for each image.

    Args:
        training: What is known of it.
        shape: Of an image.

    Raises:
        UsageError: More images, steps, or numbers in the images than a client trains with.
    """
    steps, images = training.settings.steps if training.settings else 0, training.images or 0
    for what, count in (("images", images), ("local steps", steps)):
        if count > MOST:
            raise UsageError(
                f"it says that {count:,} {what} are behind the update, and at most {MOST:,} are "
                "attacked: correct examples, local_steps, local_epochs or batch_size"
            )
    if images * math.prod(shape or (1,)) > _NUMBERS:
        raise UsageError(
            f"{images:,} images of {'×'.join(map(str, shape or ()))} are behind the update, which "
            "fit into no memory: correct examples or image_shape"
        )


def _steps_made(facts: Facts, message: Message) -> int | None:
    """Optimizer steps behind an update; None where they are not known."""
    if message.kind == "gradient":
        return 1
    if facts.local_steps is not None:
        return facts.local_steps
    if facts.local_epochs and message.examples and facts.batch_size:
        return facts.local_epochs * math.ceil(message.examples / facts.batch_size)
    return None


def images_behind(facts: Facts, message: Message) -> int | None:
    """Different images behind an update: no more than the client has, or than its steps take."""
    steps = _steps_made(facts, message)
    drawn_images = None if steps is None or facts.batch_size is None else steps * facts.batch_size
    has = message.examples or None
    return min(drawn_images, has) if drawn_images and has else drawn_images or has
