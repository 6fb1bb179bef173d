"""One commit or none, and never half of one: uploads and downloads in which something goes wrong."""

import pytest
from huggingface_hub import get_token
from model_folders import make, write

from transformer_theatre.recipes.hub_upload import Repository
from transformer_theatre.recipes.publication import contents, stage


@pytest.fixture
def files(tmp_path):
    """A model folder, as it is published but for its golden file."""
    make(tmp_path / "model")
    stage(tmp_path / "model", tmp_path / "staged")
    return contents(tmp_path / "staged")


@pytest.fixture
def repository(client):
    """A new repository, with the commit that makes it."""
    made = Repository("user/model")
    made.create(private=False, branch=True)
    return made


def commits(repository):
    return len(repository.api.list_repo_commits(repository.name))


ON_THE_WAY_THERE = {
    "busy when files are sent": {"action": "status", "status": 503, "method": "PUT", "path": "^/upload/"},
    "too many requests": {"action": "status", "status": 429, "headers": {"Retry-After": "1"}, "path": "/commit/"},
    "busy when it should commit": {"action": "status", "status": 503, "path": "/commit/"},
    "the connection breaks before it commits": {"action": "reset", "method": "POST", "path": "/commit/"},
    "the connection breaks when files are sent": {"action": "reset", "method": "PUT", "path": "^/upload/"},
    "the connection breaks before anything is sent": {"action": "reset", "method": "POST", "path": "/preupload/"},
    "the answer is lost": {"action": "lost_response", "path": "/commit/"},
    "the answer is lost, and then it is busy": {"action": "lost_response", "path": "/commit/", "then": "/tree/"},
    "slow": {"action": "slow", "bytes_per_s": 200_000},
    "late": {"action": "delay", "seconds": 0.3, "path": "/commit/"},
    "busy when it is asked what is there": {
        "action": "status",
        "status": 500,
        "method": "GET",
        "path": "/api/models/",
    },
}


@pytest.mark.parametrize("fault", ON_THE_WAY_THERE.values(), ids=ON_THE_WAY_THERE)
@pytest.mark.parametrize("create_pr", [False, True], ids=["commit", "pull request"])
def test_a_publication_is_complete_in_one_commit_whatever_happens_on_the_way(
    client, repository, files, fault, create_pr
):
    fault = dict(fault)
    if then := fault.pop("then", None):
        client.inject(action="status", status=503, method="GET", path=then, skip=1)
    client.inject(**fault)
    made = repository.publish(files, "Publish the model", create_pr=create_pr)
    assert repository.lacks(made.id, files) == []
    assert commits(repository) == (1 if create_pr else 2)
    requests = repository.api.list_repo_refs(repository.name, include_pull_requests=True).pull_requests
    assert [ref.target_commit for ref in requests] == ([made.id] if create_pr else [])
    assert bool(made.pull_request) == create_pr
    assert fault["action"] == "slow" or not client.hub.faults[-1:] or client.hub.faults[-1]["times"] <= 0


FOR_GOOD = {
    "busy": {"action": "status", "status": 503, "path": "/commit/"},
    "broken": {"action": "reset", "path": "/commit/"},
}


@pytest.mark.parametrize("fault", FOR_GOOD.values(), ids=FOR_GOOD)
def test_what_cannot_be_published_leaves_the_repository_as_it_was_and_says_how_to_go_on(
    client, repository, files, fault
):
    before = repository.head()
    client.inject(**fault, times=99)
    with pytest.raises(RuntimeError, match=f"is as it was, at commit {before[:7]}. Run the same command again"):
        repository.publish(files, "Publish the model")
    client.hub.faults.clear()
    assert repository.head() == before
    sent = sum(entry["method"] == "PUT" for entry in client.log)
    made = repository.publish(files, "Publish the model")
    assert repository.lacks(made.id, files) == []
    assert sum(entry["method"] == "PUT" for entry in client.log) == sent  # what was sent is not sent twice


def test_somebody_elses_commit_is_not_overwritten(client, repository, files, tmp_path):
    write(tmp_path, "mine.md", "mine")
    sends = repository.api.create_commit

    def meanwhile(*args, **kwargs):
        repository.api.create_commit = sends
        repository.api.upload_file(
            path_or_fileobj=tmp_path / "mine.md", path_in_repo="mine.md", repo_id=repository.name
        )
        return sends(*args, **kwargs)

    repository.api.create_commit = meanwhile
    with pytest.raises(RuntimeError, match="Somebody else has committed"):
        repository.publish(files, "Publish the model")
    assert set(repository.files(repository.head())) == {".gitattributes", "mine.md"}


ON_THE_WAY_BACK = {
    "cut off": {"action": "truncate", "method": "GET", "path": "/lfs/"},
    "too short": {"action": "short", "method": "GET", "path": "/lfs/"},
    "too short, a small file": {"action": "short", "method": "GET", "path": "/resolve/.*/config.json"},
    "one byte is another": {"action": "corrupt", "method": "GET", "path": "/lfs/"},
    "one byte of the code is another": {"action": "corrupt", "method": "GET", "path": "/resolve/.*/decoding.py"},
    "busy": {"action": "status", "status": 503, "method": "GET", "path": "/resolve/"},
    "broken": {"action": "reset", "method": "GET", "path": "/resolve/"},
    "slow": {"action": "slow", "bytes_per_s": 200_000, "method": "GET", "path": "/lfs/"},
}


@pytest.mark.parametrize("fault", ON_THE_WAY_BACK.values(), ids=ON_THE_WAY_BACK)
def test_what_comes_back_damaged_is_asked_for_again(client, repository, files, tmp_path, fault):
    made = repository.publish(files, "Publish the model")
    client.inject(**fault)
    folder = repository._fetch(made.id, files, tmp_path / "cache")
    assert {name: (folder / name).read_bytes() for name in files} == {n: f.path.read_bytes() for n, f in files.items()}
    assert client.hub.faults == [] or client.hub.faults[0]["times"] <= 0


def test_what_always_comes_back_damaged_is_said_to_be_right_on_the_hub(client, repository, files, tmp_path):
    made = repository.publish(files, "Publish the model")
    client.inject(action="corrupt", method="GET", path="/lfs/", times=99)
    with pytest.raises(RuntimeError, match=r"by its own checksums .* model\.safetensors comes back damaged"):
        repository._fetch(made.id, files, tmp_path / "cache")


def test_a_file_that_was_changed_meanwhile_is_noticed(client, repository, files, tmp_path):
    write(tmp_path, "staged/metrics.json", '{"test_bleu": 99}')
    made = repository.publish(files, "Publish the model")
    with pytest.raises(RuntimeError, match=r"holds something else than was published, .*: metrics\.json"):
        repository.prove(made.id, files)


def test_no_token_is_written_down_by_whoever_publishes(client, repository, files, tmp_path, caplog):
    assert get_token() == "hf_user_write"
    client.inject(action="status", status=503, path="/commit/", times=99)
    with pytest.raises(RuntimeError) as error:
        repository.publish(files, "Publish the model")
    assert "hf_user_write" not in f"{error.value} {caplog.text}"
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != "training_args.bin":
            assert b"hf_user_write" not in path.read_bytes(), path
