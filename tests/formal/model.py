"""The attested channel as Horn clauses.

`att(m)` reads: the attacker can know m. The attacker is the network and the host: it sees and makes all messages, starts genuine
enclaves as often as it likes on every genuine processor, and machines of its own there too, which attest with another measurement. Each
rule below is one thing that it, an enclave or a client does.

A rule is `(conclusion, [hypotheses])`; capital letters are variables. Fresh values are functions of what they are made in: `ss(E,X)` is
the secret that enclave E makes for the share X. Key exchange is a KEM to the client's share, as in TLS 1.3 with the hybrid group;
hashes are free symbols that give nothing back; `exp`, `kdf` take the shared secret and the transcript, as TLS exporters and keys do.
"""

from dataclasses import dataclass

# Processors. The vendor vouches for both; p0 is the one that a client with pinning names.
PLATFORMS = ("p0", "p1")

# Symbols that anyone can compute, with their number of arguments.
FUNCTIONS = {"pk": 1, "spk": 1, "kemenc": 2, "sign": 2, "enc": 2, "tr": 3, "kdf": 2, "exp": 3, "leaf": 4, "node": 2, "stmt": 2,
             "rd": 2, "report": 3}


@dataclass(frozen=True)
class Variant:
    """What differs from the protocol as specified, and what must come of it."""

    name: str
    what: str
    # The secret that the attacker learns: "prompt", or "released" (what an enclave sends to an attested peer). "" for none.
    lost: str = ""
    # What the attacker has.
    tls_keys_leaked: bool = False  # of every enclave
    retired_keys_leaked: bool = False  # of enclaves that no longer run
    platform_leaked: bool = False  # the signing key of p1
    raw_quotes: bool = False  # enclaves have any bytes signed for whoever asks
    # What the protocol does.
    pinned: bool = False  # clients name the processor p0
    any_measurement: bool = False  # clients do not look at the measurement
    bound_to: str = "channel"  # what a report vouches for: "channel", "key" (TLS key and nonce), "nonce", "key at boot" (TLS key alone)
    batched: bool = False  # two clients share a report
    role: bool = True  # the leaf says which side attests, and with which keys
    mutual: bool = False  # the enclave serves only an enclave that attests to it
    gpu: str = ""  # "bound": S states the GPU of the driver's session; "relayed": S states what the GPU sent; "beside": not in S


VARIANTS = [
    Variant("plain", "the protocol, nothing leaked"),
    Variant("tls-keys-leaked", "all TLS keys of enclaves are known", tls_keys_leaked=True),
    Variant("batched", "two clients share a report, TLS keys are known", tls_keys_leaked=True, batched=True),
    Variant("platform-leaked-pinned", "another processor's signing key is known, TLS keys too; the client names its processor",
            platform_leaked=True, tls_keys_leaked=True, pinned=True),
    Variant("mutual", "both sides attest, TLS keys are known", mutual=True, tls_keys_leaked=True),
    Variant("gpu-bound", "S states the GPU that the enclave's driver has its session with, TLS keys are known", gpu="bound",
            tls_keys_leaked=True),
    Variant("key-bound", "evidence for the TLS key and the client's nonce: holds while no key leaks", bound_to="key"),
    Variant("key-bound-retired", "the same, keys of enclaves that no longer run are known", bound_to="key",
            retired_keys_leaked=True),
    Variant("key-bound-leaked", "evidence for the TLS key and the client's nonce, TLS keys are known", "prompt",
            bound_to="key", tls_keys_leaked=True),
    Variant("stale-quote", "evidence made once at boot, keys of enclaves that no longer run are known", "prompt",
            bound_to="key at boot", retired_keys_leaked=True),
    Variant("nonce-only", "evidence for the client's nonce and no key", "prompt", bound_to="nonce"),
    Variant("any-measurement", "the client does not look at the measurement", "prompt", any_measurement=True),
    Variant("platform-leaked", "another processor's signing key is known; any genuine processor will do", "prompt",
            platform_leaked=True),
    Variant("raw-quotes", "enclaves have any report data signed for whoever asks", "prompt", raw_quotes=True),
    Variant("reflection", "both sides attest, and the leaf does not say which one does", "released", mutual=True, role=False),
    Variant("gpu-beside", "the GPU attests to the client, and S does not name it", "prompt", gpu="beside"),
    Variant("gpu-relayed", "S states what the GPU sent, whoever the driver's session is with", "prompt", gpu="relayed"),
]


def rules(v):
    """All rules of a variant."""
    yield from attacker(v)
    yield from gpus(v)
    for platform in PLATFORMS:
        yield from enclave(v, platform)
        if v.mutual:
            yield from peer(v, platform)
    yield from client(v)


def attacker(v):
    """What everybody can compute, and what is known from the start."""
    for name, arity in FUNCTIONS.items():
        arguments = [f"X{i}" for i in range(arity)]
        yield f"att({name}({','.join(arguments)}))", [f"att({x})" for x in arguments]
    yield "att(S)", ["att(kemenc(S,pk(K)))", "att(K)"]
    yield "att(M)", ["att(enc(M,K))", "att(K)"]
    yield "att(M)", ["att(sign(K,M))"]
    yield "att(D)", ["att(report(K,D,M))"]
    for public in ("own", "server", "client", "good", "evil", "none"):
        yield f"att({public})", []
    for platform in PLATFORMS:
        # The host's own machines have signed what they like.
        yield f"att(report(vcek({platform}),D,evil))", ["att(D)"]
    if v.platform_leaked:
        yield "att(vcek(p1))", []


def gpus(v):
    """Genuine GPUs attest to whoever asks; the host's own says what it likes."""
    if v.gpu:
        yield "att(gpu(genuine(H)))", []
        yield "att(gpu(fake))", []


class Session:
    """One TLS connection: from the client's share and the secret that the server made for it."""

    def __init__(self, share, secret, key):
        self.key = key
        self.hello = f"kemenc({secret},{share})"
        self.transcript = f"tr({share},{self.hello},spk({key}))"
        self.traffic = f"kdf({secret},{self.transcript})"
        self.secret = secret

    def leaf(self, v, role, key, request):
        """What one side attests to: `key` is that side's."""
        exported = f"exp({self.secret},{self.transcript},{request})"
        return f"leaf({role},spk({key}),{exported},{request})" if v.role else f"leaf(none,none,{exported},{request})"

    @classmethod
    def of_enclave(cls, me, share):
        return cls(share, f"ss({me},{share})", f"tlskey({me})")

    @classmethod
    def of_client(cls, share):
        """As a client sees it: any secret and any key that come with a right signature."""
        return cls(share, "S", "K")

    def authenticated(self):
        return [f"att(sign({self.key},{self.transcript}))", f"att({self.hello})"]


def report(platform, data, measurement="good"):
    return f"att(report(vcek({platform}),{data},{measurement}))"


def enclave(v, platform):
    """An enclave, `B` its boot: its TLS handshake with a client's share X, its evidence, its use of prompts."""
    # The host picks the GPU of each boot: a genuine one or its own.
    me = f"e({platform},B,{'G' if v.gpu else 'none'})"
    session = Session.of_enclave(me, "X")
    yield f"att(spk({session.key}))", []
    yield f"att({session.hello})", ["att(X)"]
    yield f"att(sign({session.key},{session.transcript}))", ["att(X)"]
    if v.tls_keys_leaked:
        yield f"att({session.key})", []
    if v.raw_quotes:
        yield report(platform, "D"), ["att(D)"]
    if v.bound_to == "channel":
        yield evidence_of_sessions(v, platform, me)
    else:
        yield from evidence_without_session(v, platform, session.key)
    if v.mutual:
        # It asks its client for evidence too, and then sends it a secret.
        asked = f"asked({me},X)"
        yield f"att({asked})", ["att(X)"]
        theirs = session.leaf(v, "client", "K", asked)
        for peers in PLATFORMS:
            yield f"att(enc(released({me},X),{session.traffic}))", ["att(X)", report(peers, f"rd(stmt(spk(K),none),{theirs})")]
    if v.gpu:
        # Prompts go to the GPU of the driver's session. The host's own tells them on.
        theirs = Session.of_enclave(f"e({platform},B,fake)", "X")
        yield "att(M)", [f"att(enc(M,{theirs.traffic}))", "att(X)"]


def evidence_of_sessions(v, platform, me):
    """The protocol: the processor signs S and a root over leaves, each of the session that the request came over."""
    mine = Session.of_enclave(me, "X").leaf(v, "server", f"tlskey({me})", "R")
    root, asked = mine, ["att(X)", "att(R)"]
    if v.batched:
        other = Session.of_enclave(me, "Y").leaf(v, "server", f"tlskey({me})", "Q")
        root, asked = f"node({mine},{other})", asked + ["att(Y)", "att(Q)"]
    stated = "none"
    if v.gpu == "bound":
        stated = "gpu(G)"  # From the driver's session: the host holds no key of a genuine GPU's.
    elif v.gpu == "relayed":
        stated, asked = "gpu(H)", asked + ["att(gpu(H))"]  # A false GPU hands over the report of a genuine one.
    return report(platform, f"rd(stmt(spk(tlskey({me})),{stated}),{root})"), asked


def evidence_without_session(v, platform, key):
    """Weaker bindings, as others have them."""
    # What ran before: it answers nobody any more, but what the processor signed for it then is there.
    old = f"retired({platform},B)"
    if v.retired_keys_leaked:
        yield f"att({old})", []
    if v.bound_to == "key":
        yield report(platform, f"rd(spk({key}),R)"), ["att(R)"]
        yield report(platform, f"rd(spk({old}),oldnonce(B))"), []
    elif v.bound_to == "nonce":
        yield report(platform, "rd(none,R)"), ["att(R)"]
    else:
        yield report(platform, f"rd(spk({key}),none)"), []
        yield report(platform, f"rd(spk({old}),none)"), []


def client(v):
    """A client, `C` its session: it sends its prompt when everything holds."""
    share = "pk(ckey(C))"
    session = Session.of_client(share)
    yield f"att({share})", []
    yield "att(nonce(C))", []
    seen = session.authenticated()
    if v.gpu == "beside":
        seen.append("att(gpu(genuine(H)))")
    measurement = "M" if v.any_measurement else "good"
    for platform in PLATFORMS[:1] if v.pinned else PLATFORMS:
        for data in expected(v, session):
            yield f"att(enc(prompt(C),{session.traffic}))", [*seen, report(platform, data, measurement)]


def expected(v, session):
    """The report data that a client takes; with a batch, its leaf is on either side."""
    if v.bound_to != "channel":
        return {"key": ["rd(spk(K),nonce(C))"], "nonce": ["rd(none,nonce(C))"], "key at boot": ["rd(spk(K),none)"]}[v.bound_to]
    own = session.leaf(v, "server", "K", "nonce(C)")
    stated = "gpu(genuine(H))" if v.gpu in ("bound", "relayed") else "none"
    roots = [f"node({own},W)", f"node(W,{own})"] if v.batched else [own]
    return [f"rd(stmt(spk(K),{stated}),{root})" for root in roots]


def peer(v, platform):
    """An enclave as the client of another one, `D` the session: it appraises the other side, and attests over this connection only."""
    me = f"peer({platform},B)"
    share, key, nonce = f"pk(eckey({me},D))", f"tlskey({me})", f"pnonce({me},D)"
    session = Session.of_client(share)
    for known in [share, f"spk({key})", nonce] + [key] * v.tls_keys_leaked:
        yield f"att({known})", []
    own = f"rd(stmt(spk({key}),none),{session.leaf(v, 'client', key, 'R')})"
    theirs = f"rd(stmt(spk(K),none),{session.leaf(v, 'server', 'K', nonce)})"
    for other in PLATFORMS:
        yield report(platform, own), [*session.authenticated(), report(other, theirs), "att(R)"]


def secrets(v):
    """What must stay out of the attacker's reach, by name."""
    return {"prompt": "att(prompt(C))"} | ({"released": "att(released(E,X))"} if v.mutual else {})


def honest(v):
    """What happens when the attacker only passes messages on: the secrets travel under the key of the two that are meant."""
    me = f"e(p0,B,{'genuine(H)' if v.gpu else 'none'})"
    session = Session.of_enclave(me, "pk(ckey(C))")
    runs = [f"att(enc(prompt(C),{session.traffic}))"]
    if v.mutual:
        share = "pk(eckey(peer(p1,A),D))"
        runs.append(f"att(enc(released({me},{share}),{Session.of_enclave(me, share).traffic}))")
    return runs


def problem(v, goal):
    """TPTP: unsatisfiable if `goal` is reached."""
    lines = [f"% {v.name}: {v.what}.", f"% Is this reached: {goal}"]
    for number, (head, body) in enumerate(rules(v)):
        lines.append(f"cnf(rule{number}, axiom, {' | '.join([head] + ['~' + b for b in body])}).")
    lines.append(f"cnf(goal, negated_conjecture, ~{goal}).")
    return "\n".join(lines) + "\n"
