//! Alerts of every number at every step of a handshake.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use openssl::ssl::SslVerifyMode;

use crate::common::{Act, Bridge, End, Pki, TIMEOUT, Tuned, client_hello, gate};

/// Where a connection ends, and what that is called.
type Step = (fn(End) -> Act, &'static str);

const STEPS: [Step; 3] = [
    (Act::AtHello, "at our ClientHello"),
    (Act::AfterTheirs, "in mid-handshake, after its ServerHello"),
    (Act::AfterOurs, "in mid-handshake, after our key exchange"),
];

/// What the log must say of an alert.
fn expected(step: usize, number: u8, asks: bool) -> Vec<String> {
    let code = format!("(openssl 0A000{:03X} ", 1000 + u16::from(number));
    let when = STEPS[step].1;
    let about_certificates = [40, 41, 42, 43, 44, 45, 46, 48, 49, 116].contains(&number);
    let cause = match (step, number) {
        (2, 0) if asks => {
            "demands a client certificate, and none is set; the server closed the connection (close_notify)"
        }
        (2, _) if asks && about_certificates => "demands a client certificate, and none is set",
        (_, 0) => return vec![format!("the server closed the connection (close_notify) {when}"), SEARCH.to_owned()],
        (0, 70) => "speaks none of TLS 1.0 to 1.2",
        (0, 40 | 71) => "refused what we offered",
        (_, 112) => {
            return vec!["wants to be told the name of its site".to_owned(), code, "hint=\"--sni NAME\"".to_owned()];
        }
        (_, 80) => "reports an error of its own",
        _ => return vec![format!("gave up {when}"), code, SEARCH.to_owned()],
    };
    let demanded = cause.starts_with("demands");
    let hint = if demanded { "hint=\"--auth-cert FILE --auth-key FILE\"" } else { SEARCH };
    let code = if number == 0 { when.to_owned() } else { code };
    vec![cause.to_owned(), code, hint.to_owned()]
}

const SEARCH: &str = "hint=\"--outbound auto\"";

/// A server that says every alert at every step, one a connection.
pub(crate) fn every_one_is_explained(asks: bool) {
    let certificate = Pki::new().server();
    let behind = Tuned::serve(&certificate.chain, &certificate.key, |context| {
        if asks {
            context.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
        }
    });
    let turn = Arc::new(AtomicU16::new(0));
    let next = Arc::clone(&turn);
    let target = gate(&behind, move |_| {
        let turn = next.load(Ordering::SeqCst);
        let number = u8::try_from(turn % 256).unwrap();
        STEPS[usize::from(turn / 256)].0(End::Alerts(number))
    });
    let bridge = Bridge::to(&target).pin(&certificate).start();
    for step in 0..STEPS.len() {
        for number in 0..=u8::MAX {
            turn.store(u16::try_from(step).unwrap() * 256 + u16::from(number), Ordering::SeqCst);
            let answer = answer(&bridge);
            let nth = step * 256 + usize::from(number);
            let line = bridge.nth_log(&["TLS handshake: "], nth);
            assert_eq!(answer, [21, 3, 3, 0, 2, 2, 40], "step {step}, alert {number}: {line}");
            for text in expected(step, number, asks) {
                assert!(line.contains(&text), "step {step}, alert {number}: no {text:?} in: {line}");
            }
        }
    }
}

fn answer(bridge: &Bridge) -> Vec<u8> {
    let mut tcp = TcpStream::connect(bridge.address()).unwrap();
    tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
    tcp.write_all(&client_hello()).unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).unwrap();
    answer
}
