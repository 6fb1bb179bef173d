"""Run the transformers library's own model tests on ours: python tests/conformance/run_conformance.py [pytest arguments].

They come from the source distribution of the installed version, fetched through pip once; see README.md beside this file.
"""

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path


HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / "build" / "conformance"


def fetch_tests(version: str) -> Path:
    """Return the folder of the tests of transformers `version`, fetched if it is not in the cache."""
    folder = CACHE / f"transformers-{version}" / "tests"
    if folder.is_dir():
        return folder
    print(f"Fetching the source distribution of transformers {version} ...", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        # Only transformers itself has to be a source distribution: pip builds its metadata, with tools from wheels.
        command = [
            "download",
            "--no-deps",
            "--no-binary",
            "transformers",
            "--dest",
            scratch,
            f"transformers=={version}",
        ]
        subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *command], check=True)
        (archive,) = Path(scratch).glob("transformers-*.tar.gz")
        prefix = f"{folder.parent.name}/tests/"
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, [member for member in tar if member.name.startswith(prefix)])
        # Last, and in one step: a folder that is there is whole.
        (Path(scratch) / folder.parent.name).rename(folder.parent)
    return folder


def main(arguments: list[str]) -> int:
    """Fetch the tests, run them, write build/conformance/report.json; return pytest's exit code."""
    tests = fetch_tests(importlib.metadata.version("transformers"))
    search_path = [str(HERE / "library"), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        "OMP_NUM_THREADS": "2",
        **os.environ,
        "CONFORMANCE_REPORT": str(CACHE / "report.json"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(search_path),
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_TESTS": str(tests),
    }
    command = [sys.executable, "-m", "pytest", str(HERE / "test_conformance.py"), *arguments]
    return subprocess.run(command, env=environment, cwd=HERE).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
