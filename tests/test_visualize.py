"""The picture of seen, predicted and true clips."""

from make_tiny import write_tiny_dataset
from programs import call, refused

import pretrain_moco_mask
import visualize
from utils import checkpoint as files

SMALL = (
    "--hidden-size 16 --num-layers 1 --decoder-hidden-size 8 --batch-size 4 --contrast-k 8 --max-steps 2 --threads 1"
)


def pretrained(tmp_path, more=""):
    write_tiny_dataset(tmp_path, frames=90)
    ran = call(
        pretrain_moco_mask.main,
        f"--data-root {tmp_path} --pre-dataset tiny --checkpoint-path {tmp_path}/run {SMALL} {more}",
    )
    assert ran.status == 0, ran.err
    return tmp_path / "run" / files.LAST


def test_a_picture_of_a_prediction(tmp_path):
    path = pretrained(tmp_path)
    ran = call(visualize.main, f"{path} --data-root {tmp_path} --output {tmp_path}/p.png --clips 3 --poses 4")
    assert ran.status == 0, ran.err
    assert "3 clips of tiny" in ran.out and (tmp_path / "p.png").stat().st_size > 5000


def test_what_cannot_be_drawn(tmp_path):
    path = pretrained(tmp_path, "--stream motion")
    refused(call(visualize.main, f"{path} --data-root {tmp_path} --output {tmp_path}/p.png"), "motion")
    refused(call(visualize.main, f"{path} --data-root {tmp_path} --output {tmp_path}/p.txt"), ".png")
    refused(call(visualize.main, f"{tmp_path}/none.pth.tar --data-root {tmp_path}"), "no such file")


def test_chosen_clips_are_of_different_classes(tmp_path):
    import torch

    from engine.setup import find_dataset
    from feeder.evaluation import ClipViews

    write_tiny_dataset(tmp_path, frames=90)
    dataset = find_dataset(tmp_path, "tiny", "cross_subject", ("val",))
    views = ClipViews(dataset.clips("val"), torch.tensor(dataset.layout.parents))
    chosen = visualize.one_of_each_class(views, 4, 0)
    assert sorted(views.clips.labels[chosen].tolist()) == [0, 1, 2, 3]
