"""Checkpoint files: released names both ways, optimizer state by name, and nothing unsafe or damaged is used."""

import os
import zipfile
from dataclasses import replace

import pytest
import torch
from programs import refuses

from engine.encoders import form_read, load_encoder
from engine.setup import Dataset
from models.encoder import Encoder, EncoderConfig
from models.pcm3 import PCM3, PCM3Config
from options.datasets import DATASETS
from utils import checkpoint as files
from utils.errors import UserError
from utils.skeleton import KINECT_V2

SMALL = EncoderConfig(hidden_size=16, num_layers=2)


def small_model(**more) -> PCM3:
    torch.manual_seed(0)
    return PCM3(PCM3Config(encoder=SMALL, queue_size=8, decoder_hidden_size=8, **more))


def released_names(layers=3):
    names = [
        "queue",
        "queue_ptr",
        "base_prompt",
        "mix_prompt",
        "mask_prompt",
        "recons_prompt",
        "cl_prompt",
        "mp_prompt",
    ]
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    weights = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    for e in ("encoder_q", "encoder_k"):
        names += [f"{e}.input_norm.{n}" for n in norm]
        names += [f"{e}.encoder.gru.{w}_l{i}{r}" for w in weights for i in range(layers) for r in ("", "_reverse")]
        names += [f"{e}.fc.{i}.{n}" for i in (0, 2) for n in ("weight", "bias")]
    names += [f"linear.1.{n}" for n in norm] + [f"linear.{i}.{n}" for i in (0, 3) for n in ("weight", "bias")]
    names += [f"recons_decoder.decoder.{w}_l{i}" for w in weights for i in (0, 1)]
    return sorted([*names, "recons_decoder.reconstruction.weight", "recons_decoder.reconstruction.bias"])


def test_names_and_shapes_are_the_released_ones():
    model = PCM3(PCM3Config(encoder=EncoderConfig(hidden_size=64), queue_size=16))
    state = model.state_dict()
    assert sorted(state) == released_names()
    assert state["queue"].shape == (128, 16) and state["queue_ptr"].shape == (1,)
    assert state["base_prompt"].shape == (1, 1, 150) and state["cl_prompt"].shape == (1, 16)
    assert state["linear.0.weight"].shape == (512, 128) and state["recons_decoder.reconstruction.weight"].shape == (
        150,
        512,
    )


def test_the_release_can_load_ours(tmp_path):
    """What a released program does: torch.load, then load_state_dict of 'state_dict'; prefixed files of several processes."""
    model = small_model()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    path = tmp_path / files.numbered(7)
    assert path.name == "checkpoint_0007.pth.tar"
    content = {"epoch": 8, "state_dict": model.state_dict(), "optimizer": files.optimizer_state(optimizer, model)}
    files.save(path, content)
    again = torch.load(path, weights_only=True)
    assert again["epoch"] == 8
    small_model().load_state_dict(again["state_dict"])


def dataset(tmp_path) -> Dataset:
    return Dataset(DATASETS["ntu60"], KINECT_V2, "cross_subject", tmp_path)


@pytest.mark.parametrize("style", ["ours", "released", "processes", "relative", "bare"])
def test_encoders_of_every_kind_of_file(tmp_path, style):
    model = small_model()
    state = model.state_dict()
    content = {"epoch": 5, "state_dict": state}
    if style == "ours":
        content |= {"config": model.config.to_dict(), "arguments": {"stream": "motion"}}
    if style == "processes":
        content = {"epoch": 5, "state_dict": {f"module.{k}": v for k, v in state.items()}}
    if style == "relative":
        only = {k: v for k, v in state.items() if k.startswith("encoder_q.")}
        content = {"state_dict": {f"module.{k}": v for k, v in only.items()} | {"module.queue_motion": torch.zeros(3)}}
    if style == "bare":
        content = {
            k[len("encoder_q.") :]: v for k, v in state.items() if k.startswith("encoder_q.") and ".fc." not in k
        }
    path = tmp_path / "file.pth.tar"
    torch.save(content, path)
    loaded = load_encoder(str(path), dataset(tmp_path))
    assert loaded.stream == ("motion" if style == "ours" else "joint")
    x = torch.randn(3, 8, 150)
    model.eval()
    torch.testing.assert_close(loaded.encoder(x), model.encoder_q(x))


def test_a_stream_that_contradicts_the_file(tmp_path):
    model = small_model()
    path = tmp_path / "a.pth.tar"
    content = {"state_dict": model.state_dict(), "config": model.config.to_dict(), "arguments": {"stream": "bone"}}
    torch.save(content, path)
    with pytest.raises(UserError, match="bone stream"):
        load_encoder(str(path), dataset(tmp_path), "joint")


def test_an_encoder_of_another_layout(tmp_path):
    model = PCM3(PCM3Config(encoder=EncoderConfig(hidden_size=16, joints=20, layout="kinect_v1_20"), queue_size=8))
    path = tmp_path / "a.pth.tar"
    torch.save({"state_dict": model.state_dict(), "config": model.config.to_dict()}, path)
    with refuses("kinect_v1_20", "120 numbers a frame", "ntu60 has kinect_v2_25 with 2 persons"):
        load_encoder(str(path), dataset(tmp_path))


def test_a_file_that_says_nothing_of_its_frames_reads_clips_of_space(tmp_path):
    path, given = tmp_path / "a.pth.tar", dataset(tmp_path)
    torch.save({"state_dict": small_model().state_dict()}, path)
    assert form_read(str(path), given) == given.form
    flat = replace(given, row=replace(given.row, dimensions=2))
    assert form_read(str(path), flat) == given.form  # so that the clips are stood up
    assert load_encoder(str(path), flat.read_as(given.form)).stream == "joint"
    with refuses("ntu60 has kinect_v2_25 with 2 persons in two dimensions"):
        load_encoder(str(path), flat)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 but no zip", os.urandom(3000)])
def test_files_that_are_no_checkpoint(tmp_path, content):
    path = tmp_path / "a.pth.tar"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a checkpoint file, or damaged"):
        files.load(path)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        files.load(tmp_path / "nothing.pth.tar")
    with pytest.raises(UserError, match="a folder"):
        files.load(tmp_path)


def test_a_malicious_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    path = tmp_path / "a.pth.tar"
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(UserError, match="malicious"):
        files.load(path)
    assert not (tmp_path / "owned").exists()


def test_no_encoder_in_the_file(tmp_path):
    path = tmp_path / "a.pth.tar"
    torch.save({"state_dict": {"conv1.weight": torch.zeros(3)}}, path)
    with pytest.raises(UserError, match="no skeleton encoder"):
        load_encoder(str(path), dataset(tmp_path))


def test_every_cut_and_every_flipped_bit_is_noticed(tmp_path):
    """Either refused, or (bits of padding and unused fields) loaded with equal tensors; never a different tensor."""
    model = Encoder(EncoderConfig(hidden_size=16, num_layers=1), head=False)
    path = tmp_path / "a.pth.tar"
    files.save(path, {"state_dict": model.state_dict(), "step": 3})
    whole = path.read_bytes()
    state = files.load(path)["state_dict"]
    for cut in range(0, len(whole), 1000):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError):
            files.load(path)
    generator = torch.Generator().manual_seed(0)
    for place in torch.randint(len(whole), (60,), generator=generator).tolist():
        flipped = bytearray(whole)
        flipped[place] ^= 16
        path.write_bytes(bytes(flipped))
        try:
            again = files.load(path)["state_dict"]
        except UserError:
            continue
        assert list(again) == list(state) and all(torch.equal(again[k], state[k]) for k in state), place


def test_members_carry_checksums(tmp_path):
    path = tmp_path / "a.pth.tar"
    files.save(path, {"state_dict": {"a": torch.arange(1000.0)}})
    with zipfile.ZipFile(path) as archive:
        assert all(info.CRC for info in archive.infolist() if info.file_size > 100)


def test_optimizer_state_is_found_by_name():
    model = small_model()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    for i, p in enumerate(parameters):
        p.grad = torch.full_like(p, float(i))
    optimizer.step()
    saved = files.optimizer_state(optimizer, model)
    other = torch.optim.SGD(parameters[::-1], lr=0.1, momentum=0.9)
    files.load_optimizer_state(other, model, saved, "file")
    for p in parameters:
        assert torch.equal(other.state[p]["momentum_buffer"], optimizer.state[p]["momentum_buffer"])
    with pytest.raises(UserError, match="--init-from"):
        files.load_optimizer_state(other, model, optimizer.state_dict(), "file")


def resumable(step: int) -> dict:
    """The least that a run can be resumed from."""
    return {
        "state_dict": {"a": torch.zeros(1)},
        "optimizer": {"state": {}, "param_groups": [], "names": ["a"]},
        "step": step,
    }


def test_the_last_checkpoint_falls_back(tmp_path):
    notes = []
    assert files.load_latest(tmp_path, notes.append) is None
    for step in (1, 2):
        files.save_last(tmp_path, resumable(step))
    assert files.load_latest(tmp_path, notes.append)[0]["step"] == 2 and not notes
    last = tmp_path / files.LAST
    last.write_bytes(last.read_bytes()[:-50])
    content, path = files.load_latest(tmp_path, notes.append)
    assert content["step"] == 1 and path.name == files.PREVIOUS and "damaged" in notes[0]
    path.write_bytes(b"")
    with pytest.raises(UserError, match="none of its 2 checkpoints"):
        files.load_latest(tmp_path, notes.append)
    assert not list(tmp_path.glob(".*tmp"))


def test_a_kill_between_the_two_names_leaves_no_third(tmp_path):
    """Killed after the old file has got its second name and before the new one is there, then saved again."""
    files.save_last(tmp_path, resumable(1))
    os.link(tmp_path / files.LAST, tmp_path / files.PREVIOUS)
    files.save_last(tmp_path, resumable(2))
    assert sorted(p.name for p in tmp_path.iterdir()) == [files.LAST, files.PREVIOUS]
    assert files.load(tmp_path / files.PREVIOUS)["step"] == 1


def test_a_failed_write_loses_nothing(tmp_path, monkeypatch):
    files.save_last(tmp_path, resumable(1))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        files.save_last(tmp_path, {"state_dict": {}, "optimizer": {}, "step": 2})
    monkeypatch.undo()
    assert files.load_latest(tmp_path)[0]["step"] == 1
    assert not list(tmp_path.glob(".*tmp"))
