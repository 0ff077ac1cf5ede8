"""Flags of pretrain_moco_mask.py. Defaults are the paper's run; flags of the original command keep their meaning.

`parse_args` parses and checks the command line; `apply_recipe` fills in what the recipe decides, once the number of
training clips is known.
"""

import argparse

from options import backbones, common, recipes
from options.common import add_flags, group, non_negative
from utils.names import CONTRASTS

EPILOG = (
    "With a queue (--negatives queue), keep --contrast-k well below the number of clips: a larger queue contrasts clips "
    "with their own older keys. Exit status: 0 finished; 2 wrong flags or files; 75 stopped by a signal after saving (run "
    "the command again with --resume auto). Several GPUs or machines: torchrun --nproc_per_node=K pretrain_moco_mask.py "
    "with the same flags gives the results of one process (sums in another order: after 20 steps weights differ by about "
    "5e-3 in float32, 1e-13 in fp64); --batch-size must be a multiple of K. On one machine, python -m engine.launch "
    "--processes K also forwards signals and exits with 75, which torchrun does not. Transformers and the graph network "
    "need AdamW, a warm-up and a cosine schedule instead of the paper's SGD. Starting points: --backbone transformer "
    "--optimizer adamw --lr 0.0005 --wd 0.05 --warmup-epochs 20 --cos --epochs 400 --batch-size 256; for a few hundred "
    "clips --backbone transformer --width 128 --depth 3 --heads 4 --optimizer adamw --lr 0.001 --wd 0.05 --warmup-epochs 2 "
    "--cos --epochs 24."
)

RUN = """
--exp-descri {PCM3_wprompt,PCM3_woprompt} = PCM3_wprompt
    preset of four switches, each of which can be overridden by its own flag: PCM3_wprompt has --distillation,
    --domain-prompts, --task-prompts and --no-detach-predicted (joint in the paper), PCM3_woprompt the opposite of
    each (bone and motion)
--resume PATH|auto = ""
    resume the run of this checkpoint exactly; auto: the newest checkpoint in the run folder, or a new run if there
    is none
--init-from PATH = ""  start a new run from the weights of this checkpoint
--resume-on-other-data
    with --resume: resume even if the clips of the data set have changed since the run began (names, labels, frame
    counts or coordinates), which is refused otherwise; arguments.json notes it
--recipe {$recipes} = auto
    values of the flags that are not given: paper, the defaults shown here; small, for sets of hundreds or thousands
    of clips (options/recipes.py: a small bidirectional GRU, mean, max and std over time, varied bone lengths, 1,000
    steps plus one for every two clips); auto: paper from 20,000 training clips on, and if --lr or --schedule is
    given, else small. The log begins with the recipe and its values
--epochs N:positive_int = 451  passes over the training split
--start-epoch N:natural = 0  with --init-from: number of the first epoch
--max-steps N:positive_int  stop after N steps, for a quick trial
--save-fre N:positive_int = 100  keep a numbered checkpoint every N epochs
--save-every-minutes X:non_negative = 10.0  save checkpoint_last every X minutes; 0 = every step
-p --print-freq N:positive_int = 50  print a line to the log every N steps
--knn-every N:natural = 0
    every N epochs, classify the clips of the val split by their nearest neighbour in the train split and log
    knn_top1; 0 = off, usually 5 to 20; does not change the run
--knn-clips N:natural = 0
    with --knn-every: use at most N clips of each split, always the same; 0 = all; a few thousand are enough
--pictures N:natural = 2
    at the end, show in TensorBoard the predicted hidden body parts of N clips, and the features of up to 300 clips
    in its projector; takes seconds; 0 = none
--on-nonfinite {stop,skip} = stop
    if a loss or gradient is not finite: stop and name the step and its clips, or skip the step
--nonfinite-limit N:natural = 10  with --on-nonfinite skip: stop after N skipped steps
"""
OPTIMIZER = """
--optimizer {sgd,adamw} = sgd
    sgd: as in the paper; adamw learns more in few steps (short runs, small sets, transformers); use it with --lr
    0.001
-b --batch-size N:int>=3 = 128  clips in a batch, over all processes
--learning-rate --lr X:positive = 0.02  learning rate
--schedule EPOCH:natural* = 351  epochs, counted from 0, at which the learning rate is multiplied by 0.1
--cos  cosine schedule over all epochs instead of --schedule
--warmup-epochs N:natural = 0  epochs over which the learning rate grows from 0 to --lr
"""
STREAM = """
--stream {$STREAMS} = joint
    input of the encoder: joint coordinates, bones, motion (of joints), or joints or bones together with their
    motion, which helps on small sets
--use-motion-feeder  with --stream motion: compute the motion before cropping and augmentation
--use-bone-feeder  with --stream bone: compute the bones before cropping and augmentation
"""
HEADS = """
--decoder-hidden-size N:positive_int = 512  width of the masked-motion decoder
--contrast-dim N:positive_int = 128  size of the embeddings
--[no-]mlp = on  hidden layer in the projection head, as in the released runs
--[no-]head-norm = off  batch norm in the head's hidden layer; not in the released runs, helps with few clips
"""
CONTRAST = """
--contrast-k N:positive_int = 16384  queue size (number of negatives), at least the batch size
--negatives {$NEGATIVES} = queue
    what a clip is contrasted with: queue, the whole queue, as released; others, the queue without older keys of the
    same clip, for sets that are not much larger than the queue; batch, the other clips of the batch (no queue)
--key-encoder {$KEY_ENCODERS} = slow
    what computes the keys: slow, a momentum copy of the encoder, as released; same, the encoder itself, with
    gradient, and with a symmetric contrast of views and keys (SimCLR; needs --negatives batch), which learns more in
    few steps; one process only, without --grad-accum
--contrast-m X:share = 0.999  momentum of the key encoder
--contrast-t X:positive = 0.07  temperature of the contrast; lower = harder
--teacher-t X:positive = 0.05  temperature of the teacher; lower = sharper targets
--student-t X:positive = 0.1  temperature of the student
--topk N:positive_int = 16384
    distil only the N queue entries most similar to the teacher's key; all if N is at least the queue size, as
    released
--cmd-weight --distillation-weight X:non_negative = 1.0  loss weight of the distillation
--prediction-weight X:non_negative = 40.0  loss weight of the masked-motion prediction; 0 = off
--prediction-energy X:share = 0.0
    weight the prediction error by motion: 0, all coordinates alike, as released; 1, in proportion to how far they
    move
--latent-weight X:non_negative = 0.0
    loss weight of a second prediction, from the masked view: the momentum encoder's features of the whole clip; 0 =
    off, as released; usually 1, on small sets with --contrast-m 0.99
"""
VIEWS = """
--crop LOW:float>0.0<=1.0 HIGH:float>0.0<=1.0 = 0.1 1.0  range of the share of a clip that a crop covers
--corruption X:share = 0.5  probability of joint corruption instead of shear (query, key)
--corrupt-share X:share = 0.6  share of the joints that are corrupted
--shear X:non_negative = 1.0  amplitude of the shear
--shear-probability X:share = 1.0  probability of shear, if a view is not corrupted
--rotation DEGREES:float>=0.0<=180.0 = 0.0
    rotate views by up to this angle about each of the three axes; usually 10, or 30 if cameras differ
--scale LOW:float>0.0<=10.0 HIGH:float>0.0<=10.0 = 1.0 1.0
    scale views along each axis by a factor from this range; usually 0.8 1.2
--bones B:float>=0.0<=2.0 = 0.0
    vary bone lengths: in each view every bone is multiplied by its own e^u, u in -B..B, the same left and right and
    in all frames; usually 0.25; for sets of few subjects, where bone lengths alone could tell clips apart
--mirror P:share = 0.0
    probability that left and right of a view are swapped, so that left- and right-handed people look alike; usually
    0.5; not for classes that only differ by the side
--noise X:non_negative = 0.0
    standard deviation of noise on every coordinate of query and key, in the units of the clips (metres, or trunk
    lengths with --scale-by trunk); usually 0.01 to 0.03
--mask-ratio X:share = 0.6  share of the five body parts that is hidden in each segment (rounded down)
--mask-segments N:positive_int = 8  number of segments of a clip; each hides its own body parts
--mask-per-sample  sample a mask for each clip; as released, one mask for the batch
--mix-parts LOW:int>=1<=5 HIGH:int>=1<=5 = 2 3  range of the number of body parts that are mixed
--mix-length LOW:positive_int HIGH:positive_int = 7 11
    range of the length of the mixed window, in units of 4 frames: 7 11 is 28 to 44 of the 64 frames
--mix-probabilities CUTMIX:share RESIZEMIX:share MIXUP:share = 0.5 0.25 0.25
    probabilities of the three kinds of mixing; they must add up to 1
"""
ABLATIONS = """
--[no-]train-both-sides = off
    contrast the clip feature of both sides, as --both-sides reads clips after pretraining; a step takes twice as long
--view-weights NAME=WEIGHT:view_weight+ = ""
    loss weights of views, for their contrast and distillation; default 1 each; naming a view of your own
    (examples/own_view.py) switches it on
--[no-]distillation  train with the distillation loss (it is logged in metrics.jsonl either way)
--[no-]domain-prompts  learned offset of the encoder's input for each kind of view
--[no-]task-prompts  learned offset of the features for each task
--domain-prompt {$PROMPT_PLACES} = before_norm
    where domain prompts are added: before the input norm, as released, where batch statistics cancel them in
    training, or after it, where they act as in the paper's figure
--[no-]detach-predicted  do not train the decoder by the contrast of the predicted view
"""
COMPUTATION = """
--recurrent {auto,own,cudnn,streams,wavefront} = auto
    implementation of the recurrent layers: own, our loop over frames; cudnn, torch's GRU for each layer and
    direction; streams, the same with the two directions in parallel on a GPU; wavefront, all layers at once, in
    Triton on a GPU; auto, own on a CPU, on a GPU wavefront where it was measured to be faster (bf16, compute
    capability 9, large layers), else cudnn
--recompute K:int>=0<=65536 = 0
    activation checkpointing, for small GPUs: compute the encoder's activations again in the backward pass instead of
    keeping them, each view in K pieces; sums in another order: after 20 steps weights differ by about 1e-4 in
    float32, 1e-14 in fp64; a step takes about a third longer; 0 = off; usually 1 to 8, more pieces need less memory;
    not for stgcn, whose batch norms need all rows at once
--grad-accum K:positive_int = 1
    gradient accumulation, for small GPUs: compute a batch in K parts of --batch-size / K clips, with one optimizer
    step for all; try --recompute first: here batch statistics are those of a part, so that K changes the results;
    1 = off, usually 2 to 8
"""


def view_weight(text: str) -> tuple[str, float]:
    """An argparse type: NAME=WEIGHT, as of --view-weights."""
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
    views = "\n".join(f"--[no-]{name}-view = on  contrast and distil the {name} view" for name in CONTRASTS)
    group(p, "ablations (some defaults follow --exp-descri)", views, ABLATIONS, kinds={"view_weight": view_weight})
    g = common.add_machine_group(p)
    add_flags(g, "--seed SEED:natural = 42  random numbers are a function of seed and step")
    _add_cuda_graph(g)
    add_flags(g, COMPUTATION + common.PROCESSES)
    return p


def _add_cuda_graph(g) -> None:
    """--cuda-graph, which without a value means on, and --no-cuda-graph."""
    g.add_argument(
        "--cuda-graph",
        nargs="?",
        choices=("auto", "on", "off"),
        const="on",
        default="auto",
        help="capture forward and backward pass as one CUDA graph, so that the GPU does not wait for Python to launch small "
        "kernels; results are the same; auto = on where that was measured (one GPU, one process, neither --grad-accum nor "
        "--recompute); without a value: on",
    )
    off = {
        "action": "store_const",
        "const": "off",
        "default": argparse.SUPPRESS,
        "help": "the same as --cuda-graph off",
    }
    g.add_argument("--no-cuda-graph", dest="cuda_graph", **off)


def parse_args(argv=None) -> argparse.Namespace:
    """Parsed flags, checked as far as they do not depend on the recipe, with the names of the given ones in `given`. Ends
    the program with status 2 for a mistake. `apply_recipe` completes them, once the number of training clips is known."""
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
        p.error("--resume and --init-from exclude each other: one resumes a run, the other starts a new one")
    if args.resume_on_other_data and not args.resume:
        p.error("--resume-on-other-data needs --resume: a new run reads the data as it is")
    if args.resume and args.start_epoch:
        p.error("--start-epoch needs --init-from; --resume starts where the run stopped")
    if recipes.choose(args, clips=0)[0] == "paper" and (problem := conflict_in(args)):
        p.error(problem)
    return args


def apply_recipe(args: argparse.Namespace, clips: int, before: str | None = None, run: dict | None = None) -> str:
    """Sets the flags that the recipe decides, for `clips` training clips (in place); returns a sentence for the log.
    before, run: recipe and arguments of the run that is resumed. ValueError, with the reason, if flags conflict."""
    sentence = recipes.fill_in(args, clips, before, run)
    if problem := conflict_in(args):
        raise ValueError(f"{problem} ({sentence})" if args.recipe == "small" else problem)
    del args.given
    return sentence


def conflict_in(args: argparse.Namespace) -> str | None:
    """A sentence about the first conflict between flags, or None. Also sets `contrasts` from the flags of the views."""
    args.contrasts = tuple(name for name in CONTRASTS if getattr(args, f"{name}_view"))
    args.contrasts += tuple(name for name in args.view_weights if name not in CONTRASTS)
    for name, weight in args.view_weights.items():
        if name not in args.contrasts:
            return f"--view-weights {name}={weight:g}: the {name} view is off; give --{name}-view or remove its weight"
    if args.batch_size > args.contrast_k:
        return (
            f"--batch-size {args.batch_size} does not fit in the queue of --contrast-k {args.contrast_k}; "
            "make the batch smaller or the queue larger"
        )
    if args.key_encoder == "same" and (args.negatives != "batch" or args.grad_accum > 1):
        return (
            "--key-encoder same needs --negatives batch, and the whole batch at once (no --grad-accum); leave --negatives and "
            "--grad-accum out, or give --key-encoder slow"
        )
    if args.train_both_sides and not args.both_sides:
        return "--train-both-sides needs --both-sides: it trains the feature that is read from both sides"
    if args.head_norm and not args.mlp:
        return "--head-norm needs the head's hidden layer; remove --no-mlp"
    for flag in ("crop", "scale", "mix_parts", "mix_length"):
        low, high = getattr(args, flag)
        if low > high:
            return f"--{flag.replace('_', '-')} {low} {high}: the first number must not be larger than the second"
    if args.mix_length[1] > 16:
        return f"--mix-length: expected at most 16 units of 4 frames, got {args.mix_length[1]}"
    if abs(sum(args.mix_probabilities) - 1) > 1e-6:
        return f"--mix-probabilities must add up to 1, got {' '.join(map(str, args.mix_probabilities))}"
    if args.prediction_energy > 0 and args.prediction_weight == 0:
        return f"--prediction-energy {args.prediction_energy} needs the prediction, which --prediction-weight 0 switches off"
    contrasted = any(args.view_weights.get(name, 1.0) for name in args.contrasts)
    if not contrasted and args.prediction_weight == 0 and args.latent_weight == 0:
        return "nothing is left to train: every view and the prediction are switched off; switch one of them on"
    if args.mask_segments > 64:
        return f"--mask-segments: expected at most 64, the frames of a view, got {args.mask_segments}"
    uses_mask = args.prediction_weight > 0 or args.latent_weight > 0 or {"predicted", "masked"} & {*args.contrasts}
    if uses_mask and int(5 * args.mask_ratio + 1e-9) < 1:
        return f"--mask-ratio {args.mask_ratio} hides none of the five body parts; give 0.2 or more"
    return None
