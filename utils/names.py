"""Names of choices that flags offer and that models, feeder and engine use, each defined once. Flags cannot import models,
since --help must be instant, so this module imports nothing."""

STREAMS = ("joint", "bone", "motion", "joint_motion", "bone_motion")
SIDE_BY_SIDE = ("joint_motion", "bone_motion")  # streams with both values for each joint
POOLS = ("last", "mean", "max", "min", "std")  # poolings, which can be joined by _, see models.pooling
CONTRASTS = ("query", "masked", "predicted", "mixed")  # also the order in which the views update running statistics
NEGATIVES = ("queue", "others", "batch")  # what a clip is contrasted with, see models.pcm3
KEY_ENCODERS = ("slow", "same")
PROMPT_USES = (
    "query",
    "decoder",
    "masked",
    "predicted",
    "mixed",
    "key",
)  # of task prompts, in the order of their offsets
PROMPT_PLACES = ("before_norm", "after_norm")  # where domain prompts are added to the encoder's input
SCALES = ("none", "trunk")  # what clips are divided by
TOKENS = ("joints", "parts")  # of the spatial-temporal transformer
ATTENTION = ("factorised", "joint")
PREDICTION_MODES = ("frozen", "tuned", "scratch")  # of the encoder, in motion prediction
SPLITS = ("train", "val")
# sizes that backbones read, each some of them; models.backbones has the defaults
SIZES = (
    "hidden_size",
    "num_layers",
    "width",
    "depth",
    "heads",
    "mlp_ratio",
    "patch_frames",
    "tokens",
    "attention",
    "causal",
)
