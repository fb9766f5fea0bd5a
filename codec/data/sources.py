"""Data without a corpus, for tests and smoke runs: noise, or a small set that never changes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from codec import audio
from codec.data.analysis import analyse
from codec.data.batches import Crop
from codec.data.manifest import Entry


class NoiseCrops(Dataset[Crop]):
    """Source ``random``: Gaussian noise, new for every index, with a random slope and level.

    ``crops[index].wave`` is float32 (1, segment) in [-1, 1], determined by (seed, index).

    Args:
        segment: length in samples.
        seed: of all draws.
        amplitude: greatest RMS; the levels are spread over 20 dB below it.
        analysed_at: sample rate in Hz at which crops are analysed into parameters of a voice, each
            of them when it is drawn; None: they have none.
    """

    def __init__(
        self, *, segment: int, seed: int, amplitude: float = 0.2, analysed_at: int | None = None
    ) -> None:
        self.segment = segment
        self.seed = seed
        self.amplitude = amplitude
        self.analysed_at = analysed_at

    def __getitem__(self, index: int) -> Crop:
        """Crop ``index``."""
        if index < 0:
            raise IndexError(f"crops are numbered from 0, got {index}")
        rng = np.random.default_rng([self.seed, index])
        spectrum = np.fft.rfft(rng.standard_normal(self.segment))
        slope = rng.uniform(-1.0, 0.0)  # of the amplitude: white (0) to brown (-1)
        spectrum *= np.arange(1, spectrum.size + 1) ** slope
        noise = np.fft.irfft(spectrum, self.segment)
        level = self.amplitude * 10 ** (-rng.uniform(0, 20) / 20)
        noise *= level / max(float(np.sqrt(np.mean(noise**2))), 1e-12)
        wave = np.clip(noise, -1, 1).astype(np.float32)[None]
        if self.analysed_at is None:
            return Crop(torch.from_numpy(wave))
        return Crop(torch.from_numpy(wave), torch.from_numpy(analyse(wave[0], self.analysed_at)))


class FixedCrops(Dataset[Crop]):
    """Source ``fixed``: a few items that repeat; index i gives item i modulo their number.

    ``crops[index].wave`` is float32 (1, segment) in [-1, 1]. The items are the beginnings of the
    files given, mixed to mono and resampled, or, without files, chords of harmonic tones with
    a little noise.

    Args:
        sample_rate: in Hz.
        segment: length in samples.
        seed: of the tones.
        items: how many; of ``entries`` the first so many.
        entries: files to take the items from.
        analysed: items have parameters of a voice, too.

    Raises:
        AudioError: one of the files cannot be decoded.
        MissingPackageError: items are to be analysed, and PyWorld is not installed.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        segment: int,
        seed: int = 0,
        items: int = 8,
        entries: Sequence[Entry] = (),
        analysed: bool = False,
    ) -> None:
        if items < 1:
            raise ValueError(f"items must be at least 1, got {items}")
        self.sample_rate = sample_rate
        self.segment = segment
        self.seed = seed
        if entries:
            self._items = [self._from_file(entry) for entry in entries[:items]]
        else:
            self._items = [self._tones(number) for number in range(items)]
        self._parameters = [analyse(i[0], sample_rate) for i in self._items] if analysed else None

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Crop:
        """Item ``index % len(self)``."""
        if index < 0:
            raise IndexError(f"crops are numbered from 0, got {index}")
        number = index % len(self._items)
        wave = torch.from_numpy(self._items[number].copy())
        if self._parameters is None:
            return Crop(wave)
        return Crop(wave, torch.from_numpy(self._parameters[number].copy()))

    def _from_file(self, entry: Entry) -> audio.Samples:
        seconds = self.segment / self.sample_rate
        wave, _ = audio.read(entry.path, sample_rate=self.sample_rate, seconds=seconds)
        item = np.zeros((1, self.segment), np.float32)
        item[:, : wave.shape[1]] = audio.to_mono(wave)[:, : self.segment]
        return item

    def _tones(self, number: int) -> audio.Samples:
        rng = np.random.default_rng([self.seed, number])
        time = np.arange(self.segment) / self.sample_rate
        pitch = rng.uniform(80, 300)
        harmonics = np.arange(1, 9)
        strengths = rng.uniform(0.2, 1.0, harmonics.size) / harmonics
        phases = rng.uniform(0, 2 * np.pi, harmonics.size)
        angles = 2 * np.pi * pitch * harmonics[:, None] * time + phases[:, None]
        tones = (strengths[:, None] * np.sin(angles)).sum(axis=0)
        tones *= 0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(2, 6) * time)  # syllables
        tones *= 0.5 / np.abs(strengths).sum()
        return (tones + 0.01 * rng.standard_normal(self.segment)).astype(np.float32)[None]
