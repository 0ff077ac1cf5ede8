"""The weights that come with the project: found by name, small, quick, and as good as their card says."""

import pytest
from programs import call, refused

import action_retrieval
from utils import checkpoint as files
from utils.errors import UserError


def test_an_unknown_name_lists_those_there_are(tmp_path, monkeypatch):
    (tmp_path / "walking.pth").write_bytes(b"")
    monkeypatch.setattr(files, "SHIPPED", tmp_path)
    with pytest.raises(UserError, match=r"no weights of that name come with the project \(walking do\)"):
        files.load("running")
    assert files.resolved("walking") == tmp_path / "walking.pth"
    refused(call(action_retrieval.main, "--pretrained running --finetune-dataset ui_prmd"), "running", "walking")


def test_a_path_that_exists_wins(tmp_path, monkeypatch):
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "walking.pth").write_bytes(b"")
    monkeypatch.setattr(files, "SHIPPED", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    files.save("walking", {"own": True})
    assert files.load("walking") == {"own": True}
    assert files.resolved("folder/walking").parts == ("folder", "walking")  # a path, not a name
