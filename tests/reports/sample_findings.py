"""The sample's findings, and what it covers."""

from fedaudit.reports.results import Coverage, Finding


def made_findings() -> tuple[Finding, ...]:
    return (
        Finding(
            "F-001",
            "critical",
            "high",
            "Faces come back from updates",
            "Faces come back from undefended updates of a fresh model",
            "A curious server that sees one FedSGD gradient of one image re-identifies the person.",
            "12 of 16 faces re-identified (75 %, 95 % CI 48–93 %); prior only 1 of 16.",
            "fresh-b1: face, fedsgd, round 1, batch 1; gan_inversion; threat model D",
            "Do not share raw updates. DP-SGD at ε = 8 lowered re-identification from 75 % to 6 %"
            " (95 % CI 0–30 %) at 15 points of verification accuracy.",
            ("NISTAML.032", "AML.T0024.001", "ML03:2023"),
            "a3f1c09b7d52e684",
        ),
        Finding(
            "F-002",
            "high",
            "medium",
            "Faces come back from updates",
            "DPLC's class centers do not hide the backbone's gradient",
            "The defense protects the head; the backbone's update still carries the face.",
            "8 of 16 faces re-identified (50 %, 95 % CI 25–75 %).",
            "fresh-b1: dplc with its published settings; gan_inversion, adaptive",
            "Combine with a defense of the backbone; none was measured in this study.",
            ("NISTAML.032", "AML.M0012"),
            "0be4471fa9c8d233",
        ),
        Finding(
            "F-003",
            "low",
            "high",
            "Labels are recovered from batches of four",
            "Labels are recovered from batches of four",
            "The multiset of labels is read off the head's bias gradient.",
            "81 % of labels on average over 16 targets.",
            "pooled-b4: face_pooled, fedsgd, round 1, batch 4",
            "Withhold the head; private_projector does so.",
            ("NISTAML.034",),
            "77d0e2a1b6c4f905",
        ),
    )


def made_coverage() -> tuple[Coverage, ...]:
    return (
        Coverage(
            "Reconstruction by gradient matching",
            True,
            True,
            "9 of 16 at worst",
            ("NISTAML.032", "AML.T0024.001", "ML03:2023"),
        ),
        Coverage(
            "Reconstruction with a generative prior",
            True,
            True,
            "12 of 16 at worst",
            ("NISTAML.032", "AML.T0024.001", "ML03:2023"),
        ),
        Coverage(
            "Analytic reconstruction (head inversion)", True, True, "0 of 64", ("NISTAML.032",)
        ),
        Coverage("Label recovery", True, True, "81 % of labels", ("NISTAML.034",)),
        Coverage(
            "Membership inference", True, False, "—", ("NISTAML.033", "AML.T0024.000", "ML04:2023")
        ),
        Coverage("Malicious server (manipulated parameters)", False, False, "—", ("NISTAML.032",)),
    )
