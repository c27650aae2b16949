"""What a checkpoint is, whatever its path."""

from __future__ import annotations

from llava.model.identity import SAMPLE_BYTES, WHOLE_FILE_BYTES, Checkpoint, digest_folder, identify_checkpoint


def test_a_large_file_counts_by_size_start_middle_and_end(tmp_path):
    path = tmp_path / "model.safetensors"
    content = bytearray(WHOLE_FILE_BYTES * 2)
    digests = set()
    for place in (None, 0, len(content) - 1, (len(content) - SAMPLE_BYTES) * 3 // 7):
        if place is not None:
            content[place] ^= 255
        path.write_bytes(content)
        digests.add(digest_folder(tmp_path))
    path.write_bytes(content + b"\0")
    digests.add(digest_folder(tmp_path))
    assert len(digests) == 5


def test_a_hub_name_is_known_by_its_name_and_a_folder_by_its_content(tmp_path):
    assert identify_checkpoint("org/m", "org/m").key == "org/m"
    (tmp_path / "config.json").write_text("{}")
    found = identify_checkpoint("mine", str(tmp_path))
    assert found.key == found.digest == digest_folder(tmp_path)
    assert found.to_dict() == {"name": "mine", "path": str(tmp_path.resolve()), "digest": found.digest}


def test_members_are_stored_where_there_are_any():
    assert Checkpoint("any(a, b)", "any(a, b)", "d", ("x", "y")).to_dict()["members"] == ["x", "y"]
