//! Certificates and keys made to be expensive: what OpenSSL must refuse, or swallow at little cost.

use openssl::asn1::{Asn1Integer, Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, PKeyRef, Private, Public};
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509Extension, X509NameBuilder};
use std::path::PathBuf;
use tempfile::TempDir;

use super::{AES128_SHA, Owner, Script, Step, certificates, message};

/// A CA that the bridge trusts, and that signs bombs all the same.
pub struct Authority {
    key: PKey<Private>,
    /// Its certificate, in PEM.
    pub file: PathBuf,
    _folder: TempDir,
}

/// What a server says after its ServerHello.
pub struct Messages {
    suite: u16,
    steps: Vec<Step>,
    /// How many clients meet it at once.
    pub clients: usize,
}

/// So many clients meet an ordinary bomb at once.
const CLIENTS: usize = 8;

impl Messages {
    fn new(suite: u16, steps: Vec<Step>) -> Self {
        Self { suite, steps, clients: CLIENTS }
    }

    fn chain(chain: &[Vec<u8>]) -> Self {
        Self::new(AES128_SHA, vec![Step::Message(message::CERTIFICATE, certificates(chain))])
    }

    fn exchange(suite: u16, parameters: Vec<u8>) -> Self {
        Self::new(suite, vec![Step::Certificate(Vec::new()), Step::Exchange(parameters)])
    }

    /// The bomb in a handshake that goes on as if nothing were.
    pub fn script(&self, minor: u8) -> Script {
        let head = [Step::Hello, Step::ServerHello(self.suite)];
        let tail = [Step::Message(message::HELLO_DONE, Vec::new()), Step::Keys, Step::ChangeCipherSpec, Step::Finished];
        let steps = [&head[..], &self.steps, &tail, &[Step::Fin]].concat();
        Script { minor, steps, cut: None }
    }
}

/// DHE-RSA-AES128-SHA and ECDHE-RSA-AES128-SHA.
const DHE: u16 = 0x0033;
const ECDHE: u16 = 0xc013;

/// All bombs, by name. `limit` is the longest certificate message that the bridge reads.
pub fn all(authority: &Authority) -> Vec<(String, Messages)> {
    let mut all: Vec<(String, Messages)> = Vec::new();
    let mut add = |name: &str, messages: Messages| all.push((name.to_owned(), messages));
    let tiny = authority.leaf("x", &[]);
    add("a thousand certificates", Messages::chain(&vec![tiny.clone(); 1000]));
    add("as many certificates as are read", Messages::chain(&vec![tiny.clone(); LIMIT / (tiny.len() + 3)]));
    add("certificates of no length", Messages::chain(&vec![vec![]; LIMIT / 3 - 1]));
    add("a hundred thousand names", Messages::chain(&[authority.leaf("x", &[names(100_000)])]));
    add("as many names as are read", Messages::chain(&[authority.leaf("x", &[names(LIMIT / 5 - 300)])]));
    add("names and constraints", constrained(authority));
    add("policies", policies(authority));
    for bits in [4096, 16_384, 16_392, 65_536] {
        for exponent in [64, 2048, bits - 1] {
            add(
                &format!("RSA {bits}, exponent of {exponent} bits"),
                Messages::chain(&[rsa(authority, bits, exponent)]),
            );
        }
    }
    add("RSA 3072, exponent of 3071 bits", Messages::chain(&[rsa(authority, 3072, 3071)]));
    for depth in [100, 1000, 5000] {
        add(&format!("nested {depth} deep"), Messages::chain(&[nested(authority, depth)]));
        add(&format!("nothing but {depth} sequences"), Messages::chain(&[sequences(depth)]));
    }
    add("a subject of many parts", Messages::chain(&[subject(1500, false)]));
    add("a subject whose one part has many", Messages::chain(&[subject(1500, true)]));
    for x in 0..24 {
        add(&format!("a curve of its own, x = {x}"), Messages::chain(&[curve(x)]));
    }
    for bits in [1024, 4096, 8192, 10_000, 10_008, 32_768, 65_528] {
        let messages = Messages::exchange(DHE, dh(&prime_like(bits), &[2], &[5]));
        // One a version: eight would take the machine's processors for half a minute.
        let clients = if (8192..=10_000).contains(&bits) { 2 } else { CLIENTS };
        add(&format!("a Diffie-Hellman prime of {bits} bits"), Messages { clients, ..messages });
    }
    for (p, g, y) in [(&[0][..], &[2][..], &[2][..]), (&[1], &[1], &[1]), (&[], &[], &[]), (&[4], &[0], &[0])] {
        add(&format!("Diffie-Hellman with {p:?}, {g:?}, {y:?}"), Messages::exchange(DHE, dh(p, g, y)));
    }
    for parameters in [
        &[3, 0, 23, 0][..],
        &[3, 0, 23, 255, 4],
        &[3, 0, 23, 1, 0],
        &[3, 255, 255, 1, 4],
        &[1, 255, 255, 255],
        &[2, 255, 255],
        &[],
    ] {
        add(&format!("elliptic curve of {parameters:?}"), Messages::exchange(ECDHE, parameters.to_vec()));
    }
    let point = [&[3, 0, 23, 65, 4][..], &[0xff; 64]].concat();
    add("a point that is on no curve", Messages::exchange(ECDHE, point));
    let names = tlv(0x30, &[0; 60]).repeat(1000);
    let request = [&[1, 1][..], &(u16::try_from(names.len()).expect("below 64 KiB")).to_be_bytes(), &names].concat();
    add(
        "a request that names a thousand authorities",
        Messages::new(
            AES128_SHA,
            vec![Step::Certificate(Vec::new()), Step::Message(message::CERTIFICATE_REQUEST, request)],
        ),
    );
    all
}

/// The longest certificate message that the bridge reads (src/tls/offer.rs).
const LIMIT: usize = 32 << 10;

impl Authority {
    pub fn new() -> Self {
        let key = PKey::from_rsa(Rsa::generate(2048).expect("RSA")).expect("RSA");
        let folder = TempDir::with_prefix("ewsbridge-bombs-").expect("a folder");
        let file = folder.path().join("ca.pem");
        let basic = extension("2.5.29.19", &tlv(0x30, &[1, 1, 0xff]));
        let certificate = make("ca", "ca", &public(&key), &key, &[basic]);
        let pem = X509::from_der(&certificate).and_then(|one| one.to_pem()).expect("PEM");
        std::fs::write(&file, pem).expect("a file");
        Self { key, file, _folder: folder }
    }

    /// A server that it vouches for.
    pub fn owner(&self) -> Owner {
        Owner { certificate: self.leaf("127.0.0.1", &[]), key: self.key.clone() }
    }

    fn leaf(&self, name: &str, extensions: &[X509Extension]) -> Vec<u8> {
        make(name, "ca", &public(&self.key), &self.key, extensions)
    }
}

fn public(key: &PKeyRef<Private>) -> PKey<Public> {
    PKey::public_key_from_der(&key.public_key_to_der().expect("DER")).expect("a key")
}

/// A certificate of `subject` by `issuer`, whose key signs.
fn make(
    subject: &str,
    issuer: &str,
    key: &PKeyRef<Public>,
    signer: &PKeyRef<Private>,
    extensions: &[X509Extension],
) -> Vec<u8> {
    let name = |text: &str| {
        let mut name = X509NameBuilder::new().expect("a name");
        name.append_entry_by_text("CN", text).expect("a name");
        name.build()
    };
    let mut builder = X509::builder().expect("a certificate");
    builder.set_version(2).expect("version 3");
    builder.set_serial_number(&Asn1Integer::from_bn(&BigNum::from_u32(1).expect("1")).expect("1")).expect("1");
    builder.set_subject_name(&name(subject)).expect("a name");
    builder.set_issuer_name(&name(issuer)).expect("a name");
    builder.set_pubkey(key).expect("a key");
    builder.set_not_before(&Asn1Time::days_from_now(0).expect("a date")).expect("a date");
    builder.set_not_after(&Asn1Time::days_from_now(30).expect("a date")).expect("a date");
    for extension in extensions {
        builder.append_extension2(extension).expect("an extension");
    }
    builder.sign(signer, MessageDigest::sha256()).expect("a signature");
    builder.build().to_der().expect("DER")
}

fn extension(oid: &str, value: &[u8]) -> X509Extension {
    let oid = Asn1Object::from_str(oid).expect("an identifier");
    let value = Asn1OctetString::new_from_bytes(value).expect("bytes");
    X509Extension::new_from_der(&oid, false, &value).expect("an extension")
}

/// One element of DER.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let bytes = u32::try_from(length).expect("short enough").to_be_bytes();
    let head: &[u8] = match length {
        0..=0x7f => &bytes[3..],
        0x80..=0xff => &[0x81, bytes[3]],
        0x100..=0xffff => &[0x82, bytes[2], bytes[3]],
        _ => &[0x84, bytes[0], bytes[1], bytes[2], bytes[3]],
    };
    [&[tag], head, content].concat()
}

/// A subjectAltName of so many DNS names of three letters.
fn names(count: usize) -> X509Extension {
    let letter = |number: usize| b'a' + u8::try_from(number % 26).expect("a letter");
    let name = |number: usize| tlv(0x82, &[letter(number), b'.', letter(number / 26)]);
    extension("2.5.29.17", &tlv(0x30, &(0..count).flat_map(name).collect::<Vec<_>>()))
}

/// An intermediate that constrains thousands of names, and a leaf that has thousands.
fn constrained(authority: &Authority) -> Messages {
    let subtree = |number: usize| {
        let name = u16::try_from(number % 65_536).expect("16 bits");
        tlv(0x30, &tlv(0x82, format!("{name:x}").as_bytes()))
    };
    let subtrees: Vec<u8> = (0..1500).flat_map(subtree).collect();
    let constraints = extension("2.5.29.30", &tlv(0x30, &[tlv(0xa0, &subtrees), tlv(0xa1, &subtrees)].concat()));
    let basic = extension("2.5.29.19", &tlv(0x30, &[1, 1, 0xff]));
    let middle = make("middle", "ca", &public(&authority.key), &authority.key, &[basic, constraints]);
    let leaf = make("x", "middle", &public(&authority.key), &authority.key, &[names(1200)]);
    Messages::chain(&[leaf, middle])
}

/// A chain in which each policy maps to every policy below (CVE-2023-0464's kind).
fn policies(authority: &Authority) -> Messages {
    let oid = |number: u8| tlv(6, &[0x2a, 3, number]);
    let policies = tlv(0x30, &(0..12).flat_map(|number| tlv(0x30, &oid(number))).collect::<Vec<_>>());
    let pairs = (0..144).flat_map(|pair| tlv(0x30, &[oid(pair / 12), oid(pair % 12)].concat()));
    let mappings = tlv(0x30, &pairs.collect::<Vec<_>>());
    let key = public(&authority.key);
    let mut chain = Vec::new();
    for level in (0..8_u8).rev() {
        let issuer = if level == 0 { "ca".to_owned() } else { format!("p{}", level - 1) };
        let basic = extension("2.5.29.19", &tlv(0x30, &[1, 1, 0xff]));
        let more = [basic, extension("2.5.29.32", &policies), extension("2.5.29.33", &mappings)];
        chain.push(make(&format!("p{level}"), &issuer, &key, &authority.key, &more));
    }
    chain.insert(0, make("x", "p7", &key, &authority.key, &[extension("2.5.29.32", &policies)]));
    Messages::chain(&chain)
}

/// An RSA key that nobody has the private half of.
fn rsa(authority: &Authority, bits: i32, exponent: i32) -> Vec<u8> {
    let odd = |bits: i32| {
        let mut number = BigNum::new().expect("a number");
        number.rand(bits, MsbOption::TWO_ONES, true).expect("a number");
        number
    };
    let key = Rsa::from_public_components(odd(bits), odd(exponent)).expect("a key");
    make("x", "ca", &PKey::from_rsa(key).expect("a key"), &authority.key, &[])
}

/// Sequences in sequences, in a name that has a form of its own.
fn nested(authority: &Authority, depth: usize) -> Vec<u8> {
    let other = tlv(0xa0, &[tlv(6, &[0x2a, 3, 4]), tlv(0xa0, &sequences(depth))].concat());
    authority.leaf("x", &[extension("2.5.29.17", &tlv(0x30, &other))])
}

fn sequences(depth: usize) -> Vec<u8> {
    (0..depth).fold(vec![5, 0], |inner, _| tlv(0x30, &inner))
}

/// A certificate whose subject has many parts, or one part of many; its signature is none.
fn subject(count: usize, in_one: bool) -> Vec<u8> {
    let part = |number: usize| tlv(0x30, &[tlv(6, &[0x55, 4, 3]), tlv(12, format!("{number:x}").as_bytes())].concat());
    let parts: Vec<u8> = match in_one {
        true => tlv(0x31, &(0..count).flat_map(part).collect::<Vec<_>>()),
        false => (0..count).flat_map(|number| tlv(0x31, &part(number))).collect(),
    };
    let p256 =
        [tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]), tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7])].concat();
    bare(&tlv(0x30, &parts), &tlv(0x30, &p256), &[4; 65])
}

/// A key on a curve that it brings along, over a modulus that is no prime (17 times 41), with a
/// generator of which only half is said (CVE-2022-0778's kind).
fn curve(x: u8) -> Vec<u8> {
    let integer = |bytes: &[u8]| tlv(2, bytes);
    let field = tlv(0x30, &[tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 1, 1]), integer(&[2, 0xb9])].concat());
    let coefficients = tlv(0x30, &[tlv(4, &[0, 1]), tlv(4, &[0, 3 + x])].concat());
    let parameters = [integer(&[1]), field, coefficients, tlv(4, &[2, 0, x]), integer(&[2, 0xb9]), integer(&[1])];
    let algorithm = [tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]), tlv(0x30, &parameters.concat())].concat();
    bare(&tlv(0x30, &[]), &tlv(0x30, &algorithm), &[3, 0, x])
}

/// A certificate put together by hand.
fn bare(subject: &[u8], algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let ecdsa = tlv(0x30, &tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]));
    let bits = |bytes: &[u8]| tlv(3, &[&[0], bytes].concat());
    let dates = tlv(0x30, &[tlv(23, b"200101000000Z"), tlv(23, b"491231235959Z")].concat());
    let body = [
        &tlv(0xa0, &[2, 1, 2])[..],
        &tlv(2, &[1]),
        &ecdsa,
        &tlv(0x30, &[]),
        &dates,
        subject,
        &tlv(0x30, &[algorithm, &bits(key)].concat()),
    ];
    tlv(0x30, &[tlv(0x30, &body.concat()), ecdsa, bits(&tlv(0x30, &[2, 1, 1, 2, 1, 1]))].concat())
}

/// An odd number with its highest bits set.
fn prime_like(bits: usize) -> Vec<u8> {
    let mut bytes = vec![0x5b; bits / 8];
    bytes[0] = 0xff;
    bytes
}

fn dh(p: &[u8], g: &[u8], y: &[u8]) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).expect("below 64 KiB").to_be_bytes()[..], bytes].concat();
    [sized(p), sized(g), sized(y)].concat()
}
