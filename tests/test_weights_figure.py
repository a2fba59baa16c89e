"""Filters and PReLU slopes as figures."""

import json
import shutil

import caffe
import numpy as np
import pytest
from matplotlib.colors import to_hex

from tiny_imagenet.errors import NetError, RunError
from tiny_imagenet.models import derive, nets, zoo
from tiny_imagenet.report import figures, weights_figure
from tiny_imagenet.runs import Run

# A small net with the layers of model 5.
ROW = zoo.MODELS["model5"].replace(convs="3-20 3-4 | 3-4 | 3-8 |", hidden=(8,), classes=10)
LAYERS = {"prelu1_1": 20, "prelu1_2": 4, "prelu2_1": 4, "prelu3_1": 8}


def save_run(path, net, model="model5"):
    """Write a run folder with one checkpoint: the net (a message) with the weights of its fillers."""
    weights = path / "checkpoints" / "3" / "weights.caffemodel"
    weights.parent.mkdir(parents=True)
    (path / "checkpoints" / "best").symlink_to("3")
    (path / "deploy.prototxt").write_text(nets.to_text(net))
    (path / "run.json").write_text(json.dumps({"model": model}))
    caffe.Net(str(path / "deploy.prototxt"), caffe.TEST).save(str(weights))
    return Run(path)


def load(run):
    return caffe.Net(str(run.deploy), caffe.TEST, weights=str(run.weights()))


def set_weights(run, **values):
    """Write values (layer=array) into the first blobs of layers of the run's weights."""
    net = load(run)
    for layer, value in values.items():
        net.params[layer][0].data[...] = value
    net.save(str(run.weights()))


@pytest.fixture(scope="module")
def drawn():
    generator = np.random.default_rng(0)
    return {layer: generator.normal(0.3, 0.1, count).astype(np.float32) for layer, count in LAYERS.items()}


@pytest.fixture(scope="module")
def kept(tmp_path_factory, drawn):
    run = save_run(tmp_path_factory.mktemp("prelu") / "run", derive.deploy(nets.build(ROW)))
    set_weights(run, **drawn)
    return run


@pytest.fixture
def run(kept, tmp_path):
    return Run(shutil.copytree(kept.path, tmp_path / "run", symlinks=True))


@pytest.fixture(scope="module")
def relu(tmp_path_factory):
    row = ROW.replace(activation="ReLU")
    return save_run(tmp_path_factory.mktemp("relu") / "run", derive.deploy(nets.build(row)), "model1")


def tiles(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


# --- filters ---


def test_filters_have_the_colours_that_they_respond_to(run):
    weights = np.zeros((20, 3, 3, 3), np.float32)
    weights[0, 0] = 0.5  # B
    weights[1, 1] = 0.25  # G
    weights[2, 2] = -0.5  # R
    weights[3, 2, 0, 1] = 0.1  # R, first row, second column
    set_weights(run, conv1_1=weights)
    figure = weights_figure.filters(run.deploy, run.weights(), "model5")
    shown = tiles(figure)
    assert len(shown) == 20 and {tile.shape for tile in shown} == {(3, 3, 3)}
    assert shown[0][1, 1] == pytest.approx([0.5, 0.5, 1])  # blue
    assert shown[1][1, 1] == pytest.approx([0.5, 0.75, 0.5])  # half as green: one scale for all
    assert shown[2][1, 1] == pytest.approx([0, 0.5, 0.5])  # no red
    assert shown[3][0, 1] == pytest.approx([0.6, 0.5, 0.5]) and shown[3][1, 0] == pytest.approx([0.5] * 3)
    assert (shown[4] == 0.5).all()
    title, caption = (text.get_text() for text in figure.texts)
    assert title == "model5, conv1_1: 20 filters of 3x3 pixels" and "+0.5," in caption
    assert [axes.texts[0].get_text() for axes in figure.axes if axes.texts] == ["0", "16"]


def test_filters_are_the_weights_on_one_scale(run):
    values = load(run).params["conv1_1"][0].data.copy()
    for tile, own in zip(tiles(weights_figure.filters(run.deploy, run.weights())), values):
        expected = own[[2, 1, 0]].transpose(1, 2, 0) / np.abs(values).max()
        assert 2 * tile - 1 == pytest.approx(expected, abs=1e-6)


def test_filters_that_are_all_zero_are_grey():
    assert (np.array(tiles(weights_figure.plot_filters(np.zeros((2, 5, 7, 3)), "a"))) == 0.5).all()


def test_nets_without_colour_filters_are_rejected(run, tmp_path):
    start = 'name: "a" layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: %d %s } } }\n'
    dense = 'layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 2 } }'
    conv = (
        'layer { name: "conv" type: "Convolution" bottom: "data" top: "c" '
        "convolution_param { num_output: 2 kernel_size: 3 } }"
    )
    for text, named in (
        (start % (3, "") + dense, "Convolution"),
        (start % (4, "dim: 8 dim: 8") + conv, "conv: .*4, 3, 3"),
    ):
        (tmp_path / "a.prototxt").write_text(text)
        with pytest.raises(NetError, match=named):
            weights_figure.first_filters(caffe.Net(str(tmp_path / "a.prototxt"), caffe.TEST))
    set_weights(run, conv1_1=np.nan)
    with pytest.raises(NetError, match="a: layer conv1_1"):
        weights_figure.filters(run.deploy, run.weights(), "a")


# --- slopes ---


def test_slopes_are_drawn_as_trained(run, drawn):
    found = weights_figure.trained_slopes(load(run))
    assert list(found) == list(LAYERS)
    (axes,) = weights_figure.slopes({"model5": run}).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == list(LAYERS)
    points = [line for line in axes.lines if line.get_marker() == "o"]
    medians = [line for line in axes.lines if line.get_linewidth() == 2]
    starts = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert len(points) == len(medians) == len(starts) == 4
    for place, (layer, dots, median, start) in enumerate(zip(LAYERS, points, medians, starts)):
        assert found[layer] == pytest.approx(drawn[layer])
        assert dots.get_ydata() == pytest.approx(drawn[layer])
        assert abs(dots.get_xdata() - place).max() < 0.5
        assert median.get_ydata() == pytest.approx([np.median(drawn[layer])] * 2)
        assert start.get_ydata() == pytest.approx([0.25, 0.25])


def test_the_initial_slope_is_the_filler_s(tmp_path):
    net = derive.deploy(nets.build(ROW))
    first, second, third, _ = [layer for layer in net.layer if layer.type == "PReLU"]
    first.prelu_param.filler.type, first.prelu_param.filler.value = "constant", 0.1
    second.prelu_param.filler.type = "gaussian"
    third.prelu_param.channel_shared = True
    run = save_run(tmp_path / "run", net)
    starts = {"prelu1_1": pytest.approx(0.1), "prelu1_2": None, "prelu2_1": 0.25, "prelu3_1": 0.25}
    assert weights_figure.initial_slopes(run.deploy) == starts
    figure = weights_figure.slopes({"a": run})
    assert len([line for line in figure.axes[0].lines if line.get_linestyle() == "--"]) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "before training (0.1, 0.25)"]
    found = weights_figure.trained_slopes(load(run))
    assert found["prelu1_1"] == pytest.approx([0.1] * 20) and found["prelu2_1"].tolist() == [0.25]


def test_several_runs_are_next_to_each_other(run):
    figure = weights_figure.slopes({"a": run, "b": run})
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [to_hex(line.get_color()).upper() for line in points] == [figures.PALETTE[0]] * 4 + [figures.PALETTE[1]] * 4
    assert points[0].get_xdata().max() < points[4].get_xdata().min() and points[4].get_xdata().max() < 0.5
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == ["a", "b"]
    with pytest.raises(NetError, match="7"):
        weights_figure.slopes({str(number): run for number in range(7)})


def test_nets_without_prelu_and_diverged_ones_are_rejected(run, relu):
    with pytest.raises(NetError, match="PReLU"):
        weights_figure.slopes({"a": run, "b": relu})
    with pytest.raises(RunError, match="'last'"):
        weights_figure.slopes({"a": run}, "last")
    set_weights(run, prelu2_1=np.nan)
    with pytest.raises(NetError, match="prelu2_1"):
        weights_figure.slopes({"a": run})


def test_the_script_draws_the_same_as_the_library(kept, tmp_path, tool):
    named = ["--net", kept.deploy, "--weights", kept.weights()]
    for arguments, figure in (
        (["filters", *named], weights_figure.filters(kept.deploy, kept.weights())),
        (["slopes", kept.path, "--width", 5], weights_figure.slopes({"model5 (run)": kept}, width=5)),
    ):
        figures.save(figure, tmp_path / "a.svg")
        tool("visualize", *arguments, "--out", "b.svg", cwd=tmp_path)
        assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    tool("visualize", "filters", kept.path, "--checkpoint", "7", "--out", "b.svg", cwd=tmp_path, fails=1)
