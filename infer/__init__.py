"""Command line and files: audio to codes and back."""
