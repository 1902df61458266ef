//! `auto`: which switches a target needs, found by connecting, and no more than it needs.
//!
//! First a modern offer. If that is refused, offers that hide less and less of what is old, until a
//! handshake succeeds; then each switch is taken away again, the weakest first, and stays away where
//! the handshake still succeeds. No certificate is judged here and no byte of a client's is sent:
//! what was found is then tried with verification on, by whoever asked.
//!
//! Adding a switch is not always harmless, so the order is not one ladder: a cap hides TLS 1.2 from a
//! server that speaks nothing else. Every cap is tried without weak ciphers before any weak cipher is.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::dialer::{Dialed, Dialer, Reached};
use super::failure::{Failure, Kind};
use super::resolver::Resolver;
use crate::config::Settings;
use crate::config::settings::Trust;
use crate::config::values::{Version, Weak};
use crate::leg::{Fill, Leg};
use crate::tls::{outbound, reference};

/// What a target may need to be spoken to differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switches {
    /// The newest version offered; a cap below 1.2 is for servers that choke on newer ones.
    pub max_tls: Version,
    /// OpenSSL's security level, 2 to 0.
    pub security_level: u32,
    /// Whether the ClientHello carries extensions.
    pub extensions: bool,
    /// Weak things offered.
    pub allow_weak: Vec<Weak>,
    /// Whether empty records go before each one in TLS 1.0.
    pub empty_fragments: bool,
}

impl Switches {
    /// What a modern server gets.
    pub const MODERN: Self = Self {
        max_tls: Version::Tls1_2,
        security_level: 2,
        extensions: true,
        allow_weak: Vec::new(),
        empty_fragments: true,
    };

    /// What the oldest and oddest server gets.
    fn oldest() -> Self {
        Self {
            max_tls: Version::Tls1_0,
            security_level: 0,
            extensions: false,
            allow_weak: Weak::ALL.to_vec(),
            empty_fragments: true,
        }
    }

    /// The settings with these switches.
    #[must_use]
    pub fn over(&self, settings: &Settings) -> Settings {
        Settings {
            min_tls: Version::Tls1_0,
            max_tls: self.max_tls,
            security_level: self.security_level,
            extensions: self.extensions,
            allow_weak: self.allow_weak.clone(),
            empty_fragments: self.empty_fragments,
            ciphers: None,
            ..settings.clone()
        }
    }

    /// The least for two targets, of which each needs one of these.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let needed = |weak: &Weak| self.allow_weak.contains(weak) || other.allow_weak.contains(weak);
        Self {
            max_tls: self.max_tls.min(other.max_tls),
            security_level: self.security_level.min(other.security_level),
            extensions: self.extensions && other.extensions,
            allow_weak: Weak::ALL.into_iter().filter(needed).collect(),
            empty_fragments: self.empty_fragments && other.empty_fragments,
        }
    }

    fn without(&self, weak: Weak) -> Self {
        let allow_weak = self.allow_weak.iter().copied().filter(|allowed| *allowed != weak).collect();
        Self { allow_weak, ..self.clone() }
    }

    fn at_level(&self, level: u32) -> Self {
        Self { security_level: level.max(self.security_level), ..self.clone() }
    }

    /// Above level 0 there is no TLS below 1.2, and 1.2 needs extensions.
    fn offers_nothing(&self) -> bool {
        self.security_level > 0 && (self.max_tls < Version::Tls1_2 || !self.extensions)
    }

    fn up_to(&self, newest: Version) -> Self {
        // Without extensions TLS 1.2 can't be offered.
        let newest = if self.extensions { newest } else { newest.min(Version::Tls1_1) };
        Self { max_tls: newest.max(self.max_tls), ..self.clone() }
    }
}

/// What a search has found.
pub struct Found {
    /// The least that the target needs.
    pub switches: Switches,
    /// What the last successful handshake showed.
    pub reached: Reached,
    /// How many connections it took.
    pub connections: usize,
    /// Whether every switch was tried to be taken away; else the limit came first.
    pub is_least: bool,
    /// What came back on the one request that TLS 1.0's empty records need for their trial.
    pub answer: Option<Answer>,
}

/// What came back on a request, at least the head if it is HTTP.
pub struct Answer {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// From the request on.
    pub time: Duration,
}

/// Why a search ended without an answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings can't be used.
    #[error(transparent)]
    Settings(#[from] outbound::Error),
    /// The target is not reached, does not speak TLS, or refuses whatever we can offer.
    #[error("{0}")]
    Target(Box<Failure>),
}

/// After a refusal, before the next connection: some servers and firewalls block who comes too fast.
const PAUSE: Duration = Duration::from_millis(200);
/// So many handshakes without an end show a server that never answers.
const SILENCES: usize = 4;
/// How long one handshake may take at most: slow servers are known to take 6 s.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The same once a hello was met with silence: what is left is a server that hangs at some hellos only.
const AFTER_SILENCE: Duration = Duration::from_secs(4);
/// How long the answer to one request may take, in the trial of TLS 1.0's empty records.
const ANSWER: Duration = Duration::from_secs(5);

/// The most of an answer that is read.
const HEAD: usize = 16 << 10;
/// The page that every Exchange has, and answers with 401 to a stranger.
pub const PAGE: &str = "/EWS/Exchange.asmx";

/// Caps, with and without extensions, in the order in which they are tried.
const SHAPES: [(Version, bool); 5] = [
    (Version::Tls1_2, true),
    (Version::Tls1_1, true),
    (Version::Tls1_0, true),
    (Version::Tls1_1, false),
    (Version::Tls1_0, false),
];

/// All that was offered before a search ends in vain.
const TRIED: &str = "TLS 1.2, 1.1, 1.0, with and without extensions, with AES, DHE, 3DES, RC4";

/// Finds the least that the one target of `settings` needs.
///
/// Weak things are offered whether allowed or not, so that the answer can say what is missing; the
/// caller asks before it uses them. One connection after another: at most 12 until one is taken, some 9
/// to take switches away, again where a cap has gone, and 2 for empty records.
///
/// # Errors
/// [`Error::Target`] with the failure that tells most.
///
/// # Cancel safety
/// Dropping the future closes the open connection.
pub async fn search(settings: &Settings, resolver: &Resolver) -> Result<Found, Error> {
    search_within(settings, resolver, usize::MAX, &mut |_| {}).await
}

/// The same with at most so many connections, at least 12; who follows it hears of each before it is
/// opened.
///
/// # Errors
/// As [`search`].
///
/// # Cancel safety
/// As [`search`].
pub async fn search_within(
    settings: &Settings,
    resolver: &Resolver,
    most: usize,
    follow: &mut (dyn FnMut(&Switches) + Send),
) -> Result<Found, Error> {
    let (tried, silences) = (Vec::new(), Vec::new());
    let mut search =
        Search { settings, resolver, most, follow, tried, silences, refused: false, answered: false, answer: None };
    let (switches, reached) = search.first().await?;
    let (switches, reached, is_least) = search.least(switches, reached).await?;
    let (switches, reached) = search.fragments(switches, reached).await?;
    Ok(Found { switches, reached, connections: search.tried.len(), is_least, answer: search.answer })
}

struct Search<'a> {
    settings: &'a Settings,
    resolver: &'a Resolver,
    most: usize,
    follow: &'a mut (dyn FnMut(&Switches) + Send),
    tried: Vec<Switches>,
    silences: Vec<Failure>,
    refused: bool,
    /// Something came back: silence is from then on an answer to one hello, and no server that never answers.
    answered: bool,
    answer: Option<Answer>,
}

impl Search<'_> {
    /// The first offer that is taken.
    async fn first(&mut self) -> Result<(Switches, Reached), Error> {
        let modern = self.attempt(&Switches::MODERN).await?;
        let mut told = match modern {
            Ok(reached) => return Ok((Switches::MODERN, reached)),
            Err(failure) => failure,
        };
        if told.kind == Kind::Silent {
            // A device that hangs at what it does not know would cost a deadline for each offer in
            // between, and be taken for one that never answers.
            let oldest = Switches::oldest();
            if let Ok(reached) = self.attempt(&oldest).await? {
                return Ok((oldest, reached));
            }
        }
        for weak in [&[Weak::NoRfc5746][..], &Weak::ALL[..]] {
            for (max_tls, extensions) in SHAPES {
                let switches = Switches {
                    max_tls,
                    extensions,
                    security_level: 0,
                    allow_weak: weak.to_vec(),
                    empty_fragments: true,
                };
                if self.tried.contains(&switches) {
                    continue;
                }
                match self.attempt(&switches).await? {
                    Ok(reached) => return Ok((switches, reached)),
                    // The widest offer with extensions says most about why.
                    Err(failure) if max_tls == Version::Tls1_2 => told = failure,
                    Err(_) => {}
                }
            }
        }
        told.cause = format!("{}; tried {TRIED}", told.cause);
        Err(Error::Target(Box::new(told)))
    }

    /// Takes each switch away that the target can do without, the weakest first; whether all were tried.
    async fn least(&mut self, mut kept: Switches, mut reached: Reached) -> Result<(Switches, Reached, bool), Error> {
        // Each gives back what it was given where there is nothing to take away.
        let steps: [fn(&Switches) -> Switches; 9] = [
            |now| now.without(Weak::Rc4),
            |now| now.without(Weak::TripleDes),
            |now| now.without(Weak::Dhe),
            |now| Switches { extensions: true, ..now.clone() },
            |now| now.without(Weak::NoRfc5746),
            |now| now.up_to(Version::Tls1_2),
            |now| now.up_to(Version::Tls1_1),
            |now| now.at_level(2),
            |now| now.at_level(1),
        ];
        // What could not be spared beside a cap may be once the cap is gone.
        loop {
            let before = kept.clone();
            for step in steps {
                let less = step(&kept);
                if less == kept || less.offers_nothing() || self.tried.contains(&less) {
                    continue;
                }
                if self.is_spent() {
                    return Ok((kept, reached, false));
                }
                if let Ok(again) = self.attempt(&less).await? {
                    (kept, reached) = (less, again);
                }
            }
            if kept == before {
                return Ok((kept, reached, true));
            }
        }
    }

    fn is_spent(&self) -> bool {
        self.tried.len() >= self.most
    }

    /// TLS 1.0 with a block cipher: whether requests behind an empty record are answered. A server that
    /// answers neither way keeps the empty records.
    async fn fragments(&mut self, kept: Switches, reached: Reached) -> Result<(Switches, Reached), Error> {
        let has_none = reached.version != "1.0" || reached.suite.contains("RC4");
        if has_none || self.is_spent() || self.answers(&kept).await? {
            return Ok((kept, reached));
        }
        let plain = Switches { empty_fragments: false, ..kept.clone() };
        let kept = if !self.is_spent() && self.answers(&plain).await? { plain } else { kept };
        Ok((kept, reached))
    }

    async fn attempt(&mut self, switches: &Switches) -> Result<Result<Reached, Failure>, Error> {
        Ok(match self.dial(switches).await? {
            Ok(dialed) => Ok(dialed.close().await),
            Err(failure) => Err(failure),
        })
    }

    async fn answers(&mut self, switches: &Switches) -> Result<bool, Error> {
        let Ok(mut dialed) = self.dial(switches).await? else { return Ok(false) };
        let began = Instant::now();
        let request = reference::request(&self.settings.verified_name().to_string(), PAGE);
        let mut bytes = Vec::new();
        let _ = timeout(ANSWER, answer(&mut dialed, request.as_bytes(), &mut bytes)).await;
        dialed.close().await;
        let answered = !bytes.is_empty();
        if answered {
            self.answer = Some(Answer { bytes, time: began.elapsed() });
        }
        Ok(answered)
    }

    /// One connection; what no switch can change ends the search.
    async fn dial(&mut self, switches: &Switches) -> Result<Result<Dialed, Failure>, Error> {
        if std::mem::take(&mut self.refused) {
            sleep(PAUSE).await;
        }
        (self.follow)(switches);
        self.tried.push(switches.clone());
        let mut settings = Settings { trust: Trust::Insecure, ..switches.over(self.settings) };
        let limit = if self.silences.is_empty() { HANDSHAKE } else { AFTER_SILENCE };
        settings.deadlines.handshake = settings.deadlines.handshake.min(limit);
        let failure = match Dialer::new(None, Arc::new(settings), self.resolver.clone())?.dial().await {
            Ok(dialed) => {
                self.answered = true;
                return Ok(Ok(dialed));
            }
            Err(failure) => failure,
        };
        self.refused = true;
        self.answered |= failure.kind != Kind::Silent;
        if failure.kind == Kind::Silent {
            self.silences.push(failure.clone());
        }
        if failure.stage != "TLS handshake" || failure.kind == Kind::Foreign {
            return Err(Error::Target(Box::new(failure)));
        }
        if !self.answered && self.silences.len() >= SILENCES {
            // The first was given the most time.
            let mut told = self.silences.swap_remove(0);
            told.cause = format!("{}; nor to {} others", told.cause, SILENCES - 1);
            return Err(Error::Target(Box::new(told)));
        }
        Ok(Err(failure))
    }
}

/// Reads what comes back: the head of an answer, or the first bytes if it is no HTTP.
async fn answer(dialed: &mut Dialed, mut request: &[u8], bytes: &mut Vec<u8>) {
    while !request.is_empty() {
        match poll_fn(|cx| dialed.leg.poll_write(cx, request)).await {
            Ok(count) => request = &request[count..],
            Err(_) => return,
        }
    }
    let mut buffer = [0; 2048];
    // Some servers send the first byte in a record of its own.
    while bytes.len() < HEAD && reference::needs_more(bytes) {
        match poll_fn(|cx| dialed.leg.poll_fill(cx, &mut buffer)).await {
            Ok(Fill::Bytes(count)) => bytes.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
}
