import json

import numpy as np
import pytest
import torch

from codec import audio
from codec.config_files import parse_config
from codec.data.corpus import held_out_clips as clips_of
from codec.data.corpus import load_corpus
from codec.data.corpus import training_crops as crops_of
from codec.errors import DataError


def corpus(folder, name, seconds_by_split):
    """A folder with a manifest; every file is a constant that tells its split."""
    root = folder / name
    lines = []
    levels = {"train": 0.1, "valid": 0.3}
    for split, lengths in seconds_by_split.items():
        for i, seconds in enumerate(lengths):
            path = root / f"{split}_{i}.wav"
            wave = np.full((1, int(8000 * seconds)), levels[split], np.float32)
            audio.write_wav(path, wave, 8000)
            lines.append({"path": path.name, "seconds": seconds, "split": split})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (root / "manifest.jsonl").write_text(text)
    return str(root)


def training_crops(config):
    return crops_of(config, load_corpus(config))


def held_out_clips(config):
    return clips_of(config, load_corpus(config))


def config_of(data, **sections):
    values = {
        "model": {"sample_rate": 8000, "default_kbps": 1.5},
        "data": {"segment_samples": 3200, "gain_db": [0, 0], **data},
        "validation": {"clips": 4, "seconds": 0.5},
    }
    return parse_config(values | sections, source="test")


def test_train_and_valid_splits_are_kept_apart(tmp_path):
    config = config_of({"path": corpus(tmp_path, "a", {"train": [2, 3], "valid": [1, 1]})})
    crops = training_crops(config)
    assert {round(float(crops[i].wave.max()), 2) for i in range(10)} == {0.1}
    clips = held_out_clips(config)
    assert [name for name, _ in clips] == ["00_valid_0", "01_valid_1"]
    for _, wave in clips:
        assert wave.shape == (4000,)
        np.testing.assert_allclose(wave, 0.3, atol=1e-3)


def test_several_corpora_are_joined_and_one_may_be_for_training_alone(tmp_path):
    one = corpus(tmp_path, "one", {"train": [2], "valid": [1]})
    other = corpus(tmp_path, "other", {"train": [2]})
    config = config_of({"path": [one, other]})
    assert len(training_crops(config)._paths) == 2
    assert len(held_out_clips(config)) == 1


def test_clips_are_spread_over_the_held_out_files(tmp_path):
    config = config_of({"path": corpus(tmp_path, "a", {"train": [2], "valid": [1] * 10})})
    names = [name for name, _ in held_out_clips(config)]
    assert names == ["00_valid_0", "01_valid_3", "02_valid_6", "03_valid_9"]


def test_a_path_of_its_own_for_held_out_files(tmp_path):
    train = corpus(tmp_path, "a", {"train": [2]})
    valid = corpus(tmp_path, "b", {"valid": [1]})
    assert len(held_out_clips(config_of({"path": train, "valid_path": valid}))) == 1


def test_unusable_paths_are_named(tmp_path):
    one = corpus(tmp_path, "one", {"train": [2], "valid": [1]})
    with pytest.raises(DataError, match="nowhere"):
        training_crops(config_of({"path": [one, str(tmp_path / "nowhere")]}))
    with pytest.raises(DataError, match="'train'"):
        training_crops(config_of({"path": corpus(tmp_path, "two", {"valid": [2]})}))


def test_a_corpus_that_is_all_for_training_has_some_of_it_held_out(tmp_path):
    config = config_of({"path": corpus(tmp_path, "a", {"train": [1] * 40})})
    parted = load_corpus(config)
    assert len(parted.valid) == 2
    assert len(parted.train) == 38
    assert not {e.path for e in parted.train} & {e.path for e in parted.valid}
    assert load_corpus(config) == parted


def test_held_out_files_that_cannot_be_read_are_reported(tmp_path, caplog):
    root = corpus(tmp_path, "a", {"train": [2], "valid": [1, 1]})
    (tmp_path / "a" / "valid_0.wav").write_text("no audio")
    config = config_of({"path": root})
    assert [name for name, _ in held_out_clips(config)] == ["01_valid_1"]
    assert "valid_0.wav" in caplog.text
    (tmp_path / "a" / "valid_1.wav").write_text("no audio")
    with pytest.raises(DataError, match=r"valid_0\.wav"):
        held_out_clips(config)


@pytest.mark.parametrize("source", ["random", "fixed"])
def test_sources_without_files_need_no_corpus(source):
    config = config_of({"source": source, "path": "nowhere"})
    crops = training_crops(config)
    assert crops[5].wave.shape == (1, 3200)
    assert torch.equal(crops[5].wave, training_crops(config)[5].wave)
    assert len(held_out_clips(config)) == 4
