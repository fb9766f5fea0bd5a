"""Sound cards by sounddevice (PortAudio): the only file that knows it.

Its callbacks come in a thread of PortAudio's and only move samples between the card and a queue.
"""

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.errors import SottoError
from codec.extras import needing
from infer.live.ends import Wave
from infer.live.fifo import Fifo

DEFAULT = "default"
_QUEUE_SECONDS = 2.0
_MOST_CHANNELS = 2


def list_devices() -> list[tuple[str, ...]]:
    """Every device: number, name, host API, channels in and out, rate in Hz, default for what.

    Raises:
        SottoError: sounddevice or PortAudio is missing.
    """
    sounddevice = _sounddevice()
    inputs, outputs = sounddevice.default.device
    apis = sounddevice.query_hostapis()
    rows: list[tuple[str, ...]] = []
    for number, device in enumerate(sounddevice.query_devices()):
        defaults = [name for name, own in (("in", inputs), ("out", outputs)) if own == number]
        rows.append(
            (
                str(number),
                str(device["name"]),
                str(apis[device["hostapi"]]["name"]),
                str(device["max_input_channels"]),
                str(device["max_output_channels"]),
                f"{device['default_samplerate']:.0f}",
                ", ".join(defaults),
            )
        )
    return rows


class CardInput:
    """A microphone. See `infer.live.sources.InputDevice`."""

    def __init__(self, name: str, sample_rate: int, channels: int) -> None:
        self.name, self.sample_rate, self.channels = name, sample_rate, channels
        self._fifo = Fifo(round(_QUEUE_SECONDS * sample_rate))
        self._overflows = 0

    @property
    def overruns(self) -> int:
        """Times that samples were lost, in the driver or here."""
        return self._overflows + self._fifo.overruns

    def read(self, seconds: float) -> Wave:
        """All samples since the last call, (samples,); waits for the first, but only so long."""
        self._fifo.wait(seconds)
        return self._fifo.take(self._fifo.capacity)

    def on_samples(self, data: NDArray[np.float32], frames: int, time: Any, status: Any) -> None:
        """PortAudio's callback: (frames, channels) have come."""
        self._overflows += bool(status.input_overflow)
        # A driver's floats may pass 1, and what is no number must not reach the model.
        self._fifo.put(np.clip(np.nan_to_num(data.mean(axis=1)), -1, 1))


class CardOutput:
    """A speaker. See `infer.live.sinks.OutputDevice`."""

    def __init__(self, name: str, sample_rate: int, channels: int) -> None:
        self.name, self.sample_rate, self.channels = name, sample_rate, channels
        self.underruns = 0
        self._fifo = Fifo(round(_QUEUE_SECONDS * sample_rate))
        self._playing = self._ending = False

    def write(self, wave: Wave) -> None:
        """Appends samples (samples,)."""
        self._fifo.put(wave)

    def queued(self) -> int:
        """Samples that PortAudio has not asked for yet."""
        return len(self._fifo)

    def ending(self) -> None:
        """To run dry is no fault from here on."""
        self._ending = True

    def on_demand(self, data: NDArray[np.float32], frames: int, time: Any, status: Any) -> None:
        """PortAudio's callback: fills (frames, channels)."""
        wave = self._fifo.take(frames)
        data[: wave.size] = wave[:, None]
        data[wave.size :] = 0
        dry = wave.size < frames
        if dry and self._playing and not self._ending:
            self.underruns += 1
        # One pause counts once, however long it is; before the first sample there is none.
        self._playing = not dry and (self._playing or wave.size > 0)


@contextlib.contextmanager
def open_microphone(device: str, sample_rate: int) -> Iterator[CardInput]:
    """A microphone, at this rate in Hz if the card has it and else at its own.

    Args:
        device: its number, its name or a part of that, or "default".
        sample_rate: the rate wished for.

    Raises:
        SottoError: sounddevice, PortAudio or the device is missing, or the card refuses.
    """
    sounddevice = _sounddevice()
    with _naming(sounddevice, device, "in"):
        found, rate, channels = _settings(sounddevice, device, "input", sample_rate)
        card = CardInput(found["name"], rate, channels)
        stream = sounddevice.InputStream(
            device=found["index"],
            samplerate=rate,
            channels=channels,
            dtype="float32",
            latency="low",
            callback=card.on_samples,
        )
        stream.start()
    with stream:
        yield card


@contextlib.contextmanager
def open_speaker(device: str, sample_rate: int) -> Iterator[CardOutput]:
    """A speaker; arguments and errors are those of `open_microphone`."""
    sounddevice = _sounddevice()
    with _naming(sounddevice, device, "out"):
        found, rate, channels = _settings(sounddevice, device, "output", sample_rate)
        card = CardOutput(found["name"], rate, channels)
        stream = sounddevice.OutputStream(
            device=found["index"],
            samplerate=rate,
            channels=channels,
            dtype="float32",
            latency="low",
            callback=card.on_demand,
        )
        stream.start()
    with stream:
        yield card


def _settings(
    sounddevice: ModuleType, device: str, kind: str, sample_rate: int
) -> tuple[dict[str, Any], int, int]:
    """The device, a rate and a number of channels that it takes."""
    named = None if device == DEFAULT else int(device) if device.isdecimal() else device
    found = sounddevice.query_devices(named, kind)
    most = int(found[f"max_{kind}_channels"])
    own = round(found["default_samplerate"])
    check = getattr(sounddevice, f"check_{kind}_settings")
    tried = [
        (rate, channels)
        for rate in (sample_rate, own)
        for channels in (1, min(most, _MOST_CHANNELS))
    ]
    for rate, channels in tried:
        with contextlib.suppress(sounddevice.PortAudioError):
            check(device=found["index"], channels=channels, dtype="float32", samplerate=rate)
            return found, rate, channels
    raise SottoError(f"{found['name']} takes neither {sample_rate} nor {own} Hz")


@contextlib.contextmanager
def _naming(sounddevice: ModuleType, device: str, direction: str) -> Iterator[None]:
    try:
        yield
    except (sounddevice.PortAudioError, ValueError) as error:
        reason = str(error).splitlines()[0]
        which = f"the default device for sound {direction}"
        if device != DEFAULT:
            which = f"the device {device!r} for sound {direction}"
        raise SottoError(
            f"{which} cannot be used ({reason}): --list-devices shows what there is"
        ) from error


def _sounddevice() -> ModuleType:
    with needing("live"):
        try:
            import sounddevice
        except OSError as error:  # the module is there and the library is not
            raise SottoError(
                f"PortAudio cannot be loaded ({error}): install it, on Debian and Ubuntu with: "
                "sudo apt install libportaudio2"
            ) from error
    module: ModuleType = sounddevice
    return module
