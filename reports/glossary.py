"""The words that a reader may not know, and links to them where they are used."""

import re
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Term:
    """A word and its meaning.

    Attributes:
        spellings: Regular expression of how sentences write it.
    """

    name: str
    meaning: str
    spellings: str

    @property
    def anchor(self) -> str:
        """Id of its entry on the page."""
        plain = self.name.lower().replace("ε", "epsilon").replace("δ", "delta")
        return "term-" + re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


GLOSSARY: tuple[Term, ...] = (
    Term(
        "Re-identification rate",
        "Share of reconstructed faces that an embedder, independent of the audited model, "
        "matches to a different photo of the same person. 0–100 %; lower is better. The "
        "headline metric. Of several seeds at least half must match, so that one of two is enough.",
        "re-identified|re-identification(?: rate)?",
    ),
    Term(
        "FMR, false match rate",
        "How often the embedder takes two different people for one at the threshold in use, "
        "calibrated on pairs of different people. 1e-3 means one in a thousand.",
        "FMR|false match rate",
    ),
    Term(
        "Prior-only control",
        "The same attack on the update of an invented person, at the same weights through the"
        " same defense. What matches a target there comes from the attacker’s generator, the "
        "model and chance, not from what the client sent.",
        "prior[- ]only(?: control)?",
    ),
    Term(
        "Excess",
        "Re-identification minus the prior-only rate on the same targets, in percentage "
        "points. A leak may be demonstrated while its interval reaches below 0, as of few people "
        "it does: the test on identity decides, and excess alone only where there is no such "
        "test.",
        "excess",
    ),
    Term(
        "Identity cosine",
        "Similarity of two faces as the independent embedder sees them, −1 to 1. Above the "
        "threshold counts as a match.",
        "identity cosines?",
    ),
    Term(
        "Rank-1",
        "Share of reconstructions whose nearest gallery person is the right one. Chance: 1/N.",
        "rank-1",
    ),
    Term(
        "SSIM",
        "Structural similarity with a Gaussian window (σ = 1.5), on images in 0–1. −1 to 1; 1"
        " is identical. Higher means that more came back.",
        "SSIM",
    ),
    Term(
        "LPIPS",
        "Learned perceptual distance; 0 is identical. Lower means that more came back.",
        "LPIPS",
    ),
    Term(
        "PSNR",
        "Peak signal-to-noise ratio in decibels, on images in 0–1. Higher means that more "
        "came back.",
        "PSNR",
    ),
    Term(
        "95 % CI",
        "Confidence interval. Rates carry exact (Clopper–Pearson) intervals; 0 hits of n "
        "still leaves an upper bound well above 0 where n is small.",
        "95.%.(?:intervals?|CI)",
    ),
    Term(
        "Holm p",
        "Of rows: p value of the test on identity, the share of other assignments of people "
        "to updates that fit the reconstructions as well, adjusted for the rows of the study."
        " Of defenses: of a reduction above 0, adjusted for the defenses.",
        "Holm",
    ),
    Term(
        "ε, δ",
        "What differential privacy promises: smaller ε promises more, for one unit (an image,"
        " a client), for the kinds of things that the claim covers, over its rounds, and of "
        "nothing else that was sent. Claimed: computed by an accountant. Shown: a lower bound"
        " established by attacks.",
        "ε",
    ),
    Term(
        "Covers …, not …",
        "Kinds of what was sent that an ε is of, and what it leaves out. Counts: each client’s "
        "exact number of images, which travels in clear. Cluster membership: which people are "
        "averaged together, which is decided without noise.",
        r"covers \w+, not \w+",
    ),
    Term(
        "Broken claim",
        "Something read the photos after the noise was added, such as Soteria choosing "
        "columns: no ε holds any more.",
        "broken claim",
    ),
    Term(
        "Heuristic",
        "A defense that makes no privacy claim.",
        "heuristic",
    ),
    Term(
        "TAR at FAR",
        "True accept rate of the trained model on held-out pairs, at a fixed false accept "
        "rate. Higher is more useful.",
        "TAR at FAR",
    ),
    Term(
        "Verification accuracy",
        "Accuracy of same-or-different decisions on pairs of photos of people who never "
        "trained, at thresholds that other people set; 50 % is chance. The mean over people "
        "and trainings from other seeds, with an interval over both. Beside it: the untrained"
        " network, and one place that has everybody's photos and trains as many steps "
        "(central training).",
        "verification accuracy",
    ),
    Term(
        "Dominated",
        "Another defense is no less useful and leaks no more, by estimates, and is better in "
        "one of the two by an interval. A defense whose training is not shown to beat the "
        "untrained network dominates nothing and is never recommended.",
        "dominated",
    ),
    Term(
        "Adaptive attack",
        "An attack that takes the defense into account: knowing it, or estimating it. A "
        "defense that was only attacked without adapting is not yet tested in earnest.",
        "adaptive|adapted",
    ),
    Term(
        "Threat model A–H",
        "What the attacker is granted, after Carletti et al. (USENIX Security 2025).",
        "threat model",
    ),
    Term(
        "Fresh and trained model",
        "Round 1 audits the freshly initialized global model; a later round audits a model "
        "that the federation has trained. They leak differently.",
        "fresh model|trained model|fresh global model",
    ),
)


_BLOCK = re.compile(r'(<p class="(?:lede|reading)">)(.*?)(</p>)', re.DOTALL)


def link_terms(page: str) -> str:
    """The page, whose leads and readings link the first use of each term to the glossary."""
    return _BLOCK.sub(lambda block: f"{block[1]}{_link(block[2])}{block[3]}", page)


def _link(html: str) -> str:
    links: set[str] = set()

    def link(match: re.Match[str]) -> str:
        if match.lastgroup is None:
            return match[0]  # a tag
        term = GLOSSARY[int(match.lastgroup[1:])]
        if term.name in links:
            return match[0]
        links.add(term.name)
        return f'<a class="term" href="#{term.anchor}">{match[0]}</a>'

    return _pattern().sub(link, html)


@cache
def _pattern() -> re.Pattern[str]:
    """A link, a tag or an entity, which stay as they are, or a term."""
    words = "|".join(rf"(?P<t{k}>\b(?:{term.spellings})(?!\w))" for k, term in enumerate(GLOSSARY))
    return re.compile(rf"<a\b.*?</a>|<[^>]*>|&\w+;|{words}", re.IGNORECASE | re.DOTALL)
