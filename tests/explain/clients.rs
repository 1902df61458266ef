//! Clients that do not come through their handshake, and what helps them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::common::{Bridge, Child, Pki, Tuned, client_hello, s_client};

/// A client that fails, and the same one helped.
pub(crate) struct Client {
    pub(crate) what: &'static str,
    /// The bridge's flags.
    flags: &'static [&'static str],
    fails: fn(&Bridge, &Pki),
    /// The log's text after the client's address.
    pub(crate) told: &'static str,
    pub(crate) hint: &'static str,
    /// More flags of the bridge, as the hint says.
    more: &'static [&'static str],
    works: Option<fn(&Bridge)>,
}

const AUTHORITY: &str = "give it the authority that was printed at the start, or that of --cert";

pub(crate) const CLIENTS: &[Client] = &[
    Client {
        what: "a client of TLS 1.1",
        flags: &[],
        fails: |bridge, _| refused(bridge, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]),
        told: "ClientHello: it speaks nothing newer than TLS 1.1",
        hint: "the client must speak TLS 1.2 or newer",
        more: &[],
        works: Some(|bridge| served(bridge, &["-tls1_2"])),
    },
    Client {
        what: "a client without a safe cipher",
        flags: &[],
        fails: |bridge, _| refused(bridge, &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA"]),
        told: "ClientHello: it offers no cipher that is still safe: AES-GCM or ChaCha20 with ECDHE (rustls peer is incompatible: NoCipherSuitesInCommon)",
        hint: "allow such a cipher on the client",
        more: &[],
        works: Some(|bridge| served(bridge, &["-tls1_2", "-cipher", "ECDHE+AESGCM"])),
    },
    Client {
        what: "a client without ECDHE",
        flags: &[],
        fails: |bridge, _| refused(bridge, &["-tls1_2", "-cipher", "AES128-SHA"]),
        told: "ClientHello: it offers no key exchange that is still safe: ECDHE with X25519, P-256 or P-384 (rustls peer is incompatible: NoKxGroupsInCommon)",
        hint: "allow ECDHE with one of these groups on the client",
        more: &[],
        works: Some(|bridge| served(bridge, &["-tls1_2", "-cipher", "ECDHE+AESGCM"])),
    },
    Client {
        what: "a client of other groups",
        flags: &[],
        fails: |bridge, _| refused(bridge, &["-tls1_3", "-groups", "X448"]),
        told: "ClientHello: it offers no key exchange that is still safe: ECDHE with X25519, P-256 or P-384 (rustls peer is incompatible: NoKxGroupsInCommon)",
        hint: "allow ECDHE with one of these groups on the client",
        more: &[],
        works: Some(|bridge| served(bridge, &["-tls1_3", "-groups", "P-256"])),
    },
    Client {
        what: "a client that does not know our authority",
        flags: &[],
        fails: |bridge, pki| refused(bridge, &trusting(&pki.ca_file())),
        told: "TLS handshake: it does not know the authority of our certificate (rustls received fatal alert: UnknownCA)",
        hint: AUTHORITY,
        more: &[],
        works: Some(|bridge| served(bridge, &trusting(&bridge.ca_file()))),
    },
    Client {
        what: "a client that calls us by another name",
        flags: &[],
        fails: |bridge, _| {
            refused(bridge, &[&trusting(&bridge.ca_file())[..], &["-verify_hostname", "bridge.example"]].concat());
        },
        told: "TLS handshake: it does not accept our certificate (rustls received fatal alert: BadCertificate)",
        hint: "if it does not trust our CA: give it the authority that was printed at the start, or that of --cert; if it calls us by a name that our certificate lacks: --san NAME",
        more: &["--san", "bridge.example"],
        works: Some(|bridge| {
            served(bridge, &[&trusting(&bridge.ca_file())[..], &["-verify_hostname", "bridge.example"]].concat());
        }),
    },
    Client {
        what: "a client whose clock is years ahead",
        flags: &[],
        fails: |bridge, _| {
            let mut command = Command::new("faketime");
            command.args(["+9000 days", "openssl", "s_client", "-connect", &bridge.address().to_string()]);
            command.args(trusting(&bridge.ca_file()));
            Child::spawn(&mut command).wait();
        },
        told: "TLS handshake: our certificate has expired by its clock (rustls received fatal alert: CertificateExpired)",
        hint: "compare the clocks of both machines (date)",
        more: &[],
        works: Some(|bridge| served(bridge, &trusting(&bridge.ca_file()))),
    },
    Client {
        what: "a load balancer that sends no PROXY header",
        flags: &["--set", "proxy_from=127.0.0.1"],
        fails: |bridge, _| refused(bridge, &[]),
        told: "PROXY header: it is missing, and proxy_from demands it of this address",
        hint: "let the load balancer send it (HAProxy: send-proxy-v2; nginx: proxy_protocol on); clients must not come from a network of proxy_from",
        more: &[],
        works: Some(is_answered_behind_a_header),
    },
    Client {
        what: "a load balancer that nobody knows",
        flags: &[],
        fails: |bridge, _| says(bridge, &[PROXY_HEADER, &client_hello()].concat()),
        told: "PROXY header: proxy_from does not name this address, so its PROXY header is not believed",
        hint: "if it is a load balancer of yours: --set proxy_from=127.0.0.1",
        more: &["--set", "proxy_from=127.0.0.1"],
        works: Some(is_answered_behind_a_header),
    },
    Client {
        what: "plain HTTP",
        flags: &["--verbose"],
        fails: |bridge, _| says(bridge, b"GET /EWS/Exchange.asmx HTTP/1.1\r\nHost: bridge\r\n\r\n"),
        told: "ClientHello: it speaks plain HTTP, not TLS",
        hint: "let its URL begin with https://",
        more: &[],
        works: Some(|bridge| served(bridge, &[])),
    },
    Client {
        what: "garbage",
        flags: &["--verbose"],
        fails: |bridge, _| says(bridge, b"\x03\x00\x00\x0b\x06\xd0\x00\x00\x00\x00\x00"),
        told: "ClientHello: what it sent is not TLS (rustls received corrupt message of type InvalidContentType)",
        hint: "",
        more: &[],
        works: None,
    },
    Client {
        what: "a client that leaves at once",
        flags: &["--verbose"],
        fails: |bridge, _| drop(TcpStream::connect(bridge.address()).unwrap()),
        told: "ClientHello: the client left before its ClientHello was complete",
        hint: "",
        more: &[],
        works: None,
    },
    Client {
        what: "a client that says nothing",
        flags: &["--verbose", "--hello-timeout", "300ms"],
        fails: |bridge, _| says(bridge, &client_hello()[..20]),
        told: "ClientHello: not finished within 300ms",
        hint: "",
        more: &[],
        works: None,
    },
];

fn trusting(ca: &Path) -> Vec<&'static str> {
    // A test is short and a path is too.
    let ca: &'static str = Box::leak(ca.display().to_string().into_boxed_str());
    vec!["-CAfile", ca, "-verify_return_error"]
}

fn refused(bridge: &Bridge, arguments: &[&str]) {
    let (code, text) = s_client(bridge.address(), arguments, "");
    assert_ne!(code, 0, "{text}");
}

fn served(bridge: &Bridge, arguments: &[&str]) {
    // The server sends back what it gets, and ends when the client does.
    let address = bridge.address().to_string();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address]).args(arguments);
    let mut child = Child::spawn(&mut command);
    child.end_input();
    let status = child.wait();
    assert!(status.success(), "{}", child.all_at_end());
}

fn says(bridge: &Bridge, bytes: &[u8]) {
    let mut tcp = TcpStream::connect(bridge.address()).unwrap();
    tcp.write_all(bytes).unwrap();
    let _ = tcp.read_to_end(&mut Vec::new());
}

const PROXY_HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.2 51812 443\r\n";

/// A ServerHello comes.
fn is_answered_behind_a_header(bridge: &Bridge) {
    let mut tcp = TcpStream::connect(bridge.address()).unwrap();
    tcp.write_all(&[PROXY_HEADER, &client_hello()].concat()).unwrap();
    let mut first = [0; 6];
    tcp.read_exact(&mut first).unwrap();
    assert_eq!((first[0], first[5]), (22, 2), "{first:?}");
}

impl Client {
    pub(crate) fn check(&self) {
        let pki = Pki::new();
        let certificate = pki.server();
        let target = Tuned::serve(&certificate.chain, &certificate.key, |_| ());
        let bridge = Bridge::to(&target).pin(&certificate).args(self.flags).start();
        (self.fails)(&bridge, &pki);
        let line = bridge.wait_for_log(&[" client 127.0.0.1:"]).line;
        let told = line.split(" client 127.0.0.1:").nth(1).unwrap().split_once(": ").unwrap().1;
        let (told, rest) = told.split_once(" forwarder=run").unwrap();
        let hint = rest.split_once(" hint=\"").map_or("", |(_, hint)| hint.trim_end_matches('"'));
        assert_eq!((told, hint), (self.told, self.hint), "{}", self.what);
        let Some(works) = self.works else { return };
        let bridge = Bridge::to(&target).pin(&certificate).args(self.flags).args(self.more).start();
        works(&bridge);
    }
}
