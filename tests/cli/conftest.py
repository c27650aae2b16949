"""What tests of several commands share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def orphan(tmp_path, request):
    """Return a function that copies an adapter whose base is gone."""

    def copy(fixture: str) -> Path:
        folder = Path(shutil.copytree(request.getfixturevalue(fixture), tmp_path / fixture))
        for name, key in (("adapter_config.json", "base_model_name_or_path"), ("protector_config.json", "base_model")):
            config = json.loads((folder / name).read_text())
            config[key] = str(tmp_path / "gone")
            (folder / name).write_text(json.dumps(config))
        return folder

    return copy
