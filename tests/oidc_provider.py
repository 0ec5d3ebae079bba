"""A small OpenID Connect provider on this machine, which signs in whom a test says and can be made to misbehave.

It has discovery, authorize (code flow with PKCE and a nonce), token, keys, userinfo and end_session, signs with RS256,
and refuses what a provider has to: a foreign redirect_uri, a wrong client secret, a code twice, a wrong verifier.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET = "finetuner", "a-client-secret-of-the-tests"


@dataclass
class Provider:
    """`claims` is who signs in at the next visit; `port` may be given, so that it comes back where it was."""

    redirect_uri: str
    port: int = 0
    claims: dict[str, Any] = field(default_factory=lambda: {"email": "ada@example.org", "email_verified": True})
    lasts_s: float = 3600
    nonce: str | None = None
    """Put into the token instead of the one that was asked for."""
    denies: bool = False
    seen: list[str] = field(default_factory=list)
    """The paths that were asked for."""

    def __post_init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "k1", "use": "sig", "alg": "RS256"})
        self.codes: dict[str, dict[str, str]] = {}
        self.start()

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def metadata_url(self) -> str:
        return f"{self.issuer}/.well-known/openid-configuration"

    def start(self) -> None:
        provider = self

        class Handler(_Handler):
            its = provider

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def metadata(self) -> dict[str, Any]:
        ends = ("authorization", "token", "userinfo", "end_session")
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/jwks",
            **{f"{end}_endpoint": f"{self.issuer}/{end}" for end in ends},
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        }

    def person(self) -> dict[str, Any]:
        return {"sub": hashlib.sha256(str(self.claims.get("email")).encode()).hexdigest()[:12], **self.claims}

    def id_token(self, nonce: str) -> str:
        now = int(time.time())
        told = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": int(now + self.lasts_s)}
        claims = {**told, "nonce": self.nonce or nonce, **self.person()}
        return jwt.encode({"alg": "RS256", "kid": "k1"}, claims, self.key)


class _Handler(BaseHTTPRequestHandler):
    its: Provider

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.its.seen.append(parts.path)
        if parts.path == "/.well-known/openid-configuration":
            self._json(self.its.metadata())
        elif parts.path == "/jwks":
            self._json({"keys": [self.its.key.as_dict(private=False)]})
        elif parts.path == "/authorization":
            self._authorize(asked)
        elif parts.path == "/userinfo":
            self._json(self.its.person())
        elif parts.path == "/end_session":
            allowed = asked.get("post_logout_redirect_uri") == self.its.redirect_uri
            self._go(self.its.redirect_uri) if allowed else self._json({"error": "invalid_request"}, 400)
        else:
            self._json({"error": "not_found"}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = {name: values[0] for name, values in parse_qs(body).items()}
        self.its.seen.append(self.path)
        self._token(asked) if self.path == "/token" else self._json({"error": "not_found"}, 404)

    def _authorize(self, asked: dict[str, str]) -> None:
        wanted = {"client_id": CLIENT_ID, "redirect_uri": self.its.redirect_uri, "response_type": "code"}
        wanted |= {"code_challenge_method": "S256"}
        wrong = [name for name, value in wanted.items() if asked.get(name) != value]
        if wrong or not asked.get("nonce") or not asked.get("code_challenge"):
            self._json({"error": "invalid_request", "wrong": wrong}, 400)
            return
        if self.its.denies:
            answer = {"error": "access_denied", "error_description": "no <b>thanks</b>"}
        else:
            answer = {"code": secrets.token_urlsafe(16)}
            self.its.codes[answer["code"]] = asked
        self._go(f"{asked['redirect_uri']}?{urlencode({**answer, 'state': asked['state']})}")

    def _token(self, asked: dict[str, str]) -> None:
        basic = base64.b64encode(f"{quote(CLIENT_ID)}:{quote(CLIENT_SECRET)}".encode()).decode()
        known = self.headers.get("Authorization") == f"Basic {basic}" or asked.get("client_secret") == CLIENT_SECRET
        given = self.its.codes.pop(asked.get("code", ""), None)
        digest = hashlib.sha256(asked.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if not known:
            self._json({"error": "invalid_client"}, 401)
        elif given is None or given["code_challenge"] != challenge or asked["redirect_uri"] != given["redirect_uri"]:
            self._json({"error": "invalid_grant"}, 400)
        else:
            tokens = {"access_token": secrets.token_urlsafe(16), "id_token": self.its.id_token(given["nonce"])}
            self._json({**tokens, "token_type": "Bearer", "expires_in": 300})

    def _go(self, where: str) -> None:
        self.send_response(302)
        self.send_header("Location", where)
        self.end_headers()

    def _json(self, document: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
