"""A Hub on this machine: the routes that huggingface_hub asks, on the standard library, with faults on demand.

`with Hub() as hub:` serves at `hub.url` from threads. Large files are redirected to another host name, as the real
one's are, where no token may be sent. `hub.fault` is called with each `Request` before it is answered, and what it
returns (or None) is done to it.
"""

import base64
import json
import threading
from http.server import ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from tests.helpers.hub.faults import Answer, RefusedError, Request
from tests.helpers.hub.store import Blob, Commit, Store, is_large
from tests.helpers.hub.wire import handler


class Hub:
    """The server; `store` is what it keeps, `requests` what it was asked."""

    def __init__(self):
        self.store = Store()
        self.requests = []
        self.fault = lambda request: None
        self.page = 3  # entries of a tree's page: so that each listing has several
        self._lock = threading.Lock()

    def __enter__(self):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def note(self, method, path, headers, body):
        with self._lock:
            request = Request(len(self.requests), method, path, headers, body)
            self.requests.append(request)
            return request

    def commits(self, name):
        """Titles from the first commit to the newest one of the main branch; none where there is no repository."""
        repository = self.store.repositories.get(name)
        found, oid = [], repository and repository.refs["main"]
        while oid:
            found.append(repository.commits[oid].title)
            oid = repository.commits[oid].parent
        return found[::-1]

    def files(self, name):
        """Path -> content at the main branch."""
        return {path: blob.data for path, blob in self.store.repositories[name].head.files.items()}

    # What each route answers: a status, headers and a body.

    def answer(self, request):
        url = urlsplit(request.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        with self.store.lock:
            match (request.method, *parts):
                case ("GET" | "HEAD", "cdn", digest):
                    return self._large(request, digest)
                case ("PUT", "lfs", digest):
                    self.store.large[digest] = request.body
                    return Answer(200)
                case ("GET", "api", "whoami-v2"):
                    self._organisations(request)
                    return Answer(200, {}, {"name": "ada", "type": "user", "orgs": []})
                case ("POST", "api", "repos", "create"):
                    return self._create(request)
                case ("POST", "api", "validate-yaml"):
                    return Answer(200, {}, {"warnings": [], "errors": []})
                case ("GET", "api", "models", org, name):
                    return self._info(request, f"{org}/{name}", "main")
                case ("GET", "api", "models", org, name, "revision", revision):
                    return self._info(request, f"{org}/{name}", revision)
                case ("GET", "api", "models", org, name, "tree", revision):
                    return self._tree(request, f"{org}/{name}", revision, query)
                case ("POST", "api", "models", org, name, "preupload", _):
                    return self._preupload(request, f"{org}/{name}")
                case ("POST", org, repository, "info", "lfs", "objects", "batch"):
                    return self._batch(request, f"{org}/{repository.removesuffix('.git')}")
                case ("POST", "api", "models", org, name, "commit", branch):
                    return self._commit(request, f"{org}/{name}", branch)
                case ("GET" | "HEAD", org, name, "resolve", revision, *file):
                    return self._resolve(request, f"{org}/{name}", revision, "/".join(file))
        raise RefusedError(404, "no such route")

    def _organisations(self, request):
        """Those that the request's token may write to; None without a token."""
        header = request.headers.get("authorization")
        if header is None:
            return None
        token = header.removeprefix("Bearer ")
        if token not in self.store.writers:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        return self.store.writers[token]

    def _readable(self, request, name):
        organisations = self._organisations(request)
        found = self.store.repositories.get(name)
        if organisations is None and (found is None or found.private):
            # The client reads a 401 over https as a repository that is not there.
            raise RefusedError(401, "Invalid username or password.", "RepoNotFound")
        if found is None or (found.private and name.split("/")[0] not in organisations):
            raise RefusedError(404, "Repository not found", "RepoNotFound")
        return found

    def _writable(self, request, name):
        organisations = self._organisations(request)
        if organisations is None:
            raise RefusedError(401, "Invalid username or password.")
        if name.split("/")[0] not in organisations:
            raise RefusedError(403, f"You don't have the rights to write to {name.split('/')[0]}")
        return self._readable(request, name)

    def _commit_of(self, repository, revision):
        oid = repository.find(revision)
        if oid is None:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid, repository.commits[oid]

    def _create(self, request):
        asked = json.loads(request.body)
        name = f"{asked['organization']}/{asked['name']}"
        organisations = self._organisations(request)
        if organisations is None:
            raise RefusedError(401, "Invalid username or password.")
        if asked["organization"] not in organisations:
            raise RefusedError(403, f"You don't have the rights to create a model under {name.split('/')[0]}")
        if name in self.store.repositories:
            raise RefusedError(409, "You already created this model repo")
        self.store.create(name, private=asked.get("visibility") == "private" or bool(asked.get("private")))
        return Answer(200, {}, {"url": f"{self.url}/{name}", "name": name})

    def _info(self, request, name, revision):
        repository = self._readable(request, name)
        oid, commit = self._commit_of(repository, revision)
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        found = {"id": name, "modelId": name, "sha": oid, "private": repository.private, "siblings": siblings}
        return Answer(200, {}, {**found, "tags": [], "downloads": 0, "likes": 0})

    def _tree(self, request, name, revision, query):
        _, commit = self._commit_of(self._readable(request, name), revision)
        entries = []
        for path, blob in sorted(commit.files.items()):
            entry = {"type": "file", "path": path, "size": len(blob.data), "oid": blob.git_oid}
            if blob.lfs:
                entry["lfs"] = {"oid": blob.digest, "size": len(blob.data), "pointerSize": 130}
            entries.append(entry)
        folders = {path.rpartition("/")[0] for path in commit.files if "/" in path}
        entries += [{"type": "directory", "path": folder, "oid": "0" * 40, "size": 0} for folder in sorted(folders)]
        start = int(query.get("cursor", 0))
        more = start + self.page < len(entries)
        next_page = f"{self.url}/api/models/{name}/tree/{revision}?recursive=true&cursor={start + self.page}"
        return Answer(200, {"Link": f'<{next_page}>; rel="next"'} if more else {}, entries[start : start + self.page])

    def _preupload(self, request, name):
        held = self._writable(request, name).head.files
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if is_large(file["path"]) else "regular",
                "shouldIgnore": False,
                "oid": held[file["path"]].digest if file["path"] in held else None,
            }
            for file in json.loads(request.body)["files"]
        ]
        return Answer(200, {}, {"files": files})

    def _batch(self, request, name):
        self._writable(request, name)
        objects = []
        for wanted in json.loads(request.body)["objects"]:
            found = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.store.large:
                found["actions"] = {"upload": {"href": f"{self.url}/lfs/{wanted['oid']}", "header": {}}}
            objects.append(found)
        return Answer(200, {}, {"transfer": "basic", "objects": objects})

    def _commit(self, request, name, branch):
        repository = self._writable(request, name)
        lines = [json.loads(line) for line in request.body.splitlines()]
        header = lines[0]["value"]
        head = repository.refs[branch]
        if header.get("parentCommit") not in (None, head):
            raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repository.commits[head].files)
        for line in lines[1:]:
            value = line["value"]
            path = value["path"]
            match line["key"]:
                case "file":
                    files[path] = Blob(base64.b64decode(value["content"]), False)
                case "lfsFile":
                    if value["oid"] not in self.store.large:
                        raise RefusedError(400, f"LFS pointer pointed to a file that does not exist: {path}")
                    files[path] = Blob(self.store.large[value["oid"]], True)
                case "deletedFile":
                    if files.pop(path, None) is None:
                        raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
        oid = repository.add(Commit(head, header["summary"], files), branch)
        return Answer(200, {}, {"commitUrl": f"{self.url}/{name}/commit/{oid}", "commitOid": oid})

    def _resolve(self, request, name, revision, path):
        oid, commit = self._commit_of(self._readable(request, name), revision)
        if path not in commit.files:
            refusal = RefusedError(404, "Entry not found", "EntryNotFound")
            refusal.answer.headers["X-Repo-Commit"] = oid
            raise refusal
        blob = commit.files[path]
        headers = {"X-Repo-Commit": oid, "ETag": f'"{blob.digest}"', "Accept-Ranges": "bytes"}
        if blob.lfs:
            self.store.large[blob.digest] = blob.data
            headers |= {"X-Linked-Etag": f'"{blob.digest}"', "X-Linked-Size": str(len(blob.data))}
            return Answer(302, {**headers, "Location": f"http://localhost:{self.port}/cdn/{blob.digest}"}, b"")
        return _ranged(request, blob.data, headers)

    def _large(self, request, digest):
        assert "authorization" not in request.headers, "the token went to another host than the Hub's"
        return _ranged(request, self.store.large[digest], {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"})


def _ranged(request, data, headers):
    """The whole of it, or what the header Range asks for."""
    span = request.headers.get("range")
    if span is None:
        return Answer(200, headers, data)
    first, _, last = span.removeprefix("bytes=").partition("-")
    start, end = int(first), int(last or len(data) - 1)
    headers = {**headers, "Content-Range": f"bytes {start}-{end}/{len(data)}"}
    return Answer(206, headers, data[start : end + 1])
