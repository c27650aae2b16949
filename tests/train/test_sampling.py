from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.train.sampling import MixtureSampler


@given(n=st.integers(1, 200), batch=st.integers(1, 16), epoch=st.integers(0, 5))
def test_an_epoch_is_whole_batches_of_distinct_examples(n, batch, epoch):
    sampler = MixtureSampler(list(range(n)), batch, seed=3)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert len(order) == len(sampler) == (n - n % batch if n >= batch else n)
    assert len(set(order)) == len(order)


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = MixtureSampler([7] * 50, 5, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 1) == order(0, 1)
    assert order(0, 0) != order(0, 1)
    assert order(0, 1) != order(1, 1)


def test_batches_hold_similar_lengths():
    lengths = [i % 100 for i in range(400)]
    order = list(MixtureSampler(lengths, 8))
    spans = [max(b) - min(b) for b in ([lengths[i] for i in order[s : s + 8]] for s in range(0, 400, 8))]
    assert sum(spans) / len(spans) < 15  # 78 on average in random batches


def test_half_a_share_takes_turns():
    sampler = MixtureSampler([1] * 30, 1, sources=["a"] * 10 + ["b"] * 20, shares={"b": 0.5})
    seen = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert Counter("a" if i < 10 else "b" for i in order) == {"a": 10, "b": 10}
        seen += [i for i in order if i >= 10]
    assert sorted(seen) == list(range(10, 30))


def test_a_share_above_one_repeats():
    counts = Counter(MixtureSampler([1] * 10, 1, sources=["a"] * 10, shares={"a": 2.5}))
    assert sum(counts.values()) == 25
    assert set(counts.values()) == {2, 3}


@pytest.mark.parametrize("share", [0.01, 1e-6])
def test_a_tiny_share_still_takes_one(share):
    assert len(MixtureSampler([1] * 5, 1, sources=["a"] * 5, shares={"a": share})) == 1
