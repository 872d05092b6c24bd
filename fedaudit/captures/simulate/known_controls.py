"""Who knows the faces of controls: invented people are made of OpenPeople's.

A network that was pre-trained on these, or a prior that learned them, has seen the eyes, mouths and
hair of the invented people, though nobody as a whole. Where that may matter it is said, and a
positive control on faces that a prior knows is not counted.
"""

from fedaudit.captures.simulate.prior_overlap import prior_of
from fedaudit.core.registry import create, names
from fedaudit.core.scenario import Scenario, Study

DONORS = "openpeople"
"""The set of whose people invented ones are made (`fedaudit.data.composites`)."""


def pretraining_sets(study: Study, scenario: Scenario) -> dict[str, str]:
    """The face sets on which a network is trained before round 1, by who asks for it."""
    if study.recording:
        return {}
    federation = study.federation_of(scenario)
    sets = {"federation": federation.public} if federation.pretrain_steps else {}
    method = create("methods", scenario.method.name, scenario.method.settings)
    if getattr(method, "pretrain_steps", 0):
        sets[f"method {scenario.method.label}"] = str(getattr(method, "public", ""))
    return sets


def familiar_priors(study: Study) -> tuple[str, ...]:
    """Labels of the attacks whose prior learned the people of whom invented ones are made."""
    choices = {c.label: c for scenario in study.scenarios for c in scenario.attacks}
    about = {label: prior_of(choice) for label, choice in choices.items()}
    return tuple(label for label, one in about.items() if one and one.data == DONORS)


def known_controls(study: Study) -> tuple[str, ...]:
    """That the prior-only control's invented people are known in part, a sentence, where so."""
    # Of a method that is not installed nothing is asked: reports run no code that a folder names.
    installed = [s for s in study.scenarios if s.method.name in names("methods")]
    scenes = [s.name for s in installed if DONORS in pretraining_sets(study, s).values()]
    knowing = [f"the networks of {', '.join(scenes)}"] if scenes else []
    knowing += [f"the prior of {label}" for label in familiar_priors(study)]
    if not knowing or study.of_pictures:
        return ()
    return (
        f"Invented people are made of parts of {DONORS}'s, which {' and '.join(knowing)} learned "
        "from: the prior-only control is of faces that are known in part, not of strangers'.",
    )
