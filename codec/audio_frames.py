"""FFmpeg's decoded frames as NumPy samples."""

import av
import numpy as np
from av.audio.frame import AudioFrame

from codec.resampling import Samples

_SCALES = {"u8": 128.0, "s16": 32768.0, "s32": 2.0**31, "s64": 2.0**63}
_PLANES = 8  # PyAV 18 crashes on reading a frame of that many planes


def frame_samples(frame: AudioFrame) -> Samples:
    """A frame as float32 (channels, samples): integers in [-1, 1), floats as they are."""
    channels = frame.layout.nb_channels
    kind = frame.format.name.removesuffix("p")
    if frame.format.is_planar and channels >= _PLANES:
        (frame,) = av.AudioResampler(kind, frame.layout, frame.sample_rate).resample(frame)
    native = frame.to_ndarray()
    if not frame.format.is_planar:
        native = native.reshape(-1, channels).T
    samples = np.ascontiguousarray(native, np.float32)
    if kind == "u8":
        samples -= np.float32(_SCALES[kind])
    if kind in _SCALES:  # a power of two: float32 is as exact as it gets
        samples *= np.float32(1 / _SCALES[kind])
    return samples
