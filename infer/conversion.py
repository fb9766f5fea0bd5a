"""What became of one file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Conversion:
    """What became of one file.

    Attributes:
        seconds: of audio, read or written.
        frames: coded, of each channel.
        n_quantizers: codebooks used per frame.
        source_bytes: size of the file read; 0 for a pipe.
        target_bytes: size of the file written.
        elapsed: seconds that reading, coding and writing took.
        kbps: rate of the codes of all channels at the fixed rate; 0 where it is not known.
        channels: coded one by one.
        gain_db: that the level was changed by before encoding.
        warnings: what the user should know, a line each.
    """

    seconds: float
    frames: int
    n_quantizers: int
    source_bytes: int
    target_bytes: int
    elapsed: float
    kbps: float = 0.0
    channels: int = 1
    gain_db: float = 0.0
    warnings: tuple[str, ...] = ()

    @property
    def speed(self) -> float:
        """Seconds of audio per second of work: the real-time factor, above 1 if faster than it."""
        return self.seconds / max(self.elapsed, 1e-9)
