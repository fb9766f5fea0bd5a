"""From audio files to training batches."""
