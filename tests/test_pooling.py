"""Poolings compared with their definition, frame by frame, and the negatives of small sets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from make_checkpoint import write_pretrained
from make_tiny import write_tiny_dataset
from programs import call, refused

import action_classification
import action_retrieval
from engine.step import compute_gradients
from feeder.batches import Batch
from models import losses, pooling
from models.encoder import Encoder, EncoderConfig
from models.pcm3 import PCM3, PCM3Config
from options import common
from utils.skeleton import get_layout

POOLS = ["last", "mean", "max", "min", "std", "mean_std", "last_max", "mean_max_std", "last_mean_max_min_std"]


def defined(frames, last, pool):
    """The pooling of one clip (T, D), by loops."""
    columns = frames.double().T.tolist()
    mean = [sum(c) / len(c) for c in columns]
    found = {
        "last": last.tolist(),
        "mean": mean,
        "max": [max(c) for c in columns],
        "min": [min(c) for c in columns],
        "std": [(sum((x - m) ** 2 for x in c) / len(c) + 1e-6) ** 0.5 for c, m in zip(columns, mean, strict=True)],
    }
    return torch.tensor([number for part in pool.split("_") for number in found[part]], dtype=torch.float64)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("backbone", ["gru", "bigru"])
def test_a_pooling_equals_its_definition(backbone, pool):
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(backbone=backbone, hidden_size=16, num_layers=1, persons=1, pool=pool))
    frames = torch.randn(3, 7, 32)
    clips = encoder.clip(frames)
    last = frames[:, -1] if backbone == "gru" else torch.cat([frames[:, -1, :16], frames[:, 0, 16:]], dim=1)
    expected = torch.stack([defined(f, e, pool) for f, e in zip(frames, last, strict=True)])
    torch.testing.assert_close(clips.double(), expected, atol=1e-5, rtol=1e-5)
    assert clips.shape[1] == encoder.clip_size == 32 * len(pool.split("_"))
    assert encoder.project(clips).shape == (3, 128)


@pytest.mark.parametrize("both_sides", [False, True])
@pytest.mark.parametrize("pool", [None, *POOLS])
def test_frame_by_frame_gives_the_clip_feature_of_every_prefix(pool, both_sides):
    torch.manual_seed(0)
    config = EncoderConfig(hidden_size=16, num_layers=2, persons=1, pool=pool, both_sides=both_sides)
    encoder = Encoder(config, head=False).eval()
    x = torch.randn(2, 9, 75)
    with torch.no_grad():
        state, frames = encoder.first_clip_state(2), encoder.frames(x)
        for t in range(9):
            clip, frame, *state = encoder.clip_step(x[:, t], *state)
            torch.testing.assert_close(frame, frames[:, t], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(clip, encoder(x[:, : t + 1]), atol=1e-4, rtol=1e-4)


def test_the_default_pooling_is_the_backbones():
    frames = torch.randn(2, 5, 32)
    transformer = {"backbone": "transformer", "width": 32, "heads": 2, "depth": 1}
    for backbone, expected in (
        ({"backbone": "gru", "hidden_size": 16}, frames[:, -1]),
        (transformer, frames.mean(1)),
        (transformer | {"causal": True}, frames[:, -1]),
    ):
        assert torch.equal(Encoder(EncoderConfig(**backbone), head=False).clip(frames), expected)


def test_a_constant_feature_has_a_finite_gradient():
    frames = torch.ones(1, 4, 2, requires_grad=True)
    pooling.pool_frames(frames, None, "std").sum().backward()
    assert frames.grad.isfinite().all()


# -- both sides -------------------------------------------------------------------------------------------------------


def mirror_image(x, layout, channels, persons):
    """The mirror images of inputs (N, T, F), made joint by joint, by the joints' names."""
    seen = x.view(*x.shape[:2], layout.joints, channels, persons)
    image = torch.empty_like(seen)
    swapped = {"left": "right", "right": "left"}
    for j, name in enumerate(layout.names):
        other = " ".join(swapped.get(word, word) for word in name.split())
        image[:, :, j] = seen[:, :, layout.names.index(other)]
        for channel in range(0, channels, 3):
            image[:, :, j, channel] *= -1
    return image.reshape(x.shape)


@pytest.mark.parametrize(
    "layout, channels, persons", [("kinect_v2_25", 3, 2), ("coco_17", 6, 1), ("mediapipe_33", 3, 1)]
)
def test_with_both_sides_a_clip_and_its_mirror_image_have_one_feature(layout, channels, persons):
    layout = get_layout(layout)
    of_frame = {"layout": layout.name, "joints": layout.joints, "channels": channels, "persons": persons}
    config = EncoderConfig(
        backbone="bigru", hidden_size=16, num_layers=1, pool="mean_max_std", both_sides=True, **of_frame
    )
    torch.manual_seed(0)
    encoder = Encoder(config, head=False).eval()
    one_side = Encoder(replace(config, both_sides=False), head=False).eval()
    one_side.load_state_dict(encoder.state_dict())
    x = torch.randn(3, 5, config.input_size)
    image = mirror_image(x, layout, channels, persons)
    with torch.no_grad():
        assert not torch.allclose(one_side(x), one_side(image), atol=1e-3)
        torch.testing.assert_close(encoder(x), torch.maximum(one_side(x), one_side(image)))
        assert torch.equal(encoder(x), encoder(image))
        assert torch.equal(encoder.frames(x), one_side.frames(x))  # of a frame one side is read


def test_a_checkpoint_stores_both_sides_and_the_flag_overrides_it(tmp_path):
    write_tiny_dataset(tmp_path, train=12, val=6)
    path = write_pretrained(
        tmp_path / "c.pth.tar", persons=2, hidden_size=16, num_layers=1, pool="max", both_sides=True
    )
    words = f"--pretrained {path} --data-root {tmp_path} --finetune-dataset tiny --no-map --threads 1 --checkpoint-path {tmp_path}"
    found = {}
    for name, more in (("file", ""), ("on", "--both-sides"), ("off", "--no-both-sides")):
        ran = call(action_retrieval.main, f"{words}/{name} --save-features {more}")
        assert ran.status == 0, ran.err
        found[name] = np.load(tmp_path / name / "features.npz")["train_features"]
    assert np.array_equal(found["file"], found["on"]) and (found["off"] <= found["on"]).all()
    assert not np.array_equal(found["off"], found["on"])


def test_wrong_poolings_are_refused():
    for wrong in ("", "median", "mean_mean", "mean-std", "MAX", 3, "max_"):
        with pytest.raises(ValueError, match="not known"):
            EncoderConfig(pool=wrong)
    with pytest.raises(ValueError, match="scale_by"):
        EncoderConfig(scale_by="height")
    with pytest.raises(ValueError, match="both_sides"):
        EncoderConfig(both_sides=1)
    with pytest.raises(ValueError, match="3 or 6 channels"):
        EncoderConfig(channels=4)
    with pytest.raises(ValueError, match="mlp is off"):
        EncoderConfig(mlp=False, head_norm=True)


# -- negatives and head -----------------------------------------------------------------------------------------------


def a_batch(step) -> Batch:
    """Random views of 4 of 6 clips."""
    draw = torch.Generator().manual_seed(step)
    names = ("query", "key", "target", "masked", "mixed")
    views = {name: torch.randn(4, 6, 75, generator=draw) for name in names}
    hidden = torch.rand(6, 75, generator=draw) < 0.5
    clips = torch.randperm(6, generator=draw)[:4]
    partner, mix_lambda = torch.tensor([1, 2, 3, 0]), torch.tensor(0.3)
    offsets = torch.rand(6, generator=draw)
    return Batch(views, views.pop("key"), views.pop("target"), hidden, partner, mix_lambda, offsets, clips, clips)


def made(negatives, **more):
    torch.manual_seed(0)
    encoder = EncoderConfig(backbone="bigru", hidden_size=16, num_layers=1, persons=1, pool="mean_std", **more)
    return PCM3(PCM3Config(encoder=encoder, queue_size=12, decoder_hidden_size=8, negatives=negatives)).train()


def left_out(output, name, model):
    """The mask (N, K) of keys that are no negatives of a view."""
    return output.logits[name][:, 1:] < losses.NO_NEGATIVE / 2 / model.config.contrast_t


def test_older_keys_of_the_same_clip_are_no_negatives():
    model = made("others")
    for step in range(3):
        batch = a_batch(step)
        output = compute_gradients(model, batch)
        own = batch.clips[:, None] == model.queue_clips
        assert torch.equal(left_out(output, "query", model), own)
        partners = batch.clips[batch.partner][:, None] == model.queue_clips
        assert torch.equal(left_out(output, "mixed", model), own | partners)
        model.enqueue(output.keys, batch.all_clips)
        assert model.queue_clips[4 * step : 4 * step + 4].tolist() == batch.clips.tolist()
    assert model.queue_clips.min() >= 0 and own.any()
    assert all(p.grad.isfinite().all() for p in model.encoder_q.parameters())


def test_negatives_of_the_batch_are_the_other_keys_of_the_batch():
    model, batch = made("batch"), a_batch(0)
    output, own = compute_gradients(model, batch), torch.eye(4, dtype=torch.bool)
    assert torch.equal(left_out(output, "query", model), own)
    assert torch.equal(left_out(output, "mixed", model), own | own[batch.partner])
    keys = output.keys[1:] @ output.keys[0]  # of the key view, whose logits are the teacher's
    assert keys.shape == (3,) and output.losses["distillation"].isfinite()


def test_parts_of_a_batch_have_the_negatives_of_the_whole():
    whole, parts, found = made("others"), made("others"), []
    for model, number in ((whole, 1), (parts, 2)):
        model.enqueue(torch.nn.functional.normalize(torch.ones(4, 128), dim=1), a_batch(1).all_clips)
        found.append(left_out(compute_gradients(model, a_batch(2), number), "query", model))
    assert torch.equal(*found) and found[0].any()


@pytest.mark.parametrize("negatives", ["queue", "batch"])
def test_the_heads_norm_normalises_each_view_separately(negatives):
    head = Encoder(EncoderConfig(hidden_size=16, num_layers=1, persons=1, head_norm=True)).train().fc
    x = torch.randn(10, 32)
    x[5:] *= 7
    torch.testing.assert_close(head(x, 2), torch.cat([head(x[:5]), head(x[5:])]))
    model = made(negatives, head_norm=True)
    output = compute_gradients(model, a_batch(0))
    assert output.loss.isfinite() and model.encoder_q.fc.norm.weight.grad is not None


def test_the_task_prompt_of_a_clip_has_the_size_of_the_clip_feature():
    model = made("batch")
    assert model.cl_prompt.shape == (1, 8) and model.mp_prompt.shape == (1, 4)


def simclr(**more) -> PCM3:
    """The query view alone, with keys of the encoder itself; its input norm has fixed statistics."""
    torch.manual_seed(0)
    both = more.get("train_both_sides", False)
    encoder = EncoderConfig("bigru", hidden_size=16, num_layers=1, persons=1, pool="max", both_sides=both)
    off = {"domain_prompts": False, "task_prompts": False, "distillation": False, "prediction_weight": 0.0}
    of_batch = {"queue_size": 4, "negatives": "batch", "key_encoder": "same", "contrasts": ("query",)}
    model = PCM3(PCM3Config(encoder, **of_batch, **off, **more)).train()
    model.encoder_q.input_norm.eval()
    return model


@pytest.mark.parametrize("both_sides", [False, True])
def test_keys_of_the_encoder_itself_are_simclr(both_sides):
    """The loss of the query view is NT-Xent of query and key, as downstream tasks read them, written from the paper; the keys
    have a gradient."""
    model, batch = simclr(train_both_sides=both_sides), a_batch(0)
    config = model.config
    z = torch.cat([model.encoder_q.project(model.encoder_q(x)) for x in (batch.views["query"], batch.key)])
    similar = z @ z.T / config.contrast_t
    similar.fill_diagonal_(float("-inf"))
    expected = torch.nn.functional.cross_entropy(similar, torch.tensor([4, 5, 6, 7, 0, 1, 2, 3]))
    output = model(batch, model.targets(batch))
    torch.testing.assert_close(output.loss, expected)
    wanted = torch.autograd.grad(expected, list(model.encoder_q.encoder.parameters()))
    found = torch.autograd.grad(output.loss, list(model.encoder_q.encoder.parameters()))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    every = made("batch", head_norm=True)
    every.config = PCM3Config(
        every.config.encoder, queue_size=12, decoder_hidden_size=8, negatives="batch", key_encoder="same"
    )
    output = compute_gradients(every, a_batch(0))
    assert set(output.logits) == {"query", "masked", "predicted", "mixed"} and not output.keys.requires_grad
    for wrong in ({"negatives": "queue"}, {"negatives": "batch", "key_encoder": "fast"}):
        with pytest.raises(ValueError, match="negatives|key_encoder"):
            PCM3Config(**{"key_encoder": "same", **wrong})
    with pytest.raises(ValueError, match="whole batch at once"):
        compute_gradients(model, batch, 2)


def test_training_with_both_sides_does_not_see_which_side_it_was():
    """A query and its mirror image have the same logits, from statistics of both sides; with one side they differ.
    The prediction is of the view as it is."""
    batch, found, frame = a_batch(0), {}, (get_layout("kinect_v2_25"), 3, 1)
    mirrored = replace(batch, views=batch.views | {"query": mirror_image(batch.views["query"], *frame)})
    for both in (True, False):
        for given in (batch, mirrored):
            torch.manual_seed(0)
            encoder = EncoderConfig(hidden_size=16, num_layers=1, persons=1, pool="mean_max", both_sides=True)
            model = PCM3(
                PCM3Config(encoder, 12, decoder_hidden_size=8, domain_prompts=False, train_both_sides=both)
            ).train()
            output = compute_gradients(model, given)
            assert output.predicted.shape == batch.target.shape and output.losses["prediction"].isfinite()
            norm = model.encoder_q.input_norm
            found[both, given is batch] = output.logits["query"], norm.running_mean.clone()
    torch.testing.assert_close(found[True, True], found[True, False], atol=1e-4, rtol=1e-4)
    assert (found[False, True][0] - found[False, False][0]).abs().max() > 1e-2
    mean = found[True, True][1].view(1, 1, -1)
    torch.testing.assert_close(mirror_image(mean, *frame), mean)
    with pytest.raises(ValueError, match="train_both_sides"):
        PCM3Config(EncoderConfig(), train_both_sides=True)


@pytest.mark.parametrize(
    "program, more", [(action_retrieval, "--no-map"), (action_classification, "--epochs 1 --cache-features")]
)
def test_pool_all_evaluates_every_pooling(tmp_path, program, more):
    write_tiny_dataset(tmp_path, train=12, val=6, frames=70)
    words = f"--data-root {tmp_path} --finetune-dataset tiny --hidden-size 16 --num-layers 1 --threads 1 {more}"
    ran = call(program.main, f"{words} --pool all --checkpoint-path {tmp_path}/run")
    assert ran.status == 0, ran.err
    table = ran.out.splitlines()[-len(common.EVERY_POOLING) :]
    assert [line.split()[0] for line in table] == list(common.EVERY_POOLING)
    assert all((tmp_path / "run" / pool / "result.json").is_file() for pool in common.EVERY_POOLING)
    refused(call(program.main, f"{words} --pool median --checkpoint-path {tmp_path}/no"), "median")
