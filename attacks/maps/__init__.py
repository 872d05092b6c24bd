"""Feature maps that an update gives away, and the faces behind them."""
