"""Synthetic voices and noise for metrics."""

import numpy as np

RATE = 16_000


def voiced(seconds: float, sample_rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Syllables: a buzz with formants that move, with pauses between."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    pitch = 2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * 0.7 * time)) / sample_rate
    formant = 900 + 500 * np.sin(2 * np.pi * 1.3 * time + rng.uniform(0, 6))
    wave = np.zeros_like(time)
    for harmonic in range(1, 30):
        wave += np.sin(harmonic * pitch) * np.exp(-(((harmonic * 120 - formant) / 500) ** 2))
    syllables = np.clip(np.sin(2 * np.pi * 1.5 * time) * 3, 0, 1)
    return (0.1 * wave * syllables).astype(np.float32)


def noisy(wave: np.ndarray, level: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(len(wave))
    return (wave + level * noise).astype(np.float32)
