"""From what the model gives to an audio file: its stretch, and its rate, length, level, channels.

As it is decoded, audio has the model's rate and level, and the length that the source had at that
rate. Restored, it has the rate, the number of samples, the loudness and the channels of the source.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from codec.errors import BitstreamError
from codec.resampling import resample_stream
from infer.header import Header
from infer.intake import MAX_RATE, coded_length

Samples = NDArray[np.float32]


class Outlet:
    """The audio that is wanted of a `.sc` file.

    Attributes:
        sample_rate: of the audio, Hz.
        channels: of the audio.
        first_frame: where to begin to decode.
        frames: how many to decode; none: all that follow.

    Args:
        header: gives the file's header as far as it is known by now: read from a pipe, its end
            comes last.
        sample_rate: the model's, Hz.
        hop_length: the model's.
        restore: make it what the source was.
        start: seconds of the audio to leave out.
        stop: where to end, in seconds of the audio; none: at its end.
        window: frames that are decoded together, counted from the first. Around the stretch one
            more is decoded on both sides: then it is, to the bit, that stretch of the whole, but
            for the phase of a voice, which is a sum over all that comes before.

    Raises:
        BitstreamError: the audio ends before `start`.
    """

    def __init__(
        self,
        header: Callable[[], Header],
        *,
        sample_rate: int,
        hop_length: int,
        restore: bool,
        start: float,
        stop: float | None,
        window: int,
    ) -> None:
        self._header, self._restore = header, restore
        self._model_rate, self._hop = sample_rate, hop_length
        known = header()
        self.sample_rate, self.channels = sample_rate, known.channels
        if restore:
            self.sample_rate = known.source_rate or sample_rate
            if self.sample_rate > MAX_RATE:
                raise BitstreamError(
                    f"a source of {self.sample_rate:,} Hz cannot be restored: {MAX_RATE:,} can"
                )
            if known.channels == 1:
                self.channels = known.source_channels or 1
        total = self._model_samples()
        self._begin = round(start * sample_rate)
        self._end = None if stop is None else round(stop * sample_rate)
        if self._begin and total is not None and self._begin >= total:
            raise BitstreamError(
                f"there is nothing from {start:g} s on: it ends at {total / sample_rate:.2f} s"
            )
        self.first_frame = max(0, self._begin // (hop_length * window) - 1) * window
        self.frames: int | None = None
        if self._end is not None:
            last_window = -(-self._end // (hop_length * window))
            self.frames = (last_window + 1) * window - self.first_frame

    @property
    def samples(self) -> int | None:
        """Samples a channel of the audio, if they are known before it is decoded."""
        total = self._model_samples()
        if total is None:
            return None
        end = total if self._end is None else min(total, self._end)
        return self._length(end)

    def shaped(self, waves: Iterator[Samples]) -> Iterator[Samples]:
        """The audio wanted: float32 (channels, n).

        Args:
            waves: float32 (coded channels, n) from frame `first_frame` on.
        """
        pieces = self._stretch(waves)
        reached = self._begin

        def model_length(samples: int) -> int:
            nonlocal reached
            total = self._model_samples()
            reached += samples if total is None else max(0, min(samples, total - self._begin))
            return reached - self._begin

        pieces = _fitted(pieces, self._hop, model_length)
        if not self._restore:
            yield from pieces
            return
        if self.sample_rate != self._model_rate:
            pieces = resample_stream(pieces, self._model_rate, self.sample_rate)
        pieces = _fitted(pieces, self._hold, lambda _: self._length(reached))
        gain = np.float32(10 ** (-self._header().gain_db / 20))
        for piece in pieces:
            yield np.repeat(piece * gain, self.channels // piece.shape[0], axis=0)

    def _stretch(self, waves: Iterator[Samples]) -> Iterator[Samples]:
        """Cuts off what lies before and behind; all of it after the last frame is decoded."""
        position = self.first_frame * self._hop
        for wave in waves:
            first = max(0, self._begin - position)
            last = None if self._end is None else max(0, self._end - position)
            position += wave.shape[1]
            if first < wave.shape[1]:
                yield wave[:, first:last]

    def _model_samples(self) -> int | None:
        """Samples of all the audio at the model's rate, if known; a last frame may be part full."""
        header = self._header()
        if header.frames is None:
            return None
        coded = header.frames * self._hop
        if header.source_samples is None or header.source_rate is None:
            return coded
        length = coded_length(header.source_samples, header.source_rate, self._model_rate)
        return min(coded, length)

    def _length(self, end: int) -> int:
        """Samples at the audio's rate, to a sample at the model's."""
        return self._out_position(end) - self._out_position(self._begin)

    def _out_position(self, sample: int) -> int:
        """The sample of the audio that a sample at the model's rate becomes."""
        if self.sample_rate == self._model_rate:
            return sample
        position = round(sample * self.sample_rate / self._model_rate)
        exact = self._header().source_samples
        # A header that does not fit its codes is not believed.
        fits = exact is not None and abs(exact - position) < self._hold
        if exact is not None and fits and sample == self._model_samples():
            return exact
        return position

    @property
    def _hold(self) -> int:
        """Samples at the audio's rate that more than cover a rounded one at the model's."""
        return self.sample_rate // self._model_rate + 2


def _fitted(
    pieces: Iterator[Samples], hold: int, length: Callable[[int], int]
) -> Iterator[Samples]:
    """Pieces whose sum is as long as `length` says, given how long they are, after the last.

    At most `hold` samples are cut off; what is missing is zeros.
    """
    held: Samples | None = None
    total = 0
    for piece in pieces:
        total += piece.shape[1]
        held = piece if held is None else np.concatenate((held, piece), axis=1)
        if held.shape[1] > hold:
            yield held[:, :-hold]
            held = held[:, -hold:]
    if held is None:
        return
    missing = length(total) - total
    if missing < 0:
        yield held[:, :missing]
    else:
        yield np.pad(held, ((0, 0), (0, missing)))
