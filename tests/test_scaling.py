"""How gradients are cut into buckets, and what the model of many machines computes from that."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import comm_overlap
from conftest import ROOT
from mpi import needs_mpi, why_no_machines
from tiny_imagenet.models import zoo
from tiny_imagenet.training import buckets, scaling
from tiny_imagenet.training.scaling import Layer, Link

LAYERS = [Layer(1000, 9e6), Layer(2_000_000, 9e6), Layer(50, 2e6)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 5000), min_size=1, max_size=12),
    st.integers(1, 3000),
    st.integers(1, 300),
)
def test_buckets_hold_every_value_once_and_leave_when_they_are_whole(sizes, largest, smallest):
    smallest = min(smallest, largest)
    made = buckets.layout([(layer, size) for layer, size in enumerate(sizes)], largest, smallest)
    values = [(part.parameter, n) for bucket in made for part in bucket.parts for n in range(part.begin, part.end)]
    assert sorted(values) == [(number, n) for number, size in enumerate(sizes) for n in range(size)]
    for bucket in made:
        assert 0 < bucket.size <= largest
        assert bucket.layer == min(part.parameter for part in bucket.parts)
    assert [bucket.layer for bucket in made] == sorted((bucket.layer for bucket in made), reverse=True)
    if made:
        assert made[-1].size <= smallest


@pytest.mark.parametrize("name", zoo.MODELS)
def test_the_nets_of_the_paper_travel_whole(name):
    layers = comm_overlap.layers(name)
    made = buckets.layout([(number, layer.parameters) for number, layer in enumerate(layers)])
    count = sum(bucket.size for bucket in made)
    assert count == sum(layer.parameters for layer in layers) == zoo.MODELS[name].parameters
    assert 4 * made[-1].size <= 256 << 10 and max(4 * bucket.size for bucket in made) <= 4 << 20
    assert f"| {count:,} | {4 * count:,} |" in "\n".join(comm_overlap.bytes_table())


def test_an_average_takes_its_steps_and_its_bytes():
    link = Link(bandwidth=1e6, latency=0.01)
    assert scaling.average_seconds(10**6, 1, link) == 0
    assert scaling.average_seconds(10**6, 2, link) == pytest.approx(2 * 0.01 + 1)
    assert scaling.average_seconds(10**6, 3, link) == pytest.approx(4 * 0.01 + 4 / 3)
    assert scaling.average_seconds(10**6, 64, link) == pytest.approx(12 * 0.01 + 2 * 63 / 64)


def test_what_no_link_hinders_only_computes():
    alone = scaling.iteration(LAYERS, 0.3, 1, Link(1, 1))
    assert (alone.seconds, alone.waiting, alone.efficiency, alone.hidden) == (0.3, 0, 1, 1)
    fast = scaling.iteration(LAYERS, 0.3, 8, Link(1e15, 0))
    assert fast.seconds == pytest.approx(0.3)


def test_a_link_that_is_all_there_is_hides_nothing():
    link = Link(1e6, 0)
    found = scaling.iteration(LAYERS, 1e-9, 2, link)
    assert found.waiting == pytest.approx(found.sending) == 4 * sum(layer.parameters for layer in LAYERS) / 1e6
    assert found.hidden == pytest.approx(0, abs=1e-6)


def test_the_top_layers_hide_behind_those_below():
    """A net of two layers, one bucket each: the top one's travels while the bottom one is computed."""
    net = [Layer(buckets.SMALLEST, 1e6), Layer(2 * buckets.SMALLEST, 1e6)]
    link = Link(4 * 2 * buckets.SMALLEST, 0)  # a second for the upper layer's, half of one for the lower one's
    found = scaling.iteration(net, 3.0, 2, link)  # a second each: forward, back through the upper one, the lower one
    assert (found.sending, found.waiting, found.seconds) == pytest.approx((1.5, 0.5, 3.5))
    assert found.hidden == pytest.approx(2 / 3)


def test_the_tables_are_what_the_model_computes():
    text = (ROOT / "python" / "tiny_imagenet" / "cluster" / "README.md").read_text()
    for name, lines in comm_overlap.tables().items():
        assert "\n".join(lines) in text, f"the table of {name}: tests/comm_overlap.py --table has it anew"


@pytest.mark.slow
@needs_mpi
@pytest.mark.skipif(bool(os.geteuid()), reason="network namespaces need root")
@pytest.mark.parametrize("ranks", [2, 3])
def test_the_model_is_near_what_a_slow_link_takes(ranks, data):
    if why := why_no_machines():
        pytest.skip(why)
    mbit = 60
    each, found = comm_overlap.measure("model1", mbit, ranks, 6 * ranks, 4, data)
    link = Link(mbit * 1e6 / 8, comm_overlap.LATENCY)
    expected = scaling.iteration(comm_overlap.layers("model1"), each - found["waited"], ranks, link)
    assert found["seconds"] == pytest.approx(expected.sending, rel=0.3)
    assert found["waited"] == pytest.approx(expected.waiting, rel=0.3)
