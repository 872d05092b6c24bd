"""What classes of attack are called in standards: NIST AI 100-2, MITRE ATLAS, OWASP ML, ISO/IEC."""

RECONSTRUCTION: tuple[str, ...] = (
    "NIST AI 100-2 NISTAML.032",
    "MITRE ATLAS AML.T0024.001",
    "OWASP ML03:2023",
)
MEMBERSHIP = ("NIST AI 100-2 NISTAML.033", "MITRE ATLAS AML.T0024.000", "OWASP ML04:2023")
PROPERTY = ("NIST AI 100-2 NISTAML.034",)
IRREVERSIBILITY = ("ISO/IEC 24745 irreversibility", "ISO/IEC 30136")
_CATALOGS = {
    "NISTAML.032": "Data Reconstruction",
    "NISTAML.033": "Membership Inference",
    "NISTAML.034": "Property Inference",
    "AML.T0024.000": "Infer Training Data Membership",
    "AML.T0024.001": "Invert AI Model",
    "AML.M0005": "Control Access to AI Models and Data at Rest",
    "ML03:2023": "Model Inversion Attack",
    "ML04:2023": "Membership Inference Attack",
}
"""What codes are called in NIST AI 100-2e2025, MITRE ATLAS and OWASP's list of 2023."""


def code(name: str) -> str:
    """The code of a clause without the standards that every reader of it knows.

    >>> code("NIST AI 100-2 NISTAML.032"), code("ISO/IEC 30136")
    ('NISTAML.032', 'ISO/IEC 30136')
    """
    prefixes = ("NIST AI 100-2 ", "MITRE ATLAS ", "OWASP ")
    return next((name.removeprefix(k) for k in prefixes if name.startswith(k)), name)


def catalog_name(name: str) -> str:
    """What a clause is called where its code stands; "" where its name says so itself.

    >>> catalog_name("NIST AI 100-2 NISTAML.032"), catalog_name("ISO/IEC 30136")
    ('Data Reconstruction', '')
    """
    return _CATALOGS.get(code(name), "")
