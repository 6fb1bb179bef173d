"""The same run on one process, on two that each have the model (DDP), and on two that share it (FSDP2), by the command line."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from transformer_theatre.recipes.arguments import RECIPES
from transformer_theatre.recipes.run_folder import recipe_of
from transformer_theatre.recipes.theatre import main


ACCELERATE = RECIPES / "accelerate"
needs_sharding = pytest.mark.skipif(
    find_spec("transformers.distributed.fsdp") is None, reason="this transformers cannot shard by itself"
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def run(recipe_file, corpus, tmp_path):
    """Train the tiny recipe in so many processes, with the same update; return the run's folder."""
    recipe = str(recipe_file("logging_steps: 1", "max_tokens_per_batch: 80"))

    def start(name, processes, *options, launch=None):
        folder = tmp_path / name
        launch = launch or [
            "torch.distributed.run",
            "--nproc_per_node",
            str(processes),
            "--master_port",
            free_port(),
            "-m",
        ]
        words = ["--data_dir", str(corpus), "--output_dir", str(folder)]
        words += ["--gradient_accumulation_steps", str(2 // processes), *options]
        command = [sys.executable, "-m", *launch, "transformer_theatre.recipes.train", recipe, *words]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
        return folder

    return start


def logged(folder):
    history = json.loads((folder / "trainer_state.json").read_text("utf-8"))["log_history"]
    return [entry[name] for entry in history for name in ("loss", "grad_norm") if name in entry]


# What depends on the machine, and on what else it does.
TAKEN = re.compile("train_.*(seconds|per_second|memory|energy|mfu|processes)")


def metrics(folder):
    found = json.loads((folder / "metrics.json").read_text("utf-8"))
    return {name: value for name, value in found.items() if not TAKEN.match(name)}


def assert_same(found, expected):
    assert logged(found) == pytest.approx(logged(expected), rel=1e-5)
    assert metrics(found) == {
        name: pytest.approx(value, rel=1e-4) if isinstance(value, float) else value
        for name, value in metrics(expected).items()
    }
    weights, right = (load_file(folder / "model.safetensors") for folder in (found, expected))
    assert weights.keys() == right.keys()
    for name, weight in weights.items():
        # A bias of the keys changes no attention: its gradient is rounding alone, which Adam makes large.
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(weight, right[name], atol=1e-5, rtol=1e-4, msg=name)


SAVING = ["--save_strategy", "steps", "--save_steps", "2", "--max_steps", "4", "--save_total_limit", "4"]


@needs_sharding
@pytest.mark.slow
@pytest.mark.parametrize(
    "averaged",
    [
        pytest.param(["--ema_decay", "0.5"], id="moving-average"),
        pytest.param(["--average_last", "2", "--optimizer", "radam"], id="mean-of-checkpoints"),
    ],
)
def test_one_process_and_two_that_share_or_do_not_train_the_same_model(run, averaged):
    options = [*SAVING, *averaged]
    one, ddp, fsdp = run("one", 1, *options), run("ddp", 2, *options), run("fsdp", 2, *options, "--fsdp_size", "2")
    for two in (ddp, fsdp):
        assert_same(two, one)
    AutoModelForSeq2SeqLM.from_pretrained(fsdp)  # whole, for one process
    optimizers = [torch.load(folder / "checkpoint-2" / "optimizer.pt") for folder in (one, fsdp)]
    for found, right in zip(*(o["state"].values() for o in optimizers), strict=True):
        torch.testing.assert_close(found, right, atol=1e-6, rtol=1e-3)


@needs_sharding
@pytest.mark.slow
@pytest.mark.parametrize("size", ["2", "1"], ids=["shared-again", "shared-no-more"])
def test_a_shared_run_goes_on_where_it_was(run, size, tmp_path):
    options = [*SAVING, "--ema_decay", "0.5", "--dropout", "0.1"]
    whole = run("whole", 2, *options, "--fsdp_size", "2")
    expected = logged(whole), load_file(whole / "model.safetensors")
    shutil.rmtree(whole / "checkpoint-4")
    resumed = run("whole", 2, *options, "--fsdp_size", size, "--resume_from_checkpoint", "true")
    assert logged(resumed) == pytest.approx(expected[0], rel=1e-5)
    for name, weight in load_file(resumed / "model.safetensors").items():
        torch.testing.assert_close(weight, expected[1][name], atol=1e-5, rtol=1e-4, msg=name)


@needs_sharding
@pytest.mark.slow
def test_muon_on_two_processes_is_muon_on_one(run):
    """Its matrices are made orthogonal in bfloat16, so less is equal than elsewhere."""
    options = ["--max_steps", "3", "--optimizer", "muon", "--muon_learning_rate", "1e-2"]
    one, ddp, fsdp = run("one", 1, *options), run("ddp", 2, *options), run("fsdp", 2, *options, "--fsdp_size", "2")
    for two in (ddp, fsdp):
        assert logged(two) == pytest.approx(logged(one), rel=1e-3)


def test_more_devices_than_processes_are_refused(recipe_file, corpus, tmp_path, capsys):
    words = ["--data_dir", str(corpus), "--output_dir", str(tmp_path / "run"), "--fsdp_size", "2"]
    assert main(["train", str(recipe_file()), *words]) == 2
    assert "fsdp_size=2 must divide the number of processes, 1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_library_that_cannot_shard_is_named(monkeypatch):
    from transformer_theatre.recipes import sharding

    monkeypatch.setattr(sharding, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="fsdp_size=2 needs a newer transformers"):
        sharding.check_sharding(2, 4)


CONFIGS = sorted(path.name for path in ACCELERATE.glob("*.yaml"))
EXPECTED = {
    "cpu.yaml": {"use_cpu": True, "num_processes": 1},
    "ddp.yaml": {"multi_gpu": True, "num_processes": 8},
    "fsdp2.yaml": {"use_fsdp": True, "fsdp_version": 2, "fsdp_state_dict_type": "FULL_STATE_DICT"},
    "deepspeed-zero2.yaml": {"use_deepspeed": True, "zero_stage": 2, "gradient_accumulation_steps": "auto"},
    "multi-node.yaml": {"multi_gpu": True, "num_machines": 2, "num_processes": 16},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_accelerate_understands_a_configuration(name):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    module = "transformer_theatre.recipes.train"
    words = ["--config_file", str(ACCELERATE / name), "--module", module, "dates/demo"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    found = {key: getattr(arguments, key) for key in EXPECTED[name]}
    assert {key: type(value)(found[key]) for key, value in EXPECTED[name].items()} == EXPECTED[name]
    assert arguments.mixed_precision == "no"


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_begins_with_its_command_and_is_of_devices_alone(name):
    text = (ACCELERATE / name).read_text("utf-8")
    assert (
        f"#   accelerate launch --config_file recipes/accelerate/{name}" in text.partition("\ncompute_environment")[0]
    )
    keys = set(yaml.safe_load(text))
    assert not [key for key in keys if re.search("learning|batch|optim|sched|epoch|steps|seed", key)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "processes"), [("cpu.yaml", 1), ("ddp.yaml", 2)])
def test_accelerate_launches_as_many_processes_as_it_says(name, processes, run):
    launch = ["accelerate.commands.launch", "--config_file", str(ACCELERATE / name)]
    launch += ["--num_processes", "2", "--module"] if processes == 2 else ["--module"]
    folder = run("launched", processes, launch=launch)
    assert recipe_of(folder) == "toy/tiny"
    # Two batches in an update: one of each process, or two of one.
    assert json.loads((folder / "fingerprint.json").read_text("utf-8"))["division"]["processes"] == processes
    plain = run("plain", 1)
    assert logged(folder) == pytest.approx(logged(plain), rel=1e-5)


# The first process ends while gloo's thread still waits for the second, and has to call Python after that.
ENDS_EARLY = """
import sys, time, torch
from torch import distributed
from transformer_theatre.recipes import theatre, train
from transformer_theatre.recipes.signals import SIGNALS

folder, rank, stopped = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "stopped"

def run(words):
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
    model.trainer = [model]  # a cycle, as of a trainer and its callbacks
    if rank == 1:
        time.sleep(1)
    told = distributed.all_reduce(torch.ones(1), async_op=True).get_future().then(lambda done: print("told", flush=True))
    if rank == 1:
        told.wait()
    elif stopped:
        SIGNALS.stop("before it was told.")
    return 0

train.main = run
sys.exit(theatre.main(["train"]))
"""


@pytest.mark.parametrize(("how", "code"), [("stopped", 143), ("done", 0)])
def test_a_process_that_ends_lets_the_threads_of_its_group_have_python(how, code, tmp_path):
    command = [sys.executable, "-c", ENDS_EARLY, str(tmp_path)]
    both = [
        subprocess.Popen([*command, rank, how], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in "01"
    ]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [code, 0], outputs
    assert all("told" in output for output in outputs), outputs


# Stands for srun: starts the processes of two machines, hands each its number, and returns the highest exit code.
SRUN = """#!{python}
import os, subprocess, sys
assert sys.argv[1] == "--cpus-per-task=8", sys.argv
tasks = int(os.environ["SLURM_NTASKS"])
started = [
    subprocess.Popen(sys.argv[2:], env={{**os.environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}})
    for rank in range(tasks)
]
with open({pids!r}, "w") as file:
    file.write(" ".join(str(process.pid) for process in started))
sys.exit(max((128 - code if code < 0 else code) for code in [process.wait() for process in started]))
"""
SCONTROL = """#!/bin/bash
if [ "$1" = requeue ]; then echo "$2" > {requeued}; else echo 127.0.0.1; fi
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A Slurm of two processes on this machine; returns where it writes their numbers, and what it was asked to queue."""
    programs = tmp_path / "bin"
    programs.mkdir()
    pids, requeued = tmp_path / "pids", tmp_path / "requeued"
    scripts = {
        "srun": SRUN.format(python=sys.executable, pids=str(pids)),
        "scontrol": SCONTROL.format(requeued=requeued),
        "python": f'#!/bin/bash\nexec {sys.executable} "$@"\n',
    }
    for name, text in scripts.items():
        (programs / name).write_text(text, "utf-8")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for name, value in {
        "NTASKS": 2,
        "NTASKS_PER_NODE": 2,
        "CPUS_PER_TASK": 8,
        "JOB_ID": free_port(),
        "JOB_NODELIST": "a",
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    return pids, requeued


@pytest.mark.slow
def test_a_job_of_slurm_is_queued_again_and_goes_on(cluster, recipe_file, corpus, tmp_path, monkeypatch):
    pids, requeued = cluster
    recipe = recipe_file("save_strategy: steps", "save_steps: 5", "max_steps: 2000", "per_device_train_batch_size: 4")
    folder = tmp_path / "run"
    command = ["bash", str(ACCELERATE / "slurm.sh"), str(folder), str(recipe), "--data_dir", str(corpus)]
    job = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 300
        while not (folder / "checkpoint-5").is_dir() and job.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        for pid in pids.read_text("utf-8").split():
            os.kill(int(pid), signal.SIGTERM)
        output, _ = job.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)  # where one of its processes does not end
    assert job.returncode == 143, output[-3000:]
    assert requeued.read_text("utf-8").strip() == os.environ["SLURM_JOB_ID"]
    done = max(int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*"))

    requeued.unlink()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    again = subprocess.run([*command, "--max_steps", str(done + 2)], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout[-2000:] + again.stderr[-3000:]
    assert not requeued.exists()
    state = json.loads((folder / "trainer_state.json").read_text("utf-8"))
    assert state["global_step"] == done + 2
