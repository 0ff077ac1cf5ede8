"""Motion prediction: errors against a slow twin, zero velocity exact, cuts, frozen is frozen, and the program."""

import json
import math

import numpy as np
import pytest
import torch
from make_tiny import write_tiny_dataset
from programs import call, refused

import motion_prediction
from engine.encoders import moved, random_encoder, snapshot
from engine.prediction import (
    PredictionRecipe,
    fit_to_observed,
    horizon_errors,
    test_errors,
    train_predictor,
    zero_velocity,
)
from feeder.clips import PackedClips
from feeder.windows import FutureViews, long_enough
from models.encoder import EncoderConfig
from models.future import FutureDecoder
from options.backbones import encoder_flags
from utils.errors import UserError
from utils.skeleton import get_layout

test_errors.__test__ = False  # a function of the engine, not a test
LAYOUT = get_layout("sbu_15")
OBSERVE, PREDICT = 10, 6


def tiny_clips(lengths=(16, 30, 40, 22, 18, 27), seed=0) -> PackedClips:
    """Clips whose joints swing, a frequency each, so that the future follows from the past; person 2 is noise."""
    rng = np.random.default_rng(seed)
    frames = []
    for n in lengths:
        t = np.arange(n)[:, None, None]
        pose, phase = rng.normal(0, 0.4, (3, 15)), rng.uniform(0, 6)
        person = pose + 0.2 * np.sin(t / 4 + phase) * np.sign(pose)
        frames.append(np.stack([person, rng.normal(0, 1, person.shape)], axis=2).transpose(0, 3, 1, 2))  # (n, V, C, M)
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return PackedClips(
        torch.from_numpy(np.concatenate(frames).astype(np.float32)),
        torch.from_numpy(offsets),
        torch.tensor(lengths),
        torch.zeros(len(lengths), dtype=torch.long),
        tuple(f"clip{i}" for i in range(len(lengths))),
        (),
        "tests",
    )


def tiny_views(clips=None, stream="joint", **more) -> FutureViews:
    clips = clips if clips is not None else tiny_clips()
    return FutureViews(clips, torch.tensor(LAYOUT.parents), OBSERVE, PREDICT, stream, **more)


def tiny_encoder(seed=0):
    return random_encoder(EncoderConfig(layout=LAYOUT.name, joints=15, hidden_size=16, num_layers=1), seed)


# ---- cuts


@pytest.mark.parametrize("stream", ("joint", "bone", "motion"))
def test_the_test_cut_against_a_loop(stream):
    views = tiny_views(stream=stream)
    observed, pose, future = views.test(torch.arange(6))
    assert observed.shape == (6, OBSERVE, 90) and pose.shape == (6, 15, 3) and future.shape == (6, PREDICT, 15, 3)
    for i in range(6):
        low, n = int(views.clips.offsets[i]), int(views.clips.num_frame[i])
        clip = views.clips.frames[low : low + n].numpy()  # (n, V, C, M)
        start = (n - OBSERVE - PREDICT) // 2
        for t in range(PREDICT):
            assert np.array_equal(future[i, t].numpy(), clip[start + OBSERVE + t, ..., 0])
        assert np.array_equal(pose[i].numpy(), clip[start + OBSERVE - 1, ..., 0])
        for t in range(OBSERVE):
            frame = clip[start + t]
            if stream == "bone":
                frame = frame - frame[list(LAYOUT.parents)]
            elif stream == "motion":  # the last observed frame's motion would show the future
                frame = clip[start + t + 1] - frame if t + 1 < OBSERVE else 0 * frame
            expected = frame.reshape(-1)
            np.testing.assert_allclose(observed[i, t].numpy(), expected, atol=1e-6)


def test_training_cuts_stay_within_their_clip_and_follow_from_the_seed():
    views = tiny_views()
    frames = views.clips.frames
    frames[:, 0, 0, 0] = torch.repeat_interleave(torch.arange(6.0), views.clips.num_frame)  # the clip's number
    frames[:, 0, 1, 0] = torch.cat([torch.arange(int(n)) for n in views.clips.num_frame]).float()
    starts = {i: set() for i in range(6)}
    for epoch in range(60):
        _, pose, future = views.train(torch.arange(6), 7, epoch)
        assert (future[:, :, 0, 0] == torch.arange(6.0)[:, None]).all()
        assert torch.equal(future[:, :, 0, 1] - pose[:, None, 0, 1], torch.arange(1.0, PREDICT + 1).expand(6, -1))
        for i in range(6):
            starts[i].add(int(pose[i, 0, 1]) - OBSERVE + 1)
    assert starts[0] == {0}  # a clip of exactly the needed length
    assert starts[1] == set(range(30 - OBSERVE - PREDICT + 1))
    again = views.train(torch.arange(6), 7, 3)
    part = views.train(torch.tensor([4, 1]), 7, 3)
    assert torch.equal(again[0][[4, 1]], part[0])  # a clip's cut does not depend on its batch
    assert not torch.equal(again[0], views.train(torch.arange(6), 8, 3)[0])


def test_long_enough():
    assert long_enough(tiny_clips((15, 16, 17)), 16).tolist() == [1, 2]


# ---- errors


def test_errors_against_a_loop():
    rng = np.random.default_rng(0)
    true, guess = rng.normal(size=(5, 4, 15, 3)), rng.normal(size=(5, 4, 15, 3))
    true[2, 1] = 0  # not seen: counts for nothing
    expected = []
    for t in range(4):
        distances = [math.dist(guess[i, t, v], true[i, t, v]) for i in range(5) for v in range(15) if (i, t) != (2, 1)]
        expected.append(1000 * sum(distances) / len(distances))
    a, b = torch.from_numpy(guess), torch.from_numpy(true)
    assert horizon_errors([(a, b)]).tolist() == pytest.approx(expected)
    assert horizon_errors([(a[:2], b[:2]), (a[2:], b[2:])]).tolist() == pytest.approx(expected)


def test_zero_velocity_is_exact():
    """A walk of 3 mm a frame along one axis: the repeated pose is 3 h mm away after h frames."""
    clips = tiny_clips()
    walk = torch.cat([torch.arange(int(n)) for n in clips.num_frame]).float()
    clips.frames[..., 0] = 1.0
    clips.frames[:, :, 1, 0] += 0.003 * walk[:, None]
    assert zero_velocity(tiny_views(clips)).tolist() == pytest.approx(
        [3.0 * h for h in range(1, PREDICT + 1)], rel=1e-4
    )


def test_an_untrained_decoder_is_zero_velocity():
    views, encoder = tiny_views(), tiny_encoder()
    decoder = FutureDecoder(encoder.feature_size, 15, 8)
    assert torch.equal(test_errors(encoder, decoder, views), zero_velocity(views))


def test_the_decoder_feeds_itself():
    """Each frame is the last one plus a displacement, and a longer forecast begins with the shorter one."""
    decoder = FutureDecoder(4, 15, 8)
    torch.nn.init.normal_(decoder.displacement.weight)
    feature, pose = torch.randn(3, 4), torch.randn(3, 15, 3)
    long = decoder(feature, pose, 5)
    assert torch.equal(long[:, :2], decoder(feature, pose, 2))
    state = torch.tanh(decoder.start(feature))
    now, step = pose.flatten(1), torch.zeros(3, 45)
    for t in range(5):
        state = decoder.cell(torch.cat([now, step], 1), state)
        step = decoder.displacement(state)
        now = now + step
        assert torch.allclose(long[:, t].flatten(1), now)


# ---- training


@pytest.mark.parametrize("mode", ("frozen", "tuned", "scratch"))
def test_frozen_is_frozen_and_the_others_are_not(mode):
    encoder = tiny_encoder()
    before = snapshot(encoder)
    recipe = PredictionRecipe(mode, epochs=2, batch_size=3, hidden_size=8)
    train_predictor(encoder, tiny_views(), tiny_views(), recipe, 0, quiet=True)
    assert (moved(encoder, before) == []) == (mode == "frozen")


def test_an_encoder_that_pools_several_features_side_by_side():
    config = EncoderConfig(layout=LAYOUT.name, joints=15, hidden_size=16, num_layers=1, pool="last_max")
    encoder = random_encoder(config, 0)
    outcome = train_predictor(encoder, tiny_views(), tiny_views(), PredictionRecipe(epochs=1), 0, quiet=True)
    assert outcome.head.start.in_features == encoder.clip_size == 64


def test_one_changed_weight_of_a_frozen_encoder_is_caught():
    encoder = tiny_encoder()

    class Leaky(FutureViews):
        def train(self, index, seed, epoch):
            encoder.input_norm.bias.data[5] += 1e-6
            return super().train(index, seed, epoch)

    leaky = Leaky(tiny_clips(), torch.tensor(LAYOUT.parents), OBSERVE, PREDICT)
    with pytest.raises(AssertionError, match="frozen, but moved"):
        train_predictor(encoder, leaky, tiny_views(), PredictionRecipe(epochs=1, hidden_size=8), 0, quiet=True)


def test_it_learns_and_repeats_itself():
    clips = tiny_clips((16, 30, 40, 22, 18, 27, 35, 33))
    views = tiny_views(clips)
    recipe = PredictionRecipe(
        "scratch", lr=1e-2, encoder_lr=1e-2, epochs=60, batch_size=8, schedule=(45,), hidden_size=32
    )
    still = zero_velocity(views).mean()
    errors = []
    for _ in range(2):
        encoder = tiny_encoder()
        fit_to_observed(encoder, views)
        errors.append(train_predictor(encoder, views, views, recipe, 0, quiet=True).errors)
    assert torch.equal(*errors)
    assert errors[0].mean() < 0.6 * still


def test_divergence_is_one_sentence():
    recipe = PredictionRecipe("scratch", lr=1e30, encoder_lr=1e30, epochs=4, batch_size=3, hidden_size=8)
    with pytest.raises(UserError, match="smaller --lr"):
        train_predictor(tiny_encoder(), tiny_views(), tiny_views(), recipe, 0, quiet=True)


# ---- the program


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_tiny_dataset(root, train=12, val=8, frames=128)
    return root


SIZES = (
    "--hidden-size 16 --num-layers 1 --decoder-size 16 --epochs 1 --device cpu --finetune-dataset tiny --precision fp32"
)


def test_the_program_writes_everything(root, tmp_path):
    short = "--observe 20 --predict 10 --horizons 1 10 --pictures 2 --seed 1 2"
    command = f"--data-root {root} {SIZES} {short} --encoder-mode frozen scratch --checkpoint-path {tmp_path}"
    ran = call(motion_prediction.main, command)
    assert ran.status == 0, ran.err
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines[-4:]] == ["MPJPE,", "zero", "frozen", "scratch"]
    result = json.loads((tmp_path / "result.json").read_text())
    assert set(result["summary"]["last"]) == {"frozen", "scratch"}
    assert result["summary"]["last"]["frozen"]["mpjpe_mm@10"]["count"] == 2
    assert len(result["seeds"]["scratch"]["2"]["last"]) == 10
    assert len(list((tmp_path / "poses").glob("*.png"))) == 2 and (tmp_path / "curve.png").is_file()


def test_short_clips_are_skipped_and_counted(root, tmp_path):
    ran = call(motion_prediction.main, f"--data-root {root} {SIZES} --pictures 0 --checkpoint-path {tmp_path}")
    assert ran.status == 0, ran.err
    result = json.loads((tmp_path / "result.json").read_text())
    counts = np.load(root / "tiny" / "xsub" / "val_num_frame.npy")
    assert result["skipped_short_clips"]["val"] == int((counts < 75).sum()) > 0
    assert result["test_clips"] == int((counts >= 75).sum())


def test_mistakes_are_one_sentence(root, tmp_path):
    end = f"--checkpoint-path {tmp_path}"
    refused(
        call(motion_prediction.main, f"--data-root {root} {SIZES} --observe 500 {end}"), "no train clip has 525 frames"
    )
    refused(
        call(motion_prediction.main, f"--data-root {root} {SIZES} --pretrained {tmp_path}/none.tar {end}"),
        "no such file",
    )
    ran = call(motion_prediction.main, f"--data-root {root} {SIZES} --encoder-mode tuned {end}")
    assert ran.status == 2 and "needs --pretrained" in ran.err
    ran = call(motion_prediction.main, f"--data-root {root} {SIZES} --horizons 30 {end}")
    assert ran.status == 2 and "at most the 25 frames" in ran.err


def test_one_side_is_read_unless_both_are_asked_for():
    parse = motion_prediction.parse_args
    assert (
        encoder_flags(parse([]))["both_sides"] is False and encoder_flags(parse(["--both-sides"]))["both_sides"] is True
    )
