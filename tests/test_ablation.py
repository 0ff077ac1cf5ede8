"""The ablation program: rows are valid command lines, finished runs stay, tables say what has run."""

import json
import re
import shlex
from pathlib import Path

import pytest
from make_tiny import write_tiny_dataset
from processes import until
from programs import call, refused

from options import classification, pretraining, retrieval
from tools import ablation
from utils.errors import UserError
from utils.files import write_json

SMALL = (
    "--pretrain-flags '--hidden-size 16 --num-layers 1 --decoder-hidden-size 8 --batch-size 8 --contrast-k 16 --max-steps 2' "
    "--linear-flags '--epochs 2 --cache-features' --threads 1"
)


def commands(flags=""):
    ran = call(ablation.main, f"--dry-run {flags}")
    assert ran.status == 0, ran.err
    return [shlex.split(line)[1:] for line in ran.out.splitlines()]


def test_every_command_is_one_that_its_program_takes():
    parsers = {
        "pretrain_moco_mask.py": pretraining,
        "action_classification.py": classification,
        "action_retrieval.py": retrieval,
    }
    lines = commands("--seeds 1 2 --cache-dir c --threads 2")
    parsed = [(program, parsers[program].parse_args(words)) for program, *words in lines]
    pretrained = [args for program, args in parsed if program == "pretrain_moco_mask.py"]
    assert all(args.cache_dir == "c" and args.threads == 2 for _, args in parsed)
    different = {
        (
            a.contrasts,
            a.distillation,
            a.prediction_weight,
            a.domain_prompts,
            a.task_prompts,
            a.domain_prompt,
            a.mask_ratio,
        )
        for a in pretrained
    }
    names = {row.flags for row in ablation.ROWS}
    assert len(different) == len(names) == 17 and len(pretrained) == 2 * 17  # each difference is one, and is run once
    folders = [args.checkpoint_path for _, args in parsed]
    assert len(set(folders)) == len(folders)


def test_evaluations_follow_the_checkpoint_that_they_need():
    made = set()
    for program, *words in commands("--groups prompts --seeds 3"):
        flags = dict(zip(words, words[1:], strict=False))
        if program == "pretrain_moco_mask.py":
            made.add(flags["--checkpoint-path"] + "/checkpoint_last.pth.tar")
        elif "--pretrained" in words:
            assert flags["--pretrained"] in made


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Programs that only leave a result behind; returns the commands that were run."""
    ran = []

    def perform(task, asked_to_stop, note):
        if len(ran) == fake_stop["after"]:
            return "SIGTERM"
        ran.append(task.command)
        task.folder.mkdir(parents=True)
        top1 = {
            "mean": 0.5 + 0.1 * ("--seed" in task.command and task.command[task.command.index("--seed") + 1] == "2")
        }
        summary = {"last": {"top1": top1}, "best": {"top1": {"mean": 0.75}}, "knn": {"1": top1}}
        (task.folder / "result.json").write_text(json.dumps({"summary": summary}))
        write_json(task.folder / "done.json", {"command": list(task.command), "seconds": 1})  # whole or not there
        return None

    fake_stop = {"after": None}
    monkeypatch.setattr(ablation, "perform", perform)
    return ran, fake_stop


def test_what_is_done_is_not_done_again(fake, tmp_path):
    ran, stop = fake
    command = f"--groups losses --seeds 1 2 --output {tmp_path / 'out'}"
    stop["after"] = 4
    first = call(ablation.main, command)
    assert first.status == 75 and "stopped by SIGTERM" in first.out and len(ran) == 4
    rows = (tmp_path / "out/table.md").read_text()
    assert "not run" in rows and "(1 of 2 seeds)" in rows
    stop["after"] = None
    assert call(ablation.main, command).status == 0
    assert len(ran) == len(set(ran)) == 2 * (5 * 3 + 2) + 1
    again = call(ablation.main, command)
    assert again.status == 0 and "0 of 35 runs to do" in again.out and len(ran) == 35
    table = json.loads((tmp_path / "out/table.json").read_text())
    assert [row["row"] for row in table["rows"]][-2:] == ["random encoder", "coordinates, no encoder"]
    assert table["rows"][0]["linear_last"] == {"1": 0.5, "2": 0.6}
    markdown = (tmp_path / "out/table.md").read_text()
    assert "55.0 ± 7.1 | 75.0 ± 0.0 |" in markdown and "not run" not in markdown
    assert markdown in again.out


def test_several_jobs_give_the_same_table_and_keep_the_order_of_a_row(fake, tmp_path):
    ran, _ = fake
    command = f"--groups losses --seeds 1 2 --output {tmp_path}"
    one = call(ablation.main, f"{command}/one")
    first = [(program, words) for program, *words in ran]
    ran.clear()
    several = call(ablation.main, f"{command}/several --jobs 4")
    assert one.status == several.status == 0
    assert sorted(map(str, first)) == sorted(str((p, [w.replace("/several", "/one") for w in ws])) for p, *ws in ran)
    place = {words[words.index("--checkpoint-path") + 1]: i for i, words in enumerate(ran)}
    needed = [(words[words.index("--pretrained") + 1], i) for i, words in enumerate(ran) if "--pretrained" in words]
    assert len(needed) == 2 * 2 * 5 and all(place[str(Path(given).parent)] < i for given, i in needed)
    tables = [json.loads((tmp_path / name / "table.json").read_text())["rows"] for name in ("one", "several")]
    assert tables[0] == tables[1]


def test_a_run_that_fails_stops_the_others(monkeypatch, tmp_path):
    """The others are asked to stop, which pretraining takes as a reason to save; the failure is what is said."""
    asked = []

    def perform(task, asked_to_stop, note):
        if task.folder.name.startswith("full"):
            raise UserError("full ended with status 2")
        until(asked_to_stop)
        asked.append(task.folder.name)
        return asked_to_stop()

    monkeypatch.setattr(ablation, "perform", perform)
    ran = call(ablation.main, f"--groups losses --seeds 1 --jobs 20 --output {tmp_path}")
    assert ran.status == 2 and "full ended with status 2" in ran.err and asked


def test_a_folder_of_another_command_is_refused(fake, tmp_path):
    command = f"--groups losses --seeds 1 --output {tmp_path / 'out'}"
    assert call(ablation.main, command).status == 0
    refused(call(ablation.main, f"{command} --dataset other"), "another command", "--output")


@pytest.mark.parametrize(
    "flags, word",
    [
        ("--seeds 1 1", "--seeds"),
        ("--pretrain-flags '--hidden-size 30'", "--hidden-size"),
        ("--pretrain-flags=--epochs", "--epochs"),
        ("--linear-flags '--nothing 3'", "--nothing"),
        ('--pretrain-flags "\'"', "--pretrain-flags"),
        ("--groups colours", "--groups"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, flags, word):
    refused(call(ablation.main, f"--dry-run {flags}"), word)


def test_a_failing_program_is_named(tmp_path):
    """The real thing, stopped by its first mistake: a data set that is not there."""
    ran = call(
        ablation.main, f"--groups losses --seeds 1 --dataset none --data-root {tmp_path} --output {tmp_path}/out"
    )
    refused(ran, "pretrain_moco_mask.py", "status 2", "'none' is not known")


@pytest.mark.slow
def test_the_real_programs_make_the_table(tmp_path):
    write_tiny_dataset(tmp_path / "data", "tiny", frames=120)
    command = f"--dataset tiny --data-root {tmp_path}/data --groups losses --seeds 1 --output {tmp_path}/out {SMALL}"
    ran = call(ablation.main, command)
    assert ran.status == 0, ran.err
    markdown = (tmp_path / "out/table.md").read_text()
    assert markdown.count("\n|") == 2 + 5 + 2 and "not run" not in markdown
    rows = json.loads((tmp_path / "out/table.json").read_text())["rows"]
    assert all(0 <= row["knn1"]["1"] <= 1 for row in rows)


def test_rows_of_a_file(tmp_path):
    file = tmp_path / "rows.json"
    rows = [
        {"group": "views", "name": "no bones", "flags": "--bones 0"},
        {"group": "pool", "name": "mean", "flags": "--pool mean"},
    ]
    content = {"pretrain_flags": "--recipe small --hidden-size 32", "linear_flags": "--cache-features", "rows": rows}
    file.write_text(json.dumps(content))
    lines = commands(f"--rows {file} --seeds 1")
    parsed = [pretraining.parse_args(words) for program, *words in lines if program == "pretrain_moco_mask.py"]
    assert [(a.recipe, a.hidden_size, a.bones, a.pool) for a in parsed] == [
        ("small", 32, 0.0, None),
        ("small", 32, 0.0, "mean"),
    ]
    random = next(
        words for program, *words in lines if program == "action_retrieval.py" and "--pretrained" not in words
    )
    asked = retrieval.parse_args(random)
    assert (asked.backbone, asked.hidden_size, asked.pool, asked.scale_by, asked.stream) == (
        "bigru",
        32,
        "mean_max_std",
        "trunk",
        "joint_motion",
    )
    for wrong, words in (
        ("{}", "expected an object"),
        ('{"rows": [{"group": 1}]}', "expected an object"),
        ("[", "expected"),
    ):
        file.write_text(wrong)
        refused(call(ablation.main, f"--dry-run --rows {file}"), words)
    refused(call(ablation.main, f"--dry-run --rows {tmp_path}/none.json"), "No such file")


def test_rows_of_ones_own_and_how_long_they_take(fake, tmp_path):
    ran, _ = fake
    own = "--row 'less masking=--mask-ratio 0.4 --mask-segments 4' --row 'slow=--lr 0.001'"
    first = call(ablation.main, f"{own} --seeds 1 2 --output {tmp_path / 'out'}")
    assert first.status == 0, first.err
    assert "23 of 23 runs to do\n" in first.out
    table = json.loads((tmp_path / "out/table.json").read_text())
    names = [(row["row"], row["flags"]) for row in table["rows"][:3]]
    assert names[0] == ("less masking", ["--mask-ratio", "0.4", "--mask-segments", "4"])
    assert [name for name, _ in names] == ["less masking", "slow", "full method"]
    assert "about 1 s left, until" in first.out and "linear, last" in first.out
    more = call(ablation.main, f"{own} --groups losses --seeds 1 2 --output {tmp_path / 'out'}")
    assert more.status == 0 and re.search(r"of \d+ runs to do, about \d+ s left, until", more.out)


def test_rows_that_cannot_be(tmp_path):
    for row, words in (
        ("a=--lerning-rate 3", ["--lerning-rate", "pretraining has no flag"]),
        ("--mask-ratio 0.4", ["NAME=FLAGS"]),
        ("a=", ["NAME=FLAGS"]),
    ):
        refused(call(ablation.main, f"--row '{row}' --dry-run --output {tmp_path}"), *words)
