"""`fedaudit import`: a capture of files that clients and servers left behind."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import click

from fedaudit.cli.ending import GATE, OK
from fedaudit.cli.options import examples
from fedaudit.cli.say import say
from fedaudit.core.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from fedaudit.captures.format.capture_facts import Facts, Keywords, Kind

OF_MODEL = frozenset({"model", "arguments", "classes", "image_shape"})
"""Facts by which the model is built and tried."""

SIGNS: dict[str, Literal[1, -1] | None] = {"auto": None, "1": 1, "+1": 1, "-1": -1}


def _shape(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    del context, option
    if value is None:
        return None
    parts = value.replace("×", "x").split("x")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise click.BadParameter("write it as channels, height and width: 3x64x64")
    first, height, last = map(int, parts)
    if last in (1, 3) and min(first, height) > 4:
        raise click.BadParameter(
            f"{value} has {first} channels and is {last} wide. Channels come first: "
            f"{last}x{first}x{height}"
        )
    return first, height, last


def _object(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    del context, option
    try:
        read = None if value is None else json.loads(value)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"it is no JSON: {str(error)[:200]}") from error
    if read is not None and not isinstance(read, dict):
        raise click.BadParameter('write it as JSON: {"width": 64}')
    return read


@click.command(
    epilog=examples(
        "fedaudit import client7.safetensors -o capture --broadcast global.safetensors",
        "fedaudit import c1.npz c2.npz -o capture --broadcast global.npz --model my_pkg.net:make",
        "fedaudit import grads.pt -o capture --broadcast global.pt --kind gradient --classes 10",
        "fedaudit import round2/*.pt -o capture --round 2 --broadcast global2.pt --lr 0.1",
        note="Formats: .safetensors; .pt and .pth of torch.save (tensors only, no code is run); "
        ".npz (no objects); .pb, Flower's ArrayRecord, RecordDict or Parameters as protocol "
        "buffers; .fobs, NVFlare's DXO as dxo.to_bytes() gives it. Exit codes: 0 all files were "
        "imported, 1 some were not, 2 none, or wrong usage.",
    )
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="CAPTURE",
    help="Folder of the capture: a new one, or one to add to.",
)
@click.option(
    "--broadcast",
    type=click.Path(path_type=Path),
    help="What the server had sent. Not needed again where the capture has it.",
)
@click.option(
    "--round", "number", type=click.IntRange(0, 10**9), default=1, show_default=True, help="Round."
)
@click.option(
    "--client", "clients", multiple=True, help="Name, one a FILE.  [default: the file's name]"
)
@click.option(
    "--kind",
    type=click.Choice(["weights", "delta", "gradient"]),
    help="What the files hold; delta is local − global.  [default: found out and told]",
)
@click.option(
    "--sign",
    type=click.Choice(list(SIGNS)),
    default="auto",
    show_default=True,
    help="-1 for the negative of it, such as global − local.",
)
@click.option("--examples", "images", type=click.IntRange(min=1), help="Images of each client.")
@click.option("--aggregate", is_flag=True, help="The files are sums or means over clients.")
@click.option("--partial", is_flag=True, help="What the files lack stayed on the devices.")
@click.option("--model", help="What `fedaudit audit --model` takes; trusted to run its code.")
@click.option("--arguments", callback=_object, help="Of the model, as JSON.")
@click.option("--classes", type=click.IntRange(min=1), help="Width of the head.")
@click.option("--image-shape", callback=_shape, metavar="CxHxW", help="Such as 3x64x64.")
@click.option("--lr", type=float, help="Learning rate of clients.")
@click.option("--optimizer", help="Of clients: sgd, adam, adamw …")
@click.option("--momentum", type=float, help="Of the optimizer.")
@click.option("--weight-decay", type=float, help="Of the optimizer.")
@click.option("--local-steps", type=click.IntRange(min=1), help="Steps of a client in a round.")
@click.option("--local-epochs", type=click.IntRange(min=1), help="Passes in a round.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Images a step.")
@click.option("--batch-norm", type=click.Choice(["train", "eval"]), help="Mode in training.")
def importing(
    *,
    files: tuple[Path, ...],
    output: Path,
    broadcast: Path | None,
    number: int,
    clients: tuple[str, ...],
    kind: "Kind | None",
    sign: str,
    images: int | None,
    aggregate: bool,
    partial: bool,
    **facts: Unpack["Keywords"],
) -> int:
    """Make a capture of FILES, each what one client sent, and of what the server had sent.

    Files are taken to be hostile: no code in them runs. A file that cannot be used is named, and
    the others are imported. What is not stated is found out where the numbers show it, and told.
    """
    from fedaudit.captures.format.capture_facts import check_facts  # noqa: PLC0415 - slow
    from fedaudit.captures.format.capture_reader import StoredCapture  # noqa: PLC0415 - imports torch
    from fedaudit.captures.format.stated_training import optimizer_note  # noqa: PLC0415 - as above
    from fedaudit.captures.inspect.round_measures import optimizer_doubt  # noqa: PLC0415 - as above
    from fedaudit.captures.record import import_updates as work  # noqa: PLC0415 - imports torch
    from fedaudit.captures.record.recording import recording  # noqa: PLC0415 - imports torch
    from fedaudit.study.named_code import look_for_code  # noqa: PLC0415 - imports torch

    look_for_code(facts.get("model"))
    if clients and len(clients) != len(files):
        raise ConfigError(
            f"{len(files)} files and {len(clients)} names of clients: give --client once a file, "
            "or leave it out and the files' names are taken."
        )
    known, news = work.facts_with(output, check_facts(facts))
    # Only a model that this command line names may run its code.
    names = work.names_of_model(known, trusted=facts.get("model"))
    sent = None if broadcast is None else work.read_broadcast(broadcast, names)
    if note := optimizer_note(facts.get("optimizer")):
        _tell(f"note: {note}")
    if news & OF_MODEL and work.may_build(known, facts.get("model")):
        _check_model(known, sent, output, number)
    record = recording(output, **facts)
    if sent is not None:
        record.broadcast(number, sent)
    else:
        StoredCapture(output).broadcast_message(number)
    statement = work.Given(
        round=number,
        kind=kind,
        sign=SIGNS[sign],
        examples=images,
        aggregate=aggregate,
        partial=partial,
    )
    errors: list[UsageError] = []
    imported = set()
    for place, path in enumerate(files):
        client = clients[place] if clients else path.stem
        try:
            work.import_update(path, client, record, names, statement, _tell)
            imported.add(client)
        except UsageError as error:
            errors.append(error)
            if len(files) > 1:
                _tell(f"left out: {error}")
    if len(errors) == len(files):
        raise (
            errors[0]
            if len(files) == 1
            else ConfigError(
                f"none of the {len(files)} files could be imported. The first: {errors[0]}"
            )
        )
    if doubt := optimizer_doubt(StoredCapture(output), number, imported):
        _tell(f"note: {doubt}. If it was Adam, import into a new folder with --optimizer adam")
    count = len(files) - len(errors)
    say(f"{output}: {count} of {len(files)} files imported into round {number}")
    say(f"fedaudit inspect {output} shows what the capture holds and what it lacks", err=True)
    return GATE if errors else OK


def _check_model(
    facts: "Facts", sent: "Mapping[str, Tensor] | None", output: Path, number: int
) -> None:
    """Refuse a model that no audit could use, before anything of it is recorded."""
    from fedaudit.captures.format.capture_network import model_of  # noqa: PLC0415 - imports torch
    from fedaudit.captures.format.capture_reader import StoredCapture  # noqa: PLC0415 - as above
    from fedaudit.captures.inspect.model_fit import check_import  # noqa: PLC0415 - as above

    shapes = (
        StoredCapture(output).broadcast_message(number).shapes()
        if sent is None
        else {name: tuple(tensor.shape) for name, tensor in sent.items()}
    )
    for note in check_import(shapes, model_of(facts, facts.model), facts):
        _tell(f"note: {note}")


def _tell(sentence: str) -> None:
    """On stderr, without what a terminal would obey."""
    say(sentence, err=True)
