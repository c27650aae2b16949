from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.train.rows.sampling import MixtureSampler


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


kinds = st.lists(st.sampled_from("pt"), min_size=1, max_size=80)


@given(kinds=kinds, batch=st.integers(1, 9), epoch=st.integers(0, 3))
def test_batches_hold_one_group_and_no_group_is_lost(kinds, batch, epoch):
    sampler = MixtureSampler(list(range(len(kinds))), batch, seed=3, groups=kinds)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert len(order) == len(sampler)
    for start in range(0, len(order), batch):
        assert len({kinds[i] for i in order[start : start + batch]}) == 1
    assert {kinds[i] for i in order} == set(kinds)
    for kind, count in Counter(kinds).items():
        seen = Counter(i for i in order if kinds[i] == kind)
        if count >= batch:
            assert set(seen.values()) == {1}
            assert len(seen) == count - count % batch
        else:  # too few for a batch: all are there, and they fill it unless they are alone
            assert len(seen) == count
            assert sum(seen.values()) == (batch if len(set(kinds)) > 1 else count)


def test_groups_keep_the_shares_of_their_sources():
    groups, sources = ["p"] * 20 + ["t"] * 10, (["a", "b"] * 10) + ["b"] * 10
    seen = []
    for epoch in (0, 1):
        sampler = MixtureSampler([1] * 30, 5, sources=sources, shares={"b": 0.5}, groups=groups)
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert len(order) == len(sampler) == 20
        assert Counter((groups[i], sources[i]) for i in order) == {("p", "a"): 10, ("p", "b"): 5, ("t", "b"): 5}
        seen += [i for i in order if sources[i] == "b"]
    assert len(set(seen)) == 20


def test_one_group_is_no_group():
    plain = MixtureSampler(list(range(50)), 8, seed=1, sources=["a", "b"] * 25, shares={"a": 1.5})
    grouped = MixtureSampler(list(range(50)), 8, seed=1, sources=["a", "b"] * 25, shares={"a": 1.5}, groups=["p"] * 50)
    assert list(plain) == list(grouped)
