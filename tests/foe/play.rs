//! Plays a script on one connection: a TLS server that keeps to the rules only as far as it is told.

use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Padding;
use openssl::sign::Signer;
use socket2::SockRef;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::keys::{self, Direction};
use super::script::{Cut, Script, Step, WORDS, certificates, handshake, message, record};

/// The server's certificate and key.
#[derive(Clone)]
pub struct Owner {
    pub certificate: Vec<u8>,
    pub key: PKey<Private>,
}

/// How long a server waits for a client.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For what a step waits for; then the next step comes.
    pub step: Duration,
    /// For the end, after the last step.
    pub end: Duration,
}

/// Plays a script to its end, or until the client has gone, and waits for the client's end. Gives what
/// it has said that a client may pass on: data under the right keys, after a Finished.
pub async fn play(script: &Script, owner: &Owner, tcp: TcpStream, patience: Patience) -> Vec<u8> {
    // Each record leaves when it is said. A peer that is gone already shows with the first.
    let _ = tcp.set_nodelay(true);
    let mut player = Player::new(script, owner, tcp, patience);
    for step in &script.steps {
        match player.step(step).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return player.said,
            Err(_) => break,
        }
    }
    let mut rest = [0; 4096];
    let drained = async { while let Ok(1..) = player.tcp.read(&mut rest).await {} };
    let _ = tokio::time::timeout(patience.end, drained).await;
    player.said
}

struct Player<'a> {
    minor: u8,
    cut: Option<(usize, Cut)>,
    owner: &'a Owner,
    tcp: TcpStream,
    patience: Patience,
    /// What has come and is not understood yet: raw, and the handshake messages in it.
    raw: Vec<u8>,
    messages: Vec<u8>,
    /// All messages since the last ClientHello.
    transcript: Vec<u8>,
    client_random: Vec<u8>,
    master: Vec<u8>,
    /// The current Finished messages, which a renegotiation must name (RFC 5746).
    verified: (Vec<u8>, Vec<u8>),
    /// The keys in use, and those to come with the next ChangeCipherSpec.
    reading: Option<Direction>,
    writing: Option<Direction>,
    next: (Option<Direction>, Option<Direction>),
    heard: Heard,
    finished: bool,
    said: Vec<u8>,
}

/// What the client has said since it was last waited for.
#[derive(Default)]
struct Heard {
    hello: bool,
    finished: bool,
    anything: bool,
}

/// A server's random number; nothing here needs it to be one.
const RANDOM: [u8; 32] = [7; 32];

impl<'a> Player<'a> {
    fn new(script: &Script, owner: &'a Owner, tcp: TcpStream, patience: Patience) -> Self {
        Self {
            minor: script.minor,
            cut: script.cut,
            owner,
            tcp,
            patience,
            raw: Vec::new(),
            messages: Vec::new(),
            transcript: Vec::new(),
            client_random: vec![0; 32],
            master: vec![0; 48],
            verified: Default::default(),
            reading: None,
            writing: None,
            next: (None, None),
            heard: Heard::default(),
            finished: false,
            said: Vec::new(),
        }
    }

    async fn step(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::Hello => self.listen(|heard| std::mem::take(&mut heard.hello)).await,
            Step::Keys => self.listen(|heard| std::mem::take(&mut heard.finished)).await,
            Step::Listen => self.listen(|heard| std::mem::take(&mut heard.anything)).await,
            Step::ServerHello(suite) => {
                let body = self.server_hello(*suite);
                self.say(message::SERVER_HELLO, &body).await
            }
            Step::Certificate(der) => {
                let der = if der.is_empty() { &self.owner.certificate } else { der };
                self.say(message::CERTIFICATE, &certificates(std::slice::from_ref(der))).await
            }
            Step::Exchange(parameters) => {
                let body = self.signed(parameters);
                self.say(message::KEY_EXCHANGE, &body).await
            }
            Step::Message(kind, body) => self.say(*kind, body).await,
            Step::ChangeCipherSpec => {
                self.record(record::CHANGE_CIPHER_SPEC, &[1]).await?;
                self.writing = self.next.1.take().or(self.writing.take());
                Ok(())
            }
            Step::Finished => {
                let said = keys::verify_data(self.minor, &self.master, b"server finished", &self.transcript);
                self.verified.1.clone_from(&said);
                self.finished = self.writing.is_some();
                self.say(message::FINISHED, &said).await
            }
            Step::Words => self.record(record::DATA, WORDS).await,
            Step::Record(kind, payload) => self.record(*kind, payload).await,
            Step::Wire(bytes) => self.write(bytes).await,
            Step::Flood(kind, payload) => loop {
                self.record(*kind, payload).await?;
            },
            Step::Spate(bytes) => {
                // In large pieces: the client shall never find its socket empty.
                let bytes = bytes.repeat((64 << 10) / bytes.len().max(1) + 1);
                loop {
                    self.write(&bytes).await?;
                }
            }
            Step::Hold => self.end(Cut::Silence).await,
            Step::Fin => self.end(Cut::Fin).await,
            Step::Reset => self.end(Cut::Reset).await,
        }
    }

    async fn end(&mut self, how: Cut) -> io::Result<()> {
        match how {
            Cut::Silence => {
                while self.tcp.read(&mut [0; 4096]).await? > 0 {}
                Ok(())
            }
            Cut::Fin => self.tcp.shutdown().await,
            Cut::Reset => {
                SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO))?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some((left, how)) = &mut self.cut else { return self.tcp.write_all(bytes).await };
        let (now, how) = (bytes.len().min(*left), *how);
        *left -= now;
        self.tcp.write_all(&bytes[..now]).await?;
        if now < bytes.len() {
            self.end(how).await?;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }

    async fn record(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        if kind == record::DATA && self.finished {
            self.said.extend_from_slice(payload);
        }
        let body = match &mut self.writing {
            Some(keys) => keys.seal(kind, payload),
            None => payload.to_vec(),
        };
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
        let head = [kind, 3, self.minor];
        self.write(&[&head[..], &length.to_be_bytes(), &body].concat()).await
    }

    async fn say(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let message = handshake(kind, body);
        if kind != message::HELLO_REQUEST {
            self.transcript.extend_from_slice(&message);
        }
        for piece in message.chunks(16 << 10) {
            self.record(record::HANDSHAKE, piece).await?;
        }
        Ok(())
    }

    fn server_hello(&self, suite: u16) -> Vec<u8> {
        let verified = [&self.verified.0[..], &self.verified.1].concat();
        let length = u8::try_from(verified.len()).expect("24 bytes");
        // No session, no compression; then renegotiation_info (RFC 5746 §3.2).
        let head = [&[3, self.minor], &RANDOM[..], &[0], &suite.to_be_bytes(), &[0]].concat();
        [&head[..], &[0, 5 + length, 0xff, 1, 0, 1 + length, length], &verified].concat()
    }

    /// Parameters of a key exchange, signed with RSA.
    fn signed(&self, parameters: &[u8]) -> Vec<u8> {
        let text = [&self.client_random[..], &RANDOM, parameters].concat();
        let sized = |signature: &[u8]| {
            let length = u16::try_from(signature.len()).expect("a signature").to_be_bytes();
            [&length[..], signature].concat()
        };
        if self.minor == 3 {
            let mut signer = Signer::new(MessageDigest::sha256(), &self.owner.key).expect("a signer");
            signer.update(&text).expect("a signer");
            return [parameters, &[4, 1], &sized(&signer.sign_to_vec().expect("a signature"))].concat();
        }
        let of = |digest| openssl::hash::hash(digest, &text).expect("a digest").to_vec();
        let digests = [of(MessageDigest::md5()), of(MessageDigest::sha1())].concat();
        let rsa = self.owner.key.rsa().expect("RSA");
        let mut signature = vec![0; rsa.size() as usize];
        rsa.private_encrypt(&digests, &mut signature, Padding::PKCS1).expect("a signature");
        [parameters, &sized(&signature)].concat()
    }

    /// Reads until something was heard or the patience is over.
    async fn listen(&mut self, has_come: impl Fn(&mut Heard) -> bool) -> io::Result<()> {
        let until = tokio::time::Instant::now() + self.patience.step;
        while !has_come(&mut self.heard) {
            let mut buffer = [0; 4096];
            match tokio::time::timeout_at(until, self.tcp.read(&mut buffer)).await {
                Err(_) => return Ok(()),
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.raw.extend_from_slice(&buffer[..count?]),
            }
            self.understand();
        }
        Ok(())
    }

    fn understand(&mut self) {
        while let [kind, _, _, high, low, rest @ ..] = &self.raw[..] {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            if rest.len() < length {
                return;
            }
            let (kind, body) = (*kind, rest[..length].to_vec());
            self.raw.drain(..5 + length);
            let plain = self.reading.as_mut().map_or(body.clone(), |keys| keys.open(&body));
            match kind {
                record::CHANGE_CIPHER_SPEC => self.reading = self.next.0.take().or(self.reading.take()),
                record::HANDSHAKE => self.messages.extend(plain),
                record::DATA => self.heard.anything |= !plain.is_empty(),
                _ => {}
            }
            self.take_messages();
        }
    }

    fn take_messages(&mut self) {
        while let [kind, a, b, c, rest @ ..] = &self.messages[..] {
            let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).expect("24 bits");
            if rest.len() < length {
                return;
            }
            let (kind, body) = (*kind, rest[..length].to_vec());
            let whole: Vec<u8> = self.messages.drain(..4 + length).collect();
            self.take_message(kind, &body, &whole);
        }
    }

    fn take_message(&mut self, kind: u8, body: &[u8], whole: &[u8]) {
        const CLIENT_HELLO: u8 = 1;
        const CLIENT_KEY_EXCHANGE: u8 = 16;
        match kind {
            CLIENT_HELLO => {
                self.transcript.clear();
                self.client_random = body.get(2..34).map_or_else(|| vec![0; 32], <[u8]>::to_vec);
                self.heard.hello = true;
            }
            CLIENT_KEY_EXCHANGE => {
                self.master = keys::master(self.minor, &self.owner.key, body, &self.client_random, &RANDOM);
                let (up, down) = keys::directions(self.minor, &self.master, &self.client_random, &RANDOM);
                self.next = (Some(up), Some(down));
            }
            message::FINISHED => {
                self.verified.0 = body.to_vec();
                self.heard.finished = true;
            }
            _ => {}
        }
        self.transcript.extend_from_slice(whole);
    }
}
