"""Installed as `fedaudit.reports`; see CONTRIBUTING for why the folder stands at the top level."""

if __name__ != "fedaudit.reports":
    raise ImportError("import fedaudit.reports, not reports")
