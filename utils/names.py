"""Names that flags offer and that models, feeder and engine read: each is written here once, because help must be instant and
so the flags cannot import a model. This module imports nothing."""

STREAMS = ("joint", "bone", "motion", "joint_motion", "bone_motion")
SIDE_BY_SIDE = ("joint_motion", "bone_motion")  # of each joint both
POOLS = ("last", "mean", "max", "min", "std")  # parts of a pooling, see models.pooling
CONTRASTS = ("query", "masked", "predicted", "mixed")  # also the order in which running statistics see the views
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
