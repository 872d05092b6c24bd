"""Fixed sentences of the report. Their wording claims no more than an audit can show."""

from collections.abc import Sequence
from dataclasses import dataclass

CLOSING = (
    "This report is evidence for the attacks that were run, on the data and settings named above, "
    "and for nothing else. It is not a determination of anonymity or of compliance."
)
EVIDENCE_NOTES = {
    "none": "No evidence gallery: numbers only.",
    "redacted": "Faces are withheld. Numbers stand in their place; this file holds no face pixels.",
    "full": "This file holds pictures of real people. Store and share it as biometric data.",
}


@dataclass(frozen=True)
class Framework:
    """A framework, where in it, and what this report gives a reader who works with it."""

    name: str
    reference: str
    relevant_to: str
    found_in: str
    anchor: str


FRAMEWORKS: Sequence[Framework] = (
    Framework(
        "NIST AI 100-2e2025",
        "NISTAML.032, .033, .034",
        "Relevant to naming the attacks: data reconstruction, membership and property inference.",
        "Coverage",
        "coverage",
    ),
    Framework(
        "MITRE ATLAS",
        "AML.T0024.000, AML.T0024.001 (closest match); AML.M0005, M0012, M0019",
        "Relevant to threat-informed defense: techniques tried, mitigations measured.",
        "Findings",
        "findings",
    ),
    Framework(
        "OWASP Machine Learning Security Top 10",
        "ML03:2023, ML04:2023",
        "Relevant to model inversion and membership inference as engineering risks.",
        "Coverage",
        "coverage",
    ),
    Framework(
        "EDPB Opinion 28/2024",
        "¶46, 55, 58",
        "Relevant to the question whether personal data can be extracted by means reasonably "
        "likely to be used. The release context is the user's declaration; it is never inferred "
        "here.",
        "Verdict",
        "verdict",
    ),
    Framework(
        "GDPR",
        "Art. 4(14), 9(1), 32(1)(d), 35(7)",
        "Relevant to biometric data, to regular testing of technical measures, and as input to a "
        "data protection impact assessment.",
        "Defense comparison",
        "comparison",
    ),
    Framework(
        "EU AI GradientTransform",
        "Art. 15(5)",
        "Relevant to resilience against confidentiality attacks.",
        "Findings",
        "findings",
    ),
    Framework(
        "ISO/IEC 27559:2022",
        "6.2, 7.3.2, 8.2.3",
        "Relevant to assessing the context, testing by adversarial attempts, and reporting them.",
        "Threat model and method",
        "method",
    ),
    Framework(
        "ISO/IEC 24745, with ISO/IEC 30136",
        "irreversibility, unlinkability",
        "Relevant to testing whether what is shared can be turned back into a face.",
        "Evidence",
        "evidence",
    ),
    Framework(
        "ISO/IEC 19795-1",
        "false match rate",
        "Relevant to how the match threshold was calibrated.",
        "Controls",
        "controls",
    ),
    Framework(
        "NIST SP 800-226",
        "privacy unit, neighbor relation, accountant, sampling, trust model",
        "Relevant to reading the claimed ε of a defense.",
        "Defense comparison",
        "comparison",
    ),
)

GLOSSARY: Sequence[tuple[str, str]] = (
    (
        "Re-identification rate",
        "Share of reconstructed faces that an embedder, independent of the audited model, matches "
        "to a different photo of the same person. 0–100 %; lower is better. The headline metric.",
    ),
    (
        "FMR, false match rate",
        "How often the embedder takes two different people for one at the threshold in use, "
        "calibrated on pairs of different people. 1e-3 means one in a thousand.",
    ),
    (
        "Prior-only control",
        "The same attack with the update replaced by noise. What it still finds comes from the "
        "attacker's generator, not from the client.",
    ),
    (
        "Excess",
        "Re-identification minus the prior-only rate on the same targets, in percentage points. A "
        "lower bound above 0 is what this report calls a demonstrated leak.",
    ),
    (
        "Identity cosine",
        "Similarity of two faces as the independent embedder sees them, −1 to 1. Above the "
        "threshold counts as a match.",
    ),
    (
        "Rank-1",
        "Share of reconstructions whose nearest gallery person is the right one. Chance: 1/N.",
    ),
    (
        "SSIM",
        "Structural similarity with a Gaussian window (σ = 1.5), on images in 0–1. −1 to 1; 1 is "
        "identical. Higher means that more came back.",
    ),
    (
        "LPIPS",
        "Learned perceptual distance; 0 is identical. Lower means that more came back.",
    ),
    (
        "PSNR",
        "Peak signal-to-noise ratio in decibels, on images in 0–1. Higher means that more came "
        "back.",
    ),
    (
        "95 % CI",
        "Confidence interval. Rates carry exact (Clopper–Pearson) intervals; 0 hits of n still "
        "leaves an upper bound well above 0 where n is small.",
    ),
    (
        "Holm p",
        "One-sided p value for an excess above 0, adjusted for the number of rows compared.",
    ),
    (
        "ε, δ",
        "Budget of differential privacy: smaller ε promises more. Claimed: computed by an "
        "accountant. Shown: a lower bound established by attacks.",
    ),
    (
        "TAR at FAR",
        "True accept rate of the trained model on held-out pairs, at a fixed false accept rate. "
        "Higher is more useful.",
    ),
    (
        "Verification accuracy",
        "Best accuracy of same-or-different decisions on pairs of people who never trained. 50 % "
        "is chance.",
    ),
    (
        "Dominated",
        "Another defense is at least as useful and leaks no more, by point estimates.",
    ),
    (
        "Adaptive attack",
        "An attack that takes the defense into account: knowing it, or estimating it. A defense "
        "that was only attacked without adapting is not yet tested in earnest.",
    ),
    (
        "Threat model A–H",
        "What the attacker is granted, after Carletti et al. (USENIX Security 2025).",
    ),
    (
        "Fresh and trained model",
        "Round 1 audits the freshly initialized global model; a later round audits a model that "
        "the federation has trained. They leak differently.",
    ),
)
