"""The trainer, its checkpoints and its monitor."""
