"""What a repository of the test's Hub holds, whether in git or as a large file."""

import json

from hubgit import LFS_POINTER, Git


def git_of(hub, name="user/model"):
    """Open the git repository of a model."""
    return Git(hub.hub.root / "models" / name)


def held(hub, name="user/model", ref="refs/heads/main"):
    """Map every file of a branch to its content."""
    git = git_of(hub, name)
    files = {}
    for path, blob in git.read_tree(git.commit_info(git.refs()[ref])["tree"]).items():
        data = git.get(blob)[1]
        pointer = LFS_POINTER.match(data) if len(data) < 300 else None
        files[path] = hub.hub.lfs_path(pointer[1].decode()).read_bytes() if pointer else data
    return files


def is_pickle(data):
    """Whether a file begins as a pickle does; safetensors may, too, whose first byte is the last digits of its header's length."""
    if data[:1] != b"\x80":
        return False
    try:
        json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except ValueError:
        return True
    return False


def commits_of(hub, name="user/model"):
    """List the messages of the commits, the newest first."""
    git = git_of(hub, name)
    return [commit["message"] for commit in git.history(git.refs()["refs/heads/main"])]
