#!/usr/bin/env python3
"""A small loopback stand-in for the Hugging Face Hub (own code, Python standard library + PyYAML).

It speaks the part of the Hub's HTTP API that huggingface_hub 2.4 / transformers 5.23 / datasets 5 use:
whoami, repo create/delete/move/settings, preupload, Git-LFS batch (single part and multipart) + verify,
NDJSON commits (add / LFS add / copy / delete, pull requests), branches, tags, refs, commits, tree, paths-info,
repo info, resolve (HEAD and GET with ranges, LFS redirect to a separate "CDN" origin), YAML metadata validation,
gated / private / disabled repos with the same X-Error-Code headers, and fault injection.

Repositories are kept as real bare git repositories (loose objects written in pure Python), so commit ids, blob
ids and LFS pointers are the real thing and `git -C ROOT/models/user/repo log` works.

Not implemented: Xet storage. Clients must run with HF_HUB_DISABLE_XET=1 (or without hf_xet), see README.

    python hubserver.py --root DIR --port 8765
    HF_ENDPOINT=http://127.0.0.1:8765 HF_HUB_DISABLE_XET=1 HF_TOKEN=hf_user_write python train.py

Only ever bind this to loopback: it has no security worth the name.
"""

from __future__ import annotations

import argparse
import base64
import fnmatch
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
import zlib
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit


try:
    import yaml
except ImportError:  # pragma: no cover - huggingface_hub depends on PyYAML, so it is there in practice
    yaml = None

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
HEX40 = re.compile(r"^[0-9a-f]{40}$")
NAME = re.compile(r"^(?!.*(--|\.\.))[A-Za-z0-9_][A-Za-z0-9._-]{0,94}[A-Za-z0-9_]$|^[A-Za-z0-9_]$")
MAX_REGULAR = 10 * 1000 * 1000  # bigger files must go through LFS, as on the Hub

GITATTRIBUTES = "".join(
    f"{p} filter=lfs diff=lfs merge=lfs -text\n"
    for p in [
        "*.7z",
        "*.arrow",
        "*.bin",
        "*.bz2",
        "*.ckpt",
        "*.ftz",
        "*.gz",
        "*.h5",
        "*.joblib",
        "*.lfs.*",
        "*.mlmodel",
        "*.model",
        "*.msgpack",
        "*.npy",
        "*.npz",
        "*.onnx",
        "*.ot",
        "*.parquet",
        "*.pb",
        "*.pickle",
        "*.pkl",
        "*.pt",
        "*.pth",
        "*.rar",
        "*.safetensors",
        "saved_model/**/*",
        "*.tar.*",
        "*.tar",
        "*.tflite",
        "*.tgz",
        "*.wasm",
        "*.xz",
        "*.zip",
        "*.zst",
        "*tfevents*",
    ]
)

# Licence identifiers the real Hub accepts in model cards (those a text project can meet).
LICENSES = set(
    [
        "apache-2.0",
        "mit",
        "openrail",
        "bigscience-openrail-m",
        "creativeml-openrail-m",
        "bigscience-bloom-rail-1.0",
        "bigcode-openrail-m",
        "afl-3.0",
        "artistic-2.0",
        "bsl-1.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsd-3-clause-clear",
        "c-uda",
        "cc",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nd-4.0",
        "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cdla-sharing-1.0",
        "cdla-permissive-1.0",
        "cdla-permissive-2.0",
        "wtfpl",
        "ecl-2.0",
        "epl-1.0",
        "epl-2.0",
        "etalab-2.0",
        "eupl-1.1",
        "eupl-1.2",
        "agpl-3.0",
        "gfdl",
        "gpl",
        "gpl-2.0",
        "gpl-3.0",
        "lgpl",
        "lgpl-2.1",
        "lgpl-3.0",
        "isc",
        "h-research",
        "intel-research",
        "lppl-1.3c",
        "ms-pl",
        "mpl-2.0",
        "odc-by",
        "odbl",
        "openmdw-1.0",
        "openmdw-1.1",
        "openrail++",
        "osl-3.0",
        "postgresql",
        "ofl-1.1",
        "ncsa",
        "unlicense",
        "zlib",
        "pddl",
        "lgpl-lr",
        "deepfloyd-if-license",
        "fair-noncommercial-research-license",
        "llama2",
        "llama3",
        "llama3.1",
        "llama3.2",
        "llama3.3",
        "llama4",
        "grok2-community",
        "gemma",
        "apple-ascl",
        "apple-amlr",
        "unknown",
        "other",
    ]
)


# --------------------------------------------------------------------------------------------- git objects


class Git:
    """A bare git repository written with loose objects only. Enough for linear histories."""

    def __init__(self, path: Path):
        self.path = path

    def init(self) -> None:
        for d in ("objects", "refs/heads", "refs/tags"):
            (self.path / d).mkdir(parents=True, exist_ok=True)
        (self.path / "HEAD").write_text("ref: refs/heads/main\n")
        (self.path / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")

    # objects
    @staticmethod
    def oid_of(kind: str, data: bytes) -> str:
        return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()

    def put(self, kind: str, data: bytes) -> str:
        raw = f"{kind} {len(data)}\0".encode() + data
        oid = hashlib.sha1(raw).hexdigest()
        f = self.path / "objects" / oid[:2] / oid[2:]
        if not f.exists():
            f.parent.mkdir(parents=True, exist_ok=True)
            tmp = f.with_name(f.name + secrets.token_hex(4))
            tmp.write_bytes(zlib.compress(raw, 1))
            os.replace(tmp, f)
        return oid

    def get(self, oid: str) -> tuple[str, bytes]:
        raw = zlib.decompress((self.path / "objects" / oid[:2] / oid[2:]).read_bytes())
        head, _, body = raw.partition(b"\0")
        return head.split()[0].decode(), body

    def has(self, oid: str) -> bool:
        return HEX40.match(oid) is not None and (self.path / "objects" / oid[:2] / oid[2:]).exists()

    # trees <-> flat {path: blob oid}
    def write_tree(self, files: dict[str, str]) -> str:
        here: list[tuple[str, str, str]] = []
        sub: dict[str, dict[str, str]] = {}
        for p, oid in files.items():
            head, _, rest = p.partition("/")
            if rest:
                sub.setdefault(head, {})[rest] = oid
            else:
                here.append((head, "100644", oid))
        for d, inner in sub.items():
            here.append((d, "40000", self.write_tree(inner)))
        # git sorts directories as if their name ended in "/"
        here.sort(key=lambda e: (e[0] + "/" if e[1] == "40000" else e[0]).encode())
        data = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(oid) for name, mode, oid in here)
        return self.put("tree", data)

    def read_tree(self, oid: str, prefix: str = "", dirs: dict[str, str] | None = None) -> dict[str, str]:
        out: dict[str, str] = {}
        data = self.get(oid)[1]
        i = 0
        while i < len(data):
            sp = data.index(b" ", i)
            nul = data.index(b"\0", sp)
            mode, name = data[i:sp].decode(), data[sp + 1 : nul].decode()
            child = data[nul + 1 : nul + 21].hex()
            i = nul + 21
            if mode == "40000":
                if dirs is not None:
                    dirs[prefix + name] = child
                out.update(self.read_tree(child, prefix + name + "/", dirs))
            else:
                out[prefix + name] = child
        return out

    # commits
    def commit(self, tree: str, parents: list[str], message: str, author: str) -> str:
        who = f"{author} <{author}@users.noreply.localhost> {int(time.time())} +0000"
        lines = [f"tree {tree}", *(f"parent {p}" for p in parents), f"author {who}", f"committer {who}", "", message]
        return self.put("commit", "\n".join(lines).encode() + b"\n")

    def commit_info(self, oid: str) -> dict:
        head, _, message = self.get(oid)[1].decode().partition("\n\n")
        info: dict = {"id": oid, "parents": [], "message": message.rstrip("\n")}
        for line in head.split("\n"):
            k, _, v = line.partition(" ")
            if k == "parent":
                info["parents"].append(v)
            elif k == "tree":
                info["tree"] = v
            elif k == "author":
                m = re.match(r"(.*) <.*> (\d+) ", v)
                info["author"], info["time"] = m.group(1), int(m.group(2))
        return info

    def history(self, oid: str) -> list[dict]:
        out, seen = [], set()
        while oid and oid not in seen:
            seen.add(oid)
            info = self.commit_info(oid)
            out.append(info)
            oid = info["parents"][0] if info["parents"] else ""
        return out

    # refs
    def refs(self) -> dict[str, str]:
        base = self.path / "refs"
        return {
            "refs/" + str(f.relative_to(base)): f.read_text().strip()
            for f in base.rglob("*")
            if f.is_file() and not f.name.endswith(".tmp")
        }

    def set_ref(self, ref: str, oid: str) -> None:
        f = self.path / ref
        f.parent.mkdir(parents=True, exist_ok=True)
        tmp = f.with_name(f.name + ".tmp")
        tmp.write_text(oid + "\n")
        os.replace(tmp, f)

    def del_ref(self, ref: str) -> None:
        (self.path / ref).unlink()

    def resolve(self, rev: str) -> str | None:
        refs = self.refs()
        for cand in (f"refs/heads/{rev}", f"refs/tags/{rev}", rev):
            if cand in refs:
                return refs[cand]
        if HEX40.match(rev) and self.has(rev) and self.get(rev)[0] == "commit":
            return rev
        if re.match(r"^[0-9a-f]{7,39}$", rev):  # short ids
            d = self.path / "objects" / rev[:2]
            hits = [rev[:2] + f.name for f in d.glob(rev[2:] + "*")] if d.is_dir() else []
            hits = [h for h in hits if HEX40.match(h) and self.get(h)[0] == "commit"]
            if len(hits) == 1:
                return hits[0]
        return None


# -------------------------------------------------------------------------------------------------- errors


class HubError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, headers: dict | None = None, body=None):
        self.status, self.message, self.code, self.headers, self.body = status, message, code, headers or {}, body


def lfs_pointer(sha: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {size}\n".encode()


LFS_POINTER = re.compile(rb"^version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n$")


def pattern_matches(pattern: str, path: str) -> bool:
    """gitattributes / gitignore style match: without a slash it applies to the base name at any depth."""
    if "/" not in pattern.strip("/"):
        return fnmatch.fnmatchcase(path.rsplit("/", 1)[-1], pattern.strip("/")) or any(
            fnmatch.fnmatchcase(part, pattern.strip("/")) for part in path.split("/")[:-1] if pattern.endswith("/")
        )
    return fnmatch.fnmatchcase(path, pattern.lstrip("/").replace("**/", "*")) or path.startswith(
        pattern.strip("/") + "/"
    )


def ignored(gitignore: str, path: str) -> bool:
    hit = False
    for line in gitignore.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        neg = line.startswith("!")
        if pattern_matches(line[1:] if neg else line, path):
            hit = not neg
    return hit


def split_card(content: str) -> tuple[str | None, str]:
    m = re.match(r"^\ufeff?---[ \t]*\r?\n(.*?)(?:\r?\n)?---[ \t]*(?:\r?\n|$)", content, re.S)
    return (m.group(1), content[m.end() :]) if m else (None, content)


def check_card(content: str, kind: str) -> tuple[dict, list[str], list[str]]:
    """Returns (metadata, errors, warnings) with the rules of the Hub that matter for model cards."""
    errors: list[str] = []
    warns: list[str] = []
    raw, _ = split_card(content)
    if raw is None or not raw.strip():
        return {}, errors, ["empty or missing yaml metadata in repo card"]
    if yaml is None:
        return {}, errors, warns
    try:
        data = yaml.safe_load(raw)
    except yaml.YAMLError as e:
        return {}, [f"YAML Metadata Error: {e}"], warns
    if data is None:
        return {}, errors, ["empty or missing yaml metadata in repo card"]
    if not isinstance(data, dict):
        return {}, ["YAML Metadata Error: must be of type object"], warns

    def strings(field: str, value) -> list[str] | None:
        vals = value if isinstance(value, list) else [value]
        if not all(isinstance(v, str) for v in vals):
            errors.append(f'"{field}" must be a string or an array of strings')
            return None
        return vals

    if data.get("license") is not None:
        for v in strings("license", data["license"]) or []:
            if v not in LICENSES:
                errors.append(f'"license" must be one of [{", ".join(sorted(LICENSES)[:6])}, ...]; got "{v}"')
    if data.get("language") is not None:
        for v in strings("language", data["language"]) or []:
            if not re.match(r"^([a-z]{2,3}(-[A-Za-z]{2,8})*|code|multilingual)$", v):
                errors.append(
                    f'"language" must only contain lowercase ISO 639-1/-2/-3 codes (like "en"), '
                    f'"code" or "multilingual"; got "{v}"'
                )
    for f in ("tags", "datasets", "metrics", "base_model"):
        if data.get(f) is not None:
            vals = strings(f, data[f])
            if f in ("datasets", "base_model"):
                for v in vals or []:
                    if not re.match(r"^[\w.-]+(/[\w.-]+)?$", v):
                        errors.append(f'"{f}" with value "{v}" is not valid. Use a model/dataset id from the Hub.')
    for f in ("library_name", "pipeline_tag", "license_name", "license_link"):
        if data.get(f) is not None and not isinstance(data[f], str):
            errors.append(f'"{f}" must be a string')
    if kind == "model" and data.get("model-index") is not None:
        mi = data["model-index"]
        if not isinstance(mi, list):
            errors.append('"model-index" must be an array')
        else:
            for i, m in enumerate(mi):
                if not isinstance(m, dict) or not isinstance(m.get("name"), str) or not m["name"]:
                    errors.append(f'"model-index[{i}].name" is required')
                    continue
                res = m.get("results", [])
                if not isinstance(res, list):
                    errors.append(f'"model-index[{i}].results" must be an array')
                    continue
                for j, r in enumerate(res):
                    at = f"model-index[{i}].results[{j}]"
                    if not isinstance((r.get("task") or {}).get("type"), str):
                        errors.append(f'"{at}.task.type" is required')
                    ds = r.get("dataset") or {}
                    for k in ("type", "name"):
                        if not isinstance(ds.get(k), str):
                            errors.append(f'"{at}.dataset.{k}" is required')
                    mets = r.get("metrics")
                    if not isinstance(mets, list) or not mets:
                        errors.append(f'"{at}.metrics" is required')
                        continue
                    for k, mm in enumerate(mets):
                        if not isinstance(mm.get("type"), str):
                            errors.append(f'"{at}.metrics[{k}].type" is required')
                        if mm.get("value") is None:
                            errors.append(f'"{at}.metrics[{k}].value" is required')
    return data, errors, warns


# --------------------------------------------------------------------------------------------------- state


class Hub:
    """All state and rules; the HTTP handler below only translates."""

    def __init__(self, root: Path, opts: argparse.Namespace):
        self.root, self.opts = Path(root), opts
        self.lock = threading.RLock()
        self.log: list[dict] = []
        self.faults: list[dict] = []
        self.users: dict[str, dict] = {}  # token -> {"name", "role", "orgs"}
        self.url = self.cdn_url = ""
        for d in (*KINDS, "lfs", "parts"):
            (self.root / d).mkdir(parents=True, exist_ok=True)
        self.moved_file = self.root / "moved.json"
        self.moved: dict[str, str] = json.loads(self.moved_file.read_text()) if self.moved_file.exists() else {}
        for spec in opts.user:
            name, token, role, *orgs = (spec.split(":") + ["write"])[:3] + spec.split(":")[3:]
            self.users[token] = {"name": name, "role": role or "write", "orgs": [o for o in orgs if o]}

    # ---- repos
    def repo_dir(self, kind: str, rid: str) -> Path:
        return self.root / kind / rid

    def meta(self, kind: str, rid: str) -> dict:
        return json.loads((self.repo_dir(kind, rid) / "hub.json").read_text())

    def save_meta(self, kind: str, rid: str, meta: dict) -> None:
        f = self.repo_dir(kind, rid) / "hub.json"
        tmp = f.with_suffix(".tmp")
        tmp.write_text(json.dumps(meta, indent=1))
        os.replace(tmp, f)

    def exists(self, kind: str, rid: str) -> bool:
        return (self.repo_dir(kind, rid) / "hub.json").exists()

    def may_write(self, user: dict | None, rid: str) -> bool:
        ns = rid.split("/")[0]
        return bool(user) and user["role"] == "write" and (ns == user["name"] or ns in user["orgs"])

    def owns(self, user: dict | None, rid: str) -> bool:
        ns = rid.split("/")[0]
        return bool(user) and (ns == user["name"] or ns in user["orgs"])

    def open(self, kind: str, rid: str, user: dict | None, content: bool = False) -> tuple[Git, dict]:
        """Existence, privacy, disabled and (for file content) gating rules with the Hub's error codes."""
        label = f"{KINDS[kind]} {rid}"
        if not self.exists(kind, rid):
            missing = True
        else:
            meta = self.meta(kind, rid)
            missing = meta["private"] and not self.owns(user, rid)
        if missing:
            # The Hub hides the difference between "private" and "absent". Unauthenticated calls get a 401. The client
            # turns a code-less 401 into RepositoryNotFoundError only for https:// URLs, hence the explicit code here.
            if user is None:
                raise HubError(401, "Invalid username or password.", "RepoNotFound")
            raise HubError(404, "Repository not found", "RepoNotFound")
        if meta.get("disabled"):
            raise HubError(403, "Access to this resource is disabled.")
        if content and meta.get("gated") and not self.owns(user, rid):
            if user is None:
                raise HubError(
                    401,
                    f"Access to {label} is restricted. You must have access to it and be authenticated to access it. "
                    "Please log in.",
                    "GatedRepo",
                )
            if user["name"] not in meta.get("gated_users", []):
                raise HubError(
                    403,
                    f"Access to {label} is restricted and you are not in the authorized list. "
                    f"Visit {self.url}/{rid} to ask for access.",
                    "GatedRepo",
                )
        return Git(self.repo_dir(kind, rid)), meta

    def need_write(self, user: dict | None, rid: str) -> None:
        if user is None:
            raise HubError(401, "Invalid username or password.")
        if not self.may_write(user, rid):
            raise HubError(
                403,
                f"403 Forbidden: you don't have the rights to write to {rid} "
                f"(token role: {user['role']}, user: {user['name']})",
            )

    def rev(self, git: Git, rev: str) -> str:
        oid = git.resolve(rev)
        if oid is None:
            raise HubError(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        return oid

    # ---- files
    def lfs_path(self, sha: str) -> Path:
        return self.root / "lfs" / sha[:2] / sha

    def entry(self, git: Git, path: str, oid: str) -> dict:
        data = git.get(oid)[1]
        m = LFS_POINTER.match(data) if len(data) < 300 else None
        out = {"type": "file", "oid": oid, "size": len(data), "path": path}
        if m:
            size = int(m.group(2))
            out.update(size=size, lfs={"oid": m.group(1).decode(), "size": size, "pointerSize": len(data)})
        return out

    def files(self, git: Git, commit: str, dirs: dict | None = None) -> dict[str, str]:
        return git.read_tree(git.commit_info(commit)["tree"], dirs=dirs)

    def text(self, git: Git, files: dict[str, str], path: str) -> str | None:
        if path not in files:
            return None
        try:
            return git.get(files[path])[1].decode()
        except UnicodeDecodeError:
            return None

    # ---- operations
    def create(self, user: dict | None, body: dict) -> dict:
        if user is None:
            raise HubError(401, "Invalid username or password.")
        kind = (body.get("type") or "model") + "s"
        if kind not in KINDS:
            raise HubError(400, f"unsupported repo type {kind[:-1]}")
        ns, name = body.get("organization") or user["name"], body.get("name") or ""
        if not NAME.match(name) or name.endswith(".git") or name.endswith(".ipynb"):
            raise HubError(400, f"Invalid repo name: {name!r}")
        rid = f"{ns}/{name}"
        if (ns != user["name"] and ns not in user["orgs"]) or user["role"] != "write":
            raise HubError(
                403, f'You don\'t have the rights to create a {kind[:-1]} under the namespace "{ns}".', headers={}
            )
        url = f"{self.url}/{'' if kind == 'models' else kind + '/'}{rid}"
        with self.lock:
            if self.exists(kind, rid):
                # create_repo(exist_ok=True) reads "url" from the body of the 409
                msg = f"You already created this {kind[:-1]} repo"
                raise HubError(409, msg, body={"error": msg, "url": url})
            self.moved.pop(f"{kind}/{rid}", None)
            git = Git(self.repo_dir(kind, rid))
            git.init()
            tree = git.write_tree({".gitattributes": git.put("blob", GITATTRIBUTES.encode())})
            git.set_ref("refs/heads/main", git.commit(tree, [], "initial commit", user["name"]))
            vis = body.get("visibility") or ("private" if body.get("private") else "public")
            self.save_meta(
                kind,
                rid,
                {
                    "id": secrets.token_hex(12),
                    "private": vis in ("private", "protected"),
                    "gated": False,
                    "gated_users": [],
                    "disabled": False,
                    "created": now(),
                    "author": user["name"],
                    "prs": 0,
                },
            )
        return {"url": url, "name": rid, "id": self.meta(kind, rid)["id"], "private": vis != "public"}

    def preupload(self, git: Git, rev: str, body: dict) -> dict:
        commit = self.rev(git, rev)
        files = self.files(git, commit)
        attrs = self.text(git, files, ".gitattributes") or ""
        ignore = body.get("gitIgnore")
        if ignore is None:
            ignore = self.text(git, files, ".gitignore") or ""
        out = []
        for f in body["files"]:
            path, size, sample = f["path"], f["size"], base64.b64decode(f.get("sample") or "")
            lfs = None
            for line in attrs.splitlines():
                parts = line.split()
                if len(parts) > 1 and not line.startswith("#") and pattern_matches(parts[0], path):
                    if "filter=lfs" in parts:
                        lfs = True
                    elif "-filter" in parts or "text" in parts:
                        lfs = False
            if lfs is None:
                lfs = size > MAX_REGULAR or b"\0" in sample or not is_text(sample)
            item = {"path": path, "uploadMode": "lfs" if lfs and size > 0 else "regular"}
            item["shouldIgnore"] = ignored(ignore, path)
            if path in files:
                e = self.entry(git, path, files[path])
                item["oid"] = e["lfs"]["oid"] if "lfs" in e else e["oid"]
            out.append(item)
        return {"files": out, "commitOid": commit}

    def do_commit(
        self, kind: str, rid: str, git: Git, rev: str, user: dict, lines: list[dict], create_pr: bool
    ) -> dict:
        with self.lock:
            header = next((x["value"] for x in lines if x["key"] == "header"), None)
            if header is None or not header.get("summary"):
                raise HubError(400, "missing commit header or summary")
            refs = git.refs()
            ref = rev if rev.startswith("refs/") else f"refs/heads/{rev}"
            if ref not in refs and not (create_pr and git.resolve(rev)):
                raise HubError(404, f"Invalid rev id: {rev}", "RevisionNotFound")
            head = refs.get(ref) or git.resolve(rev)
            parent = header.get("parentCommit")
            if parent and not create_pr and not head.startswith(parent):
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            files = self.files(git, head)
            before = dict(files)
            for op in lines:
                key, v = op["key"], op["value"]
                if key == "header":
                    continue
                path = v["path"]
                if path.startswith("/") or any(p in ("..", "", ".git") for p in path.rstrip("/").split("/")):
                    raise HubError(400, f"Invalid path: {path}")
                if key == "file":
                    data = base64.b64decode(v["content"]) if v.get("encoding") == "base64" else v["content"].encode()
                    if len(data) > MAX_REGULAR:
                        raise HubError(400, f"File {path} is too large for a regular file; use LFS")
                    files[path] = git.put("blob", data)
                elif key == "lfsFile":
                    sha = v["oid"]
                    obj = self.lfs_path(sha)
                    if not obj.exists():
                        raise HubError(
                            400,
                            "Your push was rejected because an LFS pointer pointed to a file that does not exist. "
                            f"For instance, this can happen if you used git push --no-verify to push your changes. "
                            f"Offending file: - {path}",
                        )
                    size = obj.stat().st_size
                    if v.get("size") is not None and v["size"] != size:
                        raise HubError(400, f"LFS object size mismatch for {path}")
                    files[path] = git.put("blob", lfs_pointer(sha, size))
                elif key == "deletedFile":
                    if path not in files:
                        raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
                    del files[path]
                elif key == "deletedFolder":
                    hits = [p for p in files if p.startswith(path.rstrip("/") + "/")]
                    if not hits:
                        raise HubError(404, "A folder with this name doesn't exist", "EntryNotFound")
                    for p in hits:
                        del files[p]
                else:
                    raise HubError(400, f"unknown commit operation {key}")
            for p in files:  # a path cannot be a file and a folder at once
                for q in parents_of(p):
                    if q in files:
                        raise HubError(400, f"{q} is both a file and a folder")
            if files.get("README.md") != before.get("README.md") and "README.md" in files:
                _, errs, _ = check_card(self.text(git, files, "README.md") or "", KINDS[kind])
                if errs:
                    raise HubError(400, "Invalid metadata in README.md: " + "; ".join(errs))
            msg = header["summary"] + (f"\n\n{header['description']}" if header.get("description") else "")
            new = git.commit(git.write_tree(files), [head], msg, user["name"])
            out = {"success": True, "commitOid": new, "hookOutput": ""}
            base = f"{self.url}/{'' if kind == 'models' else kind + '/'}{rid}"
            if create_pr:
                meta = self.meta(kind, rid)
                meta["prs"] += 1
                self.save_meta(kind, rid, meta)
                git.set_ref(f"refs/pr/{meta['prs']}", new)
                out["pullRequestUrl"] = f"{base}/discussions/{meta['prs']}"
            else:
                git.set_ref(ref, new)
            out["commitUrl"] = f"{base}/commit/{new}"
            return out

    def info(self, kind: str, rid: str, git: Git, meta: dict, rev: str, q: dict) -> dict:
        commit = self.rev(git, rev)
        files = self.files(git, commit)
        card: dict = {}
        readme = self.text(git, files, "README.md")
        if readme:
            card = check_card(readme, KINDS[kind])[0]
        ci = git.commit_info(commit)
        entries = {p: self.entry(git, p, o) for p, o in sorted(files.items())}
        sib = []
        for p, e in entries.items():
            s: dict = {"rfilename": p}
            if q.get("blobs"):
                s.update(size=e["size"], blobId=e["oid"])
                if "lfs" in e:
                    s["lfs"] = {
                        "sha256": e["lfs"]["oid"],
                        "size": e["lfs"]["size"],
                        "pointerSize": e["lfs"]["pointerSize"],
                    }
            sib.append(s)
        tags = []
        for f in ("library_name", "pipeline_tag"):
            if isinstance(card.get(f), str):
                tags.append(card[f])
        tags += [t for t in card.get("tags") or [] if isinstance(t, str)]
        lic = card.get("license")
        tags += [f"license:{lic}"] if isinstance(lic, str) else []
        for f, pre in (("datasets", "dataset"), ("base_model", "base_model")):
            v = card.get(f)
            tags += [f"{pre}:{x}" for x in (v if isinstance(v, list) else [v]) if isinstance(x, str)]
        out = {
            "_id": meta["id"],
            "id": rid,
            "author": rid.split("/")[0],
            "sha": commit,
            "lastModified": iso(ci["time"]),
            "createdAt": meta["created"],
            "private": meta["private"],
            "gated": meta["gated"],
            "disabled": meta["disabled"],
            "downloads": 0,
            "likes": 0,
            "tags": tags,
            "siblings": sib,
            "usedStorage": sum(e["size"] for e in entries.values()),
        }
        if card:
            out["cardData"] = card
        if kind == "models":
            out["modelId"] = rid
            out["library_name"] = card.get("library_name") or ("transformers" if "config.json" in files else None)
            out["pipeline_tag"] = card.get("pipeline_tag")
            if card.get("model-index"):
                out["model-index"] = card["model-index"]
            cfg = self.text(git, files, "config.json")
            if cfg:
                try:
                    c = json.loads(cfg)
                    out["config"] = {k: c[k] for k in ("architectures", "model_type", "auto_map") if k in c}
                    if c.get("model_type"):
                        tags.append(c["model_type"])
                except ValueError:
                    pass
            st = entries.get("model.safetensors")
            if st and "lfs" in st:
                out["safetensors"] = safetensors_counts(self.lfs_path(st["lfs"]["oid"]))
        return out


def parents_of(path: str):
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def safetensors_counts(path: Path) -> dict | None:
    try:
        with path.open("rb") as f:
            n = struct.unpack("<Q", f.read(8))[0]
            head = json.loads(f.read(n))
        params: dict[str, int] = {}
        for k, t in head.items():
            if k != "__metadata__":
                size = 1
                for d in t["shape"]:
                    size *= d
                params[t["dtype"]] = params.get(t["dtype"], 0) + size
        return {"parameters": params, "total": sum(params.values())}
    except Exception:
        return None


def is_text(sample: bytes) -> bool:
    for cut in range(0, 4):  # the sample may cut a multi-byte character
        try:
            (sample[: len(sample) - cut] if cut else sample).decode()
            return True
        except UnicodeDecodeError:
            continue
    return False


def iso(ts: float) -> str:
    return datetime.fromtimestamp(ts, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def now() -> str:
    return iso(time.time())


# ------------------------------------------------------------------------------------------------ HTTP layer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "loopback-hub"
    hub: Hub
    is_cdn = False

    def log_message(self, fmt, *args):
        if self.hub.opts.verbose:
            sys.stderr.write("%s %s\n" % (self.command, fmt % args))

    # ---- plumbing
    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (ConnectionResetError, BrokenPipeError):
            self.close_connection = True

    def body(self) -> bytes:
        if self._body is None:
            if "chunked" in (self.headers.get("Transfer-Encoding") or "").lower():
                out = bytearray()
                while True:
                    n = int(self.rfile.readline().split(b";")[0].strip() or b"0", 16)
                    if n == 0:
                        while self.rfile.readline().strip():
                            pass
                        break
                    out += self.rfile.read(n)
                    self.rfile.readline()
                self._body = bytes(out)
            else:
                self._body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return self._body

    def json(self):
        try:
            return json.loads(self.body() or b"{}")
        except ValueError:
            raise HubError(400, "invalid JSON body")

    def reply(self, status: int, data: bytes = b"", headers: dict | None = None, ctype: str = "application/json"):
        self.status = status
        headers = dict(headers or {})
        fault = self.fault if self.fault and self.fault["action"] in ("truncate", "corrupt", "short") else None
        if fault and status in (200, 206) and data and self.command == "GET":
            self.fault_used = True
            if fault["action"] == "corrupt":
                k = len(data) // 2
                data = data[:k] + bytes([data[k] ^ 0xFF]) + data[k + 1 :]
            elif fault["action"] == "short":  # a well-formed response that is simply too short
                data = data[: int(len(data) * fault.get("keep", 0.5))]
        self.send_response(status)
        self.send_header("X-Request-Id", "Root=1-" + secrets.token_hex(8))
        self.send_header("Content-Type", headers.pop("Content-Type", ctype))
        length = headers.pop("Content-Length", str(len(data)))
        self.send_header("Content-Length", length)
        for k, v in headers.items():
            self.send_header(k, str(v).encode("ascii", "replace").decode())
        if fault and fault["action"] == "truncate" and status in (200, 206) and self.command == "GET":
            self.send_header("Connection", "close")
            self.close_connection = True
            data = data[: int(len(data) * fault.get("keep", 0.5))]
        self.end_headers()
        if self.command != "HEAD":
            if self.fault and self.fault["action"] == "slow":
                step = max(1, int(self.fault.get("bytes_per_s", 65536) * 0.1))
                for i in range(0, len(data), step):
                    self.wfile.write(data[i : i + step])
                    self.wfile.flush()
                    time.sleep(0.1)
            else:
                self.wfile.write(data)
        self.sent = len(data)

    def send_json(self, obj, status: int = 200, headers: dict | None = None):
        self.reply(status, json.dumps(obj).encode(), headers)

    def fail(self, e: HubError):
        h = dict(e.headers)
        if e.code:
            h["X-Error-Code"] = e.code
        h["X-Error-Message"] = e.message
        if e.status == 401:
            h["WWW-Authenticate"] = 'Bearer realm="Authentication required"'
        self.send_json(e.body if e.body is not None else {"error": e.message}, e.status, h)

    def user(self) -> dict | None:
        auth = self.headers.get("Authorization")
        if not auth:
            return None
        token = auth.split(" ", 1)[-1]
        if auth.startswith("Basic "):
            token = base64.b64decode(token).decode().split(":", 1)[-1]
        if token not in self.hub.users:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.hub.users[token]

    def serve(self):
        self._body, self.status, self.sent, self.fault, self.fault_used = None, 0, 0, None, False
        parts = urlsplit(self.path)
        self.route = unquote(parts.path)
        self.rawroute = parts.path
        self.q = {k: (v if len(v) > 1 else v[0]) for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        t0, who = time.time(), None
        try:
            if not self.route.startswith("/_admin/"):
                self.fault = self.take_fault()
            if self.fault:
                a = self.fault["action"]
                if a == "delay":
                    time.sleep(self.fault.get("seconds", 1))
                elif a == "status":
                    self.body()  # read the request so that keep-alive stays in step
                    h = dict(self.fault.get("headers") or {})
                    h.setdefault("X-Error-Message", "injected fault")
                    self.send_json({"error": "injected fault"}, int(self.fault.get("status", 503)), h)
                    return
                elif a == "reset":  # the peer vanishes without an answer
                    self.close_connection = True
                    self.status = -1
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
            if self.command not in ("GET", "HEAD"):
                self.body()  # always consume the request, so that keep-alive connections stay in step
            try:
                user = self.user()
                who = user["name"] if user else None
                if self.is_cdn:
                    self.cdn()
                else:
                    self.dispatch(user)
            except HubError as e:
                self.fail(e)
        except (ConnectionResetError, BrokenPipeError):
            self.close_connection = True
        except Exception as e:
            import traceback

            traceback.print_exc()
            self.close_connection = True
            if self.status == 0:
                self.send_json({"error": f"internal error in the stand-in: {e!r}"}, 500)
        finally:
            if not self.route.startswith("/_admin/"):
                rec = {
                    "t": round(t0, 3),
                    "method": self.command,
                    "path": self.path,
                    "status": self.status,
                    "user": who,
                    "in": len(self._body or b""),
                    "out": self.sent,
                    "ms": round(1000 * (time.time() - t0), 1),
                    "cdn": self.is_cdn,
                    "auth_sent": "Authorization" in self.headers,
                    "range": self.headers.get("Range"),
                    "ua": self.headers.get("User-Agent"),
                }
                if self.fault:
                    rec["fault"] = self.fault["action"]
                with self.hub.lock:
                    self.hub.log.append(rec)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = serve

    def take_fault(self) -> dict | None:
        with self.hub.lock:
            for f in self.hub.faults:
                if f["times"] <= 0:
                    continue
                if f.get("method") and self.command not in f["method"].split(","):
                    continue
                if f.get("path") and not re.search(f["path"], self.path):
                    continue
                if f.get("skip", 0) > 0:
                    f["skip"] -= 1
                    continue
                f["times"] -= 1
                f["hits"] = f.get("hits", 0) + 1
                return f
        return None

    # ---- file bodies
    def send_file(self, path_or_bytes, etag: str, headers: dict, name: str):
        """GET/HEAD with single-range support."""
        data = path_or_bytes.read_bytes() if isinstance(path_or_bytes, Path) else path_or_bytes
        size = len(data)
        h = {
            "ETag": f'"{etag}"',
            "Accept-Ranges": "bytes",
            "Content-Disposition": f"inline; filename*=UTF-8''{quote(name)}; filename=\"{name.encode('ascii', 'replace').decode()}\";",
            **headers,
        }
        ctype = (
            "text/plain; charset=utf-8"
            if is_text(data[:512]) and b"\0" not in data[:512]
            else "application/octet-stream"
        )
        rng = self.headers.get("Range")
        if rng:
            m = re.match(r"bytes=(\d*)-(\d*)$", rng.strip())
            if m and (m.group(1) or m.group(2)):
                if m.group(1):
                    a, b = int(m.group(1)), min(int(m.group(2)) if m.group(2) else size - 1, size - 1)
                else:
                    a, b = max(0, size - int(m.group(2))), size - 1
                if a >= size or a > b:
                    self.reply(416, b"", {**h, "Content-Range": f"bytes */{size}"}, ctype)
                    return
                h["Content-Range"] = f"bytes {a}-{b}/{size}"
                return self.reply(206, data[a : b + 1], h, ctype)
        if self.command == "HEAD":
            return self.reply(200, b"", {**h, "Content-Length": str(size)}, ctype)
        self.reply(200, data, h, ctype)

    def cdn(self):
        """The "other origin": signed URLs, no Hub credentials wanted here (the log records if one leaks)."""
        hub = self.hub
        m = re.match(r"^/lfs/([0-9a-f]{64})$", self.route)
        if m and self.command in ("GET", "HEAD"):
            f = hub.lfs_path(m.group(1))
            if not f.exists():
                raise HubError(404, "NoSuchKey")
            return self.send_file(f, m.group(1), {}, self.q.get("name", m.group(1)))
        m = re.match(r"^/upload/([0-9a-f]{64})$", self.route)
        if m and self.command == "PUT":
            return self.store_lfs(m.group(1), self.body())
        m = re.match(r"^/part/([0-9a-f]{64})/(\w+)/(\d+)$", self.route)
        if m and self.command == "PUT":
            data = self.body()
            d = hub.root / "parts" / m.group(2)
            d.mkdir(parents=True, exist_ok=True)
            (d / m.group(3)).write_bytes(data)
            return self.reply(200, b"", {"ETag": f'"{hashlib.md5(data).hexdigest()}"'})
        raise HubError(404, "no such object")

    def store_lfs(self, sha: str, data: bytes):
        if hashlib.sha256(data).hexdigest() != sha:
            raise HubError(400, f"BadDigest: the content does not have sha256 {sha}")
        f = self.hub.lfs_path(sha)
        f.parent.mkdir(parents=True, exist_ok=True)
        tmp = f.with_name(f.name + secrets.token_hex(4))
        tmp.write_bytes(data)
        os.replace(tmp, f)
        self.reply(200, b"", {"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    # ---- routing
    def dispatch(self, user: dict | None):
        hub, r, m = self.hub, self.route, self.command
        if r.startswith("/_admin/"):
            return self.admin(r[len("/_admin/") :])
        if r == "/" or r == "/healthz":
            return self.send_json({"ok": True, "server": "loopback-hub"})
        if r == "/api/whoami-v2":
            if user is None:
                raise HubError(401, "Invalid username or password.")
            return self.send_json(
                {
                    "type": "user",
                    "id": hashlib.md5(user["name"].encode()).hexdigest()[:24],
                    "name": user["name"],
                    "fullname": user["name"],
                    "email": f"{user['name']}@localhost",
                    "emailVerified": True,
                    "canPay": False,
                    "isPro": False,
                    "orgs": [{"type": "org", "name": o, "roleInOrg": "write"} for o in user["orgs"]],
                    "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": user["role"]}},
                }
            )
        if r == "/api/repos/create" and m == "POST":
            return self.send_json(hub.create(user, self.json()))
        if r == "/api/repos/delete" and m == "DELETE":
            b = self.json()
            kind, rid = (
                (b.get("type") or "model") + "s",
                f"{b.get('organization') or (user or {}).get('name')}/{b['name']}",
            )
            hub.open(kind, rid, user)
            hub.need_write(user, rid)
            with hub.lock:
                shutil.rmtree(hub.repo_dir(kind, rid))
            return self.send_json({"ok": True})
        if r == "/api/repos/move" and m == "POST":
            b = self.json()
            kind, a, z = (b.get("type") or "model") + "s", b["fromRepo"], b["toRepo"]
            hub.open(kind, a, user)
            hub.need_write(user, a)
            hub.need_write(user, z)
            with hub.lock:
                if hub.exists(kind, z):
                    raise HubError(409, f"{z} already exists")
                hub.repo_dir(kind, z).parent.mkdir(parents=True, exist_ok=True)
                os.rename(hub.repo_dir(kind, a), hub.repo_dir(kind, z))
                hub.moved[f"{kind}/{a}"] = z
                hub.moved_file.write_text(json.dumps(hub.moved))
            return self.send_json({"ok": True, "url": f"{hub.url}/{z}"})
        if r == "/api/validate-yaml" and m == "POST":
            b = self.json()
            _, errs, warns = check_card(b.get("content", ""), b.get("repoType") or "model")
            return self.send_json(
                {"errors": [{"message": e} for e in errs], "warnings": [{"message": w} for w in warns]},
                400 if errs else 200,
            )
        if r.startswith("/api/telemetry") or r == "/api/agent-harnesses":
            return self.send_json({})
        if r.startswith("/api/settings/repositories"):
            return self.send_json([])

        # git LFS batch and its helpers
        mm = re.match(r"^/(?:(datasets|spaces)/)?([^/]+/[^/]+)\.git/info/lfs/objects/(batch|verify|complete)$", r)
        if mm and m == "POST":
            return self.lfs_api(mm.group(1) or "models", mm.group(2), mm.group(3), user)

        # files: /[kind/]ns/name/(resolve|raw)/rev/path — the revision is one URL segment and may hold %2F
        mm = re.match(r"^/(?:(datasets|spaces)/)?([^/]+/[^/]+)/(resolve|raw)/([^/]+)/(.+)$", self.rawroute)
        if mm and m in ("GET", "HEAD"):
            return self.resolve_file(
                mm.group(1) or "models",
                unquote(mm.group(2)),
                unquote(mm.group(4)),
                unquote(mm.group(5)),
                user,
                mm.group(3),
            )
        mm = re.match(
            r"^/api/resolve-cache/(models|datasets|spaces)/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)$", self.rawroute
        )
        if mm and m in ("GET", "HEAD"):
            return self.resolve_file(
                mm.group(1), unquote(mm.group(2)), mm.group(3), unquote(mm.group(4)), user, "cache"
            )

        mm = re.match(r"^/api/(models|datasets|spaces)/?$", r)
        if mm and m == "GET":
            return self.list_repos(mm.group(1), user)
        mm = re.match(r"^/api/(models|datasets|spaces)/([^/]+/[^/]+)(?:/(.*))?$", self.rawroute)
        if mm:
            return self.repo_api(mm.group(1), unquote(mm.group(2)), mm.group(3) or "", user)
        # canonical (namespace-less) ids such as "gpt2" never exist here
        if re.match(r"^/api/(models|datasets|spaces)/[^/]+(/.*)?$", r) or re.match(r"^/[^/]+/resolve/", r):
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        raise HubError(404, f"route not known to the stand-in: {m} {r}")

    def list_repos(self, kind: str, user):
        hub, out = self.hub, []
        for f in sorted((hub.root / kind).glob("*/*/hub.json")):
            rid = f"{f.parent.parent.name}/{f.parent.name}"
            meta = json.loads(f.read_text())
            if meta["private"] and not hub.owns(user, rid):
                continue
            if self.q.get("author") and rid.split("/")[0] != self.q["author"]:
                continue
            if self.q.get("search") and self.q["search"].lower() not in rid.lower():
                continue
            info = hub.info(kind, rid, Git(f.parent), meta, "main", {})
            want = self.q.get("filter")
            if want and not set(want if isinstance(want, list) else [want]) <= set(info["tags"]):
                continue
            info.pop("siblings", None)
            out.append(info)
        self.send_json(out[: int(self.q.get("limit", 1000))])

    def redirect_if_moved(self, kind: str, rid: str) -> bool:
        new = self.hub.moved.get(f"{kind}/{rid}")
        if new and not self.hub.exists(kind, rid):
            self.body()
            self.reply(307, b"", {"Location": self.path.replace(rid, new, 1)})
            return True
        return False

    def repo_api(self, kind: str, rid: str, rest: str, user):
        hub, m = self.hub, self.command
        if self.redirect_if_moved(kind, rid):
            return
        git, meta = hub.open(kind, rid, user)
        op, _, tail = rest.partition("/")
        arg = unquote(tail.split("/")[0]) if tail else ""
        if op == "" and m == "GET":
            return self.send_json(hub.info(kind, rid, git, meta, "main", self.q))
        if op == "revision" and m == "GET":
            return self.send_json(hub.info(kind, rid, git, meta, arg, self.q))
        if op == "auth-check" and m == "GET":
            hub.open(kind, rid, user, content=True)
            return self.send_json({"ok": True})
        if op == "refs" and m == "GET":
            refs = git.refs()

            def pick(pre):
                return [
                    {"name": k[len(pre) :], "ref": k, "targetCommit": v}
                    for k, v in sorted(refs.items())
                    if k.startswith(pre)
                ]

            out = {"branches": pick("refs/heads/"), "tags": pick("refs/tags/"), "converts": []}
            if self.q.get("include_prs"):
                out["pullRequests"] = pick("refs/pr/")
            return self.send_json(out)
        if op == "commits" and m == "GET":
            return self.send_json(
                [
                    {
                        "id": c["id"],
                        "title": c["message"].split("\n")[0],
                        "message": "\n".join(c["message"].split("\n")[1:]).strip(),
                        "authors": [{"user": c["author"], "avatar": ""}],
                        "date": iso(c["time"]),
                    }
                    for c in git.history(hub.rev(git, arg))
                ]
            )
        if op == "tree" and m == "GET":
            hub.open(kind, rid, user, content=True)
            path = unquote("/".join(tail.split("/")[1:])).strip("/")
            return self.tree(git, hub.rev(git, arg), path)
        if op == "paths-info" and m == "POST":
            ctype = self.headers.get("Content-Type") or ""
            b = self.json() if "json" in ctype else parse_qs(self.body().decode())
            paths = b.get("paths") or []
            dirs: dict[str, str] = {}
            files = hub.files(git, hub.rev(git, arg), dirs)
            out = []
            for p in paths:
                p = p.strip("/")
                if p in files:
                    out.append(self.expand(git, hub.entry(git, p, files[p])))
                elif p in dirs:
                    out.append({"type": "directory", "oid": dirs[p], "size": 0, "path": p})
            return self.send_json(out)
        if op in ("xet-read-token", "xet-write-token"):
            raise HubError(
                404, "The loopback Hub has no Xet storage: run the client with HF_HUB_DISABLE_XET=1", "XetNotSupported"
            )
        if op == "discussions" and m == "GET":
            return self.send_json({"discussions": [], "count": 0, "start": 0, "numClosedDiscussions": 0})
        # everything below changes the repository
        if op == "settings" and m == "PUT":
            hub.need_write(user, rid)
            b = self.json()
            if "gated" in b:
                meta["gated"] = b["gated"]
            if "visibility" in b:
                meta["private"] = b["visibility"] in ("private", "protected")
            if "private" in b:
                meta["private"] = bool(b["private"])
            hub.save_meta(kind, rid, meta)
            return self.send_json({"private": meta["private"], "gated": meta["gated"]})
        if op == "preupload" and m == "POST":
            if not self.q.get("create_pr"):
                hub.need_write(user, rid)
            elif user is None:
                raise HubError(401, "Invalid username or password.")
            return self.send_json(hub.preupload(git, arg, self.json()))
        if op == "commit" and m == "POST":
            pr = self.q.get("create_pr") == "1"
            if not pr:
                hub.need_write(user, rid)
            elif user is None or user["role"] != "write":
                raise HubError(403 if user else 401, "You need a write token to open a pull request")
            try:
                lines = [json.loads(x) for x in self.body().decode().split("\n") if x.strip()]
            except ValueError:
                raise HubError(400, "commit body is not NDJSON")
            out = hub.do_commit(kind, rid, git, arg, user, lines, pr)
            if self.fault and self.fault["action"] == "lost_response":  # done, but the client sees an error
                return self.send_json({"error": "injected fault after the commit"}, 503)
            return self.send_json(out)
        if op == "branch":
            hub.need_write(user, rid)
            ref = f"refs/heads/{arg}"
            with hub.lock:
                if m == "POST":
                    if ref in git.refs():
                        raise HubError(409, f"Reference already exists: {ref}")
                    start = self.json().get("startingPoint") or "main"
                    git.set_ref(ref, hub.rev(git, start))
                    return self.send_json({"ok": True}, 200)
                if m == "DELETE":
                    if ref not in git.refs():
                        raise HubError(404, f"Invalid rev id: {arg}", "RevisionNotFound")
                    if arg == "main":
                        raise HubError(403, "Cannot delete the default branch")
                    git.del_ref(ref)
                    return self.send_json({"ok": True})
        if op == "tag":
            hub.need_write(user, rid)
            with hub.lock:
                if m == "POST":
                    tag = self.json()["tag"]
                    if f"refs/tags/{tag}" in git.refs():
                        raise HubError(409, f"Tag reference exists already: {tag}")
                    git.set_ref(f"refs/tags/{tag}", hub.rev(git, arg))
                    return self.send_json({"ok": True})
                if m == "DELETE":
                    if f"refs/tags/{arg}" not in git.refs():
                        raise HubError(404, f"Invalid rev id: {arg}", "RevisionNotFound")
                    git.del_ref(f"refs/tags/{arg}")
                    return self.send_json({"ok": True})
        raise HubError(404, f"route not known to the stand-in: {m} {self.path}")

    def expand(self, git: Git, e: dict) -> dict:
        return e

    def tree(self, git: Git, commit: str, path: str):
        hub = self.hub
        dirs: dict[str, str] = {}
        files = hub.files(git, commit, dirs)
        pre = path + "/" if path else ""
        if path and path not in dirs:
            if path in files:
                return self.send_json([hub.entry(git, path, files[path])], headers={"X-Repo-Commit": commit})
            raise HubError(404, f'{path} does not exist on "{commit[:7]}"', "EntryNotFound", {"X-Repo-Commit": commit})
        recursive = str(self.q.get("recursive", "")).lower() in ("1", "true")
        ci = git.commit_info(commit)
        out = []
        for d, oid in dirs.items():
            if d.startswith(pre) and d != path and (recursive or "/" not in d[len(pre) :]):
                out.append({"type": "directory", "oid": oid, "size": 0, "path": d})
        for p, oid in files.items():
            if p.startswith(pre) and (recursive or "/" not in p[len(pre) :]):
                out.append(hub.entry(git, p, oid))
        out.sort(key=lambda e: (e["type"] != "directory", e["path"]))
        if str(self.q.get("expand", "")).lower() in ("1", "true"):
            for e in out:
                e["lastCommit"] = {"id": commit, "title": ci["message"].split("\n")[0], "date": iso(ci["time"])}
        h = {"X-Repo-Commit": commit}
        start, n = int(self.q.get("cursor") or 0), int(self.q.get("limit") or hub.opts.page_size)
        if start + n < len(out):
            q = {k: v for k, v in self.q.items() if k not in ("cursor",)}
            qs = "&".join(f"{quote(k)}={quote(str(v))}" for k, v in {**q, "cursor": start + n}.items())
            h["Link"] = f'<{hub.url}{self.rawroute}?{qs}>; rel="next"'
        self.send_json(out[start : start + n], headers=h)

    def resolve_file(self, kind: str, rid: str, rev: str, path: str, user, how: str):
        hub = self.hub
        if self.redirect_if_moved(kind, rid):
            return
        git, meta = hub.open(kind, rid, user, content=True)
        commit = hub.rev(git, rev)
        files = hub.files(git, commit)
        if path not in files:
            raise HubError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit})
        e = hub.entry(git, path, files[path])
        h = {"X-Repo-Commit": commit, "Access-Control-Expose-Headers": "X-Repo-Commit,X-Linked-Size,X-Linked-ETag"}
        name = path.rsplit("/", 1)[-1]
        if "lfs" in e and how != "raw":
            sha = e["lfs"]["oid"]
            h.update({"X-Linked-Size": e["size"], "X-Linked-ETag": f'"{sha}"', "ETag": f'"{e["oid"]}"'})
            h["Location"] = f"{hub.cdn_url}/lfs/{sha}?name={quote(name)}&sig={secrets.token_hex(8)}"
            return self.reply(302, b"", h, "text/plain")
        if how == "resolve" and hub.opts.resolve_cache:
            prefix = f"/api/resolve-cache/{kind}/{rid}/{commit}/{quote(path)}"
            h.update({"X-Linked-Size": e["size"], "X-Linked-ETag": f'"{e["oid"]}"', "Location": prefix})
            return self.reply(307, b"", h, "text/plain")
        self.send_file(git.get(e["oid"])[1], e["oid"], h, name)

    def lfs_api(self, kind: str, rid: str, what: str, user):
        hub = self.hub
        git, meta = hub.open(kind, rid, user)
        b = self.json()
        if what == "verify":
            f = hub.lfs_path(b["oid"])
            if not f.exists() or f.stat().st_size != b["size"]:
                raise HubError(404, "Object not found or of the wrong size")
            return self.send_json({"ok": True})
        if what == "complete":
            d = hub.root / "parts" / self.q["up"]
            data = b"".join((d / str(p["partNumber"])).read_bytes() for p in b["parts"])
            for p in b["parts"]:
                want = f'"{hashlib.md5((d / str(p["partNumber"])).read_bytes()).hexdigest()}"'
                if p["etag"] != want:
                    raise HubError(400, f"InvalidPart {p['partNumber']}")
            shutil.rmtree(d)
            return self.store_lfs(b["oid"], data)
        if b.get("operation") == "upload":
            if user is None:
                raise HubError(401, "Invalid username or password.")
            if user["role"] != "write":
                raise HubError(403, "This token cannot write")
        objs = []
        base = f"{hub.url}/{'' if kind == 'models' else kind + '/'}{rid}.git/info/lfs/objects"
        multi = "multipart" in (b.get("transfers") or [])
        for o in b["objects"]:
            sha, size = o["oid"], o["size"]
            item = {"oid": sha, "size": size, "authenticated": True}
            f = hub.lfs_path(sha)
            if not re.match(r"^[0-9a-f]{64}$", sha):
                item["error"] = {"code": 422, "message": "bad oid"}
            elif b.get("operation") == "download":
                if f.exists():
                    item["actions"] = {"download": {"href": f"{hub.cdn_url}/lfs/{sha}"}}
                else:
                    item["error"] = {"code": 404, "message": "Object does not exist"}
            elif f.exists() and f.stat().st_size == size:
                pass  # already there: no actions
            elif multi and size > hub.opts.multipart_over:
                up, step = secrets.token_hex(8), hub.opts.chunk_size
                n = -(-size // step)
                header = {"chunk_size": str(step)}
                header.update({f"{i:05d}": f"{hub.cdn_url}/part/{sha}/{up}/{i}" for i in range(1, n + 1)})
                item["actions"] = {
                    "upload": {"href": f"{base}/complete?up={up}", "header": header},
                    "verify": {"href": f"{base}/verify", "header": {}},
                }
            else:
                item["actions"] = {
                    "upload": {"href": f"{hub.cdn_url}/upload/{sha}?sig={secrets.token_hex(8)}", "header": {}},
                    "verify": {"href": f"{base}/verify", "header": {}},
                }
            objs.append(item)
        self.send_json(
            {"transfer": "multipart" if multi else "basic", "objects": objs, "hash_algo": "sha256"},
            headers={"Content-Type": "application/vnd.git-lfs+json"},
        )

    # ---- administration, for tests
    def admin(self, what: str):
        hub, m = self.hub, self.command
        with hub.lock:
            if what == "faults":
                if m == "POST":
                    b = self.json()
                    for f in b if isinstance(b, list) else [b]:
                        f.setdefault("times", 1)
                        f.setdefault("action", "status")
                        hub.faults.append(f)
                elif m == "DELETE":
                    hub.faults.clear()
                return self.send_json(hub.faults)
            if what == "log":
                out = list(hub.log)
                if m == "DELETE":
                    hub.log.clear()
                return self.send_json(out)
            if what == "users" and m == "POST":
                b = self.json()
                hub.users[b["token"]] = {"name": b["name"], "role": b.get("role", "write"), "orgs": b.get("orgs", [])}
                return self.send_json({"ok": True})
            if what == "meta" and m == "POST":  # {"repo": "models/user/x", "gated": "manual", "gated_users": [...]}
                b = self.json()
                kind, rid = b.pop("repo").split("/", 1)
                meta = hub.meta(kind, rid)
                meta.update(b)
                hub.save_meta(kind, rid, meta)
                return self.send_json(meta)
            if what == "reset" and m == "POST":
                for d in (*KINDS, "lfs", "parts"):
                    shutil.rmtree(hub.root / d, ignore_errors=True)
                    (hub.root / d).mkdir(parents=True, exist_ok=True)
                hub.moved.clear()
                hub.log.clear()
                hub.faults.clear()
                return self.send_json({"ok": True})
        raise HubError(404, f"no admin command {what}")


class CdnHandler(Handler):
    is_cdn = True

    def user(self):  # the CDN knows no tokens
        return None


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64


# ---------------------------------------------------------------------------------------------- entry points


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

    def start(self) -> LoopbackHub:
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
    print(f"HF_ENDPOINT={h.url} (cdn {h.hub.cdn_url}) root {h.hub.root}", flush=True)
    if ready:
        Path(ready).write_text(h.url)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        h.stop()


if __name__ == "__main__":
    main()
