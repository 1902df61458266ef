//! The servers of the tables, each with what is wrong with it.

use std::net::TcpListener;
use std::process::Command;

use openssl::dh::Dh;
use openssl::ssl::{NameType, SniError, SslContextBuilder, SslVerifyMode, SslVersion};

use crate::common::{
    Act, Child, End, GnutlsServer, Hello, Issued, NodeServer, SServer, Spec, TcpTarget, Tuned, full_backlog, gate,
};
use crate::row::{Server, World};

pub(crate) fn tuned(world: &World, tune: impl FnOnce(&mut SslContextBuilder)) -> Server {
    let certificate = &world.certificate;
    Server::new(Tuned::serve(&certificate.chain, &certificate.key, tune), certificate)
}

/// Speaks whatever OpenSSL has.
pub(crate) fn any(world: &World) -> Server {
    tuned(world, |_| ())
}

pub(crate) fn only(world: &World, version: SslVersion) -> Server {
    tuned(world, |context| {
        context.set_min_proto_version(Some(version)).unwrap();
        context.set_max_proto_version(Some(version)).unwrap();
    })
}

pub(crate) fn tls_1_0(world: &World) -> Server {
    only(world, SslVersion::TLS1)
}

pub(crate) fn tls_1_1(world: &World) -> Server {
    only(world, SslVersion::TLS1_1)
}

pub(crate) fn tls_1_2(world: &World) -> Server {
    only(world, SslVersion::TLS1_2)
}

pub(crate) fn tls_1_3(world: &World) -> Server {
    only(world, SslVersion::TLS1_3)
}

pub(crate) fn s_server(world: &World, arguments: &[&str]) -> Server {
    Server::new(SServer::start(&world.certificate, arguments), &world.certificate)
}

pub(crate) fn node(world: &World, version: &str, ciphers: &str) -> Server {
    Server::new(NodeServer::start("4.9.1", &world.certificate, version, ciphers), &world.certificate)
}

pub(crate) fn gnutls(world: &World, priority: &str) -> Server {
    Server::new(GnutlsServer::echo(&world.certificate, priority), &world.certificate)
}

/// Says this to whatever comes first.
pub(crate) fn saying(world: &World, bytes: &'static [u8]) -> Server {
    Server::new(TcpTarget::answering(bytes), &world.certificate)
}

/// Says this before anything comes.
pub(crate) fn greeting(world: &World, bytes: &'static [u8]) -> Server {
    let target = TcpTarget::serve(move |mut stream| {
        let _ = std::io::Write::write_all(&mut stream, bytes);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    Server::new(target, &world.certificate)
}

/// A device before a server that speaks everything.
pub(crate) fn device(world: &World, judge: impl Fn(&Hello) -> Act + Send + Sync + 'static) -> Server {
    let behind = Tuned::serve(&world.certificate.chain, &world.certificate.key, |_| ());
    Server::new(gate(&behind, judge), &world.certificate).with(behind)
}

/// The device ends like this what offers more than TLS 1.0.
pub(crate) fn dislikes_new(world: &World, act: Act) -> Server {
    device(world, move |hello| if hello.minor() > 1 { act } else { Act::Pass })
}

/// The device ends everything like this.
pub(crate) fn dislikes_all(world: &World, act: Act) -> Server {
    device(world, move |_| act)
}

/// Ends everything that names no site.
pub(crate) fn by_name_only(world: &World) -> Server {
    device(world, |hello| if hello.names_a_site() { Act::Pass } else { Act::AtHello(End::Resets) })
}

/// A server that looks at the name in the ClientHello.
pub(crate) fn naming(world: &World, likes: fn(Option<&str>) -> bool) -> Server {
    tuned(world, move |context| {
        context.set_servername_callback(move |ssl, _| {
            if likes(ssl.servername(NameType::HOST_NAME)) { Ok(()) } else { Err(SniError::ALERT_FATAL) }
        });
    })
}

/// What the bridge has as a client certificate, `{wrong}`, and what the server takes, `{cert}`.
pub(crate) fn asking(world: &World, name: &str, ours: Option<&Spec<'_>>, arguments: &[&str]) -> Server {
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
pub(crate) fn asking_behind(world: &World, act: Act) -> Server {
    let (cert, key) = Issued::by(None, &Spec::GOOD).store(world.pki.dir(), "behind");
    let behind = Tuned::serve(&world.certificate.chain, &world.certificate.key, |context| {
        context.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
    });
    let server = Server::new(gate(&behind, move |_| act), &world.certificate).with(behind);
    server.word("cert", cert.display()).word("key", key.display())
}

pub(crate) fn dhe(world: &World, arguments: &[&str]) -> Server {
    let file = world.pki.dir().join("dh1024.pem");
    std::fs::write(&file, Dh::get_1024_160().unwrap().params_to_pem().unwrap()).unwrap();
    let file = file.display().to_string();
    s_server(world, &[&["-dhparam", &file, "-cipher", "kDHE:@SECLEVEL=0"][..], arguments].concat())
}

/// GnuTLS takes a group of 512 bits, which OpenSSL refuses as a server too.
pub(crate) fn dhe_512(world: &World) -> Server {
    let file = world.pki.dir().join("dh512.pem");
    std::fs::write(&file, Dh::generate_params(512, 2).unwrap().params_to_pem().unwrap()).unwrap();
    let priority = "-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+DHE-RSA:-GROUP-ALL";
    let server = GnutlsServer::with(&world.certificate, priority, &["--dhparams", &file.display().to_string()]);
    Server::new(server, &world.certificate)
}

/// A port on which nothing listens, which stays reserved.
pub(crate) fn closed_port(world: &World) -> Server {
    let holder = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    Server::new(address, &world.certificate).with(holder).word("port", port)
}

pub(crate) fn silent_port(world: &World) -> Server {
    let (address, held) = full_backlog();
    Server::new(address, &world.certificate).with(held)
}

/// Python's own HTTP server, without TLS.
pub(crate) fn plain_http(world: &World) -> Server {
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

pub(crate) const SSL_3: [u8; 47] = server_hello(0);
pub(crate) const TLS_1_2: [u8; 47] = server_hello(3);
