"""A small HTTPS server on tlslite (0.4.9, of 2015) or tlslite-ng, both TLS in plain Python.

    python3 tlslite_https.py key=FILE cert=FILE min=1.0 max=1.2 ciphers=aes128,... [kx=rsa,...] [groups=secp256r1,...]

Ciphers, key exchanges and groups as in their HandshakeSettings; the old one knows RSA's alone.
Speaks as serve.c does. PYTHONPATH says which of the two it is.
"""

import socket
import sys
import threading

# Both know PyCrypto, and take pycryptodome for it, which it isn't quite: they must not see it.
sys.modules["Crypto"] = None

import tlslite
from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey
from tlslite.utils import aes, python_aes, python_rc4, rc4

try:
    from tlslite.utils import python_tripledes, tripledes
except ImportError:
    tripledes = None  # in 0.4.9 there is none in Python

del sys.modules["Crypto"]

from Crypto.Cipher import AES, ARC4, DES3

# Only the new one has curves.
LIBRARY = ("tlslite-ng" if hasattr(HandshakeSettings(), "eccCurves") else "tlslite") + " " + tlslite.__version__
REFUSAL = "Server: Microsoft-IIS/8.5\r\n"
ASKS = "WWW-Authenticate: Negotiate\r\nWWW-Authenticate: NTLM\r\n"


def fast(base, cipher):
    """One of their ciphers, computed in C: a MiB in plain Python takes them half a minute."""

    class Fast(base):
        def __init__(self, *arguments):
            base.__init__(self, *arguments, "python")
            self.context = cipher(*(part if isinstance(part, int) else bytes(part) for part in arguments))

        def encrypt(self, plaintext):
            return bytearray(self.context.encrypt(bytes(plaintext)))

        def decrypt(self, ciphertext):
            return bytearray(self.context.decrypt(bytes(ciphertext)))

    return Fast


CBC = 2  # to them and to pycryptodome
python_aes.new = fast(aes.AES, AES.new)
python_rc4.new = fast(rc4.RC4, ARC4.new)
if tripledes:
    triple = fast(tripledes.TripleDES, DES3.new)
    python_tripledes.new = lambda key, iv: triple(key, CBC, iv)


def version(text):
    return (3, int(text[2]) + 1)


def settings(options):
    made = HandshakeSettings()
    made.minVersion, made.maxVersion = version(options["min"]), version(options["max"])
    made.cipherNames = options["ciphers"].split(",")
    made.macNames = ["sha", "sha256", "md5"] + (["sha384", "aead"] if LIBRARY.startswith("tlslite-ng") else [])
    if "kx" in options:
        made.keyExchangeNames = options["kx"].split(",")
    if "groups" in options:
        made.eccCurves = options["groups"].split(",")
        made.defaultCurve = made.eccCurves[0]
        made.keyShares = []
    return made


class Connection:
    def __init__(self, tls):
        self.tls, self.have = tls, bytearray()

    def read(self, enough):
        """Reads until `enough` says how many bytes are; None at the end."""
        while (length := enough(self.have)) is None:
            piece = self.tls.recv(16384)
            if not piece:
                return None
            self.have += piece
        taken, self.have = bytes(self.have[:length]), self.have[length:]
        return taken

    def answer(self):
        """One request and its answer; whether there may be another."""
        head = self.read(lambda have: have.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in have else None)
        if head is None:
            return False
        head = head.decode("latin-1")
        status, fields, body = "404 Not Found", REFUSAL, b""
        if head.startswith("POST /echo "):
            lines = (line.partition(":") for line in head.split("\r\n"))
            length = next(int(value) for name, _, value in lines if name.lower() == "content-length")
            body = self.read(lambda have: length if len(have) >= length else None)
            if body is None:
                return False
            status, fields = "200 OK", ""
        elif head.startswith("GET /EWS/Exchange.asmx "):
            status, fields = "401 Unauthorized", REFUSAL + ASKS
        answer = f"HTTP/1.1 {status}\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
        self.tls.sendall(bytearray(answer.encode()) + body)
        return "\r\nconnection: close" not in head.lower()


def serve(tcp, chain, key, options):
    tls = TLSConnection(tcp)
    try:
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls.handshakeServer(certChain=chain, privateKey=key, settings=settings(options))
        connection = Connection(tls)
        while connection.answer():
            pass
        tls.close()
    except Exception as error:  # one connection's end is not the server's
        print(type(error).__name__, error, file=sys.stderr, flush=True)
    finally:
        tcp.close()


def main():
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    chain = X509CertChain()
    key = parsePEMKey(open(options["key"]).read(), private=True)
    chain.parsePemList(open(options["cert"]).read())
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    print("listening", listener.getsockname()[1], LIBRARY, flush=True)
    while True:
        tcp, _ = listener.accept()
        threading.Thread(target=serve, args=(tcp, chain, key, options), daemon=True).start()


main()
