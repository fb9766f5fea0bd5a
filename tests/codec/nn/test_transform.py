"""Fourier analysis and synthesis: what they compute, causality, streaming, spans."""

import pytest
import torch
from torch import Tensor

from codec.nn.transform import Analysis, Synthesis

torch.set_num_threads(1)


def test_analysis_is_the_stft_of_a_hann_window_compressed() -> None:
    n_fft, hop = 16, 4
    wave = torch.randn(2, 1, 40)
    spectra = Analysis(n_fft, hop, exponent=1.0)(wave)
    padded = torch.nn.functional.pad(wave[:, 0], (n_fft - hop, 0))
    expected = torch.stft(
        padded, n_fft, hop, window=torch.hann_window(n_fft), center=False, return_complex=True
    ) * (12.5 / (n_fft * 3 / 8) ** 0.5)
    torch.testing.assert_close(spectra, torch.cat((expected.real, expected.imag), dim=1))
    compressed = Analysis(n_fft, hop)(wave)
    real, imaginary = compressed.chunk(2, dim=1)
    magnitude = (real.square() + imaginary.square()).sqrt()
    loud = expected.abs() > 0.3
    torch.testing.assert_close(magnitude[loud], expected.abs()[loud] ** 0.3, rtol=1e-3, atol=1e-3)
    unit = torch.complex(real, imaginary)[loud] / magnitude[loud]
    torch.testing.assert_close(unit, (expected / expected.abs())[loud])


def test_speech_like_noise_has_magnitudes_around_one() -> None:
    noise = 0.08 * torch.randn(1, 1, 16000)
    real, imaginary = Analysis(320, 80, exponent=1.0)(noise).chunk(2, dim=1)
    rms = (real.square() + imaginary.square()).mean().sqrt()
    assert 0.8 < rms < 1.25


def test_synthesis_undoes_an_stft_under_its_window() -> None:
    hop = 8
    wave = torch.randn(1, 1, 10 * hop)
    # Frame t covers blocks t and t + 1; without a window its halves add up to one.
    frames = torch.nn.functional.pad(wave[0, 0], (0, hop)).unfold(0, 2 * hop, hop)
    spectrum = torch.fft.rfft(frames).T[None]
    logits = torch.cat((spectrum.abs().log(), spectrum.angle()), dim=1)
    decoded = Synthesis(hop)(logits)
    assert decoded.shape == wave.shape
    # The first block lacks the frame before the signal.
    torch.testing.assert_close(decoded[..., hop:], wave[..., hop:], rtol=1e-4, atol=1e-4)


def test_magnitudes_are_bounded() -> None:
    logits = torch.full((1, 18, 3), 1000.0)
    assert torch.isfinite(Synthesis(8)(logits)).all()


@pytest.mark.parametrize("pieces", [[1] * 6, [0, 4, 2], [6]], ids=str)
@pytest.mark.parametrize("n_fft", [10, 16, 24], ids="n_fft={}".format)
def test_pieces_equal_the_whole(n_fft: int, pieces: list[int]) -> None:
    hop = 8
    down, up = Analysis(n_fft, hop), Synthesis(hop)
    wave = torch.randn(2, 1, 6 * hop)
    state = down.initial_state(2)
    spectra = []
    for piece in wave.split([n * hop for n in pieces], dim=-1):
        y, state = down.step(piece, state)
        spectra.append(y)
    torch.testing.assert_close(torch.cat(spectra, dim=-1), down(wave))
    logits = torch.randn(2, 18, 6)
    state = up.initial_state(2)
    waves = []
    for piece in logits.split(pieces, dim=-1):
        y, state = up.step(piece, state)
        waves.append(y)
    torch.testing.assert_close(torch.cat(waves, dim=-1), up(logits))


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "symmetric"])
@pytest.mark.parametrize(
    ("layer", "shape", "output"),
    [
        (lambda causal: Analysis(12, 4, causal=causal), (1, 1, 40), 5),
        (lambda causal: Analysis(10, 5, causal=causal), (1, 1, 40), 3),
        (lambda causal: Synthesis(4, causal=causal), (1, 10, 9), 17),
        (lambda causal: Synthesis(5, causal=causal), (1, 12, 9), 20),
    ],
    ids=["analysis", "analysis-odd", "synthesis", "synthesis-odd"],
)
def test_span_is_where_the_gradient_is(
    layer: object, shape: tuple[int, ...], output: int, causal: bool
) -> None:
    module = layer(causal)  # type: ignore[operator]
    x: Tensor = torch.randn(shape, requires_grad=True)
    module(x)[..., output].sum().backward()
    assert x.grad is not None
    touched = x.grad.abs().sum(dim=(0, 1)).nonzero().flatten()
    first, last = module.input_span(output, output)
    assert first <= int(touched[0]) and int(touched[-1]) <= last
    # A Hann window begins with a zero.
    assert int(touched[0]) - first <= 1 and last - int(touched[-1]) <= 1


def test_impossible_sizes_and_streams_are_refused() -> None:
    for n_fft in (7, 4):
        with pytest.raises(ValueError, match="n_fft must be even and above the hop 4"):
            Analysis(n_fft, 4)
    with pytest.raises(ValueError, match="whole hops of 4, got 3"):
        Analysis(8, 4).step(torch.zeros(1, 1, 3), Analysis(8, 4).initial_state(1))
    for layer in (Analysis(8, 4, causal=False), Synthesis(4, causal=False)):
        with pytest.raises(ValueError, match="reads the future"):
            layer.initial_state(1)
