"""Why the model that was named is not the one whose updates were recorded, and what to do.

Names and shapes alone are compared, the recording's with the network's. Both may be a stranger's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedaudit.captures.format.tensor_names import STATISTICS, Renaming, shortest
from fedaudit.captures.inspect.name_matching import (
    Shapes,
    fitting_prefixes,
    match_by_shape,
    same_kind,
)
from fedaudit.core.printable import printable

WRAPPERS = {
    "module": "DataParallel or DistributedDataParallel",
    "_orig_mod": "torch.compile",
    "_module": "Opacus",
}

Explanation = tuple[str, str, Renaming | None]
"""The likely cause, what to do, and the renaming that does it."""


@dataclass(frozen=True)
class Mismatch:
    """What does not fit.

    Attributes:
        key: The first wrong name, as it was recorded.
        fact: What each side has there.
        cause: The likely one.
        advice: What to do.
        renaming: Rules that make more of the names fit, where no choice is left; else None.
    """

    key: str
    fact: str
    cause: str
    advice: str
    renaming: Renaming | None = None

    def __str__(self) -> str:
        return f"{self.fact}. Likely cause: {self.cause}. {self.advice}"


def find_mismatch(
    sent: Shapes, network: Shapes, advise_classes: Callable[[int], str]
) -> Mismatch | None:
    """Compare what the server sent with a network; None where all that was sent fits.

    What the network has beyond that may have stayed on the devices.

    Args:
        sent: In the order in which it was sent.
        network: In the order of its state dict.
        advise_classes: What to do where the model should have so many classes.
    """
    key = next((n for n in sent if network.get(n) != sent[n]), None)
    if key is None:
        return None
    if key in network:
        fact = f"{_quote(key)} is {_shape(sent[key])} in the capture and {_shape(network[key])} "
        fact += "in the model"
    else:
        first = next((n for n in network if n not in sent), next(iter(network), ""))
        fact = f"the capture has {_quote(key)} {_shape(sent[key])}, and the model does not"
        fact += f"; of what it has, the capture lacks {_quote(first)}" if first else ""
    if all(name in network for name in sent):
        return Mismatch(key, fact, *_other_shapes(sent, network, advise_classes))
    for explain in (_prefix, _folded_norm, _headless, _other_names, _partly):
        if (explanation := explain(sent, network)) is not None:
            return Mismatch(key, fact, *explanation)
    agree = sum(network.get(name) == shape for name, shape in sent.items())
    return Mismatch(
        key,
        fact,
        f"another architecture: {agree} of {len(sent)} names agree, shapes included",
        "Name the model that the clients trained: --model package.module:factory.",
    )


def _other_shapes(
    server: Shapes, network: Shapes, advise_classes: Callable[[int], str]
) -> tuple[str, str]:
    """All names are known, and some shapes differ."""
    wrong = {n: (server[n], network[n]) for n in server if server[n] != network[n]}
    last = next((n for n in reversed(list(network)) if len(network[n]) == 2 and n in server), "")
    tails = {(a[1:], b[1:]) for a, b in wrong.values()}
    heads = {(a[:1], b[:1]) for a, b in wrong.values()}
    if (
        last in wrong
        and len(heads) == 1
        and all(a == b for a, b in tails)
        and ((), ()) not in heads
    ):
        have, need = wrong[last][1][0], wrong[last][0][0]
        return f"the wrong number of classes, {have:,} in place of {need:,}", advise_classes(need)
    first, (a, b) = next(iter(wrong.items()))
    if len(wrong) == 1 and len(a) == len(b) == 2 and a[0] == b[0]:
        return (
            f"another size of images: {_quote(first)} takes {a[1]:,} features of them in the "
            f"capture and {b[1]:,} in the model",
            "State the size that the clients trained on: fedaudit.recording(CAPTURE, "
            "image_shape=(C, H, W)), or name a model that is built for it.",
        )
    if len(wrong) == 1 and len(a) == len(b) == 4 and (a[0], *a[2:]) == (b[0], *b[2:]):
        return (
            f"images of {a[1]} channels in the capture and {b[1]} in the model",
            "Name a model for such images: --model package.module:factory.",
        )
    return (
        f"the same architecture in another size: {len(wrong)} of {len(server)} shapes differ",
        "Name the model, with the arguments, that the clients trained.",
    )


def _prefix(server: Shapes, network: Shapes) -> Explanation | None:
    """One prefix of all names is another one in the network, or none."""
    fitting = fitting_prefixes(server, network)
    whole = {fits: rules for (complete, fits), rules in fitting.items() if complete}
    return _prefix_advice(whole[max(whole)]) if whole else None


def _partly(server: Shapes, network: Shapes) -> Explanation | None:
    """The same of more than half of the names, and more than fit as they are."""
    fitting = fitting_prefixes(server, network)
    best = max(fitting, default=(False, 0))
    alike = sum(network.get(n) == s for n, s in server.items())
    if 2 * best[1] <= len(server) or best[1] <= alike:
        return None
    cause, advice, renaming = _prefix_advice(fitting[best])
    return f"{cause} ({best[1]} of {len(server)} names then fit)", advice, renaming


def _prefix_advice(rules: Sequence[Renaming]) -> Explanation:
    if len(rules) > 1:
        options = " or ".join(filter(None, (r.as_options() for r in rules[:3])))
        cause = "a prefix, and the model has several parts with the names that follow it"
        return cause, f"Say which is meant: {options or '--rename OLD=NEW'}.", None
    ((old, new),) = rules[0].rules
    if old and new:
        cause = f"{_quote(old)} in the capture is {_quote(new)} in the model"
    else:
        wrapper = WRAPPERS.get(old or new, "a wrapper such as a LightningModule")
        side = "capture" if old else "model"
        cause = f"names in the {side} begin with {_quote(f'{old or new}.')}, which {wrapper} adds"
    return cause, *_offer(rules[0])


def _folded_norm(server: Shapes, network: Shapes) -> Explanation | None:
    """Batch norm that was folded into convolutions, on either side."""
    for one, other, where, whose in (
        (server, network, "the model has", "what the server sent"),
        (network, server, "the capture has", "the model"),
    ):
        biases = {n for n in one if n not in other}
        norms = {n.rpartition(".")[0] for n in other if n not in one and n.endswith(STATISTICS)}
        new_biases = {n for n in biases if n.endswith(".bias")}
        partners = {n for n in new_biases if n.removesuffix("bias") + "weight" in other}
        missing = [n for n in other if n not in one and n.rpartition(".")[0] not in norms]
        if norms and new_biases and partners == new_biases == biases and not missing:
            layers = "batch-norm layer" + ("s" if len(norms) > 1 else "")
            return (
                f"batch norm was folded into convolutions in {whose}: {where} {len(norms)} {layers}"
                f" that it lacks, and {len(new_biases)} convolutions have a bias in place of them",
                "No renaming undoes this. Name the model in the form that the clients trained: "
                + (
                    "fused (torch.nn.utils.fusion.fuse_conv_bn_eval)."
                    if one is server
                    else "before it is fused."
                ),
                None,
            )
    return None


def _headless(server: Shapes, network: Shapes) -> Explanation | None:
    """The network lacks the last layers of what was sent, and all else fits."""
    extra = [n for n in server if n not in network]
    common = [n for n in server if n in network]
    fits = all(network[n] == server[n] for n in common) and len(common) >= len(extra)
    if not fits or len(common) < len(network) or list(server)[-len(extra) :] != extra:
        return None
    wide = [server[n][0] for n in extra if len(server[n]) == 2]
    classes = f" of {wide[-1]:,} classes" if wide else ""
    return (
        f"the model lacks the head{classes}: all {len(network)} tensors that it has fit",
        "Name the model with the head that the clients trained.",
        None,
    )


def _other_names(server: Shapes, network: Shapes) -> Explanation | None:
    """The same shapes under other names: by order, or where a shape occurs once."""
    if not any(n.endswith(STATISTICS) for n in server):
        network = {n: s for n, s in network.items() if not n.endswith(STATISTICS)}
    if len(server) != len(network):
        return None
    pairs = list(zip(server.items(), network.items(), strict=True))
    in_order = all(a == b and same_kind(old, new) for (old, a), (new, b) in pairs)
    by_order = {old: new for (old, _), (new, _) in pairs}
    by_shape, unclear = match_by_shape(server, network)
    if by_shape is None:
        return None
    # The order of a list that is sorted by name is not that of the layers.
    if in_order and (not unclear or list(server) != sorted(server)):
        clash = [n for n in server if n in network and by_order[n] != n and network[n] == server[n]]
        if clash:
            return (
                "renamed layers, and some of the names are those of other layers: by order "
                f"{_quote(clash[0])} would be {_quote(by_order[clash[0]])}, by name itself",
                "Say which is meant, layer by layer: --rename OLD=NEW.",
                None,
            )
        return "renamed layers: all shapes are the same, in the same order", *_offer(
            shortest(by_order)
        )
    if unclear:
        one, other = unclear
        return (
            f"renamed layers, but {_quote(one)} and {_quote(other)} have the same shape "
            f"{_shape(server[one])}, and the order does not tell which is which",
            "Say what they are in the model, layer by layer: --rename OLD=NEW.",
            None,
        )
    return "renamed layers: each shape occurs once", *_offer(shortest(by_shape))


def _offer(renaming: Renaming) -> tuple[str, Renaming]:
    options = renaming.as_options()
    return f"Add {options + ', or ' if options else ''}--rename auto.", renaming


def _quote(name: str) -> str:
    """A stranger's name, short and as text."""
    text = printable(name)
    return repr(text if len(text) <= 100 else f"{text[:97]}…")


def _shape(shape: Sequence[int]) -> str:
    return str(list(shape))
