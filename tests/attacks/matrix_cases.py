"""Cases of the conformance matrix: an attack on one update of a stock network, few steps each."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import fedaudit
from fedaudit.core.errors import AttackError, ConfigError, KnowledgeError
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.protocols import ManipulatingAttack
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create
from fedaudit.core.shared import Update
from fedaudit.models.build_network import build

sys.path.insert(0, str(Path(__file__).parent))
from client_training import LABELS, LOOPS, photos, train_client
from small_networks import CLASSES, SHAPE
from stock_networks import NETWORKS, WITHOUT_NORM, build_seeded

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "inverting_gradients": {"steps": 2, "polish": 1},
    "subspace_matching": {"steps": 2, "polish": 1, "complete_steps": 2},
    "gan_inversion": {
        "candidates": 2,
        "latent_steps": 1,
        "stage_steps": 1,
        "pixel_steps": 2,
        "rounds": 1,
        "solve_steps": 1,
    },
    "map_inversion": {"candidates": 2, "descent_steps": 2, "solve_steps": 1, "search_steps": 10},
    "liu_2021": {"steps": 2, "rounds": 1},
    "gias": {"latent_steps": 2, "weight_steps": 1},
    "ggl": {"generations": 1, "population": 4},
    "gifd": {"latent_steps": 2, "stages": [2], "stage_steps": 2},
    "gion": {"steps": 2, "width": 4},
    "dlg": {"steps": 1, "restarts": 2},
    "idlg": {"steps": 1},
    "grad_inversion": {"steps": 2, "restarts": 2},
    "analytic": {},
    "r_gap": {},
    "spear": {"samples": 300},
    "learned_inversion": {
        "faces": 8,
        "epochs": 1,
        "width": 32,
        "directions": 2,
        "hidden": 8,
        "cache": "off",
    },
    "feature_decoder": {"faces": 8, "epochs": 1, "width": 4, "refine_steps": 2, "cache": "off"},
    "template_inversion": {"limit": 1, "faces": 8, "components": 2, "steps": 1, "cache": "off"},
    "imprint": {"bins": 8},
    "trap_weights": {"rows": 8},
    "fishing": {"inverter": "inverting_gradients", "settings": {"steps": 2, "polish": 0}},
}
"""Of every registered attack: as little work as it takes to go all its ways."""


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    attack: str
    network: str
    loop: str
    batch: int

    @property
    def possible(self) -> bool:
        """Whether torch trains so: batch norm cannot in training mode on one image's 1×1 map."""
        size = self.batch if self.training is None else self.training.batch_size
        return size > 1 or NETWORKS[self.network].mode == "eval" or self.network in WITHOUT_NORM

    @property
    def training(self) -> LocalTraining | None:
        """How the client trains; None of a gradient."""
        loop, mode = LOOPS[self.loop], NETWORKS[self.network].mode
        if loop is None:
            return None
        return replace(loop, batch_norm=mode, batch_size=min(loop.batch_size, self.batch))


REFUSALS = (AttackError, KnowledgeError, ConfigError)
"""By which an attack may say why it does not run."""


def run_case(case: Case, seed: int = 0) -> Reconstruction:
    """Attack one update of a stock network through the library, or from a malicious server.

    Raises:
        AttackError, KnowledgeError, ConfigError: The attack says why it does not run.
    """
    network, method = NETWORKS[case.network], create("attacks", case.attack, SETTINGS[case.attack])
    images, labels = photos(case.batch), torch.tensor(LABELS[case.batch])
    model, kind = build_seeded(network), "gradient" if case.training is None else "delta"
    if isinstance(method, ManipulatingAttack):
        arguments = {"name": case.network, "classes": CLASSES, "image_size": SHAPE[1]}
        spec = ModelSpec("stock_networks:stock_network", arguments)
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        sent = {name: value.detach() for name, value in state.items()}
        spec, before = method.broadcast(spec, sent, generator=torch.Generator().manual_seed(seed))
        model = build(spec, before).train(network.mode == "train")
        update = train_client(model, network, case.training, images, labels)
        seen = Observation(
            model=spec,
            before=before,
            shared=(Update(kind, update, case.batch),),  # type: ignore[arg-type]
            image_shape=SHAPE,
            batch_size=case.batch,
            num_classes=CLASSES,
            training=case.training or LocalTraining(batch_size=case.batch, batch_norm=network.mode),
        )
        result: Reconstruction = method(seen, generator=torch.Generator().manual_seed(seed))
        return result
    update = train_client(build_seeded(network), network, case.training, images, labels)
    return fedaudit.attack(
        model,
        update,
        method,
        images=case.batch,
        image_shape=SHAPE,
        kind=kind,  # type: ignore[arg-type]
        training=case.training,
        seed=seed,
    )
