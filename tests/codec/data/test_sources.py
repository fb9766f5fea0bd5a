"""The sources that need no corpus."""

from pathlib import Path

import numpy as np
import pytest
import torch

from codec import audio
from codec.data.manifest import Entry
from codec.data.sources import FixedCrops, NoiseCrops


def test_noise_is_determined_by_seed_and_index() -> None:
    noise = NoiseCrops(segment=1000, seed=1)
    assert torch.equal(noise[7].wave, NoiseCrops(segment=1000, seed=1)[7].wave)
    assert not torch.equal(noise[7].wave, noise[8].wave)
    assert not torch.equal(noise[7].wave, NoiseCrops(segment=1000, seed=2)[7].wave)
    for index in range(20):
        crop = noise[index].wave
        assert crop.shape == (1, 1000) and crop.dtype == torch.float32
        assert float(crop.abs().max()) <= 1
        assert 0.015 < float(crop.square().mean().sqrt()) < 0.21


def test_fixed_items_repeat() -> None:
    fixed = FixedCrops(sample_rate=16000, segment=800, items=3)
    assert len(fixed) == 3
    assert torch.equal(fixed[1].wave, fixed[4].wave) and not torch.equal(
        fixed[1].wave, fixed[2].wave
    )
    assert torch.equal(fixed[1].wave, FixedCrops(sample_rate=16000, segment=800, items=3)[1].wave)
    assert all(0.01 < float(fixed[i].wave.square().mean().sqrt()) < 0.5 for i in range(3))
    fixed[0].wave.zero_()  # what a caller does to an item does not stay
    assert float(fixed[0].wave.abs().max()) > 0


def test_fixed_items_from_files(tmp_path: Path) -> None:
    waves = [np.full((2, 4000), level, np.float32) for level in (0.25, 0.5)]
    entries = []
    for number, wave in enumerate(waves):
        audio.write_wav(tmp_path / f"{number}.wav", wave, 8000)
        entries.append(Entry(tmp_path / f"{number}.wav", 0.5))
    fixed = FixedCrops(sample_rate=8000, segment=8000, entries=entries)
    assert len(fixed) == 2
    torch.testing.assert_close(fixed[3].wave[0, :4000], torch.full((4000,), 0.5))
    assert float(fixed[3].wave[0, 4000:].abs().max()) == 0


def test_negative_indices_and_no_items_are_refused() -> None:
    with pytest.raises(IndexError):
        NoiseCrops(segment=10, seed=0)[-1]
    with pytest.raises(IndexError):
        FixedCrops(sample_rate=8000, segment=10)[-1]
    with pytest.raises(ValueError, match="items"):
        FixedCrops(sample_rate=8000, segment=10, items=0)
