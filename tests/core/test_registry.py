"""Plugins by name: what modules give, how a setting of a former name is met."""

import subprocess
import sys

import pytest
import torch

import fedaudit.attacks
import fedaudit.defenses
from fedaudit.core.errors import ConfigError, UnknownNameError
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create, lookup, names


@pytest.mark.parametrize("name", names("attacks"))
def test_attacks_come_by_their_registered_names(name: str) -> None:
    assert getattr(fedaudit.attacks, name) is lookup("attacks", name)
    assert name in dir(fedaudit.attacks)


@pytest.mark.parametrize("name", names("defenses"))
def test_defenses_come_by_the_names_of_their_classes(name: str) -> None:
    kind = lookup("defenses", name)
    assert getattr(fedaudit.defenses, kind.__name__) is kind
    assert kind.__name__ in dir(fedaudit.defenses)


def test_the_import_statement_gives_them_too() -> None:
    from fedaudit.attacks import gan_inversion
    from fedaudit.defenses import DPSGD

    assert gan_inversion(restarts=2).restarts == 2
    assert DPSGD is lookup("defenses", "dpsgd")


def test_a_name_that_nobody_registered_is_refused_with_the_closest() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'gan_invert'.*'gan_inversion'"):
        fedaudit.attacks.gan_invert  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'DPSDG'.*'DPSGD'"):
        fedaudit.defenses.DPSDG  # noqa: B018
    with pytest.raises(ImportError, match="gan_invert"):
        from fedaudit.attacks import gan_invert  # noqa: F401
    assert not hasattr(fedaudit.attacks, "x")


@pytest.mark.slow
def test_a_name_is_imported_when_it_is_asked_for() -> None:
    code = (
        "import sys, fedaudit.attacks, fedaudit.defenses; dir(fedaudit.attacks);"
        "assert 'torch' not in sys.modules; fedaudit.defenses.DPSGD;"
        "assert not any(m.startswith('fedaudit.attacks.') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_setting_of_a_former_name_is_refused_with_its_name_today() -> None:
    message = r"attack 'gan_inversion'.*'entry' is called 'first_fully_connected' now"
    with pytest.raises(ConfigError, match=message):
        create("attacks", "gan_inversion", {"entry": False})
    with pytest.raises(UnknownNameError, match="'entry'"):  # it never had one
        create("attacks", "dlg", {"entry": False})


def test_a_plugin_of_a_former_name_is_refused_with_its_name_today() -> None:
    with pytest.raises(ConfigError, match="attack 'lti' is called 'learned_inversion' now"):
        create("attacks", "lti", {})


def test_an_attack_that_does_not_say_so_has_not_adapted() -> None:
    assert Reconstruction(torch.zeros(1, 3, 8, 8), torch.zeros(1)).adaptive == "no"
