"""A filter for NVFlare: records what crosses the wire, and changes nothing.

    recipe = FedAvgRecipe(…)
    tap(recipe, "/data/capture", model="faces:Net", classes=40)     # the audit is this line
    recipe.execute(env)

On the server it sees what clients really sent, before it is aggregated. On a client, added with
`add_client_output_filter`, it sees what leaves the client.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol, TypeVar, Unpack, cast
from weakref import ref

from fedaudit.captures.format.capture_facts import Facts, Keywords, Kind, as_dict, check_facts
from fedaudit.captures.record.recording import Recording, recording
from fedaudit.captures.record.recording_warnings import warning_of
from fedaudit.core.errors import UsageError

try:
    from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
    from nvflare.apis.dxo_filter import DXOFilter
    from nvflare.apis.filter import FilterChainType, FilterContextKey
    from nvflare.apis.fl_constant import FilterKey, FLContextKey
    from nvflare.apis.fl_context import FLContext
    from nvflare.apis.shareable import Shareable
    from nvflare.app_common.app_constant import AppConstants
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "nvflare":
        raise
    raise ImportError(
        "fedaudit.captures.record.nvflare needs NVFlare: pip install 'fedaudit[nvflare]'. "
        "Without it, record a training loop with fedaudit.recording.",
        name="nvflare",
    ) from error

Counted = Literal["steps", "examples"]
KINDS: dict[str, Kind] = {DataKind.WEIGHTS.value: "weights", DataKind.WEIGHT_DIFF.value: "delta"}
ENCRYPTED = "CKKS"
"""What NVFlare's `HEModelEncryptor` calls its algorithm."""
HALVED = "FLOAT16"
"""The quantization of NVFlare whose arrays are still the weights."""
LEDGER = "svt_privacy_budget"
"""Where `SVTPrivacy` says what ε it counts for a message."""
NOT_METRICS = {
    *(MetaKey.PROCESSED_ALGORITHM, MetaKey.PROCESSED_KEYS, MetaKey.INITIAL_METRICS),
    *(MetaKey.CURRENT_ROUND, MetaKey.START_ROUND, MetaKey.TOTAL_ROUNDS, MetaKey.FILTER_HISTORY),
    *(MetaKey.JOB_ID, MetaKey.SITE_NAME),
}


class TakesFilters(Protocol):
    """A recipe of NVFlare, as far as `tap` needs it."""

    def add_server_input_filter(self, filter: Any, tasks: Any = None) -> Any:
        """Add a filter of what clients send."""

    def add_server_output_filter(self, filter: Any, tasks: Any = None) -> Any:
        """Add a filter of what the server sends."""


T = TypeVar("T", bound=TakesFilters)


def tap(
    recipe: T,
    folder: str | Path,
    *,
    counted: Counted | None = None,
    tasks: Sequence[str] = ("train",),
    **facts: Unpack[Keywords],
) -> T:
    """Have an NVFlare recipe recorded into a capture folder when it runs.

    Args:
        recipe: Any recipe of NVFlare. To a `FedJob` or a `config_fed_server.json` add a
            `RecordFilter` to `task_data_filters` and `task_result_filters`.
        folder: As `RecordFilter`.
        counted: As `RecordFilter`.
        tasks: Names of the tasks in which clients train.
        **facts: What is known of the federation (`capture_facts.Facts`).

    Returns:
        The recipe.

    Raises:
        UnknownNameError: There is no such fact.
        ConfigError: A fact has a value that it cannot have.
    """
    record = RecordFilter(str(folder), as_dict(check_facts(facts)), counted)
    recipe.add_server_output_filter(record, tasks=list(tasks))
    recipe.add_server_input_filter(record, tasks=list(tasks))
    return recipe


class RecordFilter(DXOFilter):
    """Records models that pass, and lets them pass as they are.

    What cannot be recorded (a full disk, an encrypted model) is a warning in NVFlare's log and
    never an error: the training does not depend on its auditor. All arguments are plain JSON, so
    that the filter may stand in a job's configuration.

    Args:
        folder: Of the capture, on the machine where the filter runs; one a run. A relative one
            stands in the job's folder there, and so among the job's results.
        facts: What is known of the federation, by the names of `capture_facts.Facts`.
        counted: What clients count in `NUM_STEPS_CURRENT_ROUND`, which NVFlare weighs them by:
            by its name optimizer steps, and images in some of NVFlare's own clients. None where it
            is not known: then it is kept as a metric and is not taken for a number of images.

    Raises:
        UnknownNameError: There is no such fact.
        ConfigError: A fact or `counted` has a value that it cannot have.
    """

    def __init__(
        self, folder: str, facts: dict[str, Any] | None = None, counted: Counted | None = None
    ) -> None:
        super().__init__(
            supported_data_kinds=[DataKind.WEIGHTS, DataKind.WEIGHT_DIFF],
            data_kinds_to_filter=None,
        )
        if counted not in {"steps", "examples", None}:
            raise UsageError(f"counted is {counted!r}. Say 'steps', 'examples' or nothing.")
        # NVFlare writes a job's configuration from attributes of the arguments' names.
        self.folder, self.counted = str(folder), counted
        self.facts = as_dict(check_facts(facts or {}))
        self._tape = _Tape(self.folder, check_facts(self.facts), counted)
        self._said: set[str] = set()

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> None:
        """Record a model; None tells NVFlare that it was left as it is."""
        try:
            warnings: list[str | Exception] = [
                *self._tape.passed(dxo, shareable, fl_ctx, self._of_task())
            ]
        except Exception as error:  # training goes on, whatever it is
            warnings = [error]
        for warning in map(warning_of, warnings):
            if warning not in self._said:
                self._said.add(warning)
                self.log_warning(fl_ctx, warning, fire_event=False)

    def add_to_fed_job(self, job: Any, ctx: Any, **kwargs: Any) -> None:
        """As any filter is added to a job, without fedaudit's own code.

        A part of a package in the job would hide the package that is installed on the server.
        """
        job.set_app_packages(sorted({*job.job.app_packages, "fedaudit"}))
        super().add_to_fed_job(job, ctx, **kwargs)

    def _of_task(self) -> bool:
        """Whether this is a filter of what the server sends, not of what clients answer."""
        chain = self.get_prop(FilterContextKey.CHAIN_TYPE)
        if chain not in {FilterChainType.TASK_DATA_CHAIN, FilterChainType.TASK_RESULT_CHAIN}:
            raise UsageError(
                "RecordFilter stands in no filter chain. Add it to a job's task_data_filters and "
                "task_result_filters; fedaudit.captures.record.nvflare.tap does it."
            )
        return bool(chain == FilterChainType.TASK_DATA_CHAIN)


@dataclass
class _Tape:
    """What a filter writes on."""

    folder: str
    facts: Facts
    counted: Counted | None
    _record: Recording | None = None
    _sent: tuple[int, dict[str, Callable[[], Any]]] | None = None
    _lock: Lock = field(default_factory=Lock)

    def passed(
        self, dxo: DXO, shareable: Shareable, context: FLContext, of_task: bool
    ) -> list[str]:
        """Record a model that passes; returns what of it is not recorded, and why."""
        if from_shareable(shareable).data_kind == DataKind.COLLECTION:
            raise UsageError("a collection of several models is not recorded, only a single model")
        round, other = _round(shareable, dxo, context), _other_side(context, of_task)
        record = self._recording(context)
        readable, protections, warnings = _in_clear(dxo)
        if protections and not readable and self.facts.protections is None:
            # No message can carry it: a message without tensors does not exist.
            with self._lock:
                self.facts = check_facts({**as_dict(self.facts), "protections": protections})
            record.add_facts(self.facts)
        # NVFlare may have left an array on the disk (`enable_tensor_disk_offload`).
        arrays = {name: dxo.data[name] for name in readable}
        tensors = {
            n: a.materialize() if hasattr(a, "materialize") else a for n, a in arrays.items()
        }
        if tensors and of_task:
            self._broadcast(record, round, tensors, other)
        elif tensors:
            steps = dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND)
            # Those that changed the model on its way here, such as `SVTPrivacy`.
            filters = dict.fromkeys(dxo.get_filter_history() or ())
            record.update(
                round,
                other or str(context.get_identity_name()),
                tensors,
                kind=KINDS[DataKind(dxo.data_kind).value],
                examples=self._examples(steps),
                metrics=_metrics(dxo),
                protections=(*protections, *(f"NVFlare filter {name}" for name in filters)),
            )
        return warnings + _further(dxo)

    def _recording(self, context: FLContext) -> Recording:
        with self._lock:
            if self._record is None:
                folder = Path(self.folder)
                if not folder.is_absolute():
                    job = context.get_job_id()
                    folder = Path(context.get_workspace().get_run_dir(job)) / folder
                facts = {"framework": f"nvflare {version('nvflare')}", **as_dict(self.facts)}
                self._record = recording(folder, **cast(Keywords, facts))
            return self._record

    def _broadcast(
        self, record: Recording, round: int, tensors: dict[str, Any], client: str | None
    ) -> None:
        """Everybody's broadcast once, and what one client is sent apart from others."""
        with self._lock:
            last = self._sent
        if last and last[0] == round and _same(last[1], tensors):
            return  # the same arrays for the next client
        try:
            record.broadcast(round, tensors)
        except UsageError:
            if client is None:
                raise
            record.broadcast(round, tensors, client=client)
        with self._lock:
            self._sent = round, {name: _weakly(value) for name, value in tensors.items()}

    def _examples(self, steps: object) -> int | None:
        if isinstance(steps, bool) or not isinstance(steps, int | float) or self.counted is None:
            return None
        if self.counted == "examples":
            return int(steps)
        batch = self.facts.batch_size
        return None if batch is None else int(steps) * batch


def _weakly(value: Any) -> Callable[[], Any]:
    """Gives the value while somebody else holds it: no model stays in memory for its recorder."""
    try:
        return ref(value)
    except TypeError:  # a single number
        return lambda: value


def _same(one: Mapping[str, Callable[[], Any]], other: Mapping[str, Any]) -> bool:
    """Whether these are the very same arrays, so that nothing has to be compared."""
    return one.keys() == other.keys() and all(one[name]() is other[name] for name in one)


def _round(shareable: Shareable, dxo: DXO, context: FLContext) -> int:
    places = (
        shareable.get_header(AppConstants.CURRENT_ROUND),
        dxo.get_meta_prop(MetaKey.CURRENT_ROUND),
        context.get_prop(AppConstants.CURRENT_ROUND),
    )
    for number in places:
        if isinstance(number, int) and not isinstance(number, bool):
            return number
    raise UsageError("a model says no round, neither in its header nor in its meta data")


def _other_side(context: FLContext, of_task: bool) -> str | None:
    """The client at the other end; None where the filter runs on the client itself."""
    direction = context.get_prop(FLContextKey.FILTER_DIRECTION)
    if direction == (FilterKey.IN if of_task else FilterKey.OUT):
        return None
    peer = context.get_peer_context()
    name = peer.get_identity_name() if peer else ""
    if not name:
        raise UsageError("a model says not which client it is from or for: it has no peer context")
    return str(name)


def _in_clear(dxo: DXO) -> tuple[Collection[str], tuple[str, ...], list[str]]:
    """Names of what can be read, protections in words, and warnings about the rest."""
    algorithm = dxo.get_meta_prop(MetaKey.PROCESSED_ALGORITHM)
    if not algorithm:
        return list(dxo.data), (), []
    if algorithm == ENCRYPTED:
        marks = dxo.get_meta_prop(MetaKey.PROCESSED_KEYS) or dict.fromkeys(dxo.data, True)
        clear = [name for name in dxo.data if marks.get(name) is False]
        count = f"{len(dxo.data) - len(clear)} of {len(dxo.data)} tensors"
        words = f"homomorphic encryption ({algorithm})"
        if clear:
            # NVFlare's encryptor does this to all of them, and does not say so in the message.
            words += f" of {count}; the others may be flattened and multiplied by a weight"
        return clear, (words,), [f"{count} are under homomorphic encryption ({algorithm})"]
    words = f"quantization ({algorithm})"
    if str(algorithm).upper() == HALVED:
        return list(dxo.data), (words,), []
    warning = (
        f"the model was processed with {algorithm}, and its arrays are not the weights. Add "
        "RecordFilter after the filter that undoes it (ModelDequantizer)"
    )
    return (), (words,), [warning]


def _metrics(dxo: DXO) -> dict[str, object]:
    meta = {k: v for k, v in dxo.get_meta_props().items() if k not in NOT_METRICS}
    initial = dxo.get_meta_prop(MetaKey.INITIAL_METRICS)
    ledger = meta.get(LEDGER)
    costs = {f"{LEDGER}.{k}": v for k, v in ledger.items()} if isinstance(ledger, Mapping) else {}
    plain = {**meta, **costs, **(initial if isinstance(initial, Mapping) else {})}
    return {
        name: value
        for name, value in plain.items()
        if isinstance(value, bool | int | float | str) or getattr(value, "shape", None) == ()
    }


def _further(dxo: DXO) -> list[str]:
    """Arrays outside the model, such as the control variates of SCAFFOLD."""
    meta = dxo.get_meta_props()
    further = [
        name
        for name, value in meta.items()
        if name != "quant_state"
        and isinstance(value, Mapping)
        and any(getattr(part, "shape", ()) for part in value.values())
    ]
    return [f"further arrays in a model's meta data: {', '.join(further)}"] if further else []
