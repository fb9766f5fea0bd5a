"""Live commands as they run: ends are opened, shown while they work, and closed whole."""

import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from codec.errors import SottoError
from infer.live.devices import DEFAULT, open_microphone, open_speaker
from infer.live.display import Display, Row, clock_time, level_row, load_row
from infer.live.ends import Sink, Source
from infer.live.jitter import JitterBuffer
from infer.live.link import Receiving, Sending, listening, sending_to
from infer.live.models import Decoder, Encoder, LiveCodec, codebooks, load_live
from infer.live.packets import UDP_BYTES, Packetizer
from infer.live.pcm import Pcm
from infer.live.pump import Between, Following, Pump
from infer.live.sinks import Clocked, FileSink, Speaker, open_file
from infer.live.sources import Amplified, FileSource, Microphone, Paced, standard_input
from infer.live.stopping import Stop
from infer.options import Ending
from infer.planning import PIPE, check_target
from infer.reporting import count, duration


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
        if self.source is not None and self.target.exists() and self.source.exists():
            if self.target.samefile(self.source):
                raise SottoError(f"{self.target} is the input: give the output another name")
        endings = [f".{one.value}" for one in Ending]
        if self.target.suffix.lower() not in endings:
            raise SottoError(
                f"{self.target} has the wrong ending: this command writes {' '.join(endings)} files"
            )


def run_stream(ends: Ends, model: Path | None, kbps: float | None) -> None:
    """Hears a source through the codec.

    Raises:
        SottoError: an end cannot be opened, or the model not used.
    """
    ends.check()
    codec = load_live(model)
    n_quantizers = codebooks(codec, kbps)
    encoder, decoder = Encoder(codec, n_quantizers), Decoder(codec)
    # Stop is outermost: it raises only when what was written is whole.
    with Stop() as stop, ends.open_sink(codec) as sink, ends.open_source(codec) as source:
        pump = Pump(source, encoder, codec.sample_rate)
        rate = f"{codec.kbps(n_quantizers):g} kbps, {count(n_quantizers, 'codebook')}"

        def rows() -> Sequence[Row]:
            found = [
                ("time", clock_time(pump.frames * decoder.frame_seconds)),
                ("rate", rate),
                level_row("in", pump.level),
                level_row("out", taker.level),
                load_row(pump.load),
            ]
            if ends.source is None:
                found.append(("overruns", f"{source.overruns}"))
            if ends.target is None:
                ahead = f"{1000 * sink.ahead():.0f} ms ahead"
                found.append(("underruns", f"{sink.underruns}, {ahead}"))
            if isinstance(taker, Between):
                found.append(("frames", f"{taker.filled_in} filled in, {taker.left_out} left out"))
            return found

        display = Display(rows)
        taker: Between | Following
        if ends.source is None and ends.target is None:
            taker = Between(decoder, sink, latency=ends.latency)
        else:
            taker = Following(decoder, sink, latency=ends.latency, stop=stop, tick=display.tick)
        began = time.perf_counter()
        display.say(f"{source.name} to {sink.name} at {rate}; Ctrl-C ends it")
        with display:
            pump.run(taker, stop, display.tick)
        elapsed = time.perf_counter() - began
        seconds = pump.frames * decoder.frame_seconds
        line = f"{duration(seconds)} in {duration(elapsed)}, load {pump.load.mean:.0%}"
        if ends.source is None:
            line += f", {count(source.overruns, 'overrun')}"
        if ends.target is None:
            line += f", {count(sink.underruns, 'underrun')}"
        if isinstance(taker, Between):
            line += f", {taker.filled_in} frames filled in, {taker.left_out} left out"
        display.say(line)


def run_send(
    ends: Ends,
    model: Path | None,
    kbps: float | None,
    *,
    host: str,
    port: int,
    frames: int,
    redundancy: int,
) -> None:
    """Sends a source.

    Raises:
        SottoError: it cannot be opened, there is no such host, or the model cannot be used.
    """
    ends.check()
    codec = load_live(model)
    n_quantizers = codebooks(codec, kbps)
    packetizer = Packetizer(
        stream=secrets.randbits(32),
        fingerprint=codec.fingerprint,
        bits=codec.bits_per_code,
        n_quantizers=n_quantizers,
        frames=frames,
        redundancy=redundancy,
    )
    frame_seconds = codec.hop_length / codec.sample_rate
    encoder = Encoder(codec, n_quantizers)
    with Stop() as stop, sending_to(host, port) as put, ends.open_source(codec) as source:
        taker = Sending(packetizer, put, f"{host}, port {port}")
        pump = Pump(source, encoder, codec.sample_rate)
        rate = f"{codec.kbps(n_quantizers):g} kbps, {count(n_quantizers, 'codebook')}"

        def wire() -> float:
            seconds = max(pump.frames, 1) * frame_seconds
            return 8 * (packetizer.bytes + UDP_BYTES * packetizer.packets) / seconds / 1000

        def rows() -> Sequence[Row]:
            return [
                ("time", clock_time(pump.frames * frame_seconds)),
                ("rate", f"{rate}, {wire():.1f} kbps on the wire"),
                level_row("in", pump.level),
                load_row(pump.load),
                ("packets", f"{packetizer.packets:,}, {taker.unsent} not sent"),
                ("overruns", f"{source.overruns}"),
            ]

        display = Display(rows)
        display.say(f"{source.name} to {host}, port {port}, at {rate}; Ctrl-C ends it")
        with display:
            pump.run(taker, stop, display.tick)
        display.say(
            f"{duration(pump.frames * frame_seconds)} in {count(packetizer.packets, 'packet')}, "
            f"{wire():.1f} kbps on the wire, {taker.unsent} not sent, load {pump.load.mean:.0%}, "
            f"{count(source.overruns, 'overrun')}"
        )


def run_receive(
    ends: Ends,
    model: Path | None,
    *,
    bind: str,
    port: int,
    delays: tuple[float, float],
    once: bool,
    idle: float | None,
) -> None:
    """Plays what is sent here; `delays` are the shortest and longest, in seconds.

    Raises:
        SottoError: the sink or the port cannot be opened, or the model not used.
    """
    ends.check()
    codec = load_live(model)
    decoder = Decoder(codec)
    jitter = JitterBuffer(decoder.frame_seconds, shortest=delays[0], longest=delays[1])
    with Stop() as stop, listening(bind, port) as link, ends.open_sink(codec) as opened:
        sink: Sink = opened
        latency = ends.latency
        if isinstance(opened, FileSink):
            sink, latency = Clocked(opened, codec.sample_rate), 0.0
        receiving = Receiving(jitter, codec, decoder, sink, latency=latency)
        display = Display(lambda: _received_rows(receiving, jitter, codec, sink))
        display.say(f"{bind}, port {port}, to {sink.name}; Ctrl-C ends it")
        with display:
            receiving.run(
                link,
                stop=stop,
                tick=display.tick,
                once=once,
                idle=float("inf") if idle is None else idle,
            )
        for line in received_summary(receiving, jitter, decoder.frame_seconds, sink):
            display.say(line)


def _received_rows(
    receiving: Receiving, jitter: JitterBuffer, codec: LiveCodec, sink: Sink
) -> Sequence[Row]:
    counts = jitter.counts
    n_quantizers = receiving.n_quantizers
    rate = "none yet"
    if n_quantizers:
        rate = f"{codec.kbps(n_quantizers):g} kbps, {count(n_quantizers, 'codebook')}"
    delay = f"{1000 * counts.mean_delay:.0f} ms, {1000 * jitter.target:.0f} ms wanted"
    rows = [
        ("time", clock_time(receiving.frames * codec.hop_length / codec.sample_rate)),
        ("rate", rate),
        level_row("out", receiving.level),
        load_row(receiving.load),
        ("packets", _packets(jitter, receiving)),
        ("frames", _frames(jitter, codec.hop_length / codec.sample_rate)),
        ("delay", delay),
        ("underruns", f"{sink.underruns}"),
    ]
    return rows


def received_summary(
    receiving: Receiving, jitter: JitterBuffer, frame_seconds: float, sink: Sink
) -> list[str]:
    """What came, in a few lines for the end."""
    counts = jitter.counts
    lines = [
        f"packets: {_packets(jitter, receiving)}",
        f"{duration(receiving.frames * frame_seconds)} of sound: {_frames(jitter, frame_seconds)}",
        f"mean delay {1000 * counts.mean_delay:.0f} ms, load {receiving.load.mean:.0%}, "
        f"{count(counts.streams, 'stream')}, {count(counts.pauses, 'pause')}, "
        f"{count(counts.resyncs, 'jump')}, {count(sink.underruns, 'underrun')}",
    ]
    return lines


def _packets(jitter: JitterBuffer, receiving: Receiving) -> str:
    counts = jitter.counts
    share = counts.lost / max(1, counts.packets + counts.lost)
    text = (
        f"{counts.packets:,} came, {counts.lost:,} lost ({share:.1%}), {counts.late} late, "
        f"{counts.duplicates} twice, {counts.reordered} overtaken"
    )
    for reason, number in sorted(receiving.refused.items()):
        text += f", {number:,} refused ({reason})"
    return text


def _frames(jitter: JitterBuffer, frame_seconds: float) -> str:
    counts = jitter.counts
    filled = 1000 * counts.concealed * frame_seconds
    return (
        f"{filled:,.0f} ms concealed, {counts.recovered} recovered, "
        f"{counts.filled_in} filled in, {counts.left_out} left out for the delay"
    )
