"""One script a corpus: raw archive or hub to 16 kHz files and a manifest."""
