"""Live commands as they run: ends are opened, shown while they work, and closed whole."""

import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from infer.live.display import Display, Row, clock_time, level_row, load_row
from infer.live.ends import Sink, Source
from infer.live.jitter import JitterBuffer
from infer.live.link import Receiving, Sending, listening, sending_to
from infer.live.models import Decoder, Encoder, LiveCodec, codebooks, load_live
from infer.live.opening import Ends
from infer.live.packets import UDP_BYTES, Packetizer
from infer.live.pump import Between, Following, Pump
from infer.live.sinks import Clocked, FileSink
from infer.live.stopping import Stop
from infer.reporting import count, duration


def run_stream(ends: Ends, model: Path | None, kbps: float | None) -> None:
    """Hears a source through the codec.

    Raises:
        SottoError: an end cannot be opened, or the model not used.
    """
    ends.check()
    codec = load_live(model)
    n_quantizers = codebooks(codec, kbps)
    encoder, decoder = Encoder(codec, n_quantizers), Decoder(codec)
    rate = _rate(codec, n_quantizers)
    # Stop is outermost: it raises only when what was written is whole.
    with Stop() as stop, ends.open_sink(codec) as sink, ends.open_source(codec) as source:
        pump = Pump(source, encoder, codec.sample_rate)
        display = Display(lambda: _stream_rows(pump, taker, rate, _faults(ends, source, sink)))
        taker: Between | Following
        if ends.source is None and ends.target is None:
            taker = Between(decoder, sink, latency=ends.latency)
        else:
            taker = Following(decoder, sink, latency=ends.latency, stop=stop, tick=display.tick)
        began = time.perf_counter()
        display.say(f"{source.name} to {sink.name} at {rate}; Ctrl-C ends it")
        with display:
            pump.run(taker, stop, display.tick)
        elapsed = duration(time.perf_counter() - began)
        parts = [f"{duration(pump.seconds)} in {elapsed}", f"load {pump.load.mean:.0%}"]
        parts += [f"{text} {name}" for name, text in _faults(ends, source, sink)]
        if isinstance(taker, Between):
            parts.append(f"{taker.filled_in} frames filled in, {taker.left_out} left out")
        display.say(", ".join(parts))


def _stream_rows(
    pump: Pump, taker: Between | Following, rate: str, faults: Sequence[Row]
) -> Sequence[Row]:
    rows = [
        ("time", clock_time(pump.seconds)),
        ("rate", rate),
        level_row("in", pump.level),
        level_row("out", taker.level),
        load_row(pump.load),
        *faults,
    ]
    if isinstance(taker, Between):
        rows.append(("frames", f"{taker.filled_in} filled in, {taker.left_out} left out"))
    return rows


def _faults(ends: Ends, source: Source, sink: Sink) -> list[Row]:
    """How often sound cards, where there are any, lost samples or ran dry."""
    rows = [("overruns", str(source.overruns))] if ends.source is None else []
    return rows + ([("underruns", str(sink.underruns))] if ends.target is None else [])


def _rate(codec: LiveCodec, n_quantizers: int) -> str:
    return f"{codec.kbps(n_quantizers):g} kbps, {count(n_quantizers, 'codebook')}"


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
    encoder = Encoder(codec, n_quantizers)
    rate = _rate(codec, n_quantizers)
    with Stop() as stop, sending_to(host, port) as put, ends.open_source(codec) as source:
        taker = Sending(packetizer, put, f"{host}, port {port}")
        pump = Pump(source, encoder, codec.sample_rate)
        display = Display(lambda: _sent_rows(pump, taker, rate))
        display.say(f"{source.name} to {host}, port {port}, at {rate}; Ctrl-C ends it")
        with display:
            pump.run(taker, stop, display.tick)
        display.say(
            f"{duration(pump.seconds)} in {count(packetizer.packets, 'packet')}, "
            f"{_wire_kbps(pump, packetizer):.1f} kbps on the wire, {taker.unsent} not sent, "
            f"load {pump.load.mean:.0%}, {count(source.overruns, 'overrun')}"
        )


def _sent_rows(pump: Pump, taker: Sending, rate: str) -> Sequence[Row]:
    packetizer = taker.packetizer
    return [
        ("time", clock_time(pump.seconds)),
        ("rate", f"{rate}, {_wire_kbps(pump, packetizer):.1f} kbps on the wire"),
        level_row("in", pump.level),
        load_row(pump.load),
        ("packets", f"{packetizer.packets:,}, {taker.unsent} not sent"),
        ("overruns", str(pump.source.overruns)),
    ]


def _wire_kbps(pump: Pump, packetizer: Packetizer) -> float:
    """The rate so far with all heads, those of UDP and IPv4 included."""
    bits = 8 * (packetizer.bytes + UDP_BYTES * packetizer.packets)
    return bits / 1000 / pump.seconds if pump.seconds else 0.0


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
        for line in _received_summary(receiving, jitter, decoder.frame_seconds, sink):
            display.say(line)


def _received_rows(
    receiving: Receiving, jitter: JitterBuffer, codec: LiveCodec, sink: Sink
) -> Sequence[Row]:
    n_quantizers = receiving.n_quantizers
    rate = _rate(codec, n_quantizers) if n_quantizers else "none yet"
    delay = f"{1000 * receiving.delay:.0f} ms, {1000 * receiving.wanted:.0f} ms wanted"
    return [
        ("time", clock_time(receiving.frames * codec.hop_length / codec.sample_rate)),
        ("rate", rate),
        level_row("out", receiving.level),
        load_row(receiving.load),
        ("packets", _packets(jitter, receiving)),
        ("frames", _frames(jitter, codec.hop_length / codec.sample_rate)),
        ("delay", delay),
        ("underruns", f"{sink.underruns}"),
    ]


def _received_summary(
    receiving: Receiving, jitter: JitterBuffer, frame_seconds: float, sink: Sink
) -> list[str]:
    """What came, in a few lines for the end."""
    counts = jitter.counts
    return [
        f"packets: {_packets(jitter, receiving)}",
        f"{duration(receiving.frames * frame_seconds)} of sound: {_frames(jitter, frame_seconds)}",
        f"mean delay {1000 * receiving.delay:.0f} ms, load {receiving.load.mean:.0%}, "
        f"{count(counts.streams, 'stream')}, {count(counts.pauses, 'pause')}, "
        f"{count(counts.resyncs, 'jump')}, {count(sink.underruns, 'underrun')}",
    ]


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
