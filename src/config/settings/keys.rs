//! The table of keys.

/// The version of the file format that this program writes, and the newest that it reads.
pub const FORMAT: i64 = 1;

/// A key of a forwarder's file.
pub struct Key {
    /// Its name in the file and in `set`.
    pub name: &'static str,
    /// The default as it stands in a file; empty where there is none.
    pub default: &'static str,
    /// One line for the file's comment.
    pub about: &'static str,
}

const fn key(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, default, about }
}

/// Every key, in the order of a new file.
pub const KEYS: &[Key] = &[
    key("format", "", "version of this file's format"),
    key("listen", "", "PORT: all addresses, so that containers and other hosts reach it; or ADDRESS:PORT"),
    key("target", "", "the legacy server, HOST:PORT, looked up for each connection; \"A:443,B:443\": B where A fails"),
    key("server_name", "", "the name that each target's certificate must carry, if not the target's own"),
    key("sni", "\"auto\"", "server name sent to it: auto (the verified name; none for an IP), off, or a name"),
    key("min_tls", "\"1.0\"", "oldest TLS version spoken to the target"),
    key("max_tls", "\"1.2\"", "newest TLS version spoken to the target; a TLS 1.3 hello makes old servers fail"),
    key(
        "ciphers",
        "",
        "OpenSSL cipher list for the target; without it AES, ECDHE before RSA. 3DES and RC4 only if named",
    ),
    key(
        "security_level",
        "0",
        "OpenSSL's level for ciphers and signatures: 0 to 2; TLS 1.0, 1.1 and SHA-1 signatures need 0",
    ),
    key("extensions", "true", "false: a ClientHello without any extension, which ends at TLS 1.1 and names no site"),
    key(
        "empty_fragments",
        "true",
        "false: no empty record before each one in TLS 1.0 (BEAST), for servers that stumble",
    ),
    key("allow_weak", "[]", "weak things this server can't do without: no-rfc5746, dhe, 3des, rc4"),
    key("resumption", "true", "false: a full TLS handshake for each connection to the target"),
    key(
        "auth_cert",
        "",
        "PEM certificate to show where the target asks for a client certificate; its key is \"auth_key\"",
    ),
    key("auth_key", "", "the private key of \"auth_cert\""),
    key("ca", "", "PEM file of the authorities that vouch for the target; without it this system's own"),
    key("pin", "", "accept exactly these certificates, whatever their names and dates: [\"sha256:...\"]"),
    key("insecure", "false", "true: accept any certificate, so anyone on the path can read and change everything"),
    key("accept", "[]", "faults of the certificate to accept: sha1, rsa1024, expired, wrong-name, ip-in-cn"),
    key("target_eof", "\"mirror\"", "clean: the target's FIN without close_notify reaches clients as close_notify"),
    key("half_close", "\"forward\"", "hold: a client's end is kept from the target while an answer is owed or flowing"),
    key("send_proxy", "\"off\"", "v1, v2: a PROXY header before TLS tells the target the client's address"),
    key("client_min_tls", "\"1.2\"", "oldest TLS version spoken to clients: 1.2 or 1.3"),
    key("client_ca", "", "PEM file of authorities: clients must show a certificate by one of them"),
    key("san", "[]", "more names and addresses for the forwarder's own certificate"),
    key("cert", "", "serve this PEM certificate instead of our own; its key is \"key\""),
    key("key", "", "the private key of \"cert\""),
    key("allow_clients", "[]", "networks that clients may come from: [\"10.0.0.0/8\"]; empty: any"),
    key(
        "proxy_from",
        "[]",
        "networks of load balancers: what comes from there must begin with a PROXY header, nothing else may",
    ),
    key("max_connections", "4000", "connections at a time; one more waits 2 s at most, then it gets an alert"),
    key(
        "max_handshakes",
        "1000",
        "clients at a time that are not connected yet, in TLS handshakes or before; one more waits as well",
    ),
    key("accept_rate", "0", "new connections a second; more of them wait as well; 0: any"),
    key("hello_timeout", "\"15s\"", "a client that has not sent its whole ClientHello by then is dropped"),
    key("connect_timeout", "\"10s\"", "look-up and TCP connection to the target, all addresses and targets together"),
    key("handshake_timeout", "\"15s\"", "a peer that has not finished its TLS handshake by then is dropped"),
    key("half_close_timeout", "\"60s\"", "one side has ended and the other stays silent this long: cut"),
    key("linger_timeout", "\"10s\"", "both sides were told the end: time for them to take what is left and end too"),
    key(
        "dead_peer_timeout",
        "\"90s\"",
        "a peer that answers nothing any more, not even TCP's own probes, is cut by then",
    ),
    key("idle_timeout", "\"0s\"", "0s: never; EWS streams are silent for up to 30 min, so less than 31m cuts them"),
    key("drain_timeout", "\"30s\"", "on stop, open connections may finish within this time, then they are cut"),
    key(
        "keepalive_time",
        "\"30s\"",
        "silence before TCP probes whether the peer still lives; all three within dead_peer_timeout",
    ),
    key("keepalive_interval", "\"10s\"", "time between two such probes"),
    key("keepalive_probes", "5", "unanswered probes that end the connection"),
    key("metrics", "", "where Prometheus reads metrics by HTTP: [ADDRESS:]PORT, without ADDRESS this machine alone"),
];
