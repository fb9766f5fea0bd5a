from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import BitstreamError
from codec.resampling import resampled_length
from infer.header import Header
from infer.outlet import MAX_RATE, Outlet

RATE, HOP = 16_000, 320


def header(**facts: object) -> Header:
    known = {"frames": 100, "sample_rate": RATE, "hop_length": HOP, "source_rate": RATE}
    return Header(1, n_quantizers=1, bits=1, fingerprint="0" * 32, **{**known, **facts})  # type: ignore


def outlet(about: Header, *, restore: bool = True, start: float = 0.0) -> Outlet:
    return Outlet(
        lambda: about,
        sample_rate=RATE,
        hop_length=HOP,
        restore=restore,
        start=start,
        stop=None,
        window=10,
    )


def pieces(wave: np.ndarray, sizes: list[int]) -> Iterator[np.ndarray]:
    for size in sizes:
        yield wave[:, :size]
        wave = wave[:, size:]
    yield wave


@settings(deadline=None, max_examples=30)
@given(
    source_rate=st.sampled_from([8000, 11_025, 16_000, 44_100, 192_000]),
    samples=st.integers(1, 20_000),
    sizes=st.lists(st.integers(0, 3000), max_size=8),
)
def test_any_length_and_rate_is_restored_exactly(
    source_rate: int, samples: int, sizes: list[int]
) -> None:
    frames = -(-resampled_length(samples, source_rate, RATE) // HOP)
    if frames == 0:
        return
    about = header(frames=frames, source_rate=source_rate, source_samples=samples)
    wanted = outlet(about)
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (1, frames * HOP)).astype(np.float32)
    given = np.concatenate(list(wanted.shaped(pieces(wave, sizes))), axis=1)
    assert (wanted.samples, wanted.sample_rate) == (samples, source_rate)
    assert given.shape == (1, samples)
    if source_rate == RATE:
        np.testing.assert_array_equal(given, wave[:, :samples])


@pytest.mark.parametrize(("restore", "factor"), [(True, 0.5), (False, 1.0)])
def test_the_gain_is_undone_when_restoring(restore: bool, factor: float) -> None:
    about = header(gain_db=20 * np.log10(2), source_samples=32_000)
    wave = np.full((1, 32_000), 0.5, np.float32)
    given = np.concatenate(list(outlet(about, restore=restore).shaped(iter([wave]))), axis=1)
    np.testing.assert_allclose(given, 0.5 * factor, rtol=1e-5)


def test_channels_that_were_mixed_are_all_the_same_again() -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 32_000)).astype(np.float32)
    wanted = outlet(header(source_channels=3))
    assert wanted.channels == 3
    given = np.concatenate(list(wanted.shaped(iter([wave]))), axis=1)
    np.testing.assert_array_equal(given, np.repeat(wave, 3, axis=0))


def test_what_is_known_only_at_the_end_of_a_pipe_counts() -> None:
    known = header(frames=None)
    wanted = Outlet(
        lambda: known,
        sample_rate=RATE,
        hop_length=HOP,
        restore=False,
        start=0.0,
        stop=None,
        window=10,
    )
    assert wanted.samples is None

    def waves() -> Iterator[np.ndarray]:
        nonlocal known
        for _ in range(10):
            yield np.ones((1, 3200), np.float32)
        known = header(source_samples=31_999)

    assert sum(piece.shape[1] for piece in wanted.shaped(waves())) == 31_999


def test_a_rate_that_no_audio_has_is_refused() -> None:
    with pytest.raises(BitstreamError, match="cannot be restored"):
        outlet(header(source_rate=MAX_RATE + 1))
    assert outlet(header(source_rate=MAX_RATE + 1), restore=False).sample_rate == RATE


def test_decoding_begins_a_window_before_the_stretch() -> None:
    wanted = outlet(header(), start=1.0)  # frame 50
    assert wanted.first_frame == 40
    wave = np.arange(60 * HOP, dtype=np.float32)[None] / (60 * HOP)
    given = np.concatenate(list(wanted.shaped(iter([wave]))), axis=1)
    np.testing.assert_array_equal(given, wave[:, 10 * HOP :])
