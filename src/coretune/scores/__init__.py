"""Scores: pure arithmetic from arrays to `(n,)`, higher is better."""
