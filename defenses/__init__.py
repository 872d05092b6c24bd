"""Installed as `fedaudit.defenses`; see CONTRIBUTING for why the folder stands at the top level."""

if __name__ != "fedaudit.defenses":
    raise ImportError("import fedaudit.defenses, not defenses")
