"""Names of defenses and attacks as people write them, in place of those of studies."""

DEFENSES = {
    "none": "no defense",
    "ats": "ATS",
    "censor": "CENSOR",
    "client_dp": "client-level DP",
    "concealed_samples": "concealed samples",
    "dplc": "DPLC",
    "dpsgd": "DP-SGD",
    "dual_pruning": "dual pruning",
    "gaussian_noise": "Gaussian noise",
    "instahide": "InstaHide",
    "laplace_noise": "Laplace noise",
    "larger_batch": "larger batches",
    "local_layers": "local layers",
    "more_steps": "more local steps",
    "oasis": "OASIS",
    "precode": "PRECODE",
    "private_projector": "private projector",
    "qsgd": "QSGD",
    "random_pruning": "random pruning",
    "secure_aggregation": "secure aggregation",
    "sign": "sign compression",
    "soteria": "Soteria",
    "top_k": "top-k sparsification",
}
ATTACKS = {
    "dlg": "DLG",
    "feature_decoder": "feature decoder",
    "gan_inversion": "GAN inversion",
    "ggl": "GGL",
    "gias": "GIAS",
    "gifd": "GIFD",
    "gion": "GION",
    "grad_inversion": "GradInversion",
    "idlg": "iDLG",
    "inverting_gradients": "inverting gradients",
    "learned_inversion": "learned inversion",
    "liu_2021": "Liu et al. 2021",
    "map_inversion": "map inversion",
    "r_gap": "R-GAP",
    "spear": "SPEAR",
    "subspace_matching": "subspace matching",
    "template_inversion": "template inversion",
    "trap_weights": "trap weights",
}


def defense_name(label: str) -> str:
    """The plain name of a defense; a label that somebody chose stays as it is.

    >>> defense_name("dpsgd"), defense_name("none"), defense_name("our_own")
    ('DP-SGD', 'no defense', 'our_own')
    """
    return DEFENSES.get(label, label)


def attack_name(label: str) -> str:
    """The plain name of an attack; a label that somebody chose stays as it is.

    >>> attack_name("gan_inversion")
    'GAN inversion'
    """
    return ATTACKS.get(label, label)
