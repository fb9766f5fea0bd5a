import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.codec import Codec
from codec.errors import SottoError
from infer import export_check, export_layers
from infer.export import export
from infer.export_int8 import loudness
from infer.runtime.card import checked_bytes, read_card
from infer.runtime.session import Session
from tests.support.voices import HALF, assert_sounds_like, make_voice

HOP = 320
VOICES: dict[str, dict[str, Any]] = {
    "small": {},
    "at-once": {"decoder": {"lookahead": 0}},
    "two-ahead": {"decoder": {"lookahead": 2, "last_kernel_size": 1, "kernel_size": 3}},
    "8-khz": {
        "sample_rate": 8000,
        "default_kbps": 0.25,
        "strides": [40, 2, 4],
        "encoder": HALF | {"channels": [8, 8, 12], "blocks": [1, 0, 1]},
        "decoder": {"channels": [8, 8, 12], "blocks": [0, 1, 1], "last_kernel_size": 4},
    },
    "beside-another-encoder": {"encoder": {"kind": "seanet", "channels": 2, "dilations": [1]}},
}


def speech(codec: Codec, count: int = 8, frames: int = 30) -> list[np.ndarray]:
    generator = np.random.default_rng(5)
    shape = (count, frames * codec.hop_length)
    return list(0.1 * generator.standard_normal(shape).astype(np.float32))


def session(folder: Path, part: str, *, streaming: bool, precision: str = "fp32") -> Session:
    file = read_card(folder).file(part, streaming=streaming, precision=precision)
    return Session(file, checked_bytes(folder, file))


def random_codes(frames: int, *, batch: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(32, size=(batch, 3, frames))


@pytest.fixture(scope="module")
def decoder(exported_voice: Path) -> Session:
    return session(exported_voice, "decoder", streaming=True)


@pytest.mark.parametrize("name", VOICES)
def test_voices_are_exported_and_agree(name: str, tmp_path: Path) -> None:
    codec = make_voice(**VOICES[name])
    card = export(codec, tmp_path / "out")
    assert card == read_card(tmp_path / "out")
    assert card.lookahead == codec.config.lookahead
    assert card.latency_samples == (1 + card.lookahead) * codec.hop_length
    for file in card.files:
        assert card.checks[file.name]["largest_difference"] < 5e-3
    waves = np.stack(speech(codec, 2))[:, None]
    expected = codec.encode(waves).numpy()
    codes, _ = session(tmp_path / "out", "encoder", streaming=False).step(waves)
    np.testing.assert_array_equal(codes, expected)
    expected[:, 2:] = -1
    wave, _ = session(tmp_path / "out", "decoder", streaming=False).step(expected)
    assert_sounds_like(wave, codec.decode(expected[:, :2]))


def test_cards_are_of_the_oldest_version_that_can_say_it(
    exported: Path, exported_voice: Path
) -> None:
    old, new = (json.loads((f / "card.json").read_text()) for f in (exported, exported_voice))
    assert (old["version"], new["version"]) == (1, 2)
    assert "lookahead" not in old
    assert not any("dtype" in state for file in old["files"] for state in file["states"])
    assert (new["lookahead"], new["latency_samples"]) == (1, 2 * HOP)
    kinds = [s["dtype"] for f in new["files"] if f["part"] == "decoder" for s in f["states"]]
    assert kinds.count("float64") == 1
    card = read_card(exported)
    assert card.lookahead == 0
    assert {state.dtype for file in card.files for state in file.states} == {"float32"}


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 30), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_steps_are_those_of_pytorch_however_cut(
    decoder: Session, voice: Codec, cuts: list[int], seed: int
) -> None:
    codes = random_codes(24, seed=seed)
    wave, _ = export_check.run_in_pieces(decoder, codes, 1, cuts)
    halves = export_layers.autoencoder_of(voice)
    with torch.inference_mode():
        latent = halves.quantizer.decode(torch.as_tensor(codes))
        expected, _ = halves.decoder.step(latent, halves.decoder.initial_state(1))
    assert_sounds_like(wave, expected)


def test_items_of_a_batch_have_phases_of_their_own(decoder: Session) -> None:
    codes = random_codes(20, batch=3)
    wave, state = export_check.run_in_pieces(decoder, codes, 1, (3,))
    phases = [x for x in state if x.dtype == np.float64]
    assert [x.shape for x in phases] == [(3, 1, 1)]
    assert len(set(phases[0].ravel())) == 3
    for item in range(3):
        alone, _ = export_check.run_in_pieces(decoder, codes[item : item + 1], 1, (5,))
        assert_sounds_like(wave[item], alone[0])


def test_the_phase_does_not_run_away(decoder: Session, voice: Codec) -> None:
    """A millionth of a cycle a frame by rounding: over 20 s, less than 1e-4 cycles."""
    codes = random_codes(1000)
    halves = export_layers.autoencoder_of(voice)
    state, expected = decoder.initial_state(1), halves.decoder.initial_state(1)
    phase = [about.dtype for about in decoder.file.states].index("float64")
    with torch.inference_mode():
        latent = halves.quantizer.decode(torch.as_tensor(codes))
        for start in range(0, 1000, 50):
            _, state = decoder.step(codes[..., start : start + 50], state)
            _, expected = halves.decoder.step(latent[..., start : start + 50], expected)
    apart = float(state[phase].item()) - expected[-2].item()
    assert abs((apart + 0.5) % 1 - 0.5) < 1e-4


def test_a_voice_that_differs_is_not_kept(
    voice: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = voice.decode
    monkeypatch.setattr(voice, "decode", lambda codes: decode(codes) * 1.01)
    with pytest.raises(SottoError, match=r"decoder_step\.onnx differs .* not exported"):
        export(voice, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_int8_is_measured_by_loudness(voice: Codec, tmp_path: Path) -> None:
    card = export(voice, tmp_path / "out", calibration=speech(voice))
    for streaming in (True, False):
        decoder = card.file("decoder", streaming=streaming, precision="int8")
        assert card.checks[decoder.name]["snr_db"] > 10
        assert [state.dtype for state in decoder.states].count("float64") == streaming


def test_loudness_does_not_hear_a_phase_but_all_else() -> None:
    time = np.arange(16000) / 16000
    wave, late = (
        sum(np.cos(2 * np.pi * k * (150 * time + shift)) for k in range(1, 40))[None, None]
        for shift in (0, 0.3)
    )
    expected = loudness(wave, HOP)
    assert expected.shape == (50, 16)
    assert np.abs(loudness(late, HOP) - expected)[:-3].max() < 0.03 * expected.max()
    assert np.abs(loudness(2 * wave, HOP) / expected - 2**0.5).max() < 1e-6
