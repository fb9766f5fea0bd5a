"""Speech over UDP: what sends frames, and what plays those that come."""

import contextlib
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator

from codec.errors import SottoError
from infer.live.ends import Sink, Wave
from infer.live.jitter import JitterBuffer, Kind
from infer.live.meter import Level, Load
from infer.live.models import Decoder, LiveCodec
from infer.live.packets import MOST_BYTES, Packet, Packetizer, RefusedPacketError
from infer.live.pump import Codes

_POLL_SECONDS = 0.005
_AT_ONCE = 64  # packets that are read, and frames that are played, before the other's turn
_NEVER_SENT = 50  # packets after which a link that takes none is given up


class Sending:
    """Puts frames into packets and sends them. A `Taker`.

    Attributes:
        packetizer: counts packets and bytes.
        unsent: packets that the system did not take.
    """

    waited = 0.0

    def __init__(self, packetizer: Packetizer, send: Callable[[bytes], object], to: str) -> None:
        """`send` hands a packet to the system; `to` is named in errors."""
        self.packetizer = packetizer
        self.unsent = 0
        self._send, self._to = send, to

    def put(self, codes: Codes) -> None:
        """Sends the (n_quantizers,) codes of a frame, once a packet is full.

        Raises:
            SottoError: nothing can be sent there at all.
        """
        self._send_all(self.packetizer.put(codes[:, None]))

    def finish(self) -> None:
        """Sends the rest, and that it is the end."""
        self._send_all(self.packetizer.finish())

    def _send_all(self, packets: Iterator[bytes]) -> None:
        for packet in packets:
            try:
                self._send(packet)
            except OSError as error:  # a network that is down comes back
                self.unsent += 1
                if self.unsent == self.packetizer.packets >= _NEVER_SENT:
                    reason = error.strerror or error
                    raise SottoError(f"nothing can be sent to {self._to}: {reason}") from error


class Receiving:
    """Plays what comes out of a jitter buffer, at the pace of a sink.

    Attributes:
        level: of what is played.
        load: of decoding.
        refused: packets that were not taken, by why.
        bytes: of packets that were taken.
        n_quantizers: codebooks of the last frame.
        frames: that were decoded, for the sink.
    """

    def __init__(
        self,
        jitter: JitterBuffer,
        codec: LiveCodec,
        decoder: Decoder,
        sink: Sink,
        *,
        latency: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`latency` is what the sink is kept ahead by, in seconds, on top of the buffer's delay."""
        self.level = Level(decoder.sample_rate)
        self.load = Load(decoder.frame_seconds)
        self.refused: Counter[str] = Counter()
        self.bytes = self.n_quantizers = self.frames = 0
        self._jitter, self._codec, self._decoder, self._sink = jitter, codec, decoder, sink
        self._latency, self._clock = latency, clock
        self._stream = 0
        self._heard = clock()

    @property
    def delay(self) -> float:
        """Seconds that frames waited on the average: to be played, and for those after them."""
        return self._jitter.counts.mean_delay + self._decoder.late

    @property
    def wanted(self) -> float:
        """Seconds that they should wait, over the quickest packet's."""
        return self._jitter.target + self._decoder.late

    @property
    def quiet(self) -> float:
        """Seconds since a packet was taken."""
        return self._clock() - self._heard

    def take(self, data: bytes) -> None:
        """Takes a packet as it came."""
        try:
            packet = Packet.parse(
                data,
                fingerprint=self._codec.fingerprint,
                bits=self._codec.bits_per_code,
                n_quantizers=self._codec.n_quantizers,
            )
        except RefusedPacketError as error:
            self.refused[str(error)] += 1
            return
        self._heard = self._clock()
        self.bytes += len(data)
        self._jitter.push(packet, self._heard)

    def play(self) -> bool:
        """Plays all that it is time for; whether a stream has ended."""
        ended = False
        for _ in range(_AT_ONCE):
            if self._sink.ahead() >= self._latency:
                break
            turn = self._jitter.pop(self._clock())
            if turn.kind is Kind.IDLE:
                self._sink.rest(self._decoder.hop_length)
                continue
            if turn.kind is Kind.END:
                self._say(self._decoder.flush())
                ended = True
                continue
            if turn.stream != self._stream:
                self._end_stream()
                self._stream = turn.stream
            began = time.perf_counter()
            wave = self._decoder.push(turn.codes)
            self.load.push(time.perf_counter() - began)
            if turn.codes is not None:
                self.n_quantizers = len(turn.codes)
            self.frames += 1
            self._say(wave)
        return ended

    def _end_stream(self) -> None:
        """Plays what the decoder has held back of a stream, if it has; the next one begins anew."""
        wave = self._decoder.flush()
        if wave.size:
            self._say(wave)

    def _say(self, wave: Wave) -> None:
        """Plays a turn's samples; the time of one in which look-ahead gives none passes, too."""
        if wave.size:
            self.level.push(wave)
            self._sink.write(wave)
        else:
            self._sink.rest(self._decoder.hop_length)

    def run(
        self,
        link: socket.socket,
        *,
        stop: Callable[[], bool],
        tick: Callable[[], None],
        once: bool = False,
        idle: float = float("inf"),
    ) -> None:
        """Plays until it is stopped.

        Args:
            link: bound, and not blocking.
            stop: whether to end.
            tick: called often.
            once: end with the first stream that ends.
            idle: seconds without a packet after which to end.
        """
        while not stop() and self.quiet < idle:
            select.select([link], [], [], _POLL_SECONDS)
            for data in _waiting(link):
                self.take(data)
            ended = self.play()
            tick()
            if ended and once:
                break
        self._end_stream()
        if not stop():
            self._sink.drain()


@contextlib.contextmanager
def sending_to(host: str, port: int) -> Iterator[Callable[[bytes], object]]:
    """What sends a packet there.

    Raises:
        SottoError: there is no such host.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SottoError(f"{host} cannot be found: {reason}") from error
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as link:
        yield lambda packet: link.sendto(packet, address)


@contextlib.contextmanager
def listening(bind: str, port: int) -> Iterator[socket.socket]:
    """A socket that packets come to.

    Raises:
        SottoError: the address is not this machine's, or the port is taken.
    """
    try:
        found = socket.getaddrinfo(bind, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        link = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise SottoError(f"{bind}, port {port}: {getattr(error, 'strerror', error)}") from error
    with link:
        try:
            link.bind(address)
        except OSError as error:
            raise SottoError(f"{bind}, port {port}: {error.strerror or error}") from error
        link.setblocking(False)
        yield link


def _waiting(link: socket.socket) -> Iterator[bytes]:
    """Packets that have come, not too many of them at once."""
    for _ in range(_AT_ONCE):
        try:
            yield link.recv(MOST_BYTES + 1)  # of a longer one, enough to see that it is foreign
        except BlockingIOError:
            return
        except OSError:  # Windows: a longer one, or word that an earlier one was not wanted
            continue
