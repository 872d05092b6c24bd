"""Every registered attack, with settings small enough for a test, and in what it is special."""

from typing import Any

TINY: dict[str, dict[str, Any]] = {
    "inverting_gradients": {"steps": 12},
    "gan_inversion": {
        "candidates": 4,
        "latent_steps": 4,
        "stage_steps": 3,
        "pixel_steps": 3,
        "rounds": 2,
    },
    "map_inversion": {"candidates": 4, "descent_steps": 10, "solve_steps": 0, "search_steps": 10},
    "liu_2021": {"steps": 10, "rounds": 2},
    "gias": {"latent_steps": 8, "weight_steps": 2},
    "ggl": {"generations": 10, "population": 4},
    "gifd": {"latent_steps": 4, "stages": [2, 3], "stage_steps": 3},
    "gion": {"steps": 12, "width": 8},
    "dlg": {"steps": 6, "restarts": 2},
    "idlg": {"steps": 12},
    "grad_inversion": {"steps": 12, "restarts": 2},
    "analytic": {},
    "r_gap": {},
    "learned_inversion": {
        "faces": 24,
        "epochs": 2,
        "width": 256,
        "directions": 8,
        "hidden": 16,
        "cache": "off",
    },
    "feature_decoder": {
        "faces": 16,
        "epochs": 1,
        "width": 8,
        "refine_steps": 4,
        "cache": "off",
    },
    "subspace_matching": {"steps": 10, "polish": 2},
    "spear": {"samples": 600},
    "imprint": {"bins": 64},
    "trap_weights": {"rows": 128},
    "fishing": {"inverter": "inverting_gradients", "settings": {"steps": 12}},
    "template_inversion": {
        "limit": 2,
        "faces": 40,
        "components": 8,
        "steps": 10,
        "cache": "off",
    },
}
NETWORK = {
    "analytic": "mlp",
    "r_gap": "plain_cnn",
    "spear": "mlp",
    "dlg": "small_cnn",
    "idlg": "small_cnn",
}
"""The network that an attack is tried on, where it is another than `face`."""
CLOSED_FORM = {
    "imprint",
    "trap_weights",
    "analytic",
    "spear",
    "learned_inversion",
    "feature_decoder",
    "r_gap",
    "template_inversion",
}
"""Attacks that solve or have learned: no iterations, no history, perhaps nothing random."""
BLIND_TO_NOISE = {"imprint", "trap_weights", "analytic", "spear", "r_gap", "template_inversion"}
"""Attacks that take noise for signal, and say that they did not adapt to it."""
ONE_IMAGE = {"r_gap"}
"""Attacks on single images: they refuse a batch."""
WHOLE_MODEL = {"r_gap", "template_inversion"}
"""Attacks that refuse an update from which a defense withholds the head."""
TEMPLATES = {"template_inversion"}
"""Attacks on rows that only some methods share: two of FedGC's, whatever the batch and method."""
MALICIOUS = {"imprint", "trap_weights", "fishing"}
"""Attacks that choose what the server sends: captured through their broadcast, model G for D."""
SINGLE = {"fishing"}
"""Attacks that search for one image, whatever the batch."""
UNLABELED = {("imprint", "dpsgd"), ("trap_weights", "dpsgd")}
"""Attacks that read which label goes with which image from lengths, which a defense changes."""
PRESETS = ("liu_2021", "gias", "ggl", "gifd", "gion", "dlg", "idlg", "grad_inversion")
"""Presets of the engine of `inverting_gradients` and `gan_inversion`, which stand for them."""
