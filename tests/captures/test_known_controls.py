"""It is said where somebody learned the people of whom the invented ones of controls are made."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedaudit.captures.simulate.known_controls import familiar_priors
from fedaudit.captures.simulate.simulated_source import SimulatedSource
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.models.face_gan import FaceGan
from fedaudit.models.prior_file import Manifest, write_prior

FEDFACE = {"pretrain_steps": 20}


def told(study: Study) -> str:
    """The study's limitations."""
    return " ".join(SimulatedSource(study, lambda scenario, defense: None).limitations())


@pytest.mark.parametrize(
    ("federation", "method", "known"),
    [
        (Federation(pretrain_steps=20), Choice("fedavg"), True),
        (Federation(pretrain_steps=20, public="synthetic"), Choice("fedavg"), False),
        (Federation(), Choice("fedavg"), False),
        (Federation(), Choice("fedface", FEDFACE), True),
        (Federation(), Choice("fedface", {**FEDFACE, "public": "synthetic"}), False),
        (Federation(), Choice("fedface", {"pretrain_steps": 0}), False),
    ],
)
def test_a_network_that_learned_them_is_named(
    federation: Federation, method: Choice, known: bool
) -> None:
    study = Study("s", (Scenario("fresh", method=method),), data=Choice("orl"))
    said = told(replace(study, federation=federation))
    assert ("parts of openpeople's, which the networks of fresh learned from" in said) is known


@pytest.mark.parametrize("data", ["openpeople", "orl"])
def test_a_prior_that_learned_them_is_named(tmp_path: Path, data: str) -> None:
    path, widths = tmp_path / "prior.safetensors", (8, 8)
    generator = FaceGan(widths, 4, (0.0, 1.0, 0.0, 1.0))
    write_prior(path, generator, Manifest(widths=widths, latent_dim=4, data=data))
    own, stock = Choice("gan_inversion", {"prior": str(path)}, label="own"), Choice("gan_inversion")
    study = Study("s", (Scenario("fresh", attacks=(own, stock)),), data=Choice("folder"))
    assert familiar_priors(study) == (("own",) if data == "openpeople" else ())
    assert ("the prior of own learned from" in told(study)) is (data == "openpeople")
