"""Stages of searches by spans: what each moves, how long, held how smooth."""
