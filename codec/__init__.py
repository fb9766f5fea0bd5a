"""Sotto's codec: model, losses, data, training and evaluation."""
