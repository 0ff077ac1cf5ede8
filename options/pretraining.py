"""Flags of pretrain_moco_mask.py. The defaults are the paper's run; the original command's flags keep their meaning."""

import argparse

from options import backbones, common, recipes
from options.common import add_flags, group, non_negative
from utils.names import CONTRASTS

EPILOG = (
    "A small data set needs a small queue: keep --contrast-k well below the number of clips (a queue that holds every "
    "clip several times over contrasts a clip with itself). Status: 0 finished, 2 a mistake in what was given, 75 stopped "
    "by a signal after saving (start again with --resume auto). Several GPUs or machines: torchrun --nproc_per_node=K "
    "pretrain_moco_mask.py with the same flags computes what one process computes (the same sums in another order: weights "
    "that differ by some 5e-3 after 20 steps in float32, by 1e-13 in fp64); --batch-size must be a multiple of K. On one "
    "machine, python -m engine.launch --processes K passes signals on and ends with 75, which torchrun does not. "
    "Transformers and the graph network want AdamW, a warm-up and a cosine instead of the paper's SGD; points to start "
    "from: --backbone transformer --optimizer adamw --lr 0.0005 --wd 0.05 --warmup-epochs 20 --cos --epochs 400 --batch-size "
    "256; for a set of a few hundred clips --backbone transformer --width 128 --depth 3 --heads 4 --optimizer adamw --lr "
    "0.001 --wd 0.05 --warmup-epochs 2 --cos --epochs 24."
)

RUN = """
--exp-descri {PCM3_wprompt,PCM3_woprompt} = PCM3_wprompt
    sets four switches at once, each of which may still be given by itself: PCM3_wprompt has --distillation,
    --domain-prompts and --task-prompts and lets the predicted view train the decoder (joint in the paper),
    PCM3_woprompt has none of them (bone and motion)
--resume PATH|auto = ""
    continue this checkpoint exactly; auto: the newest of the run folder, or a new run where there is none
--init-from PATH = ""  start from the weights of another checkpoint, as a new run
--resume-on-other-data
    with --resume: go on where the data set holds other clips now than the run began with (names, labels, frame
    counts or coordinates), which is refused otherwise; it is then another run, and arguments.json says so
--recipe {$recipes} = auto
    what is used where no flag is given: paper, the defaults below; small, for sets of some hundred or thousand
    clips (options/recipes.py: a small two-way encoder, mean, maximum and deviation over time, other bodies, about
    1,000 steps and more with the number of clips); auto: paper from 20,000 training clips on, and for every command
    that names --lr or --schedule, else small. The first line of the log says which, and with what
--epochs N:positive_int = 451  passes over the training split
--start-epoch N:natural = 0  epoch to begin at (with --init-from)
--max-steps N:positive_int  stop after this many steps, to try things out
--save-fre N:positive_int = 100  keep a numbered checkpoint every N epochs
--save-every-minutes X:non_negative = 10.0  write checkpoint_last this often; 0 = every step
-p --print-freq N:positive_int = 50  steps between two lines of the log
--knn-every N:natural = 0
    every N epochs, classify held-out clips (val split) by their nearest neighbour in the train split and log
    knn_top1; 0 = off, usually 5 to 20; the run itself is the same with and without
--knn-clips N:natural = 0
    with --knn-every: at most N clips of each split, the same ones every time; 0 = all; some thousands are enough
--pictures N:natural = 2
    at the end, show in TensorBoard what the model predicts of hidden body parts of N clips, and the features of up
    to 300 clips in its projector; takes seconds; 0 = none
--on-nonfinite {stop,skip} = stop
    a loss or gradient that is not finite: stop with the step and the clips named, or leave the step out
--nonfinite-limit N:natural = 10  with skip: stop after N such steps all the same
"""
OPTIMIZER = """
--optimizer {sgd,adamw} = sgd
    sgd: the paper's; adamw learns more in few steps (short runs, small sets, transformers); give it --lr 0.001
-b --batch-size N:int>=3 = 128  clips a step, of all processes together
--learning-rate --lr X:positive = 0.02  learning rate
--schedule EPOCH:natural* = 351  epochs (from 0) at which the rate drops x0.1
--cos  cosine schedule over all epochs instead of --schedule
--warmup-epochs N:natural = 0  epochs over which the rate grows from 0 to --lr
"""
STREAM = """
--stream {$STREAMS} = joint
    coordinates, bones, motion, or coordinates or bones and their motion side by side, which helps on small sets
--use-motion-feeder  with --stream motion: take it before crop and transform
--use-bone-feeder  with --stream bone: take it before crop and transform
"""
HEADS = """
--decoder-hidden-size N:positive_int = 512  width of the masked-motion decoder
--contrast-dim N:positive_int = 128  size of the embedding that is contrasted
--[no-]mlp = on  hidden layer in the projection head; always in the released runs, so it need not be given
--[no-]head-norm = off  batch norm in the head's hidden layer; not in the released runs, helps with few clips
"""
CONTRAST = """
--contrast-k N:positive_int = 16384  queue size (negatives); at least the batch size
--negatives {$NEGATIVES} = queue
    what a clip is contrasted with: queue, all of it, as released; others, the queue without older keys of the clip
    itself, for sets that are not much larger than the queue; batch, only the other clips of the batch (no queue)
--key-encoder {$KEY_ENCODERS} = slow
    what makes the keys: slow, the momentum copy, as released; same, the encoder itself, with gradient, view and key
    contrasted with all others both ways (SimCLR; needs --negatives batch): more is learned in few steps. One
    process only, without --grad-accum
--contrast-m X:share = 0.999  momentum of the key encoder
--contrast-t X:positive = 0.07  temperature of the contrast; lower = harder
--teacher-t X:positive = 0.05  temperature of the teacher; lower = sharper targets
--student-t X:positive = 0.1  temperature of the student
--topk N:positive_int = 16384
    of the queue, how many entries nearest to the teacher's key are distilled; the queue size or more takes all, as
    released
--cmd-weight --distillation-weight X:non_negative = 1.0  weight of the distillation
--prediction-weight X:non_negative = 40.0  weight of the prediction error; 0 = off
--prediction-energy X:share = 0.0
    let the error of coordinates that move count more: 0, all alike, as released; 1, in proportion to how far they
    move
--latent-weight X:non_negative = 0.0
    weight of a second prediction: the slow encoder's features of the whole clip, from the masked view; 0 = off, as
    released; 1 is usual; follows by --contrast-m, usually 0.99 on small sets
"""
VIEWS = """
--crop LOW:float>0.0<=1.0 HIGH:float>0.0<=1.0 = 0.1 1.0  range of the cropped share
--corruption X:share = 0.5  probability of joint corruption instead of shear (query, key)
--corrupt-share X:share = 0.6  share of the joints that are corrupted
--shear X:non_negative = 1.0  amplitude of the shear
--shear-probability X:share = 1.0  how often a view that is not corrupted is sheared
--rotation DEGREES:float>=0.0<=180.0 = 0.0
    turn every view by up to so much about each of the three axes; 10 is usual, 30 where cameras differ
--scale LOW:float>0.0<=10.0 HIGH:float>0.0<=10.0 = 1.0 1.0  range of a factor for each axis; 0.8 1.2 is usual
--bones B:float>=0.0<=2.0 = 0.0
    give every view a body of its own: each bone e^u times as long, u in -B..B, left and right alike, the same in
    all frames; 0.25 is usual; for sets of few subjects, where clips can be told apart by bodies alone
--mirror P:share = 0.0
    probability that a view is mirrored, left for right: left- and right-handed people become alike; 0.5 is usual;
    not where classes differ by the side alone
--noise X:non_negative = 0.0
    standard deviation of noise on every coordinate of query and key, in the units of the clips as they are read
    (metres, or trunks with --scale-by trunk); 0.01 to 0.03 is usual
--mask-ratio X:share = 0.6  share of the five body parts hidden in each segment (rounded down)
--mask-segments N:positive_int = 8  segments of the clip, each with its own hidden parts
--mask-per-sample  an own mask for each clip; released: one for the batch
--mix-parts LOW:int>=1<=5 HIGH:int>=1<=5 = 2 3  body parts swapped, from-to
--mix-length LOW:positive_int HIGH:positive_int = 7 11
    shortest and longest window whose frames two clips exchange, in units of 4 frames: 7 11 is 28 to 44 of the 64
--mix-probabilities CUTMIX:share RESIZEMIX:share MIXUP:share = 0.5 0.25 0.25
    how often each way of mixing is chosen; they add up to 1
"""
ABLATIONS = """
--view-weights NAME=WEIGHT:view_weight+ = ""
    factors of the contrast and the distillation of views in the loss, 1 where none is given; naming a view of your
    own (examples/own_view.py) switches it on
--[no-]distillation  train on the distillation (metrics.jsonl has it anyway)
--[no-]domain-prompts  learned offsets of the encoder's input per view
--[no-]task-prompts  learned offsets of the features per task
--domain-prompt {before_norm,after_norm} = before_norm
    where domain prompts are added: before the input norm, as released, batch statistics cancel them in training;
    after it they act as the paper's figure says
--[no-]detach-predicted  keep the predicted view's contrast away from the decoder
"""
COMPUTATION = """
--recurrent {auto,own,cudnn,streams,wavefront} = auto
    what computes recurrent layers: own = our loop over frames, cudnn = torch's GRU a layer and direction, streams =
    the same with two directions side by side on a card, wavefront = all layers at once by Triton on a card; auto =
    own on a processor, on a card wavefront where it was measured to be faster (bf16, capability 9, large layers),
    else cudnn
--recompute K:int>=0<=65536 = 0
    for small cards: keep no activations of the encoder, compute them again in the backward pass, each view in K
    pieces; the same sums in another order: weights that differ by some 1e-4 after 20 steps in float32, by 1e-14 in
    fp64; a step takes about a third longer; 0 = off; usually 1 to 8, more pieces need less memory; not for stgcn,
    whose batch norms need all rows at once
--grad-accum K:positive_int = 1
    for small cards, after --recompute, which changes no number: walks a batch in K parts of --batch-size / K clips
    and makes one optimizer step of all; batch statistics are then those of a part, so that K belongs to the recipe;
    1 = off, usually 2 to 8
"""


def view_weight(text: str) -> tuple[str, float]:
    """NAME=WEIGHT of --view-weights."""
    name, equals, weight = text.partition("=")
    if not name.isidentifier() or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=WEIGHT, such as mixed=0.5, got {text!r}")
    return name, non_negative(weight)


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Pretrains a skeleton encoder with PCM3: prompted contrast with masked motion modeling.",
        EPILOG,
        first="--dataset --protocol --data-root --output --resume --epochs --batch-size --stream --recipe --seed",
    )
    common.add_data_group(p, "--dataset --pre-dataset NAME = ntu60", "to pretrain on")
    g = group(p, "run")
    common.add_output(g, "run folder: log, metrics, checkpoints", "runs/pretrain")
    add_flags(g, RUN, recipes=",".join(recipes.RECIPES))
    group(p, "optimizer", OPTIMIZER, common.SGD, momentum="momentum of SGD", decay="1e-4")
    g = group(p, "model", common.REPRESENTATION, STREAM, flag="--skeleton-representation")
    backbones.add_backbone_flags(g)
    add_flags(g, HEADS)
    group(p, "contrast and distillation", CONTRAST)
    group(p, "views", VIEWS)
    views = "\n".join(f"--[no-]{name}-view = on  contrast and distillation of the {name} view" for name in CONTRASTS)
    group(p, "ablations (each default follows --exp-descri)", views, ABLATIONS, kinds={"view_weight": view_weight})
    g = common.add_machine_group(p)
    add_flags(g, "--seed SEED:natural = 42  every random number is a function of it and of the step")
    _add_cuda_graph(g)
    add_flags(g, COMPUTATION + common.PROCESSES)
    return p


def _add_cuda_graph(g) -> None:
    """--cuda-graph alone means on."""
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
    off = {"action": "store_const", "const": "off", "default": "auto", "help": "the same as --cuda-graph off"}
    g.add_argument("--no-cuda-graph", dest="cuda_graph", **off)


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


def settled(args: argparse.Namespace, clips: int, before: str | None = None, known=None) -> str:
    """Fills in, in place, what the recipe decides for so many training clips; returns the sentence that says it. before, known:
    recipe and names of the flags of the run that is gone on with. ValueError, with a sentence, when what comes out does not
    go together."""
    said = recipes.settle(args, clips, before, known)
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
