import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from codec import audio
from codec.codec import Codec
from codec.wav_reading import missing_bytes
from infer import cli
from infer.runtime import Codec as LightCodec

Wav = Callable[..., Path]


@pytest.fixture
def light(exported: Path) -> LightCodec:
    return LightCodec.load(exported)


pytestmark = pytest.mark.usefixtures("quiet_environment")

SOTTO = [sys.executable, "-c", "from infer.entry import main; main()"]
ROOT = Path(__file__).parents[2]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def fail(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    return result.stderr


def start(*arguments: object, **options: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*SOTTO, *map(str, arguments)], cwd=ROOT, stderr=subprocess.PIPE, **options
    )  # type: ignore[call-overload]


def test_a_file_goes_through_the_codec_by_either_model(
    wav: Wav, model: Path, exported: Path, codec: Codec, tmp_path: Path
) -> None:
    source = wav("in.wav", 4001)
    wave, _ = audio.read(source)
    expected = codec.decode(codec.encode(wave[0], 2)).numpy()
    for number, one in enumerate((model, exported)):
        target = tmp_path / f"{number}.wav"
        result = invoke("stream", source, target, "--model", one, "--kbps", 2.4)
        assert result.exit_code == 0, result.output
        assert result.stdout == ""
        assert f"{source} to {target} at 2.4 kbps, 2 codebooks" in result.stderr
        assert "0.51 s in " in result.stderr and "load" in result.stderr
        found, rate = audio.read(target)
        assert (found.shape, rate) == ((1, 4040), 8000)  # whole frames
        np.testing.assert_allclose(found[0], expected.clip(-1, 1), atol=1e-4)


@pytest.mark.parametrize("samples", [1, 320, 9601])
def test_nothing_is_lost_of_what_a_voice_holds_back(
    samples: int, wav: Wav, voice: Codec, exported_voice: Path, tmp_path: Path
) -> None:
    source = wav("in.wav", samples, sample_rate=16000)
    voice.save(tmp_path / "voice.safetensors")
    wave, _ = audio.read(source)
    expected = voice.decode(voice.encode(wave[0], 2)).numpy()
    for number, one in enumerate((tmp_path / "voice.safetensors", exported_voice)):
        target = tmp_path / f"{number}.wav"
        result = invoke("stream", source, target, "--model", one, "--kbps", 0.5)
        assert result.exit_code == 0, result.output
        found, _ = audio.read(target)
        assert found.shape == (1, -(-samples // 320) * 320)
        quiet = np.abs(expected) < 0.9  # what is louder is clipped
        difference = np.abs(found[0] - expected)[quiet].max()
        assert difference < 1e-2 * np.abs(expected).max() + 1e-4


def test_other_rates_and_channels_are_taken(wav: Wav, exported: Path, tmp_path: Path) -> None:
    source = wav("in.wav", 9600, sample_rate=48000, channels=2)
    result = invoke("stream", source, tmp_path / "x.flac", "--model", exported, "--gain", -6)
    assert result.exit_code == 0, result.output
    assert audio.read(tmp_path / "x.flac")[0].shape == (1, 1600)


@pytest.mark.parametrize("raw", [False, True], ids=["wav", "raw"])
def test_from_pipe_to_pipe(raw: bool, light: LightCodec) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 2000).astype(np.float32)
    file = io.BytesIO()
    audio.write_wav(file, wave, 8000)
    sent, _ = audio.read(io.BytesIO(file.getvalue()))
    data = (sent[0] * 32768).astype("<i2").tobytes() if raw else file.getvalue()
    options = ["--raw", 8000] if raw else []
    process = start(
        "stream",
        "-",
        "-",
        "--model",
        light._folder,
        *options,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    out, errors = process.communicate(data, timeout=60)
    assert process.returncode == 0, errors
    found = np.frombuffer(out, "<i2") / 32768 if raw else audio.read(io.BytesIO(out))[0][0]
    expected = light.decode(light.encode(sent[0], 3))
    np.testing.assert_allclose(found, expected.clip(-1, 1), atol=1e-4)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_what_was_written_until_ctrl_c_is_a_whole_file(
    number: int, code: int, exported: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.wav"
    reads, writes = os.pipe()
    with open(writes, "wb", buffering=0) as pipe:
        process = start("stream", "-", target, "--raw", 8000, "--model", exported, stdin=reads)
        os.close(reads)
        assert process.stderr is not None
        assert b"Ctrl-C ends it" in process.stderr.readline()
        pipe.write(bytes(2 * 12_000))
        for _ in range(600):  # until some of it has been written to the hidden file
            part = next(tmp_path.glob(".out.wav.*.part"), None)
            if part is not None and part.stat().st_size > 8000:
                break
            time.sleep(0.05)
        process.send_signal(number)  # while it waits for the pipe
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert b" s in " in errors and b"load" in errors
    assert 4000 <= audio.read(target)[0].shape[1] <= 12_000
    with open(target, "rb") as file:
        assert missing_bytes(file) == 0
    assert [one.name for one in tmp_path.iterdir()] == ["out.wav"]


def test_speech_is_sent_and_received(wav: Wav, light: LightCodec, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source, target = wav("in.wav", 8000), tmp_path / "out.wav"
    folder = light._folder
    delays = ["--min-delay", 500, "--max-delay", 2000]
    receiver = start(
        "receive", port, target, "--bind", "127.0.0.1", "--model", folder, "--once", "--idle", 30,
        *delays,
    )  # fmt: skip
    assert receiver.stderr is not None
    assert b"127.0.0.1" in receiver.stderr.readline()
    sender = start(
        "send", "127.0.0.1", port, source, "--model", folder, "--frames", 4, "--redundancy", 2
    )
    _, sent = sender.communicate(timeout=60)
    _, received = receiver.communicate(timeout=60)
    assert (sender.returncode, receiver.returncode) == (0, 0), sent + received
    assert b"1.00 s in 53 packets" in sent and b"kbps on the wire, 0 not sent" in sent
    assert b"packets: 53 came, 0 lost (0.0%)" in received
    found = audio.read(target)[0][0]
    expected = light.decode(light.encode(audio.read(source)[0][0], 3)).clip(-1, 1)
    assert abs(found.size - expected.size) < 4000
    # A machine that is busy elsewhere may come too late to a frame, and says so.
    if b"0 ms concealed, 0 recovered, 0 filled in, 0 left out" in received:
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("stream gone.wav {tmp}/x.wav", "gone.wav is not there"),
        ("stream {wav} {tmp}/x.txt", "has the wrong ending"),
        ("stream {wav} {wav} --force", "is the input"),
        ("stream {wav} {model}", "is there already"),
        ("stream {wav} {tmp}/no/x.wav", "there is no folder"),
        ("stream {wav} {tmp}/x.wav --mic 0", "one IN and one OUT"),
        ("stream {wav} {tmp}/x.wav --speaker 0", "one IN and one OUT"),
        ("stream {wav} {tmp}/x.wav --kbps 7 --model {model}", "possible: 1.2, 2.4"),
        ("stream {model} {tmp}/x.wav --model {model}", "not an audio file"),
        ("stream {wav} {tmp}/x.wav --model {tmp}", "has no card.json"),
        ("stream {wav} {tmp}/x.wav", "no model"),
        ("stream {wav} --model {model}", "sounddevice is not installed: pip install 'sotto[live]'"),
        ("stream --mic 1 {tmp}/x.wav --model {model}", "sounddevice is not installed"),
        ("stream --list-devices", "sounddevice is not installed"),
        ("send 127.0.0.1 5004 {wav} --mic 0", "give IN or --mic"),
        ("send no.such.host.invalid 5004 {wav} --model {model}", "cannot be found"),
        ("receive 5004 {tmp}/x.wav --speaker 0", "give OUT or --speaker"),
        ("receive 5004 {tmp}/x.wav --min-delay 90 --max-delay 50", "is more than --max-delay"),
        ("receive 5004 {tmp}/x.wav --bind 192.0.2.1 --model {model}", "192.0.2.1, port 5004"),
    ],
)
def test_mistakes_are_named_in_one_line_and_leave_nothing(
    command: str,
    says: str,
    wav: Wav,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    source = wav("in.wav", 800)
    before = sorted(tmp_path.iterdir())
    words = [part.format(wav=source, tmp=tmp_path, model=model) for part in command.split()]
    assert says in fail(*words)
    assert sorted(tmp_path.iterdir()) == before
