"""Names of defenses and attacks as people write them, in place of those of studies."""

import re
from dataclasses import replace

from fedaudit.reports.comparison import Verdict
from fedaudit.reports.results import Results

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


def plain_text(text: str) -> str:
    """A sentence with plain names in place of those of studies, but where it shows what to write.

    >>> plain_text("no attack here reads cluster_centers; template_inversion does")
    'no attack here reads cluster centers; template inversion does'
    >>> plain_text('attacks = ["gan_inversion"], gan_inversion(steps=3), reid_limit')
    'attacks = ["gan_inversion"], gan_inversion(steps=3), reid_limit'
    """
    return _CODE_NAMES.sub(lambda found: _PLAIN[found[0]], text)


def in_plain_words(results: Results) -> Results:
    """The same results, whose sentences say plain names; names that select rows stay."""

    def of(verdict: Verdict) -> Verdict:
        return replace(verdict, sentence=plain_text(verdict.sentence))

    return replace(
        results,
        headline=of(results.headline),
        rows=tuple(replace(row, verdict=of(row.verdict)) for row in results.rows),
        exposures=tuple(replace(e, note=plain_text(e.note)) for e in results.exposures),
        controls=tuple(
            replace(c, name=plain_text(c.name), outcome=plain_text(c.outcome))
            for c in results.controls
        ),
        findings=tuple(
            replace(
                f,
                title=plain_text(f.title),
                claim=plain_text(f.claim),
                evidence=plain_text(f.evidence),
                configuration=plain_text(f.configuration),
                remedy=plain_text(f.remedy),
            )
            for f in results.findings
        ),
        limitations=tuple(map(plain_text, results.limitations)),
    )


_WORDS = {"none", "sign", "censor", "oasis", "precode", "soteria", "spear"}
"""Names that are words, which sentences use as such."""
_THINGS = ("class_embeddings", "cluster_centers", "cluster_membership")
_PLAIN = {
    **{name: plain for name, plain in (DEFENSES | ATTACKS).items() if name not in _WORDS},
    **{name: name.replace("_", " ") for name in _THINGS},
}
_CODE_NAMES = re.compile(
    rf"""(?<![\w"'`./=-])(?:{"|".join(sorted(_PLAIN, key=len, reverse=True))})(?![\w"'`(=-]|\.\w)"""
)
