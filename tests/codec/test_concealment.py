import math
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from codec.audio import read
from codec.building import build_autoencoder, inference_tensors
from codec.codec import Codec
from codec.concealment import Concealment
from codec.config_model import (
    ConvNeXtConfig,
    ModelConfig,
    QuantizerConfig,
    SEANetConfig,
    VoiceDecoderConfig,
    VoiceEncoderConfig,
)
from codec.evaluation.metrics import pesq_wb
from codec.shipped import SHIPPED

SAMPLE_RATE, HOP = 16000, 80
FADED = 40  # frames of 5 ms until silence: 200 ms
SPEECH = Path(__file__).parents[2] / "../shared/speech/valid"
FAMILIES = ["seanet", "convnext", "voice"]

each_family = pytest.mark.parametrize("kind", FAMILIES)


@cache
def codec(kind: str, seed: int = 0) -> Codec:
    """16 kHz, 5 ms a frame; a voice looks two of them ahead."""
    strides = [HOP] if kind == "voice" else [20, 4]
    encoder: dict[str, Any] = {"kind": "voice", "channels": [8], "blocks": [1]}
    half: SEANetConfig | ConvNeXtConfig | None = None
    if kind == "seanet":
        half = SEANetConfig(channels=3, dilations=[1, 3])
    elif kind == "convnext":
        half = ConvNeXtConfig(kind="convnext", channels=[8, 8], blocks=[1, 1])
    config = ModelConfig(
        hop_length=HOP,
        strides=strides,
        dimension=6,
        encoder=half or VoiceEncoderConfig.model_validate(encoder),
        decoder=half or VoiceDecoderConfig.model_validate(encoder | {"lookahead": 2}),
        quantizer=QuantizerConfig(n_quantizers=3, codebook_size=16),
        default_kbps=2.4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        autoencoder = build_autoencoder(config).requires_grad_(False)
        for parameter in autoencoder.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return Codec(config, inference_tensors(autoencoder))


def random_codes(frames: int, seed: int = 0) -> Tensor:
    return torch.randint(16, (3, frames), generator=torch.Generator().manual_seed(seed))


def played(model: Codec, codes: Tensor, lost: set[int]) -> Tensor:
    """(frames, hop) of a stream in which some frames got lost.

    What is filled in comes out instead of the lost frames themselves, or, with look-ahead, of what
    was to come out with them.
    """
    with model.stream_decoder() as stream:
        parts = [stream.push(None if t in lost else codes[:, t]) for t in range(codes.shape[1])]
        parts.append(stream.flush())
    return torch.cat(parts).view(codes.shape[1], model.hop_length)


def with_repeats(codes: Tensor, lost: set[int]) -> Tensor:
    """Codes in which every lost frame is the last that came."""
    codes = codes.clone()
    for t in sorted(lost):
        codes[:, t] = codes[:, t - 1]
    return codes


def rms(wave: Tensor) -> float:
    return float(wave.square().mean().sqrt())


def receptive_frames(model: Codec) -> int:
    return model._autoencoder.decoder.receptive_field


@each_family
@pytest.mark.parametrize("count", [1, 2, 7, FADED - 1])
def test_the_decoder_goes_on_under_a_smooth_gain(kind, count):
    """No click: what is heard is a wave without a seam times a gain that hardly moves a sample."""
    model, codes = codec(kind), random_codes(10 + count + 10)
    lost = set(range(10, 10 + count))
    heard = played(model, codes, lost).flatten()
    seamless = model.decode(with_repeats(codes, lost))
    late = model.config.lookahead
    near = 1e-3 * float(seamless.abs().max()) if late else 1e-5  # a phase adds rounding up
    told = seamless.abs() > (0.2 if late else 0.02) * seamless.abs().max()
    gain = (heard / seamless)[told]
    index = told.nonzero()[:, 0]
    assert float(gain.min()) > -1e-4
    assert float(gain.max()) < 1 + (1e-2 if late else 1e-4)
    slope = gain.diff().abs() / index.diff()
    steepest = 1 / (0.0025 * SAMPLE_RATE)  # within 2.5 ms from 0 to 1
    assert float(slope.max()) < 1.05 * steepest
    first = (10 - late) * HOP
    torch.testing.assert_close(heard[:first], seamless[:first], rtol=0, atol=near)
    after = first + (count + 1) * HOP
    torch.testing.assert_close(heard[after:], seamless[after:], rtol=0, atol=near)


def test_a_tone_fades_and_comes_back_without_a_click():
    shaping = Concealment(SAMPLE_RATE, HOP, torch.device("cpu"))
    time = torch.arange(80 * HOP) / SAMPLE_RATE
    tone = 0.5 * torch.sin(2 * math.pi * 220 * time).view(80, 1, 1, HOP)
    heard, limit = tone[:20].reshape(1, 1, -1)[..., -shaping.heard_samples :], torch.ones(1, 1, 1)
    out = list(tone[:20])
    for lost in range(30):
        wave, limit = shaping.shape(tone[20 + lost], heard, limit, lost)
        out.append(wave)
    out += [shaping.recover(tone[50], limit, 30), *tone[51:]]
    wave = torch.cat(out, dim=-1).flatten()
    largest_step = float(tone.flatten().diff().abs().max())
    assert float(wave.diff().abs().max()) < 1.2 * largest_step
    assert rms(wave[49 * HOP : 50 * HOP]) < 0.5 * rms(tone)
    assert torch.equal(wave[51 * HOP :], tone[51:].flatten())


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["seanet", "convnext"]),  # 5 ms of a voice have a pulse or none
    seed=st.integers(0, 3),
    first=st.integers(4, 12),
    count=st.integers(1, 60),
)
def test_no_filled_in_frame_is_louder_than_what_was_heard(kind, seed, first, count):
    """By no more than 1 dB, after the 5 ms in which the level is found."""
    model, codes = codec(kind, seed), random_codes(first + count, seed)
    frames = played(model, codes, set(range(first, first + count)))
    before = rms(frames[first - 4 : first])
    levels = [rms(frame) for frame in frames[first:]]
    assert max(levels[1:], default=0) <= 1.12 * before
    assert levels[0] <= 1.41 * max(rms(frame) for frame in frames[first - 4 : first])


@pytest.mark.parametrize("swell", [1.0, 3.0, 100.0])
def test_a_latent_that_swells_is_held_down(swell):
    shaping = Concealment(SAMPLE_RATE, 320, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    heard = 0.1 * torch.randn(2, 1, 320, generator=generator)
    limit = torch.ones(2, 1, 1)
    for lost in range(shaping.faded_frames):
        loud = swell * 0.1 * torch.randn(2, 1, 320, generator=generator)
        wave, limit = shaping.shape(loud, heard, limit, lost)
        settled = wave[..., 40:] if lost == 0 else wave
        for item in range(2):
            assert rms(settled[item]) < 1.12 * rms(heard[item])


@each_family
@pytest.mark.parametrize("at_once", [False, True], ids=["one-by-one", "at-once"])
def test_a_long_loss_ends_in_silence_and_a_new_start(kind, at_once):
    model, codes = codec(kind), random_codes(30)
    stream = model.stream_decoder()
    stream.push(codes[:, :10])
    filled = (
        stream.push(None, frames=100)
        if at_once
        else torch.cat([stream.push(None) for _ in range(100)])
    ).view(100, HOP)
    levels = [rms(frame) for frame in filled]
    assert levels[0] > 0.3 * rms(model.decode(codes[:, :10]))
    assert levels[FADED - 2] < 0.05 * levels[0]
    assert not filled[FADED:].any()
    anew = model.decode(codes[:, 10:])
    after = torch.cat([stream.push(codes[:, 10:]), stream.flush()])
    late = model.config.lookahead * HOP  # as long there is what lies before a signal
    assert not after[:late].any()
    assert abs(float(after[0])) < 0.1 * float(anew.abs().max())  # eased in, within 5 ms
    near = 1e-3 * float(anew.abs().max()) if late else 1e-5
    torch.testing.assert_close(after[late + HOP :], anew[HOP:], rtol=0, atol=near)


@each_family
def test_losses_at_once_are_those_one_by_one(kind):
    model, codes = codec(kind), random_codes(12)
    streams = [model.stream_decoder() for _ in range(2)]
    for stream in streams:
        stream.push(codes[:, :5])
    one_by_one = torch.cat([streams[0].push(None) for _ in range(7)])
    assert torch.equal(streams[1].push(None, frames=7), one_by_one)
    assert torch.equal(streams[0].push(codes[:, 5:]), streams[1].push(codes[:, 5:]))


@pytest.mark.parametrize("kind", ["seanet", "convnext"])  # a voice's phase stays another
@pytest.mark.parametrize("count", [1, 3, 60])
def test_what_comes_back_is_lossless_within_the_receptive_field(kind, count):
    model, codes = codec(kind), random_codes(30 + count)
    frames = played(model, codes, set(range(10, 10 + count)))
    lossless = model.decode(codes).view(-1, HOP)
    whole_again = 10 + count + receptive_frames(model) - 1
    assert whole_again < len(frames)
    torch.testing.assert_close(frames[whole_again:], lossless[whole_again:], rtol=0, atol=1e-5)


@each_family
def test_before_the_first_frame_there_is_silence(kind):
    model, codes = codec(kind), random_codes(10)
    stream = model.stream_decoder()
    wave = torch.cat([stream.push(None, frames=5), stream.push(codes), stream.flush()])
    expected = model.decode(codes)
    assert not wave[: 5 * HOP].any()
    near = 1e-3 * float(expected.abs().max()) if model.config.lookahead else 1e-5
    torch.testing.assert_close(wave[5 * HOP :], expected, rtol=0, atol=near)


def test_a_batch_loses_a_frame_together_but_at_levels_of_its_own():
    model = codec("seanet")
    items = [random_codes(8, seed) for seed in range(3)]
    stream = model.stream_decoder(batch=3)
    codes = torch.stack(items)
    wave = torch.cat(
        [stream.push(codes[..., :5]), stream.push(None), stream.push(codes[..., 6:])], -1
    )
    for item, own in zip(items, wave, strict=True):
        expected = played(model, item, {5}).flatten()
        torch.testing.assert_close(own[0], expected, rtol=0, atol=1e-5)


def test_a_stream_forks_in_the_middle_of_a_loss():
    model, codes = codec("seanet"), random_codes(12)
    stream, other = model.stream_decoder(), model.stream_decoder()
    stream.push(codes[:, :6])
    stream.push(None, frames=2)
    other.restore(stream.state())
    for given_codes in (None, codes[:, 6:]):
        assert torch.equal(stream.push(given_codes), other.push(given_codes))


def bursts(frames: int, share: float, seed: str) -> set[int]:
    """Lost frames in bursts of 2.5 on the average (Gilbert 1960), none lost among the first 5."""
    draw, lost, bad = random.Random(seed), set(), False
    leave = 1 / 2.5
    enter = leave * share / (1 - share)
    for t in range(5, frames):
        bad = draw.random() >= leave if bad else draw.random() < enter
        if bad:
            lost.add(t)
    return lost


@cache
def spoken() -> tuple[Codec, list[tuple[Tensor, Tensor]]]:
    """The shipped model, and 3 s of two speakers with their codes."""
    model = Codec.load(SHIPPED)
    waves = [
        torch.as_tensor(read(file, sample_rate=model.sample_rate, start=1.0, seconds=3.0)[0][0])
        for file in sorted(SPEECH.glob("libri/*.flac"))[:2]
    ]
    return model, [(wave, model.encode(wave)) for wave in waves]


def with_zeros(model: Codec, codes: Tensor, lost: set[int]) -> Tensor:
    """(frames, hop) of a decoder that knows of no losses, and zeros where they were."""
    came = [t for t in range(codes.shape[1]) if t not in lost]
    with model.stream_decoder() as stream:
        pieces = [stream.push(codes[:, t]) for t in came] + [stream.flush()]
    frames = torch.zeros(codes.shape[1], model.hop_length)
    frames[came] = torch.cat(pieces).view(-1, model.hop_length)
    return frames


@pytest.mark.skipif(not SHIPPED.is_file(), reason="needs the shipped model: noise has no PESQ")
@pytest.mark.skipif(not SPEECH.is_dir(), reason="needs the speech in ../shared/speech/valid")
@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.2])
def test_speech_with_losses_is_better_filled_in_than_silent(share):
    model, speech = spoken()
    gains = []
    for number, (wave, codes) in enumerate(speech):
        loudest = model.decode(codes).view(-1, model.hop_length).square().mean(dim=1)[5:].argmax()
        lost = bursts(codes.shape[1], share, f"{number}") | {5 + int(loudest)}
        scores = [
            pesq_wb(wave.numpy(), heard.flatten()[: len(wave)].numpy(), model.sample_rate)
            for heard in (played(model, codes, lost), with_zeros(model, codes, lost))
        ]
        gains.append(scores[0] - scores[1])
    assert sum(gains) > 0
