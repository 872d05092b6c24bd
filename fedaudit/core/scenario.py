"""What a study asks for, as read from `study.toml`."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from fedaudit.core.recorded_run import RECORDED, RecordedRun
from fedaudit.core.training import LocalTraining

Adapt = Literal["known", "estimated", "no"]
"""An attacker is told the defense, has to read it off the update, or takes it for absent."""
Use = Literal["", "research", "commercial"]
Partition = Literal["people", "dirichlet", "lighting", "pose"]
PICTURES = frozenset({"pictures", "mnist_5k"})
"""Registered data sets that show no faces: their images are judged for copies."""
COPY_JUDGE = "copies"
"""The registered judge that finds copies of images."""
SAFE_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._+]|-(?!-)){0,47}"
"""What a name in a study may be, that is to be a file name, too."""


@dataclass(frozen=True)
class Choice:
    """A plugin with its settings; `label` tells two settings of one plugin apart.

    Attributes:
        name: A registered name, or `package.module:object`; of a network, also a file.
        settings: Keyword arguments of the plugin.
        label: What reports and file names call it; the (object's, file's) name if not given.
        adapt: Of an attack: what it may make of the defense in use (`attacks.adaptive`).
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    adapt: Adapt = "known"

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", re.split(r"[:/\\]", self.name)[-1])


@dataclass(frozen=True)
class Federation:
    """How the simulated federation trains, wherever a scenario needs a trained model.

    Attributes:
        clients: Number of clients; `partition` says what is dealt to them.
        rounds: Rounds trained to measure utility; scenarios with `round` > 1 audit that round.
        training: Local training of each client in each round.
        held_out: People who never train; verification accuracy is measured on their pairs.
        photos: Photos of each person that train; the others are the gallery.
        partition: How clients differ. "people": each person is at one client. "dirichlet": each
            person's photos are spread over the clients at random, the more unevenly the smaller
            `alpha` is. "lighting", "pose": everybody is at every client, and clients differ in
            where the light comes from or which way faces look (`fedaudit.data.partitions`).
        alpha: Concentration of the Dirichlet draw, in (0, 1e6]; other partitions ignore it.
        identities: People of each client, of whom there are then `clients` times as many; where
            clients share people, people in all. 0 takes everybody who is not held out.
    """

    clients: int = 5
    rounds: int = 30
    training: LocalTraining = field(default=LocalTraining(steps=4, batch_size=16, momentum=0.9))
    held_out: int = 10
    photos: int = 5
    partition: Partition = "people"
    alpha: float = 1.0
    identities: int = 0
    pretrain_steps: int = 0
    public: str = "openpeople"


@dataclass(frozen=True)
class Scenario:
    """One grid: a network and method at one round, × defenses × attacks × targets × seeds.

    Attributes:
        round: The audited round, 1-based; 1 audits a fresh model.
        batch_size: Images that the audited client trains on.
        training: Its local training; a `batch_size` of 0 takes all its images in every step.
        rounds_seen: Rounds in which the audited client trains on the same photos, from the same
            global model and with its defense's draws anew; the attacker has all of them.
        targets: Number of attacked client updates, each of other people where there are enough.
        threat_model: A–H (Carletti et al.).
        grant, deny: Facts added to or taken from the threat model.
        expose: What of the shared things the attacker is shown, by names as `fedaudit why` and
            reports use them; () is all of it.
        federation: How this scenario's federation trains, where it is not as the study's.
        controls: Run the prior-only and noise controls.
    """

    name: str
    network: Choice = Choice("face")
    method: Choice = Choice("fedsgd")
    round: int = 1
    batch_size: int = 1
    training: LocalTraining = field(default=LocalTraining(batch_size=0))
    rounds_seen: int = 1
    targets: int = 16
    threat_model: str = "D"
    grant: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    defenses: tuple[Choice, ...] = (Choice("none"),)
    attacks: tuple[Choice, ...] = (Choice("inverting_gradients"), Choice("subspace_matching"))
    controls: bool = True
    expose: tuple[str, ...] = ()
    federation: Federation | None = None

    @property
    def audited_training(self) -> LocalTraining:
        """How the audited client trains, with the number of images that each step takes."""
        return replace(self.training, batch_size=self.training.batch_size or self.batch_size)


@dataclass(frozen=True)
class Study:
    """Everything that decides the results of a run; equal studies give equal results.

    Attributes:
        data: The face set; `size` is its image size in pixels.
        seeds: Each cell is run once a seed.
        judges: Networks that say who a face is, or of pictures that are no faces which image it
            is: the first decides, the others stand beside it.
        fmr: False match rate at which re-identification is calibrated.
        reid_limit: T of the verdicts.
        ceiling_floor: Share of the originals that the judge must re-identify; below it the run is
            invalid, because a judge that does not know the originals finds no leak.
        utility: Train every defense's federation, and the undefended one beside it, and measure
            verification accuracy; where nothing is defended there is no trade to measure.
        utility_seeds: Trainings of each federation, from other seeds, that accuracy is the mean of.
        inference: Train each defense's federation once more, and infer from all rounds who is in
            which client's data (`fedaudit.attacks.membership`).
        canaries: So many train in another federation of each defense, and what they show of ε
            stands beside what is claimed (`fedaudit.study.canary_audit`); 0 for none.
        sequential: Attack no more targets than the verdicts need: after some of them each defense's
            is looked at, and decided ones end (`fedaudit.stats.sequential`). Intervals and p-values
            allow for the looks.
        use: What the results are for; "commercial" refuses data and files whose terms bar it. ""
            refuses nothing: reports state the terms.
        release_context: Who could see the updates, in the user's words; never inferred.
        underpowered: Say in the report that the study is too small to conclude from.
        deployed: Labels of the defenses that are audited: verdict, severity and gate judge them,
            and the others are alternatives. () where the study compares defenses.
        encrypt_evidence: Public keys (age1…, ssh-ed25519 …): pictures of people are written sealed,
            so that only the holder of a key sees them. () writes them in the clear.
    """

    name: str
    scenarios: tuple[Scenario, ...]
    description: str = ""
    data: Choice = Choice("orl")
    size: int = 64
    seeds: tuple[int, ...] = (0,)
    federation: Federation = Federation()
    utility: bool = True
    utility_seeds: int = 3
    inference: bool = False
    canaries: int = 0
    sequential: bool = False
    judges: tuple[Choice, ...] = (Choice("sface"), Choice("dlib"))
    fmr: float = 1e-3
    reid_limit: float = 0.05
    ceiling_floor: float = 0.5
    use: Use = ""
    release_context: str = "not declared"
    underpowered: bool = False
    deployed: tuple[str, ...] = ()
    encrypt_evidence: tuple[str, ...] = ()

    @property
    def audited(self) -> tuple[str, ...]:
        """Labels of the defenses that the verdict judges; () where a study only compares defenses.

        A study with one defense compares nothing: that one is audited.
        """
        labels = tuple(dict.fromkeys(d.label for s in self.scenarios for d in s.defenses))
        return self.deployed or (labels if len(labels) == 1 else ())

    @property
    def recording(self) -> RecordedRun | None:
        """The recorded run whose updates are attacked; None where they are simulated."""
        if self.data.name != RECORDED:
            return None
        return RecordedRun.from_settings(self.data.settings)

    @property
    def positives(self) -> int:
        """Number of faces in a separate positive control; 0 where undefended rows serve as one."""
        return self.recording.positive if self.recording else 0

    @property
    def of_pictures(self) -> bool:
        """Whether the data are images other than faces, judged by copies, not by people."""
        return self.data.name in PICTURES or self.judges[0].name == COPY_JUDGE

    @property
    def trains(self) -> bool:
        """Whether the models of later rounds are trained here, rather than brought along."""
        return self.data.name != RECORDED

    def scenario(self, name: str) -> Scenario:
        """The scenario of this name."""
        return next(scenario for scenario in self.scenarios if scenario.name == name)

    def federation_of(self, scenario: Scenario) -> Federation:
        """How the scenario's federation trains."""
        return scenario.federation or self.federation


S = TypeVar("S", Federation, Scenario)


def with_keys(settings: S, keys: Mapping[str, Any]) -> S:
    """The settings, changed by keys of a study file, where local training lies among the others.

    >>> with_keys(Federation(), {"clients": 3, "local_steps": 1}).training.steps
    1
    """
    training = {name: keys[key] for key, name in _training_keys(settings).items() if key in keys}
    own = {key: value for key, value in keys.items() if key not in _training_keys(settings)}
    return replace(settings, training=replace(settings.training, **training), **own)


def keys_of(settings: Federation | Scenario) -> dict[str, Any]:
    """The settings under the keys that they have in a study file; inverse of `with_keys`."""
    own = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name != "training"}
    training = asdict(settings.training)
    return own | {key: training[name] for key, name in _training_keys(settings).items()}


def _training_keys(settings: Federation | Scenario) -> dict[str, str]:
    """Names in `LocalTraining` by key; `batch_size` of a scenario is the audited update's."""
    names = {field.name: field.name for field in fields(LocalTraining)}
    del names["steps"], names["batch_size"]
    size = "local_batch_size" if isinstance(settings, Scenario) else "batch_size"
    return {"local_steps": "steps", size: "batch_size", **names}
