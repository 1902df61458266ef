//! The target's leg: TLS 1.0 to 1.2 by OpenSSL, with every setting explicit.
//!
//! tokio-openssl can't be this leg: it hides how the peer ended (`SSL_get_shutdown`) and ties
//! close_notify to TCP's FIN, which a server with an answer still to send would obey by dropping it.
//! So the leg drives `openssl::ssl::SslStream` over a non-blocking socket itself.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use openssl::error::ErrorStack;
use openssl::ssl::{
    self, ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslSessionCacheMode,
    SslStream, SslVersion,
};
use openssl::x509::X509;
use tokio::net::TcpStream;

use super::explain::{self, Explained};
use super::trust::{self, Judge, Refusal, Voucher};
use super::{inbound::is_reset, library};
use crate::config::Settings;
use crate::config::settings::{Keepalive, weak_ciphers};
use crate::config::values::{Version, Weak};
use crate::leg::socket::Socket;
use crate::leg::{Ending, Fill, Leg};

/// AES alone, ECDHE before RSA, no DHE: Schannel's DHE fails at random against other stacks
/// (KB4557473) and has 1024 bits. Some old servers look at the first 64 suites only.
pub const CIPHERS: &str = "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256:\
    ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:\
    ECDHE-RSA-AES256-SHA384:ECDHE-RSA-AES128-SHA256:ECDHE-RSA-AES256-SHA:ECDHE-RSA-AES128-SHA:\
    ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA:ECDHE-ECDSA-AES128-SHA:\
    AES256-GCM-SHA384:AES128-GCM-SHA256:AES256-SHA256:AES128-SHA256:AES256-SHA:AES128-SHA";

/// What Schannel knows stands first; it has no X25519.
pub const GROUPS: &str = "P-256:P-384:P-521:X25519";

/// Diffie-Hellman in the server's own group, where it is allowed.
const DHE: &str = "DHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-SHA256:\
    DHE-RSA-AES128-SHA256:DHE-RSA-AES256-SHA:DHE-RSA-AES128-SHA";
/// Triple DES, where it is allowed.
const TRIPLE_DES: &str = "ECDHE-RSA-DES-CBC3-SHA:DES-CBC3-SHA";
/// RC4, where it is allowed.
const RC4: &str = "ECDHE-RSA-RC4-SHA:RC4-SHA:RC4-MD5";

/// SHA-1 stands last, for servers that sign their key exchange with nothing else.
const SIGNATURES: &str = "RSA+SHA256:ECDSA+SHA256:RSA+SHA384:ECDSA+SHA384:RSA+SHA512:ECDSA+SHA512:\
    RSA-PSS+SHA256:RSA-PSS+SHA384:RSA-PSS+SHA512:RSA+SHA1:ECDSA+SHA1";

/// What can be wrong with the settings of the target's side, before any connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// OpenSSL knows none of the ciphers.
    #[error("ciphers: '{list}' names none that this OpenSSL has ({version})")]
    Ciphers {
        /// The admin's list.
        list: String,
        /// OpenSSL's version.
        version: String,
    },
    /// RC4 needs OpenSSL's legacy provider.
    #[error("ciphers: {0}")]
    Library(#[from] library::Error),
    /// The authorities can't be loaded.
    #[error(transparent)]
    Trust(#[from] trust::Error),
    /// OpenSSL refuses a setting.
    #[error("openssl: {0}")]
    OpenSsl(#[from] ErrorStack),
}

/// Opens TLS to one forwarder's target.
pub struct Connector {
    context: SslContext,
    judge: Judge,
    sni: Option<String>,
    keepalive: Keepalive,
    settings: Arc<Settings>,
}

impl Connector {
    /// Builds everything that the forwarder's connections share.
    ///
    /// # Errors
    /// Ciphers that OpenSSL doesn't have, authorities that can't be loaded.
    pub fn new(settings: Arc<Settings>) -> Result<Self, Error> {
        library::init();
        let is_rc4 = |word: &&str| word.to_ascii_uppercase().contains("RC4");
        let named = settings.ciphers.as_deref().map(weak_ciphers).unwrap_or_default();
        if settings.allows(Weak::Rc4) || named.iter().any(is_rc4) {
            // Before the context is made: that is when it fetches its ciphers.
            library::load_legacy_provider()?;
        }
        let mut context = SslContextBuilder::new(SslMethod::tls_client())?;
        // Certificates have a level of their own.
        context.set_security_level(settings.security_level);
        context.set_min_proto_version(Some(protocol(settings.min_tls)))?;
        context.set_max_proto_version(Some(protocol(settings.newest())))?;
        set_ciphers(&mut context, &settings)?;
        context.set_groups_list(GROUPS)?;
        context.set_sigalgs_list(SIGNATURES)?;
        // Whatever a configuration file or a default may have set.
        context.clear_options(SslOptions::all());
        context.set_options(options(&settings));
        context.set_mode(
            SslMode::AUTO_RETRY
                | SslMode::ACCEPT_MOVING_WRITE_BUFFER
                | SslMode::ENABLE_PARTIAL_WRITE
                | SslMode::RELEASE_BUFFERS,
        );
        context.set_session_cache_mode(SslSessionCacheMode::OFF);
        limit_chain(&mut context);
        let judge = Judge::new(&settings, &mut context)?;
        Ok(Self {
            context: context.build(),
            judge,
            sni: settings.sni_name().map(str::to_owned),
            keepalive: settings.keepalive.clone(),
            settings,
        })
    }

    /// Who vouches for the certificates that this connector accepts.
    pub fn voucher(&self) -> Voucher {
        self.judge.voucher()
    }

    /// Leads the TLS handshake on a fresh TCP connection to its end.
    ///
    /// # Errors
    /// [`Failed`]: refused certificate, or cause and cure of a failed handshake.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect(&self, tcp: TcpStream) -> Result<Outbound, Failed> {
        let socket = Socket::new(tcp, &self.keepalive).map_err(Failed::io)?;
        let mut ssl = Ssl::new(&self.context).map_err(Failed::openssl)?;
        ssl.set_connect_state();
        if let Some(name) = &self.sni {
            ssl.set_hostname(name).map_err(Failed::openssl)?;
        }
        let verdict = self.judge.attach(&mut ssl).map_err(|error| Failed::ours(error.to_string()))?;
        let stream = SslStream::new(ssl, socket).map_err(Failed::openssl)?;
        let mut leg = Outbound { stream, ended: None };
        let shaken = std::future::poll_fn(|cx| leg.drive(cx, SslStream::do_handshake)).await;
        if let Err(error) = shaken {
            if let Some(refusal) = verdict.get() {
                return Err(Failed::Certificate(Box::new(refusal.clone())));
            }
            let explained = explain::outbound(&error, leg.stream.get_ref().first_bytes(), &self.settings);
            return Err(Failed::Handshake(explained));
        }
        self.judge.confirm(leg.certificate().as_deref()).map_err(|refusal| Failed::Certificate(Box::new(refusal)))?;
        Ok(leg)
    }
}

/// Pads hellos of 256 to 511 bytes, at which some servers hang (RFC 7685): OpenSSL's
/// `SSL_OP_TLSEXT_PADDING`, for which the crate has no name.
const TLSEXT_PADDING: SslOptions = SslOptions::from_bits_retain(1 << 4);

/// The longest certificate message that is read, in bytes; what is longer ends the handshake. A dozen
/// certificates fit. OpenSSL's own limit of 100 KiB lets a hostile server take several hundred MiB
/// of memory (CVE-2026-35189).
const CHAIN: std::ffi::c_long = 32 << 10;

#[allow(unsafe_code)]
fn limit_chain(context: &mut SslContextBuilder) {
    /// `SSL_CTRL_SET_MAX_CERT_LIST` (ssl.h), for which the crates have no name.
    const SET_MAX_CERT_LIST: std::ffi::c_int = 51;
    // SAFETY: the context is alive, and this control takes a number and no pointer.
    unsafe { openssl_sys::SSL_CTX_ctrl(context.as_ptr(), SET_MAX_CERT_LIST, CHAIN, std::ptr::null_mut()) };
}

fn protocol(version: Version) -> SslVersion {
    match version {
        Version::Tls1_0 => SslVersion::TLS1,
        Version::Tls1_1 => SslVersion::TLS1_1,
        // A TLS 1.3 hello never leaves: it is too long and too new for the servers this is for.
        Version::Tls1_2 | Version::Tls1_3 => SslVersion::TLS1_2,
    }
}

/// Protocol options as the settings say. With no bit of its own, each is off.
fn options(settings: &Settings) -> SslOptions {
    let mut options = SslOptions::NO_COMPRESSION | SslOptions::NO_SSLV3 | TLSEXT_PADDING;
    if settings.allows(Weak::NoRfc5746) {
        options |= LEGACY_SERVER_CONNECT;
    }
    if !settings.empty_fragments {
        options |= SslOptions::DONT_INSERT_EMPTY_FRAGMENTS;
    }
    if !settings.extensions {
        options |= SslOptions::NO_TICKET | NO_EXTENDED_MASTER_SECRET | NO_ENCRYPT_THEN_MAC;
    }
    options
}

/// Connects to a server without RFC 5746, but never renegotiates with it (`SSL_OP_LEGACY_SERVER_CONNECT`).
const LEGACY_SERVER_CONNECT: SslOptions = SslOptions::from_bits_retain(1 << 2);
/// `SSL_OP_NO_EXTENDED_MASTER_SECRET`.
const NO_EXTENDED_MASTER_SECRET: SslOptions = SslOptions::from_bits_retain(1);
/// `SSL_OP_NO_ENCRYPT_THEN_MAC`.
const NO_ENCRYPT_THEN_MAC: SslOptions = SslOptions::from_bits_retain(1 << 19);

fn set_ciphers(context: &mut SslContextBuilder, settings: &Settings) -> Result<(), Error> {
    let list = settings.ciphers.as_deref().unwrap_or(CIPHERS);
    let unknown = |_| Error::Ciphers { list: list.to_owned(), version: library::version() };
    // Broken ones that were named stand last; a word that means many ciphers brings none in.
    let weak = weak_ciphers(list);
    let words = list.split([':', ',', ' ']).filter(|word| !word.is_empty());
    let strong: Vec<&str> = words.filter(|word| !weak.contains(word)).collect();
    let mut words = [strong, vec!["-RC4", "-3DES"]].concat();
    let allowed = [(Weak::Dhe, DHE), (Weak::TripleDes, TRIPLE_DES), (Weak::Rc4, RC4)];
    words.extend(allowed.iter().filter(|(weak, _)| settings.allows(*weak)).map(|(_, list)| *list));
    words.extend(weak);
    words.extend(["!aNULL", "!eNULL", "!EXPORT", "!DES", "!LOW"]);
    if !settings.extensions {
        // Curves are agreed on in an extension.
        words.extend(["!kECDHE"]);
    }
    context.set_cipher_list(&words.join(":")).map_err(unknown)
}

/// Why there is no TLS to the target.
#[derive(Debug)]
pub enum Failed {
    /// Its certificate was refused.
    Certificate(Box<Refusal>),
    /// The handshake failed.
    Handshake(Explained),
    /// Our own fault.
    Ours(String),
}

impl Failed {
    fn io(error: io::Error) -> Self {
        Self::Handshake(explain::io(&error))
    }

    fn openssl(error: ErrorStack) -> Self {
        Self::ours(format!("openssl: {error}"))
    }

    fn ours(cause: String) -> Self {
        Self::Ours(cause)
    }
}

/// The target's side of an established connection.
pub struct Outbound {
    stream: SslStream<Socket>,
    ended: Option<Ending>,
}

impl Outbound {
    /// `1.0`, `1.1` or `1.2`.
    pub fn version(&self) -> &'static str {
        match self.stream.ssl().version2() {
            Some(SslVersion::TLS1) => "1.0",
            Some(SslVersion::TLS1_1) => "1.1",
            Some(SslVersion::TLS1_2) => "1.2",
            _ => "-",
        }
    }

    /// The cipher suite by OpenSSL's name, which Exchange admins find in the same lists.
    pub fn suite(&self) -> &'static str {
        self.stream.ssl().current_cipher().map_or("-", |cipher| cipher.name())
    }

    /// Whether an earlier session was resumed.
    pub fn resumed(&self) -> bool {
        self.stream.ssl().session_reused()
    }

    /// The address that answered.
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        self.stream.get_ref().tcp().peer_addr().ok()
    }

    /// The certificate that the target showed.
    pub fn certificate(&self) -> Option<X509> {
        self.stream.ssl().peer_certificate()
    }

    /// Repeats one OpenSSL operation until it is done, waiting for whatever it wants.
    ///
    /// An operation may want the other direction: to write it may have to read first.
    fn drive<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut operation: impl FnMut(&mut SslStream<Socket>) -> Result<T, ssl::Error>,
    ) -> Poll<Result<T, ssl::Error>> {
        for _ in 0..ATTEMPTS {
            // What another connection on this thread has left would be taken for this one's failure
            // (SSL_get_error(3)).
            drop(ErrorStack::get());
            let error = match operation(&mut self.stream) {
                Ok(value) => return Poll::Ready(Ok(value)),
                Err(error) => error,
            };
            let tcp = self.stream.get_ref().tcp();
            // A failure of the wait itself shows in the next attempt.
            let _ = match error.code() {
                ErrorCode::WANT_READ if error.io_error().is_some() => ready!(tcp.poll_read_ready(cx)),
                ErrorCode::WANT_WRITE => ready!(tcp.poll_write_ready(cx)),
                ErrorCode::WANT_READ => Ok(()),
                _ => return Poll::Ready(Err(error)),
            };
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn note(&mut self, how: Ending) -> Fill {
        self.ended = Some(how);
        Fill::Ended(how)
    }
}

/// How often one operation goes on before other tasks get their turn: a peer that drips records
/// would otherwise keep a thread.
const ATTEMPTS: usize = 64;

impl Leg for Outbound {
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Fill>> {
        if let Some(how) = self.ended {
            return Poll::Ready(Ok(Fill::Ended(how)));
        }
        let error = match ready!(self.drive(cx, |stream| stream.ssl_read(buffer))) {
            Ok(count) => return Poll::Ready(Ok(Fill::Bytes(count))),
            Err(error) => error,
        };
        Poll::Ready(match error.code() {
            ErrorCode::ZERO_RETURN => Ok(self.note(Ending::CloseNotify)),
            ErrorCode::SYSCALL if error.io_error().is_none_or(|cause| cause.kind() == io::ErrorKind::UnexpectedEof) => {
                Ok(self.note(Ending::Fin))
            }
            ErrorCode::SYSCALL if error.io_error().is_some_and(is_reset) => Ok(self.note(Ending::Reset)),
            ErrorCode::SSL if explain::is_unexpected_eof(&error) => Ok(self.note(Ending::Fin)),
            _ => Err(as_io(error)),
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.drive(cx, |stream| stream.ssl_write(bytes)).map_err(as_io)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // OpenSSL reports a write as done when the kernel has it.
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, how: Ending) -> Poll<io::Result<()>> {
        match how {
            Ending::Reset => Poll::Ready(self.stream.get_mut().abort()),
            Ending::Fin => Poll::Ready(self.stream.get_ref().finish()),
            // No FIN yet: IIS takes it for a client that has gone. It follows when the target has ended.
            Ending::CloseNotify => match ready!(self.drive(cx, SslStream::shutdown)) {
                Ok(_) => Poll::Ready(Ok(())),
                Err(error) if error.code() == ErrorCode::ZERO_RETURN => Poll::Ready(Ok(())),
                Err(error) => Poll::Ready(Err(as_io(error))),
            },
        }
    }

    fn is_gone(&self) -> bool {
        self.stream.get_ref().is_gone()
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.get_mut().poll_linger(cx)
    }
}

fn as_io(error: ssl::Error) -> io::Error {
    error.into_io_error().unwrap_or_else(|error| io::Error::other(explain::openssl_text(&error)))
}
