"""The adapter to sounddevice, with a module in its place that has two cards."""

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from codec.errors import SottoError
from infer.live import devices


class PretendedError(Exception):
    """Of PortAudio."""


class PretendedStream:
    opened: ClassVar["list[PretendedStream]"] = []

    def __init__(self, **options: Any) -> None:
        self.options, self.started, self.ended = options, False, False
        PretendedStream.opened.append(self)

    def start(self) -> None:
        self.started = True

    def __enter__(self) -> "PretendedStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True


CARDS = [
    {"name": "Inner", "hostapi": 0, "max_input_channels": 2, "max_output_channels": 0},
    {"name": "Outer", "hostapi": 0, "max_input_channels": 0, "max_output_channels": 6},
]
TAKEN = {0: {(44100, 2)}, 1: {(8000, 1), (48000, 2)}}


@pytest.fixture
def sounddevice(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module: Any = ModuleType("sounddevice")
    cards = [
        card | {"index": i, "default_samplerate": 44100.0 if i == 0 else 48000.0}
        for i, card in enumerate(CARDS)
    ]

    def query(device: int | str | None = None, kind: str | None = None) -> Any:
        if device is None and kind is None:
            return cards
        found = [
            card
            for card in cards
            if card[f"max_{kind}_channels"] and device in (None, card["index"], card["name"])
        ]
        if isinstance(device, int) and not found:
            raise PretendedError(f"Error querying device {device}")
        if not found:
            raise ValueError(f"No {kind} device matching {device!r}")
        return found[0]

    def check(*, device: int, channels: int, dtype: str, samplerate: int) -> None:
        if (samplerate, channels) not in TAKEN[device]:
            raise PretendedError("Invalid sample rate")

    module.query_devices = query
    module.query_hostapis = lambda: [{"name": "Pretended"}]
    module.check_input_settings = module.check_output_settings = check
    module.default = SimpleNamespace(device=[0, 1])
    module.PortAudioError = PretendedError
    module.InputStream = module.OutputStream = PretendedStream
    PretendedStream.opened = []
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


def status(**flags: bool) -> SimpleNamespace:
    return SimpleNamespace(**({"input_overflow": False} | flags))


def test_devices_are_listed(sounddevice: ModuleType) -> None:
    assert devices.list_devices() == [
        ("0", "Inner", "Pretended", "2", "0", "44100", "in"),
        ("1", "Outer", "Pretended", "0", "6", "48000", "out"),
    ]


@pytest.mark.parametrize("name", ["default", "0", "Inner"])
def test_a_card_without_the_models_rate_is_used_at_its_own(
    name: str, sounddevice: ModuleType
) -> None:
    with devices.open_microphone(name, 8000) as card:
        (stream,) = PretendedStream.opened
        assert (card.name, card.sample_rate) == ("Inner", 44100)
        assert stream.started
        assert (stream.options["device"], stream.options["channels"]) == (0, 2)
        assert stream.options["samplerate"] == 44100
        assert card.read(0.0).size == 0
        data = np.array([[0.5, 0.25], [-1, -1], [4, 4], [np.nan, 0]], np.float32)
        stream.options["callback"](data, 4, None, status())
        np.testing.assert_array_equal(card.read(0.0), np.array([0.375, -1, 1, 0], np.float32))
        assert card.overruns == 0
        stream.options["callback"](data, 4, None, status(input_overflow=True))
        for _ in range(2):
            stream.options["callback"](np.zeros((60_000, 2), np.float32), 60_000, None, status())
        assert card.overruns == 2
        assert card.read(0.0).size == 88_200
    assert stream.ended


def test_a_speaker_is_silent_until_there_is_sound_and_counts_each_pause_once(
    sounddevice: ModuleType,
) -> None:
    with devices.open_speaker("default", 8000) as card:
        play = PretendedStream.opened[0].options["callback"]

        def played(frames: int) -> list[float]:
            data = np.full((frames, 1), 9, np.float32)
            play(data, frames, None, status())
            return data[:, 0].tolist()

        assert card.sample_rate == 8000
        assert played(2) == [0, 0]
        assert card.underruns == 0
        card.write(np.array([0.25, 0.5, 0.75], np.float32))
        assert card.queued() == 3
        assert played(2) == [0.25, 0.5]
        assert played(2) == [0.75, 0]
        assert played(2) == [0, 0]
        assert card.underruns == 1
        card.write(np.array([1, 1, 1], np.float32))
        assert played(1) == [1]
        card.ending()
        assert played(1) == [1]
        assert played(2) == [1, 0]
        assert card.underruns == 1


def test_all_channels_of_a_speaker_sound(sounddevice: ModuleType) -> None:
    with devices.open_speaker("1", 16000) as card:
        assert (card.sample_rate, card.channels) == (48000, 2)
        card.write(np.array([0.5], np.float32))
        data = np.zeros((1, 2), np.float32)
        PretendedStream.opened[0].options["callback"](data, 1, None, status())
        assert data.tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(
    ("open_device", "name", "says"),
    [
        (devices.open_microphone, "7", r"device '7' for sound in .*querying device 7.*list-dev"),
        (devices.open_microphone, "Outer", r"'Outer' for sound in .*No input device matching"),
        (devices.open_speaker, "Inner", r"'Inner' for sound out .*No output device matching"),
    ],
)
def test_a_device_that_is_not_there_is_named(
    open_device: Callable[..., Any], name: str, says: str, sounddevice: ModuleType
) -> None:
    with pytest.raises(SottoError, match=says), open_device(name, 8000):
        pass


def test_a_machine_without_sound_says_so(sounddevice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TAKEN, 1, set())
    with (
        pytest.raises(SottoError, match="Outer takes neither 8000 nor 48000 Hz"),
        devices.open_speaker("default", 8000),
    ):
        pass

    def none(device: object = None, kind: str | None = None) -> Any:
        raise PretendedError("Error querying device -1")

    sounddevice.query_devices = none
    with (
        pytest.raises(SottoError, match="the default device for sound in cannot be used"),
        devices.open_microphone("default", 8000),
    ):
        pass


def test_a_missing_package_or_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(SottoError, match=r"pip install 'sotto\[live\]'"):
        devices.list_devices()

    class Broken:
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(SottoError, match="libportaudio2"):
        devices.list_devices()
