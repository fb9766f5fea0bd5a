"""espeak-ng through ctypes: text in, 16-bit samples out, from the wheel espeakng-loader."""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.errors import DataError

# From espeak-ng's speak_lib.h.
_OUTPUT_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to say and how.

    Attributes:
        text: in the voice's language.
        voice: espeak-ng's language and variant, such as ``en-us+f3``.
        rate: words a minute, 80 to 450.
        pitch: 0 to 100, 50 is the voice's own.
        pitch_range: 0 (monotone) to 100.
    """

    text: str
    voice: str
    rate: int = 170
    pitch: int = 50
    pitch_range: int = 50


class Synthesiser:
    """espeak-ng, of which a process can have one.

    The library carries state (phases, noise) from one utterance into the next and cannot be
    reset: equal bytes come out only if a fresh process says the same prompts in the same order.

    Attributes:
        sample_rate: of its output, Hz.

    Raises:
        DataError: espeakng-loader is not installed or its library does not start.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise DataError(
                "the synthetic corpus needs espeak-ng; install it with: pip install 'sotto[data]'"
            ) from error
        try:
            self._library: Any = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        except OSError as error:
            raise DataError(f"espeak-ng's library cannot be loaded ({error})") from error
        self._chunks: list[NDArray[np.int16]] = []
        self._callback = _CALLBACK(self._receive)  # kept: the library only has its address
        data = str(espeakng_loader.get_data_path()).encode()
        self.sample_rate = int(
            self._library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, data, _DONT_EXIT)
        )
        if self.sample_rate <= 0:
            raise DataError(f"espeak-ng does not start (its data should be in {data.decode()})")
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, prompt: Prompt) -> NDArray[np.int16]:
        """The samples of an utterance, (samples,).

        Raises:
            DataError: there is no such voice, or nothing comes out.
        """
        if self._library.espeak_SetVoiceByName(prompt.voice.encode()):
            raise DataError(f"espeak-ng has no voice {prompt.voice!r}")
        settings = ((_RATE, prompt.rate), (_PITCH, prompt.pitch), (_RANGE, prompt.pitch_range))
        for parameter, value in settings:
            self._library.espeak_SetParameter(parameter, value, 0)
        # Breath noise is seeded by the clock otherwise.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._chunks.clear()
        text = prompt.text.encode() + b"\0"
        failed = self._library.espeak_Synth(
            text, ctypes.c_size_t(len(text)), 0, 0, 0, _CHARS_UTF8, None, None
        )
        self._library.espeak_Synchronize()
        if failed or not self._chunks:
            raise DataError(f"espeak-ng says nothing for {prompt.text!r} as {prompt.voice!r}")
        return np.concatenate(self._chunks)

    def _receive(self, samples: Any, count: int, _: Any) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


_one: Synthesiser | None = None


def say(prompt: Prompt) -> tuple[NDArray[np.int16], int]:
    """Samples and their rate from this process's synthesiser."""
    global _one
    if _one is None:
        _one = Synthesiser()
    return _one.say(prompt), _one.sample_rate
