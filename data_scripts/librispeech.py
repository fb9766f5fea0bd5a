"""LibriSpeech (Panayotov et al. 2015; CC BY 4.0, openslr.org/12) to 16 kHz files and a manifest.

python -m data_scripts.librispeech OUT --archive dev-clean.tar.gz --archive train-clean-100.tar.gz
python -m data_scripts.librispeech OUT --hub clean:validation --hub clean:train.100
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import typer

from data_scripts.commands import Archives, Hours, Out, Repository, Subsets, run_on
from data_scripts.prepare import Utterance
from data_scripts.sources import Member, hub_rows, members, row_audio

REPOSITORY = "openslr/librispeech_asr"


def split_of(subset: str) -> str:
    """``train``, ``valid`` or ``test`` for a subset such as ``dev-clean`` or ``validation``."""
    for beginning, split in (("dev", "valid"), ("valid", "valid"), ("test", "test")):
        if subset.startswith(beginning):
            return split
    return "train"


def from_archives(
    paths: Sequence[Path], texts: dict[str, str], problems: list[str]
) -> Iterator[Utterance]:
    """Utterances of ``LibriSpeech/SUBSET/SPEAKER/CHAPTER/*.flac``; transcripts go to ``texts``."""
    for member in members(paths, problems):
        if len(member.name.parts) < 4:
            continue
        subset, speaker = member.name.parts[-4:-2]
        folder = f"{subset}/{speaker}"
        if member.name.name.endswith(".trans.txt"):
            texts |= _transcripts(member, folder)
        elif member.name.suffix == ".flac":
            key = f"{folder}/{member.name.stem}"
            yield Utterance(key, member.load, split_of(subset), f"libri-{speaker}", "en")


def from_hub(subsets: Sequence[str], repository: str) -> Iterator[Utterance]:
    """Utterances of hub subsets ``CONFIG:SPLIT``."""
    for subset in subsets:
        for row in hub_rows(repository, subset):
            speaker = str(row["speaker_id"])
            yield Utterance(
                key=f"{subset.replace(':', '-')}/{speaker}/{row['id']}",
                load=partial(row_audio, row),
                split=split_of(subset.partition(":")[2]),
                speaker=f"libri-{speaker}",
                lang="en",
                text=row.get("text"),
            )


def _transcripts(member: Member, folder: str) -> dict[str, str]:
    """Lines ``ID THE TEXT`` by key."""
    lines = member.bytes().decode("utf-8", "replace").splitlines()
    pairs = (line.partition(" ") for line in lines)
    return {f"{folder}/{name}": text for name, _, text in pairs if name}


def main(
    out: Out,
    archive: Archives = None,
    hub: Subsets = None,
    repository: Repository = REPOSITORY,
    hours: Hours = None,
) -> None:
    """Prepare LibriSpeech; run again to go on after an interruption."""
    run_on(
        out,
        "LibriSpeech",
        archive,
        hub,
        hours,
        from_archives=from_archives,
        from_hub=lambda subsets: from_hub(subsets, repository),
    )


if __name__ == "__main__":
    typer.run(main)
