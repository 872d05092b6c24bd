"""The sentence that closes every page: what an audit can show, and no more."""

CLOSING = (
    "This report is evidence for the attacks that were run, on the data and settings named above, "
    "and for nothing else. It is not a determination of anonymity or of compliance."
)
