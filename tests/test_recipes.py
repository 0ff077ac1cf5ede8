"""Recipes: which one is chosen, that given flags override it, and that a run by a recipe works."""

import pytest
from make_tiny import write_tiny_dataset
from programs import call, refused

import pretrain_moco_mask
from options.pretraining import apply_recipe, build_parser, parse_args
from options.recipes import SMALL
from utils import checkpoint as files

README = (
    "--lr 0.02 --batch-size 128 --teacher-t 0.05 --student-t 0.1 --topk 16384 --mlp --contrast-t 0.07 --contrast-k 16384 "
    "--checkpoint-path mask_checkpoints/PCM3_wprompt --schedule 351 --epochs 451 --pre-dataset ntu60 "
    "--skeleton-representation graph-based --protocol cross_view --exp-descri PCM3_wprompt"
)


def after(command, clips):
    """The completed arguments, and the sentence for the log."""
    args = parse_args(command.split())
    return args, apply_recipe(args, clips)


def test_the_papers_command_is_the_papers_run_however_few_clips_there_are():
    defaults = vars(build_parser().parse_args(README.split()))
    defaults["view_weights"] = dict(defaults["view_weights"])
    for clips in (200, 40_000):
        args, said = after(README, clips)
        assert "recipe paper" in said and args.recipe == "paper"
        changed = {name for name, value in defaults.items() if vars(args)[name] != value}
        assert changed == {"recipe", "distillation", "domain_prompts", "task_prompts", "detach_predicted"}


@pytest.mark.parametrize(
    "command, clips, recipe",
    [
        ("", 1_000, "small"),
        ("", 19_999, "small"),
        ("", 20_000, "paper"),
        ("--lr 0.1", 1_000, "paper"),
        ("--schedule 3", 1_000, "paper"),
        ("--lr 0.1 --recipe small", 1_000, "small"),
        ("--recipe paper", 1_000, "paper"),
        ("--recipe small", 40_000, "small"),
    ],
)
def test_which_recipe_is_chosen(command, clips, recipe):
    args, said = after(command, clips)
    assert args.recipe == recipe and said.startswith(f"recipe {recipe} (") and not hasattr(args, "given")


def test_the_small_recipe_is_its_table_and_given_flags_override_it():
    args, said = after("", 1_000)
    for row in SMALL:
        assert vars(args)[row.name] == row.of(1_000, args) and row.why
    assert args.contrasts == tuple(n for n in ("query", "masked", "predicted", "mixed") if getattr(args, f"{n}_view"))
    own, said = after("--recipe small --lr 0.5 --bones 0.1 --hidden-size 32 --epochs 3 --crop 0.5 0.6", 1_000)
    assert (own.lr, own.bones, own.hidden_size, own.epochs, own.crop) == (0.5, 0.1, 32, 3, [0.5, 0.6])
    assert "bones" not in said and own.pool == args.pool
    other, _ = after("--backbone stgcn", 1_000)
    assert other.hidden_size is None and other.backbone == "stgcn"
    queue, _ = after("--contrast-k 512 --topk 256", 1_000)
    assert (queue.negatives, queue.key_encoder, queue.contrast_k, queue.topk) == ("queue", "slow", 512, 256)


def test_both_sides_are_read_where_views_are_mirrored():
    for flags, expected in (("", True), ("--mirror 0", False), ("--mirror 0.3", True), ("--no-both-sides", False)):
        args, _ = after(flags, 1_000)
        assert args.both_sides is args.train_both_sides is expected, flags
    assert after("--no-train-both-sides", 1_000)[0].both_sides
    with pytest.raises(ValueError, match="--train-both-sides needs --both-sides"):
        after("--train-both-sides --no-both-sides", 1_000)


def test_parts_of_a_batch_are_refused_with_what_to_type():
    with pytest.raises(ValueError, match="or give --key-encoder slow"):
        after("--grad-accum 2", 1_000)
    assert after("--grad-accum 2 --key-encoder slow", 1_000)[0].negatives == "queue"


def test_a_resumed_run_keeps_flags_off_that_are_newer_than_it():
    started = {row.name: "a value" for row in SMALL if row.name not in ("both_sides", "train_both_sides")}
    for run in (started, started | {"both_sides": None, "train_both_sides": False}):  # then once more, by this version
        args = parse_args([])
        apply_recipe(args, 1_000, "small", run)
        assert args.mirror == 0.5 and args.both_sides is None and not args.train_both_sides


def test_steps_and_batch_grow_with_the_set():
    steps = {}
    for clips in (10, 60, 431, 1_000, 5_000, 19_000):
        args, said = after("", clips)
        assert args.batch_size <= max(3, clips) and args.contrast_k >= args.batch_size
        steps[clips] = args.epochs * max(1, clips // args.batch_size)
        assert ("fewer than it was tried on" in said) == (clips < 50)
    assert list(steps.values()) == sorted(steps.values()) and 1_000 < steps[431] < 1_400 and steps[19_000] > 9_000


def test_conflicting_flags_are_refused(tmp_path):
    with pytest.raises(SystemExit):
        parse_args("--lr 0.1 --batch-size 64 --contrast-k 32".split())
    write_tiny_dataset(tmp_path, train=12)
    words = f"--data-root {tmp_path} --pre-dataset tiny --checkpoint-path {tmp_path}/run"
    refused(call(pretrain_moco_mask.main, f"{words} --batch-size 8 --contrast-k 4"), "does not fit in the queue")
    refused(call(pretrain_moco_mask.main, f"{words} --crop 0.9 0.2"), "--crop 0.9 0.2")


def test_a_run_by_the_small_recipe(tmp_path):
    write_tiny_dataset(tmp_path, train=12, frames=70)
    words = f"--data-root {tmp_path} --pre-dataset tiny --hidden-size 16 --num-layers 1 --decoder-hidden-size 8 "
    words += "--pictures 0 --max-steps 2"
    ran = call(pretrain_moco_mask.main, f"{words} --checkpoint-path {tmp_path}/run --threads 1")
    assert ran.status == 0 and "recipe small (12 training clips, fewer than 20000)" in ran.out, ran.err
    content = files.load(tmp_path / "run" / files.LAST)
    encoder = content["config"]["encoder"]
    assert (encoder["backbone"], encoder["pool"], encoder["channels"], encoder["scale_by"]) == (
        "bigru",
        "mean_max_std",
        6,
        "trunk",
    )
    assert content["arguments"]["recipe"] == "small" and "given" not in content["arguments"]
    again = call(
        pretrain_moco_mask.main, f"{words} --checkpoint-path {tmp_path}/run --threads 1 --resume auto --max-steps 3"
    )
    assert again.status == 0, again.err


def test_a_run_of_an_older_version_is_resumed_again_and_again(tmp_path):
    """One that began before --train-both-sides, by its own command."""
    write_tiny_dataset(tmp_path, train=12, frames=70)
    words = f"--data-root {tmp_path} --pre-dataset tiny --hidden-size 16 --num-layers 1 --pictures 0 --threads 1 "
    words += f"--checkpoint-path {tmp_path}/run --resume auto"
    begun = call(pretrain_moco_mask.main, f"{words} --max-steps 1 --no-train-both-sides")
    assert begun.status == 0, begun.err
    path = tmp_path / "run" / files.LAST
    content = files.load(path)
    del content["arguments"]["train_both_sides"], content["config"]["train_both_sides"]
    files.save(path, content)
    for steps in (2, 3):
        again = call(pretrain_moco_mask.main, f"{words} --max-steps {steps}")
        assert again.status == 0, again.err
    assert files.load(path)["arguments"]["train_both_sides"] is False
    refused(
        call(pretrain_moco_mask.main, f"{words} --max-steps 4 --train-both-sides"), "--no-train-both-sides, now it is"
    )
