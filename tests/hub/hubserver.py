"""A small stand-in for the Hugging Face Hub on this machine; README.md beside this file says how to use it.

    python tests/hub/hubserver.py --root DIR --port 8765

Bind it to loopback only: it has no security worth the name.
"""

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

from hubhttp import CdnHandler, Handler, Server
from hubstate import Hub


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--root", default=None, help="where repositories are kept (default: a temporary folder)")
    p.add_argument("--port", type=int, default=0, help="0 picks a free port")
    p.add_argument("--cdn-port", type=int, default=0)
    p.add_argument(
        "--user",
        action="append",
        default=[],
        help="name:token[:role[:org...]]; role is write or read. Default: user:hf_user_write:write:my-org, "
        "user:hf_user_read:read:my-org, other:hf_other_write",
    )
    p.add_argument("--page-size", type=int, default=1000, help="entries per page of the tree listing")
    p.add_argument(
        "--multipart-over", type=int, default=20_000_000, help="LFS files above this many bytes go multipart"
    )
    p.add_argument("--chunk-size", type=int, default=10_000_000)
    p.add_argument(
        "--resolve-cache", action="store_true", help="answer /resolve of regular files with a 307 like the Hub"
    )
    p.add_argument("--ready-file", default=None, help="write the endpoint URL here once listening")
    p.add_argument("--verbose", action="store_true")
    return p


class LoopbackHub:
    """Run the stand-in inside a test process: `with LoopbackHub() as hub: ... hub.url`."""

    def __init__(self, root: str | os.PathLike | None = None, **kw):
        args = parser().parse_args([])
        for k, v in kw.items():
            setattr(args, k, v)
        args.user = args.user or [
            "user:hf_user_write:write:my-org",
            "user:hf_user_read:read:my-org",
            "other:hf_other_write:write",
        ]
        self._tmp = None
        if root is None:
            self._tmp = tempfile.TemporaryDirectory(prefix="loopback-hub-")
            root = self._tmp.name
        self.hub = Hub(Path(root), args)
        api = type("Api", (Handler,), {"hub": self.hub})
        cdn = type("Cdn", (CdnHandler,), {"hub": self.hub})
        self._servers = [Server(("127.0.0.1", args.port), api), Server(("127.0.0.1", args.cdn_port), cdn)]
        self.url = self.hub.url = f"http://127.0.0.1:{self._servers[0].server_address[1]}"
        self.hub.cdn_url = f"http://127.0.0.1:{self._servers[1].server_address[1]}"
        self._threads = [threading.Thread(target=s.serve_forever, args=(0.1,), daemon=True) for s in self._servers]

    def start(self) -> "LoopbackHub":
        for t in self._threads:
            t.start()
        return self

    def stop(self) -> None:
        for s in self._servers:
            s.shutdown()
            s.server_close()
        if self._tmp:
            self._tmp.cleanup()

    __enter__ = start

    def __exit__(self, *exc) -> None:
        self.stop()

    def env(self, home: str | os.PathLike, token: str | None = "hf_user_write") -> dict:
        """Environment for a client process with its own, empty HF_HOME."""
        out = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        if token:
            out["HF_TOKEN"] = token
        return out

    def inject(self, **fault) -> dict:
        """inject(action="status", status=503, method="PUT", path="/upload/", times=2)"""
        fault.setdefault("times", 1)
        fault.setdefault("action", "status")
        with self.hub.lock:
            self.hub.faults.append(fault)
        return fault

    @property
    def log(self) -> list[dict]:
        with self.hub.lock:
            return list(self.hub.log)


def main() -> None:
    a = parser().parse_args()
    kw = vars(a).copy()
    root, ready = kw.pop("root"), kw.pop("ready_file")
    if root:
        Path(root).mkdir(parents=True, exist_ok=True)
    h = LoopbackHub(root, **kw).start()
    print(f"HF_ENDPOINT={h.url} (cdn {h.hub.cdn_url}) root {h.hub.root}", flush=True)  # noqa: T201
    if ready:
        Path(ready).write_text(h.url, encoding="utf-8")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        h.stop()


if __name__ == "__main__":
    main()
