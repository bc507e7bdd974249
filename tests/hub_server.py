"""A server that speaks the parts of the Hugging Face hub's API which huggingface_hub 2 uses for us."""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], revision: str = 'main') -> str:
        before = self.commits.get(self.refs.get(revision, ''), {})
        oid = hashlib.sha1(f'{len(self.commits)} {sorted(files)}'.encode()).hexdigest()
        self.commits[oid], self.refs[revision] = {**before, **files}, oid
        return oid

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        oid = self.refs.get(revision, revision)
        return (oid, self.commits[oid]) if oid in self.commits else None


class HubServer(ThreadingHTTPServer):
    """Attributes:
    token: what who writes, or reads what is private, must send.
    requests: method and path of each.
    status: what all are answered with; None where they are served.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.endpoint = f'http://127.0.0.1:{self.server_port}'
        self.token, self.status = 'hf_secret', None
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def publish(self, name, content, file='model.safetensors', **properties):
        """Let a repository with one large file be there, and return its commit."""
        self.large[hashlib.sha256(content).hexdigest()] = content
        repository = self.repositories.setdefault(name, Repository(**properties))
        return repository.commit({file: content})


class Handler(BaseHTTPRequestHandler):
    server: HubServer

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._serve()

    do_GET = do_POST = do_PUT = do_HEAD

    def _serve(self):
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f'{self.command} {path}')
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        if self.server.status:
            return self._answer(self.server.status)
        parts = path.strip('/').split('/')
        if self.command in ('POST', 'PUT'):
            return self._write(parts, body)
        if parts[0] == 'large':
            return self._answer(200 if 'Authorization' not in self.headers else 400, self.server.large[parts[1]])
        if parts[:2] == ['api', 'models']:
            return self._describe('/'.join(parts[2:4]), parts[5] if len(parts) > 5 else 'main')
        return self._send_file('/'.join(parts[:2]), '/'.join(parts[3:-1]), parts[-1])

    @property
    def _is_known(self):
        return self.headers.get('Authorization') == f'Bearer {self.server.token}'

    def _repository(self, name):
        """A repository that whoever asks may read; answered otherwise."""
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and not self._is_known):
            self._answer(401 if not self._is_known else 404, code='RepoNotFound')
            return None
        if repository.gated and not self._is_known:
            self._answer(403, code='GatedRepo')
            return None
        return repository

    def _describe(self, name, revision):
        repository = self._repository(name)
        if repository is not None:
            found = repository.files(revision)
            if found is None:
                return self._answer(404, code='RevisionNotFound')
            siblings = [dict(rfilename=file) for file in found[1]]
            return self._answer(
                200, dict(id=name, sha=found[0], private=repository.private, siblings=siblings, tags=[])
            )

    def _send_file(self, name, revision, file):
        repository = self._repository(name)
        if repository is None:
            return None
        found = repository.files(revision)
        if found is None:
            return self._answer(404, code='RevisionNotFound')
        oid, files = found
        if file not in files:
            return self._answer(404, code='EntryNotFound', headers={'X-Repo-Commit': oid})
        content = files[file]
        headers, sha256 = {'X-Repo-Commit': oid}, hashlib.sha256(content).hexdigest()
        if sha256 not in self.server.large:
            return self._answer(200, content, headers={**headers, 'ETag': f'"{hashlib.sha1(content).hexdigest()}"'})
        # Large files are elsewhere, at another address: here of another host's name.
        place = f'{self.server.endpoint.replace("127.0.0.1", "localhost")}/large/{sha256}'
        headers |= {'X-Linked-Etag': f'"{sha256}"', 'X-Linked-Size': len(content), 'Location': place}
        return self._answer(302, headers=headers)

    def _write(self, parts, body):
        if parts == ['api', 'validate-yaml']:
            errors = (
                [dict(message='"license" must be one of …')] if 'license: wrong' in json.loads(body)['content'] else []
            )
            return self._answer(400 if errors else 200, dict(errors=errors, warnings=[]))
        if parts[0] == 'large':
            assert hashlib.sha256(body).hexdigest() == parts[1]
            self.server.large[parts[1]] = body
            return self._answer(200)
        if not self._is_known:
            return self._answer(401)
        if parts == ['api', 'repos', 'create']:
            asked = json.loads(body)
            name = f'{asked["organization"]}/{asked["name"]}'
            if name in self.server.repositories:
                return self._answer(409, dict(url=f'{self.server.endpoint}/{name}'))
            private = asked.get('visibility') == 'private' or asked.get('private', False)
            repository = self.server.repositories[name] = Repository(private)
            repository.commit({'.gitattributes': b''})
            return self._answer(200, dict(url=f'{self.server.endpoint}/{name}', name=name, id=name))
        if parts[-3:] == ['lfs', 'objects', 'batch']:
            objects = [
                dict(oid=each['oid'], size=each['size'], actions=self._place(each['oid']))
                for each in json.loads(body)['objects']
            ]
            return self._answer(200, dict(transfer='basic', objects=objects), kind='application/vnd.git-lfs+json')
        name, job, revision = '/'.join(parts[2:4]), parts[4], '/'.join(parts[5:])
        repository = self.server.repositories[name]
        if job == 'branch':
            if revision in repository.refs:
                return self._answer(409)
            repository.refs[revision] = repository.refs['main']
            return self._answer(200, {})
        if revision not in repository.refs:
            return self._answer(404, code='RevisionNotFound')
        if job == 'preupload':
            files = [
                dict(path=file['path'], shouldIgnore=False, uploadMode=self._mode(file['path']))
                for file in json.loads(body)['files']
            ]
            return self._answer(200, dict(files=files))
        assert job == 'commit'
        files = {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry['value']
            if entry['key'] == 'file':
                files[value['path']] = base64.b64decode(value['content'])
            elif entry['key'] == 'lfsFile':
                files[value['path']] = self.server.large[value['oid']]
        oid = repository.commit(files, revision)
        return self._answer(
            200, dict(success=True, commitOid=oid, commitUrl=f'{self.server.endpoint}/{name}/commit/{oid}')
        )

    def _place(self, oid):
        return dict(upload=dict(href=f'{self.server.endpoint}/large/{oid}', header={}))

    @staticmethod
    def _mode(path):
        return 'lfs' if path.endswith('.safetensors') else 'regular'

    def _answer(self, status, content=b'', code=None, headers=(), kind='application/json'):
        if isinstance(content, dict):
            content = json.dumps(content).encode()
        self.send_response(status)
        self.send_header('Content-Length', str(len(content)))
        self.send_header('Content-Type', kind)
        if code:
            self.send_header('X-Error-Code', code)
        for name, value in dict(headers).items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(content)
