"""How a client's update moves each parameter of the model that it started from."""

from collections.abc import Mapping

from torch import Tensor

from fedaudit.core.errors import AttackError
from fedaudit.core.observation import Observation
from fedaudit.core.shared import Update


def step_of(one: Observation, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By name, the change of each parameter of `before`.

    Raises:
        AttackError: The client sent no update of the whole model: a sum hides who sent what, and
            without the head there is no class.
    """
    update = next((sent for sent in one.shared if isinstance(sent, Update)), None)
    if update is None:
        raise AttackError(
            "membership is read off each client's update, and the server has none of this client "
            "alone. In a study, leave out secure aggregation and methods that share no update."
        )
    missing = [name for name in before if name not in update.tensors or name not in one.before]
    if missing:
        raise AttackError(
            f"{missing[0]} and {len(missing) - 1} other tensors stay on the devices, and membership"
            " is read off updates of the whole model. Use a method with one head for all, such as "
            "fedavg."
        )
    lr = one.training.lr if one.training else 0.1  # of a gradient; only its size depends on it
    factor = -lr if update.kind == "gradient" else 1.0
    return {name: factor * update.tensors[name].detach() for name in before}
