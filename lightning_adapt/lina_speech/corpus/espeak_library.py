"""The espeak-ng library behind the options of the espeak-ng program; runs as a script in a process of its own.

Usage: python espeak_library.py LIBRARY DATA [--version | --voices[=variant] | -q --ipa | --stdout] [-v V] [-p P]
[-s S]. Only the standard library, so that a start costs little.
"""

from __future__ import annotations

import argparse
import ctypes
import struct
import sys
from typing import Any

_UTF8 = 1  # espeakCHARS_UTF8
_END_PAUSE = 0x1000  # espeakENDPAUSE: silence after the last sentence, as the program has it
_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples come through the callback, before the call returns
_RATE, _PITCH = 1, 3  # espeak_PARAMETER
_IPA = 2  # phoneme mode: international phonetic alphabet
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _Voice(ctypes.Structure):  # espeak_VOICE of speak_lib.h
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.POINTER(ctypes.c_char)),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


def _open(library: str, data: str) -> tuple[ctypes.CDLL, int]:
    espeak = ctypes.CDLL(library)
    espeak.espeak_TextToPhonemes.restype = ctypes.c_char_p
    espeak.espeak_Info.restype = ctypes.c_char_p
    espeak.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    espeak.espeak_ListVoices.argtypes = (ctypes.c_void_p,)
    rate = espeak.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), 0)
    if rate <= 0:
        sys.exit(f"The espeak-ng library cannot read its data in {data}.")
    return espeak, rate


def _described(language: str) -> _Voice:
    name = ctypes.c_char_p(language.encode())
    return _Voice(None, ctypes.cast(name, ctypes.POINTER(ctypes.c_char)), None)


def _choose(espeak: ctypes.CDLL, voice: str) -> None:
    """Take a voice by name, else by language, as the program does."""
    if espeak.espeak_SetVoiceByName(voice.encode()) == 0:
        return
    if espeak.espeak_SetVoiceByProperties(ctypes.byref(_described(voice))) != 0:
        sys.exit("Error: The specified espeak-ng voice does not exist.")


def _voices(espeak: ctypes.CDLL, language: str | None) -> str:
    wanted = _described(language or "")
    table = espeak.espeak_ListVoices(ctypes.byref(wanted) if language else None)
    lines = ["Pty Language       Age/Gender VoiceName          File"]
    place = 0
    while table[place]:
        voice = table[place].contents
        place += 1
        # the first byte is a priority, then comes the language up to a zero byte
        priority = ord(voice.languages[0])
        text = ctypes.string_at(ctypes.addressof(voice.languages.contents) + 1).decode(errors="replace")
        name = (voice.name or b"").decode(errors="replace").replace(" ", "_")
        identifier = (voice.identifier or b"").decode(errors="replace")
        if language is not None or not identifier.startswith("!v/"):
            lines.append(f" {priority}  {text} --/- {name} {identifier}")
    return "\n".join(lines) + "\n"


def _phonemes(espeak: ctypes.CDLL, text: str) -> str:
    pointer = ctypes.c_char_p(text.encode())
    parts = []
    while pointer.value:  # one clause per call; the pointer moves on and ends as NULL
        clause = espeak.espeak_TextToPhonemes(ctypes.byref(pointer), _UTF8, _IPA)
        parts.append((clause or b"").decode())
    return " ".join(parts)


def _wave(espeak: ctypes.CDLL, rate: int, text: str) -> bytes:
    samples = bytearray()

    def keep(wave: Any, count: int, events: Any) -> int:  # noqa: ARG001 - the library calls it with three
        if wave and count > 0:
            samples.extend(ctypes.string_at(wave, 2 * count))
        return 0

    callback = _CALLBACK(keep)
    espeak.espeak_SetSynthCallback(callback)
    encoded = text.encode()
    espeak.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _UTF8 | _END_PAUSE, None, None)
    espeak.espeak_Synchronize()
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(samples), b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return head + struct.pack("<4sI", b"data", len(samples)) + bytes(samples)


def main() -> None:
    """Do what the options say, as the program espeak-ng would."""
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("data")
    for name in ("--version", "--ipa", "--stdin", "--stdout", "-q"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--voices", nargs="?", const="", default=None)
    parser.add_argument("-v", default="en")
    parser.add_argument("-p", type=int)
    parser.add_argument("-s", type=int)
    options = parser.parse_args()
    espeak, rate = _open(options.library, options.data)
    write = sys.stdout.buffer.write
    if options.version:
        write(b"eSpeak NG text-to-speech: " + espeak.espeak_Info(None) + b"\n")
        return
    if options.voices is not None:
        write(_voices(espeak, options.voices or None).encode())
        return
    _choose(espeak, options.v)
    for parameter, value in ((_RATE, options.s), (_PITCH, options.p)):
        if value is not None:
            espeak.espeak_SetParameter(parameter, value, 0)
    text = sys.stdin.buffer.read().decode()
    if options.ipa:  # line by line, as the program does
        write("".join(f"{_phonemes(espeak, line)}\n" for line in text.splitlines()).encode())
    else:
        write(_wave(espeak, rate, text))


if __name__ == "__main__":
    main()
