import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import TrainingError
from codec.training.checkpoint import CheckpointStore
from codec.training.tree import join_tensors, split_tensors

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
tensors = st.builds(
    lambda values, dtype: torch.tensor(values, dtype=dtype),
    st.lists(st.integers(-100, 100), max_size=4),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8]),
)
trees = st.recursive(
    scalars | tensors,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@given(trees)
@settings(deadline=None, max_examples=60)
def test_any_state_tree_survives_the_file(tmp_path_factory, tree):
    store = CheckpointStore(tmp_path_factory.mktemp("store"), keep=1)
    store.write_rank(1, 0, tree)
    store.commit(1, [tree])
    shared, own = store.read(1, 0)
    assert same(own, tree)
    assert same(shared, [tree])


def test_tensors_that_share_memory_are_both_kept():
    tensor = torch.arange(4.0)
    skeleton, tensors = split_tensors({"a": tensor, "b": tensor[1:]})
    assert same(join_tensors(skeleton, tensors), {"a": tensor, "b": tensor[1:]})


def test_what_cannot_be_kept_is_refused():
    with pytest.raises(TypeError, match="/a/0: a set"):
        split_tensors({"a": [{1}]})


def test_an_uncommitted_checkpoint_does_not_count(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    store.write_rank(5, 0, {"a": 1})
    assert store.steps() == []


def test_a_process_that_was_not_there_before_gets_nothing(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    store.write_rank(5, 0, {"a": 1})
    store.commit(5, {"b": 2})
    assert store.read(5, 1) == ({"b": 2}, None)


def test_pruning_keeps_the_newest_and_the_protected(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    for step in range(1, 6):
        store.write_rank(step, 0, {})
        store.commit(step, {})
    store.write_rank(9, 0, {})  # abandoned by a run that was killed
    store.prune(protect=[2])
    assert store.steps() == [2, 4, 5]
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["shared.json", "shared.safetensors", "rank_0.json", "sums.json"])
def test_every_damage_is_noticed(tmp_path, name):
    store = CheckpointStore(tmp_path, keep=1)
    store.write_rank(1, 0, {"a": torch.zeros(3)})
    store.commit(1, {"b": torch.zeros(3)})
    file = store.path(1) / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(TrainingError, match="step_00000001"):
        store.read(1, 0)
