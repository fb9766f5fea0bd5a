import av
import numpy as np
import pytest
from av.codec.codec import UnknownCodecError

from codec.errors import SottoError
from codec.evaluation.opus import OpusAtRates


def voice(seconds: float, rate: int) -> np.ndarray:
    """Clicks with a decay, four a second: a shift by one sample shows. (What is low does not do:
    the speech mode's high-pass turns its phase.)
    """
    count = round(seconds * rate)
    clicks = np.zeros(count)
    clicks[rate // 8 :: rate // 4] = 1.0
    decay = np.exp(-np.arange(rate // 100) / (0.002 * rate))
    noise = np.random.default_rng(0).standard_normal(len(decay))
    return (0.2 * np.convolve(clicks, decay * noise)[:count]).astype(np.float32)


def one(wave, kbps, rate=16_000):
    (decoding,) = OpusAtRates([kbps], rate).decodings(wave)
    return decoding


def best_lag(wave, decoded, most=200):
    middle = slice(most, len(wave) - most)
    products = {
        lag: float(wave[middle] @ np.roll(decoded, -lag)[middle]) for lag in range(-most, most)
    }
    return max(products, key=products.__getitem__)


@pytest.mark.parametrize("rate", [8000, 16_000, 48_000])
@pytest.mark.parametrize("samples", [320, 15_999, 16_001, 24_000])
def test_every_sample_is_in_its_place(rate, samples):
    wave = voice(samples / 16_000, rate)
    decoded = one(wave, 64, rate).wave
    assert decoded.shape == wave.shape and decoded.dtype == np.float32
    if samples > 10_000:
        assert best_lag(wave, decoded) == 0
        assert wave @ decoded > 0.8 * np.linalg.norm(wave) * np.linalg.norm(decoded)


def test_bits_are_those_of_the_packets():
    """Near the target over ten seconds, as near as VBR keeps to it."""
    noise = np.random.default_rng(0).standard_normal(160_000)
    wave = voice(10, 16_000) + (0.05 * noise).astype(np.float32)
    decodings = list(OpusAtRates([24, 8, 12, 8], 16_000).decodings(wave))
    assert [decoding.kbps for decoding in decodings] == [8, 12, 24]
    assert [decoding.n_quantizers for decoding in decodings] == [None] * 3
    real = [decoding.bits / 10_000 for decoding in decodings]
    assert real == sorted(real)
    assert real == pytest.approx([8, 12, 24], rel=0.4)


@pytest.mark.parametrize(
    ("kbps", "rate", "words"),
    [(0.1, 16_000, "0.1 kbps is not a rate of Opus"), (8, 44_100, "does not take 44100 Hz")],
)
def test_what_opus_does_not_have_is_an_error(kbps, rate, words):
    with pytest.raises(SottoError, match=words):
        OpusAtRates([kbps], rate)


def test_no_libopus_is_an_error(monkeypatch):
    def without(name: str, mode: str) -> None:
        raise UnknownCodecError(name)

    monkeypatch.setattr(av.codec, "Codec", without)
    with pytest.raises(SottoError, match="without libopus"):
        OpusAtRates([8], 16_000)
