//! Certificates of the target's that are refused.

use openssl::hash::MessageDigest;
use openssl::x509::X509;

use crate::common::{Issued, Spec, TcpTarget, Tuned, sha256};
use crate::row::{Row, SYSTEM, Server, Then, World};

/// The faults of one row: what is issued, by whom, and what the server sends of it.
struct Chain<'a> {
    leaf: Spec<'a>,
    intermediate: Option<Spec<'a>>,
    /// Whether the server sends the intermediate.
    sends_it: bool,
    /// How often it sends its own certificate.
    times: usize,
}

const GOOD: Chain<'static> = Chain { leaf: Spec::GOOD, intermediate: None, sends_it: true, times: 1 };
const INTERMEDIATE: Spec<'static> = Spec { subject: "The corp's intermediate", ..Spec::AUTHORITY };

/// Shows a certificate of an authority `{ca}` of its own, whose end is `{until}` and its beginning `{from}`.
fn showing(world: &World, chain: &Chain<'_>) -> Server {
    let root = Issued::by(None, &Spec::AUTHORITY);
    let intermediate = chain.intermediate.map(|spec| Issued::by(Some(&root), &spec));
    let leaf = Issued::by(intermediate.as_ref().or(Some(&root)), &chain.leaf);
    let name = sha256(&leaf.certificate.to_der().unwrap());
    let (ca, _) = root.store(world.pki.dir(), &name[..8]);
    let server = serve(world, &leaf, chain, intermediate.as_ref().filter(|_| chain.sends_it)).word("ca", ca.display());
    match intermediate {
        Some(intermediate) => server.word("between", intermediate.store(world.pki.dir(), &name[..9]).0.display()),
        None => server,
    }
}

fn serve(world: &World, leaf: &Issued, chain: &Chain<'_>, intermediate: Option<&Issued>) -> Server {
    let mut sent: Vec<X509> = vec![leaf.certificate.clone(); chain.times];
    sent.extend(intermediate.map(|authority| authority.certificate.clone()));
    let server = Tuned::serve(&sent, &leaf.key, |_| ());
    let day = |from_now: i64| (time::OffsetDateTime::now_utc() + time::Duration::days(from_now)).date();
    let pin = format!("sha256:{}", sha256(&leaf.certificate.to_der().unwrap()));
    let server = Server::new(server, &world.certificate).word("pin", pin);
    server.word("from", day(chain.leaf.days.0)).word("until", day(chain.leaf.days.1))
}

fn good(world: &World) -> Server {
    showing(world, &GOOD)
}

fn self_signed(world: &World) -> Server {
    let leaf = Issued::by(None, &Spec::GOOD);
    let name = sha256(&leaf.certificate.to_der().unwrap());
    let (file, _) = leaf.store(world.pki.dir(), &name[..8]);
    serve(world, &leaf, &GOOD, None).word("file", file.display())
}

fn leaf(world: &World, leaf: Spec<'_>) -> Server {
    showing(world, &Chain { leaf, ..GOOD })
}

fn under(world: &World, intermediate: Spec<'_>, sends_it: bool) -> Server {
    showing(world, &Chain { intermediate: Some(intermediate), sends_it, ..GOOD })
}

/// Another certificate than the one that was pinned.
fn replaced(world: &World) -> Server {
    let before = world.certificate.pin();
    self_signed(world).word("before", before)
}

/// A ServerHello of TLS 1.0, then a certificate message whose certificate is no DER.
fn unreadable(world: &World) -> Server {
    Server::new(TcpTarget::answering(&UNREADABLE), &world.certificate)
}

const UNREADABLE: [u8; 47 + 18] = {
    let mut bytes = [0; 47 + 18];
    let hello = [22, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1];
    let message = [22, 3, 1, 0, 13, 11, 0, 0, 9, 0, 0, 6, 0, 0, 3, 1, 2, 3];
    let mut at = 0;
    while at < message.len() {
        if at < hello.len() {
            bytes[at] = hello[at];
        }
        bytes[47 + at] = message[at];
        at += 1;
    }
    bytes[45] = 0x2f;
    bytes
};

const GIVE: Then = Then::Give(&[]);
const BY_CA: &[&str] = &["--ca", "{ca}"];
const PIN_OR_CA: &str = "compare it, then --pin {pin}; or give its authority: --ca FILE";
const PIN_OR_OTHER_CA: &str = "compare it, then --pin {pin} in place of --ca; or give its authority: --ca FILE";
const PIN: &str = "compare it, then --pin {pin} in place of --ca";

pub(crate) const ROWS: &[Row] = &[
    Row {
        what: "self-signed, pinned",
        server: self_signed,
        flags: &[SYSTEM],
        told: "certificate: self-signed, not trusted",
        hint: PIN_OR_CA,
        then: Then::Choose(0, &[]),
    },
    Row {
        what: "self-signed, with a weak key and much else",
        server: |world| {
            let leaf = Issued::by(
                None,
                &Spec { bits: 1024, digest: MessageDigest::sha1, days: (-9, -1), names: &["EXCH1"], ..Spec::GOOD },
            );
            serve(world, &leaf, &GOOD, None)
        },
        flags: &[SYSTEM],
        told: "certificate: self-signed, not trusted",
        hint: PIN_OR_CA,
        then: Then::Choose(0, &[]),
    },
    Row {
        what: "self-signed, as its own authority",
        server: self_signed,
        flags: &[SYSTEM],
        told: "certificate: self-signed, not trusted",
        hint: PIN_OR_CA,
        then: Then::Choose(1, &[("FILE", "{file}")]),
    },
    Row {
        what: "a private authority, given",
        server: good,
        flags: &[SYSTEM],
        told: "certificate: issued by CN=The corp's root, which nothing here trusts",
        hint: PIN_OR_CA,
        then: Then::Choose(1, &[("FILE", "{ca}")]),
    },
    Row {
        what: "an intermediate that is not sent, given in place of the root",
        server: |world| under(world, INTERMEDIATE, false),
        flags: BY_CA,
        told: "certificate: issued by CN=The corp's intermediate, which nothing here trusts",
        hint: PIN_OR_OTHER_CA,
        then: Then::Choose(1, &[("FILE", "{between}")]),
    },
    Row {
        what: "an intermediate that is not sent, pinned",
        server: |world| under(world, INTERMEDIATE, false),
        flags: BY_CA,
        told: "certificate: issued by CN=The corp's intermediate, which nothing here trusts",
        hint: PIN_OR_OTHER_CA,
        then: Then::Choose(0, &[]),
    },
    Row {
        what: "another certificate than the pinned one",
        server: replaced,
        flags: &["--pin", "{before}"],
        told: "certificate: is not the pinned one; the server shows {pin}",
        hint: "compare it, then --pin {pin} in place of the other",
        then: GIVE,
    },
    Row {
        what: "expired",
        server: |world| leaf(world, Spec { days: (-9, -1), ..Spec::GOOD }),
        flags: BY_CA,
        told: "certificate: CN=exchange expired on {until}",
        hint: "--accept expired",
        then: GIVE,
    },
    Row {
        what: "not yet valid",
        server: |world| leaf(world, Spec { days: (2, 9), ..Spec::GOOD }),
        flags: BY_CA,
        told: "certificate: CN=exchange is not valid before {from}; is this machine's clock right?",
        hint: PIN,
        then: GIVE,
    },
    Row {
        what: "another name, verified",
        server: |world| leaf(world, Spec { names: &["exch1.corp.local"], ..Spec::GOOD }),
        flags: BY_CA,
        told: "certificate: it is made out for exch1.corp.local, not for 127.0.0.1",
        hint: "if exch1.corp.local is its right name: --server-name exch1.corp.local; else: --accept wrong-name",
        then: Then::Choose(0, &[]),
    },
    Row {
        what: "another name, accepted",
        server: |world| leaf(world, Spec { names: &["exch1.corp.local"], ..Spec::GOOD }),
        flags: BY_CA,
        told: "certificate: it is made out for exch1.corp.local, not for 127.0.0.1",
        hint: "if exch1.corp.local is its right name: --server-name exch1.corp.local; else: --accept wrong-name",
        then: Then::Choose(1, &[]),
    },
    Row {
        what: "its address in the common name alone",
        server: |world| leaf(world, Spec { subject: "127.0.0.1", names: &[], ..Spec::GOOD }),
        flags: BY_CA,
        told: "certificate: 127.0.0.1 stands only in its common name, not among its addresses",
        hint: "--accept ip-in-cn",
        then: GIVE,
    },
    Row {
        what: "signed with SHA-1",
        server: |world| leaf(world, Spec { digest: MessageDigest::sha1, ..Spec::GOOD }),
        flags: BY_CA,
        told: "certificate: CN=exchange is signed with SHA-1",
        hint: "--accept sha1",
        then: GIVE,
    },
    Row {
        what: "an intermediate signed with SHA-1",
        server: |world| under(world, Spec { digest: MessageDigest::sha1, ..INTERMEDIATE }, true),
        flags: BY_CA,
        told: "certificate: CN=The corp's intermediate is signed with SHA-1",
        hint: "--accept sha1",
        then: GIVE,
    },
    Row {
        what: "signed with MD5",
        server: |world| leaf(world, Spec { digest: MessageDigest::md5, ..Spec::GOOD }),
        flags: BY_CA,
        told: "certificate: CN=exchange is signed with MD5, which anybody can forge",
        hint: PIN,
        then: GIVE,
    },
    Row {
        what: "RSA with 1024 bits",
        server: |world| leaf(world, Spec { bits: 1024, ..Spec::GOOD }),
        flags: BY_CA,
        told: "certificate: CN=exchange has a weak key, RSA 1024",
        hint: "--accept rsa1024",
        then: GIVE,
    },
    Row {
        what: "RSA with 768 bits",
        server: |world| leaf(world, Spec { bits: 768, ..Spec::GOOD }),
        flags: BY_CA,
        told: "certificate: CN=exchange has a key that can be broken, RSA 768",
        hint: PIN,
        then: GIVE,
    },
    Row {
        what: "all that an old Exchange may have at once",
        server: |world| {
            let old = Spec { bits: 1024, digest: MessageDigest::sha1, days: (-9, -1), names: &["EXCH1"], ..Spec::GOOD };
            leaf(world, old)
        },
        flags: BY_CA,
        told: "certificate: CN=exchange has a weak key, RSA 1024; CN=exchange is signed with SHA-1; it is made out for EXCH1, not for 127.0.0.1; CN=exchange expired on {until}",
        hint: "--accept sha1,rsa1024,expired,wrong-name",
        then: GIVE,
    },
    Row {
        what: "one fault more than is accepted",
        server: |world| leaf(world, Spec { digest: MessageDigest::sha1, days: (-9, -1), ..Spec::GOOD }),
        flags: &["--ca", "{ca}", "--accept", "sha1"],
        told: "certificate: CN=exchange expired on {until}",
        hint: "--accept sha1,expired",
        then: GIVE,
    },
    Row {
        what: "a fault that can be accepted, and one that can't",
        server: |world| leaf(world, Spec { bits: 1024, digest: MessageDigest::md5, ..Spec::GOOD }),
        flags: BY_CA,
        told: "certificate: CN=exchange is signed with MD5, which anybody can forge",
        hint: PIN,
        then: GIVE,
    },
    Row {
        what: "two faults, of which one can't be accepted",
        server: |world| leaf(world, Spec { digest: MessageDigest::sha1, days: (2, 9), ..Spec::GOOD }),
        flags: BY_CA,
        told: "certificate: CN=exchange is signed with SHA-1; CN=exchange is not valid before {from}; is this machine's clock right?",
        hint: PIN,
        then: GIVE,
    },
    Row {
        what: "made for clients alone",
        server: |world| leaf(world, Spec { for_clients: true, ..Spec::GOOD }),
        flags: BY_CA,
        told: "certificate: CN=exchange is not made for servers (extended key usage)",
        hint: PIN,
        then: GIVE,
    },
    Row {
        what: "issued by what may not issue",
        server: |world| under(world, Spec { issues: false, ..INTERMEDIATE }, true),
        flags: BY_CA,
        told: "certificate: CN=The corp's intermediate may not issue certificates (CA:FALSE)",
        hint: PIN,
        then: GIVE,
    },
    Row {
        what: "a critical extension that nobody knows",
        server: |world| leaf(world, Spec { odd: true, ..Spec::GOOD }),
        flags: BY_CA,
        told: "certificate: CN=exchange has a critical extension that OpenSSL does not know",
        hint: PIN,
        then: GIVE,
    },
    Row {
        what: "a chain longer than is read",
        server: |world| showing(world, &Chain { times: 60, ..GOOD }),
        flags: &["--pin", "{pin}"],
        told: "TLS handshake: the server sends a longer message than is read, 32 KiB of certificates (openssl 0A000098 excessive message size)",
        hint: "let the server send its own certificate and its intermediates, and no others",
        then: Then::Mend(good),
    },
    Row {
        what: "a certificate that can't be read",
        server: unreadable,
        flags: &["--insecure", "--allow-weak=no-rfc5746"],
        told: "TLS handshake: the server's certificate can't be read (openssl 0A08000D ASN1 lib)",
        hint: "have the server's certificate issued anew",
        then: Then::Mend(good),
    },
];
