"""Flags of pretrain_moco_mask.py. The defaults are the paper's run; the original command's flags keep their meaning."""

import argparse

from options import backbones, common, recipes
from options.common import natural, non_negative, number, positive, positive_int, share
from utils.names import CONTRASTS, KEY_ENCODERS, NEGATIVES

EXPERIMENTS = ("PCM3_wprompt", "PCM3_woprompt")


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Pretrains a skeleton encoder with PCM3: prompted contrast with masked motion modeling.",
        "A small data set needs a small queue: keep --contrast-k well below the number of clips (a queue that holds every "
        "clip several times over contrasts a clip with itself). Status: 0 finished, 2 a mistake in what was given, 75 stopped "
        "by a signal after saving (start again with --resume auto). Several GPUs or machines: torchrun --nproc_per_node=K "
        "pretrain_moco_mask.py with the same flags computes what one process computes (the same sums in another order: weights "
        "that differ by some 5e-3 after 20 steps in float32, by 1e-13 in fp64); --batch-size must be a multiple of K. On one "
        "machine, python -m engine.launch --processes K passes signals on and ends with 75, which torchrun does not. "
        "Transformers and the graph network want AdamW, a warm-up and a cosine instead of the paper's SGD; points to start "
        "from: --backbone transformer --optimizer adamw --lr 0.0005 --wd 0.05 --warmup-epochs 20 --cos --epochs 400 --batch-size "
        "256; for a set of a few hundred clips --backbone transformer --width 128 --depth 3 --heads 4 --optimizer adamw --lr "
        "0.001 --wd 0.05 --warmup-epochs 2 --cos --epochs 24.",
    )
    common.add_data_group(p, "--pre-dataset", "ntu60", "to pretrain on", renders=True)
    _add_run_group(p)
    _add_optimizer_group(p)
    _add_model_group(p)
    _add_contrast_group(p)
    _add_view_group(p)
    _add_ablation_group(p)
    g = common.add_machine_group(p)
    g.add_argument("--seed", type=natural, default=42, help="every random number is a function of it and of the step")
    _add_memory_flags(g)
    common.add_processes(g)
    p.first = tuple(
        "--dataset --protocol --data-root --output --resume --epochs --batch-size --stream --recipe --seed".split()
    )
    return p


def _add_memory_flags(g) -> None:
    g.add_argument(
        "--cuda-graph",
        nargs="?",
        choices=("auto", "on", "off"),
        const="on",
        default="auto",
        help="replay forward and backward pass as one captured CUDA graph, so that the card does not wait for Python to launch "
        "small kernels; the same numbers through the same memory; auto = on where that was measured: one card, one process, "
        "neither --grad-accum nor --recompute; alone it means on",
    )
    g.add_argument(
        "--no-cuda-graph",
        dest="cuda_graph",
        action="store_const",
        const="off",
        default="auto",
        help="the same as --cuda-graph off",
    )
    g.add_argument(
        "--recurrent",
        choices=("auto", "own", "cudnn", "streams", "wavefront"),
        default="auto",
        help="what computes recurrent layers: own = our loop over frames, cudnn = torch's GRU a layer and direction, streams = "
        "the same with two directions side by side on a card, wavefront = all layers at once by Triton on a card; auto = own on "
        "a processor, on a card wavefront where it was measured to be faster (bf16, capability 9, large layers), else cudnn",
    )
    g.add_argument(
        "--recompute",
        type=number(int, low=0, high=65536),
        default=0,
        metavar="K",
        help="for small cards: keep no activations of the encoder, compute them again in the backward pass, each view in K "
        "pieces; the same sums in another order: weights that differ by some 1e-4 after 20 steps in float32, by 1e-14 in fp64; a "
        "step takes about a third longer; 0 = off; usually 1 to 8, "
        "more pieces need less memory; not for stgcn, whose batch norms need all rows at once",
    )
    g.add_argument(
        "--grad-accum",
        type=positive_int,
        default=1,
        metavar="K",
        help="for small cards, after --recompute, which changes no number: walks a batch in K parts of --batch-size / K "
        "clips and makes one optimizer step of all; batch statistics are then those of a part, so that K belongs to "
        "the recipe; 1 = off, usually 2 to 8",
    )


def _add_run_group(p) -> None:
    g = p.add_argument_group("run")
    common.add_output(g, "run folder: log, metrics, checkpoints", "runs/pretrain")
    g.add_argument(
        "--exp-descri",
        choices=EXPERIMENTS,
        default="PCM3_wprompt",
        help="sets four switches at once, each of which may still be given by itself: PCM3_wprompt has --distillation, "
        "--domain-prompts and --task-prompts and lets the predicted view train the decoder (joint in the paper), PCM3_woprompt has "
        "none of them (bone and motion)",
    )
    g.add_argument(
        "--resume",
        default="",
        metavar="PATH|auto",
        help="continue this checkpoint exactly; auto: the newest of the run folder, or a new run where there is none",
    )
    g.add_argument(
        "--init-from", default="", metavar="PATH", help="start from the weights of another checkpoint, as a new run"
    )
    g.add_argument(
        "--resume-on-other-data",
        action="store_true",
        help="with --resume: go on where the data set holds other clips now than the run began with (names, labels, frame "
        "counts or coordinates), which is refused otherwise; it is then another run, and arguments.json says so",
    )
    g.add_argument(
        "--recipe",
        choices=recipes.RECIPES,
        default="auto",
        help="what is used where no flag is given: paper, the defaults below; small, for sets of some hundred or thousand clips "
        "(options/recipes.py: a small two-way encoder, mean, maximum and deviation over time, other bodies, about 1,000 steps and "
        "more with the number of clips); auto: paper from 20,000 training clips on, and for every command that names --lr or "
        "--schedule, else small. The first line of the log says which, and with what",
    )
    g.add_argument("--epochs", type=positive_int, default=451, help="passes over the training split")
    g.add_argument("--start-epoch", type=natural, default=0, metavar="N", help="epoch to begin at (with --init-from)")
    g.add_argument("--max-steps", type=positive_int, default=None, help="stop after this many steps, to try things out")
    g.add_argument(
        "--save-fre", type=positive_int, default=100, metavar="N", help="keep a numbered checkpoint every N epochs"
    )
    g.add_argument(
        "--save-every-minutes", type=non_negative, default=10.0, help="write checkpoint_last this often; 0 = every step"
    )
    g.add_argument(
        "-p", "--print-freq", type=positive_int, default=50, metavar="N", help="steps between two lines of the log"
    )
    g.add_argument(
        "--knn-every",
        type=natural,
        default=0,
        metavar="N",
        help="every N epochs, classify held-out clips (val split) by their nearest neighbour in the train split and log "
        "knn_top1; 0 = off, usually 5 to 20; the run itself is the same with and without",
    )
    g.add_argument(
        "--knn-clips",
        type=natural,
        default=0,
        metavar="N",
        help="with --knn-every: at most N clips of each split, the same ones every time; 0 = all; some thousands are enough",
    )
    g.add_argument(
        "--pictures",
        type=natural,
        default=2,
        metavar="N",
        help="at the end, show in TensorBoard what the model predicts of hidden body parts of N clips, and the features of up "
        "to 300 clips in its projector; takes seconds; 0 = none",
    )
    g.add_argument(
        "--on-nonfinite",
        choices=("stop", "skip"),
        default="stop",
        help="a loss or gradient that is not finite: stop with the step and the clips named, or leave the step out",
    )
    g.add_argument(
        "--nonfinite-limit",
        type=natural,
        default=10,
        metavar="N",
        help="with skip: stop after N such steps all the same",
    )


def _add_optimizer_group(p) -> None:
    g = p.add_argument_group("optimizer")
    g.add_argument(
        "--optimizer",
        choices=("sgd", "adamw"),
        default="sgd",
        help="sgd: the paper's; adamw learns more in few steps (short runs, small sets, transformers); give it --lr 0.001",
    )
    g.add_argument(
        "-b",
        "--batch-size",
        type=number(int, low=3),
        default=128,
        metavar="N",
        help="clips a step, of all processes together",
    )
    g.add_argument("--lr", "--learning-rate", dest="lr", type=positive, default=0.02, help="learning rate")
    g.add_argument(
        "--schedule",
        type=natural,
        nargs="*",
        default=[351],
        metavar="EPOCH",
        help="epochs (from 0) at which the rate drops x0.1",
    )
    g.add_argument("--cos", action="store_true", help="cosine schedule over all epochs instead of --schedule")
    g.add_argument(
        "--warmup-epochs", type=natural, default=0, metavar="N", help="epochs over which the rate grows from 0 to --lr"
    )
    g.add_argument("--momentum", type=number(float, low=0.0, high=0.9999), default=0.9, help="momentum of SGD")
    g.add_argument("--wd", "--weight-decay", dest="weight_decay", type=non_negative, default=1e-4, help="weight decay")


def _add_model_group(p) -> None:
    g = p.add_argument_group("model")
    common.add_representation(g, "--skeleton-representation")
    g.add_argument(
        "--stream",
        choices=common.STREAMS,
        default="joint",
        help="coordinates, bones, motion, or coordinates or bones and their motion side by side, which helps on small sets",
    )
    g.add_argument(
        "--use-motion-feeder", action="store_true", help="with --stream motion: take it before crop and transform"
    )
    g.add_argument(
        "--use-bone-feeder", action="store_true", help="with --stream bone: take it before crop and transform"
    )
    backbones.add_backbone_flags(g)
    g.add_argument("--decoder-hidden-size", type=positive_int, default=512, help="width of the masked-motion decoder")
    g.add_argument("--contrast-dim", type=positive_int, default=128, help="size of the embedding that is contrasted")
    g.add_argument(
        "--mlp",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="hidden layer in the projection head; always in the released runs, so it need not be given",
    )
    g.add_argument(
        "--head-norm",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="batch norm in the head's hidden layer; not in the released runs, helps with few clips",
    )


def _add_contrast_group(p) -> None:
    g = p.add_argument_group("contrast and distillation")
    g.add_argument(
        "--contrast-k", type=positive_int, default=16384, help="queue size (negatives); at least the batch size"
    )
    g.add_argument(
        "--negatives",
        choices=NEGATIVES,
        default="queue",
        help="what a clip is contrasted with: queue, all of it, as released; others, the queue without older keys of the clip "
        "itself, for sets that are not much larger than the queue; batch, only the other clips of the batch (no queue)",
    )
    g.add_argument(
        "--key-encoder",
        choices=KEY_ENCODERS,
        default="slow",
        help="what makes the keys: slow, the momentum copy, as released; same, the encoder itself, with gradient, view and key "
        "contrasted with all others both ways (SimCLR; needs --negatives batch): more is learned in few steps. One process only, "
        "without --grad-accum",
    )
    g.add_argument("--contrast-m", type=share, default=0.999, help="momentum of the key encoder")
    g.add_argument("--contrast-t", type=positive, default=0.07, help="temperature of the contrast; lower = harder")
    g.add_argument(
        "--teacher-t", type=positive, default=0.05, help="temperature of the teacher; lower = sharper targets"
    )
    g.add_argument("--student-t", type=positive, default=0.1, help="temperature of the student")
    g.add_argument(
        "--topk",
        type=positive_int,
        default=16384,
        help="of the queue, how many entries nearest to the teacher's key are distilled; the queue size or more takes "
        "all, as released",
    )
    g.add_argument(
        "--distillation-weight", "--cmd-weight", type=non_negative, default=1.0, help="weight of the distillation"
    )
    g.add_argument(
        "--prediction-weight", type=non_negative, default=40.0, help="weight of the prediction error; 0 = off"
    )
    g.add_argument(
        "--prediction-energy",
        type=share,
        default=0.0,
        help="let the error of coordinates that move count more: 0, all alike, as released; 1, in proportion to how far they move",
    )
    g.add_argument(
        "--latent-weight",
        type=non_negative,
        default=0.0,
        help="weight of a second prediction: the slow encoder's features of the whole clip, from the masked view; 0 = off, as "
        "released; 1 is usual; follows by --contrast-m, usually 0.99 on small sets",
    )


def _add_view_group(p) -> None:
    g = p.add_argument_group("views")
    pair = {"nargs": 2, "metavar": ("LOW", "HIGH")}
    g.add_argument(
        "--crop", type=number(float, above=0.0, high=1.0), default=[0.1, 1.0], **pair, help="range of the cropped share"
    )
    g.add_argument(
        "--corruption", type=share, default=0.5, help="probability of joint corruption instead of shear (query, key)"
    )
    g.add_argument("--corrupt-share", type=share, default=0.6, help="share of the joints that are corrupted")
    g.add_argument("--shear", type=non_negative, default=1.0, help="amplitude of the shear")
    g.add_argument(
        "--shear-probability", type=share, default=1.0, help="how often a view that is not corrupted is sheared"
    )
    g.add_argument(
        "--rotation",
        type=number(float, low=0.0, high=180.0),
        default=0.0,
        metavar="DEGREES",
        help="turn every view by up to so much about each of the three axes; 10 is usual, 30 where cameras differ",
    )
    g.add_argument(
        "--scale",
        type=number(float, above=0.0, high=10.0),
        default=[1.0, 1.0],
        **pair,
        help="range of a factor for each axis; 0.8 1.2 is usual",
    )
    g.add_argument(
        "--bones",
        type=number(float, low=0.0, high=2.0),
        default=0.0,
        metavar="B",
        help="give every view a body of its own: each bone e^u times as long, u in -B..B, left and right alike, the same in all "
        "frames; 0.25 is usual; for sets of few subjects, where clips can be told apart by bodies alone",
    )
    g.add_argument(
        "--mirror",
        type=share,
        default=0.0,
        metavar="P",
        help="probability that a view is mirrored, left for right: left- and right-handed people become alike; 0.5 is usual; not "
        "where classes differ by the side alone",
    )
    g.add_argument(
        "--noise",
        type=non_negative,
        default=0.0,
        metavar="X",
        help="standard deviation of noise on every coordinate of query and key, in the units of the clips as they are read "
        "(metres, or trunks with --scale-by trunk); 0.01 to 0.03 is usual",
    )
    g.add_argument(
        "--mask-ratio",
        type=share,
        default=0.6,
        help="share of the five body parts hidden in each segment (rounded down)",
    )
    g.add_argument(
        "--mask-segments", type=positive_int, default=8, help="segments of the clip, each with its own hidden parts"
    )
    g.add_argument(
        "--mask-per-sample", action="store_true", help="an own mask for each clip; released: one for the batch"
    )
    g.add_argument(
        "--mix-parts", type=number(int, low=1, high=5), default=[2, 3], **pair, help="body parts swapped, from-to"
    )
    g.add_argument(
        "--mix-length",
        type=positive_int,
        default=[7, 11],
        **pair,
        help="shortest and longest window whose frames two clips exchange, in units of 4 frames: 7 11 is 28 to 44 of the 64",
    )
    g.add_argument(
        "--mix-probabilities",
        type=share,
        nargs=3,
        default=[0.5, 0.25, 0.25],
        metavar=("CUTMIX", "RESIZEMIX", "MIXUP"),
        help="how often each way of mixing is chosen; they add up to 1",
    )


def view_weight(text: str) -> tuple[str, float]:
    """NAME=WEIGHT of --view-weights."""
    name, equals, weight = text.partition("=")
    if not name.isidentifier() or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=WEIGHT, such as mixed=0.5, got {text!r}")
    return name, non_negative(weight)


def _add_ablation_group(p) -> None:
    g = p.add_argument_group("ablations (each default follows --exp-descri)")
    on_off = argparse.BooleanOptionalAction
    for name in CONTRASTS:
        g.add_argument(
            f"--{name}-view", action=on_off, default=True, help=f"contrast and distillation of the {name} view"
        )
    g.add_argument(
        "--view-weights",
        type=view_weight,
        nargs="+",
        default={},
        metavar="NAME=WEIGHT",
        help="factors of the contrast and the distillation of views in the loss, 1 where none is given; naming a view of your own "
        "(examples/own_view.py) switches it on",
    )
    g.add_argument(
        "--distillation", action=on_off, default=None, help="train on the distillation (it is logged anyway)"
    )
    g.add_argument(
        "--domain-prompts", action=on_off, default=None, help="learned offsets of the encoder's input per view"
    )
    g.add_argument("--task-prompts", action=on_off, default=None, help="learned offsets of the features per task")
    g.add_argument(
        "--domain-prompt",
        choices=("before_norm", "after_norm"),
        default="before_norm",
        help="where domain prompts are added: before the input norm, as released, batch statistics cancel them in training; "
        "after it they act as the paper's figure says",
    )
    g.add_argument(
        "--detach-predicted",
        action=on_off,
        default=None,
        help="keep the predicted view's contrast away from the decoder",
    )


def parse_args(argv=None) -> argparse.Namespace:
    """Parsed arguments, checked as far as a recipe does not decide them; `given`: the names of the flags that were given.
    `settled` makes them whole once the number of training clips is known."""
    p = build_parser()
    args = p.parse_args(argv)
    for action in p._actions:
        action.default = argparse.SUPPRESS
    args.given = set(vars(p.parse_args(argv)))
    prompts = args.exp_descri == "PCM3_wprompt"
    for name, value in (
        ("distillation", prompts),
        ("domain_prompts", prompts),
        ("task_prompts", prompts),
        ("detach_predicted", not prompts),
    ):
        if getattr(args, name) is None:
            setattr(args, name, value)
    weights = dict(args.view_weights)
    if len(weights) < len(args.view_weights):
        p.error(f"--view-weights names a view twice: {' '.join(name for name, _ in args.view_weights)}")
    args.view_weights = weights
    if args.resume and args.init_from:
        p.error("--resume and --init-from exclude each other: one continues a run, the other starts a new one")
    if args.resume_on_other_data and not args.resume:
        p.error("--resume-on-other-data goes with --resume: a new run takes the data as it is")
    if args.resume and args.start_epoch:
        p.error("--start-epoch goes with --init-from; --resume knows where it stopped")
    if recipes.chosen(args, clips=0)[0] == "paper" and (problem := wrong_with(args)):
        p.error(problem)
    return args


def settled(args: argparse.Namespace, clips: int, before: str | None = None) -> str:
    """Fills in, in place, what the recipe decides for so many training clips; returns the sentence that says it. before: the
    recipe of the run that is gone on with. ValueError, with a sentence, when what comes out does not go together."""
    said = recipes.settle(args, clips, before)
    if problem := wrong_with(args):
        raise ValueError(f"{problem} ({said})" if args.recipe == "small" else problem)
    del args.given
    return said


def wrong_with(args: argparse.Namespace) -> str | None:
    """What does not go together, as a sentence, or None. Also makes `contrasts` of the flags of the views."""
    args.contrasts = tuple(name for name in CONTRASTS if getattr(args, f"{name}_view"))
    args.contrasts += tuple(name for name in args.view_weights if name not in CONTRASTS)
    for name, weight in args.view_weights.items():
        if name not in args.contrasts:
            return f"--view-weights {name}={weight:g}: the {name} view is switched off; give --{name}-view, or leave its weight out"
    if args.batch_size > args.contrast_k:
        return f"--batch-size {args.batch_size} does not fit in the queue of --contrast-k {args.contrast_k}"
    if args.key_encoder == "same" and (args.negatives != "batch" or args.grad_accum > 1):
        return "--key-encoder same needs --negatives batch, and the whole batch at once (no --grad-accum)"
    if args.head_norm and not args.mlp:
        return "--head-norm is of the head's hidden layer, which --no-mlp takes away"
    for flag in ("crop", "scale", "mix_parts", "mix_length"):
        low, high = getattr(args, flag)
        if low > high:
            return f"--{flag.replace('_', '-')} {low} {high}: the first number must not be the larger"
    if args.mix_length[1] > 16:
        return f"--mix-length goes up to 16 units of 4 frames, got {args.mix_length[1]}"
    if abs(sum(args.mix_probabilities) - 1) > 1e-6:
        return f"--mix-probabilities must add up to 1, got {' '.join(map(str, args.mix_probabilities))}"
    if args.prediction_energy > 0 and args.prediction_weight == 0:
        return f"--prediction-energy {args.prediction_energy} weighs an error that --prediction-weight 0 switches off"
    contrasted = any(args.view_weights.get(name, 1.0) for name in args.contrasts)
    if not contrasted and args.prediction_weight == 0 and args.latent_weight == 0:
        return "nothing is left to train: every view and the prediction are switched off"
    if args.mask_segments > 64:
        return f"--mask-segments goes up to 64, the frames of a view, got {args.mask_segments}"
    predicts = args.prediction_weight > 0 or args.latent_weight > 0
    if predicts or "predicted" in args.contrasts or "masked" in args.contrasts:
        if int(5 * args.mask_ratio + 1e-9) < 1:
            return f"--mask-ratio {args.mask_ratio} hides none of the five body parts; give 0.2 or more"
    return None
