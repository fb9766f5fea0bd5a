"""The commands `stream`, `send` and `receive`: speech that is coded while it is spoken."""

from pathlib import Path
from typing import Annotated

import typer

from codec.errors import SottoError
from infer.options import Force, Kbps

Ends = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[IN] [OUT]",
        help="What to read (not with --mic) and to write (else it is played): files, or - for "
        "stdin and stdout.",
        allow_dash=True,
        show_default=False,
    ),
]
In = Annotated[
    Path | None,
    typer.Argument(metavar="[IN]", help="A file, or - for stdin; else the microphone."),
]
Out = Annotated[
    Path | None,
    typer.Argument(metavar="[OUT]", help="A file, or - for stdout; else it is played."),
]
LiveModel = Annotated[
    Path | None,
    typer.Option(
        "--model",
        help="A .safetensors file or a folder of `sotto export`; else that in SOTTO_MODEL; else "
        "the one shipped.",
    ),
]
Mic = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", help="Speak into this: a number, a name, or default."),
]
SpeakerName = Annotated[
    str | None,
    typer.Option("--speaker", metavar="DEVICE", help="Play here: a number, a name, or default."),
]
ListDevices = Annotated[
    bool, typer.Option("--list-devices", help="Show microphones and speakers, and end.")
]
Raw = Annotated[
    int | None,
    typer.Option(
        "--raw",
        metavar="HZ",
        min=1000,
        max=384_000,
        help="Pipes carry raw samples at this rate, mono, 16 bits, little-endian, not WAV.",
    ),
]
Gain = Annotated[
    float, typer.Option("--gain", metavar="DB", min=-60, max=60, help="Of what is read.")
]
Latency = Annotated[
    int,
    typer.Option(
        "--latency", metavar="MS", min=20, max=1000, help="That the speaker is kept ahead by."
    ),
]
Port = Annotated[int, typer.Argument(metavar="PORT", min=1, max=65535, help="A UDP port.")]


def stream(
    paths: Ends = None,
    mic: Mic = None,
    speaker: SpeakerName = None,
    model: LiveModel = None,
    kbps: Kbps = None,
    gain: Gain = 0.0,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Read a file at the pace it would be spoken at.")
    ] = False,
    latency: Latency = 60,
    raw: Raw = None,
    force: Force = False,
    list_devices: ListDevices = False,
) -> None:
    """Hear speech through the codec, live: from a microphone, file or pipe to a speaker or file.

    Without IN the microphone is taken, and without OUT the speaker. Ctrl-C ends it, and what has
    been written is a whole file. To a speaker a file is played as it sounds, to a file it goes as
    fast as it can (--realtime: as it sounds, too). A pipe is WAV, or raw samples with --raw.
    Frames are filled in or left out now and then where two sound cards' clocks differ.
    """
    if list_devices:
        return show_devices()
    from infer.live.opening import Ends
    from infer.live.running import run_stream

    source, target = _in_and_out(paths or [], mic, speaker)
    run_stream(
        Ends(source, target, mic, speaker, raw, gain, latency / 1000, realtime, force),
        model,
        kbps,
    )


def send(
    host: Annotated[str, typer.Argument(metavar="HOST", help="A name or an address.")],
    port: Port,
    source: In = None,
    mic: Mic = None,
    model: LiveModel = None,
    kbps: Kbps = None,
    gain: Gain = 0.0,
    frames: Annotated[
        int,
        typer.Option(
            min=1,
            max=50,
            help="In each packet: more make less of the 54 bytes of heads, and more delay.",
        ),
    ] = 2,
    redundancy: Annotated[
        int,
        typer.Option(
            metavar="K",
            min=0,
            max=50,
            help="Carry the lower half of the codebooks of the last K frames once more.",
        ),
    ] = 0,
    raw: Raw = None,
) -> None:
    """Send speech to `sotto receive` over UDP, live: from a microphone, a file or a pipe.

    Nothing is encrypted, and nothing says who sends. Files are sent at the pace they would be
    spoken at. The other end needs the same model.
    """
    from infer.live.opening import Ends
    from infer.live.running import run_send

    if source is not None and mic is not None:
        raise SottoError("give IN or --mic: there is one thing to send")
    run_send(
        Ends(source, None, mic, None, raw, gain, 0.0, True, False),
        model,
        kbps,
        host=host,
        port=port,
        frames=frames,
        redundancy=redundancy,
    )


def receive(
    port: Port,
    target: Out = None,
    speaker: SpeakerName = None,
    model: LiveModel = None,
    bind: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Take packets that come to this address of this machine alone; else to any. "
            "127.0.0.1 takes those of this machine.",
        ),
    ] = "0.0.0.0",
    min_delay: Annotated[
        int, typer.Option(metavar="MS", min=0, help="That packets are waited for, at the least.")
    ] = 40,
    max_delay: Annotated[
        int, typer.Option(metavar="MS", min=0, help="The same at the most.")
    ] = 500,
    latency: Latency = 60,
    once: Annotated[bool, typer.Option("--once", help="End when the sender has ended.")] = False,
    idle: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.1, help="End when so long nothing has come."),
    ] = None,
    raw: Raw = None,
    force: Force = False,
) -> None:
    """Hear what `sotto send` sends, live: through a speaker, or into a file or pipe.

    What does not come in time is filled in. Packets wait for those behind them as long as the
    network's unevenness asks for, from --min-delay to --max-delay. Of several senders, the one
    that began last is heard. Ctrl-C ends it, and what has been written is a whole file.
    """
    from infer.live.opening import Ends
    from infer.live.running import run_receive

    if target is not None and speaker is not None:
        raise SottoError("give OUT or --speaker: there is one place to hear it")
    if min_delay > max_delay:
        raise SottoError(f"--min-delay {min_delay} is more than --max-delay {max_delay}")
    run_receive(
        Ends(None, target, None, speaker, raw, 0.0, latency / 1000, False, force),
        model,
        bind=bind,
        port=port,
        delays=(min_delay / 1000, max_delay / 1000),
        once=once,
        idle=idle,
    )


def show_devices() -> None:
    """Shows every sound device."""
    from rich.table import Table

    from infer.live.devices import list_devices
    from infer.reporting import show

    rows = list_devices()
    if not rows:
        raise SottoError("there is no sound device on this machine")
    table = Table()
    for heading in ("number", "name", "by", "in", "out", "Hz", "default"):
        table.add_column(heading)
    for row in rows:
        table.add_row(*row)
    show(table)


def _in_and_out(
    paths: list[Path], mic: str | None, speaker: str | None
) -> tuple[Path | None, Path | None]:
    """The file to read and the file to write, none where it is a device."""
    free = 2 - (mic is not None) - (speaker is not None)
    if len(paths) > free:
        raise SottoError(
            f"{len(paths)} paths, --mic and --speaker counted {len(paths) + 2 - free}: there is "
            "one IN and one OUT"
        )
    if mic is not None:
        return None, (paths[0] if paths else None)
    return (paths[0] if paths else None), (paths[1] if len(paths) > 1 else None)
