"""The report's table as a whole: what is scored on what, means over seeds, several data sets, what does best."""

import json
import re
import statistics
from pathlib import Path

import numpy as np
import pytest

from test_report import build, change, make_ensemble, make_run, row
from tiny_imagenet.evaluation import ensemble, pedigree, predictions
from tiny_imagenet.report import curves, folders
from tiny_imagenet.report.curves_figure import Line

TEN = "ten: four corners, centre, and their mirrors"


def make_runs(folder, *names, **more):
    return [make_run(folder / name, name, seed=seed, **more) for seed, name in enumerate(names, 1)]


def relabel(run, **meta):
    """Put values into the meta of a run's predictions."""
    given = predictions.load(run / "predictions.npz")
    given.meta.update(meta)
    predictions.save(run / "predictions.npz", given)


def lede(text):
    return [
        " ".join(re.sub("<[^>]*>", "", part).split()) for part in re.findall('<p class="lede">(.*?)</p>', text, re.S)
    ]


# --- what is scored ---


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ({"split": "train"}, "train split, centre crop"),
        ({"split": "test"}, "test split, centre crop"),
        ({"crops": TEN}, "ten crops"),
        ({"split": "train", "crops": TEN}, "train split, ten crops"),
    ],
)
def test_an_ensemble_of_anything_else_is_labelled_and_has_no_figure_beside_it(tmp_path, meta, says):
    runs = make_runs(tmp_path, "model8", "model9", classes=200)
    _text, page = build(tmp_path, runs, [make_ensemble(tmp_path / "e.json", *runs)])
    assert row(page, "Ensemble of model8 + model9")[3] == "61.23"
    for run in runs:
        relabel(run, **meta)
    _text, page = build(tmp_path, runs, [make_ensemble(tmp_path / "e.json", *runs)])
    assert row(page, f"Ensemble of model8 + model9 {says}")[3] == "-"


def test_members_of_different_crops_are_labelled(tmp_path):
    runs = make_runs(tmp_path, "model8", "model9", classes=200)
    relabel(runs[0], crops=TEN)
    _text, page = build(tmp_path, runs, [make_ensemble(tmp_path / "e.json", *runs)])
    assert row(page, "Ensemble of model8 + model9 mixed crops")[3] == "-"


def test_a_file_that_does_not_say_what_its_members_are_of_is_shown_so(tmp_path):
    runs = make_runs(tmp_path, "model8", "model9", classes=200)
    change(make_ensemble(tmp_path / "e.json", *runs), split=None, crops=None)
    page = build(tmp_path, runs, [tmp_path / "e.json"])[1]
    assert row(page, "Ensemble of model8 + model9 unknown split and crops")[3] == "-"


def test_an_ensemble_without_labels_says_so(tmp_path):
    runs = make_runs(tmp_path, "model8", "model9")
    members = [predictions.load(run / "predictions.npz") for run in runs]
    for member in members:
        member.labels[:] = -1
        member.meta["split"] = "test"
    (tmp_path / "e.json").write_text(json.dumps(ensemble.describe(members, ensemble.average(members))))
    _text, page = build(tmp_path, runs, [tmp_path / "e.json"])
    cells = row(page, "Ensemble of model8 + model9 test split, centre crop")
    assert cells[1] == "no labels to score with" and "0" not in cells


def test_ten_crops_have_a_row_of_their_own_without_the_papers_figure(tmp_path):
    (run,) = make_runs(tmp_path, "model8", classes=200)
    evaluation = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation_tencrop.json").write_text(json.dumps({**evaluation, "crops": TEN, "top1": 0.99}))
    text, page = build(tmp_path, [run])
    assert row(page, "model8")[3] == "46.45" and row(page, "model8 ten crops")[1:4:2] == ["99.00", "-"]
    assert "99.00" not in lede(text)[0]
    (run / "evaluation_tencrop.json").write_text("[]")
    with pytest.raises(Exception, match=r"evaluation_tencrop\.json: .*--ten-crop"):
        build(tmp_path, [run])


def test_uneven_weights_have_not_the_papers_figure(tmp_path):
    runs = make_runs(tmp_path, "model8", "model9", classes=200)
    file = make_ensemble(tmp_path / "e.json", *runs, weights=[3, 1])
    assert row(build(tmp_path, runs, [file])[1], "Ensemble of model8 + model9")[3] == "-"


# --- what has moved on ---


def checkpoints(run, best):
    for iteration in (100, 200):
        (run / "checkpoints" / str(iteration)).mkdir(parents=True, exist_ok=True)
        (run / "checkpoints" / str(iteration) / "weights.caffemodel").write_text("")
    (run / "checkpoints" / "best").unlink(missing_ok=True)
    (run / "checkpoints" / "best").symlink_to(str(best))


def test_scores_of_an_earlier_best_are_told(tmp_path):
    runs = make_runs(tmp_path, "model8", "model9")
    file = make_ensemble(tmp_path / "e.json", *runs)
    evaluation = json.loads((runs[0] / "evaluation.json").read_text())
    (runs[0] / "evaluation_tencrop.json").write_text(json.dumps({**evaluation, "crops": TEN}))
    for run in runs:
        checkpoints(run, 200)
    text, page = build(tmp_path, runs, [file])
    assert "§" not in text
    checkpoints(runs[0], 100)
    text, page = build(tmp_path, runs, [file])
    assert row(page, "model8§") and row(page, "model8§ ten crops") and row(page, "model9")
    assert row(page, "Ensemble of model8 + model9§")
    moved = "of iteration 200, best is 100 by now"
    assert f"model8 was scored with the weights {moved}: run tools/evaluate.py {runs[0]}." in text
    assert f"{moved}: run tools/evaluate.py {runs[0]} --ten-crop." in text
    assert f"In the ensemble of model8 + model9 model8 is {moved}" in text


# --- a search ---


def test_held_out_scores_stand_below_a_search(tmp_path):
    runs = make_runs(tmp_path, "model8", "model9", classes=200)
    file = make_ensemble(tmp_path / "e.json", *runs, search=True)
    text, page = build(tmp_path, runs, [file])
    assert "--folds 5" in text and "Held out" not in text
    members = [predictions.load(run / "predictions.npz") for run in runs]
    held = ensemble.hold_out(members, 4, seed=3)
    change(file, held_out={"folds": [{}] * 4, "seed": 3, "top1": held.top1, "top1_interval": held.top1_interval})
    text, page = build(tmp_path, runs, [file])
    cells = row(page, "the same held out, 4 folds")
    assert cells[1] == f"{100 * held.top1:.2f}" and cells[3] == "-"
    assert row(page, "Ensemble of model8 + model9‡")[3] == "-"
    assert "Held out, each image is scored with weights that were chosen without it" in text
    assert "--search --folds 4 --seed 3 --json" in text
    assert "The best ensemble" not in text and "The ensemble of" not in text  # an optimistic score is not ranked


# --- seeds ---


def test_runs_that_differ_in_their_seed_are_grouped():
    info = {"batch": 50, "base_lr": 0.1}
    runs = [
        ("model1", {**info, "seed": 1}),
        ("model2", {**info, "seed": 1}),
        ("model1", {**info, "seed": 2}),
        ("model1", {**info, "seed": 3, "base_lr": 0.2}),
        ("model1", {**info, "seed": 1}),
        ("model1", {**info}),
    ]
    several = [folders.Run(Path("run"), {**own, "model": model}, [], {}, {}, None) for model, own in runs]
    assert folders.groups(several) == [[0, 2], [1], [3], [4], [5]]


def test_the_mean_over_seeds_has_a_row_above_its_runs(tmp_path):
    runs = [make_run(tmp_path / "model8" / f"seed{seed}", "model8", 200, seed) for seed in (1, 2, 3)]
    runs.append(make_run(tmp_path / "model9", "model9", 200, 4))
    text, page = build(tmp_path, runs)
    values = [100 * json.loads((run / "evaluation.json").read_text())["top1"] for run in runs]
    mean, deviation = statistics.fmean(values[:3]), statistics.stdev(values[:3])
    cells = row(page, "model8, mean of 3 seeds")
    assert cells[1:4] == [f"{mean:.2f}", f"± {deviation:.2f}", "46.45"]
    names = [cells[0] for cells in page.rows]
    at = names.index("model8, mean of 3 seeds")
    assert names[at + 1 : at + 5] == ["model8 (seed1)", "model8 (seed2)", "model8 (seed3)", "model9"]
    assert "“±” is the standard deviation over the seeds" in text
    worst = next(cells for cells in page.rows if cells[:2] == ["Class", "No."])
    columns = sorted([(-mean, "model8, mean of 3 seeds"), (-values[3], "model9")])
    assert worst[4:] == [name for _, name in columns]  # the best first, and one for all seeds
    if max(values) in values[:3]:
        assert (
            f"The mean over its model\N{RIGHT SINGLE QUOTATION MARK}s 3 seeds is {mean:.2f} ± {deviation:.2f}"
            in lede(text)[0]
        )


def test_other_settings_or_data_are_no_seeds(tmp_path):
    runs = [make_run(tmp_path / f"{seed}", "model8", seed=seed, base_lr=seed) for seed in (1, 2)]
    assert "mean of" not in build(tmp_path, runs)[0]
    runs = [make_run(tmp_path / f"same{seed}", "model8", seed=seed) for seed in (1, 2)]
    assert "mean of 2 seeds" in build(tmp_path, runs)[0]
    given = predictions.load(runs[0] / "predictions.npz")
    predictions.save(runs[0] / "predictions.npz", predictions.Predictions(given.keys[:-1], *rest(given)))
    assert "mean of" not in build(tmp_path, runs)[0]


def rest(given):
    return given.labels[:-1], given.probabilities[:-1], given.meta


# --- several sets of images ---


def other_images(run):
    """Let a run be of other images, as many."""
    given = predictions.load(run / "predictions.npz")
    keys = np.array([key.replace("val", "other") for key in given.keys.tolist()])
    predictions.save(
        run / "predictions.npz", predictions.Predictions(keys, given.labels, given.probabilities, given.meta)
    )


def test_runs_on_other_images_are_ranked_for_themselves(tmp_path):
    runs = make_runs(tmp_path, "model1", "model2", "model3")
    text, _page = build(tmp_path, runs)
    assert len(lede(text)) == 1 and "On images" not in text
    other_images(runs[1])
    change(runs[1] / "evaluation.json", top1=0.999, data="elsewhere")
    text, page = build(tmp_path, runs)
    first, second = lede(text)
    assert first.startswith("On images 1, model") and second.startswith("On images 2, model2 does best")
    assert row(page, "model2 images 2") and row(page, "model1 images 1") and row(page, "model3 images 1")
    assert "images 2 are 200 of 10 classes (<code>elsewhere</code>)" in text
    worst = next(cells for cells in page.rows if cells[:2] == ["Class", "No."])
    assert sorted(worst[4:]) == ["model1", "model3"]
    assert 'class="run best"' in text and text.count('class="run best"') == 2


def test_images_that_nobody_knows_the_records_of_join_those_of_their_number(tmp_path):
    runs = make_runs(tmp_path, "model1", "model2")
    (runs[0] / "predictions.npz").unlink()
    assert len(lede(build(tmp_path, runs)[0])) == 1
    change(runs[0] / "evaluation.json", count=199)
    assert len(lede(build(tmp_path, runs)[0])) == 2


def test_run_json_knows_the_records_where_the_predictions_are_gone(tmp_path):
    runs = make_runs(tmp_path, "model1", "model2")
    records = pedigree.records(predictions.load(runs[1] / "predictions.npz"))
    (runs[0] / "predictions.npz").unlink()
    for sha256, sets in ((records, 1), ("another", 2)):
        change(runs[0] / "run.json", lmdbs={"val": {"count": 200, "sha256": sha256}})
        assert len(lede(build(tmp_path, runs)[0])) == sets
    change(runs[0] / "evaluation.json", data="another than that of run.json")
    assert len(lede(build(tmp_path, runs)[0])) == 1


def test_the_best_ensemble_is_in_the_first_sentences(tmp_path):
    runs = make_runs(tmp_path, "model8", "model9")
    file = make_ensemble(tmp_path / "e.json", *runs)
    tops = [json.loads((run / "evaluation.json").read_text())["top1"] for run in runs]
    together = json.loads(file.read_text())["ensemble"]["top1"]
    assert together > max(tops)
    best = ("model8", "model9")[int(np.argmax(tops))]
    (said,) = lede(build(tmp_path, runs, [file])[0])
    assert said.startswith(f"The ensemble of model8 + model9 does best: top-1 accuracy {100 * together:.2f}&nbsp;%")
    assert f"The best single run is {best} with {100 * max(tops):.2f} %." in said.replace("&nbsp;", " ")
    content = json.loads(file.read_text())
    change(file, ensemble={**content["ensemble"], "top1": 0.01})
    (said,) = lede(build(tmp_path, runs, [file])[0])
    assert said.startswith(f"{best} does best") and "The best ensemble, of model8 + model9, has 1.00" in said


# --- names of ensembles ---


def test_ensembles_of_one_name_are_told_apart_and_long_ones_counted(tmp_path):
    runs = [make_run(tmp_path / f"seed{seed}", "model1", seed=seed) for seed in range(5)]
    for seed in (1, 2):
        (tmp_path / f"e{seed}").mkdir()
        make_ensemble(tmp_path / f"e{seed}" / "e.json", runs[0], runs[1])
    files = [tmp_path / "e1" / "e.json", tmp_path / "e2" / "e.json", make_ensemble(tmp_path / "all.json", *runs)]
    text, page = build(tmp_path, runs, files)
    for seed in (1, 2):
        assert row(page, f"Ensemble of model1 (seed0) + model1 (seed1) (e{seed}/e.json)")
    assert row(page, "Ensemble of 5 members")[-1] == "equal weights"
    assert "<dt>model1 (seed4)</dt><dd>0.2</dd>" in text


def test_members_have_the_names_of_the_page_s_runs(tmp_path):
    runs = [make_run(tmp_path / name, model) for name, model in (("a", "model1"), ("b", "model1"), ("c", "model5"))]
    files = [make_ensemble(tmp_path / "some.json", runs[1], runs[2])]
    text, page = build(tmp_path, runs, files)
    assert row(page, "Ensemble of model1 (b) + model5") and "<dt>model1 (b)</dt><dd>0.5</dd>" in text
    assert row(
        build(tmp_path, runs[:1] + runs[2:], files)[1], "Ensemble of model1 + model5"
    )  # b is no run of this page
    both = tmp_path / "crops.json"  # two of one run: its name would not tell them apart
    given = predictions.load(runs[1] / "predictions.npz")
    ten = predictions.Predictions(given.keys, given.labels, given.probabilities, {**given.meta, "crops": "ten: 10"})
    predictions.save(runs[1] / "predictions_tencrop.npz", ten)
    members = [predictions.load(runs[1] / name) for name in ("predictions.npz", "predictions_tencrop.npz")]
    both.write_text(json.dumps(ensemble.describe(members, ensemble.average(members))))
    page = build(tmp_path, runs, [both])[1]
    assert any("model1 (centre crop) + model1 (ten crops)" in cells[0] for cells in page.rows if cells)


# --- curves ---


def lines(models, seeds):
    records = [{"iteration": n, "train_loss": 1 / n, "top1": n / 40} for n in range(1, 21)]
    return [Line(f"m{m}", f"s{s}" if seeds > 1 else "", records) for m in range(models) for s in range(seeds)]


def test_a_few_lines_are_one_figure_and_many_a_small_one_a_model():
    few = lines(7, 1)
    assert [(part["small"], len(part["figures"])) for part in curves.draw(few, few[0])] == [(False, 1)] * 2
    many = lines(9, 3)
    for part in curves.draw(many, many[4]):
        assert part["small"] and len(part["figures"]) == 9 and part["best"] == "m1 (s1)"
        for number, figure in enumerate(part["figures"]):
            colours = set(re.findall(r"stroke: (#[0-9a-f]{6})", figure))
            assert {"#0072b2", "#d55e00", "#009e73"} <= colours
            assert [f">s{seed}<" in figure for seed in range(3)] == [True] * 3 and f">m{number}<" in figure
    alone = lines(1, 20)
    assert [len(part["figures"]) for part in curves.draw(alone, alone[0])] == [3, 3]


def test_no_two_lines_of_a_figure_look_alike():
    many = lines(1, 7)
    (loss, _top1) = curves.draw(many, many[0])
    plain = re.sub(r"<defs>.*?</defs>", "", loss["figures"][0], flags=re.S)
    styles = re.findall(r'clip-path="[^"]*" style="([^"]*stroke-width: 1\.4[^"]*)"', plain)
    assert len(styles) == len(set(styles)) == 7


def test_a_model_without_records_has_no_figure():
    many = [*lines(8, 1), Line("none", "", [])]
    assert [len(part["figures"]) for part in curves.draw(many, many[0])] == [8, 8]
    assert curves.draw([Line(f"m{n}", "", []) for n in range(9)], Line("m0", "", [])) == []


def test_27_runs_are_a_page_of_nine_models(tmp_path):
    runs = [
        make_run(tmp_path / f"model{m}" / f"seed{s}", f"model{m}", seed=3 * m + s) for m in range(9) for s in range(3)
    ]
    for run in runs:
        change(run / "run.json", seed=int(run.name[4:]))
    text, page = build(tmp_path, runs)
    names = [cells[0] for cells in page.rows]
    assert sum("mean of 3 seeds" in name for name in names) == 9
    assert text.count('aria-label="Training loss of') == 9
    worst = next(cells for cells in page.rows if cells[:2] == ["Class", "No."])
    means = {cells[0]: float(cells[1]) for cells in page.rows if "mean of 3 seeds" in cells[0]}
    shown = [means[name] for name in worst[4:]]
    assert len(shown) == 9 and shown == sorted(shown, reverse=True)
    assert len(page.ids) == len(set(page.ids))
