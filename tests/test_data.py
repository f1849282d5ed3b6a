"""Data sets, samplers, collating and the loader."""

from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given, strategies as st

import minidl.ops as ops
from minidl import dtypes
from minidl.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    default_convert,
    random_split,
)
from minidl.errors import ArgumentError, DTypeError, ShapeError


class Squares(Dataset):
    def __init__(self, count: int) -> None:
        self.count = count

    def __getitem__(self, index: int):
        if not 0 <= index < self.count:
            raise IndexError(index)
        return index, float(index**2)

    def __len__(self) -> int:
        return self.count


def tensors(count: int = 10) -> TensorDataset:
    x = ops.tensor(np.arange(count * 2, dtype=np.float32).reshape(count, 2))
    return TensorDataset(x, ops.arange(count))


def seeded(seed: int):
    return ops.Generator().manual_seed(seed)


# Data sets -------------------------------------------------------------------------------------


def test_tensor_dataset():
    data = tensors(4)
    x, y = data[2]
    assert len(data) == 4 and x.tolist() == [4.0, 5.0] and y.item() == 2
    with pytest.raises(ShapeError, match=r"\(3, 2\), \(4,\)"):
        TensorDataset(ops.ones((3, 2)), ops.ones((4,)))
    with pytest.raises(ShapeError):
        TensorDataset(ops.tensor(1.0))
    with pytest.raises(ArgumentError):
        TensorDataset()
    for wrong in (np.ones(3), [1, 2]):
        with pytest.raises(DTypeError, match=r"\[TensorDataset\] .*minidl.tensor"):
            TensorDataset(ops.ones((3,)), wrong)


def test_subset_and_concat():
    data = Squares(5)
    part = Subset(data, [4, 1])
    assert [part[i] for i in range(len(part))] == [(4, 16.0), (1, 1.0)]
    both = data + part
    assert isinstance(both, ConcatDataset) and len(both) == 7
    assert both[5] == (4, 16.0) and both[-1] == (1, 1.0)
    assert both.cumulative_sizes == [5, 7]
    with pytest.raises(IndexError):
        both[7]
    with pytest.raises(DTypeError, match="__len__, got int"):
        ConcatDataset([data, 3])


@given(count=st.integers(1, 40), parts=st.integers(1, 5), seed=st.integers(0, 99))
def test_random_split_is_a_partition(count, parts, seed):
    data = list(range(count))
    cuts = sorted(np.random.default_rng(seed).integers(0, count + 1, parts - 1).tolist())
    lengths = np.diff([0, *cuts, count]).tolist()
    splits = random_split(data, lengths, generator=seeded(seed))
    assert [len(split) for split in splits] == lengths
    assert sorted(i for split in splits for i in split.indices) == data
    again = random_split(data, lengths, generator=seeded(seed))
    assert [s.indices for s in again] == [s.indices for s in splits]


def test_random_split_by_fractions_deals_out_the_rest():
    splits = random_split(range(11), [0.5, 0.25, 0.25])
    assert [len(s) for s in splits] == [6, 3, 2]
    with pytest.raises(ValueError, match="sum to 11"):
        random_split(range(11), [5, 5])
    with pytest.raises(ValueError, match="fractions"):
        random_split(range(11), [1.5, -0.5])
    with pytest.raises(ValueError, match="sum to 10"):
        random_split(range(10), [5.5, 5.5])  # whole parts that would sum to 10
    for lengths in (11, [], ["all"]):
        with pytest.raises(ValueError, match="sizes or fractions"):
            random_split(range(11), lengths)
    with pytest.raises(DTypeError, match="__len__"):
        random_split(iter([1]), [1])


# Samplers --------------------------------------------------------------------------------------


def test_sequential_and_batches():
    order = SequentialSampler(range(7))
    assert list(order) == [0, 1, 2, 3, 4, 5, 6] and len(order) == 7
    kept, dropped = BatchSampler(order, 3, False), BatchSampler(order, 3, True)
    assert list(kept) == [[0, 1, 2], [3, 4, 5], [6]] and len(kept) == 3
    assert list(dropped) == [[0, 1, 2], [3, 4, 5]] and len(dropped) == 2
    for size in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="batch_size"):
            BatchSampler(order, size, False)
    with pytest.raises(ValueError, match="drop_last"):
        BatchSampler(order, 2, 1)


def test_random_sampler_draws_a_new_permutation_per_pass():
    sampler = RandomSampler(range(50), generator=seeded(1))
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second and first != list(range(50))
    assert list(RandomSampler(range(50), generator=seeded(1))) == first


def test_random_sampler_counts():
    assert len(list(RandomSampler(range(5), num_samples=3))) == 3
    twelve = list(RandomSampler(range(5), num_samples=12))
    assert len(twelve) == 12 and sorted(twelve[:5]) == sorted(twelve[5:10]) == list(range(5))
    drawn = list(RandomSampler(range(3), replacement=True, num_samples=200))
    assert len(drawn) == 200 and set(drawn) == {0, 1, 2}
    with pytest.raises(ValueError, match="nothing"):
        list(RandomSampler([], num_samples=2))
    for count in (-1, 0, 1.5):
        with pytest.raises(ValueError, match=f"positive integer, got {count}"):
            RandomSampler(range(3), num_samples=count)


def test_subset_random_sampler():
    sampler = SubsetRandomSampler([10, 20, 30])
    assert sorted(sampler) == [10, 20, 30] and len(sampler) == 3


def test_weighted_random_sampler():
    sampler = WeightedRandomSampler([1, 0, 3], 4000, generator=seeded(0))
    drawn = np.bincount(list(sampler), minlength=3)
    assert len(sampler) == drawn.sum() == 4000 and drawn[1] == 0
    assert drawn[2] / 4000 == pytest.approx(0.75, abs=0.03)
    once = WeightedRandomSampler(ops.tensor([0.1, 0.9, 0.5]), 3, replacement=False)
    assert sorted(once) == [0, 1, 2]
    with pytest.raises(ValueError, match="positive integer, got 0"):
        WeightedRandomSampler([1.0], 0)
    with pytest.raises(ValueError, match="bool, got 1"):
        WeightedRandomSampler([1.0], 1, replacement=1)
    with pytest.raises(ShapeError, match=r"one axis, got \(1, 1\)"):
        WeightedRandomSampler([[1.0]], 1)
    with pytest.raises(ValueError, match="multinomial"):
        list(WeightedRandomSampler([-1.0, 2.0], 1))


# Collating -------------------------------------------------------------------------------------


def test_default_collate_by_type():
    Point = namedtuple("Point", "x y")
    stacked = default_collate([ops.ones((2,)), ops.zeros((2,))])
    assert stacked.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert default_collate([1.5, 2.5]).dtype is dtypes.float64
    assert default_collate([1, 2]).dtype is dtypes.int64
    assert default_collate([True, False]).dtype is dtypes.bool_
    assert default_collate([np.float32(1), np.float32(2)]).dtype is dtypes.float32
    assert default_collate([np.ones((2, 3), np.int16)] * 4).shape == (4, 2, 3)
    assert default_collate(["a", "b"]) == ["a", "b"]
    point = default_collate([Point(1, 2.0), Point(3, 4.0)])
    assert type(point) is Point and point.x.tolist() == [1, 3] and point.y.tolist() == [2.0, 4.0]
    nested = default_collate([{"a": (1, "x")}, {"a": (2, "y")}])
    assert nested["a"][0].tolist() == [1, 2] and nested["a"][1] == ("x", "y")


def test_default_collate_refuses():
    with pytest.raises(ValueError, match=r"same length.*\[1, 2\]"):
        default_collate([[1], [1, 2]])
    with pytest.raises(TypeError, match="got NoneType"):
        default_collate([None])
    with pytest.raises(TypeError, match="numeric"):
        default_collate([np.array(["a"])])
    with pytest.raises(ShapeError):
        default_collate([ops.ones((2,)), ops.ones((3,))])
    with pytest.raises(ShapeError, match=r"\(2,\), \(3,\)"):
        default_collate([np.ones(2), np.ones(3)])
    with pytest.raises(ArgumentError, match="key 'a'"):
        default_collate([{"a": 1}, {"b": 1}])
    with pytest.raises(DTypeError, match="tuple and int"):
        default_collate([(1, 2), 3])
    with pytest.raises(ArgumentError, match="no sample"):
        default_collate([])


def test_default_convert():
    converted = default_convert({"a": np.ones(2), "b": ("text", np.float32(1))})
    assert converted["a"].tolist() == [1.0, 1.0]
    assert converted["b"][0] == "text" and converted["b"][1].item() == 1.0


# The loader ------------------------------------------------------------------------------------


def as_lists(loader):
    return [[part.tolist() for part in batch] for batch in loader]


def test_loader_reads_in_batches():
    loader = DataLoader(Squares(5), batch_size=2)
    assert len(loader) == 3
    assert as_lists(loader) == [[[0, 1], [0.0, 1.0]], [[2, 3], [4.0, 9.0]], [[4], [16.0]]]
    assert len(DataLoader(Squares(5), batch_size=2, drop_last=True)) == 2
    assert as_lists(DataLoader(Squares(0), batch_size=2)) == []


@given(
    count=st.integers(1, 20),
    batch=st.integers(1, 7),
    drop=st.booleans(),
    subset=st.booleans(),
    seed=st.integers(0, 9),
)
def test_whole_batches_equal_collated_samples(count, batch, drop, subset, seed):
    data = tensors(count)
    if subset:
        data = Subset(Subset(data, list(range(count))[::-1]), list(range(0, count, 2)))
    options = {"batch_size": batch, "shuffle": True, "drop_last": drop}
    fast = DataLoader(data, generator=seeded(seed), **options)
    slow = DataLoader(
        data, generator=seeded(seed), collate_fn=lambda b: default_collate(b), **options
    )
    quick, plain = list(fast), list(slow)
    assert len(quick) == len(plain) == len(fast)
    for a, b in zip(quick, plain, strict=True):
        assert type(a) is type(b) is list
        for left, right in zip(a, b, strict=True):
            assert left.dtype is right.dtype
            np.testing.assert_array_equal(left.numpy(), right.numpy())


def test_a_subclass_of_tensor_dataset_keeps_its_own_indexing():
    class Doubled(TensorDataset):
        def __getitem__(self, index):
            return tuple(tensor * 2 for tensor in super().__getitem__(index))

    data = Doubled(*tensors(4).tensors)
    ((x, y),) = DataLoader(data, batch_size=4)
    assert y.tolist() == [0, 2, 4, 6] and x[1].tolist() == [4.0, 6.0]
    ((_, y),) = DataLoader(Subset(data, [3, 1]), batch_size=2)
    assert y.tolist() == [6, 2]


@pytest.mark.parametrize("kind", [ops.tensor, np.array, tuple])
def test_indices_may_be_arrays_or_tensors(kind):
    class Given(Sampler[list[int]]):
        def __iter__(self):
            yield kind([3, 0])
            yield kind([1])

    batches = [y.tolist() for _, y in DataLoader(tensors(4), batch_sampler=Given())]
    assert batches == [[3, 0], [1]]
    loader = DataLoader[list](Subset(tensors(4), kind([2, 1])), batch_size=2)
    assert [y.tolist() for _, y in loader] == [[2, 1]]


def test_shuffle_follows_the_generator():
    def order(loader):
        return [i for batch in loader for i in batch[1].tolist()]

    loader = DataLoader(tensors(30), batch_size=4, shuffle=True, generator=seeded(3))
    first, second = order(loader), order(loader)
    assert first != second and sorted(first) == sorted(second) == list(range(30))
    again = DataLoader(tensors(30), batch_size=4, shuffle=True, generator=seeded(3))
    assert order(again) == first
    ops.manual_seed(5)
    third = order(DataLoader(tensors(30), shuffle=True))
    ops.manual_seed(5)
    assert order(DataLoader(tensors(30), shuffle=True)) == third


def test_loader_options():
    data = Squares(6)
    own = DataLoader(data, batch_sampler=[[0, 5], [2]])
    assert as_lists(own) == [[[0, 5], [0.0, 25.0]], [[2], [4.0]]] and len(own) == 2
    assert as_lists(DataLoader(data, batch_size=2, sampler=[4, 4])) == [[[4, 4], [16.0, 16.0]]]
    assert list(DataLoader(data, batch_size=None)) == [[i, float(i**2)] for i in range(6)]
    lengths = DataLoader(data, batch_size=4, collate_fn=len)
    assert list(lengths) == [4, 2]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"sampler": [0], "shuffle": True}, "shuffle"),
        ({"batch_sampler": [[0]], "batch_size": 2}, "batch_sampler excludes"),
        ({"batch_sampler": [[0]], "drop_last": True}, "batch_sampler excludes"),
        ({"batch_size": None, "drop_last": True}, "drop_last"),
        ({"batch_size": 0}, "batch_size"),
        ({"num_workers": -1}, "negative"),
        ({"num_workers": 1.5}, "integer"),
        ({"prefetch_factor": 2}, "prefetch_factor needs num_workers"),
        ({"persistent_workers": True}, "persistent_workers needs"),
        ({"timeout": 3}, "timeout needs"),
    ],
)
def test_loader_refuses_options_that_do_not_go_together(options, rule):
    with pytest.raises(ValueError, match=rule):
        DataLoader(Squares(3), **options)


def test_what_is_no_data_set_is_refused():
    with pytest.raises(NotImplementedError, match="__getitem__"):
        DataLoader(iter([1]))
    with pytest.warns(UserWarning, match="pin_memory"):
        DataLoader([1], pin_memory=True)


def test_shuffling_nothing_is_refused():
    with pytest.raises(ValueError, match="positive integer, got 0"):
        DataLoader([], shuffle=True)
