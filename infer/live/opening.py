"""Sources and sinks as a command names them: opened, or refused before any work."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codec.errors import SottoError
from infer.live.devices import DEFAULT, open_microphone, open_speaker
from infer.live.ends import Sink, Source
from infer.live.models import LiveCodec
from infer.live.pcm import Pcm
from infer.live.sinks import Speaker, open_file
from infer.live.sources import Amplified, FileSource, Microphone, Paced, standard_input
from infer.options import Ending
from infer.planning import PIPE, check_target


@dataclass(frozen=True)
class Ends:
    """Where speech comes from and goes to, as a command was told.

    Attributes:
        source: a file or `-`; none: the microphone.
        target: a file or `-`; none: the speaker.
        mic: which one; none: the default.
        speaker: which one; none: the default.
        raw: rate in Hz of raw samples in pipes; none: WAV.
        gain_db: of what is read.
        latency: seconds that the speaker is kept ahead by.
        paced: whether files are read at the pace of speech.
        force: whether a file that is there is replaced.
    """

    source: Path | None
    target: Path | None
    mic: str | None
    speaker: str | None
    raw: int | None
    gain_db: float
    latency: float
    paced: bool
    force: bool

    @contextlib.contextmanager
    def open_source(self, codec: LiveCodec) -> Iterator[Source]:
        """The source, at the model's rate."""
        rate = codec.sample_rate
        with contextlib.ExitStack() as stack:
            source: Source
            if self.source is None:
                card = stack.enter_context(open_microphone(self.mic or DEFAULT, rate))
                source = Microphone(card, rate)
            elif self.source == PIPE:
                source = standard_input(rate, None if self.raw is None else Pcm(self.raw))
            else:
                source = FileSource(self.source, rate, codec.hop_length)
            if self.paced and self.source not in (None, PIPE):
                source = Paced(source, rate)
            yield Amplified(source, self.gain_db) if self.gain_db else source

    @contextlib.contextmanager
    def open_sink(self, codec: LiveCodec) -> Iterator[Sink]:
        """The sink, at the model's rate."""
        with contextlib.ExitStack() as stack:
            if self.target is None:
                card = stack.enter_context(open_speaker(self.speaker or DEFAULT, codec.sample_rate))
                yield Speaker(card, codec.sample_rate)
            else:
                yield stack.enter_context(open_file(self.target, codec.sample_rate, self.raw))

    def check(self) -> None:
        """Refuses, before a model is loaded, files that cannot be read or written.

        Raises:
            SottoError: saying why.
        """
        if self.source not in (None, PIPE) and not self.source.exists():
            raise SottoError(f"{self.source} is not there")
        if self.target in (None, PIPE):
            return
        check_target(self.target, force=self.force)
        there = self.source not in (None, PIPE) and self.target.exists()
        if self.source is not None and there and self.target.samefile(self.source):
            raise SottoError(f"{self.target} is the input: give the output another name")
        endings = [f".{one.value}" for one in Ending]
        if self.target.suffix.lower() not in endings:
            raise SottoError(
                f"{self.target} has the wrong ending: this command writes {' '.join(endings)} files"
            )
