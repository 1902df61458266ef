//! Failures on the way to the target and in its handshake.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use openssl::dh::Dh;
use openssl::ssl::{NameType, SniError, SslContextBuilder, SslVerifyMode, SslVersion};

use crate::common::{
    Act, Child, End, GnutlsServer, Hello, Issued, NodeServer, SServer, Spec, TcpTarget, Tuned, full_backlog, gate,
};
use crate::row::{Row, Server, Then, World};

// ---- servers

fn tuned(world: &World, tune: impl FnOnce(&mut SslContextBuilder)) -> Server {
    let certificate = &world.certificate;
    Server::new(Tuned::serve(&certificate.chain, &certificate.key, tune), certificate)
}

/// Speaks whatever OpenSSL has.
fn any(world: &World) -> Server {
    tuned(world, |_| ())
}

fn only(world: &World, version: SslVersion) -> Server {
    tuned(world, |context| {
        context.set_min_proto_version(Some(version)).unwrap();
        context.set_max_proto_version(Some(version)).unwrap();
    })
}

fn tls_1_0(world: &World) -> Server {
    only(world, SslVersion::TLS1)
}

fn tls_1_1(world: &World) -> Server {
    only(world, SslVersion::TLS1_1)
}

fn tls_1_2(world: &World) -> Server {
    only(world, SslVersion::TLS1_2)
}

fn tls_1_3(world: &World) -> Server {
    only(world, SslVersion::TLS1_3)
}

fn s_server(world: &World, arguments: &[&str]) -> Server {
    Server::new(SServer::start(&world.certificate, arguments), &world.certificate)
}

fn node(world: &World, version: &str, ciphers: &str) -> Server {
    Server::new(NodeServer::start("4.9.1", &world.certificate, version, ciphers), &world.certificate)
}

fn gnutls(world: &World, priority: &str) -> Server {
    Server::new(GnutlsServer::echo(&world.certificate, priority), &world.certificate)
}

/// Says this to whatever comes first.
fn saying(world: &World, bytes: &'static [u8]) -> Server {
    Server::new(TcpTarget::answering(bytes), &world.certificate)
}

/// Says this before anything comes.
fn greeting(world: &World, bytes: &'static [u8]) -> Server {
    let target = TcpTarget::serve(move |mut stream| {
        let _ = std::io::Write::write_all(&mut stream, bytes);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    Server::new(target, &world.certificate)
}

/// A device before a server that speaks everything.
fn device(world: &World, judge: impl Fn(&Hello) -> Act + Send + Sync + 'static) -> Server {
    let behind = Tuned::serve(&world.certificate.chain, &world.certificate.key, |_| ());
    Server::new(gate(&behind, judge), &world.certificate).with(behind)
}

/// The device ends like this what offers more than TLS 1.0.
fn dislikes_new(world: &World, act: Act) -> Server {
    device(world, move |hello| if hello.minor() > 1 { act } else { Act::Pass })
}

/// The device ends everything like this.
fn dislikes_all(world: &World, act: Act) -> Server {
    device(world, move |_| act)
}

/// Ends everything that names no site.
fn by_name_only(world: &World) -> Server {
    device(world, |hello| if hello.names_a_site() { Act::Pass } else { Act::AtHello(End::Resets) })
}

/// A server that looks at the name in the ClientHello.
fn naming(world: &World, likes: fn(Option<&str>) -> bool) -> Server {
    tuned(world, move |context| {
        context.set_servername_callback(move |ssl, _| {
            if likes(ssl.servername(NameType::HOST_NAME)) { Ok(()) } else { Err(SniError::ALERT_FATAL) }
        });
    })
}

/// What the bridge has as a client certificate, `{wrong}`, and what the server takes, `{cert}`.
fn asking(world: &World, name: &str, ours: Option<&Spec<'_>>, arguments: &[&str]) -> Server {
    let folder = world.pki.dir();
    let right = Issued::by(None, &Spec { subject: "the bridge", ..Spec::GOOD }).store(folder, &format!("{name}-right"));
    let wrong = ours.map_or(right.clone(), |spec| Issued::by(None, spec).store(folder, &format!("{name}-wrong")));
    // The server's list of what it trusts.
    let list = folder.join(format!("{name}-list.pem"));
    let trusted = if name == "unknown" { vec![&right.0] } else { vec![&right.0, &wrong.0] };
    std::fs::write(&list, trusted.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect::<String>())
        .unwrap();
    let list = list.display().to_string();
    let server =
        s_server(world, &[&["-Verify", "2", "-verify_return_error", "-CAfile", &list][..], arguments].concat());
    let server = server.word("cert", right.0.display()).word("key", right.1.display());
    server.word("wrong", wrong.0.display()).word("wrong_key", wrong.1.display())
}

/// A server that asks, behind a device.
fn asking_behind(world: &World, act: Act) -> Server {
    let (cert, key) = Issued::by(None, &Spec::GOOD).store(world.pki.dir(), "behind");
    let behind = Tuned::serve(&world.certificate.chain, &world.certificate.key, |context| {
        context.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
    });
    let server = Server::new(gate(&behind, move |_| act), &world.certificate).with(behind);
    server.word("cert", cert.display()).word("key", key.display())
}

fn dhe(world: &World, arguments: &[&str]) -> Server {
    let file = world.pki.dir().join("dh1024.pem");
    std::fs::write(&file, Dh::get_1024_160().unwrap().params_to_pem().unwrap()).unwrap();
    let file = file.display().to_string();
    s_server(world, &[&["-dhparam", &file, "-cipher", "kDHE:@SECLEVEL=0"][..], arguments].concat())
}

/// GnuTLS takes a group of 512 bits, which OpenSSL refuses as a server too.
fn dhe_512(world: &World) -> Server {
    let file = world.pki.dir().join("dh512.pem");
    std::fs::write(&file, Dh::generate_params(512, 2).unwrap().params_to_pem().unwrap()).unwrap();
    let priority = "-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+DHE-RSA:-GROUP-ALL";
    let server = GnutlsServer::with(&world.certificate, priority, &["--dhparams", &file.display().to_string()]);
    Server::new(server, &world.certificate)
}

/// A port on which nothing listens, which stays reserved.
fn closed_port(world: &World) -> Server {
    let holder = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    Server::new(address, &world.certificate).with(holder).word("port", port)
}

fn silent_port(world: &World) -> Server {
    let (address, held) = full_backlog();
    Server::new(address, &world.certificate).with(held)
}

/// Python's own HTTP server, without TLS.
fn plain_http(world: &World) -> Server {
    const SERVER: &str = "
import http.server
server = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)
print('listening', server.server_port, flush=True)
server.serve_forever()
";
    let mut command = Command::new("python3");
    command.args(["-c", SERVER]).current_dir(world.pki.dir());
    let child = Child::spawn(&mut command);
    let line = child.stdout.wait_for(&["listening "]);
    let port: u16 = line.trim_start_matches("listening ").parse().unwrap();
    Server::new(std::net::SocketAddr::from(([127, 0, 0, 1], port)), &world.certificate).with(child)
}

// ---- what becomes of a hint

const SEARCH: &str = "--outbound auto";
const GIVE: Then = Then::Give(&[]);
const SHORT: &str = "700ms";
const HTTPS_PORT: &str = "name the server's HTTPS port, usually 443";
const OWN_LOG: &str = "the server's own log has the cause, if its port speaks TLS and lets this machine in (Windows: event log, System, Schannel)";
const NAME_OR_LOG: &str = "if the server serves by name: --server-name NAME; else: the server's own log has the cause, if its port speaks TLS and lets this machine in (Windows: event log, System, Schannel)";

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
    // The server's name.
    Row {
        what: "a name that the server does not know, and refuses",
        server: |world| naming(world, |name| name.is_none()),
        flags: &["--sni", "wrong.example"],
        told: "TLS handshake: the server knows no site named 'wrong.example' (openssl 0A000458 tlsv1 unrecognized name)",
        hint: "to send no name: --sni off; to send one that it knows: --sni NAME",
        then: Then::Choose(0, &[]),
    },
    Row {
        what: "another name than the one that it knows",
        server: |world| naming(world, |name| name == Some("right.example")),
        flags: &["--sni", "wrong.example"],
        told: "TLS handshake: the server knows no site named 'wrong.example' (openssl 0A000458 tlsv1 unrecognized name)",
        hint: "to send no name: --sni off; to send one that it knows: --sni NAME",
        then: Then::Choose(1, &[("NAME", "right.example")]),
    },
    Row {
        what: "no name where one is demanded",
        server: |world| naming(world, |name| name == Some("right.example")),
        flags: &[],
        told: "TLS handshake: the server wants to be told the name of its site, and none was sent (openssl 0A000458 tlsv1 unrecognized name)",
        hint: "--sni NAME",
        then: Then::Give(&[("NAME", "right.example")]),
    },
    Row {
        what: "no name where the connection is reset without one",
        server: by_name_only,
        flags: &[],
        told: "TLS handshake: the server reset the connection at our ClientHello, without a reason",
        hint: SEARCH,
        then: Then::SearchInVain {
            told: tried!("TLS handshake: the server reset the connection at our ClientHello, without a reason"),
            hint: NAME_OR_LOG,
            then: &Then::Choose(0, &[("NAME", "localhost")]),
        },
    },
    // Ends without a reason, and silence.
    Row {
        what: "closed at a new ClientHello",
        server: |world| dislikes_new(world, Act::AtHello(End::Closes)),
        flags: &[],
        told: "TLS handshake: the server closed the connection at our ClientHello, without a reason",
        hint: SEARCH,
        then: GIVE,
    },
    Row {
        what: "closed at each ClientHello",
        server: |world| dislikes_all(world, Act::AtHello(End::Closes)),
        flags: &["--sni", "right.example"],
        told: "TLS handshake: the server closed the connection at our ClientHello, without a reason",
        hint: SEARCH,
        then: Then::SearchInVain {
            told: tried!("TLS handshake: the server closed the connection at our ClientHello, without a reason"),
            hint: OWN_LOG,
            then: &Then::Mend(any),
        },
    },
    Row {
        what: "close_notify at a new ClientHello",
        server: |world| dislikes_new(world, Act::AtHello(End::Says(&[21, 3, 1, 0, 2, 1, 0]))),
        flags: &[],
        told: "TLS handshake: the server closed the connection (close_notify) at our ClientHello, without a reason",
        hint: SEARCH,
        then: GIVE,
    },
    Row {
        what: "closed after the ServerHello of a new version",
        server: |world| dislikes_new(world, Act::AfterTheirs(End::Closes)),
        flags: &[],
        told: "TLS handshake: the server closed the connection in mid-handshake, after its ServerHello",
        hint: SEARCH,
        then: GIVE,
    },
    Row {
        what: "reset after the ServerHello of a new version",
        server: |world| dislikes_new(world, Act::AfterTheirs(End::Resets)),
        flags: &[],
        told: "TLS handshake: the server reset the connection in mid-handshake, after its ServerHello",
        hint: SEARCH,
        then: GIVE,
    },
    Row {
        what: "closed after our key exchange of a new version",
        server: |world| dislikes_new(world, Act::AfterOurs(End::Closes)),
        flags: &[],
        told: "TLS handshake: the server closed the connection in mid-handshake, after our key exchange",
        hint: SEARCH,
        then: GIVE,
    },
    Row {
        what: "reset after our key exchange of a new version",
        server: |world| dislikes_new(world, Act::AfterOurs(End::Resets)),
        flags: &[],
        told: "TLS handshake: the server reset the connection in mid-handshake, after our key exchange",
        hint: SEARCH,
        then: GIVE,
    },
    Row {
        what: "silent at a new ClientHello",
        server: |world| dislikes_new(world, Act::AtHello(End::Hangs)),
        flags: &["--handshake-timeout", SHORT],
        told: "TLS handshake: not finished within 700ms: no answer to our ClientHello",
        hint: SEARCH,
        then: GIVE,
    },
    Row {
        what: "slower than it may be",
        server: |world| dislikes_all(world, Act::Later(Duration::from_millis(1500))),
        flags: &["--handshake-timeout", SHORT],
        told: "TLS handshake: not finished within 700ms: no answer to our ClientHello",
        hint: SEARCH,
        then: Then::SearchInVain {
            told: "TLS handshake: not finished within 700ms: no answer to our ClientHello; nor to 3 others",
            hint: "if the server is only slow: --outbound manual --handshake-timeout 60s; else: it may be no TLS port: name the server's HTTPS port, usually 443",
            then: &Then::Choose(0, &[]),
        },
    },
    Row {
        what: "silent in the middle of its own messages",
        server: |world| dislikes_all(world, Act::AfterTheirs(End::Hangs)),
        flags: &["--handshake-timeout", SHORT],
        told: "TLS handshake: not finished within 700ms: its answer to our ClientHello does not end",
        hint: "if the server is only slow: --outbound manual --handshake-timeout 60s; else: does the path lose long packets? compare: ping -M do -s 1472 from here",
        then: Then::Mend(any),
    },
    Row {
        what: "silent after our key exchange",
        server: |world| dislikes_all(world, Act::AfterOurs(End::Hangs)),
        flags: &["--handshake-timeout", SHORT],
        told: "TLS handshake: not finished within 700ms: no answer to our key exchange",
        hint: "if the server is only slow: --outbound manual --handshake-timeout 60s; else: the server's own log has the cause, if its port speaks TLS and lets this machine in (Windows: event log, System, Schannel)",
        then: Then::Mend(any),
    },
    // Client certificates.
    Row {
        what: "a client certificate is demanded, TLS 1.2",
        server: |world| asking(world, "tls12", None, &["-tls1_2"]),
        flags: &[],
        told: "TLS handshake: the server demands a client certificate, and none is set (openssl 0A000410 ssl/tls alert handshake failure)",
        hint: "--auth-cert FILE --auth-key FILE",
        then: Then::Give(&[("FILE", "{cert}"), ("FILE", "{key}")]),
    },
    Row {
        what: "a client certificate is demanded, TLS 1.0",
        server: |world| asking(world, "tls10", None, &["-tls1", "-cipher", "ALL:@SECLEVEL=0"]),
        flags: &[],
        told: "TLS handshake: the server demands a client certificate, and none is set (openssl 0A000410 ssl/tls alert handshake failure)",
        hint: "--auth-cert FILE --auth-key FILE",
        then: Then::Give(&[("FILE", "{cert}"), ("FILE", "{key}")]),
    },
    Row {
        what: "a client certificate of an authority that the server does not know",
        server: |world| asking(world, "unknown", Some(&Spec::GOOD), &["-tls1_2"]),
        flags: &["--auth-cert", "{wrong}", "--auth-key", "{wrong_key}"],
        told: "TLS handshake: the server refuses the client certificate {wrong}: its authority is not known there (openssl 0A000418 tlsv1 alert unknown ca)",
        hint: "--auth-cert FILE --auth-key FILE",
        then: Then::Give(&[("FILE", "{cert}"), ("FILE", "{key}")]),
    },
    Row {
        what: "a client certificate that has expired",
        server: |world| asking(world, "expired", Some(&Spec { days: (-9, -1), ..Spec::GOOD }), &["-tls1_2"]),
        flags: &["--auth-cert", "{wrong}", "--auth-key", "{wrong_key}"],
        told: "TLS handshake: the server refuses the client certificate {wrong}: it has expired (openssl 0A000415 ssl/tls alert certificate expired)",
        hint: "--auth-cert FILE --auth-key FILE",
        then: Then::Give(&[("FILE", "{cert}"), ("FILE", "{key}")]),
    },
    Row {
        what: "a client certificate for servers only",
        server: |world| asking(world, "purpose", Some(&Spec { for_servers: true, ..Spec::GOOD }), &["-tls1_2"]),
        flags: &["--auth-cert", "{wrong}", "--auth-key", "{wrong_key}"],
        told: "TLS handshake: the server refuses the client certificate {wrong}: it is of a kind or for a purpose that is not taken there (openssl 0A000413 ssl/tls alert unsupported certificate)",
        hint: "--auth-cert FILE --auth-key FILE",
        then: Then::Give(&[("FILE", "{cert}"), ("FILE", "{key}")]),
    },
    Row {
        what: "closed after a client certificate was asked for",
        server: |world| asking_behind(world, Act::AfterOurs(End::Closes)),
        flags: &[],
        told: "TLS handshake: the server demands a client certificate, and none is set; the server closed the connection in mid-handshake, after our key exchange",
        hint: "--auth-cert FILE --auth-key FILE",
        then: Then::Mend(any),
    },
    Row {
        what: "closed after a client certificate was shown",
        server: |world| asking_behind(world, Act::AfterOurs(End::Closes)),
        flags: &["--auth-cert", "{cert}", "--auth-key", "{key}"],
        told: "TLS handshake: the server closed the connection in mid-handshake, after our key exchange, with the client certificate {cert}",
        hint: "the server's own log says whether it refuses that certificate",
        then: Then::Mend(any),
    },
    // What breaks the protocol.
    Row {
        what: "a record longer than there is, to a new version",
        server: |world| dislikes_new(world, Act::AtHello(End::Says(&[22, 3, 3, 0x7f, 0xff, 2, 0, 0, 38, 3, 3]))),
        flags: &[],
        told: "TLS handshake: the server breaks the protocol in mid-handshake, after its ServerHello (openssl 0A0000C6 packet length too long)",
        hint: SEARCH,
        then: GIVE,
    },
    Row {
        what: "an alert that says little, to a new version",
        server: |world| dislikes_new(world, Act::AtHello(End::Alerts(47))),
        flags: &[],
        told: "TLS handshake: the server gave up at our ClientHello (openssl 0A000417 ssl/tls alert illegal parameter)",
        hint: SEARCH,
        then: GIVE,
    },
    Row {
        what: "an alert that says little, to extensions",
        server: |world| {
            device(world, |hello| if hello.has_extensions() { Act::AtHello(End::Alerts(50)) } else { Act::Pass })
        },
        flags: &[],
        told: "TLS handshake: the server gave up at our ClientHello (openssl 0A00041A tlsv1 alert decode error)",
        hint: SEARCH,
        then: GIVE,
    },
    Row {
        what: "an alert after our key exchange of a new version",
        server: |world| dislikes_new(world, Act::AfterOurs(End::Alerts(51))),
        flags: &[],
        told: "TLS handshake: the server gave up in mid-handshake, after our key exchange (openssl 0A00041B tlsv1 alert decrypt error)",
        hint: SEARCH,
        then: GIVE,
    },
];

/// A ServerHello of this version (3.0 is SSL 3) with AES128-SHA and no extension.
const fn server_hello(minor: u8) -> [u8; 47] {
    let mut bytes = [0; 47];
    // Record, handshake message, version; then a random number and a session of zeroes.
    let head = [22, 3, minor, 0, 42, 2, 0, 0, 38, 3, minor];
    let mut at = 0;
    while at < head.len() {
        bytes[at] = head[at];
        at += 1;
    }
    bytes[45] = 0x2f;
    bytes
}

const SSL_3: [u8; 47] = server_hello(0);
const TLS_1_2: [u8; 47] = server_hello(3);
