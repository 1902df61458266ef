//! The way to the target, other protocols, versions, ciphers, renegotiation.

use crate::common::{Act, End};
use crate::row::{Row, Then};
use crate::servers::*;

const SEARCH: &str = "--outbound auto";
const GIVE: Then = Then::Give(&[]);
const SHORT: &str = "700ms";
const HTTPS_PORT: &str = "name the server's HTTPS port, usually 443";
const OWN_LOG: &str = "the server's own log has the cause, if its port speaks TLS and lets this machine in (Windows: event log, System, Schannel)";

macro_rules! tried {
    ($told:literal) => {
        concat!($told, "; tried TLS 1.2, 1.1, 1.0, with and without extensions, with AES, DHE, 3DES, RC4")
    };
}

pub(crate) const ROWS: &[Row] = &[
    // The way there.
    Row {
        what: "nothing listens on the port",
        server: closed_port,
        flags: &[],
        told: "connect: connection refused",
        hint: "nothing listens there on port {port}: is the service started, and is it that port?",
        then: Then::Mend(any),
    },
    Row {
        what: "nobody answers",
        server: silent_port,
        flags: &["--connect-timeout", SHORT],
        told: "connect: no answer within 700ms",
        hint: "is the server on, and does no firewall on the way drop connections to that port?",
        then: Then::Mend(any),
    },
    // Other protocols.
    Row {
        what: "HTTP without TLS",
        server: plain_http,
        flags: &[],
        told: "TLS handshake: the server speaks plain HTTP on this port, not TLS",
        hint: HTTPS_PORT,
        then: Then::Mend(any),
    },
    Row {
        what: "HTTP without TLS, a status line",
        server: |world| saying(world, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        flags: &[],
        told: "TLS handshake: the server speaks plain HTTP on this port, not TLS",
        hint: HTTPS_PORT,
        then: Then::Mend(any),
    },
    Row {
        what: "SMTP",
        server: |world| greeting(world, b"220 mail.corp ESMTP\r\n"),
        flags: &[],
        told: "TLS handshake: the server speaks SMTP or FTP on this port, not TLS",
        hint: HTTPS_PORT,
        then: Then::Mend(any),
    },
    Row {
        what: "SSH",
        server: |world| greeting(world, b"SSH-2.0-OpenSSH_9.2\r\n"),
        flags: &[],
        told: "TLS handshake: the server speaks SSH on this port, not TLS",
        hint: HTTPS_PORT,
        then: Then::Mend(any),
    },
    Row {
        what: "POP3",
        server: |world| greeting(world, b"+OK ready\r\n"),
        flags: &[],
        told: "TLS handshake: the server speaks POP3 on this port, not TLS",
        hint: HTTPS_PORT,
        then: Then::Mend(any),
    },
    Row {
        what: "IMAP",
        server: |world| greeting(world, b"* OK IMAP4 ready\r\n"),
        flags: &[],
        told: "TLS handshake: the server speaks IMAP on this port, not TLS",
        hint: HTTPS_PORT,
        then: Then::Mend(any),
    },
    Row {
        what: "something unknown",
        server: |world| saying(world, b"\x03\x00\x00\x0b\x06\xd0\x00\x00\x00\x00\x00"),
        flags: &[],
        told: "TLS handshake: what the server sent is not TLS",
        hint: HTTPS_PORT,
        then: Then::Mend(any),
    },
    Row {
        what: "SSL 2 alone",
        // Its ServerHello: a length, its type, session hit, certificate type, version 0.2.
        server: |world| saying(world, b"\x80\x1c\x04\x00\x01\x00\x02\x00\x00\x00\x03\x00\x10"),
        flags: &[],
        told: "TLS handshake: the server speaks SSL 2, which is no protection and is never used",
        hint: "enable TLS 1.0 or newer on the server (Windows: registry, SCHANNEL, Protocols), then restart it",
        then: Then::Mend(tls_1_0),
    },
    // Versions.
    Row {
        what: "SSL 3 alone",
        server: |world| saying(world, &SSL_3),
        flags: &[],
        told: "TLS handshake: the server speaks SSL 3, which is no protection and is never used (openssl 0A000102 unsupported protocol)",
        hint: "enable TLS 1.0 or newer on the server (Windows: registry, SCHANNEL, Protocols), then restart it",
        then: Then::Mend(tls_1_0),
    },
    Row {
        what: "TLS 1.0 alone, min_tls above",
        server: tls_1_0,
        flags: &["--min-tls", "1.2"],
        told: "TLS handshake: the server speaks nothing newer than TLS 1.0, and min_tls is 1.2 (openssl 0A000102 unsupported protocol)",
        hint: "--min-tls 1.0",
        then: GIVE,
    },
    Row {
        what: "TLS 1.1 alone, min_tls above",
        server: tls_1_1,
        flags: &["--min-tls", "1.2"],
        told: "TLS handshake: the server speaks nothing newer than TLS 1.1, and min_tls is 1.2 (openssl 0A000102 unsupported protocol)",
        hint: "--min-tls 1.1",
        then: GIVE,
    },
    Row {
        what: "TLS 1.0 alone, security_level 1",
        server: tls_1_0,
        flags: &["--security-level", "1"],
        told: "TLS handshake: the server speaks nothing newer than TLS 1.0, and security_level 1 needs TLS 1.2 (openssl 0A000102 unsupported protocol)",
        hint: "--security-level 0",
        then: GIVE,
    },
    Row {
        what: "TLS 1.1 alone, security_level 2",
        server: tls_1_1,
        flags: &["--security-level", "2"],
        told: "TLS handshake: the server speaks nothing newer than TLS 1.1, and security_level 2 needs TLS 1.2 (openssl 0A000102 unsupported protocol)",
        hint: "--security-level 0",
        then: GIVE,
    },
    Row {
        what: "TLS 1.0 alone, min_tls and security_level above",
        server: tls_1_0,
        flags: &["--min-tls", "1.2", "--security-level", "2"],
        told: "TLS handshake: the server speaks nothing newer than TLS 1.0, and min_tls is 1.2, security_level 2 needs TLS 1.2 (openssl 0A000102 unsupported protocol)",
        hint: "--min-tls 1.0 --security-level 0",
        then: GIVE,
    },
    Row {
        what: "TLS 1.2 alone, max_tls below",
        server: tls_1_2,
        flags: &["--max-tls", "1.1"],
        told: "TLS handshake: the server speaks none of TLS 1.0 to 1.1 (openssl 0A00042E tlsv1 alert protocol version)",
        hint: "--outbound auto in place of --max-tls",
        then: GIVE,
    },
    Row {
        what: "TLS 1.1 alone, max_tls below",
        server: |world| s_server(world, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]),
        flags: &["--max-tls", "1.0"],
        told: "TLS handshake: the server speaks none of TLS 1.0 (openssl 0A00042E tlsv1 alert protocol version)",
        hint: "--outbound auto in place of --max-tls",
        then: GIVE,
    },
    Row {
        what: "TLS 1.2 alone, no extensions",
        server: tls_1_2,
        flags: &["--no-extensions"],
        told: "TLS handshake: the server speaks none of TLS 1.0 to 1.1 (openssl 0A00042E tlsv1 alert protocol version)",
        hint: "--outbound auto in place of --no-extensions",
        then: GIVE,
    },
    Row {
        what: "TLS 1.3 alone",
        server: tls_1_3,
        flags: &[],
        told: "TLS handshake: the server speaks none of TLS 1.0 to 1.2 (openssl 0A00042E tlsv1 alert protocol version)",
        hint: SEARCH,
        then: Then::SearchInVain {
            told: tried!(
                "TLS handshake: the server speaks none of TLS 1.0 to 1.2 (openssl 0A00042E tlsv1 alert protocol version)"
            ),
            hint: "the server may speak TLS 1.3 alone: allow TLS 1.2 there, or let clients of TLS 1.3 reach it without this bridge",
            then: &Then::Mend(tls_1_2),
        },
    },
    Row {
        what: "a version that was not offered",
        server: |world| {
            device(world, |hello| if hello.minor() < 3 { Act::AtHello(End::Says(&TLS_1_2)) } else { Act::Pass })
        },
        flags: &["--max-tls", "1.1"],
        told: "TLS handshake: the server answers with TLS 1.2, which was not offered (openssl 0A000102 unsupported protocol)",
        hint: "--outbound auto in place of --max-tls",
        then: GIVE,
    },
    Row {
        what: "a device that dislikes new versions and says so",
        server: |world| dislikes_new(world, Act::AtHello(End::Alerts(70))),
        flags: &[],
        told: "TLS handshake: the server speaks none of TLS 1.0 to 1.2 (openssl 0A00042E tlsv1 alert protocol version)",
        hint: SEARCH,
        then: GIVE,
    },
    // Ciphers, signatures, groups.
    Row {
        what: "no cipher in common, ciphers by hand",
        server: |world| s_server(world, &["-tls1_2", "-cipher", "AES128-SHA"]),
        flags: &["--ciphers", "AES256-SHA"],
        told: "TLS handshake: the server refused what we offered (TLS 1.0 to 1.2, AES256-SHA): no version, cipher or name in common (openssl 0A000410 ssl/tls alert handshake failure)",
        hint: "--outbound auto in place of --ciphers",
        then: GIVE,
    },
    Row {
        what: "3DES alone",
        server: |world| node(world, "TLSv1", "DES-CBC3-SHA"),
        flags: &[],
        told: "TLS handshake: the server refused what we offered (TLS 1.0 to 1.2, AES ciphers): no version, cipher or name in common (openssl 0A000410 ssl/tls alert handshake failure)",
        hint: SEARCH,
        then: Then::SearchAllowing("3des"),
    },
    Row {
        what: "RC4 alone",
        server: |world| node(world, "TLSv1", "RC4-SHA"),
        flags: &[],
        told: "TLS handshake: the server refused what we offered (TLS 1.0 to 1.2, AES ciphers): no version, cipher or name in common (openssl 0A000410 ssl/tls alert handshake failure)",
        hint: SEARCH,
        then: Then::SearchAllowing("rc4"),
    },
    Row {
        what: "DHE of 1024 bits alone",
        server: |world| dhe(world, &["-tls1_2"]),
        flags: &[],
        told: "TLS handshake: the server refused what we offered (TLS 1.0 to 1.2, AES ciphers): no version, cipher or name in common (openssl 0A000410 ssl/tls alert handshake failure)",
        hint: SEARCH,
        then: Then::SearchAllowing("dhe"),
    },
    Row {
        what: "DHE of 1024 bits at security_level 2",
        server: |world| dhe(world, &["-tls1_2"]),
        flags: &["--security-level", "2", "--allow-weak=dhe"],
        told: "TLS handshake: the server's Diffie-Hellman group has fewer than 2048 bits, the least at security_level 2 (openssl 0A00018A dh key too small)",
        hint: "--outbound auto in place of --security-level",
        then: GIVE,
    },
    Row {
        what: "DHE of 512 bits, too few at any level",
        server: |world| dhe_512(world),
        flags: &["--allow-weak=dhe"],
        told: "TLS handshake: the server's Diffie-Hellman group has fewer than 1024 bits, the least at security_level 0 (openssl 0A00018A dh key too small)",
        hint: SEARCH,
        then: Then::SearchInVain {
            told: tried!(
                "TLS handshake: the server's Diffie-Hellman group has fewer than 1024 bits, the least at security_level 0 (openssl 0A00018A dh key too small)"
            ),
            hint: "give the server a group of 2048 bits, or a cipher without DHE",
            then: &Then::Mend(tls_1_2),
        },
    },
    Row {
        what: "signatures with SHA-1 alone, at security_level 1",
        server: |world| gnutls(world, "-VERS-ALL:+VERS-TLS1.2:-SIGN-ALL:+SIGN-RSA-SHA1:-KX-ALL:+ECDHE-RSA"),
        flags: &["--security-level", "1"],
        told: "TLS handshake: the server refused what we offered (TLS 1.0 to 1.2, AES ciphers): no version, cipher or name in common (openssl 0A000410 ssl/tls alert handshake failure)",
        hint: "--outbound auto in place of --security-level",
        then: GIVE,
    },
    Row {
        what: "a server of OpenSSL 3 that signs no more with SHA-1",
        server: |world| s_server(world, &["-tls1", "-cipher", "ALL:@SECLEVEL=1"]),
        flags: &[],
        told: "TLS handshake: the server reports an error of its own at our ClientHello (openssl 0A000438 tlsv1 alert internal error)",
        hint: SEARCH,
        then: Then::SearchInVain {
            told: tried!(
                "TLS handshake: the server reports an error of its own at our ClientHello (openssl 0A000438 tlsv1 alert internal error)"
            ),
            hint: OWN_LOG,
            then: &Then::Mend(|world| s_server(world, &["-tls1", "-cipher", "ALL:@SECLEVEL=0"])),
        },
    },
    Row {
        what: "a TLS 1.2 server of OpenSSL at level 2 with a key of 1024 bits",
        server: |world| s_server(world, &["-tls1_2", "-cipher", "AES128-SHA", "-no_etm"]),
        flags: &["--ciphers", "ECDHE-RSA-AES128-SHA"],
        told: "TLS handshake: the server refused what we offered (TLS 1.0 to 1.2, ECDHE-RSA-AES128-SHA): no version, cipher or name in common (openssl 0A000410 ssl/tls alert handshake failure)",
        hint: "--outbound auto in place of --ciphers",
        then: GIVE,
    },
    // Renegotiation.
    Row {
        what: "no secure renegotiation",
        server: |world| gnutls(world, "-VERS-ALL:+VERS-TLS1.2:%DISABLE_SAFE_RENEGOTIATION"),
        flags: &[],
        told: "TLS handshake: the server lacks secure renegotiation (RFC 5746; Windows gets it with KB980436) (openssl 0A000152 unsafe legacy renegotiation disabled)",
        hint: "--allow-weak=no-rfc5746",
        then: GIVE,
    },
    Row {
        what: "no secure renegotiation, where something weak is allowed by now",
        server: |world| gnutls(world, "-VERS-ALL:+VERS-TLS1.2:%DISABLE_SAFE_RENEGOTIATION"),
        flags: &["--allow-weak=3des"],
        told: "TLS handshake: the server lacks secure renegotiation (RFC 5746; Windows gets it with KB980436) (openssl 0A000152 unsafe legacy renegotiation disabled)",
        hint: "--allow-weak=no-rfc5746,3des",
        then: GIVE,
    },
];
