"""Packets over 127.0.0.1, with a relay between that loses, copies and delays; always bounded."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from codec.errors import SottoError
from infer.live.jitter import JitterBuffer
from infer.live.link import Receiving, Sending, listening, sending_to
from infer.live.models import Decoder, Encoder
from infer.live.packets import Packet, Packetizer
from infer.live.pump import Pump
from infer.live.sinks import Clocked, FileSink, Speaker
from infer.live.sources import Paced
from tests.support.live import Clock, PretendedCodec, SimulatedSpeaker

CODEC = PretendedCodec()
RATE, HOP, T = 8000, 160, 0.02
HERE = "127.0.0.1"


def packetizer(**changed: object) -> Packetizer:
    options = {"stream": 7, "fingerprint": CODEC.fingerprint, "bits": 6, "n_quantizers": 4}
    return Packetizer(**(options | changed))  # type: ignore[arg-type]


def steps(frames: int) -> np.ndarray:
    """Frames that say which they are, for the pretended codec: never 0, of silence."""
    return (np.repeat(np.arange(frames) % 31 + 1, HOP) / 32).astype(np.float32)


class Listed:
    name, overruns = "a list", 0

    def __init__(self, wave: np.ndarray) -> None:
        self._pieces = list(wave.reshape(-1, HOP))

    def read(self) -> np.ndarray | None:
        return self._pieces.pop(0) if self._pieces else None


def receiving(
    sink: FileSink | Clocked | Speaker, buffer: JitterBuffer, lookahead: int = 0, **options: object
) -> Receiving:
    decoder = Decoder(PretendedCodec(lookahead))
    return Receiving(buffer, CODEC, decoder, sink, **options)  # type: ignore[arg-type]


@contextmanager
def relay(to: int, fate: Callable[[int], list[float]]) -> Iterator[int]:
    """A port whose n-th packet goes on to `to` after each of the delays that `fate(n)` names."""
    stopped = threading.Event()

    def carry(link: socket.socket) -> None:
        waiting: list[tuple[float, bytes]] = []
        number = 0
        while not stopped.is_set():
            try:
                data = link.recv(2048)
                waiting += [(time.monotonic() + delay, data) for delay in fate(number)]
                number += 1
            except TimeoutError:
                pass
            for one in sorted(waiting):
                if one[0] <= time.monotonic():
                    link.sendto(one[1], (HERE, to))
                    waiting.remove(one)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind((HERE, 0))
        link.settimeout(0.002)
        thread = threading.Thread(target=carry, args=(link,), daemon=True)
        thread.start()
        try:
            yield link.getsockname()[1]
        finally:
            stopped.set()
            thread.join(5)


def send_all(port: int, wave: np.ndarray, **options: object) -> Sending:
    with sending_to(HERE, port) as put:
        taker = Sending(packetizer(**options), put, HERE)
        pump = Pump(Paced(Listed(wave), RATE), Encoder(CODEC, 4), RATE)
        deadline = time.monotonic() + 20
        pump.run(taker, lambda: time.monotonic() > deadline, lambda: None)
    return taker


@contextmanager
def received(
    buffer: JitterBuffer, lookahead: int = 0
) -> Iterator[tuple[int, Receiving, list[np.ndarray]]]:
    """A receiver that runs in a thread, ended by the end of a stream or by 3 s of quiet."""
    out: list[np.ndarray] = []
    with listening(HERE, 0) as link:
        sink = Clocked(FileSink("x", out.append), RATE)
        taker = receiving(sink, buffer, lookahead, latency=0.0)
        deadline = time.monotonic() + 30
        thread = threading.Thread(
            target=taker.run,
            args=(link,),
            kwargs={
                "stop": lambda: time.monotonic() > deadline,
                "tick": lambda: None,
                "once": True,
                "idle": 3.0,
            },
            daemon=True,
        )
        thread.start()
        yield link.getsockname()[1], taker, out
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize("lookahead", [0, 2])
def test_speech_goes_over_the_loopback_whole(lookahead: int) -> None:
    # Patient with a machine that does other things, too: nothing may be late.
    buffer = JitterBuffer(T, shortest=0.8, longest=2.0)
    wave = steps(60)
    with received(buffer, lookahead) as (port, taker, out):
        sent = send_all(port, wave, frames=2)
    assert (sent.unsent, sent.packetizer.packets) == (0, 33)
    heard = np.concatenate(out).reshape(-1, HOP)[:, 0]
    kept = [value for value, before in zip(heard, [0, *heard[:-1]], strict=True) if value != before]
    np.testing.assert_allclose(kept, wave.reshape(-1, HOP)[:, 0], atol=1e-6)
    assert buffer.counts.lost == buffer.counts.late == 0
    assert taker.n_quantizers == 4
    assert taker.bytes >= 30 * 26
    assert not taker.refused


def test_a_link_that_loses_copies_and_delays_is_survived() -> None:
    def fate(number: int) -> list[float]:
        if number % 7 == 3:
            return []
        if number % 11 == 5:
            return [0.0, 0.03]
        return [0.05] if number % 5 == 2 else [0.0]  # overtaken by the two behind it

    frames = 70
    sent = range(frames + 3)  # with those that tell the end
    lost = {n for n in sent if not fate(n)}
    copied = {n for n in sent if len(fate(n)) == 2}
    buffer = JitterBuffer(T, shortest=0.8, longest=2.0)
    with received(buffer) as (port, _, out), relay(port, fate) as entrance:
        send_all(entrance, steps(frames))
        time.sleep(1.1)  # the relay carries what it holds, the receiver plays it
    counts = buffer.counts
    assert counts.lost == len(lost)
    assert counts.duplicates == len(copied)
    assert counts.reordered > 0
    assert counts.packets >= frames - len(lost)
    assert counts.played + counts.late >= frames - len(lost)
    assert counts.concealed >= len(lost)
    assert sum(wave.size for wave in out) >= frames * HOP


def test_foreign_packets_are_counted_and_do_no_harm() -> None:
    clock = Clock()
    out: list[np.ndarray] = []
    sink = Clocked(FileSink("x", out.append), RATE, clock)
    taker = receiving(sink, JitterBuffer(T), latency=0.0, clock=clock)
    codes = np.ones((4, 1), np.uint16)
    right = Packet(1, 0, 0, 6, CODEC.fingerprint, codes).to_bytes()
    other = Packet(1, 0, 0, 6, "f" * 32, codes).to_bytes()
    for data in (b"", b"hello", right[:-1] + b"?", other, other, b"\0" * 5000):
        taker.take(data)
    assert taker.refused == {"foreign": 3, "damaged": 1, "of another model": 2}
    assert taker.bytes == 0
    clock.sleep(1.0)
    assert taker.quiet == pytest.approx(1.0)
    taker.take(right)
    assert taker.quiet == 0


@pytest.mark.parametrize("lookahead", [0, 1, 3])
def test_a_speaker_is_kept_going_before_between_and_after_streams(lookahead: int) -> None:
    clock = Clock()
    card = SimulatedSpeaker(clock)
    speaker = Speaker(card, RATE, clock=clock, sleep=clock.sleep)
    decoder = Decoder(PretendedCodec(lookahead))
    assert decoder.late == pytest.approx(lookahead * T)
    taker = Receiving(JitterBuffer(T), CODEC, decoder, speaker, latency=0.06, clock=clock)
    ends = 0
    for stream in (1, 2):
        made = packetizer(stream=stream)
        packets = [p for i in range(50) for p in made.put(np.full((4, 1), 40 + i % 8))]
        packets += made.finish()
        for step in range(200):
            clock.sleep(0.01)
            if step >= 50 and step % 2 == 0 and packets:
                taker.take(packets.pop(0))
            ends += taker.play()
    assert ends == 2
    assert card.underruns == 0
    assert decoder._stream.signals == 2  # type: ignore[attr-defined]
    played = np.concatenate(card.played)
    assert np.count_nonzero(played) == 2 * 50 * HOP
    assert 0.06 <= speaker.ahead() < 0.09
    assert taker.delay == pytest.approx(taker._jitter.counts.mean_delay + lookahead * T)
    assert taker.wanted >= lookahead * T + 0.04


@pytest.mark.parametrize("lookahead", [0, 1, 3])
def test_another_sender_cuts_nothing_off_that_was_decoded(lookahead: int) -> None:
    clock = Clock()
    out: list[np.ndarray] = []
    sink = Clocked(FileSink("x", out.append), RATE, clock)
    taker = receiving(sink, JitterBuffer(T), lookahead, latency=0.0, clock=clock)
    for stream in (1, 2):
        made = packetizer(stream=stream)
        for _ in range(30):
            for packet in made.put(np.full((4, 1), 40 + stream)):
                taker.take(packet)
            taker.play()
            clock.sleep(T)
    with listening(HERE, 0) as link:  # it is stopped in the middle of the second
        taker.run(link, stop=lambda: True, tick=lambda: None)
    assert sum(wave.size for wave in out) == taker.frames * HOP
    heard = np.concatenate(out).reshape(-1, HOP)[:, 0]
    assert set(heard) == {np.float32((8 + stream) / 32) for stream in (1, 2)}


def test_a_card_that_swallows_everything_does_not_hold_the_loop() -> None:
    class Bottomless:
        name, underruns = "x", 0

        def rest(self, samples: int) -> None: ...
        def ahead(self) -> float:
            return 0.0

    taker = receiving(Bottomless(), JitterBuffer(T), latency=0.06)  # type: ignore[arg-type]
    assert taker.play() is False


def test_a_receiver_ends_when_nothing_comes() -> None:
    with listening(HERE, 0) as link:
        taker = receiving(FileSink("x", print), JitterBuffer(T), latency=0.0)  # type: ignore[arg-type]
        began = time.monotonic()
        taker.run(link, stop=lambda: False, tick=lambda: None, idle=0.1)
        assert 0.1 <= time.monotonic() - began < 10


def test_a_network_that_is_down_is_waited_for_but_one_that_never_was_is_not() -> None:
    def refuse(packet: bytes) -> None:
        raise OSError(101, "Network is unreachable")

    codes = np.zeros(4, np.int64)
    taker = Sending(packetizer(), refuse, "there, port 1")
    for _ in range(49):
        taker.put(codes)
    assert taker.unsent == 49
    with pytest.raises(SottoError, match="sent to there, port 1: Network is unreachable"):
        taker.put(codes)
    sent: list[bytes] = []
    taker = Sending(packetizer(), sent.append, "there")
    taker.put(codes)
    taker._send = refuse
    for _ in range(100):
        taker.put(codes)
    assert (len(sent), taker.unsent) == (1, 100)


def test_hosts_and_ports_that_cannot_be_are_named() -> None:
    with (
        pytest.raises(SottoError, match=r"no\.such\.host\.invalid cannot be found"),
        sending_to("no.such.host.invalid", 5004),
    ):
        pass
    with listening(HERE, 0) as link:
        port = link.getsockname()[1]
        with pytest.raises(SottoError, match=f"port {port}: .*in use"), listening(HERE, port):
            pass
    with pytest.raises(SottoError, match=r"192\.0\.2\.1, port"), listening("192.0.2.1", 0):
        pass
