"""What `fedaudit audit` is asked for, and whether the capture has those rounds and clients."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedaudit.captures.format.capture_paths import slug
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.inspect.inspection import Inspection
from fedaudit.core.errors import ConfigError
from fedaudit.core.printable import first_few, printable
from fedaudit.core.scenario import Choice

TARGETS = 16


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `fedaudit audit` is asked for.

    Attributes:
        path: The capture.
        model: As `capture_network.model_of` takes it, trusted; None takes the capture's.
        rename: `OLD=NEW` each, what names of the recording are in the model; or `auto`.
        truth: Folder of a consenting client's photos, by client; the key "" is the only client.
        gallery: A folder a person.
        rounds, clients: Only these; None is all, or with `truth` those clients.
        attacks: None takes those that apply, of `DEFAULT_ATTACKS`.
        targets: Updates of each round at most.
        fmr: False match rate at which faces count as one person.
        ceiling_floor: Share of the gallery's own photos that must be recognized.
        deployed: What the clients deployed, as reports are to call it; "" takes what the capture
            states and its numbers show.
    """

    path: Path
    model: str | None = None
    rename: Sequence[str] = ()
    truth: Mapping[str, Path] = field(default_factory=dict)
    gallery: Path | None = None
    rounds: Collection[int] | None = None
    clients: Collection[str] | None = None
    attacks: Sequence[Choice] | None = None
    targets: int = TARGETS
    fmr: float = 1e-3
    ceiling_floor: float = 0.5
    deployed: str = ""


def find_rounds(capture: StoredCapture, choice: Collection[int] | None) -> tuple[int, ...]:
    """The rounds that are asked for, ascending; all that were recorded where none are named.

    Raises:
        ConfigError: One was not recorded.
    """
    rounds = capture.rounds()
    for number in choice or ():
        if number not in rounds:
            there = ", ".join(map(str, rounds[:20])) or "none"
            raise ConfigError(f"{capture.folder} has no round {number}. Rounds: {there}.")
    return tuple(sorted(set(choice))) if choice is not None else rounds


def find_truth(request: Request, inspection: Inspection) -> dict[str, Path]:
    """Folders of photos by client.

    Raises:
        ConfigError: It is not clear whose they are, or there is no such client.
    """
    truth = dict(request.truth)
    if "" not in truth:
        folders = truth
    else:
        among = set(request.clients or ()) or _clients(inspection)
        if len(among) != 1:
            raise ConfigError(
                f"--truth {truth['']}: whose photos are these? The capture has "
                f"{len(among)} clients: write --truth CLIENT={truth['']}. Clients: "
                f"{_list_clients(inspection)}."
            )
        folders = {next(iter(among)): truth[""]}
    for client, path in folders.items():
        if client not in _clients(inspection) | _clients_of_problems(inspection, folders):
            raise ConfigError(
                f"--truth {printable(client)}={path}: there is no such client. Clients: "
                f"{_list_clients(inspection)}."
            )
    return {client: path.expanduser().resolve() for client, path in folders.items()}


def find_clients(
    request: Request, inspection: Inspection, truth: Mapping[str, Path]
) -> set[str] | None:
    """The clients that are asked for; None is all.

    Args:
        request: Which may name them.
        inspection: Of the capture.
        truth: As `find_truth` gives it: where no client is named, these are meant.

    Raises:
        ConfigError: One is not in the capture.
    """
    clients = set(request.clients) if request.clients is not None else set(truth) or None
    if clients and (
        unknown := sorted(
            clients - _clients(inspection) - _clients_of_problems(inspection, clients)
        )
    ):
        raise ConfigError(
            f"{request.path} has no client {printable(unknown[0])!r}. Clients: "
            f"{_list_clients(inspection)}."
        )
    return clients


def _clients(inspection: Inspection) -> set[str]:
    return {name for one in inspection.rounds for name in one.clients}


def _clients_of_problems(inspection: Inspection, clients: Collection[str]) -> set[str]:
    """Those of the clients whose files cannot be used: a problem, and no name that is wrong."""
    return {c for c in clients if any(slug(c) in text for text in inspection.problems)}


def _list_clients(inspection: Inspection) -> str:
    return first_few(sorted(map(printable, _clients(inspection))), 10)
