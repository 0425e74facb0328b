"""What a record says of the source that made it."""

import subprocess
from pathlib import Path

import pytest

from bridgevla_ros.bags import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's source, as far as provenance asks, with one commit."""
    monkeypatch.setattr(provenance.resources, "roots", lambda: (tmp_path,))
    (tmp_path / "docs").mkdir()
    for name in ("code.py", "docs/page.md"):
        (tmp_path / name).write_text("first\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "first")
    return tmp_path


def git(tree: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(tree), *words], capture_output=True, check=True, text=True)
    return done.stdout.strip()


def test_commit_says_whether_the_source_differs_from_it(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert provenance.commit() == head
    (checkout / "docs/page.md").write_text("second\n")
    assert provenance.commit() == f"{head} with changes"
    assert provenance.commit(but="docs") == head
    (checkout / "code.py").write_text("second\n")
    assert provenance.commit(but="docs") == f"{head} with changes"


def test_outside_of_a_checkout_no_commit_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance.resources, "roots", lambda: (tmp_path,))
    assert provenance.commit() == ""
