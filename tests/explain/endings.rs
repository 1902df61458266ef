//! Names, connections that end or fall silent, client certificates, breaches of the protocol.

use std::time::Duration;

use crate::common::{Act, End, Spec};
use crate::row::{Row, Then};
use crate::servers::*;

const SEARCH: &str = "--outbound auto";
const GIVE: Then = Then::Give(&[]);
const SHORT: &str = "700ms";
const OWN_LOG: &str = "the server's own log has the cause, if its port speaks TLS and lets this machine in (Windows: event log, System, Schannel)";
const NAME_OR_LOG: &str = "if the server serves by name: --server-name NAME; else: the server's own log has the cause, if its port speaks TLS and lets this machine in (Windows: event log, System, Schannel)";

macro_rules! tried {
    ($told:literal) => {
        concat!($told, "; tried TLS 1.2, 1.1, 1.0, with and without extensions, with AES, DHE, 3DES, RC4")
    };
}

pub(crate) const ROWS: &[Row] = &[
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
