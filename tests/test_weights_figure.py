import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import caffe
import cv2
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from conftest import ROOT
from tiny_imagenet.errors import NetError, RunError
from tiny_imagenet.models import derive, nets, zoo
from tiny_imagenet.report import figures, weights_figure
from tiny_imagenet.runs import Run

# Model 5's kinds of layers in a net that takes a moment.
ROW = zoo.MODELS["model5"].replace(convs="3-20 3-4 | 3-4 | 3-8 |", hidden=(8,), classes=10)
LAYERS = {"prelu1_1": 20, "prelu1_2": 4, "prelu2_1": 4, "prelu3_1": 8}


def save_run(path, net, model="model5"):
    """A run folder with one checkpoint: the net (a message) with what its fillers give."""
    weights = path / "checkpoints" / "3" / "weights.caffemodel"
    weights.parent.mkdir(parents=True)
    (path / "checkpoints" / "best").symlink_to("3")
    (path / "deploy.prototxt").write_text(nets.to_text(net))
    (path / "run.json").write_text(json.dumps({"model": model}))
    caffe.Net(str(path / "deploy.prototxt"), caffe.TEST).save(str(weights))
    return Run(path)


def set_weights(run, **values):
    """Write values (layer=array) into the first blobs of layers of the run's weights."""
    net = weights_figure.load(run.deploy, run.weights())
    for layer, value in values.items():
        net.params[layer][0].data[...] = value
    net.save(str(run.weights()))


@pytest.fixture(scope="module")
def learnt():
    generator = np.random.default_rng(0)
    return {layer: generator.normal(0.3, 0.1, count).astype(np.float32) for layer, count in LAYERS.items()}


@pytest.fixture(scope="module")
def kept(tmp_path_factory, learnt):
    run = save_run(tmp_path_factory.mktemp("prelu") / "run", derive.deploy(nets.build(ROW)))
    set_weights(run, **learnt)
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


def test_filters_have_the_colours_that_they_answer_to(run):
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
    assert title == "model5, conv1_1: 20 filters of 3x3 pixels"
    assert "grey is 0" in caption and "+0.5," in caption and "\N{MINUS SIGN}0.5" in caption
    assert [axes.texts[0].get_text() for axes in figure.axes if axes.texts] == ["0", "16"]
    assert figure.get_figwidth() <= 7
    assert all(text.get_fontsize() >= 7 for text in [*figure.texts, *figure.axes[0].texts])


def test_filters_are_the_weights_on_one_scale(run):
    values = weights_figure.load(run.deploy, run.weights()).params["conv1_1"][0].data.copy()
    for tile, own in zip(tiles(weights_figure.filters(run.deploy, run.weights())), values):
        expected = own[[2, 1, 0]].transpose(1, 2, 0) / np.abs(values).max()
        assert 2 * tile - 1 == pytest.approx(expected, abs=1e-6)


def test_filters_that_are_all_zero_are_grey():
    assert (np.array(tiles(weights_figure.plot_filters(np.zeros((2, 5, 7, 3)), "a"))) == 0.5).all()


def test_nets_without_filters_to_show_are_refused(run, tmp_path):
    start = 'name: "a" layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: %d %s } } }\n'
    dense = 'layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 2 } }'
    conv = (
        'layer { name: "conv" type: "Convolution" bottom: "data" top: "c" '
        "convolution_param { num_output: 2 kernel_size: 3 } }"
    )
    for text, message in (
        (start % (3, "") + dense, "the net has no Convolution layer: there are no filters to show"),
        (start % (4, "dim: 8 dim: 8") + conv, r"layer conv has filters of shape \(4, 3, 3\), not \(3, height, width\)"),
    ):
        (tmp_path / "a.prototxt").write_text(text)
        with pytest.raises(NetError, match=message):
            weights_figure.first_filters(caffe.Net(str(tmp_path / "a.prototxt"), caffe.TEST))
    with pytest.raises(NetError, match="has weights of no layer of the net"):
        weights_figure.filters(tmp_path / "a.prototxt", run.weights())
    part = weights_figure.load(run.deploy, run.weights())
    text = run.deploy.read_text().replace('name: "conv1_1"', 'name: "conv1_new"')
    (tmp_path / "a.prototxt").write_text(text)
    with pytest.raises(NetError, match="has no weights for layer conv1_new of"):
        weights_figure.filters(tmp_path / "a.prototxt", run.weights())
    part.params["conv1_1"][0].data[0, 0, 0, 0] = np.nan
    part.save(str(run.weights()))
    with pytest.raises(NetError, match="a: layer conv1_1 has weights that are not finite: the net has diverged"):
        weights_figure.filters(run.deploy, run.weights(), "a")


# --- slopes ---


def test_slopes_are_drawn_as_they_were_learnt(run, learnt):
    found = weights_figure.learnt_slopes(weights_figure.load(run.deploy, run.weights()))
    assert list(found) == list(LAYERS)
    (axes,) = weights_figure.slopes({"model5": run}).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == list(LAYERS)
    points = [line for line in axes.lines if line.get_marker() == "o"]
    medians = [line for line in axes.lines if line.get_linewidth() == 2]
    starts = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert len(points) == len(medians) == len(starts) == 4
    for place, (layer, dots, median, start) in enumerate(zip(LAYERS, points, medians, starts)):
        assert found[layer] == pytest.approx(learnt[layer])
        assert dots.get_ydata() == pytest.approx(learnt[layer])
        assert abs(dots.get_xdata() - place).max() < 0.5
        assert median.get_ydata() == pytest.approx([np.median(learnt[layer])] * 2)
        assert start.get_ydata() == pytest.approx([0.25, 0.25])


def test_the_start_is_what_the_filler_says(tmp_path):
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
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "at the start (0.1, 0.25)"]
    found = weights_figure.learnt_slopes(weights_figure.load(run.deploy, run.weights()))
    assert found["prelu1_1"] == pytest.approx([0.1] * 20) and found["prelu2_1"].tolist() == [0.25]


def test_several_runs_stand_side_by_side(run):
    figure = weights_figure.slopes({"a": run, "b": run})
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [to_hex(line.get_color()).upper() for line in points] == [figures.PALETTE[0]] * 4 + [figures.PALETTE[1]] * 4
    assert points[0].get_xdata().max() < points[4].get_xdata().min() and points[4].get_xdata().max() < 0.5
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == ["a", "b"]
    with pytest.raises(NetError, match="7 runs: from 1 to 6 can be told apart in one figure"):
        weights_figure.slopes({str(number): run for number in range(7)})


def test_a_narrow_figure_keeps_its_texts_apart(run):
    layers = {f"prelu{number}_1": np.linspace(0.1, 0.4, 9) for number in range(1, 7)}
    figure = weights_figure.plot_slopes({"model5 (one)": layers, "model5 (two)": layers}, {}, width=3.3)
    figures.svg(figure)
    renderer = FigureCanvasAgg(figure).get_renderer()
    (axes,) = figure.axes
    boxes = [label.get_window_extent(renderer) for label in axes.get_xticklabels()]
    assert not any(one.overlaps(other) for one, other in zip(boxes, boxes[1:]))
    note = axes.xaxis.label.get_window_extent(renderer)
    assert figure.get_figwidth() == 3.3 and note.x0 >= 0 and note.x1 <= figure.bbox.x1
    assert weights_figure.slopes({"a": run}, width=5).get_figwidth() == 5


def test_a_net_without_prelu_and_one_that_diverged_are_refused(run, relu):
    with pytest.raises(NetError, match=r"run has no PReLU layer, .* \(it has ReLU\): model5 has some"):
        weights_figure.slopes({"a": run, "b": relu})
    with pytest.raises(RunError, match="has no checkpoint 'last'"):
        weights_figure.slopes({"a": run}, "last")
    set_weights(run, prelu2_1=np.nan)
    with pytest.raises(NetError, match="layer prelu2_1 has slopes that are not finite: the net has diverged"):
        weights_figure.slopes({"a": run})


# --- the script ---


def script(*arguments, cwd):
    command = [sys.executable, str(ROOT / "tools" / "visualize.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_script_draws_what_another_process_draws(kept, tmp_path):
    named = ["--net", kept.deploy, "--weights", kept.weights()]
    for arguments, figure, ending in (
        (["filters", *named], lambda: weights_figure.filters(kept.deploy, kept.weights()), ".png"),
        (["slopes", kept.path], lambda: weights_figure.slopes({"model5": kept}), ".svg"),
    ):
        figures.save(figure(), tmp_path / f"a{ending}")
        done = script(*arguments, "--out", f"b{ending}", cwd=tmp_path)
        assert (done.returncode, done.stderr, done.stdout) == (0, "", f"b{ending}\n")
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()
    assert cv2.imread(str(tmp_path / "b.png")).shape[1] > 1350
    nodes = ElementTree.parse(tmp_path / "b.svg").iter("{http://www.w3.org/2000/svg}text")
    assert {*LAYERS, "at the start (0.25)"} <= {"".join(node.itertext()) for node in nodes}
    for ending in (".png", ".svg"):  # the other way round
        figure = weights_figure.slopes({"model5": kept}) if ending == ".png" else weights_figure.filters(*named[1::2])
        figures.save(figure, tmp_path / f"c{ending}")
    assert cv2.imread(str(tmp_path / "c.png")).shape[1] in range(1300, 1420)
    assert "conv1_1: 20 filters" in (tmp_path / "c.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["filters", "--net", "a"], 2, "give a run folder or --net with --weights, not both"),
        (["filters", "RUN", "--net", "a"], 2, "give a run folder or --net with --weights, not both"),
        (["slopes", "RELU"], 1, "has no PReLU layer"),
        (["filters", "RUN", "--checkpoint", "7"], 1, "has no checkpoint '7': it has best, 3"),
    ],
)
def test_the_script_refuses_in_one_line(kept, relu, tmp_path, arguments, status, message):
    named = {"RUN": kept.path, "RELU": relu.path}
    done = script(*(named.get(argument, argument) for argument in arguments), "--out", "a.png", cwd=tmp_path)
    assert done.returncode == status and message in done.stderr
    assert done.stderr.startswith("visualize.py") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
