"""The Trainer's own `push_to_hub`, with each of its strategies: every commit is a whole model, of one step."""

import json
import logging
from pathlib import Path

import pytest
from datasets import Dataset
from huggingface_hub import snapshot_download
from model_folders import make
from transformers import DataCollatorForSeq2Seq

from transformer_theatre.recipes import background_push
from transformer_theatre.recipes.golden import GOLDEN
from transformer_theatre.recipes.run_arguments import RunArguments
from transformer_theatre.recipes.stranger import compare, load
from transformer_theatre.recipes.trainer import TheatreTrainer


@pytest.fixture
def train(client, tmp_path):
    """Train a tiny translator for six updates, with a save after every second: `train(hub_strategy=...)`."""

    def run(**options):
        model, tokenizer = make(tmp_path / "start")
        rows = [{"input_ids": [5, 6, 2], "labels": [7, 8, 2]}] * 12
        options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "save_total_limit": None, **options}
        args = RunArguments(
            output_dir=str(tmp_path / "run"),
            push_to_hub=True,
            hub_model_id="user/model",
            per_device_train_batch_size=2,
            learning_rate=0.01,
            disable_tqdm=True,
            use_cpu=True,
            **options,
        )
        trainer = TheatreTrainer(
            model=model,
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        )
        trainer.train()
        return trainer

    return run


def commits(trainer):
    found = trainer.pushes.repository.api.list_repo_commits("user/model")
    return {commit.title: commit.commit_id for commit in reversed(found) if commit.title != "initial commit"}


def check_whole(folder, weights):
    """Make sure that a folder is one model: these weights, with the golden answer that they give."""
    assert (folder / "model.safetensors").read_bytes() == weights.read_bytes()
    auto_map = json.loads((folder / "config.json").read_text(encoding="utf-8"))["auto_map"]
    assert all((folder / f"{reference.partition('.')[0]}.py").is_file() for reference in auto_map.values())
    found = compare(*load(str(folder), "AutoModelForSeq2SeqLM", True), folder / GOLDEN)
    assert (found["difference"], found["differs"]) == (0.0, [])
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pth")]


ALSO = {"every_save": None, "checkpoint": "last-checkpoint", "all_checkpoints": "checkpoint-{step}"}


@pytest.mark.parametrize(
    "strategy",
    [pytest.param(name, marks=[] if name in ("end", "checkpoint") else pytest.mark.slow) for name in ("end", *ALSO)],
)
def test_every_commit_of_every_strategy_is_one_whole_model(train, strangers, tmp_path, strategy):
    trainer = train(hub_strategy=strategy, hub_always_push=True)
    pushed = commits(trainer)
    steps = [] if strategy == "end" else [2, 4, 6]
    assert list(pushed) == [f"Training in progress, step {step}" for step in steps]
    for step in steps:
        folder = Path(snapshot_download("user/model", revision=pushed[f"Training in progress, step {step}"]))
        weights = tmp_path / "run" / f"checkpoint-{step}" / "model.safetensors"
        check_whole(folder, weights)
        assert f"the weights of step {step} of 6" in (folder / "README.md").read_text(encoding="utf-8")
        if ALSO[strategy]:
            check_whole(folder / ALSO[strategy].format(step=step), weights)
    assert len(strangers) == len(steps)
    assert trainer.pushes.failed == []

    made = trainer.push_to_hub()
    folder = Path(snapshot_download("user/model", revision=made.id))
    check_whole(folder, tmp_path / "run" / "model.safetensors")
    assert "Trained for 6 steps" in (folder / "README.md").read_text(encoding="utf-8")
    assert not list((tmp_path / "run").glob(".pushing-*"))


def test_a_checkpoint_that_is_deleted_during_its_push_is_pushed_whole(train, strangers, client, tmp_path):
    client.inject(action="delay", seconds=1.5, path="/preupload/")
    trainer = train(hub_strategy="every_save", save_total_limit=1, hub_always_push=True)
    assert not (tmp_path / "run" / "checkpoint-2").exists()
    pushed = commits(trainer)
    folder = Path(snapshot_download("user/model", revision=pushed["Training in progress, step 2"]))
    check_whole(folder, folder / "model.safetensors")


def test_a_push_that_is_still_going_on_is_not_joined_by_another(train, strangers, client):
    client.inject(action="delay", seconds=2, path="/preupload/")
    assert list(commits(train(hub_strategy="every_save"))) == ["Training in progress, step 2"]


def test_a_failed_push_is_seen_and_the_run_goes_on(train, strangers, client, caplog):
    client.inject(action="status", status=503, path="/commit/", times=3)  # as often as it is tried here
    logging.getLogger("transformers").propagate = True
    trainer = train(hub_strategy="every_save", hub_always_push=True)
    assert trainer.state.global_step == 6
    [failure] = trainer.pushes.failed
    assert failure.startswith("step 2: ")
    assert "answered 503" in failure
    assert "step 2 was not pushed" in caplog.text
    assert list(commits(trainer)) == ["Training in progress, step 4", "Training in progress, step 6"]


def test_what_no_stranger_can_load_is_not_pushed(train, strangers, monkeypatch):
    def fails(job):
        raise RuntimeError("ImportError: no such code")

    monkeypatch.setattr(background_push, "run_stranger", fails)
    trainer = train(hub_strategy="every_save", hub_always_push=True)
    assert [failure.partition(":")[0] for failure in trainer.pushes.failed] == ["step 2", "step 4", "step 6"]
    assert commits(trainer) == {}


def test_a_wrong_token_ends_a_run_before_it_begins(train, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong_token")
    with pytest.raises(ValueError, match="does not accept the token"):
        train(hub_strategy="end")


def test_a_push_can_be_waited_for_later(train, strangers, tmp_path):
    trainer = train(hub_strategy="end")
    later = trainer.push_to_hub(commit_message="Later", blocking=False)
    made = later.result(timeout=60)
    assert list(commits(trainer)) == ["Later"]
    check_whole(Path(snapshot_download("user/model", revision=made.id)), tmp_path / "run" / "model.safetensors")
