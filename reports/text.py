"""Strings and numbers as a report shows them: nothing invisible, nothing without its unit."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from fedaudit.core.measures import Estimate, Rate
from fedaudit.reports.measurement import SecondOpinion

T = TypeVar("T")

ABSENT = "—"
"""What stands for "not tested" or "not measured"; never 0."""
TRAINS_SO = "not measured: the federation trains so already"
"""Why a defense of `fedaudit.reports.same_training` has no accuracy and no cost."""
SAME = 1e-6
"""How far below 1 a likeness of two images that are the same may come out."""
NBSP = "\u00a0"
MINUS = "\u2212"
CLOSING = (
    "This report is evidence for the attacks that were run, on the data and settings named above, "
    "and for nothing else. It is not a determination of anonymity or of compliance."
)
"""Stands at the end of every page: what an audit can show, and no more."""

_PERCENT = re.compile(r"(<(script|style|svg)\b.*?</\2>)|(?<=\d) %", re.DOTALL)
# Control, format (bidi overrides, zero-width), surrogate, private use; line and paragraph breaks.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))


def visible(text: str) -> str:
    r"""Spell out characters that a reader cannot see, among them those that reorder text.

    >>> visible("a\u202eb\x00")
    'a⟨U+202E⟩b⟨U+0000⟩'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"⟨U+{ord(c):04X}⟩" if c not in "\n\t" and unicodedata.category(c) in _HIDDEN else c
        for c in text
    )


def unbroken(page: str) -> str:
    """A page on which no line ends between a number and its sign of percent.

    Sentences that command lines and other files show, too, have plain spaces.

    >>> unbroken("2.5 % to 98 %.<script>x = 7 % 2</script>").replace(NBSP, "_")
    '2.5_% to 98_%.<script>x = 7 % 2</script>'
    """
    return _PERCENT.sub(lambda found: found[0] if found[1] else f"{NBSP}%", page)


def clean(value: T) -> T:
    """A copy of nested dataclasses, tuples and mappings with every string made `visible`."""
    return cast(T, _clean(value))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _clean(getattr(value, f.name)) for f in fields(value)})
    if isinstance(value, Mapping):
        return {_clean(k): _clean(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_clean, value))
    return value


def number(value: float | None, digits: int = 2) -> str:
    """A number with a true minus sign; "—" for None.

    To two decimals or more, what is not 1 is never rounded to it, as an SSIM or a cosine of 1 says
    that two images are the same. What is 1 but for the rounding of single precision is 1.

    >>> number(-0.125), number(None), number(-0.001)
    ('−0.13', '—', '0.00')
    >>> number(0.996), number(0.99973), number(-0.9999), number(1.0), number(0.97, 1)
    ('0.996', '>0.999', '<−0.999', '1.00', '1.0')
    """
    if value is None:
        return ABSENT
    text = rounded(value, digits)
    if digits < 2 or abs(value) > 1 - SAME or float(rounded(abs(value), digits)) < 1:
        return text
    finer = rounded(value, digits + 1)
    if float(rounded(abs(value), digits + 1)) < 1:
        return finer
    return f">0.{'9' * (digits + 1)}" if value > 0 else f"<{MINUS}0.{'9' * (digits + 1)}"


def rounded(value: float, digits: int = 2) -> str:
    """A number of no range, such as how many times longer something takes; as `number` else.

    >>> rounded(0.996)
    '1.00'
    """
    # Half away from zero reads as people expect; and no "−0.00".
    digits_text = f"{abs(value) + 1e-12:.{digits}f}"
    return MINUS + digits_text if value < 0 and float(digits_text) != 0 else digits_text


def percent(value: float | None, *, unit: bool = True) -> str:
    """A share in percent; one decimal below 10 %, where intervals of clean runs live.

    What is not all is never rounded to it, nor what is something to nothing.

    >>> percent(0.5, unit=False), percent(0.049, unit=False), percent(0, unit=False)
    ('50', '4.9', '0')
    >>> percent(0.998, unit=False), percent(0.9999, unit=False), percent(0.0001, unit=False)
    ('99.8', '>99.9', '<0.1')
    """
    if value is None:
        return ABSENT
    share = value * 100
    if 99.95 <= share < 100:
        text = ">99.9"
    elif 0 < share < 0.05:
        text = "<0.1"
    else:
        text = number(share, 0 if 9.95 <= abs(share) < 99.5 else 1).removesuffix(".0")
    return f"{text}{NBSP}%" if unit else text


def rate(value: Rate | None) -> str:
    """A rate with its interval and n, in one line.

    >>> rate(Rate(hits=1, n=2, value=0.5, low=0.01, high=0.99)).replace(chr(160), " ")
    '50 % [1, 99] 1 of 2'
    """
    if value is None:
        return ABSENT
    return f"{percent(value.value)} {rate_range(value)} {value.hits} of {value.n}"


def rate_range(value: Rate) -> str:
    """The interval of a rate, in percent."""
    return f"[{percent(value.low, unit=False)}, {percent(value.high, unit=False)}]"


def estimate_range(value: Estimate, digits: int = 2) -> str:
    """The interval of an estimate; one value has none, however small its range looks.

    >>> estimate_range(Estimate(0.01, 0.0, 0.01, 1, "one alone has no interval"))
    'no interval'
    """
    if not value.has_interval:
        return "no interval"
    return f"[{number(value.low, digits)}, {number(value.high, digits)}]"


def estimate(value: Estimate | None, digits: int = 2) -> str:
    """A mean with its interval and n, in one line."""
    if value is None:
        return ABSENT
    return f"{number(value.value, digits)} {estimate_range(value, digits)} n = {value.n}"


def accuracy(value: Estimate | None) -> str:
    """A mean share with its interval and the people it is of, in one line.

    >>> accuracy(Estimate(0.87, 0.8, 0.941, 10, "")).replace(chr(160), " ")
    '87 % [80, 94] 10 people'
    """
    if value is None:
        return ABSENT
    return f"{percent(value.value)} {percent_range(value)} {value.n} people"


def percent_range(value: Estimate) -> str:
    """The interval of a share, in percent."""
    return f"[{percent(value.low, unit=False)}, {percent(value.high, unit=False)}]"


def points(value: Estimate | None) -> str:
    """A difference of rates in percentage points, with a sign.

    >>> points(Estimate(value=0.25, low=0, high=0.5, n=4, method=""))
    '+25'
    """
    return ABSENT if value is None else signed(value.value * 100, 0)


def points_range(value: Estimate) -> str:
    """The interval of a difference of rates, in percentage points."""
    return f"[{number(value.low * 100, 0)}, {number(value.high * 100, 0)}]"


def signed(value: float, digits: int = 2) -> str:
    """A difference, with its sign.

    >>> signed(0.25), signed(-0.25), signed(0.9999)
    ('+0.25', '−0.25', '>+0.999')
    """
    text = number(value, digits)
    if value <= 0 or float(rounded(value, digits)) == 0:
        return text
    return f">+{text[1:]}" if text.startswith(">") else f"+{text}"


def p_value(value: float | None) -> str:
    r"""A p value as journals print it.

    >>> p_value(0.0001), p_value(0.0314)
    ('<\xa00.001', '0.031')
    """
    if value is None:
        return ABSENT
    return f"<{NBSP}0.001" if value < 0.001 else rounded(value, 3)


def second_opinion(label: str, other: SecondOpinion) -> str:
    """What another judge says of a row ("dlib: 3 of 16; disagrees on 2 of 16 images").

    Where it matches the control's images, too, that is said: its false match rate was calibrated on
    photos, and generated faces may pass it more often.
    """
    words = f"{label}: {other.reid.hits} of {other.reid.n}"
    if other.prior and other.prior.hits:
        words += f", of the prior-only control {other.prior.hits} of {other.prior.n}"
    differs = f"; disagrees on {other.disagreements} of {other.images} images"
    return words + (differs if other.disagreements else "")


def seconds(value: float | None) -> str:
    """A duration in seconds.

    >>> seconds(3.14159), seconds(12345.6)
    ('3.1', '12,346')
    """
    if value is None:
        return ABSENT
    return number(value, 1) if value < 10 else f"{value:,.0f}"


def counted(value: Rate) -> str:
    """How many of how many.

    >>> counted(Rate(1, 1, 1.0, 0.03, 1.0)), counted(Rate(2, 8, 0.25, 0.03, 0.65, "updates"))
    ('1 of 1 person', '2 of 8 updates')
    """
    one = {"people": "person", "updates": "update", "groups of updates": "group of updates"}
    unit = one.get(value.unit, value.unit) if value.n == 1 else value.unit
    return f"{value.hits} of {value.n} {unit}"


def verdict_name(kind: str, limit: float) -> str:
    r"""A verdict as printed: the limit is part of its name.

    >>> verdict_name("NO LEAK FOUND ABOVE LIMIT", 0.05)
    'NO LEAK FOUND ABOVE 5\xa0%'
    """
    return f"NO LEAK FOUND ABOVE {percent(limit)}" if kind == "NO LEAK FOUND ABOVE LIMIT" else kind
