"""Measured by hand: Sotto beside its peers."""
