import json

import numpy as np
import pytest
import torch

from codec import audio
from codec.config_files import parse_config
from codec.data.corpus import held_out_clips, training_crops
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
    assert {round(float(crops[i].max()), 2) for i in range(10)} == {0.1}
    clips = held_out_clips(config)
    assert [name for name, _ in clips] == ["valid_0", "valid_1"]
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
    assert [name for name, _ in held_out_clips(config)] == [f"valid_{i}" for i in (0, 3, 6, 9)]


def test_a_path_of_its_own_for_held_out_files(tmp_path):
    train = corpus(tmp_path, "a", {"train": [2]})
    valid = corpus(tmp_path, "b", {"valid": [1]})
    assert len(held_out_clips(config_of({"path": train, "valid_path": valid}))) == 1


def test_unusable_paths_are_named(tmp_path):
    one = corpus(tmp_path, "one", {"train": [2], "valid": [1]})
    with pytest.raises(DataError, match="nowhere"):
        training_crops(config_of({"path": [one, str(tmp_path / "nowhere")]}))
    with pytest.raises(DataError, match="'valid'"):
        held_out_clips(config_of({"path": corpus(tmp_path, "two", {"train": [2]})}))


@pytest.mark.parametrize("source", ["random", "fixed"])
def test_sources_without_files_need_no_corpus(source):
    config = config_of({"source": source, "path": "nowhere"})
    crops = training_crops(config)
    assert crops[5].shape == (1, 3200)
    assert torch.equal(crops[5], training_crops(config)[5])
    assert len(held_out_clips(config)) == 4
