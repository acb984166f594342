"""What a Hub keeps: repositories of commits, and the content that they name, by its digest."""

import hashlib
import json
import threading
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Blob:
    """A file's content, as git names it, or by its SHA-256 where it is kept apart (LFS)."""

    data: bytes
    lfs: bool

    @property
    def digest(self):
        """What the Hub sends as ETag."""
        return hashlib.sha256(self.data).hexdigest() if self.lfs else self.git_oid

    @property
    def git_oid(self):
        """Of the content; of an LFS file, of the pointer that stands for it."""
        data = self.data if not self.lfs else f"oid sha256:{hashlib.sha256(self.data).hexdigest()}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True)
class Commit:
    """One state of a repository."""

    parent: str | None
    title: str
    files: dict[str, Blob]

    @property
    def oid(self):
        names = sorted((path, blob.digest) for path, blob in self.files.items())
        return hashlib.sha1(json.dumps([self.parent, self.title, names]).encode()).hexdigest()


@dataclass
class Repository:
    """Commits by their oid, and branches that point at one."""

    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def add(self, commit, branch="main"):
        self.commits[commit.oid] = commit
        self.refs[branch] = commit.oid
        return commit.oid

    def find(self, revision):
        """The oid that a branch or an oid means; None if there is none."""
        return self.refs.get(revision) or (revision if revision in self.commits else None)

    @property
    def head(self):
        return self.commits[self.refs["main"]]


class Store:
    """All repositories, the large files that were uploaded, and who may do what."""

    def __init__(self):
        self.lock = threading.Lock()
        self.repositories = {}
        self.large = {}  # SHA-256 -> content
        self.writers = {}  # token -> organisations that it may write to

    def create(self, name, *, private=False):
        """A repository with the commit that the Hub makes first."""
        self.repositories[name] = Repository(private)
        first = Blob(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", False)
        self.repositories[name].add(Commit(None, "initial commit", {".gitattributes": first}))
        return self.repositories[name]

    def put(self, name, files, *, private=False):
        """A repository that holds `files`, path -> content, in a commit; the oid."""
        repository = self.repositories.get(name) or self.create(name, private=private)
        blobs = {path: Blob(data, is_large(path)) for path, data in files.items()}
        kept = {".gitattributes": repository.head.files[".gitattributes"]}
        return repository.add(Commit(repository.refs["main"], "put", {**kept, **blobs}))


def is_large(path):
    return path.endswith(".safetensors")
