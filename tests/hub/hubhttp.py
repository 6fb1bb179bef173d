"""The Hub's HTTP interface, its second origin for big files (the "CDN"), and faults on request."""

import base64
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import sys
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from hubcard import check_card
from hubgit import Git
from hubstate import KINDS, Hub, HubError, is_text, iso


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "loopback-hub"
    hub: Hub
    is_cdn = False

    def log_message(self, fmt, *args):
        if self.hub.opts.verbose:
            sys.stderr.write(f"{self.command} {fmt % args}\n")

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
            raise HubError(400, "invalid JSON body") from None

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
        except Exception as e:  # a test server must say what went wrong
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
                hub.moved_file.write_text(json.dumps(hub.moved), encoding="utf-8")
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
            meta = json.loads(f.read_text(encoding="utf-8"))
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
                raise HubError(400, "commit body is not NDJSON") from None
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
        git, _ = hub.open(kind, rid, user, content=True)
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
        hub.open(kind, rid, user)
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
