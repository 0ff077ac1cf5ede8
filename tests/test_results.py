"""The table of results: figures of every task, and files that are no results refused."""

import pytest

from engine import results as table
from utils.errors import UserError
from utils.files import write_json

ONE = {"mean": 0.5, "std": None, "count": 1}
TWO = {"mean": 0.839, "std": 0.004, "count": 2}
HEAD = {
    "dataset": "ui_prmd",
    "protocol": "cross_subject",
    "encoder": "runs/a/last.tar (pcm3, epoch 3)",
    "stream": "bone",
}
ZERO = {"mpjpe_mm@1": 2.0, "mpjpe_mm@5": 9.96, "mpjpe_mm": 5.0}
MM = {"mean": 12.34, "std": None, "count": 1}


def result(task, **more):
    return {"task": task, **HEAD, **more}


EVERY = {
    "linear": result(
        "classification/linear",
        summary={"last": {"top1": TWO}, "best": {"top1": TWO}},
        label_fraction=None,
        curves={"early": {"x": [50, 100], "mean": [0.4, 0.839], "unit": "% observed"}},
    ),
    "nn": result("retrieval", summary={"knn": {"1": ONE}, "recall": {"5": ONE}, "map": None}),
    "detection": result(
        "detection/sequence", origin="ours, x", summary={k: {"map_a@0.5": ONE} for k in ("last", "best")}
    ),
    "future": result(
        "motion_prediction", zero_velocity=ZERO, summary={"last": {"frozen": {"mpjpe_mm@1": MM, "mpjpe_mm@5": MM}}}
    ),
}


def test_every_task_is_in_the_table(tmp_path, capsys):
    for name, content in EVERY.items():
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "result.json", content)
    write_json(tmp_path / "fused.json", {"rows": [{"name": "weights 1 1", "top1": 0.9}]})
    table.main([*(str(tmp_path / name) for name in (*EVERY, "fused.json")), "--output", str(tmp_path / "table.md")])
    text = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() == text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == list(table.COLUMNS) and len({len(row) for row in rows}) == 1
    task, encoder = "classification/linear", "a/last.tar bone"
    assert rows[2] == ["linear", task, "ui_prmd cross_subject", encoder, "top-1 %", "83.9 ± 0.4", "83.9 ± 0.4", "2"]
    assert rows[3] == ["", "", "", "", "top-1 % at 50 100 (% observed)", "40.0 83.9", "", "2"]
    found = {(row[0], row[4]): row[5] for row in rows}
    assert found["nn", "1-NN %"] == "50.0" and found["detection", "mAP_a@0.5 %"] == "50.0"
    assert found["future", "MPJPE mm at 1 5 frames, zero velocity"] == "2.0 10.0"
    assert found["", "MPJPE mm at 1 5 frames, frozen encoder"] == "12.3 12.3"
    assert found["fused", "top-1 %, weights 1 1"] == "90.0"
    assert "detection/sequence (ours)" in text


def test_what_is_no_result_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        table.main([str(tmp_path / "none.json")])
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(UserError, match="not a result file"):
        table.main([str(tmp_path / "a.json")])
    write_json(tmp_path / "a.json", {"task": "poetry", "summary": {}})
    with pytest.raises(UserError, match="poetry"):
        table.main([str(tmp_path / "a.json")])
    write_json(tmp_path / "a.json", {"task": "retrieval", "summary": {}})
    with pytest.raises(UserError, match="lacks what retrieval writes"):
        table.main([str(tmp_path / "a.json")])


def test_a_pretrained_encoder_without_baselines_is_a_note(tmp_path, capsys):
    pretrained, random = EVERY["nn"], {**EVERY["nn"], "encoder": "random encoder (no --pretrained given)"}
    row = {"name": "raw joints", "kind": "label-free", "linear": ONE, "cosine": ONE, "euclidean": TWO}
    baselines = {"task": "baselines", **{k: HEAD[k] for k in ("dataset", "protocol")}, "rows": [row]}
    elsewhere = {**baselines, "protocol": "cross_quality"}
    for results, missing in (
        ([pretrained], 1),
        ([random], 0),
        ([pretrained, baselines], 0),
        ([pretrained, elsewhere], 1),
    ):
        for i, content in enumerate(results):
            write_json(tmp_path / f"{i}.json", content)
        table.main([str(tmp_path / f"{i}.json") for i in range(len(results))])
        text = capsys.readouterr().out
        command = (
            "note: baselines of ui_prmd cross_subject are missing; this command makes them: python -m engine.baselines"
        )
        assert text.count(command) == missing
    assert "1-NN Euclidean %, raw joints" in text and "83.9 ± 0.4" in text


def seeds_of(root, differing=None):
    """Three pretrainings by their arguments, and a linear evaluation and a retrieval of each."""
    for seed, share in ((1, 0.80), (2, 0.82), (3, 0.84)):
        run_folder = root / f"joint_seed{seed}"
        told = {"seed": seed, "checkpoint_path": str(run_folder), "epochs": 24, "lr": 0.02, "threads": seed}
        told |= differing if differing and seed == 2 else {}
        for name in ("linear", "nearest", "linear/earlier-2020"):
            (run_folder / name).mkdir(parents=True)
        write_json(run_folder / "arguments.json", [{"arguments": told}])
        head = {"dataset": "ntu60", "protocol": "cross_view", "stream": "joint"}
        head["encoder"] = f"{run_folder}/checkpoint_last.pth.tar (pcm3, epoch 24)"
        one = {"mean": share, "std": None, "count": 1}
        linear = {"task": "classification/linear", "summary": {k: {"top1": one} for k in ("last", "best")}, **head}
        write_json(run_folder / "linear/result.json", linear)
        write_json(run_folder / "linear/earlier-2020/result.json", linear)
        nearest = {"task": "retrieval", "summary": {"knn": {"1": one}, "recall": {}, "map": None}, **head}
        write_json(run_folder / "nearest/result.json", nearest)
    return root


def test_seeds_of_pretraining_are_one_row_beside_the_papers_figure(tmp_path, capsys):
    table.main([str(seeds_of(tmp_path / "runs")), "--seeds"])
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if line[:1] == "|"
    ]
    assert rows[0][-1] == "paper" and len(rows) == 4
    data = ["ntu60 cross_view", "seeds 1 2 3 joint"]
    assert rows[2] == [
        "3 pretrainings",
        "classification/linear",
        *data,
        "top-1 %",
        "82.0 ± 2.0",
        "82.0 ± 2.0",
        "3",
        "90.4",
    ]
    assert rows[3] == ["3 pretrainings", "retrieval", *data, "1-NN %", "82.0 ± 2.0", "", "3", "88.8"]


def test_latex_is_escaped(tmp_path, capsys):
    table.main([str(seeds_of(tmp_path / "runs")), "--seeds", "--latex", "--output", str(tmp_path / "a.tex")])
    text = capsys.readouterr().out
    assert (tmp_path / "a.tex").read_text() == text
    assert r"ntu60 cross\_view" in text and r"82.0 $\pm$ 2.0" in text and r"top-1 \%" in text
    lines = text.splitlines()
    assert lines[0] == r"\begin{tabular}{lllllrrrr}" and all(
        line.count(" & ") == 8 for line in lines if line.endswith(r"\\")
    )


def test_a_parent_folder_has_all_results_below_it(tmp_path, capsys):
    table.main([str(seeds_of(tmp_path / "runs"))])
    assert (
        sum(line[:1] == "|" for line in capsys.readouterr().out.splitlines()) == 2 + 6
    )  # what was set aside is not among them
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no result\.json"):
        table.main([str(tmp_path / "empty")])


def test_seeds_of_different_settings_are_refused(tmp_path):
    for differing, words in (({"lr": 0.5}, "--lr 0.5"), ({"seed": 1}, "same seed 1"), ({"new": 1}, "--new 1")):
        root = seeds_of(tmp_path / str(len(words)) / words[2:4], differing)
        with pytest.raises(UserError, match=words):
            table.main([str(root), "--seeds"])
    (root / "joint_seed3/arguments.json").unlink()
    with pytest.raises(UserError, match="no arguments.json beside"):
        table.main([str(root / "joint_seed3"), "--seeds"])
