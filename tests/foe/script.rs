//! What a hostile server does on one connection: a list of steps, an ordinary handshake to begin with.
//!
//! Every step has a form in bytes, so that scripts can lie in files and be mutated there; any bytes
//! are some script.

use super::keys::AES128_SHA;

/// Handshake messages (RFC 5246 §7.4).
pub mod message {
    pub const HELLO_REQUEST: u8 = 0;
    pub const SERVER_HELLO: u8 = 2;
    pub const CERTIFICATE: u8 = 11;
    pub const KEY_EXCHANGE: u8 = 12;
    pub const CERTIFICATE_REQUEST: u8 = 13;
    pub const HELLO_DONE: u8 = 14;
    pub const FINISHED: u8 = 20;
}

/// Records (RFC 5246 §6.2.1).
pub mod record {
    pub const CHANGE_CIPHER_SPEC: u8 = 20;
    pub const ALERT: u8 = 21;
    pub const HANDSHAKE: u8 = 22;
    pub const DATA: u8 = 23;
}

/// What the target has to say: all that a client may ever see.
pub const WORDS: &[u8] = b"these are the target's own words and no others;";

/// One thing that a server does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Waits for a ClientHello.
    Hello,
    /// A ServerHello with this suite, bound to the connection as RFC 5746 wants it.
    ServerHello(u16),
    /// A certificate message with this certificate alone; without bytes, the server's own.
    Certificate(Vec<u8>),
    /// A key exchange with these parameters and the server's signature of them.
    Exchange(Vec<u8>),
    /// A handshake message, counted into the Finished.
    Message(u8, Vec<u8>),
    /// Waits for the client's key exchange and Finished.
    Keys,
    /// ChangeCipherSpec; what follows is encrypted.
    ChangeCipherSpec,
    /// The right Finished.
    Finished,
    /// [`WORDS`].
    Words,
    /// Waits for something from the client.
    Listen,
    /// A record of this kind, encrypted where it has to be.
    Record(u8, Vec<u8>),
    /// Bytes as they are.
    Wire(Vec<u8>),
    /// The same record for ever.
    Flood(u8, Vec<u8>),
    /// The same bytes for ever.
    Spate(Vec<u8>),
    /// Says nothing more, and waits for the client to end.
    Hold,
    /// Ends TCP.
    Fin,
    /// Tears TCP down.
    Reset,
}

/// A server's doings on one connection, and its version: `minor` is 1 for TLS 1.0, 3 for TLS 1.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    pub minor: u8,
    pub steps: Vec<Step>,
    /// After so many bytes in all the server does this last thing, wherever it is.
    pub cut: Option<(usize, Cut)>,
}

/// How a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Fin,
    Reset,
    Silence,
}

impl Script {
    /// An ordinary connection: handshake, an answer, the end.
    pub fn good(minor: u8) -> Self {
        let steps = vec![
            Step::Hello,
            Step::ServerHello(AES128_SHA),
            Step::Certificate(Vec::new()),
            Step::Message(message::HELLO_DONE, Vec::new()),
            Step::Keys,
            Step::ChangeCipherSpec,
            Step::Finished,
            Step::Listen,
            Step::Words,
            Step::Record(record::ALERT, vec![1, 0]),
            Step::Fin,
        ];
        Self { minor, steps, cut: None }
    }

    /// The first `count` steps of [`Script::good`] and then these.
    pub fn then(minor: u8, count: usize, steps: &[Step]) -> Self {
        let mut script = Self::good(minor);
        script.steps.truncate(count);
        script.steps.extend_from_slice(steps);
        script
    }

    /// [`Script::good`] with something more after `count` steps.
    pub fn with(minor: u8, count: usize, steps: &[Step]) -> Self {
        let mut script = Self::good(minor);
        script.steps.splice(count..count, steps.iter().cloned());
        script
    }

    /// The same, cut after so many bytes.
    pub fn cut(mut self, after: usize, how: Cut) -> Self {
        self.cut = Some((after, how));
        self
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.minor];
        for step in &self.steps {
            let (code, mut payload) = step.parts();
            payload.truncate(usize::from(u16::MAX));
            bytes.push(code);
            bytes.extend(u16::try_from(payload.len()).expect("truncated").to_be_bytes());
            bytes.extend(payload);
        }
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (first, mut rest) = bytes.split_first().unwrap_or((&1, &[]));
        let mut steps = Vec::new();
        while let [code, high, low, after @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
            let (payload, next) = after.split_at(length);
            steps.push(Step::from_parts(*code, payload.to_vec()));
            rest = next;
        }
        Self { minor: 1 + (first & 0x0f).wrapping_sub(1) % 3, steps, cut: None }
    }
}

impl Step {
    /// A number for the kind of step, and what belongs to it. No floods: those have no end.
    fn parts(&self) -> (u8, Vec<u8>) {
        let with = |kind: u8, payload: &[u8]| [&[kind], payload].concat();
        match self {
            Self::Hello => (0, Vec::new()),
            Self::ServerHello(suite) => (1, suite.to_be_bytes().to_vec()),
            Self::Certificate(der) => (2, der.clone()),
            Self::Exchange(parameters) => (3, parameters.clone()),
            Self::Message(kind, body) => (4, with(*kind, body)),
            Self::Keys => (5, Vec::new()),
            Self::ChangeCipherSpec => (6, Vec::new()),
            Self::Finished => (7, Vec::new()),
            Self::Words => (8, Vec::new()),
            Self::Listen => (9, Vec::new()),
            Self::Record(kind, payload) | Self::Flood(kind, payload) => (10, with(*kind, payload)),
            Self::Wire(bytes) | Self::Spate(bytes) => (11, bytes.clone()),
            Self::Hold | Self::Fin => (12, Vec::new()),
            Self::Reset => (13, Vec::new()),
        }
    }

    fn from_parts(code: u8, mut payload: Vec<u8>) -> Self {
        let kind = |payload: &mut Vec<u8>| if payload.is_empty() { 0 } else { payload.remove(0) };
        match code % 14 {
            0 => Self::Hello,
            1 => Self::ServerHello(match *payload {
                [high, low, ..] => u16::from_be_bytes([high, low]),
                _ => AES128_SHA,
            }),
            2 => Self::Certificate(payload),
            3 => Self::Exchange(payload),
            4 => Self::Message(kind(&mut payload), payload),
            5 => Self::Keys,
            6 => Self::ChangeCipherSpec,
            7 => Self::Finished,
            8 => Self::Words,
            9 => Self::Listen,
            10 => Self::Record(kind(&mut payload), payload),
            11 => Self::Wire(payload),
            12 => Self::Fin,
            _ => Self::Reset,
        }
    }
}

/// The same record for ever, in the clear, in large pieces: who reads never finds nothing to read.
pub fn endless(minor: u8, kind: u8, payload: &[u8]) -> Step {
    let length = u16::try_from(payload.len()).expect("a record").to_be_bytes();
    Step::Spate([&[kind, 3, minor][..], &length, payload].concat())
}

/// A handshake message with its header.
pub fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("below 2^24").to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

/// The body of a certificate message.
pub fn certificates(chain: &[Vec<u8>]) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u32::try_from(bytes.len()).expect("below 2^24").to_be_bytes()[1..], bytes].concat();
    sized(&chain.iter().flat_map(|der| sized(der)).collect::<Vec<_>>())
}
