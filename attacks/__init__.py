"""Installed as `fedaudit.attacks`; see CONTRIBUTING for why the folder stands at the top level."""

if __name__ != "fedaudit.attacks":
    raise ImportError("import fedaudit.attacks, not attacks")
