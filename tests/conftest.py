"""Shared fixtures: one thread, real faces at 32 px, and a small federation on them."""

import gc
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from torch import Tensor, nn

from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.core.capture import Capture
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.protocols import ManipulatingAttack
from fedaudit.core.registry import create
from fedaudit.core.scenario import Federation, with_keys
from fedaudit.core.threat_models import threat_model
from fedaudit.data.face_set import FaceSet
from fedaudit.data.orl import orl
from fedaudit.data.splits import split
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation
from fedaudit.models.face_gan import FaceGan
from fedaudit.models.facenet import criterion_of

# Wall time says more of what else the machine does than of the code.
hypothesis.settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared machine")


# A full garbage collection goes through all that was imported and all tests that were found, half a
# second each time: they stay anyway.
gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """From here on, garbage is looked for among what tests make."""
    gc.freeze()
    gc.enable()


SLOW_CASES = Path(__file__).parent / "slow_cases.txt"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the listed cases as slow; a list that names what is no more is an error."""
    listed = {line for line in SLOW_CASES.read_text().splitlines() if line[:1] not in ("", "#")}
    for item in items:
        if item.nodeid in listed:
            item.add_marker(pytest.mark.slow)
    everything = config.args == config.getini("testpaths")
    unknown = listed - {item.nodeid for item in items}
    if everything and unknown:
        raise pytest.UsageError(f"{SLOW_CASES} names no test: {', '.join(sorted(unknown))}")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def faces() -> FaceSet:
    return orl(size=32)


@pytest.fixture(scope="module")
def drawn_once() -> Iterator[None]:
    """The same latents give the same faces: those that a server sets its model up on cost most."""
    drawn: dict[bytes, Tensor] = {}
    draw = FaceGan.forward

    def once(generator: FaceGan, latents: Tensor) -> Tensor:
        if latents.requires_grad or len(latents) < 64:
            return draw(generator, latents)
        key = latents.numpy().tobytes()
        if key not in drawn:
            drawn[key] = draw(generator, latents)
        return drawn[key].clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FaceGan, "forward", once)
        yield


@pytest.fixture(scope="session")
def federate(faces: FaceSet) -> Callable[..., Simulation]:
    """A federation of two clients on ORL; everything can be set by name."""

    def make(
        *,
        network: str = "face",
        arguments: Mapping[str, Any] | None = None,
        defense: str = "none",
        settings: Mapping[str, Any] | None = None,
        method: str = "fedsgd",
        seed: int = 0,
        faces: FaceSet = faces,
        **federation: Any,
    ) -> Simulation:
        settled = with_keys(Federation(clients=2, held_out=10, photos=5), federation)
        return Simulation(
            network=ModelSpec(network, arguments or {}),
            faces=faces,
            split=split(faces, settled),
            federation=settled,
            method=create("methods", method, {}),
            defense=create("defenses", defense, settings or {}),
            seed=seed,
        )

    return make


@pytest.fixture(scope="session")
def intercept(federate: Callable[..., Simulation]) -> Callable[..., Capture]:
    """One client's update in a fresh federation, as a server sees it."""

    def capture(
        *,
        batch: int = 1,
        target: int = 0,
        training: LocalTraining | None = None,
        threat: str = "D",
        grant: tuple[str, ...] = (),
        seed: int = 0,
        simulation: Simulation | None = None,
        state: State | None = None,
        malicious: ManipulatingAttack | None = None,
        rounds_seen: int = 1,
        **federation: Any,
    ) -> Capture:
        simulation = simulation or federate(**federation)
        return simulate(
            simulation,
            state or simulation.fresh(),
            target=target,
            batch_size=batch,
            training=training or LocalTraining(batch_size=batch),
            threat=threat_model(threat, grant),
            seed=seed,
            malicious=malicious,
            rounds_seen=rounds_seen,
        )

    return capture


@pytest.fixture(scope="session")
def gradient_of() -> Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]:
    """The gradient of a model's mean loss by plain autograd, by parameter name."""

    def gradient(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        loss = criterion_of(model)(model(images), labels)
        named = dict(model.named_parameters())
        return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))

    return gradient


@pytest.fixture(autouse=True, scope="session")
def interrupts_arrive() -> Iterator[None]:
    """Let SIGINT through: a shell that starts the suite in the background ignores it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
