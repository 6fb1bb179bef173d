"""What the Hub holds, and its rules; knows nothing of HTTP."""

import argparse
import base64
import fnmatch
import json
import os
import re
import secrets
import struct
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

from hubcard import check_card
from hubgit import LFS_POINTER, Git, lfs_pointer


KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
NAME = re.compile(r"^(?!.*(--|\.\.))[A-Za-z0-9_][A-Za-z0-9._-]{0,94}[A-Za-z0-9_]$|^[A-Za-z0-9_]$")
MAX_REGULAR = 10 * 1000 * 1000  # bigger files must go through LFS, as on the Hub

GITATTRIBUTES = "".join(
    f"{p} filter=lfs diff=lfs merge=lfs -text\n"
    for p in re.findall(
        r"\S+",
        "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz "
        "*.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar "
        "*.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents*",
    )
)


class HubError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, headers: dict | None = None, body=None):
        self.status, self.message, self.code, self.headers, self.body = status, message, code, headers or {}, body


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
        self.moved: dict[str, str] = (
            json.loads(self.moved_file.read_text(encoding="utf-8")) if self.moved_file.exists() else {}
        )
        for spec in opts.user:
            name, token, *rest = spec.split(":")
            role, *orgs = rest or ["write"]
            self.users[token] = {"name": name, "role": role, "orgs": orgs}

    def repo_dir(self, kind: str, rid: str) -> Path:
        return self.root / kind / rid

    def meta(self, kind: str, rid: str) -> dict:
        return json.loads((self.repo_dir(kind, rid) / "hub.json").read_text(encoding="utf-8"))

    def save_meta(self, kind: str, rid: str, meta: dict) -> None:
        f = self.repo_dir(kind, rid) / "hub.json"
        tmp = f.with_suffix(".tmp")
        tmp.write_text(json.dumps(meta, indent=1), encoding="utf-8")
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
