"""Sounds, encoded as FFmpeg does it, and pipes to read them from."""

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 16000

FORMATS = {
    "wav-u8": ("wav", "pcm_u8", RATE, 1 / 127),
    "wav-16": ("wav", "pcm_s16le", RATE, 1e-4),
    "wav-24": ("wav", "pcm_s24le", 44100, 1e-6),
    "wav-32": ("wav", "pcm_s32le", 8000, 1e-6),
    "wav-float": ("wav", "pcm_f32le", 22050, 1e-6),
    "wav-double": ("wav", "pcm_f64le", 22050, 1e-6),
    "rf64": ("wav", "pcm_s16le", RATE, 1e-4),
    "wav-3-bytes-extensible": ("wav", "pcm_s24le", 96000, 1e-6),
    "aiff": ("aiff", "pcm_s16be", 11025, 1e-4),
    "flac": ("flac", "flac", 48000, 1e-4),
    "mp3": ("mp3", "libmp3lame", 44100, 0.1),
    "ogg-opus": ("ogg", "libopus", 48000, 0.1),
    "m4a": ("ipod", "aac", 48000, 0.1),
    "aac": ("adts", "aac", 22050, 0.1),
    "mka-opus": ("matroska", "libopus", 48000, 0.1),
}
EXACT = [name for name in FORMATS if name[:3] in ("wav", "rf6", "aif", "fla")]
PADDED = {"aac": 2048}  # nothing in the file tells how much of it is padding
OPTIONS = {"rf64": {"rf64": "always"}}


def tone(samples: int, rate: int, channels: int = 1) -> np.ndarray:
    time = np.arange(samples) / rate
    sweep = 200 + 150 * np.sin(2 * np.pi * 0.7 * time)
    return np.stack([0.3 * np.sin(2 * np.pi * (sweep + 40 * c) * time) for c in range(channels)])


class Pipe:
    """Nothing but read(), and of that at most so many bytes at a time."""

    def __init__(self, data: bytes, most: int = 5000) -> None:
        self.rest = io.BytesIO(data)
        self.most = most

    def read(self, size: int = -1) -> bytes:
        return self.rest.read(min(size, self.most) if size >= 0 else -1)


def assert_much_alike(found: np.ndarray, wave: np.ndarray) -> None:
    """Every channel in its place and at its time: a tenth of the energy is the most it is off."""
    middle = slice(4000, -4000)
    error = np.square(found - wave)[:, middle].sum(axis=1)
    assert (error < 0.1 * np.square(wave)[:, middle].sum(axis=1)).all()


def encode(path: Path, wave: np.ndarray, *form: str | int, options: dict | None = None) -> Path:
    container, codec, rate = form
    layout = {1: "mono", 2: "stereo"}[wave.shape[0]]
    with av.open(str(path), "w", format=container, container_options=options or {}) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        convert = av.AudioResampler(stream.codec_context.format, layout, rate)
        plane = np.ascontiguousarray(wave, np.float32)
        frame = av.AudioFrame.from_ndarray(plane, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for one in [*convert.resample(frame), *convert.resample(None)]:
            out.mux(stream.encode(one))
        out.mux(stream.encode(None))
    return path


def float_wav(path: Path, samples: np.ndarray) -> Path:
    data = samples.astype("<f4").tobytes()
    form = struct.pack("<IHHIIHH", 16, 3, 1, RATE, 4 * RATE, 4, 32)
    head = b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + form
    path.write_bytes(head + b"data" + struct.pack("<I", len(data)) + data)
    return path
