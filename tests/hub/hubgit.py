"""Real bare git repositories, written with loose objects in Python: enough for linear histories, and for git-LFS."""

import hashlib
import os
import re
import secrets
import time
import zlib
from pathlib import Path


HEX40 = re.compile(r"^[0-9a-f]{40}$")


def lfs_pointer(sha: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {size}\n".encode()


LFS_POINTER = re.compile(rb"^version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n$")


class Git:
    """A bare git repository written with loose objects only. Enough for linear histories."""

    def __init__(self, path: Path):
        self.path = path

    def init(self) -> None:
        for d in ("objects", "refs/heads", "refs/tags"):
            (self.path / d).mkdir(parents=True, exist_ok=True)
        (self.path / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
        (self.path / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n", encoding="utf-8")

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
            "refs/" + str(f.relative_to(base)): f.read_text(encoding="utf-8").strip()
            for f in base.rglob("*")
            if f.is_file() and not f.name.endswith(".tmp")
        }

    def set_ref(self, ref: str, oid: str) -> None:
        f = self.path / ref
        f.parent.mkdir(parents=True, exist_ok=True)
        tmp = f.with_name(f.name + ".tmp")
        tmp.write_text(oid + "\n", encoding="utf-8")
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
